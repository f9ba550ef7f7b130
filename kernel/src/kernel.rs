//! The kernel of one sandbox.
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use abi::Errno;
use memmap::MemoryFile;
use platform::Platform;
use sync::{Clock, LockClass, Mutex, WaitQueue};

use crate::loader::HostAuxv;
use crate::observe::Observer;
use crate::quota::Quota;
use crate::seccomp::Seccomp;
use crate::task::{CpuTimes, Task, Workers};
use crate::timer::TimerQueue;
use crate::tree::Tree;
use crate::usage::Hook;
use crate::{
    Credentials, CurrentTask, ExecImage, ExecStrings, ExitStatus, FdTable, File, Futexes, IdMaps, Limits,
    OpenInterpreter, ProcessGroup, Session, SlotId, TaskResource, ThreadGroup,
};

/// Answers system calls; the `syscalls` crate registers itself at boot.
pub trait Syscalls: Send + Sync {
    /// Answers the call whose number and arguments are in the registers, and leaves what it returns there.
    fn call(&self, cur: &mut CurrentTask);

    /// A task is about to run its first instruction, or the first of a new program: says by [`CurrentTask::answer_ids`] what
    /// the platform may answer.
    fn begin(&self, cur: &mut CurrentTask) {
        let _ = cur;
    }
}

impl fmt::Debug for dyn Syscalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Syscalls")
    }
}

/// Makes the file behind a pidfd.
pub type PidfdFactory = Box<dyn Fn(&Arc<ThreadGroup>) -> Result<Arc<dyn File>, Errno> + Send + Sync>;

/// Called for each process that has exited, before its parent is told.
pub type ExitHook = Box<dyn Fn(&Arc<ThreadGroup>) + Send + Sync>;

/// Fills a buffer with random bytes.
pub type RandomSource = Box<dyn Fn(&mut [u8]) + Send + Sync>;

/// What a kernel is made of.
pub struct KernelArgs {
    /// Holds all guest memory that is not a host file.
    pub memory_file: Arc<MemoryFile>,
    /// Runs guest code.
    pub platform: Arc<dyn Platform>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The host's part of the auxiliary vector.
    pub host: HostAuxv,
    /// `uname -n`.
    pub hostname: Vec<u8>,
    /// How many processors programs see.
    pub cpus: u32,
    /// Fills buffers with random bytes, as getrandom(2) of the host does.
    pub random: RandomSource,
}

impl fmt::Debug for KernelArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelArgs").field("platform", &self.platform).finish_non_exhaustive()
    }
}

/// Called with a process that is there and does not run yet.
pub type BeforeStart<'a> = Box<dyn FnOnce(&Arc<ThreadGroup>) + 'a>;

/// What the first process of a container, or one that `runsc exec` starts, begins with.
pub struct InitArgs<'a> {
    /// The program.
    pub image: ExecImage,
    /// Its arguments and environment.
    pub strings: ExecStrings,
    /// Who it is.
    pub credentials: Credentials,
    /// Its limits.
    pub limits: Limits,
    /// Its descriptors.
    pub fds: Arc<FdTable>,
    /// What decides over its system calls.
    pub seccomp: Seccomp,
    /// The resources of upper crates.
    pub slots: Vec<(SlotId, Arc<dyn TaskResource>)>,
    /// Opens interpreters.
    pub open: OpenInterpreter<'a>,
    /// Gives the process its terminal, for example.
    pub before_start: Option<BeforeStart<'a>>,
}

impl fmt::Debug for InitArgs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitArgs")
            .field("image", &self.image)
            .field("strings", &self.strings)
            .finish_non_exhaustive()
    }
}

/// Names of uname(2) that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UtsNames {
    /// sethostname(2), at most 64 bytes.
    pub hostname: Vec<u8>,
    /// setdomainname(2), at most 64 bytes.
    pub domainname: Vec<u8>,
}

/// The UTS namespace.
#[derive(Debug)]
pub struct Uts {
    names: Mutex<UtsNames>,
}

impl Uts {
    /// The names.
    #[must_use]
    pub fn names(&self) -> UtsNames {
        self.names.lock().clone()
    }
    /// Replaces the host name.
    pub fn set_hostname(&self, name: &[u8]) {
        self.names.lock().hostname = name.to_vec();
    }
    /// Replaces the domain name.
    pub fn set_domainname(&self, name: &[u8]) {
        self.names.lock().domainname = name.to_vec();
    }
}

/// The kernel as one container of a sandbox has it: with process ids of its own, and everything else shared with the
/// sandbox's other containers.
pub struct Kernel {
    memory_file: Arc<MemoryFile>,
    platform: Arc<dyn Platform>,
    clock: Arc<dyn Clock>,
    host: HostAuxv,
    cpus: u32,
    futexes: Arc<Futexes>,
    timers: TimerQueue,
    uts: Arc<Uts>,
    random: Arc<RandomSource>,
    boot_time_realtime_ns: u64,
    syscalls: OnceLock<Arc<dyn Syscalls>>,
    pidfds: OnceLock<Arc<PidfdFactory>>,
    pub(crate) observer: OnceLock<Arc<dyn Observer>>,
    pub(crate) out_of_memory: OnceLock<Hook>,
    /// What processes that were removed have used.
    pub(crate) past_cpu: Mutex<CpuTimes>,
    pub(crate) exit_hooks: Mutex<Vec<Arc<ExitHook>>>,
    /// Its number among the PID namespaces of the sandbox, and the number given last.
    pub(crate) namespace: u32,
    namespaces: Arc<AtomicU32>,
    /// What upper crates keep for each PID namespace.
    attached: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
    /// Is notified (`IN`) when a process is removed.
    pub(crate) group_events: WaitQueue,
    unsupported: Mutex<BTreeMap<&'static str, u64>>,
    id_maps: OnceLock<IdMaps>,
    quota: Quota,
    pub(crate) paused: AtomicBool,
    /// Host threads for its tasks.
    pub(crate) workers: Workers,
    pub(crate) tree: Mutex<Tree<Arc<Task>, Arc<ThreadGroup>>>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

impl Kernel {
    /// Makes a kernel without processes.
    #[must_use]
    pub fn new(args: KernelArgs) -> Arc<Self> {
        let names = UtsNames { hostname: args.hostname, domainname: b"(none)".to_vec() };
        Arc::new(Self {
            namespace: 0,
            namespaces: Arc::default(),
            boot_time_realtime_ns: args.clock.realtime_ns().saturating_sub(args.clock.monotonic_ns()),
            timers: TimerQueue::new(Arc::clone(&args.clock)),
            memory_file: args.memory_file,
            platform: args.platform,
            clock: args.clock,
            host: args.host,
            cpus: args.cpus,
            futexes: Arc::new(Futexes::new()),
            uts: Arc::new(Uts { names: Mutex::new(LockClass::Leaf, names) }),
            random: Arc::new(args.random),
            syscalls: OnceLock::new(),
            pidfds: OnceLock::new(),
            id_maps: OnceLock::new(),
            observer: OnceLock::new(),
            out_of_memory: OnceLock::new(),
            past_cpu: Mutex::new(LockClass::Leaf, CpuTimes::default()),
            exit_hooks: Mutex::new(LockClass::Leaf, Vec::new()),
            attached: Mutex::new(LockClass::Leaf, Vec::new()),
            group_events: WaitQueue::new(),
            unsupported: Mutex::new(LockClass::Leaf, BTreeMap::new()),
            quota: Quota::default(),
            paused: AtomicBool::new(false),
            workers: Workers::default(),
            tree: Mutex::new(LockClass::TaskTree, Tree::default()),
        })
    }

    /// Makes a PID namespace beside this one: without processes, its first one will be its init. Memory, clocks, futexes,
    /// names and who answers system calls are the same; what upper crates attached is not, and memory is on an account of its own.
    #[must_use]
    pub fn new_pid_namespace(&self) -> Arc<Self> {
        let hooks = self.exit_hooks.lock().clone();
        let quota = Quota::default();
        quota.set_memory(self.quota.memory());
        Arc::new(Self {
            quota,
            paused: AtomicBool::new(false),
            workers: self.workers.clone(),
            memory_file: self.memory_file.new_account(),
            platform: Arc::clone(&self.platform),
            clock: Arc::clone(&self.clock),
            host: self.host,
            cpus: self.cpus,
            futexes: Arc::clone(&self.futexes),
            timers: self.timers.clone(),
            uts: Arc::clone(&self.uts),
            random: Arc::clone(&self.random),
            boot_time_realtime_ns: self.boot_time_realtime_ns,
            namespace: self.namespaces.fetch_add(1, Ordering::Relaxed) + 1,
            namespaces: Arc::clone(&self.namespaces),
            syscalls: self.syscalls.clone(),
            pidfds: self.pidfds.clone(),
            id_maps: OnceLock::new(),
            observer: OnceLock::new(),
            out_of_memory: OnceLock::new(),
            past_cpu: Mutex::new(LockClass::Leaf, CpuTimes::default()),
            exit_hooks: Mutex::new(LockClass::Leaf, hooks),
            attached: Mutex::new(LockClass::Leaf, Vec::new()),
            group_events: WaitQueue::new(),
            unsupported: Mutex::new(LockClass::Leaf, BTreeMap::new()),
            tree: Mutex::new(LockClass::TaskTree, Tree::default()),
        })
    }

    /// Says which users and groups there are; the first word counts.
    pub fn set_id_maps(&self, maps: IdMaps) {
        // Said once, before there is a process.
        let _first = self.id_maps.set(maps);
    }

    /// Which users and groups there are.
    pub fn id_maps(&self) -> &IdMaps {
        self.id_maps.get_or_init(IdMaps::default)
    }

    /// Keeps a value of an upper crate, one of each type.
    pub fn attach<T: Any + Send + Sync>(&self, value: Arc<T>) {
        self.attached.lock().push(value);
    }
    /// The value of this type that was attached.
    #[must_use]
    pub fn attached<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let attached = self.attached.lock();
        attached.iter().find_map(|value| Arc::clone(value).downcast::<T>().ok())
    }

    /// Registers who answers system calls; the first registration counts.
    pub fn set_syscalls(&self, syscalls: Arc<dyn Syscalls>) {
        // A second registration is a mistake of the caller that changes nothing.
        let _second = self.syscalls.set(syscalls);
    }
    pub(crate) fn syscalls(&self) -> Option<&Arc<dyn Syscalls>> {
        self.syscalls.get()
    }
    /// Registers who makes pidfds for `CLONE_PIDFD`; the first registration counts.
    pub fn set_pidfd_factory(&self, factory: PidfdFactory) {
        let _second = self.pidfds.set(Arc::new(factory));
    }
    pub(crate) fn pidfd_factory(&self) -> Option<&PidfdFactory> {
        self.pidfds.get().map(AsRef::as_ref)
    }
    /// Registers what is called for each process that has exited.
    pub fn on_exit(&self, hook: ExitHook) {
        self.exit_hooks.lock().push(Arc::new(hook));
    }

    /// Holds all guest memory that is not a host file.
    #[must_use]
    pub const fn memory_file(&self) -> &Arc<MemoryFile> {
        &self.memory_file
    }
    /// Runs guest code.
    #[must_use]
    pub const fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }
    /// Tells the time.
    #[must_use]
    pub const fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
    /// The host's part of the auxiliary vector.
    #[must_use]
    pub const fn host(&self) -> &HostAuxv {
        &self.host
    }
    /// How many processors programs see.
    #[must_use]
    pub const fn cpus(&self) -> u32 {
        self.cpus
    }
    /// What the container may take.
    #[must_use]
    pub const fn quota(&self) -> &Quota {
        &self.quota
    }
    /// All futexes.
    #[must_use]
    pub fn futexes(&self) -> &Futexes {
        &self.futexes
    }
    /// The sandbox's alarm clock.
    #[must_use]
    pub const fn timers(&self) -> &TimerQueue {
        &self.timers
    }
    /// The names of uname(2).
    #[must_use]
    pub fn uts(&self) -> &Uts {
        &self.uts
    }
    /// When the sandbox started, in the real-time clock.
    #[must_use]
    pub const fn boot_time_realtime_ns(&self) -> u64 {
        self.boot_time_realtime_ns
    }

    /// Fills a buffer with random bytes of the host.
    pub fn fill_random(&self, into: &mut [u8]) {
        (self.random)(into);
    }
    /// A random number below `n`; 0 for 0.
    #[must_use]
    pub fn random_below(&self, n: u64) -> u64 {
        let mut bytes = [0; 16];
        self.fill_random(&mut bytes);
        // Of 128 random bits the remainder's bias is below 2^-64.
        let low = u128::from_ne_bytes(bytes).checked_rem(u128::from(n)).unwrap_or(0);
        u64::try_from(low).unwrap_or(0)
    }

    /// Counts the use of something that is not supported.
    pub fn unsupported(&self, what: &'static str) {
        let first = {
            let mut counts = self.unsupported.lock();
            let count = counts.entry(what).or_insert(0);
            *count += 1;
            *count == 1
        };
        if first {
            tracing::debug!(what, "not supported");
        }
    }
    /// What was used and is not supported, with how often.
    #[must_use]
    pub fn unsupported_counts(&self) -> Vec<(&'static str, u64)> {
        self.unsupported.lock().iter().map(|(what, n)| (*what, *n)).collect()
    }

    /// The thread with this id.
    #[must_use]
    pub fn task(&self, tid: i32) -> Option<Arc<Task>> {
        self.tree.lock().task(tid)
    }
    /// The process with this id.
    #[must_use]
    pub fn thread_group(&self, tgid: i32) -> Option<Arc<ThreadGroup>> {
        self.tree.lock().node(tgid).map(|n| Arc::clone(&n.group))
    }
    /// Every thread, in no order.
    #[must_use]
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.tree.lock().tasks()
    }
    /// How many bytes of memory programs are told there are, and how many of them are in use.
    #[must_use]
    pub fn memory(&self) -> (u64, u64) {
        let total = self.memory_file.total().min(self.quota.memory());
        (total, self.memory_file.own_bytes().min(total))
    }
    /// How many threads there are.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.tree.lock().task_count()
    }
    /// The id given last, for `/proc/loadavg`.
    #[must_use]
    pub fn last_pid(&self) -> i32 {
        self.tree.lock().last_id()
    }
    /// Every process, by id.
    #[must_use]
    pub fn thread_groups(&self) -> Vec<Arc<ThreadGroup>> {
        self.tree.lock().groups()
    }
    /// The process group with this id.
    #[must_use]
    pub fn process_group(&self, id: i32) -> Option<Arc<ProcessGroup>> {
        self.tree.lock().process_group(id)
    }
    /// The processes of a process group, by id.
    #[must_use]
    pub fn process_group_members(&self, id: i32) -> Vec<Arc<ThreadGroup>> {
        self.tree.lock().members(id).map(|(_, n)| Arc::clone(&n.group)).collect()
    }
    /// The session with this id.
    #[must_use]
    pub fn session(&self, id: i32) -> Option<Arc<Session>> {
        self.tree.lock().session(id)
    }
    pub(crate) fn parent_of(&self, tgid: i32) -> Option<Arc<ThreadGroup>> {
        let tree = self.tree.lock();
        let parent = tree.node(tgid)?.parent?;
        tree.node(parent).map(|n| Arc::clone(&n.group))
    }
    pub(crate) fn children_of(&self, tgid: i32) -> Vec<Arc<ThreadGroup>> {
        let tree = self.tree.lock();
        let Some(node) = tree.node(tgid) else { return Vec::new() };
        node.children.iter().filter_map(|c| tree.node(*c)).map(|n| Arc::clone(&n.group)).collect()
    }
    pub(crate) fn process_group_of(&self, tgid: i32) -> Option<Arc<ProcessGroup>> {
        self.tree.lock().node(tgid).map(|n| Arc::clone(&n.process_group))
    }
    pub(crate) fn is_subreaper(&self, tgid: i32) -> bool {
        self.tree.lock().node(tgid).is_some_and(|n| n.subreaper)
    }
    pub(crate) fn set_subreaper(&self, tgid: i32, value: bool) {
        if let Some(node) = self.tree.lock().node_mut(tgid) {
            node.subreaper = value;
        }
    }

    /// Tells whether no member of the process group has a parent outside it in the same session, setpgid(2).
    #[must_use]
    pub fn is_orphaned(&self, pgid: i32) -> bool {
        self.tree.lock().is_orphaned(pgid)
    }

    /// Sleeps until the process has exited; tells how it did. Not for guest threads.
    #[must_use]
    pub fn wait_exit(&self, group: &Arc<ThreadGroup>) -> ExitStatus {
        loop {
            if let Some(status) = self.wait_exit_for(group, None) {
                break status;
            }
        }
    }

    /// Sleeps until the process has exited, but no longer than `limit`; tells how it did, if it did. Not for guest threads.
    #[must_use]
    pub fn wait_exit_for(&self, group: &Arc<ThreadGroup>, limit: Option<Duration>) -> Option<ExitStatus> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let waiter = sync::Waiter::new();
        let key =
            group.exit_events().register(sync::PollEvents::IN, Arc::clone(&waiter) as Arc<dyn sync::Wake>);
        let status = loop {
            let status = group.final_status();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if status.is_some() || left.is_some_and(|left| left.is_zero()) {
                break status;
            }
            waiter.wait(left);
        };
        group.exit_events().unregister(key);
        status
    }

    /// Makes every process exit, as by `SIGKILL`.
    pub fn kill_all(&self) {
        for group in self.thread_groups() {
            group.begin_exit(ExitStatus::Signaled { signal: abi::Signal::SIGKILL, core: false });
        }
    }
}
