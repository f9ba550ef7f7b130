//! The running thread itself.
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use abi::{Errno, Registers};
use platform::{Context, FpuState};

use super::last_trap::LastTrap;
use super::{Mode, Task, Usage};
use crate::{CloneFlags, ExitStatus, Syscalls, ThreadGroup, signal};

/// Why [`CurrentTask::block`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockResult {
    /// Something happened; what was waited for may or may not have.
    Woken,
    /// The deadline passed.
    TimedOut,
    /// A signal is to be delivered, or the task is to exit.
    Interrupted,
}

/// What restart_syscall(2) is to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartBlock {
    /// nanosleep(2), clock_nanosleep(2).
    Nanosleep {
        /// `CLOCK_*`.
        clock: i32,
        /// When it ends, in that clock.
        deadline_ns: u64,
        /// Where the time that is left is stored, or 0.
        remaining: u64,
    },
    /// poll(2).
    Poll {
        /// The address of the array.
        fds: u64,
        /// How many entries it has.
        count: u64,
        /// When it ends, in the monotonic clock.
        deadline_ns: Option<u64>,
    },
    /// `FUTEX_WAIT` with a timeout.
    FutexWait {
        /// The futex's address.
        addr: u64,
        /// The expected value.
        value: u32,
        /// Whether only this memory's threads use it.
        private: bool,
        /// Which wake-ups count.
        bitset: u32,
        /// When it ends, in the monotonic clock.
        deadline_ns: Option<u64>,
    },
}

/// The arguments of clone3(2).
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneArgs {
    /// `CLONE_*`, without the exit signal.
    pub flags: CloneFlags,
    /// Sent to the parent when the child exits; 0 for none.
    pub exit_signal: i32,
    /// The child's stack pointer, 0 for the parent's.
    pub stack: u64,
    /// Where `CLONE_PARENT_SETTID` stores the id.
    pub parent_tid: u64,
    /// Where `CLONE_CHILD_SETTID` stores and `CLONE_CHILD_CLEARTID` clears the id.
    pub child_tid: u64,
    /// The child's FS base with `CLONE_SETTLS`.
    pub tls: u64,
    /// Where `CLONE_PIDFD` stores the descriptor.
    pub pidfd: u64,
}

/// Whom wait4(2) and waitid(2) wait for.
#[derive(Clone, Debug)]
pub enum WaitTarget {
    /// Any child.
    Any,
    /// The child with this process id.
    Pid(i32),
    /// Any child of this process group.
    ProcessGroup(i32),
    /// This child (`P_PIDFD`).
    Group(Arc<ThreadGroup>),
}

/// The arguments of waitid(2).
#[derive(Clone, Debug)]
pub struct WaitArgs {
    /// Whom to wait for.
    pub target: WaitTarget,
    /// `WEXITED`, `WSTOPPED`, `WCONTINUED`, `WNOWAIT`, `__WCLONE`, `__WALL`, `__WNOTHREAD`.
    pub options: u32,
}

/// What a child had to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitResult {
    /// The child.
    pub pid: i32,
    /// Its real user.
    pub uid: u32,
    /// `CLD_*`.
    pub code: i32,
    /// The exit code or the signal's number, `si_status`.
    pub status: i32,
    /// The number wait4(2) stores.
    pub raw: i32,
    /// What it and its waited-for children have used.
    pub usage: Usage,
}

/// A task on its own host thread.
#[derive(Debug)]
pub struct CurrentTask {
    pub(crate) task: Arc<Task>,
    pub(crate) regs: Registers,
    pub(crate) context: Box<dyn Context>,
    restart: Option<RestartBlock>,
    /// The kernel's, kept here so that a call needs no count of references.
    pub(crate) syscalls: Option<Arc<dyn Syscalls>>,
    /// Set once this thread is to exit by itself.
    pub(crate) exit_code: Option<i32>,
    /// The last exception that became a signal.
    pub(crate) last_trap: LastTrap,
    not_send: PhantomData<*const ()>,
}

impl Deref for CurrentTask {
    type Target = Arc<Task>;
    fn deref(&self) -> &Arc<Task> {
        &self.task
    }
}

impl CurrentTask {
    pub(crate) fn new(task: Arc<Task>, regs: Registers, context: Box<dyn Context>) -> Self {
        Self {
            task,
            regs,
            context,
            restart: None,
            syscalls: None,
            exit_code: None,
            last_trap: LastTrap::default(),
            not_send: PhantomData,
        }
    }

    /// The task as others see it.
    #[must_use]
    pub const fn task(&self) -> &Arc<Task> {
        &self.task
    }
    /// The program's registers.
    #[must_use]
    pub const fn regs(&self) -> &Registers {
        &self.regs
    }
    /// The program's registers.
    pub const fn regs_mut(&mut self) -> &mut Registers {
        &mut self.regs
    }

    /// Copies the FPU state out.
    ///
    /// # Errors
    /// `EIO` where the platform fails.
    pub fn save_fpu(&mut self) -> Result<FpuState, Errno> {
        self.context.save_fpu().map_err(|_host| Errno::EIO)
    }
    /// Replaces the FPU state; tells whether the processor would take it.
    ///
    /// # Errors
    /// `EIO` where the platform fails.
    pub fn load_fpu(&mut self, state: &FpuState) -> Result<bool, Errno> {
        self.context.load_fpu(state).map_err(|_host| Errno::EIO)
    }

    /// Lets the platform answer getpid(2) and gettid(2) by itself; `None` if they are to be calls like others.
    pub fn answer_ids(&mut self, ids: Option<(i32, i32)>) {
        self.context.answer_ids(ids);
    }

    /// Says what restart_syscall(2) is to continue, for a call that returns `ERESTART_RESTARTBLOCK`.
    pub const fn set_restart(&mut self, block: RestartBlock) {
        self.restart = Some(block);
    }
    /// Takes what restart_syscall(2) is to continue.
    pub const fn take_restart(&mut self) -> Option<RestartBlock> {
        self.restart.take()
    }

    /// Sleeps until something happens, or the monotonic clock reaches the deadline. A signal that is pending already, or
    /// an exit, is told at once; so what is waited for is to be looked at before each call.
    #[must_use]
    pub fn block(&self, deadline_ns: Option<u64>) -> BlockResult {
        if self.is_exiting() || signal::has_work(self) {
            return BlockResult::Interrupted;
        }
        let clock = self.kernel().clock();
        let now = clock.monotonic_ns();
        let timeout = match deadline_ns {
            Some(deadline) if deadline <= now => return BlockResult::TimedOut,
            Some(deadline) => Some(Duration::from_nanos(deadline - now)),
            None => None,
        };
        self.cpu.enter(Mode::Idle, now);
        let woken = self.waiter().wait_for(self.context.rest(), timeout);
        self.cpu.enter(Mode::System, clock.monotonic_ns());
        if woken { BlockResult::Woken } else { BlockResult::TimedOut }
    }

    /// Makes this thread exit when the system call is done.
    pub fn exit(&mut self, code: i32) {
        self.exit_code.get_or_insert(code);
        self.set_exiting();
    }

    /// Makes all threads of the process exit.
    pub fn exit_group(&mut self, status: ExitStatus) {
        self.group().begin_exit(status);
    }
}
