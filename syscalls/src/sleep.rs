//! Sleeping: `nanosleep(2)`, `clock_nanosleep(2)`, `restart_syscall(2)`.
use abi::Errno;
use abi::time::{CLOCK_MONOTONIC, CLOCK_REALTIME, TIMER_ABSTIME, Timespec};
use kernel::futex::FutexWait;
use kernel::{BlockResult, RestartBlock};

use crate::Cx;
use crate::decode::UserPtr;
use crate::time::ClockId;

/// Sleeps until a point in monotonic time; tells whether a signal came before.
fn sleep_until(cx: &Cx<'_>, deadline_ns: u64) -> bool {
    while cx.now_ns() < deadline_ns {
        if cx.cur.block(Some(deadline_ns)) == BlockResult::Interrupted {
            return true;
        }
    }
    false
}

/// Sleeps for a time span, to be continued by restart_syscall(2).
fn sleep_for(cx: &mut Cx<'_>, clock: i32, deadline_ns: u64, remaining: u64) -> Result<usize, Errno> {
    if !sleep_until(cx, deadline_ns) {
        return Ok(0);
    }
    let left = deadline_ns.saturating_sub(cx.now_ns());
    if left == 0 {
        return Ok(0);
    }
    UserPtr::new(remaining).write_if_some(cx, &Timespec::from_ns(left))?;
    cx.set_restart(RestartBlock::Nanosleep { clock, deadline_ns, remaining });
    Err(Errno::ERESTART_RESTARTBLOCK)
}

/// `nanosleep(2)`
///
/// # Errors
/// `EFAULT`, `EINVAL`, `EINTR`.
pub fn nanosleep(cx: &mut Cx<'_>, time: UserPtr<Timespec>, remaining: u64) -> Result<usize, Errno> {
    clock_nanosleep(cx, CLOCK_MONOTONIC, 0, time, remaining)
}

/// `clock_nanosleep(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EINTR`, `EOPNOTSUPP` for clocks of processor time.
pub fn clock_nanosleep(
    cx: &mut Cx<'_>,
    clock: i32,
    flags: i32,
    time: UserPtr<Timespec>,
    remaining: u64,
) -> Result<usize, Errno> {
    let which = ClockId::decode(cx, clock)?;
    let realtime = match which {
        ClockId::Realtime => true,
        ClockId::Monotonic => false,
        ClockId::Process(..) => {
            return Err(cx.unsupported("clock_nanosleep: processor time", Errno::EOPNOTSUPP));
        }
        ClockId::Thread(..) => return Err(Errno::EOPNOTSUPP),
    };
    let span = time.read(cx)?.to_ns()?;
    if flags & TIMER_ABSTIME == 0 {
        let deadline = cx.now_ns().saturating_add(span);
        return sleep_for(cx, clock, deadline, remaining);
    }
    let deadline = crate::futex::monotonic_deadline(cx, span, realtime && clock >= CLOCK_REALTIME);
    if sleep_until(cx, deadline) { Err(Errno::ERESTARTNOHAND) } else { Ok(0) }
}

/// `restart_syscall(2)`
///
/// # Errors
/// Those of the call that is continued, `EINTR` where there is none.
pub fn restart_syscall(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    match cx.take_restart() {
        None => Err(Errno::EINTR),
        Some(RestartBlock::Nanosleep { clock, deadline_ns, remaining }) => {
            sleep_for(cx, clock, deadline_ns, remaining)
        }
        Some(RestartBlock::Poll { fds, count, deadline_ns }) => {
            crate::poll::poll_until(cx, UserPtr::new(fds), count, deadline_ns)
        }
        Some(RestartBlock::FutexWait { addr, value, private, bitset, deadline_ns }) => {
            crate::futex::wait_until(cx, FutexWait { addr, value, private, bitset }, deadline_ns)
        }
    }
}
