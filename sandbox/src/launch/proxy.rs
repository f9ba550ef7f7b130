//! A process that stays behind in place of a program of a sandbox, for callers that wait for a process of the host.
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::nobody::{self, Forked, Gate};
use super::{CHANNEL_FD, Guard, LaunchError, host, program};
use crate::control::Channel;
use crate::sys;

/// What the process says when it is as confined as it will be, and passes signals on.
pub(crate) const READY: &str = "ready";
/// The name of the program, where no process of the container is named.
pub(crate) const FIRST: &str = "first";

/// What such a process is made of.
#[derive(Debug)]
pub struct ProxyArgs<'a> {
    /// The connection on which the end of the program is told.
    pub channel: &'a Channel,
    /// The program's id in its container; that of the first if missing.
    pub pid: Option<i32>,
    /// The terminal whose sizes it tells.
    pub terminal: Option<BorrowedFd<'a>>,
    /// Files that it writes `0` to first, to become a member of control groups.
    pub doors: &'a [OwnedFd],
    /// Where it reports what goes wrong with itself.
    pub report: BorrowedFd<'a>,
    /// Whether that is JSON.
    pub report_json: bool,
}

/// Starts it; on return it is confined, and its exit code will be the program's. To be called by a process of one thread.
///
/// # Errors
/// [`LaunchError`]; then there is no such process.
pub fn proxy(args: &ProxyArgs<'_>) -> Result<i32, LaunchError> {
    let program = program::of_this_process().map_err(host("open this program"))?;
    let (answer, told) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| host("pipe")(e.into()))?;
    let gate = match nobody::fork("start a process that stays behind", None)? {
        Forked::Parent(proxy) => {
            drop(told);
            let mut guard = Guard(vec![proxy.pid]);
            let pid = proxy.pid;
            proxy.admit()?;
            let mut text = String::new();
            std::fs::File::from(answer).read_to_string(&mut text).map_err(host("read"))?;
            if text != READY {
                return Err(LaunchError::Proxy(text));
            }
            guard.0.clear();
            return Ok(pid);
        }
        Forked::Child(gate) => gate,
    };
    drop(answer);
    let error = become_proxy(args, &program, &told, gate);
    // Nobody is there to be told that this fails.
    let _unheard = std::fs::File::from(told).write_all(error.to_string().as_bytes());
    sys::exit_now(1)
}

/// Prepares and executes; returns why it could not.
fn become_proxy(args: &ProxyArgs<'_>, program: &OwnedFd, told: &OwnedFd, gate: Gate) -> io::Error {
    let pid = args.pid.map_or_else(|| FIRST.to_owned(), |pid| pid.to_string());
    let terminal = if args.terminal.is_some() { "terminal" } else { "" };
    let format = if args.report_json { "json" } else { "text" };
    match prepare(args, program, told, gate) {
        Ok(program) => sys::exec_fd(program.as_fd(), &["runsc", "proxy", &pid, terminal, format], &[]),
        Err(error) => error,
    }
}

fn prepare(args: &ProxyArgs<'_>, program: &OwnedFd, told: &OwnedFd, gate: Gate) -> io::Result<OwnedFd> {
    super::enter_groups(args.doors)?;
    nix::unistd::setsid()?;
    if let Some(terminal) = args.terminal {
        sys::take_controlling_terminal(terminal)?;
    }
    super::sentry::streams(args.report)?;
    gate.pass()?;
    let mut kept = vec![args.channel.as_fd(), told.as_fd(), program.as_fd()];
    kept.extend(args.terminal);
    sys::keep_only(&kept)?;
    super::program_at(CHANNEL_FD + 2)
}
