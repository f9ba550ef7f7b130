//! What a process does when signals arrive, sigaction(2).
use std::sync::Arc;

use abi::siginfo::{SA_NOCLDSTOP, SA_NOCLDWAIT, SIG_DFL, SIG_IGN, SigAction};
use abi::{SigSet, Signal};
use sync::{LockClass, Mutex};

/// What Linux does without a handler, signal(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// Ends the process.
    Terminate,
    /// Ends the process with a core file.
    Core,
    /// Nothing.
    Ignore,
    /// Stops the process.
    Stop,
    /// Continues the process.
    Continue,
}

/// The default action of a signal.
#[must_use]
pub fn default_action(signal: Signal) -> DefaultAction {
    match signal {
        Signal::SIGCHLD | Signal::SIGURG | Signal::SIGWINCH => DefaultAction::Ignore,
        Signal::SIGCONT => DefaultAction::Continue,
        Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => DefaultAction::Stop,
        Signal::SIGQUIT
        | Signal::SIGILL
        | Signal::SIGABRT
        | Signal::SIGFPE
        | Signal::SIGSEGV
        | Signal::SIGBUS
        | Signal::SIGSYS
        | Signal::SIGTRAP
        | Signal::SIGXCPU
        | Signal::SIGXFSZ => DefaultAction::Core,
        _ => DefaultAction::Terminate,
    }
}

/// Signals that stop by default.
pub const STOP_SIGNALS: SigSet =
    SigSet(Signal::SIGSTOP.bit() | Signal::SIGTSTP.bit() | Signal::SIGTTIN.bit() | Signal::SIGTTOU.bit());

/// The actions of a process, shared by clone(2) with `CLONE_SIGHAND` (Linux `sighand_struct`).
#[derive(Debug)]
pub struct SigActions {
    actions: Mutex<[SigAction; 64]>,
}

impl Default for SigActions {
    fn default() -> Self {
        Self { actions: Mutex::new(LockClass::Signals, [SigAction::default(); 64]) }
    }
}

fn index(signal: Signal) -> usize {
    usize::try_from(signal.number() - 1).unwrap_or(0)
}

impl SigActions {
    /// All actions are the default.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The action of a signal.
    #[must_use]
    pub fn get(&self, signal: Signal) -> SigAction {
        self.actions.lock().get(index(signal)).copied().unwrap_or_default()
    }

    /// Replaces an action; gives the old one.
    pub fn set(&self, signal: Signal, action: SigAction) -> SigAction {
        let mut actions = self.actions.lock();
        actions.get_mut(index(signal)).map(|a| std::mem::replace(a, action)).unwrap_or_default()
    }

    /// A copy, for clone(2) without `CLONE_SIGHAND`.
    #[must_use]
    pub fn fork(&self) -> Arc<Self> {
        Arc::new(Self { actions: Mutex::new(LockClass::Signals, *self.actions.lock()) })
    }

    /// A copy in which all actions are the default (clone3(2) with `CLONE_CLEAR_SIGHAND`) or, for execve(2), in which
    /// handlers are gone and ignored signals stay ignored.
    #[must_use]
    pub fn reset(&self, keep_ignored: bool) -> Arc<Self> {
        let old = *self.actions.lock();
        let kept = |a: SigAction| {
            let handler = if keep_ignored && a.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            SigAction { handler, ..SigAction::default() }
        };
        Arc::new(Self { actions: Mutex::new(LockClass::Signals, old.map(kept)) })
    }

    /// Tells whether the signal would do nothing.
    #[must_use]
    pub fn is_ignored(&self, signal: Signal) -> bool {
        let handler = self.get(signal).handler;
        handler == SIG_IGN || handler == SIG_DFL && default_action(signal) == DefaultAction::Ignore
    }

    /// Signals with [`SIG_IGN`], and signals with a handler, for `/proc/PID/status`.
    #[must_use]
    pub fn ignored_and_caught(&self) -> (SigSet, SigSet) {
        let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
        for signal in (1..=64).filter_map(Signal::new) {
            match self.get(signal).handler {
                SIG_IGN => ignored.insert(signal),
                SIG_DFL => {}
                _ => caught.insert(signal),
            }
        }
        (ignored, caught)
    }

    /// Tells whether children that exit leave no zombie (`SIGCHLD` ignored, or `SA_NOCLDWAIT`).
    #[must_use]
    pub fn reaps_children(&self) -> bool {
        let action = self.get(Signal::SIGCHLD);
        action.handler == SIG_IGN || action.flags & SA_NOCLDWAIT != 0
    }

    /// Tells whether the parent wants no signal of children that stop.
    #[must_use]
    pub fn no_child_stop(&self) -> bool {
        let action = self.get(Signal::SIGCHLD);
        action.handler == SIG_IGN || action.flags & SA_NOCLDSTOP != 0
    }
}
