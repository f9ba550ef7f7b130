//! What is known of a thread that is traced.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::Registers;
use platform::FpuState;
use sync::{LockClass, Mutex, MutexGuard};

use crate::Task;
use crate::signal::SigInfo;

/// What a thread has to look at on its way in and out: bits of [`Tracing::watched`].
pub(crate) mod watch {
    /// It has seccomp filters.
    pub(crate) const FILTERED: u32 = 1;
    /// It is traced.
    pub(crate) const TRACED: u32 = 2;
    /// It was attached to by `PTRACE_SEIZE`.
    pub(crate) const SEIZED: u32 = 4;
    /// It stops at system calls.
    pub(crate) const CALLS: u32 = 8;
    /// Its system calls are not made.
    pub(crate) const EMULATED: u32 = 16;
    /// It stops after each instruction.
    pub(crate) const STEP: u32 = 32;
    /// It is to stop as soon as it can.
    pub(crate) const TRAP: u32 = 64;
}

/// How a tracer lets a thread go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// `PTRACE_CONT`.
    Continue,
    /// `PTRACE_SYSCALL`: to the next start or end of a system call.
    Syscall,
    /// `PTRACE_SYSEMU`: to the next system call, which is not made.
    Emulate,
    /// `PTRACE_SINGLESTEP`.
    Step,
    /// `PTRACE_SYSEMU_SINGLESTEP`.
    EmulateStep,
}

impl Resume {
    const fn bits(self) -> u32 {
        match self {
            Self::Continue => 0,
            Self::Syscall => watch::CALLS,
            Self::Emulate => watch::EMULATED,
            Self::Step => watch::STEP,
            Self::EmulateStep => watch::EMULATED | watch::STEP,
        }
    }
}

/// What a tracer wants of the FPU state, which only the stopped thread itself can reach.
#[derive(Debug)]
pub(super) enum FpuWork {
    Save,
    Load(FpuState),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum FpuDone {
    Saved(FpuState),
    /// Whether the processor takes it.
    Loaded(bool),
    Failed,
}

/// A stop.
#[derive(Debug)]
pub(super) struct Stop {
    /// Tells it from others of the thread.
    pub number: u64,
    /// The signal, and the event above it: what wait4(2) tells.
    pub code: i32,
    /// What `PTRACE_GETSIGINFO` tells.
    pub info: Option<SigInfo>,
    pub regs: Registers,
    /// wait4(2) has told of it.
    pub reported: bool,
    /// `PTRACE_LISTEN`: it is stopped, but nobody sees it so.
    pub listening: bool,
    /// Set once it may go on: the signal that it goes on with.
    pub go: Option<i32>,
    pub fpu_work: Option<FpuWork>,
    pub fpu_done: Option<FpuDone>,
}

/// The part of [`Tracing`] under its lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub tracer: Option<Arc<Task>>,
    /// `PTRACE_O_*`.
    pub options: u32,
    /// What `PTRACE_GETEVENTMSG` tells.
    pub message: u64,
    pub stop: Option<Stop>,
    /// How many stops there were.
    pub stops: u64,
    /// A stop was asked for: `PTRACE_INTERRUPT`, a first stop, a stop of the whole process.
    pub trap: bool,
    /// Of a seized thread: its process was stopped, or goes on.
    pub notify: bool,
}

/// Who traces a thread, and how.
#[derive(Debug)]
pub(crate) struct Tracing {
    /// [`watch`]. All but `FILTERED` changes under the lock of `state`.
    watched: AtomicU32,
    /// The stop of the process that the thread has heeded already, though it runs: its tracer let it.
    pub(crate) heeded: AtomicU64,
    /// The stop of the process that it was counted for.
    pub(crate) counted: AtomicU64,
    state: Mutex<State>,
}

impl Tracing {
    pub(crate) fn new(filtered: bool) -> Self {
        Self {
            watched: AtomicU32::new(if filtered { watch::FILTERED } else { 0 }),
            heeded: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            state: Mutex::new(LockClass::Tracing, State::default()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// [`watch`].
    pub(crate) fn watched(&self) -> u32 {
        self.watched.load(Ordering::Relaxed)
    }

    /// Tells whether any of these bits is set, in the order of all such questions.
    pub(crate) fn watches(&self, bits: u32) -> bool {
        self.watched.load(Ordering::SeqCst) & bits != 0
    }

    pub(crate) fn watch(&self, bits: u32, on: bool) {
        if on {
            self.watched.fetch_or(bits, Ordering::SeqCst);
        } else {
            self.watched.fetch_and(!bits, Ordering::SeqCst);
        }
    }

    /// Takes over how the thread is to go on.
    pub(super) fn set_resume(&self, how: Resume) {
        self.watch(watch::CALLS | watch::EMULATED | watch::STEP, false);
        self.watch(how.bits(), true);
    }

    /// Notes in `watched` whether a stop is asked for.
    pub(super) fn note_traps(&self, state: &State) {
        self.watch(watch::TRAP, state.trap || state.notify);
    }
}

impl Task {
    /// Tells whether another thread traces it.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.tracing.watches(watch::TRACED)
    }

    /// The thread that traces it.
    #[must_use]
    pub fn tracer(&self) -> Option<Arc<Self>> {
        self.tracing.lock().tracer.clone()
    }

    /// Tells whether it is stopped for its tracer, state `t` of `/proc/PID/stat`.
    #[must_use]
    pub fn is_trace_stopped(&self) -> bool {
        self.is_traced() && self.tracing.lock().stop.is_some()
    }

    /// The stop that wait4(2) has not told the tracer of; `consume` makes it told.
    pub(crate) fn trace_report(&self, consume: bool) -> Option<i32> {
        let mut state = self.tracing.lock();
        let stop = state.stop.as_mut().filter(|s| !s.reported && !s.listening && s.go.is_none())?;
        stop.reported |= consume;
        Some(stop.code)
    }
}
