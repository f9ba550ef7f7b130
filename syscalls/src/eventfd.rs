//! Counters, timers and signals as files: `eventfd(2)`, `timerfd_create(2)`, `signalfd(2)`.
use std::sync::Arc;

use abi::fs::{O_CLOEXEC, O_NONBLOCK, O_RDWR};
use abi::time::{
    CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_REALTIME_ALARM, Itimerspec,
    TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET, Timespec,
};
use abi::{Errno, SigSet};
use kernel::timer::TimerSpec;
use vfs::anon::{EventFd, SignalFd, TimerFd};
use vfs::{FileDescription, FileOps, OpCx, new_anon_file};

use crate::Cx;
use crate::decode::{Fd, UserPtr};

/// Opens a file without a place and gives it a descriptor. `flags` has an access mode, `O_NONBLOCK` and `O_CLOEXEC`.
pub(crate) fn install_anon(
    cx: &Cx<'_>,
    name: &str,
    ops: Arc<dyn FileOps>,
    flags: u32,
) -> Result<usize, Errno> {
    let creds = cx.credentials();
    let file = new_anon_file(&OpCx::of_task(cx, &creds), name.as_bytes(), ops, flags & !O_CLOEXEC);
    cx.install(file, flags & O_CLOEXEC != 0)
}

/// `EFD_SEMAPHORE`.
const EFD_SEMAPHORE: u32 = 1;

/// `eventfd(2)`
///
/// # Errors
/// `EMFILE`.
pub fn eventfd(cx: &mut Cx<'_>, count: u32) -> Result<usize, Errno> {
    eventfd2(cx, count, 0)
}

/// `eventfd2(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, `EMFILE`.
pub fn eventfd2(cx: &mut Cx<'_>, count: u32, flags: u32) -> Result<usize, Errno> {
    if flags & !(EFD_SEMAPHORE | O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let ops = EventFd::new(count, flags & EFD_SEMAPHORE != 0);
    install_anon(cx, "anon_inode:[eventfd]", ops, O_RDWR | flags & !EFD_SEMAPHORE)
}

/// `timerfd_create(2)`
///
/// # Errors
/// `EINVAL` for unknown flags or another clock, `EPERM` for alarms without `CAP_WAKE_ALARM`, `EMFILE`.
pub fn timerfd_create(cx: &mut Cx<'_>, clock: i32, flags: u32) -> Result<usize, Errno> {
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let realtime = match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_ALARM => true,
        CLOCK_MONOTONIC | CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => false,
        _ => return Err(Errno::EINVAL),
    };
    let alarm = matches!(clock, CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM);
    if alarm && !cx.credentials().has_cap(kernel::Cap::WAKE_ALARM) {
        return Err(Errno::EPERM);
    }
    let ops = TimerFd::new(cx.kernel(), realtime, clock);
    install_anon(cx, "anon_inode:[timerfd]", ops, O_RDWR | flags)
}

/// Runs `f` on the timerfd behind a descriptor.
fn timerfd<R>(cx: &Cx<'_>, fd: Fd, f: impl FnOnce(&TimerFd) -> R) -> Result<R, Errno> {
    let file = cx.file(fd)?;
    let timer = FileDescription::from_file(&file).and_then(|d| d.ops().downcast_ref::<TimerFd>());
    timer.map(f).ok_or(Errno::EINVAL)
}

fn to_wire(spec: TimerSpec) -> Itimerspec {
    Itimerspec { interval: Timespec::from_ns(spec.interval_ns), value: Timespec::from_ns(spec.value_ns) }
}

/// `timerfd_settime(2)`
///
/// # Errors
/// `EFAULT`, `EINVAL`, `EBADF`.
pub fn timerfd_settime(
    cx: &mut Cx<'_>,
    fd: Fd,
    flags: i32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> Result<usize, Errno> {
    let new = new.read(cx)?;
    if flags & !(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let spec = TimerSpec { value_ns: new.value.to_ns()?, interval_ns: new.interval.to_ns()? };
    let before = timerfd(cx, fd, |timer| timer.set(spec, flags & TFD_TIMER_ABSTIME != 0))?;
    old.write_if_some(cx, &to_wire(before))?;
    Ok(0)
}

/// `timerfd_gettime(2)`
///
/// # Errors
/// `EBADF`, `EINVAL`, `EFAULT`.
pub fn timerfd_gettime(cx: &mut Cx<'_>, fd: Fd, now: UserPtr<Itimerspec>) -> Result<usize, Errno> {
    let spec = timerfd(cx, fd, TimerFd::get)?;
    now.write(cx, &to_wire(spec))?;
    Ok(0)
}

/// `signalfd(2)`
///
/// # Errors
/// As [`signalfd4`].
pub fn signalfd(cx: &mut Cx<'_>, fd: Fd, mask: UserPtr<SigSet>, size: usize) -> Result<usize, Errno> {
    signalfd4(cx, fd, mask, size, 0)
}

/// `signalfd4(2)`; -1 makes a new file.
///
/// # Errors
/// `EINVAL` for a bad size, unknown flags or a file that is no signalfd, `EFAULT`, `EBADF`, `EMFILE`.
pub fn signalfd4(
    cx: &mut Cx<'_>,
    fd: Fd,
    mask: UserPtr<SigSet>,
    size: usize,
    flags: u32,
) -> Result<usize, Errno> {
    if size != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    let mask = mask.read(cx)?;
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    if fd.0 == -1 {
        let ops = SignalFd::new(cx.group(), mask);
        return install_anon(cx, "anon_inode:[signalfd]", ops, O_RDWR | flags);
    }
    let file = cx.file(fd)?;
    let signals = FileDescription::from_file(&file).and_then(|d| d.ops().downcast_ref::<SignalFd>());
    signals.ok_or(Errno::EINVAL)?.set_mask(mask);
    crate::process::id(fd.0)
}
