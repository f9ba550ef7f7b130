//! Futexes: `futex(2)`, `futex_waitv(2)`.
use std::sync::Arc;

use abi::Errno;
use abi::time::{CLOCK_MONOTONIC, CLOCK_REALTIME, Timespec};
use kernel::RestartBlock;
use kernel::futex::{FUTEX_WAITV_MAX, FutexWait, WakeOp};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Cx;
use crate::decode::{Arg, UserPtr};

const FUTEX_WAIT: i32 = 0;
const FUTEX_WAKE: i32 = 1;
const FUTEX_REQUEUE: i32 = 3;
const FUTEX_CMP_REQUEUE: i32 = 4;
const FUTEX_WAKE_OP: i32 = 5;
const FUTEX_LOCK_PI: i32 = 6;
const FUTEX_UNLOCK_PI: i32 = 7;
const FUTEX_TRYLOCK_PI: i32 = 8;
const FUTEX_WAIT_BITSET: i32 = 9;
const FUTEX_WAKE_BITSET: i32 = 10;
const FUTEX_LOCK_PI2: i32 = 13;
const FUTEX_PRIVATE_FLAG: i32 = 128;
const FUTEX_CLOCK_REALTIME: i32 = 256;

/// The point of the monotonic clock at which a point of another clock comes.
pub(crate) fn monotonic_deadline(cx: &Cx<'_>, at_ns: u64, realtime: bool) -> u64 {
    if !realtime {
        return at_ns;
    }
    let left = at_ns.saturating_sub(cx.kernel().clock().realtime_ns());
    cx.now_ns().saturating_add(left)
}

/// A count of waiters; Linux takes a negative one for one.
fn count(value: u32) -> usize {
    usize::try_from(value.cast_signed()).unwrap_or(1)
}

/// `futex(2)`
///
/// # Errors
/// `EAGAIN`, `ETIMEDOUT`, `EINTR`, `EINVAL`, `EFAULT`, `EDEADLK`, `EPERM`, `ESRCH`, `ENOSYS` for unknown operations.
pub fn futex(
    cx: &mut Cx<'_>,
    addr: u64,
    op: i32,
    value: u32,
    timeout: u64,
    addr2: u64,
    value3: u32,
) -> Result<usize, Errno> {
    let private = op & FUTEX_PRIVATE_FLAG != 0;
    let realtime = op & FUTEX_CLOCK_REALTIME != 0;
    let command = op & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    if realtime && !matches!(command, FUTEX_WAIT_BITSET | FUTEX_WAIT | 11 | FUTEX_LOCK_PI2) {
        return Err(Errno::ENOSYS);
    }
    let mm = Arc::clone(cx.memory()?);
    // In these operations the fourth argument is a number.
    let count2 = count(Arg(timeout).low());
    match command {
        FUTEX_WAIT => {
            wait(cx, FutexWait { addr, value, private, bitset: u32::MAX }, timeout, realtime, false)
        }
        FUTEX_WAIT_BITSET if value3 == 0 => Err(Errno::EINVAL),
        FUTEX_WAIT_BITSET => {
            wait(cx, FutexWait { addr, value, private, bitset: value3 }, timeout, realtime, true)
        }
        FUTEX_WAKE => cx.kernel().futexes().wake(&mm, addr, private, count(value), u32::MAX),
        FUTEX_WAKE_BITSET if value3 == 0 => Err(Errno::EINVAL),
        FUTEX_WAKE_BITSET => cx.kernel().futexes().wake(&mm, addr, private, count(value), value3),
        FUTEX_REQUEUE | FUTEX_CMP_REQUEUE => {
            if value.cast_signed() < 0 || Arg(timeout).low().cast_signed() < 0 {
                return Err(Errno::EINVAL);
            }
            let expected = (command == FUTEX_CMP_REQUEUE).then_some(value3);
            let n = (value as usize, count2);
            let (woken, moved) = cx.kernel().futexes().requeue(&mm, (addr, addr2), private, n, expected)?;
            Ok(woken + moved)
        }
        FUTEX_WAKE_OP => {
            let op = WakeOp::decode(value3)?;
            cx.kernel().futexes().wake_op(&mm, (addr, addr2), private, (count(value), count2), op)
        }
        FUTEX_LOCK_PI | FUTEX_LOCK_PI2 => {
            let realtime = realtime || command == FUTEX_LOCK_PI;
            let timeout =
                UserPtr::<Timespec>::new(timeout).read_if_some(cx)?.map(Timespec::to_ns).transpose()?;
            let deadline = timeout.map(|at| monotonic_deadline(cx, at, realtime));
            cx.kernel().futexes().lock_pi(cx.cur, (addr, private), deadline, true).map(|()| 0)
        }
        FUTEX_TRYLOCK_PI => cx.kernel().futexes().lock_pi(cx.cur, (addr, private), None, false).map(|()| 0),
        FUTEX_UNLOCK_PI => cx.kernel().futexes().unlock_pi(cx.cur, addr, private).map(|()| 0),
        11 | 12 => Err(cx.unsupported("futex: requeueing to priority inheritance", Errno::ENOSYS)),
        _ => Err(Errno::ENOSYS),
    }
}

fn wait(
    cx: &mut Cx<'_>,
    wait: FutexWait,
    timeout: u64,
    realtime: bool,
    absolute: bool,
) -> Result<usize, Errno> {
    let timeout = UserPtr::<Timespec>::new(timeout).read_if_some(cx)?.map(Timespec::to_ns).transpose()?;
    let deadline = timeout
        .map(|t| if absolute { monotonic_deadline(cx, t, realtime) } else { cx.now_ns().saturating_add(t) });
    wait_until(cx, wait, deadline)
}

/// Waits; a wait with an end that a signal interrupts is continued by restart_syscall(2).
pub(crate) fn wait_until(cx: &mut Cx<'_>, wait: FutexWait, deadline_ns: Option<u64>) -> Result<usize, Errno> {
    match cx.kernel().futexes().wait(cx.cur, &[wait], deadline_ns) {
        Ok(_) => Ok(0),
        Err(Errno::ERESTARTSYS) if deadline_ns.is_some() => {
            let FutexWait { addr, value, private, bitset } = wait;
            cx.set_restart(RestartBlock::FutexWait { addr, value, private, bitset, deadline_ns });
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        Err(errno) => Err(errno),
    }
}

/// `struct futex_waitv`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct FutexWaitv {
    val: u64,
    uaddr: u64,
    flags: u32,
    reserved: u32,
}

const FUTEX2_SIZE_U32: u32 = 2;
const FUTEX2_PRIVATE: u32 = 128;

/// Checks the flags of a 32-bit futex; tells whether it is private.
fn flags2(flags: u32) -> Result<bool, Errno> {
    if flags & !FUTEX2_PRIVATE != FUTEX2_SIZE_U32 {
        return Err(Errno::EINVAL);
    }
    Ok(flags & FUTEX2_PRIVATE != 0)
}

/// The end of a wait, as a point of a clock.
fn deadline2(cx: &Cx<'_>, timeout: UserPtr<Timespec>, clock: i32) -> Result<Option<u64>, Errno> {
    if timeout.is_null() {
        return Ok(None);
    }
    if clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC {
        return Err(Errno::EINVAL);
    }
    let at = timeout.read(cx)?.to_ns()?;
    Ok(Some(monotonic_deadline(cx, at, clock == CLOCK_REALTIME)))
}

/// A mask of wake-ups; none would never be woken.
fn mask2(mask: u64) -> Result<u32, Errno> {
    u32::try_from(mask).ok().filter(|mask| *mask != 0).ok_or(Errno::EINVAL)
}

/// `futex_wake(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn futex_wake(cx: &mut Cx<'_>, addr: u64, mask: u64, n: i32, flags: u32) -> Result<usize, Errno> {
    let private = flags2(flags)?;
    let mask = mask2(mask)?;
    let Ok(n) = usize::try_from(n) else { return Ok(0) };
    cx.kernel().futexes().wake(cx.memory()?, addr, private, n, mask)
}

/// `futex_wait(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EAGAIN`, `ETIMEDOUT`, `EINTR`.
pub fn futex_wait(
    cx: &mut Cx<'_>,
    addr: u64,
    value: u64,
    mask: u64,
    flags: u32,
    timeout: UserPtr<Timespec>,
    clock: i32,
) -> Result<usize, Errno> {
    let private = flags2(flags)?;
    let value = u32::try_from(value).map_err(|_wide| Errno::EINVAL)?;
    let wait = FutexWait { addr, value, private, bitset: mask2(mask)? };
    let deadline = deadline2(cx, timeout, clock)?;
    cx.kernel().futexes().wait(cx.cur, &[wait], deadline).map(|_| 0)
}

/// `futex_requeue(2)`: both futexes must be private or both shared.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EAGAIN`.
pub fn futex_requeue(
    cx: &mut Cx<'_>,
    waiters: UserPtr<FutexWaitv>,
    flags: u32,
    wake: i32,
    requeue: i32,
) -> Result<usize, Errno> {
    let (Ok(wake), Ok(requeue)) = (usize::try_from(wake), usize::try_from(requeue)) else {
        return Err(Errno::EINVAL);
    };
    if flags != 0 || waiters.is_null() {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (waiters.read(cx)?, waiters.at(1)?.read(cx)?);
    let private = flags2(from.flags)?;
    if flags2(to.flags)? != private {
        return Err(cx.unsupported("futex_requeue: between private and shared", Errno::EINVAL));
    }
    let expected = u32::try_from(from.val).map_err(|_wide| Errno::EINVAL)?;
    let futexes = cx.kernel().futexes();
    let (woken, moved) =
        futexes.requeue(cx.memory()?, (from.uaddr, to.uaddr), private, (wake, requeue), Some(expected))?;
    Ok(woken + moved)
}

/// `futex_waitv(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EAGAIN`, `ETIMEDOUT`, `EINTR`.
pub fn futex_waitv(
    cx: &mut Cx<'_>,
    waiters: UserPtr<FutexWaitv>,
    count: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
    clock: i32,
) -> Result<usize, Errno> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if flags != 0 || count == 0 || count > FUTEX_WAITV_MAX || waiters.is_null() {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline2(cx, timeout, clock)?;
    let mut waits = Vec::with_capacity(count);
    for i in 0..count {
        let one = waiters.at(i)?.read(cx)?;
        let private = flags2(one.flags)?;
        let value = u32::try_from(one.val).map_err(|_wide| Errno::EINVAL)?;
        if one.reserved != 0 {
            return Err(Errno::EINVAL);
        }
        waits.push(FutexWait { addr: one.uaddr, value, private, bitset: u32::MAX });
    }
    cx.kernel().futexes().wait(cx.cur, &waits, deadline)
}
