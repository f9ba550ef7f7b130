//! The sentry's process, up to the point where it executes its program.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::nobody::{self, Forked, Gate};
use super::{CHANNEL_FD, LaunchArgs, LaunchError};
use crate::boot::report::format_line;
use crate::sys;

/// Makes standard input and output nothing, and standard error the place for reports.
pub(super) fn streams(report: BorrowedFd<'_>) -> io::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    sys::replace_standard(2, report)?;
    sys::replace_standard(0, null.as_fd())?;
    sys::replace_standard(1, null.as_fd())
}

/// Starts it; it waits until its ids are mapped.
pub(super) fn start(
    program: &OwnedFd,
    channel: OwnedFd,
    report: BorrowedFd<'_>,
    args: &LaunchArgs,
) -> Result<i32, LaunchError> {
    let gate = match nobody::fork("start the sentry", args.network.as_ref())? {
        Forked::Parent(sentry) => {
            let pid = sentry.pid;
            super::adjust_oom_score(pid, args)?;
            sentry.admit()?;
            return Ok(pid);
        }
        Forked::Child(gate) => gate,
    };
    let error = become_sentry(program, &channel, report, args, gate);
    eprint_line(report, args.boot.report_json, &format!("sentry: {error}"));
    sys::exit_now(1)
}

fn eprint_line(report: BorrowedFd<'_>, json: bool, text: &str) {
    // Nobody is there to be told that this fails.
    let _unheard = nix::unistd::write(report, format_line(json, "error", text).as_bytes());
}

fn become_sentry(
    program: &OwnedFd,
    channel: &OwnedFd,
    report: BorrowedFd<'_>,
    args: &LaunchArgs,
    gate: Gate,
) -> io::Error {
    match prepare(channel, program, report, args, gate) {
        Ok(program) => sys::exec_fd(program.as_fd(), &["runsc", "boot", &args.boot.id], &[]),
        Err(error) => error,
    }
}

fn prepare(
    channel: &OwnedFd,
    program: &OwnedFd,
    report: BorrowedFd<'_>,
    args: &LaunchArgs,
    gate: Gate,
) -> io::Result<OwnedFd> {
    super::enter_groups(&args.doors)?;
    nix::unistd::setsid()?;
    if let (true, Some(terminal)) = (args.own_terminal, args.streams.first()) {
        sys::take_controlling_terminal(terminal.as_fd())?;
    }
    streams(report)?;
    gate.pass()?;
    sys::keep_only(&[channel.as_fd(), program.as_fd()])?;
    super::program_at(CHANNEL_FD + 1)
}
