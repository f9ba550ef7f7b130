//! Tracing of a child: requests, stops, and what they tell.

use crate::case::{CaseResult, Failure};
use crate::check::check_eq;
use crate::child::{Ended, fork_child, wait_for};
use crate::sys::{SysError, raw, sys, zeroed};
use crate::util::me;

/// `PTRACE_EVENT_*` that the C library has no name for.
pub(crate) const EVENT_STOP: i32 = 128;
/// A stop at a system call, with `PTRACE_O_TRACESYSGOOD`.
pub(crate) const CALL: i32 = libc::SIGTRAP | 0x80;

/// ptrace(2) past the C library, whose function gives words that it read as results.
pub(crate) fn ptrace(request: u32, pid: i32, addr: u64, data: u64) -> Result<i64, SysError> {
    raw!(SYS_ptrace(request, pid, addr, data)).map_err(|error| SysError { line: request, ..error })
}

/// The signal of a stop with its event.
pub(crate) const fn event(event: i32) -> i32 {
    event << 8 | libc::SIGTRAP
}

/// Waits for a thread, with any options, whatever interrupts: its id (0 for nothing to tell) and the status.
pub(crate) fn wait_status(pid: i32, options: i32) -> Result<(i32, i32), SysError> {
    loop {
        let mut status = 0;
        match sys!(waitpid(pid, &mut status, options)) {
            Ok(got) => return Ok((got as i32, status)),
            Err(error) if error.errno == libc::EINTR => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for a thread to stop: the signal with its event.
pub(crate) fn stop(pid: i32) -> CaseResult<i32> {
    let (got, status) = wait_status(pid, libc::__WALL)?;
    if got == pid && libc::WIFSTOPPED(status) {
        Ok(status >> 8)
    } else {
        Err(Failure(format!("no stop of {pid}, but of {got} the status {status:#x}")))
    }
}

/// Lets a stopped thread go on.
pub(crate) fn go(request: u32, pid: i32, signal: i32) -> Result<(), SysError> {
    ptrace(request, pid, 0, signal as u64).map(drop)
}

/// A child that is traced from before `body` on, and stopped there by SIGSTOP.
pub(crate) fn traced(body: impl FnOnce() -> i32) -> CaseResult<i32> {
    let child = fork_child(|| {
        let traced = ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        let stopped = raw!(SYS_kill(me(), libc::SIGSTOP));
        if traced.is_ok() && stopped.is_ok() { body() } else { 102 }
    })?;
    match stop(child)? {
        libc::SIGSTOP => Ok(child),
        other => Err(Failure(format!("a first stop by {other:#x}"))),
    }
}

/// As [`traced`], with options.
pub(crate) fn traced_with(options: i32, body: impl FnOnce() -> i32) -> CaseResult<i32> {
    let child = traced(body)?;
    ptrace(libc::PTRACE_SETOPTIONS, child, 0, options as u64)?;
    Ok(child)
}

/// Lets a thread go on to its next stop.
pub(crate) fn next(request: u32, pid: i32, signal: i32) -> CaseResult<i32> {
    go(request, pid, signal)?;
    stop(pid)
}

/// The general registers of a stopped thread.
pub(crate) fn registers(pid: i32) -> Result<libc::user_regs_struct, SysError> {
    let mut regs: libc::user_regs_struct = zeroed();
    ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut regs as u64)?;
    Ok(regs)
}

/// Replaces the general registers.
pub(crate) fn set_registers(pid: i32, regs: &libc::user_regs_struct) -> Result<(), SysError> {
    ptrace(libc::PTRACE_SETREGS, pid, 0, std::ptr::from_ref(regs) as u64).map(drop)
}

/// A word of a stopped thread's memory.
pub(crate) fn peek_word(pid: i32, addr: u64) -> Result<u64, SysError> {
    let mut word = 0u64;
    ptrace(libc::PTRACE_PEEKDATA, pid, addr, &raw mut word as u64)?;
    Ok(word)
}

/// Replaces a word of a stopped thread's memory.
pub(crate) fn poke_word(pid: i32, addr: u64, word: u64) -> Result<(), SysError> {
    ptrace(libc::PTRACE_POKEDATA, pid, addr, word).map(drop)
}

/// What came with the signal of a stop.
pub(crate) fn siginfo(pid: i32) -> Result<libc::siginfo_t, SysError> {
    let mut info: libc::siginfo_t = zeroed();
    ptrace(libc::PTRACE_GETSIGINFO, pid, 0, &raw mut info as u64)?;
    Ok(info)
}

/// The message of a stop.
pub(crate) fn message(pid: i32) -> Result<u64, SysError> {
    let mut message = u64::MAX;
    ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut message as u64)?;
    Ok(message)
}

/// The value of a line of `/proc/PID/status`.
pub(crate) fn status_line(pid: i32, name: &str) -> std::io::Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.unwrap_or_default().trim().to_owned())
}

/// A child that has nothing to do but what signals make it.
pub(crate) fn idle() -> CaseResult<i32> {
    Ok(fork_child(|| {
        loop {
            let _ = sys!(pause());
        }
    })?)
}

/// Kills a child.
pub(crate) fn end(child: i32) -> CaseResult {
    sys!(kill(child, libc::SIGKILL))?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
    Ok(())
}
