//! Waiting for files and events to become ready, `poll(2)`.
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// The conditions of `poll(2)`, with the values of `EPOLLIN` and its kin.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PollEvents(pub u32);

#[expect(missing_docs, reason = "the names are those of poll(2)")]
impl PollEvents {
    pub const NONE: Self = Self(0);
    pub const IN: Self = Self(0x1);
    pub const PRI: Self = Self(0x2);
    pub const OUT: Self = Self(0x4);
    pub const ERR: Self = Self(0x8);
    pub const HUP: Self = Self(0x10);
    pub const NVAL: Self = Self(0x20);
    pub const RDNORM: Self = Self(0x40);
    pub const RDBAND: Self = Self(0x80);
    pub const WRNORM: Self = Self(0x100);
    pub const WRBAND: Self = Self(0x200);
    pub const MSG: Self = Self(0x400);
    pub const RDHUP: Self = Self(0x2000);
    /// Readable, in both of its spellings.
    pub const READABLE: Self = Self(0x41);
    /// Writable, in both of its spellings.
    pub const WRITABLE: Self = Self(0x104);
    /// What is always reported, asked for or not.
    pub const ALWAYS: Self = Self(0x18);
    pub const ALL: Self = Self(!0);

    /// Tells whether nothing is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Tells whether any condition is in both.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    /// Tells whether all of `other` is here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
impl std::ops::BitOr for PollEvents {
    type Output = Self;
    fn bitor(self, o: Self) -> Self {
        Self(self.0 | o.0)
    }
}
impl std::ops::BitOrAssign for PollEvents {
    fn bitor_assign(&mut self, o: Self) {
        self.0 |= o.0;
    }
}
impl std::ops::BitAnd for PollEvents {
    type Output = Self;
    fn bitand(self, o: Self) -> Self {
        Self(self.0 & o.0)
    }
}
impl fmt::Debug for PollEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PollEvents({:#x})", self.0)
    }
}

/// What a [`WaitQueue`] calls when something happens.
pub trait Wake: Send + Sync {
    /// Called without any lock of the queue held, by the thread that made the event happen. Must not block.
    fn wake(&self, events: PollEvents);
}

/// Names one registration of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitKey(u64);

struct Entry {
    key: u64,
    events: PollEvents,
    wake: Arc<dyn Wake>,
}

/// Those who wait for one object.
///
/// The protocol against lost wake-ups: register, then look whether the object is ready, then wait.
pub struct WaitQueue {
    /// How many are registered, so that notifying an empty queue takes no lock.
    len: AtomicUsize,
    entries: crate::Mutex<(u64, SmallVec<[Entry; 2]>)>,
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitQueue({} waiting)", self.len.load(Ordering::Relaxed))
    }
}

impl WaitQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        let entries = crate::Mutex::new(crate::LockClass::WaitQueue, (0, SmallVec::new_const()));
        Self { len: AtomicUsize::new(0), entries }
    }

    /// Adds `wake`, to be called for any of `events` (`ERR` and `HUP` always).
    pub fn register(&self, events: PollEvents, wake: Arc<dyn Wake>) -> WaitKey {
        let mut entries = self.entries.lock();
        entries.0 += 1;
        let key = entries.0;
        entries.1.push(Entry { key, events: events | PollEvents::ALWAYS, wake });
        self.len.store(entries.1.len(), Ordering::SeqCst);
        WaitKey(key)
    }

    /// Takes a registration back; one that is gone already is no error.
    pub fn unregister(&self, key: WaitKey) {
        let removed = {
            let mut entries = self.entries.lock();
            let at = entries.1.iter().position(|e| e.key == key.0);
            let removed = at.map(|at| entries.1.remove(at));
            self.len.store(entries.1.len(), Ordering::SeqCst);
            removed
        };
        drop(removed);
    }

    /// Wakes everyone who waits for any of `events`. The change they wait for must be visible before.
    pub fn notify(&self, events: PollEvents) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        let wakes: SmallVec<[Arc<dyn Wake>; 4]> = {
            let entries = self.entries.lock();
            entries.1.iter().filter(|e| e.events.intersects(events)).map(|e| Arc::clone(&e.wake)).collect()
        };
        for wake in wakes {
            wake.wake(events);
        }
    }

    /// Tells whether nobody is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }
}

const EMPTY: u32 = 0;
const WOKEN: u32 = 1;

/// Puts one host thread to sleep until somebody wakes it. A wake that comes first is kept.
pub struct Waiter {
    state: AtomicU32,
    lock: parking_lot::Mutex<()>,
    condition: parking_lot::Condvar,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Waiter(woken: {})", self.state.load(Ordering::Relaxed) == WOKEN)
    }
}

impl Default for Waiter {
    fn default() -> Self {
        Self {
            state: AtomicU32::new(EMPTY),
            lock: parking_lot::Mutex::new(()),
            condition: parking_lot::Condvar::new(),
        }
    }
}

impl Waiter {
    /// A waiter nobody has woken.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Wakes the thread in [`Self::wait`], or makes the next wait return at once.
    pub fn wake_up(&self) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == EMPTY {
            // Taking the lock orders this after the sleeper's check of `state`.
            drop(self.lock.lock());
            self.condition.notify_one();
        }
    }

    /// As [`Self::wait`], and looks for so long whether it was woken before it sleeps, letting others have the CPU.
    pub fn look_and_wait(&self, look: Duration, timeout: Option<Duration>) -> bool {
        let start = Instant::now();
        let look = timeout.map_or(look, |timeout| timeout.min(look));
        while self.state.load(Ordering::Relaxed) == EMPTY && start.elapsed() < look {
            std::thread::yield_now();
        }
        self.wait(timeout.map(|timeout| timeout.saturating_sub(start.elapsed())))
    }

    /// Sleeps until woken or for `timeout`; tells whether it was woken, and forgets that it was.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        if self.state.swap(EMPTY, Ordering::SeqCst) == WOKEN {
            return true;
        }
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut guard = self.lock.lock();
        loop {
            if self.state.swap(EMPTY, Ordering::SeqCst) == WOKEN {
                return true;
            }
            match deadline {
                None => self.condition.wait(&mut guard),
                Some(at) => {
                    if self.condition.wait_until(&mut guard, at).timed_out() {
                        return self.state.swap(EMPTY, Ordering::SeqCst) == WOKEN;
                    }
                }
            }
        }
    }

    /// Forgets an earlier wake.
    pub fn clear(&self) {
        self.state.store(EMPTY, Ordering::SeqCst);
    }
}

impl Wake for Waiter {
    fn wake(&self, _: PollEvents) {
        self.wake_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_that_comes_first_is_kept() {
        let waiter = Waiter::new();
        waiter.wake_up();
        assert!(waiter.wait(None));
        assert!(!waiter.wait(Some(Duration::ZERO)));
    }

    #[test]
    fn a_queue_wakes_those_whose_events_match() {
        let (queue, reader, writer) = (WaitQueue::new(), Waiter::new(), Waiter::new());
        let key = queue.register(PollEvents::IN, reader.clone());
        queue.register(PollEvents::OUT, writer.clone());
        queue.notify(PollEvents::IN);
        assert!(reader.wait(Some(Duration::ZERO)));
        assert!(!writer.wait(Some(Duration::ZERO)));
        queue.unregister(key);
        queue.notify(PollEvents::ALL);
        assert!(!reader.wait(Some(Duration::ZERO)));
        assert!(writer.wait(Some(Duration::ZERO)));
    }
}
