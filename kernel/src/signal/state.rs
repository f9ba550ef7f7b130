//! Where signals wait: for one task, and for all tasks of a thread group.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use abi::sigframe::{SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, StackT};
use abi::{SigSet, Signal};
use sync::{LockClass, Mutex, WaitQueue};

use super::stop::JobControl;
use super::{PendingSignals, SigActions, SigInfo};

/// Pending signals with a copy of their set that is read without the lock.
#[derive(Debug)]
pub(crate) struct Pending {
    bits: AtomicU64,
    queue: Mutex<PendingSignals>,
}

impl Pending {
    fn new() -> Self {
        Self { bits: AtomicU64::new(0), queue: Mutex::new(LockClass::Signals, PendingSignals::default()) }
    }
    pub(super) fn set(&self) -> SigSet {
        SigSet(self.bits.load(Ordering::SeqCst))
    }
    pub(crate) fn infos(&self) -> Vec<SigInfo> {
        self.queue.lock().infos().copied().collect()
    }
    fn change<R>(&self, change: impl FnOnce(&mut PendingSignals) -> R) -> R {
        let mut queue = self.queue.lock();
        let result = change(&mut queue);
        self.bits.store(queue.set().0, Ordering::SeqCst);
        result
    }
}

/// Signals of one task.
#[derive(Debug)]
pub struct TaskSignals {
    pub(crate) pending: Pending,
    /// Written by the task itself, or by its tracer while it is stopped.
    mask: AtomicU64,
    /// The mask that sigsuspend(2), ppoll(2) and their like put aside, with whether there is one.
    saved_mask: AtomicU64,
    has_saved_mask: AtomicBool,
    /// Blocked signals that sigtimedwait(2) waits for.
    awaited: AtomicU64,
    alt_stack: Mutex<StackT>,
}

impl TaskSignals {
    /// No signal pending, this mask, no alternate stack.
    #[must_use]
    pub fn new(mask: SigSet) -> Self {
        Self {
            pending: Pending::new(),
            mask: AtomicU64::new(mask.difference(SigSet::UNBLOCKABLE).0),
            saved_mask: AtomicU64::new(0),
            has_saved_mask: AtomicBool::new(false),
            awaited: AtomicU64::new(0),
            alt_stack: Mutex::new(LockClass::Leaf, StackT::default()),
        }
    }

    /// What is blocked.
    #[must_use]
    pub fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::SeqCst))
    }

    /// Replaces the mask; `SIGKILL` and `SIGSTOP` stay unblocked. For the task itself.
    pub fn set_mask(&self, mask: SigSet) {
        self.mask.store(mask.difference(SigSet::UNBLOCKABLE).0, Ordering::SeqCst);
    }

    /// Replaces the mask until the next signal is handled or the system call is done. For the task itself.
    pub fn set_temporary_mask(&self, mask: SigSet) {
        if !self.has_saved_mask.swap(true, Ordering::SeqCst) {
            self.saved_mask.store(self.mask().0, Ordering::SeqCst);
        }
        self.set_mask(mask);
    }

    /// Takes the mask that was put aside.
    #[must_use]
    pub fn take_saved_mask(&self) -> Option<SigSet> {
        let saved = self.has_saved_mask.swap(false, Ordering::SeqCst);
        saved.then(|| SigSet(self.saved_mask.load(Ordering::SeqCst)))
    }

    /// Puts the mask back that was put aside, if one was: what a system call does that was not interrupted.
    pub fn restore_mask(&self) {
        if let Some(mask) = self.take_saved_mask() {
            self.set_mask(mask);
        }
    }

    /// The mask that is in force once the system call is done.
    #[must_use]
    pub fn mask_to_restore(&self) -> SigSet {
        let saved = self.has_saved_mask.load(Ordering::SeqCst);
        if saved { SigSet(self.saved_mask.load(Ordering::SeqCst)) } else { self.mask() }
    }

    /// Says for which blocked signals the task waits (sigtimedwait(2)); none ends that.
    pub fn set_awaited(&self, set: SigSet) {
        self.awaited.store(set.0, Ordering::SeqCst);
    }

    pub(super) fn awaited(&self) -> SigSet {
        SigSet(self.awaited.load(Ordering::SeqCst))
    }

    /// What is blocked and not waited for.
    pub(super) fn deaf_to(&self) -> SigSet {
        self.mask().difference(self.awaited())
    }

    /// Signals sent to this task alone and pending.
    #[must_use]
    pub fn pending(&self) -> SigSet {
        self.pending.set()
    }

    /// The alternate stack as registered, without `SS_ONSTACK`.
    #[must_use]
    pub fn alt_stack(&self) -> StackT {
        *self.alt_stack.lock()
    }

    /// Registers an alternate stack; checks are those of sigaltstack(2) and the caller's.
    pub fn set_alt_stack(&self, stack: StackT) {
        *self.alt_stack.lock() = stack;
    }

    /// Tells whether a stack pointer is on the alternate stack. With `SS_AUTODISARM` a program is never told so.
    #[must_use]
    pub fn is_on_alt_stack(&self, sp: u64) -> bool {
        let stack = self.alt_stack();
        stack.flags & SS_AUTODISARM == 0 && sp > stack.sp && sp - stack.sp <= stack.size
    }

    /// `ss_flags` as sigaltstack(2) reports them.
    #[must_use]
    pub fn alt_stack_flags(&self, sp: u64) -> i32 {
        let stack = self.alt_stack();
        if stack.size == 0 {
            SS_DISABLE
        } else if self.is_on_alt_stack(sp) {
            SS_ONSTACK
        } else {
            stack.flags & SS_AUTODISARM
        }
    }
}

/// Signals of a thread group.
#[derive(Debug)]
pub struct GroupSignals {
    actions: Mutex<Arc<SigActions>>,
    pub(crate) pending: Pending,
    /// How many signals are queued in this and all its tasks, for `RLIMIT_SIGPENDING`.
    queued: AtomicUsize,
    /// Linux `SIGNAL_UNKILLABLE`: the sandbox's init.
    unkillable: AtomicBool,
    pub(crate) job: JobControl,
    arrivals: WaitQueue,
}

impl GroupSignals {
    /// No signal pending, these actions.
    #[must_use]
    pub fn new(actions: Arc<SigActions>) -> Self {
        Self {
            actions: Mutex::new(LockClass::Leaf, actions),
            pending: Pending::new(),
            queued: AtomicUsize::new(0),
            unkillable: AtomicBool::new(false),
            job: JobControl::new(),
            arrivals: WaitQueue::new(),
        }
    }

    /// The actions.
    #[must_use]
    pub fn actions(&self) -> Arc<SigActions> {
        Arc::clone(&self.actions.lock())
    }

    /// Replaces all actions, as execve(2) does.
    pub fn set_actions(&self, actions: Arc<SigActions>) {
        let old = std::mem::replace(&mut *self.actions.lock(), actions);
        drop(old);
    }

    /// Signals sent to the whole group and pending.
    #[must_use]
    pub fn pending(&self) -> SigSet {
        self.pending.set()
    }

    /// How many signals are queued, with the tasks' own.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Is notified of every signal that is sent to the group or one of its tasks: for signalfd(2).
    #[must_use]
    pub const fn arrivals(&self) -> &WaitQueue {
        &self.arrivals
    }

    /// Makes signals without a handler do nothing, `SIGKILL` from inside included: for the sandbox's init.
    pub fn set_unkillable(&self, unkillable: bool) {
        self.unkillable.store(unkillable, Ordering::SeqCst);
    }

    pub(super) fn is_unkillable(&self) -> bool {
        self.unkillable.load(Ordering::SeqCst)
    }

    /// Adds to one of the group's queues; gives false where there was no room for the information.
    pub(super) fn push(&self, to: &Pending, info: SigInfo, limit: usize) -> bool {
        let room = self.queued.load(Ordering::Relaxed) < limit;
        to.change(|queue| {
            let before = queue.len();
            let kept = queue.push(info, room);
            self.queued.fetch_add(queue.len() - before, Ordering::Relaxed);
            kept
        })
    }

    /// Takes from one of the group's queues.
    pub(super) fn take(&self, from: &Pending, wanted: SigSet) -> Option<SigInfo> {
        if from.set().intersection(wanted).is_empty() {
            return None;
        }
        from.change(|queue| {
            let before = queue.len();
            let info = queue.take(wanted);
            self.queued.fetch_sub(before - queue.len(), Ordering::Relaxed);
            info
        })
    }

    /// Forgets signals of one of the group's queues.
    pub(super) fn discard(&self, from: &Pending, unwanted: SigSet) {
        if from.set().intersection(unwanted).is_empty() {
            return;
        }
        from.change(|queue| {
            let before = queue.len();
            queue.discard(unwanted);
            self.queued.fetch_sub(before - queue.len(), Ordering::Relaxed);
        });
    }

    /// Forgets what is queued for a task that is gone.
    pub fn forget_task(&self, task: &TaskSignals) {
        self.discard(&task.pending, SigSet::FULL);
    }
}

/// The bit of `SIGKILL`.
pub(super) const KILL: SigSet = SigSet::of(Signal::SIGKILL);
