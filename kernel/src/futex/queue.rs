//! Who waits for which futex: buckets of queues, without user memory.
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt::Debug;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sync::{LockClass, Mutex, PollEvents, Wake};

/// How many locks the queues share.
const BUCKETS: usize = 64;

/// One thread that waits for one futex.
pub(super) struct Sleeper<K> {
    /// Where it is queued now; requeueing changes it under both buckets' locks.
    key: Mutex<K>,
    bitset: u32,
    woken: AtomicBool,
    wake: Arc<dyn Wake>,
}

impl<K> Sleeper<K> {
    /// Tells whether a wake-up was spent on this sleeper.
    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }
}

type Bucket<K> = HashMap<K, Vec<Arc<Sleeper<K>>>>;

/// The queues of all futexes of a sandbox. A futex nobody waits for takes no memory.
pub(super) struct Queues<K> {
    hasher: RandomState,
    buckets: Vec<Mutex<Bucket<K>>>,
}

impl<K: Clone + Eq + Hash + Debug> Queues<K> {
    pub(super) fn new() -> Self {
        let buckets = (0..BUCKETS).map(|_| Mutex::new(LockClass::Futex, HashMap::new())).collect();
        Self { hasher: RandomState::new(), buckets }
    }

    fn index(&self, key: &K) -> usize {
        usize::try_from(self.hasher.hash_one(key) % BUCKETS as u64).unwrap_or(0)
    }

    fn bucket(&self, at: usize) -> &Mutex<Bucket<K>> {
        self.buckets.get(at).expect("index() stays below the number of buckets")
    }

    /// Queues a sleeper. The futex's value is to be looked at after this, so that no wake-up falls between.
    pub(super) fn enqueue(&self, key: K, bitset: u32, wake: Arc<dyn Wake>) -> Arc<Sleeper<K>> {
        let at = self.index(&key);
        let sleeper = Arc::new(Sleeper {
            key: Mutex::new(LockClass::Leaf, key.clone()),
            bitset,
            woken: AtomicBool::new(false),
            wake,
        });
        self.bucket(at).lock().entry(key).or_default().push(Arc::clone(&sleeper));
        sleeper
    }

    /// Takes a sleeper out; false where a wake-up did so before.
    pub(super) fn dequeue(&self, sleeper: &Arc<Sleeper<K>>) -> bool {
        loop {
            if sleeper.is_woken() {
                return false;
            }
            let key = sleeper.key.lock().clone();
            let mut bucket = self.bucket(self.index(&key)).lock();
            if sleeper.is_woken() {
                return false;
            }
            // A requeue between reading the key and locking its bucket moved the sleeper: look again.
            if *sleeper.key.lock() != key {
                continue;
            }
            if let Some(queue) = bucket.get_mut(&key) {
                queue.retain(|s| !Arc::ptr_eq(s, sleeper));
                if queue.is_empty() {
                    bucket.remove(&key);
                }
            }
            return true;
        }
    }

    /// Takes up to `n` sleepers that match `bitset` out of a queue, longest waiting first.
    fn take(bucket: &mut Bucket<K>, key: &K, n: usize, bitset: u32) -> Vec<Arc<Sleeper<K>>> {
        let Some(queue) = bucket.get_mut(key) else { return Vec::new() };
        let mut taken = Vec::new();
        queue.retain(|s| {
            let take = taken.len() < n && s.bitset & bitset != 0;
            if take {
                s.woken.store(true, Ordering::SeqCst);
                taken.push(Arc::clone(s));
            }
            !take
        });
        if queue.is_empty() {
            bucket.remove(key);
        }
        taken
    }

    fn call(sleepers: &[Arc<Sleeper<K>>]) -> usize {
        for s in sleepers {
            s.wake.wake(PollEvents::ALL);
        }
        sleepers.len()
    }

    /// Wakes up to `n` sleepers that match `bitset`; tells how many.
    pub(super) fn wake(&self, key: &K, n: usize, bitset: u32) -> usize {
        let taken = Self::take(&mut self.bucket(self.index(key)).lock(), key, n, bitset);
        Self::call(&taken)
    }

    /// Wakes up to `n_wake` sleepers of `from` and moves up to `n_requeue` more to `to`; tells how many of each.
    pub(super) fn requeue(&self, from: &K, to: &K, n_wake: usize, n_requeue: usize) -> (usize, usize) {
        let (a, b) = (self.index(from), self.index(to));
        let (low, high) = (a.min(b), a.max(b));
        let (taken, moved) = {
            let mut first = self.bucket(low).lock();
            let mut second = (low != high).then(|| self.bucket(high).lock_nested());
            let source = if a == low { &mut *first } else { second.as_deref_mut().unwrap_or(&mut *first) };
            let taken = Self::take(source, from, n_wake, u32::MAX);
            let mut moved = Vec::new();
            if let Some(queue) = source.get_mut(from) {
                moved.extend(queue.drain(..queue.len().min(n_requeue)));
                if queue.is_empty() {
                    source.remove(from);
                }
            }
            for sleeper in &moved {
                *sleeper.key.lock() = to.clone();
            }
            let count = moved.len();
            let target = if b == low { &mut *first } else { second.as_deref_mut().unwrap_or(&mut *first) };
            if count > 0 {
                target.entry(to.clone()).or_default().append(&mut moved);
            }
            (taken, count)
        };
        (Self::call(&taken), moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use sync::Waiter;

    #[test]
    fn wakes_in_order_and_by_bitset() {
        let q = Queues::new();
        let (a, b) = (Waiter::new(), Waiter::new());
        let sa = q.enqueue(1u64, 1, a.clone());
        let sb = q.enqueue(1u64, 2, b.clone());
        assert_eq!(q.wake(&1, 1, 2), 1);
        assert!(sb.is_woken() && !sa.is_woken());
        assert!(b.wait(Some(Duration::ZERO)) && !a.wait(Some(Duration::ZERO)));
        assert!(!q.dequeue(&sb));
        assert!(q.dequeue(&sa));
        assert_eq!(q.wake(&1, 9, u32::MAX), 0);
        assert!(q.buckets.iter().all(|b| b.lock().is_empty()));
    }

    #[test]
    fn a_requeued_sleeper_is_found_at_its_new_futex() {
        let q = Queues::new();
        let sleepers: Vec<_> = (0..4).map(|_| q.enqueue(1u64, !0, Waiter::new())).collect();
        assert_eq!(q.requeue(&1, &2, 1, 2), (1, 2));
        assert_eq!(q.wake(&1, 9, !0), 1);
        assert!(q.dequeue(&sleepers[2]));
        assert_eq!(q.wake(&2, 9, !0), 1);
        assert!(sleepers[1].is_woken() && !sleepers[2].is_woken());
    }
}
