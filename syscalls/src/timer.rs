//! Timers of a process: `timer_create(2)`, `setitimer(2)`, `alarm(2)`.
use std::sync::Arc;

use abi::time::{
    ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, Itimerspec, Itimerval, NSEC_PER_SEC, TIMER_ABSTIME, Timespec,
    Timeval,
};
use abi::{Errno, Signal};
use kernel::timer::{IntervalTimer, Notify, PosixTimer, TimerClock, TimerSpec};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Cx;
use crate::decode::UserPtr;
use crate::process::id;
use crate::time::{ClockId, CpuPart};

/// `struct sigevent`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Sigevent {
    pub(crate) value: u64,
    pub(crate) signo: i32,
    pub(crate) notify: i32,
    tid: i32,
    pad: [u32; 11],
}

pub(crate) const SIGEV_SIGNAL: i32 = 0;
pub(crate) const SIGEV_NONE: i32 = 1;
pub(crate) const SIGEV_THREAD: i32 = 2;
const SIGEV_THREAD_ID: i32 = 4;

/// What the timer measures.
fn clock(cx: &Cx<'_>, number: i32) -> Result<TimerClock, Errno> {
    match ClockId::decode(cx, number)? {
        ClockId::Realtime => Ok(TimerClock::Realtime),
        ClockId::Monotonic => Ok(TimerClock::Monotonic),
        ClockId::Process(group, part) if group.tgid() == cx.tgid() => match part {
            CpuPart::User => Ok(TimerClock::ProcessUser),
            CpuPart::Both | CpuPart::Scheduled => Ok(TimerClock::ProcessCpu),
        },
        ClockId::Thread(task, CpuPart::Both | CpuPart::Scheduled) => {
            Ok(TimerClock::ThreadCpu(Arc::downgrade(&task)))
        }
        ClockId::Process(..) | ClockId::Thread(..) => {
            Err(cx.unsupported("timer_create: this clock of processor time", Errno::EINVAL))
        }
    }
}

/// Who is told, Linux `good_sigevent`.
fn notify(cx: &Cx<'_>, event: Option<Sigevent>) -> Result<Notify, Errno> {
    let Some(event) = event else { return Ok(Notify::Default) };
    if event.notify == SIGEV_NONE {
        return Ok(Notify::Nobody);
    }
    let signal = || Signal::new(event.signo).ok_or(Errno::EINVAL);
    match event.notify {
        SIGEV_SIGNAL | SIGEV_THREAD => Ok(Notify::Group(signal()?, event.value)),
        SIGEV_THREAD_ID => {
            let task = cx.kernel().task(event.tid).filter(|t| t.tgid() == cx.tgid()).ok_or(Errno::EINVAL)?;
            Ok(Notify::Thread(Arc::downgrade(&task), signal()?, event.value))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `timer_create(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EAGAIN`.
pub fn timer_create(
    cx: &mut Cx<'_>,
    number: i32,
    event: UserPtr<Sigevent>,
    timer_id: UserPtr<i32>,
) -> Result<usize, Errno> {
    let event = event.read_if_some(cx)?;
    let clock = clock(cx, number)?;
    let notify = notify(cx, event)?;
    let group = Arc::clone(cx.group());
    let new = group.timers().create(&group, clock, notify)?;
    if let Err(errno) = timer_id.write(cx, &new) {
        group.timers().delete(new)?;
        return Err(errno);
    }
    Ok(0)
}

fn timer(cx: &Cx<'_>, timer_id: i32) -> Result<Arc<PosixTimer>, Errno> {
    cx.group().timers().get(timer_id)
}

fn to_wire(spec: TimerSpec) -> Itimerspec {
    Itimerspec { interval: Timespec::from_ns(spec.interval_ns), value: Timespec::from_ns(spec.value_ns) }
}

/// `timer_settime(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn timer_settime(
    cx: &mut Cx<'_>,
    timer_id: i32,
    flags: i32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> Result<usize, Errno> {
    if new.is_null() {
        return Err(Errno::EINVAL);
    }
    let new = new.read(cx)?;
    let spec = TimerSpec { value_ns: new.value.to_ns()?, interval_ns: new.interval.to_ns()? };
    let before = timer(cx, timer_id)?.set(spec, flags & TIMER_ABSTIME != 0);
    old.write_if_some(cx, &to_wire(before))?;
    Ok(0)
}

/// `timer_gettime(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn timer_gettime(cx: &mut Cx<'_>, timer_id: i32, now: UserPtr<Itimerspec>) -> Result<usize, Errno> {
    let spec = timer(cx, timer_id)?.get();
    now.write(cx, &to_wire(spec))?;
    Ok(0)
}

/// `timer_getoverrun(2)`
///
/// # Errors
/// `EINVAL`.
pub fn timer_getoverrun(cx: &mut Cx<'_>, timer_id: i32) -> Result<usize, Errno> {
    id(timer(cx, timer_id)?.overrun())
}

/// `timer_delete(2)`
///
/// # Errors
/// `EINVAL`.
pub fn timer_delete(cx: &mut Cx<'_>, timer_id: i32) -> Result<usize, Errno> {
    cx.group().timers().delete(timer_id).map(|()| 0)
}

fn interval(which: i32) -> Result<IntervalTimer, Errno> {
    match which {
        ITIMER_REAL => Ok(IntervalTimer::Real),
        ITIMER_VIRTUAL => Ok(IntervalTimer::Virtual),
        ITIMER_PROF => Ok(IntervalTimer::Prof),
        _ => Err(Errno::EINVAL),
    }
}

/// The wire form; what is left of an armed timer is never shown as nothing.
fn to_timeval(spec: TimerSpec) -> Itimerval {
    let up = |ns: u64| Timeval::from_ns(ns.saturating_add(999));
    Itimerval { interval: up(spec.interval_ns), value: up(spec.value_ns) }
}

/// `getitimer(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn getitimer(cx: &mut Cx<'_>, which: i32, now: UserPtr<Itimerval>) -> Result<usize, Errno> {
    let spec = cx.group().timers().get_interval(interval(which)?);
    now.write(cx, &to_timeval(spec))?;
    Ok(0)
}

/// `setitimer(2)`; the null pointer disarms.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn setitimer(
    cx: &mut Cx<'_>,
    which: i32,
    new: UserPtr<Itimerval>,
    old: UserPtr<Itimerval>,
) -> Result<usize, Errno> {
    let new = new.read_if_some(cx)?.unwrap_or_default();
    let spec = TimerSpec { value_ns: new.value.to_ns()?, interval_ns: new.interval.to_ns()? };
    let group = Arc::clone(cx.group());
    let before = group.timers().set_interval(&group, interval(which)?, spec);
    old.write_if_some(cx, &to_timeval(before))?;
    Ok(0)
}

/// `alarm(2)`: gives the seconds that were left, rounded, yet not to nothing.
///
/// # Errors
/// None.
pub fn alarm(cx: &mut Cx<'_>, seconds: u32) -> Result<usize, Errno> {
    let spec = TimerSpec { value_ns: u64::from(seconds) * NSEC_PER_SEC, interval_ns: 0 };
    let group = Arc::clone(cx.group());
    let left = group.timers().set_interval(&group, IntervalTimer::Real, spec).value_ns;
    Ok(seconds_left(left))
}

/// Linux `alarm_setitimer`: rounds half a second up.
fn seconds_left(ns: u64) -> usize {
    let rounded = ns.saturating_add(NSEC_PER_SEC / 2) / NSEC_PER_SEC;
    usize::try_from(if ns > 0 { rounded.max(1) } else { 0 }).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_round_and_never_to_nothing() {
        assert_eq!([0, 1, 1_400_000_000, 1_500_000_000].map(seconds_left), [0, 1, 1, 2]);
        assert_eq!(size_of::<Sigevent>(), 64);
    }
}
