//! Record locks and whole-file locks: `fcntl(2)`, `flock(2)`, Linux `fs/locks.c`.
//!
//! The locks of an inode are one list, found by its number, which lives as long as a description through which one of them
//! was made.
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use abi::Errno;
use kernel::{ProcessId, Task};
use sync::{LockClass, Mutex, PollEvents, WaitQueue};

use crate::FileDescription;

/// What an inode's locks are attached under.
const LOCKS: &str = "locks";
/// The last byte there is.
pub const LAST: u64 = i64::MAX.cast_unsigned();
/// How many waiters are followed in search of a deadlock, Linux `MAX_DEADLK_ITERATIONS`.
const MAX_CHAIN: usize = 10;

/// Whose a record lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOwner {
    /// A process, `F_SETLK`.
    Process(ProcessId),
    /// An open file description, `F_OFD_SETLK`.
    Description(usize),
}

/// A record lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordLock {
    /// Whose.
    pub owner: LockOwner,
    /// Excludes all others, not only writers.
    pub exclusive: bool,
    /// First and last byte.
    pub range: RangeInclusive<u64>,
}

impl RecordLock {
    fn overlaps(&self, range: &RangeInclusive<u64>) -> bool {
        self.range.start() <= range.end() && range.start() <= self.range.end()
    }
    fn conflicts(&self, other: &Self) -> bool {
        self.owner != other.owner && (self.exclusive || other.exclusive) && self.overlaps(&other.range)
    }
}

#[derive(Debug, Default)]
struct State {
    records: Vec<RecordLock>,
    /// Descriptions with a lock of flock(2), and whether it is exclusive.
    whole: Vec<(usize, bool)>,
}

/// The locks of one inode.
#[derive(Debug)]
pub struct FileLocks {
    state: Mutex<State>,
    released: WaitQueue,
}

/// How many record locks processes have, so that closing files costs nothing where there is none.
static PROCESS_LOCKS: AtomicUsize = AtomicUsize::new(0);

/// Which process waits for a lock of which other.
static WAITING: Mutex<Vec<(ProcessId, ProcessId)>> = Mutex::new(LockClass::Leaf, Vec::new());

fn count(records: &[RecordLock]) -> usize {
    records.iter().filter(|l| matches!(l.owner, LockOwner::Process(_))).count()
}

/// Takes a range out of an owner's locks, splitting what reaches beyond it.
fn cut(records: &mut Vec<RecordLock>, owner: LockOwner, range: &RangeInclusive<u64>) {
    let mut kept = Vec::with_capacity(records.len() + 1);
    for lock in records.drain(..) {
        if lock.owner != owner || !lock.overlaps(range) {
            kept.push(lock);
            continue;
        }
        if lock.range.start() < range.start() {
            kept.push(RecordLock { range: *lock.range.start()..=range.start() - 1, ..lock.clone() });
        }
        if lock.range.end() > range.end() {
            kept.push(RecordLock { range: range.end() + 1..=*lock.range.end(), ..lock });
        }
    }
    *records = kept;
}

/// Adds a lock, joined with neighbours of its owner and kind.
fn add(records: &mut Vec<RecordLock>, mut new: RecordLock) {
    records.retain(|lock| {
        let touches = lock.range.start().saturating_sub(1) <= *new.range.end()
            && new.range.start().saturating_sub(1) <= *lock.range.end();
        let joins = lock.owner == new.owner && lock.exclusive == new.exclusive && touches;
        if joins {
            let start = *lock.range.start().min(new.range.start());
            new.range = start..=*lock.range.end().max(new.range.end());
        }
        !joins
    });
    let at = records.partition_point(|lock| lock.range.start() <= new.range.start());
    records.insert(at, new);
}

impl FileLocks {
    fn new() -> Arc<Self> {
        let state = Mutex::new(LockClass::FileLocks, State::default());
        Arc::new(Self { state, released: WaitQueue::new() })
    }

    /// Is notified when a lock is given up.
    #[must_use]
    pub const fn released(&self) -> &WaitQueue {
        &self.released
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = {
            let mut state = self.state.lock();
            let before = count(&state.records);
            let result = change(&mut state);
            PROCESS_LOCKS.fetch_add(count(&state.records), Ordering::SeqCst);
            PROCESS_LOCKS.fetch_sub(before, Ordering::SeqCst);
            result
        };
        self.released.notify(PollEvents::IN);
        result
    }

    /// The first lock that stands against `wanted`.
    #[must_use]
    pub fn conflict(&self, wanted: &RecordLock) -> Option<RecordLock> {
        self.state.lock().records.iter().find(|lock| lock.conflicts(wanted)).cloned()
    }

    /// Sets a record lock in the place of what its owner has there.
    ///
    /// # Errors
    /// `EAGAIN` where another's lock stands against it.
    pub fn set(&self, wanted: &RecordLock) -> Result<(), Errno> {
        if self.conflict(wanted).is_some() {
            return Err(Errno::EAGAIN);
        }
        self.change(|state| {
            if state.records.iter().any(|lock| lock.conflicts(wanted)) {
                return Err(Errno::EAGAIN);
            }
            cut(&mut state.records, wanted.owner, &wanted.range);
            add(&mut state.records, wanted.clone());
            Ok(())
        })
    }

    /// Gives up what an owner has in a range.
    pub fn unlock(&self, owner: LockOwner, range: &RangeInclusive<u64>) {
        self.change(|state| cut(&mut state.records, owner, range));
    }

    /// flock(2): takes, changes or with `None` gives up the lock of a description. A lock that is changed is given up
    /// first, as in Linux.
    ///
    /// # Errors
    /// `EAGAIN` where another description's lock stands against it.
    pub fn set_whole(&self, description: usize, exclusive: Option<bool>) -> Result<(), Errno> {
        let held = self.state.lock().whole.iter().find(|(id, _)| *id == description).map(|(_, kind)| *kind);
        if held == exclusive {
            return Ok(());
        }
        if held.is_some() {
            self.change(|state| state.whole.retain(|(id, _)| *id != description));
        }
        let Some(exclusive) = exclusive else { return Ok(()) };
        let mut state = self.state.lock();
        if state.whole.iter().any(|(id, other)| *id != description && (exclusive || *other)) {
            return Err(Errno::EAGAIN);
        }
        state.whole.push((description, exclusive));
        Ok(())
    }
}

/// A process is known to wait for a lock while this lives.
#[derive(Debug)]
pub struct Waiting {
    entry: (ProcessId, ProcessId),
}

impl Waiting {
    /// Says that `waiter` waits for a lock of `holder`.
    ///
    /// # Errors
    /// `EDEADLK` where the holder waits for the waiter, itself or through others.
    pub fn new(waiter: ProcessId, holder: ProcessId) -> Result<Self, Errno> {
        let mut waiting = WAITING.lock();
        let mut at = holder;
        for _ in 0..MAX_CHAIN {
            if at == waiter {
                return Err(Errno::EDEADLK);
            }
            let Some((_, next)) = waiting.iter().find(|(w, _)| *w == at) else { break };
            at = *next;
        }
        waiting.push((waiter, holder));
        Ok(Self { entry: (waiter, holder) })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = WAITING.lock();
        if let Some(at) = waiting.iter().position(|entry| *entry == self.entry) {
            waiting.swap_remove(at);
        }
    }
}

impl FileDescription {
    /// What stands for the description in locks.
    #[must_use]
    pub fn lock_id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The locks of the inode, which from now on live as long as this description.
    ///
    /// # Errors
    /// Those of the inode's attributes.
    pub fn locks(&self) -> Result<&Arc<FileLocks>, Errno> {
        if let Some(locks) = self.locks.get() {
            return Ok(locks);
        }
        let ino = self.path().inode()?.metadata()?.ino;
        let locks = self.path().mount.sb().attach_with(ino, LOCKS, FileLocks::new);
        Ok(self.locks.get_or_init(|| locks))
    }
}

/// A descriptor was closed: the process gives up its record locks of the file, whichever descriptor they were made by.
pub(crate) fn close(file: &FileDescription, task: &Task) {
    if PROCESS_LOCKS.load(Ordering::SeqCst) == 0 {
        return;
    }
    let Some(Ok(meta)) = file.path().dentry.inode().map(|inode| inode.metadata()) else { return };
    if let Some(locks) = file.path().mount.sb().attachment::<FileLocks>(meta.ino, LOCKS) {
        locks.unlock(LockOwner::Process(task.group().process_id()), &(0..=LAST));
    }
}

/// An open file description is gone, and its locks with it.
pub(crate) fn release_description(file: &FileDescription) {
    let Some(locks) = file.locks.get() else { return };
    locks.change(|state| {
        let id = file.lock_id();
        state.whole.retain(|(other, _)| *other != id);
        cut(&mut state.records, LockOwner::Description(id), &(0..=LAST));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(tgid: i32) -> ProcessId {
        ProcessId { namespace: 0, tgid }
    }

    fn lock(owner: i32, exclusive: bool, range: RangeInclusive<u64>) -> RecordLock {
        RecordLock { owner: LockOwner::Process(process(owner)), exclusive, range }
    }

    #[test]
    fn ranges_split_and_join() {
        let locks = FileLocks::new();
        locks.set(&lock(1, true, 0..=99)).expect("free");
        locks.unlock(LockOwner::Process(process(1)), &(40..=59));
        let ranges = || locks.state.lock().records.iter().map(|l| l.range.clone()).collect::<Vec<_>>();
        assert_eq!(ranges(), [0..=39, 60..=99]);
        assert_eq!(locks.set(&lock(2, false, 50..=60)), Err(Errno::EAGAIN));
        assert_eq!(locks.conflict(&lock(2, false, 0..=LAST)).map(|l| l.range), Some(0..=39));
        locks.set(&lock(1, true, 40..=59)).expect("own");
        assert_eq!(ranges(), [0..=99]);
        locks.set(&lock(1, false, 10..=19)).expect("own");
        assert_eq!(ranges(), [0..=9, 10..=19, 20..=99]);
        locks.set(&lock(2, false, 10..=19)).expect("shared");
        locks.unlock(LockOwner::Process(process(1)), &(0..=LAST));
        locks.unlock(LockOwner::Process(process(2)), &(0..=LAST));
        assert_eq!(ranges(), []);
    }

    #[test]
    fn whole_file_locks() {
        let locks = FileLocks::new();
        locks.set_whole(1, Some(false)).expect("free");
        locks.set_whole(2, Some(false)).expect("shared");
        assert_eq!(locks.set_whole(1, Some(true)), Err(Errno::EAGAIN));
        // The change gave up the shared lock.
        locks.set_whole(2, Some(true)).expect("alone");
        locks.set_whole(2, None).expect("always");
        locks.set_whole(1, Some(true)).expect("free");
    }

    #[test]
    fn circles_of_waiters_are_found() {
        let _first = Waiting::new(process(1001), process(1002)).expect("free");
        let _second = Waiting::new(process(1002), process(1003)).expect("free");
        assert_eq!(Waiting::new(process(1003), process(1001)).map(|_| ()), Err(Errno::EDEADLK));
        let elsewhere = ProcessId { namespace: 1, tgid: 1003 };
        assert!(Waiting::new(elsewhere, process(1001)).is_ok());
    }
}
