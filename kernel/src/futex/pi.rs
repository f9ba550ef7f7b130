//! Priority-inheriting futexes, `FUTEX_LOCK_PI` of futex(2), Linux `kernel/futex/pi.c`: the word holds its owner's thread
//! id, and whoever gives the lock up hands it to the waiter that comes first.
//!
//! As with other futexes no lock is held while user memory is touched. A waiter queues itself and then marks the word; who
//! gives the lock up takes a waiter out of the queue, stores its id, and tells it. Waiters that are in the queue when the
//! lock became free otherwise are told to look again. The host's scheduler knows no guest priorities, so what is inherited
//! is the order: real-time priority first, then who came first.
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;
use memmap::{FutexKey, MemoryManager};
use sync::{LockClass, Mutex};

use super::robust::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};
use super::{Futexes, key};
use crate::task::TaskWaiter;
use crate::{BlockResult, CurrentTask, Task};

/// In the queue.
const QUEUED: u32 = 0;
/// Taken out, to become the owner once the word says so.
const CHOSEN: u32 = 1;
/// The owner.
const GRANTED: u32 = 2;
/// Out of the queue, to look at the word again.
const RETRY: u32 = 3;

/// One thread that waits.
#[derive(Debug)]
struct Sleeper {
    tid: u32,
    priority: i32,
    /// Where the word is, for when its owner dies.
    mm: Arc<MemoryManager>,
    addr: u64,
    state: AtomicU32,
    waiter: Arc<TaskWaiter>,
}

impl Sleeper {
    fn state(&self) -> u32 {
        self.state.load(Ordering::SeqCst)
    }

    fn tell(&self, state: u32) {
        self.state.store(state, Ordering::SeqCst);
        self.waiter.wake_up();
    }
}

/// Those who wait for one lock, in the order in which they get it; never empty.
#[derive(Debug)]
struct Queue {
    owner: u32,
    sleepers: Vec<Arc<Sleeper>>,
}

/// Who waits for which lock.
#[derive(Debug)]
struct Queues<K> {
    queues: HashMap<K, Queue>,
    /// What each waiting thread waits for.
    waiting: HashMap<u32, K>,
}

impl<K: Clone + Eq + Hash> Queues<K> {
    /// Tells whether `owner` waits, over whatever others, for a lock of `tid`.
    fn waits_for(&self, owner: u32, tid: u32) -> bool {
        let mut at = owner;
        // Every step is another thread that waits.
        for _ in 0..=self.waiting.len() {
            let Some(queue) = self.waiting.get(&at).and_then(|key| self.queues.get(key)) else {
                return false;
            };
            at = queue.owner;
            if at == tid {
                return true;
            }
        }
        false
    }

    fn enqueue(&mut self, key: &K, owner: u32, sleeper: &Arc<Sleeper>) {
        let fresh = || Queue { owner, sleepers: Vec::new() };
        let queue = self.queues.entry(key.clone()).or_insert_with(fresh);
        queue.owner = owner;
        let at = queue.sleepers.partition_point(|s| s.priority >= sleeper.priority);
        queue.sleepers.insert(at, Arc::clone(sleeper));
        self.waiting.insert(sleeper.tid, key.clone());
    }

    /// Takes the first out, who is to be the owner.
    fn choose(&mut self, key: &K) -> Option<Arc<Sleeper>> {
        let queue = self.queues.get_mut(key)?;
        let chosen = queue.sleepers.remove(0);
        chosen.state.store(CHOSEN, Ordering::SeqCst);
        queue.owner = chosen.tid;
        if queue.sleepers.is_empty() {
            self.queues.remove(key);
        }
        self.waiting.remove(&chosen.tid);
        Some(chosen)
    }

    /// Takes one out that gives up; false where it is out already.
    fn remove(&mut self, key: &K, sleeper: &Arc<Sleeper>) -> bool {
        if sleeper.state() != QUEUED {
            return false;
        }
        if let Some(queue) = self.queues.get_mut(key) {
            queue.sleepers.retain(|s| !Arc::ptr_eq(s, sleeper));
            if queue.sleepers.is_empty() {
                self.queues.remove(key);
            }
        }
        self.waiting.remove(&sleeper.tid);
        true
    }

    /// Takes all out.
    fn drain(&mut self, key: &K) -> Vec<Arc<Sleeper>> {
        let sleepers = self.queues.remove(key).map(|queue| queue.sleepers).unwrap_or_default();
        for sleeper in &sleepers {
            self.waiting.remove(&sleeper.tid);
        }
        sleepers
    }
}

/// The priority-inheriting futexes of a sandbox. One that nobody waits for takes no memory.
#[derive(Debug)]
pub(super) struct PiQueues(Mutex<Queues<FutexKey>>);

impl PiQueues {
    pub(super) fn new() -> Self {
        let queues = Queues { queues: HashMap::new(), waiting: HashMap::new() };
        Self(Mutex::new(LockClass::Futex, queues))
    }

    /// Makes all who wait look at the word again.
    fn retry(&self, key: &FutexKey) {
        let sleepers = self.0.lock().drain(key);
        sleepers.iter().for_each(|s| s.tell(RETRY));
    }
}

/// Tells whether a signal or an exit is to be answered first.
fn is_called_away(cur: &CurrentTask) -> bool {
    cur.is_exiting() || crate::signal::has_work(cur)
}

/// What became of an attempt to queue.
enum Queued {
    Waits(Arc<Sleeper>),
    /// The word changed, or the lock was free meanwhile.
    Again,
    Granted,
}

impl Futexes {
    /// `FUTEX_LOCK_PI`: takes the lock, waiting for it; `deadline_ns` is in the monotonic clock. Without `wait` it is
    /// `FUTEX_TRYLOCK_PI`.
    ///
    /// # Errors
    /// `EAGAIN` where it is taken and not to be waited for, `EDEADLK` where that would be for ever, `ESRCH` where the owner
    /// does not exist, `ETIMEDOUT`, `ERESTARTNOINTR` for a signal, `EFAULT`, `EINVAL`.
    pub fn lock_pi(
        &self,
        cur: &CurrentTask,
        (addr, private): (u64, bool),
        deadline_ns: Option<u64>,
        wait: bool,
    ) -> Result<(), Errno> {
        let mm = cur.mm().ok_or(Errno::EFAULT)?;
        let key = key(&mm, addr, private)?;
        loop {
            let Some(value) = self.take_free(cur, &mm, addr, &key)? else { return Ok(()) };
            if !wait {
                return Err(Errno::EAGAIN);
            }
            match self.queue_pi(cur, &mm, addr, &key, value)? {
                Queued::Granted => return Ok(()),
                Queued::Again if is_called_away(cur) => return Err(Errno::ERESTARTNOINTR),
                Queued::Again => {}
                Queued::Waits(sleeper) => {
                    if self.wait_pi(cur, &key, &sleeper, deadline_ns)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Takes a lock that nobody has; gives the word where somebody does.
    fn take_free(
        &self,
        cur: &CurrentTask,
        mm: &MemoryManager,
        addr: u64,
        key: &FutexKey,
    ) -> Result<Option<u32>, Errno> {
        let tid = cur.tid().cast_unsigned();
        let mut value = mm.atomic_load_u32(addr)?;
        while value & FUTEX_TID_MASK == 0 {
            match mm.compare_exchange_u32(addr, value, value | tid)? {
                Ok(_) => {
                    if let Some(queue) = self.pi.0.lock().queues.get_mut(key) {
                        queue.owner = tid;
                    }
                    return Ok(None);
                }
                Err(_) if is_called_away(cur) => return Err(Errno::ERESTARTNOINTR),
                Err(now) => value = now,
            }
        }
        if value & FUTEX_TID_MASK == tid { Err(Errno::EDEADLK) } else { Ok(Some(value)) }
    }

    /// Queues the caller behind the owner that `value` names, and marks the word.
    fn queue_pi(
        &self,
        cur: &CurrentTask,
        mm: &Arc<MemoryManager>,
        addr: u64,
        key: &FutexKey,
        value: u32,
    ) -> Result<Queued, Errno> {
        let (tid, owner) = (cur.tid().cast_unsigned(), value & FUTEX_TID_MASK);
        let task = cur.kernel().task(owner.cast_signed());
        let sleeper = Arc::new(Sleeper {
            tid,
            priority: cur.scheduling().priority,
            mm: Arc::clone(mm),
            addr,
            state: AtomicU32::new(QUEUED),
            waiter: Arc::clone(cur.waiter()),
        });
        {
            let mut queues = self.pi.0.lock();
            // An owner that has gone hands nothing over any more.
            let Some(_owner) = task.filter(|task| !task.has_left_pi()) else {
                drop(queues);
                let changed = mm.atomic_load_u32(addr)? != value;
                return if changed { Ok(Queued::Again) } else { Err(Errno::ESRCH) };
            };
            if queues.waits_for(owner, tid) {
                return Err(Errno::EDEADLK);
            }
            queues.enqueue(key, owner, &sleeper);
        }
        let marked = mm.compare_exchange_u32(addr, value, value | FUTEX_WAITERS);
        if matches!(marked, Ok(Ok(_))) {
            return Ok(Queued::Waits(sleeper));
        }
        let granted = !self.leave_pi(key, &sleeper) && sleeper.state() == GRANTED;
        match marked {
            _ if granted => Ok(Queued::Granted),
            Err(errno) => Err(errno),
            Ok(_) => Ok(Queued::Again),
        }
    }

    /// Waits in the queue; true with the lock, false to look again.
    fn wait_pi(
        &self,
        cur: &CurrentTask,
        key: &FutexKey,
        sleeper: &Arc<Sleeper>,
        deadline_ns: Option<u64>,
    ) -> Result<bool, Errno> {
        let error = loop {
            match sleeper.state() {
                GRANTED => return Ok(true),
                RETRY => return Ok(false),
                _ => {}
            }
            match cur.block(deadline_ns) {
                BlockResult::Woken => {}
                BlockResult::TimedOut => break Errno::ETIMEDOUT,
                BlockResult::Interrupted => break Errno::ERESTARTNOINTR,
            }
        };
        if !self.leave_pi(key, sleeper) && sleeper.state() == GRANTED { Ok(true) } else { Err(error) }
    }

    /// Takes a sleeper back; false where it was taken out already, and then its state is decided.
    fn leave_pi(&self, key: &FutexKey, sleeper: &Arc<Sleeper>) -> bool {
        let removed = self.pi.0.lock().remove(key, sleeper);
        // Whoever chose it is about to store its id, which no signal may come between.
        while !removed && sleeper.state() == CHOSEN {
            sleeper.waiter.wait();
        }
        removed
    }

    /// `FUTEX_UNLOCK_PI`: gives the lock up, to the first who waits.
    ///
    /// # Errors
    /// `EPERM` for who has it not, `EFAULT`, `EINVAL`.
    pub fn unlock_pi(&self, cur: &CurrentTask, addr: u64, private: bool) -> Result<(), Errno> {
        let mm = cur.mm().ok_or(Errno::EFAULT)?;
        let tid = cur.tid().cast_unsigned();
        if mm.atomic_load_u32(addr)? & FUTEX_TID_MASK != tid {
            return Err(Errno::EPERM);
        }
        let key = key(&mm, addr, private)?;
        loop {
            let chosen = self.pi.0.lock().choose(&key);
            if let Some(chosen) = chosen {
                return self.hand_over(&mm, addr, &key, (&chosen, tid), 0);
            }
            let value = mm.atomic_load_u32(addr)?;
            if value & FUTEX_TID_MASK != tid {
                return Err(Errno::EPERM);
            }
            if mm.compare_exchange_u32(addr, value, 0)?.is_ok() {
                // Who queued between the two looked at a word that was still taken.
                self.pi.retry(&key);
                return Ok(());
            }
            if is_called_away(cur) {
                return Err(Errno::ERESTARTNOINTR);
            }
        }
    }

    /// Makes `chosen` the owner of what belongs to `from`; somebody may have taken a dead owner's lock before.
    fn hand_over(
        &self,
        mm: &MemoryManager,
        addr: u64,
        key: &FutexKey,
        (chosen, from): (&Sleeper, u32),
        died: u32,
    ) -> Result<(), Errno> {
        let stored = self.store_owner(mm, addr, (chosen.tid, from), died);
        if stored == Ok(true) {
            chosen.tell(GRANTED);
        } else {
            chosen.tell(RETRY);
            self.pi.retry(key);
        }
        stored.map(drop)
    }

    fn store_owner(
        &self,
        mm: &MemoryManager,
        addr: u64,
        (to, from): (u32, u32),
        died: u32,
    ) -> Result<bool, Errno> {
        let mut value = mm.atomic_load_u32(addr)?;
        loop {
            let owner = value & FUTEX_TID_MASK;
            if owner != from && !(died != 0 && owner == 0) {
                return Ok(false);
            }
            match mm.compare_exchange_u32(addr, value, to | FUTEX_WAITERS | died)? {
                Ok(_) => return Ok(true),
                // Another thread changes a word whose owner decides: each such change costs it a race.
                Err(now) => value = now,
            }
        }
    }

    /// Hands on what a task that exits, or executes another program, owns and others wait for, Linux `exit_pi_state_list`.
    /// Afterwards nobody queues behind a task that `has_left_pi`.
    pub(crate) fn exit_pi(&self, task: &Task) {
        let tid = task.tid().cast_unsigned();
        if task.is_exiting() {
            task.leave_pi();
        }
        loop {
            let taken = {
                let mut queues = self.pi.0.lock();
                let owned = queues.queues.iter().find(|(_, queue)| queue.owner == tid);
                let Some(key) = owned.map(|(key, _)| key.clone()) else { return };
                queues.choose(&key).map(|chosen| (key, chosen))
            };
            let Some((key, chosen)) = taken else { return };
            // The word may be gone with its memory: then its waiters look at what is there.
            let _unmapped = self.hand_over(&chosen.mm, chosen.addr, &key, (&chosen, tid), FUTEX_OWNER_DIED);
        }
    }
}
