//! Tasks: Linux's `task_struct`, and what user space calls threads.
mod accounting;
mod clone;
mod current;
mod exec;
mod exit;
mod last_trap;
mod memory;
mod run;
mod start;
mod wait;
mod waiter;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use memmap::MemoryManager;
use platform::Interrupt;
use sync::{LockClass, Mutex};

use crate::futex::RobustList;
use crate::ptrace::Tracing;
use crate::seccomp::Seccomp;
use crate::signal::TaskSignals;
use crate::slot::{Slots, put};
use crate::{Credentials, FdTable, Kernel, Slot, TaskResource, ThreadGroup};

pub(crate) use accounting::{CpuClock, Mode};
pub use accounting::{CpuTimes, Usage};
pub use current::{BlockResult, CloneArgs, CurrentTask, RestartBlock, WaitArgs, WaitResult, WaitTarget};
pub(crate) use memory::{MmUser, VforkParent};
pub(crate) use start::{Start, prepare};
pub use waiter::TaskWaiter;
pub(crate) use workers::Workers;

/// How a task wants to be scheduled. The host schedules; this is what the sched_*(2) calls were told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: i32,
    /// The real-time priority.
    pub priority: i32,
    /// The nice value, -20 to 19.
    pub nice: i32,
    /// Whether children start with the default.
    pub reset_on_fork: bool,
    /// The processors it may run on, bit n being processor n.
    pub affinity: Arc<[u64]>,
    /// `ioprio_set(2)`.
    pub io_priority: u16,
    /// `PR_SET_TIMERSLACK`, in nanoseconds.
    pub timer_slack_ns: u64,
}

/// Changing parts of a task.
#[derive(Debug)]
pub(crate) struct TaskState {
    pub name: [u8; 16],
    pub credentials: Arc<Credentials>,
    pub fd_table: Option<Arc<FdTable>>,
    pub mm: Option<Arc<MmUser>>,
    pub vfork_parent: Option<Arc<VforkParent>>,
    pub slots: Slots,
    pub robust_list: RobustList,
    pub clear_child_tid: u64,
    pub parent_death_signal: i32,
    pub scheduling: Scheduling,
    pub seccomp: Seccomp,
    pub interrupt: Option<Arc<dyn Interrupt>>,
}

/// One thread of a process, as others see it; [`CurrentTask`] is the thread itself.
#[derive(Debug)]
pub struct Task {
    /// Changes in execve(2) only, when another thread than the leader calls it.
    tid: AtomicI32,
    group: Arc<ThreadGroup>,
    signals: TaskSignals,
    waiter: Arc<TaskWaiter>,
    pub(crate) cpu: CpuClock,
    start_ns: u64,
    exiting: AtomicBool,
    pub(crate) tracing: Tracing,
    /// Set when filters were changed, until the thread has told its platform.
    pub(crate) refiltered: AtomicBool,
    /// It hands on no priority-inheriting futexes any more.
    left_pi: AtomicBool,
    pub(crate) state: Mutex<TaskState>,
}

impl Task {
    pub(crate) fn new(
        tid: i32,
        group: &Arc<ThreadGroup>,
        signals: TaskSignals,
        state: TaskState,
    ) -> Arc<Self> {
        Arc::new(Self {
            tid: AtomicI32::new(tid),
            group: Arc::clone(group),
            signals,
            waiter: Arc::new(TaskWaiter::default()),
            cpu: CpuClock::default(),
            start_ns: group.kernel().clock().monotonic_ns(),
            exiting: AtomicBool::new(false),
            tracing: Tracing::new(state.seccomp.mode() != 0),
            refiltered: AtomicBool::new(false),
            left_pi: AtomicBool::new(false),
            state: Mutex::new(LockClass::Task, state),
        })
    }

    /// The thread id.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }
    pub(crate) fn set_tid(&self, tid: i32) {
        self.tid.store(tid, Ordering::Relaxed);
    }
    /// The process id.
    #[must_use]
    pub fn tgid(&self) -> i32 {
        self.group.tgid()
    }
    /// The kernel it runs on.
    #[must_use]
    pub fn kernel(&self) -> &Arc<Kernel> {
        self.group.kernel()
    }
    /// The process.
    #[must_use]
    pub const fn group(&self) -> &Arc<ThreadGroup> {
        &self.group
    }
    /// Signals of this thread alone.
    #[must_use]
    pub const fn signals(&self) -> &TaskSignals {
        &self.signals
    }
    /// Where the task sleeps.
    #[must_use]
    pub const fn waiter(&self) -> &Arc<TaskWaiter> {
        &self.waiter
    }
    /// When it was made, in the monotonic clock.
    #[must_use]
    pub const fn start_ns(&self) -> u64 {
        self.start_ns
    }
    /// Tells whether it is on its way out.
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.exiting.load(Ordering::SeqCst) || self.group.is_exiting()
    }
    pub(crate) fn has_left_pi(&self) -> bool {
        self.left_pi.load(Ordering::SeqCst)
    }
    pub(crate) fn leave_pi(&self) {
        self.left_pi.store(true, Ordering::SeqCst);
    }
    pub(crate) fn set_exiting(&self) {
        self.exiting.store(true, Ordering::SeqCst);
    }
    /// Tells whether it uses or wants a processor now.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.cpu.is_running()
    }

    /// `PR_GET_NAME`, filled up with zeros.
    #[must_use]
    pub fn name(&self) -> [u8; 16] {
        self.state.lock().name
    }
    /// `PR_SET_NAME`; what is longer than 15 bytes is cut.
    pub fn set_name(&self, name: &[u8]) {
        self.state.lock().name = task_name(name);
    }
    /// Who it is.
    #[must_use]
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.state.lock().credentials)
    }
    /// Replaces who it is. Another effective identity, or more capabilities, take the right of others to inspect the
    /// process, and the signal of a parent's death, as in Linux `commit_creds`.
    pub fn set_credentials(&self, credentials: Arc<Credentials>) {
        let (old, changed) = {
            let mut state = self.state.lock();
            let old = std::mem::replace(&mut state.credentials, credentials);
            let new = &state.credentials;
            let same_ids =
                (old.euid, old.egid, old.fsuid, old.fsgid) == (new.euid, new.egid, new.fsuid, new.fsgid);
            let changed = !same_ids || !new.cap_permitted.is_subset(old.cap_permitted);
            if changed {
                state.parent_death_signal = 0;
            }
            (old, changed)
        };
        if changed {
            self.group.set_dumpable(0);
        }
        drop(old);
    }
    /// `PR_SET_NO_NEW_PRIVS`.
    pub(crate) fn set_no_new_privs(&self) {
        let old = Credentials::clone(&self.credentials());
        self.set_credentials(Arc::new(Credentials { no_new_privs: true, ..old }));
    }
    /// The descriptors; `None` once it exited.
    #[must_use]
    pub fn fd_table(&self) -> Option<Arc<FdTable>> {
        self.state.lock().fd_table.clone()
    }
    /// The memory; `None` once it exited.
    #[must_use]
    pub fn mm(&self) -> Option<Arc<MemoryManager>> {
        self.state.lock().mm.as_ref().map(|m| Arc::clone(m.mm()))
    }
    /// The resource in a slot; `None` once it exited.
    #[must_use]
    pub fn get<T: TaskResource>(&self, slot: &Slot<T>) -> Option<Arc<T>> {
        slot.read(&self.state.lock().slots)
    }
    /// Puts a resource into a slot. [`TaskResource::on_exit`] of the one that was there is called.
    pub fn set<T: TaskResource>(&self, slot: &Slot<T>, value: Arc<T>) {
        let old = put(&mut self.state.lock().slots, slot.id(), value);
        if let Some(old) = old {
            old.on_exit();
        }
    }

    /// set_robust_list(2).
    pub fn set_robust_list(&self, list: RobustList) {
        self.state.lock().robust_list = list;
    }
    /// get_robust_list(2).
    #[must_use]
    pub fn robust_list(&self) -> RobustList {
        self.state.lock().robust_list
    }
    /// set_tid_address(2).
    pub fn set_clear_child_tid(&self, addr: u64) {
        self.state.lock().clear_child_tid = addr;
    }
    /// The address of set_tid_address(2), or 0.
    #[must_use]
    pub fn clear_child_tid(&self) -> u64 {
        self.state.lock().clear_child_tid
    }
    /// `PR_SET_PDEATHSIG`; 0 for none.
    pub fn set_parent_death_signal(&self, signal: i32) {
        self.state.lock().parent_death_signal = signal;
    }
    /// `PR_GET_PDEATHSIG`.
    #[must_use]
    pub fn parent_death_signal(&self) -> i32 {
        self.state.lock().parent_death_signal
    }
    /// How it wants to be scheduled.
    #[must_use]
    pub fn scheduling(&self) -> Scheduling {
        self.state.lock().scheduling.clone()
    }
    /// Changes how it wants to be scheduled.
    pub fn set_scheduling(&self, scheduling: Scheduling) {
        let old = std::mem::replace(&mut self.state.lock().scheduling, scheduling);
        drop(old);
    }

    /// The processor time it has used.
    #[must_use]
    pub fn cpu_times(&self) -> CpuTimes {
        self.cpu.times(self.kernel().clock().monotonic_ns())
    }

    /// What it has used, `RUSAGE_THREAD`; the memory is its process's.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.cpu.usage(self.kernel().clock().monotonic_ns())
    }
    /// User and system time in nanoseconds.
    #[must_use]
    pub fn cpu_ns(&self) -> (u64, u64) {
        let times = self.cpu_times();
        (times.user_ns, times.system_ns)
    }

    /// Makes the task ask again what its platform may answer by itself, before its program goes on.
    pub fn reconsider(&self) {
        self.refiltered.store(true, Ordering::SeqCst);
        self.interrupt();
    }

    /// Makes the task look for signals: stops the program, ends a sleep. May be called under any lock up to `Task`, not
    /// included.
    pub fn interrupt(&self) {
        self.waiter.wake_up();
        let interrupt = self.state.lock().interrupt.clone();
        if let Some(interrupt) = interrupt {
            interrupt.interrupt();
        }
    }
}

/// A name of at most 15 bytes, filled up with zeros.
pub(crate) fn task_name(name: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().take(15).zip(name.iter().take_while(|b| **b != 0)) {
        *to = *from;
    }
    out
}
