//! The sandbox's alarm clock: one host thread that sleeps until the earliest deadline of all timers.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sync::{Clock, LockClass, Mutex, Waiter};

/// What a timer does when its time has come.
pub trait Expire: Send + Sync {
    /// Called by the timer thread without any lock held, once for each deadline that was set. Must not block.
    fn expired(&self);
}

/// Deadlines in order, each with a number that makes it unique.
type Deadlines = BTreeMap<(u64, u64), Weak<dyn Expire>>;

struct State {
    deadlines: Deadlines,
    /// Whether the thread was started; it is not before the first deadline.
    started: bool,
}

struct Shared {
    clock: Arc<dyn Clock>,
    next: AtomicU64,
    state: Mutex<State>,
    waiter: Arc<Waiter>,
}

/// All timers of a sandbox. A sandbox without an armed timer makes no wake-up.
#[derive(Clone)]
pub struct TimerQueue(Arc<Shared>);

impl fmt::Debug for TimerQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimerQueue")
    }
}

impl TimerQueue {
    /// A queue on this clock's monotonic time.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State { deadlines: BTreeMap::new(), started: false };
        Self(Arc::new(Shared {
            clock,
            next: AtomicU64::new(1),
            state: Mutex::new(LockClass::Leaf, state),
            waiter: Waiter::new(),
        }))
    }

    /// Makes a timer that is not armed.
    #[must_use]
    pub fn timer(&self, target: Weak<dyn Expire>) -> Timer {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        Timer { queue: self.clone(), id, target, deadline: Mutex::new(LockClass::Leaf, None) }
    }

    fn change(&self, old: Option<(u64, u64)>, new: Option<((u64, u64), Weak<dyn Expire>)>) {
        let first = {
            let mut state = self.0.state.lock();
            if let Some(old) = old {
                state.deadlines.remove(&old);
            }
            let Some((key, target)) = new else { return };
            state.deadlines.insert(key, target);
            if !state.started {
                state.started = self.start();
            }
            state.deadlines.first_key_value().is_some_and(|(k, _)| *k == key)
        };
        if first {
            self.0.waiter.wake_up();
        }
    }

    fn start(&self) -> bool {
        let shared = Arc::clone(&self.0);
        let builder = std::thread::Builder::new().name("timers".to_owned()).stack_size(128 << 10);
        builder.spawn(move || run(&shared)).is_ok()
    }
}

fn run(shared: &Shared) {
    loop {
        let now = shared.clock.monotonic_ns();
        let (due, next) = {
            let mut state = shared.state.lock();
            let later = state.deadlines.split_off(&(now + 1, 0));
            let due = std::mem::replace(&mut state.deadlines, later);
            (due, state.deadlines.first_key_value().map(|((at, _), _)| *at))
        };
        if due.is_empty() {
            shared.waiter.wait(next.map(|at| Duration::from_nanos(at - now)));
        }
        for target in due.into_values().filter_map(|t| t.upgrade()) {
            target.expired();
        }
    }
}

/// One timer, disarmed when dropped.
pub struct Timer {
    queue: TimerQueue,
    id: u64,
    target: Weak<dyn Expire>,
    deadline: Mutex<Option<u64>>,
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timer({})", self.id)
    }
}

impl Timer {
    /// Arms the timer for a point in monotonic time, or disarms it. An expiry under way may still be called.
    pub fn set(&self, deadline_ns: Option<u64>) {
        let old = std::mem::replace(&mut *self.deadline.lock(), deadline_ns);
        let key = |at| (at, self.id);
        self.queue.change(old.map(key), deadline_ns.map(|at| (key(at), Weak::clone(&self.target))));
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync::HostClock;

    struct Wakes(Arc<Waiter>, AtomicU64);
    impl Expire for Wakes {
        fn expired(&self) {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.wake_up();
        }
    }

    #[test]
    fn timers_expire_once_and_can_be_disarmed() {
        let clock: Arc<dyn Clock> = Arc::new(HostClock::new());
        let queue = TimerQueue::new(Arc::clone(&clock));
        let target = Arc::new(Wakes(Waiter::new(), AtomicU64::new(0)));
        let weak: Weak<dyn Expire> = Arc::<Wakes>::downgrade(&target);
        let (never, soon) = (queue.timer(Weak::clone(&weak)), queue.timer(weak));
        never.set(Some(clock.monotonic_ns() + 1_000_000));
        never.set(None);
        soon.set(Some(clock.monotonic_ns() + 60_000_000_000));
        soon.set(Some(clock.monotonic_ns() + 5_000_000));
        assert!(target.0.wait(Some(Duration::from_secs(10))));
        assert_eq!(target.1.load(Ordering::SeqCst), 1);
    }
}
