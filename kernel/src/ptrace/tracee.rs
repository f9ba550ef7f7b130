//! What a tracer does with a stopped thread.
use std::sync::Arc;

use abi::ptrace::event;
use abi::siginfo::SigInfoWire;
use abi::{Errno, Registers, SigSet, Signal};
use memmap::MemoryManager;
use platform::FpuState;

use super::Resume;
use super::state::{FpuDone, FpuWork, Stop, watch};
use crate::signal::{SigInfo, send_to_task};
use crate::{CurrentTask, Task};

/// A thread that the caller traces and that is stopped. It may die at any time: then every request is `ESRCH`.
#[derive(Debug)]
pub struct Tracee {
    task: Arc<Task>,
    tracer: Arc<Task>,
}

impl CurrentTask {
    /// The thread `tid`, if the caller traces it.
    fn traced_by_me(&self, tid: i32) -> Result<Arc<Task>, Errno> {
        let task = self.kernel().task(tid).ok_or(Errno::ESRCH)?;
        let mine = task.tracing.lock().tracer.as_ref().is_some_and(|t| Arc::ptr_eq(t, self.task()));
        if mine { Ok(task) } else { Err(Errno::ESRCH) }
    }

    /// The thread `tid`, if the caller traces it and it is stopped; Linux `ptrace_check_attach`.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn tracee(&self, tid: i32) -> Result<Tracee, Errno> {
        let tracee = Tracee { task: self.traced_by_me(tid)?, tracer: Arc::clone(self.task()) };
        tracee.stopped(|_| ())?;
        Ok(tracee)
    }

    /// `PTRACE_KILL`, of a thread that is stopped or not.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn trace_kill(&self, tid: i32) -> Result<(), Errno> {
        let task = self.traced_by_me(tid)?;
        // SIGKILL is never refused.
        let _sent = send_to_task(&task, SigInfo::kill(Signal::SIGKILL, self.tgid(), self.credentials().uid));
        Ok(())
    }

    /// `PTRACE_INTERRUPT`, of a thread that is stopped or not.
    ///
    /// # Errors
    /// `ESRCH`; `EIO` for one that was not seized.
    pub fn trace_interrupt(&self, tid: i32) -> Result<(), Errno> {
        let task = self.traced_by_me(tid)?;
        if !task.tracing.watches(watch::SEIZED) {
            return Err(Errno::EIO);
        }
        task.ask_for_trap();
        task.interrupt();
        Ok(())
    }
}

impl Tracee {
    /// The thread.
    #[must_use]
    pub const fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// Its memory.
    ///
    /// # Errors
    /// `EIO` where it has none any more.
    pub fn mm(&self) -> Result<Arc<MemoryManager>, Errno> {
        self.task.mm().ok_or(Errno::EIO)
    }

    fn stopped<R>(&self, f: impl FnOnce(&mut Stop) -> R) -> Result<R, Errno> {
        let mut state = self.task.tracing.lock();
        if !state.tracer.as_ref().is_some_and(|t| Arc::ptr_eq(t, &self.tracer)) {
            return Err(Errno::ESRCH);
        }
        let stop = state.stop.as_mut().filter(|s| s.go.is_none() && !s.listening).ok_or(Errno::ESRCH)?;
        Ok(f(stop))
    }

    /// The general registers.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn registers(&self) -> Result<Registers, Errno> {
        self.stopped(|stop| stop.regs)
    }

    /// Replaces the general registers; what user space may not have is left out when the thread goes on.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn set_registers(&self, regs: &Registers) -> Result<(), Errno> {
        self.stopped(|stop| stop.regs = *regs)
    }

    /// What `PTRACE_GETSIGINFO` tells.
    ///
    /// # Errors
    /// `EINVAL` in a stop of the whole process, `ESRCH`.
    pub fn siginfo(&self) -> Result<SigInfo, Errno> {
        self.stopped(|stop| stop.info)?.ok_or(Errno::EINVAL)
    }

    /// `PTRACE_SETSIGINFO`.
    ///
    /// # Errors
    /// `EINVAL` in a stop of the whole process, `ESRCH`.
    pub fn set_siginfo(&self, wire: &SigInfoWire) -> Result<(), Errno> {
        self.stopped(|stop| {
            let old = stop.info.as_mut().ok_or(Errno::EINVAL)?;
            let signal = Signal::new(wire.si_signo).unwrap_or(old.signal);
            *old = SigInfo::from_wire(signal, wire);
            Ok(())
        })?
    }

    /// What `PTRACE_GETEVENTMSG` tells.
    #[must_use]
    pub fn message(&self) -> u64 {
        self.task.tracing.lock().message
    }

    /// `PTRACE_SETOPTIONS`; the options are known ones.
    pub fn set_options(&self, options: u32) {
        self.task.tracing.lock().options = options;
    }

    /// Lets the thread go on, with this signal if it is not 0.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn resume(&self, how: Resume, signal: i32) -> Result<(), Errno> {
        self.stopped(|_| ())?;
        self.task.trace_resume(how, signal)
    }

    /// `PTRACE_LISTEN`: the thread stays stopped, and stops anew when its process goes on.
    ///
    /// # Errors
    /// `EIO` for a thread that was not seized or is in another stop, `ESRCH`.
    pub fn listen(&self) -> Result<(), Errno> {
        if !self.task.tracing.watches(watch::SEIZED) {
            return Err(Errno::EIO);
        }
        self.stopped(|stop| {
            stop.listening = stop.info.is_some_and(|info| info.code >> 8 == event::STOP);
            if stop.listening { Ok(()) } else { Err(Errno::EIO) }
        })??;
        // It may have been told meanwhile that its process goes on.
        self.task.waiter().wake_up();
        Ok(())
    }

    /// `PTRACE_DETACH`.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn detach(&self, signal: i32) -> Result<(), Errno> {
        self.stopped(|_| ())?;
        let kernel = self.task.kernel();
        let link = {
            let mut tree = kernel.tree.lock();
            let mine =
                tree.traces.get(&self.task.tid()).is_some_and(|l| Arc::ptr_eq(&l.tracer, &self.tracer));
            if mine { kernel.take_link(&mut tree, self.task.tid()) } else { None }
        };
        kernel.forget_link(&link.ok_or(Errno::ESRCH)?, Some(signal));
        Ok(())
    }

    /// The signals that are pending for the thread, or, with `shared`, for its process.
    #[must_use]
    pub fn pending(&self, shared: bool) -> Vec<SigInfo> {
        let group = self.task.group().signals();
        if shared { group.pending.infos() } else { self.task.signals().pending.infos() }
    }

    /// The mask of blocked signals; the one that the thread goes back to, if it waits with another.
    #[must_use]
    pub fn signal_mask(&self) -> SigSet {
        self.task.signals().mask_to_restore()
    }

    /// `PTRACE_SETSIGMASK`.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn set_signal_mask(&self, mask: SigSet) -> Result<(), Errno> {
        self.stopped(|_| ())?;
        let _replaced = self.task.signals().take_saved_mask();
        crate::signal::change_mask(&self.task, mask);
        Ok(())
    }

    /// Copies the FPU state out.
    ///
    /// # Errors
    /// `ESRCH`; `EIO` where the platform fails.
    pub fn save_fpu(&self) -> Result<FpuState, Errno> {
        match self.work(FpuWork::Save)? {
            FpuDone::Saved(state) => Ok(state),
            FpuDone::Loaded(_) | FpuDone::Failed => Err(Errno::EIO),
        }
    }

    /// Replaces the FPU state; tells whether the processor takes it.
    ///
    /// # Errors
    /// `ESRCH`; `EIO` where the platform fails.
    pub fn load_fpu(&self, state: FpuState) -> Result<bool, Errno> {
        match self.work(FpuWork::Load(state))? {
            FpuDone::Loaded(taken) => Ok(taken),
            FpuDone::Saved(_) | FpuDone::Failed => Err(Errno::EIO),
        }
    }

    /// Lets the stopped thread do something, which takes it as long as it takes its platform.
    fn work(&self, work: FpuWork) -> Result<FpuDone, Errno> {
        let number = self.stopped(|stop| {
            (stop.fpu_work, stop.fpu_done) = (Some(work), None);
            stop.number
        })?;
        self.task.waiter().wake_up();
        loop {
            // In another stop, of its exit, it knows nothing of this.
            let done = self.stopped(|stop| (stop.number == number).then(|| stop.fpu_done.take()))?;
            if let Some(done) = done.ok_or(Errno::ESRCH)? {
                return Ok(done);
            }
            self.tracer.waiter().wait();
        }
    }
}
