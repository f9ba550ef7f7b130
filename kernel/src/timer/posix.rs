//! Timers that send signals: timer_create(2), setitimer(2), Linux `kernel/time/posix-timers.c`.
use std::sync::{Arc, Weak};

use abi::siginfo::{SI_KERNEL, SI_TIMER};
use abi::{Errno, Signal};
use sync::{LockClass, Mutex};

use super::queue::{Expire, Timer};
use crate::signal::{SigFields, SigInfo, send_to_group, send_to_task};
use crate::{Task, ThreadGroup};

/// How often a timer on CPU time looks at it, at least, while it is armed.
const CPU_CHECK_NS: std::ops::RangeInclusive<u64> = 1_000_000..=100_000_000;

/// What a timer measures.
#[derive(Clone, Debug)]
pub enum TimerClock {
    /// `CLOCK_MONOTONIC` and its kin.
    Monotonic,
    /// `CLOCK_REALTIME` and its kin.
    Realtime,
    /// User and system time of the process.
    ProcessCpu,
    /// User time of the process (`ITIMER_VIRTUAL`).
    ProcessUser,
    /// User and system time of a thread.
    ThreadCpu(Weak<Task>),
}

/// Who is told.
#[derive(Clone, Debug)]
pub enum Notify {
    /// Nobody (`SIGEV_NONE`).
    Nobody,
    /// As without a sigevent: the process, by `SIGALRM` with the timer's id.
    Default,
    /// The process, by this signal and `si_value`.
    Group(Signal, u64),
    /// One thread (`SIGEV_THREAD_ID`).
    Thread(Weak<Task>, Signal, u64),
    /// The process, by a signal as setitimer(2) sends it.
    Plain(Signal),
}

/// `struct itimerspec` in nanoseconds; a value of 0 is disarmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerSpec {
    /// Until the next expiry.
    pub value_ns: u64,
    /// Between expiries, or 0 for one expiry.
    pub interval_ns: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The next expiry in the timer's clock.
    deadline: Option<u64>,
    interval: u64,
    /// An expiry was signalled and the signal not yet taken; until then no further expiry is signalled.
    awaiting: bool,
    /// Expiries missed before the last signal that was taken.
    overrun: i32,
}

impl State {
    /// Moves the deadline after `now`; tells how many expiries were passed over.
    fn forward(&mut self, now: u64) -> u64 {
        let (Some(at), true) = (self.deadline, self.interval > 0) else { return 0 };
        if at > now {
            return 0;
        }
        let passed = (now - at) / self.interval;
        self.deadline = Some(at.saturating_add((passed + 1).saturating_mul(self.interval)));
        passed
    }
}

/// A timer of a process.
#[derive(Debug)]
pub struct PosixTimer {
    id: i32,
    group: Weak<ThreadGroup>,
    clock: TimerClock,
    notify: Notify,
    host: Timer,
    state: Mutex<State>,
}

impl PosixTimer {
    /// Makes a timer that is not armed.
    pub(super) fn new(group: &Arc<ThreadGroup>, id: i32, clock: TimerClock, notify: Notify) -> Arc<Self> {
        let queue = group.kernel().timers().clone();
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            id,
            group: Arc::downgrade(group),
            clock,
            notify,
            host: queue.timer(Weak::<Self>::clone(this)),
            state: Mutex::new(LockClass::Timers, State::default()),
        })
    }

    fn now(&self, group: &ThreadGroup) -> u64 {
        match &self.clock {
            TimerClock::Monotonic => group.kernel().clock().monotonic_ns(),
            TimerClock::Realtime => group.kernel().clock().realtime_ns(),
            TimerClock::ProcessCpu => {
                let (user, system) = group.cpu_ns();
                user + system
            }
            TimerClock::ProcessUser => group.cpu_ns().0,
            TimerClock::ThreadCpu(task) => task.upgrade().map_or(0, |t| {
                let (user, system) = t.cpu_ns();
                user + system
            }),
        }
    }

    /// Sets the host timer for a deadline in this timer's clock. Time on a CPU passes at most as fast as the process has
    /// threads, so such timers look again when that bound is reached.
    fn arm_host(&self, group: &ThreadGroup, now: u64, deadline: Option<u64>) {
        let monotonic = group.kernel().clock().monotonic_ns();
        let left = deadline.map(|at| at.saturating_sub(now));
        let wait = match self.clock {
            TimerClock::Monotonic | TimerClock::Realtime => left,
            TimerClock::ProcessCpu | TimerClock::ProcessUser | TimerClock::ThreadCpu(_) => {
                let threads = u64::try_from(group.threads().len().max(1)).unwrap_or(1);
                left.map(|l| (l / threads).clamp(*CPU_CHECK_NS.start(), *CPU_CHECK_NS.end()))
            }
        };
        self.host.set(wait.map(|w| monotonic.saturating_add(w)));
    }

    /// Arms or disarms the timer; `absolute` makes the value a point in the timer's clock. Gives what was set before.
    pub fn set(&self, spec: TimerSpec, absolute: bool) -> TimerSpec {
        let Some(group) = self.group.upgrade() else { return TimerSpec::default() };
        let now = self.now(&group);
        let (old, deadline) = {
            let mut state = self.state.lock();
            let old = Self::remaining(&mut state, now);
            let value = if absolute { spec.value_ns } else { now.saturating_add(spec.value_ns) };
            let deadline = (spec.value_ns > 0).then_some(value);
            *state = State { deadline, interval: spec.interval_ns, awaiting: false, overrun: 0 };
            (old, deadline)
        };
        let watched = if matches!(self.notify, Notify::Nobody) { None } else { deadline };
        self.arm_host(&group, now, watched);
        old
    }

    /// What is left, and the interval.
    #[must_use]
    pub fn get(&self) -> TimerSpec {
        let Some(group) = self.group.upgrade() else { return TimerSpec::default() };
        let now = self.now(&group);
        Self::remaining(&mut self.state.lock(), now)
    }

    fn remaining(state: &mut State, now: u64) -> TimerSpec {
        let interval_ns = state.interval;
        let next = match state.deadline {
            None => return TimerSpec { value_ns: 0, interval_ns },
            Some(at) if at <= now && interval_ns > 0 => {
                at + ((now - at) / interval_ns + 1).saturating_mul(interval_ns)
            }
            // An expiry that is due is told as the shortest time, for 0 would mean disarmed.
            Some(at) => at.max(now + 1),
        };
        TimerSpec { value_ns: next - now, interval_ns }
    }

    /// Expiries missed before the last signal.
    #[must_use]
    pub fn overrun(&self) -> i32 {
        self.state.lock().overrun
    }

    /// Its signal was taken: arms the next expiry; tells how many were missed.
    pub(super) fn signal_taken(&self) -> i32 {
        let Some(group) = self.group.upgrade() else { return 0 };
        let now = self.now(&group);
        let (overrun, deadline) = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.awaiting) {
                return state.overrun;
            }
            let passed = state.forward(now);
            state.overrun = i32::try_from(passed).unwrap_or(i32::MAX);
            (state.overrun, state.deadline)
        };
        self.arm_host(&group, now, deadline);
        overrun
    }

    fn signal(&self, group: &Arc<ThreadGroup>) -> Result<(), Errno> {
        let timer = |signal, value| SigInfo {
            signal,
            code: SI_TIMER,
            errno: 0,
            fields: SigFields::Timer { id: self.id, overrun: 0, value },
        };
        match &self.notify {
            Notify::Nobody | Notify::Default => Ok(()),
            Notify::Plain(signal) => {
                let fields = SigFields::Kill { pid: 0, uid: 0 };
                send_to_group(group, SigInfo { signal: *signal, code: SI_KERNEL, errno: 0, fields })
            }
            Notify::Group(signal, value) => send_to_group(group, timer(*signal, *value)),
            Notify::Thread(task, signal, value) => match task.upgrade() {
                Some(task) => send_to_task(&task, timer(*signal, *value)),
                None => Ok(()),
            },
        }
    }
}

impl Expire for PosixTimer {
    fn expired(&self) {
        let Some(group) = self.group.upgrade() else { return };
        let now = self.now(&group);
        let due = {
            let mut state = self.state.lock();
            match state.deadline {
                None => return,
                Some(at) if at > now => Err(at),
                Some(_) => {
                    if state.interval == 0 {
                        state.deadline = None;
                    } else {
                        state.awaiting = true;
                    }
                    Ok(())
                }
            }
        };
        match due {
            Err(later) => self.arm_host(&group, now, Some(later)),
            // A queue that is full loses the expiry, as in Linux.
            Ok(()) => drop(self.signal(&group)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_move_past_now() {
        let mut state = State { deadline: Some(100), interval: 10, ..State::default() };
        assert_eq!(state.forward(99), 0);
        assert_eq!((state.forward(100), state.deadline), (0, Some(110)));
        assert_eq!((state.forward(145), state.deadline), (3, Some(150)));
    }

    #[test]
    fn what_is_left_is_never_zero_while_armed() {
        let mut state = State { deadline: Some(100), interval: 0, ..State::default() };
        assert_eq!(PosixTimer::remaining(&mut state, 40).value_ns, 60);
        assert_eq!(PosixTimer::remaining(&mut state, 100).value_ns, 1);
        state.interval = 30;
        assert_eq!(PosixTimer::remaining(&mut state, 170).value_ns, 20);
        state.deadline = None;
        assert_eq!(PosixTimer::remaining(&mut state, 170).value_ns, 0);
    }
}
