//! Terminals of the host.
use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use sandbox::spec::ConsoleSize;

use crate::launch::Streams;

/// How many descriptors a program can be given beside its streams.
const MAX_PRESERVED: u32 = 64;

/// This process's own terminal, for a program that wants one.
///
/// # Errors
/// When it cannot be duplicated.
pub(crate) fn own(wanted: bool) -> Result<Option<OwnedFd>> {
    let stdin = std::io::stdin();
    Ok(if wanted && stdin.is_terminal() { Some(stdin.as_fd().try_clone_to_owned()?) } else { None })
}

/// That terminal, or the streams of this process.
///
/// # Errors
/// When one cannot be duplicated.
pub(crate) fn streams(tty: Option<&OwnedFd>) -> Result<Streams> {
    match tty {
        Some(tty) => Ok(Streams { fds: vec![tty.try_clone()?], own_terminal: false, preserved: 0 }),
        None => Streams::inherit(),
    }
}

/// Descriptors from 3 up that the caller wants the program to have, and those of `LISTEN_FDS` (sd_listen_fds(3)) first.
///
/// # Errors
/// When one is not open.
pub(crate) fn preserved(count: u32) -> Result<Vec<OwnedFd>> {
    let listening: u32 = std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let count = count.checked_add(listening).filter(|count| *count <= MAX_PRESERVED);
    let count =
        count.with_context(|| format!("more than {MAX_PRESERVED} descriptors are to be preserved"))?;
    (3..3 + count)
        .map(|number| {
            let number = i32::try_from(number)?;
            sandbox::duplicate(number).with_context(|| format!("descriptor {number} is to be preserved"))
        })
        .collect()
}

/// Makes a terminal, whose other end goes to who listens on a socket.
///
/// # Errors
/// When there is no terminal to be had, or nobody listens.
pub(crate) fn for_socket(socket: &Path, size: Option<ConsoleSize>) -> Result<Streams> {
    let pty = nix::pty::openpty(None, None).context("make a terminal")?;
    // The line discipline is the container's own terminal's; this one only carries bytes.
    let mut settings = tcgetattr(&pty.slave).context("terminal")?;
    cfmakeraw(&mut settings);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).context("terminal")?;
    if let Some(size) = size {
        sandbox::set_terminal_size(pty.master.as_fd(), size.height, size.width).context("terminal")?;
    }
    let name = nix::unistd::ttyname(&pty.slave).context("terminal")?;
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    let fds = [pty.master.as_raw_fd()];
    let bytes = [std::io::IoSlice::new(name.as_os_str().as_encoded_bytes())];
    sendmsg::<()>(
        stream.as_raw_fd(),
        &bytes,
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .context("send the terminal")?;
    Ok(Streams { fds: vec![pty.slave], own_terminal: true, preserved: 0 })
}
