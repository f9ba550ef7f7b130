//! Thread groups: what Linux's `signal_struct` holds, and what user space calls processes.
mod cpu_limit;
mod exit;
mod jobs;
mod session;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use sync::{LockClass, Mutex, WaitQueue};

use crate::loader::ExecImage;
use crate::signal::GroupSignals;
use crate::task::{CpuTimes, Usage};
use crate::timer::GroupTimers;
use crate::{Credentials, ExitStatus, Kernel, Limits, Task};

pub use session::{ControllingTty, ProcessGroup, Session};

/// Changing parts of a thread group.
#[derive(Debug, Default)]
pub(crate) struct GroupState {
    /// The thread whose id is the group's; stays until the group is reaped.
    pub leader: Option<Arc<Task>>,
    /// The leader's credentials, once it is forgotten.
    pub last_credentials: Option<Arc<Credentials>>,
    /// The threads that are not gone.
    pub threads: Vec<Arc<Task>>,
    pub exe: Option<ExecImage>,
    /// How the whole group ends, once that is decided.
    pub exit: Option<ExitStatus>,
    /// How the group ended, once all threads are gone.
    pub ended: Option<ExitStatus>,
    /// The thread that waits for all others to go, in execve(2).
    pub exec_by: Option<Arc<Task>>,
    /// What threads that are gone have used.
    pub past: Usage,
    /// What children that were waited for have used.
    pub children: Usage,
}

/// A process, whatever PID namespace it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId {
    /// The number of its PID namespace.
    pub namespace: u32,
    /// Its id there.
    pub tgid: i32,
}

/// What `coredump_filter` is at first, Linux `MMF_DUMP_FILTER_DEFAULT`, and all that it may have.
const COREDUMP_FILTER: u32 = 0x33;
const COREDUMP_FILTER_ALL: u32 = 0x1ff;

/// A process.
#[derive(Debug)]
pub struct ThreadGroup {
    tgid: i32,
    kernel: Arc<Kernel>,
    signals: GroupSignals,
    timers: GroupTimers,
    limits: Limits,
    cpu_limit: OnceLock<Arc<cpu_limit::CpuLimit>>,
    start_ns: u64,
    pub(crate) state: Mutex<GroupState>,
    exiting: AtomicBool,
    child_events: WaitQueue,
    exit_events: WaitQueue,
    dumpable: AtomicU8,
    personality: AtomicU32,
    oom_score_adj: AtomicI32,
    coredump_filter: AtomicU32,
}

impl ThreadGroup {
    pub(crate) fn new(kernel: &Arc<Kernel>, tgid: i32, signals: GroupSignals, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            tgid,
            kernel: Arc::clone(kernel),
            signals,
            timers: GroupTimers::default(),
            limits,
            cpu_limit: OnceLock::new(),
            start_ns: kernel.clock().monotonic_ns(),
            state: Mutex::new(LockClass::Task, GroupState::default()),
            exiting: AtomicBool::new(false),
            child_events: WaitQueue::new(),
            exit_events: WaitQueue::new(),
            dumpable: AtomicU8::new(1),
            personality: AtomicU32::new(0),
            oom_score_adj: AtomicI32::new(0),
            coredump_filter: AtomicU32::new(COREDUMP_FILTER),
        })
    }

    /// The process id.
    #[must_use]
    pub const fn tgid(&self) -> i32 {
        self.tgid
    }
    /// What tells it from processes of other containers too.
    #[must_use]
    pub fn process_id(&self) -> ProcessId {
        ProcessId { namespace: self.kernel.namespace, tgid: self.tgid }
    }
    /// The kernel it runs on.
    #[must_use]
    pub const fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }
    /// Signals of the whole group.
    #[must_use]
    pub const fn signals(&self) -> &GroupSignals {
        &self.signals
    }
    /// Timers of the whole group.
    #[must_use]
    pub const fn timers(&self) -> &GroupTimers {
        &self.timers
    }
    /// Resource limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }
    /// When it was made, in the monotonic clock.
    #[must_use]
    pub const fn start_ns(&self) -> u64 {
        self.start_ns
    }
    /// Is notified (`IN`) when a child has something to tell wait(2).
    #[must_use]
    pub const fn child_events(&self) -> &WaitQueue {
        &self.child_events
    }
    /// Is notified (`IN`) when the process has exited: for pidfds.
    #[must_use]
    pub const fn exit_events(&self) -> &WaitQueue {
        &self.exit_events
    }

    /// The thread whose id is the process id; it stays after it exited, until the process is reaped.
    ///
    /// Takes no lock but that of the group's own state.
    #[must_use]
    pub fn leader(&self) -> Option<Arc<Task>> {
        self.state.lock().leader.clone()
    }
    /// The threads that are not gone.
    ///
    /// Takes no lock but that of the group's own state.
    #[must_use]
    pub fn threads(&self) -> Vec<Arc<Task>> {
        self.state.lock().threads.clone()
    }
    /// How many threads are not gone.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        self.state.lock().threads.len()
    }
    /// The leader's credentials; those it had at last, where the process was reaped.
    #[must_use]
    pub fn credentials(&self) -> Arc<Credentials> {
        let (leader, last) = {
            let state = self.state.lock();
            (state.leader.clone(), state.last_credentials.clone())
        };
        match (leader, last) {
            (Some(leader), _) => leader.credentials(),
            (None, last) => last.unwrap_or_else(|| Arc::new(Credentials::user(0, 0))),
        }
    }

    /// The process was removed: breaks the circle of the group and its leader, so that both can go.
    pub(crate) fn forget_leader(&self) {
        self.kernel.keep_cpu_times(self);
        let credentials = self.credentials();
        let leader = {
            let mut state = self.state.lock();
            state.last_credentials = Some(credentials);
            state.leader.take()
        };
        drop(leader);
    }

    /// Tells whether the whole group is on its way out.
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.exiting.load(Ordering::SeqCst)
    }
    /// How the group ends, once that is decided.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.state.lock().exit
    }
    /// How the group ended, once all its threads are gone.
    #[must_use]
    pub fn final_status(&self) -> Option<ExitStatus> {
        self.state.lock().ended
    }
    /// Makes every thread leave; the first status given counts.
    pub fn begin_exit(&self, status: ExitStatus) {
        let threads = {
            let mut state = self.state.lock();
            state.exit.get_or_insert(status);
            self.exiting.store(true, Ordering::SeqCst);
            state.threads.clone()
        };
        for task in threads {
            task.interrupt();
        }
    }

    /// The parent process.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.kernel.parent_of(self.tgid)
    }
    /// The parent's process id as getppid(2) tells it, 0 where there is none.
    #[must_use]
    pub fn parent_id(&self) -> i32 {
        self.parent().map_or(0, |p| p.tgid)
    }
    /// The children, oldest first.
    #[must_use]
    pub fn children(&self) -> Vec<Arc<Self>> {
        self.kernel.children_of(self.tgid)
    }
    /// The process group.
    #[must_use]
    pub fn process_group(&self) -> Option<Arc<ProcessGroup>> {
        self.kernel.process_group_of(self.tgid)
    }
    /// The process group's id, 0 after the process is reaped.
    #[must_use]
    pub fn process_group_id(&self) -> i32 {
        self.process_group().map_or(0, |p| p.id())
    }
    /// The session.
    #[must_use]
    pub fn session(&self) -> Option<Arc<Session>> {
        self.process_group().map(|p| Arc::clone(p.session()))
    }
    /// The session's id, 0 after the process is reaped.
    #[must_use]
    pub fn session_id(&self) -> i32 {
        self.session().map_or(0, |s| s.id())
    }
    /// Tells whether no parent of its process group's members is outside that group and in the same session.
    #[must_use]
    pub fn is_in_orphaned_process_group(&self) -> bool {
        self.kernel.is_orphaned(self.process_group_id())
    }

    /// The file that was executed.
    #[must_use]
    pub fn exe(&self) -> Option<ExecImage> {
        self.state.lock().exe.clone()
    }
    pub(crate) fn set_exe(&self, exe: ExecImage) {
        let old = self.state.lock().exe.replace(exe);
        drop(old);
    }

    /// `PR_GET_DUMPABLE`.
    #[must_use]
    pub fn dumpable(&self) -> u8 {
        self.dumpable.load(Ordering::Relaxed)
    }
    /// `PR_SET_DUMPABLE`.
    pub fn set_dumpable(&self, value: u8) {
        self.dumpable.store(value, Ordering::Relaxed);
    }
    /// personality(2).
    #[must_use]
    pub fn personality(&self) -> u32 {
        self.personality.load(Ordering::Relaxed)
    }
    /// personality(2).
    pub fn set_personality(&self, value: u32) {
        self.personality.store(value, Ordering::Relaxed);
    }
    /// `/proc/PID/coredump_filter`: which mappings a core file would have.
    #[must_use]
    pub fn coredump_filter(&self) -> u32 {
        self.coredump_filter.load(Ordering::Relaxed)
    }
    /// `/proc/PID/coredump_filter`; bits that Linux does not know are dropped.
    pub fn set_coredump_filter(&self, value: u32) {
        self.coredump_filter.store(value & COREDUMP_FILTER_ALL, Ordering::Relaxed);
    }
    /// `/proc/PID/oom_score_adj`.
    #[must_use]
    pub fn oom_score_adj(&self) -> i32 {
        self.oom_score_adj.load(Ordering::Relaxed)
    }
    /// `/proc/PID/oom_score_adj`.
    pub fn set_oom_score_adj(&self, value: i32) {
        self.oom_score_adj.store(value, Ordering::Relaxed);
    }
    /// `PR_GET_CHILD_SUBREAPER`.
    #[must_use]
    pub fn is_subreaper(&self) -> bool {
        self.kernel.is_subreaper(self.tgid)
    }
    /// `PR_SET_CHILD_SUBREAPER`.
    pub fn set_subreaper(&self, value: bool) {
        self.kernel.set_subreaper(self.tgid, value);
    }

    /// The processor time of all threads, those that are gone included.
    #[must_use]
    pub fn cpu_times(&self) -> CpuTimes {
        let (past, threads) = {
            let state = self.state.lock();
            (state.past.cpu, state.threads.clone())
        };
        threads.iter().fold(past, |sum, task| sum.plus(task.cpu_times()))
    }
    /// User and system time in nanoseconds.
    #[must_use]
    pub fn cpu_ns(&self) -> (u64, u64) {
        let times = self.cpu_times();
        (times.user_ns, times.system_ns)
    }
    /// User and system time in ticks of 1/100 s.
    #[must_use]
    pub fn cpu_ticks(&self) -> (i64, i64) {
        self.cpu_times().ticks()
    }
    /// What the process has used, `RUSAGE_SELF`.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (past, threads) = {
            let state = self.state.lock();
            (state.past, state.threads.clone())
        };
        let mut usage = threads.iter().fold(past, |sum, task| sum.plus(task.usage()));
        if let Some(mm) = threads.first().and_then(|task| task.mm()) {
            usage.max_rss_kb = usage.max_rss_kb.max(mm.status().peak_rss / 1024);
        }
        usage
    }
    /// Memory of it is gone that was this large.
    pub(crate) fn note_rss(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.past.max_rss_kb = state.past.max_rss_kb.max(bytes / 1024);
    }
    /// What children that were waited for have used, `RUSAGE_CHILDREN`.
    #[must_use]
    pub fn children_usage(&self) -> Usage {
        self.state.lock().children
    }
}
