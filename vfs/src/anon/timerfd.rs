//! Timers that are read, timerfd_create(2), Linux `fs/timerfd.c`.
use std::sync::{Arc, Weak};

use abi::Errno;
use kernel::Kernel;
use kernel::timer::{Expire, Timer, TimerSpec};
use memmap::IoDst;
use sync::{Clock, LockClass, Mutex, PollEvents, WaitQueue};

use crate::{FileOps, OpCx};

#[derive(Debug, Default)]
struct State {
    /// The next expiry in the timer's clock.
    deadline: Option<u64>,
    interval: u64,
    /// Expiries that were not read.
    expired: u64,
}

impl State {
    /// Counts the expiries up to `now`.
    fn advance(&mut self, now: u64) {
        let Some(at) = self.deadline.filter(|at| *at <= now) else { return };
        match (now - at).checked_div(self.interval) {
            None => {
                self.deadline = None;
                self.expired = self.expired.saturating_add(1);
            }
            Some(whole) => {
                let passed = whole + 1;
                self.expired = self.expired.saturating_add(passed);
                self.deadline = Some(at.saturating_add(passed.saturating_mul(self.interval)));
            }
        }
    }
    fn left(&self, now: u64) -> TimerSpec {
        let value_ns = self.deadline.map_or(0, |at| at.saturating_sub(now).max(1));
        TimerSpec { value_ns, interval_ns: self.interval }
    }
}

/// A timerfd.
#[derive(Debug)]
pub struct TimerFd {
    clock: Arc<dyn Clock>,
    /// Measures the real-time clock rather than the monotonic one.
    realtime: bool,
    clock_id: i32,
    timer: Timer,
    state: Mutex<State>,
    events: WaitQueue,
}

impl TimerFd {
    /// A timer that is not armed; `clock_id` is only shown.
    #[must_use]
    pub fn new(kernel: &Kernel, realtime: bool, clock_id: i32) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            clock: Arc::clone(kernel.clock()),
            realtime,
            clock_id,
            timer: kernel.timers().timer(Weak::<Self>::clone(this)),
            state: Mutex::new(LockClass::FileState, State::default()),
            events: WaitQueue::new(),
        })
    }

    fn now(&self) -> u64 {
        if self.realtime { self.clock.realtime_ns() } else { self.clock.monotonic_ns() }
    }

    /// Wakes a reader at the deadline. After that expiry nobody is woken again until the timer was read, so that a timer
    /// nobody reads costs nothing.
    fn arm(&self, now: u64, deadline: Option<u64>) {
        let monotonic = self.clock.monotonic_ns();
        self.timer.set(deadline.map(|at| monotonic.saturating_add(at.saturating_sub(now))));
    }

    /// timerfd_settime(2); gives what was set before.
    pub fn set(&self, spec: TimerSpec, absolute: bool) -> TimerSpec {
        let now = self.now();
        let (old, deadline) = {
            let mut state = self.state.lock();
            state.advance(now);
            let old = state.left(now);
            let at = if absolute { spec.value_ns } else { now.saturating_add(spec.value_ns) };
            let deadline = (spec.value_ns > 0).then_some(at);
            *state = State { deadline, interval: spec.interval_ns, expired: 0 };
            (old, deadline)
        };
        self.arm(now, deadline);
        old
    }

    /// timerfd_gettime(2).
    #[must_use]
    pub fn get(&self) -> TimerSpec {
        let now = self.now();
        let mut state = self.state.lock();
        state.advance(now);
        state.left(now)
    }
}

impl Expire for TimerFd {
    fn expired(&self) {
        let now = self.now();
        let early = {
            let mut state = self.state.lock();
            state.advance(now);
            state.deadline.filter(|_| state.expired == 0)
        };
        if let Some(deadline) = early {
            self.arm(now, Some(deadline));
        } else {
            self.events.notify(PollEvents::READABLE);
        }
    }
}

impl FileOps for TimerFd {
    fn read_at(&self, _: &OpCx<'_>, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let now = self.now();
        let (expired, deadline) = {
            let mut state = self.state.lock();
            state.advance(now);
            (std::mem::take(&mut state.expired), state.deadline)
        };
        if expired == 0 {
            return Err(Errno::EAGAIN);
        }
        self.arm(now, deadline);
        dst.write(&expired.to_ne_bytes())
    }

    fn stream(&self) -> bool {
        true
    }

    fn noop_seek(&self) -> bool {
        true
    }

    fn poll(&self, _: &OpCx<'_>) -> PollEvents {
        let now = self.now();
        let mut state = self.state.lock();
        state.advance(now);
        if state.expired > 0 { PollEvents::READABLE } else { PollEvents::NONE }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.events)
    }

    fn fdinfo(&self) -> Vec<u8> {
        let spec = self.get();
        let pair = |ns: u64| format!("({}, {})", ns / 1_000_000_000, ns % 1_000_000_000);
        let expired = self.state.lock().expired;
        let (value, interval) = (pair(spec.value_ns), pair(spec.interval_ns));
        format!(
            "clockid: {}\nticks: {expired}\nsettime flags: 00\nit_value: {value}\nit_interval: {interval}\n",
            self.clock_id
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_counted() {
        let mut state = State { deadline: Some(10), interval: 5, expired: 0 };
        state.advance(9);
        assert_eq!(state.expired, 0);
        state.advance(21);
        assert_eq!((state.expired, state.deadline), (3, Some(25)));
        let mut once = State { deadline: Some(10), interval: 0, expired: 0 };
        once.advance(100);
        once.advance(200);
        assert_eq!((once.expired, once.deadline), (1, None));
    }
}
