//! The program that stays behind in place of a program of a sandbox.
use std::io;
use std::os::fd::OwnedFd;

use crate::boot::leave_host;
use crate::control::Channel;
use crate::launch::{CHANNEL_FD, FIRST, READY};
use crate::{seccomp, sys};

/// What it has.
#[derive(Debug)]
pub struct Proxy {
    /// The program's id in its container; that of the first if missing.
    pub pid: Option<i32>,
    /// The connection on which the program's end is told.
    pub channel: Channel,
    /// The terminal whose sizes it tells.
    pub terminal: Option<OwnedFd>,
}

/// Tells the launcher that all is done that it waits for.
#[derive(Debug)]
pub struct Ready(OwnedFd);

impl Ready {
    /// Tells it.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn tell(self) -> io::Result<()> {
        Ok(nix::unistd::write(&self.0, READY.as_bytes()).map(drop)?)
    }
}

/// The program `runsc proxy`: confines itself, and does what is to be done; returns its exit code, 137 where that fails.
#[must_use]
pub fn main(
    pid: &str,
    terminal: &str,
    format: &str,
    run: impl FnOnce(&Proxy, Ready) -> Result<i32, String>,
) -> i32 {
    sys::bound_arenas();
    let entered = enter(pid, !terminal.is_empty()).map_err(|error| error.to_string());
    match entered.and_then(|(proxy, ready)| run(&proxy, ready)) {
        Ok(code) => code,
        Err(error) => {
            let line = crate::boot::report::format_line(format == "json", "warning", &error);
            // The report may be nowhere.
            let _unheard = nix::unistd::write(io::stderr(), line.as_bytes());
            137
        }
    }
}

/// Takes what the launcher left, and gives up everything else.
fn enter(pid: &str, has_terminal: bool) -> io::Result<(Proxy, Ready)> {
    let channel = Channel::new(sys::take_fd(CHANNEL_FD)?);
    let told = sys::take_fd(CHANNEL_FD + 1)?;
    // The descriptor between them was the program's, which is closed now.
    let terminal = if has_terminal { Some(sys::take_fd(CHANNEL_FD + 3)?) } else { None };
    let confined = number(pid).and_then(|pid| confine().map(|()| pid));
    match confined {
        Ok(pid) => Ok((Proxy { pid, channel, terminal }, Ready(told))),
        Err(error) => {
            // The report says it too.
            let _unheard = nix::unistd::write(&told, error.to_string().as_bytes());
            Err(error)
        }
    }
}

fn number(pid: &str) -> io::Result<Option<i32>> {
    if pid == FIRST { Ok(None) } else { pid.parse().map(Some).map_err(io::Error::other) }
}

fn confine() -> io::Result<()> {
    leave_host(c"runsc-proxy").map_err(io::Error::other)?;
    nix::sys::prctl::set_dumpable(false)?;
    seccomp::install(&seccomp::proxy::rules()).map_err(io::Error::other)
}
