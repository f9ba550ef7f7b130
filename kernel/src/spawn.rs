//! Starting processes from outside: the sandbox's init, and those of `runsc exec`.
use std::sync::Arc;

use abi::{Errno, Registers, SigSet};
use memmap::MemoryManager;

use crate::group::{ProcessGroup, Session};
use crate::loader::{LoadContext, LoadedImage, load};
use crate::signal::{GroupSignals, SigActions, TaskSignals};
use crate::slot::{Slots, put};
use crate::task::{MmUser, Scheduling, Start, Task, TaskState, prepare, task_name};
use crate::tree::{INIT, Life, Node};
use crate::{InitArgs, Kernel, RLIMIT_STACK, ThreadGroup};

/// `RFLAGS` of a fresh program: interrupts on, and the bit that is always set.
const EFLAGS: u64 = 0x202;

/// The selectors of 64-bit code and of data.
const USER_CS: u64 = 0x33;
const USER_DS: u64 = 0x2b;

/// The registers a program starts with.
pub(crate) fn initial_registers(image: &LoadedImage) -> Registers {
    Registers {
        rip: image.entry,
        rsp: image.stack_pointer,
        eflags: EFLAGS,
        orig_rax: u64::MAX,
        cs: USER_CS,
        ss: USER_DS,
        ..Registers::default()
    }
}

/// The name of a program: the last component of its path.
pub(crate) fn program_name(path: &[u8]) -> [u8; 16] {
    task_name(path.rsplit(|b| *b == b'/').next().unwrap_or(path))
}

fn scheduling(cpus: u32) -> Scheduling {
    let words = cpus.div_ceil(64).max(1);
    let bits = |word: u32| {
        let left = cpus.saturating_sub(word * 64);
        if left >= 64 { u64::MAX } else { (1 << left) - 1 }
    };
    Scheduling {
        policy: 0,
        priority: 0,
        nice: 0,
        reset_on_fork: false,
        affinity: (0..words).map(bits).collect(),
        io_priority: 0,
        timer_slack_ns: 50_000,
    }
}

impl Kernel {
    /// Starts the first process of the sandbox, or, where there is one already, a process without a parent. It leads a
    /// session of its own.
    ///
    /// # Errors
    /// Those of execve(2) and fork(2).
    pub fn spawn_init(self: &Arc<Self>, args: InitArgs<'_>) -> Result<Arc<ThreadGroup>, Errno> {
        let tid = self.tree.lock().allocate_id()?;
        let spawned = self.spawn(tid, args);
        if spawned.is_err() {
            self.tree.lock().free_id(tid);
        }
        spawned
    }

    fn spawn(self: &Arc<Self>, tid: i32, args: InitArgs<'_>) -> Result<Arc<ThreadGroup>, Errno> {
        let mm = MemoryManager::new(Arc::clone(self.memory_file()), Arc::clone(self.platform()))?;
        let group = ThreadGroup::new(self, tid, GroupSignals::new(SigActions::new()), args.limits);
        args.fds.acquire();
        let mut slots: Slots = Default::default();
        for (id, resource) in args.slots {
            put(&mut slots, id, resource);
        }
        let state = TaskState {
            name: program_name(&args.image.path),
            credentials: Arc::new(args.credentials.clone()),
            fd_table: Some(args.fds),
            mm: Some(MmUser::new(Arc::clone(&mm))),
            vfork_parent: None,
            slots,
            robust_list: crate::futex::RobustList::default(),
            clear_child_tid: 0,
            parent_death_signal: 0,
            scheduling: scheduling(self.cpus()),
            seccomp: args.seccomp,
            interrupt: None,
        };
        let task = Task::new(tid, &group, TaskSignals::new(SigSet::EMPTY), state);
        group.state.lock().leader = Some(Arc::clone(&task));
        let cx = LoadContext {
            task: &task,
            mm: &mm,
            open: args.open,
            credentials: &args.credentials,
            host: *self.host(),
            stack_limit: group.limits().get(RLIMIT_STACK).0,
            plain: false,
        };
        let started = load(&cx, args.image, args.strings).and_then(|image| {
            let start = Start { regs: initial_registers(&image), fpu: None };
            Ok((prepare(&task, &mm, start)?, image))
        });
        let (ready, image) = match started {
            Ok(started) => started,
            Err(error) => {
                task.give_back();
                group.forget_leader();
                return Err(error);
            }
        };
        task.set_credentials(Arc::new(image.credentials));
        group.set_exe(image.executable);
        if tid == INIT {
            group.signals().set_unkillable(true);
        }
        self.publish_root(&task);
        if let Some(before_start) = args.before_start {
            before_start(&group);
        }
        group.watch_cpu_limit();
        ready.go();
        Ok(group)
    }

    fn publish_root(&self, task: &Arc<Task>) {
        let (tid, group) = (task.tid(), task.group());
        group.state.lock().threads.push(Arc::clone(task));
        let node = Node {
            group: Arc::clone(group),
            parent: None,
            parent_thread: 0,
            children: Vec::new(),
            process_group: ProcessGroup::new(tid, Session::new(tid)),
            life: Life::Alive,
            subreaper: false,
            did_exec: true,
            exit_signal: abi::Signal::SIGCHLD.number(),
        };
        let mut tree = self.tree.lock();
        tree.add_group(tid, node);
        tree.add_task(tid, Arc::clone(task));
    }
}
