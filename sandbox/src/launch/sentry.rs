//! The sentry's process, up to the point where it executes its program.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::{Gid, Uid};

use super::{CHANNEL_FD, LaunchArgs, LaunchError, host};
use crate::boot::report::format_line;
use crate::sys;

/// Its namespaces: all that are empty when they are new.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// The user and group nobody.
const NOBODY: u32 = 65534;

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
    let (go, gate) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| host("pipe")(e.into()))?;
    if let Some(pid) = sys::fork_into(NAMESPACES).map_err(host("start the sentry"))? {
        drop(go);
        map_ids(pid)?;
        super::adjust_oom_score(pid, args)?;
        // Closing opens the gate.
        drop(gate);
        return Ok(pid);
    }
    drop(gate);
    let error = become_sentry(program, &channel, report, args, &go);
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
    go: &OwnedFd,
) -> io::Error {
    match prepare(channel, program, report, args, go) {
        Ok(program) => sys::exec_fd(program.as_fd(), &["runsc", "boot", &args.boot.id], &[]),
        Err(error) => error,
    }
}

fn prepare(
    channel: &OwnedFd,
    program: &OwnedFd,
    report: BorrowedFd<'_>,
    args: &LaunchArgs,
    go: &OwnedFd,
) -> io::Result<OwnedFd> {
    super::enter_groups(&args.doors)?;
    nix::unistd::setsid()?;
    if let (true, Some(terminal)) = (args.own_terminal, args.streams.first()) {
        sys::take_controlling_terminal(terminal.as_fd())?;
    }
    streams(report)?;
    while nix::unistd::read(go, &mut [0]) == Err(nix::Error::EINTR) {}
    // Root of the new user namespace, who is nobody outside.
    nix::unistd::setgroups(&[])?;
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(group, group, group)?;
    nix::unistd::setresuid(user, user, user)?;
    sys::keep_only(&[channel.as_fd(), program.as_fd()])?;
    let program = sys::take_fd(CHANNEL_FD + 1)?;
    nix::fcntl::fcntl(&program, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(program)
}

/// Makes root of the process's user namespace nobody outside.
fn map_ids(pid: i32) -> Result<(), LaunchError> {
    let map = format!("0 {NOBODY} 1");
    for file in ["gid_map", "uid_map"] {
        std::fs::write(format!("/proc/{pid}/{file}"), &map).map_err(host("map nobody into the sandbox"))?;
    }
    Ok(())
}
