//! What a traced thread does: it stops, tells its tracer, and goes on as that wants. Linux `kernel/signal.c:ptrace_stop`.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::ptrace::{event, option};
use abi::siginfo::{CLD_STOPPED, CLD_TRAPPED, SI_USER};
use abi::{Errno, Signal};

use super::state::{FpuDone, FpuWork, Stop};
use super::{Resume, watch};
use crate::signal::{self, SigInfo, send_to_task};
use crate::task::Mode;
use crate::{CurrentTask, Task};

/// Which end of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syscall {
    /// About to be made.
    Entry,
    /// Made.
    Exit,
}

/// Why a thread stops.
#[derive(Debug)]
struct Reason {
    code: i32,
    /// `CLD_*` of the tracer's `SIGCHLD`.
    why: i32,
    message: u64,
    info: Option<SigInfo>,
}

/// How a stop ended.
#[derive(Debug)]
enum Resumed {
    /// There was none: nobody traces, or the thread is to die.
    Not,
    /// The thread goes on with this signal (0 for none), and the siginfo of the stop.
    With(i32, Option<SigInfo>),
}

/// What a stopped thread has to do next.
enum Next {
    Wait,
    Leave,
    Fpu(FpuWork),
}

/// Linux `ptrace_event_enabled`.
const fn is_enabled(options: u32, event: i32) -> bool {
    options & 1 << event != 0
}

impl CurrentTask {
    /// `siginfo_t` of the stops that no signal makes.
    fn own_info(&self, signal: Signal, code: i32) -> SigInfo {
        SigInfo { code, ..SigInfo::kill(signal, self.tid(), self.credentials().uid) }
    }

    /// Tells whether a stop is to end, or not to begin, because the thread dies. In the stop of its exit it takes `SIGKILL` from
    /// outside, or the end of the container, to end it.
    fn must_go(&self, exits: bool) -> bool {
        signal::is_killed(self) || if exits { self.kernel().tree.lock().draining } else { self.is_leaving() }
    }

    /// Stops until the tracer lets the thread go on.
    fn trace_stop(&mut self, reason: Reason) -> Resumed {
        let Reason { code, why, message, info } = reason;
        let exits = code >> 8 == event::EXIT;
        if self.must_go(exits) {
            return Resumed::Not;
        }
        let tracer = {
            let mut state = self.tracing.lock();
            let Some(tracer) = state.tracer.clone() else { return Resumed::Not };
            // Any stop is the one that was asked for.
            state.trap = false;
            self.tracing.note_traps(&state);
            state.message = message;
            state.stops += 1;
            state.stop = Some(Stop {
                number: state.stops,
                code,
                info,
                regs: self.regs,
                reported: false,
                listening: false,
                go: None,
                fpu_work: None,
                fpu_done: None,
            });
            tracer
        };
        tell_tracer(&tracer, self.task(), why, code & 0x7f);
        drop(tracer);
        let clock = Arc::clone(self.kernel().clock());
        self.cpu.enter(Mode::Idle, clock.monotonic_ns());
        loop {
            match self.next_of_stop(exits) {
                Next::Leave => break,
                Next::Wait => self.waiter().wait(),
                Next::Fpu(work) => self.do_fpu_work(work),
            }
        }
        self.cpu.enter(Mode::System, clock.monotonic_ns());
        self.leave_stop()
    }

    fn next_of_stop(&self, exits: bool) -> Next {
        if self.must_go(exits) {
            return Next::Leave;
        }
        let mut state = self.tracing.lock();
        let (traced, notified) = (state.tracer.is_some(), state.trap || state.notify);
        let Some(stop) = state.stop.as_mut() else { return Next::Leave };
        if let Some(work) = stop.fpu_work.take() {
            return Next::Fpu(work);
        }
        if !traced || stop.go.is_some() || stop.listening && notified { Next::Leave } else { Next::Wait }
    }

    fn do_fpu_work(&mut self, work: FpuWork) {
        let done = match work {
            FpuWork::Save => self.save_fpu().map(FpuDone::Saved),
            FpuWork::Load(fpu) => self.load_fpu(&fpu).map(FpuDone::Loaded),
        };
        let tracer = {
            let mut state = self.tracing.lock();
            if let Some(stop) = state.stop.as_mut() {
                stop.fpu_done = Some(done.unwrap_or(FpuDone::Failed));
            }
            state.tracer.clone()
        };
        if let Some(tracer) = tracer {
            tracer.waiter().wake_up();
        }
    }

    fn leave_stop(&mut self) -> Resumed {
        let (stop, tracer) = {
            let mut state = self.tracing.lock();
            state.message = 0;
            (state.stop.take(), state.tracer.clone())
        };
        if let Some(tracer) = tracer {
            // It may wait for the FPU state of a thread that is about to die.
            tracer.waiter().wake_up();
        }
        let Some(stop) = stop else { return Resumed::Not };
        self.regs = stop.regs;
        // A tracer that is gone has taken the signal with it, if it knew.
        let signal = stop.go.unwrap_or(if stop.reported || stop.listening { 0 } else { stop.code });
        Resumed::With(signal, stop.info)
    }

    /// A stop that no signal makes, Linux `ptrace_notify`; gives the signal to go on with.
    fn notify(&mut self, code: i32, message: u64) -> i32 {
        let info = Some(self.own_info(Signal::SIGTRAP, code));
        match self.trace_stop(Reason { code, why: CLD_TRAPPED, message, info }) {
            Resumed::With(signal, _) => signal,
            Resumed::Not => 0,
        }
    }

    /// Stops for an event, if the tracer wants to know of it; tells whether it does. A tracer of the old kind that does not
    /// want to know of execve(2) is told by `SIGTRAP`.
    pub(crate) fn trace_event(&mut self, event: i32, message: u64) -> bool {
        if !self.is_traced() {
            return false;
        }
        if !self.has_event(event) {
            if event == event::EXEC && !self.tracing.watches(watch::SEIZED) {
                let info = SigInfo::kill(Signal::SIGTRAP, self.tgid(), self.credentials().uid);
                // SIGTRAP is a standard signal, and those are never refused.
                let _sent = send_to_task(self.task(), info);
            }
            return false;
        }
        self.notify(event << 8 | Signal::SIGTRAP.number(), message);
        true
    }

    /// Tells whether the tracer wants to know of an event.
    pub(crate) fn has_event(&self, event: i32) -> bool {
        self.is_traced() && is_enabled(self.tracing.lock().options, event)
    }

    /// Stops before or after a system call, if the tracer wants that; Linux `ptrace_report_syscall`.
    pub(crate) fn trace_syscall(&mut self, end: Syscall) {
        let wanted = match end {
            Syscall::Entry => watch::CALLS | watch::EMULATED,
            Syscall::Exit => watch::CALLS | watch::STEP,
        };
        let watched = self.tracing.watched();
        if watched & wanted == 0 {
            return;
        }
        if end == Syscall::Exit && watched & watch::STEP != 0 {
            if watched & watch::EMULATED == 0 {
                self.report_step();
            }
            return;
        }
        let good = self.tracing.lock().options & option::TRACESYSGOOD != 0;
        let code = Signal::SIGTRAP.number() | if good { 0x80 } else { 0 };
        let message = match end {
            Syscall::Entry => abi::ptrace::EVENTMSG_SYSCALL_ENTRY,
            Syscall::Exit => abi::ptrace::EVENTMSG_SYSCALL_EXIT,
        };
        let signal = self.notify(code, message);
        if let Some(signal) = Signal::new(signal).filter(|_| signal != code) {
            // A queue that is full loses a real-time signal, as in Linux.
            let _full = send_to_task(self.task(), SigInfo::kernel(signal));
        }
    }

    /// An instruction was executed that was a system call, Linux `user_single_step_report`.
    fn report_step(&self) {
        const TRAP_BRKPT: i32 = 1;
        signal::force_signal(self, SigInfo::fault(Signal::SIGTRAP, TRAP_BRKPT, self.regs.rip));
    }

    /// A handler is about to run, while each instruction is to stop: its first does.
    pub(crate) fn trace_handler(&mut self) {
        if self.tracing.watched() & watch::STEP != 0 {
            self.notify(Signal::SIGTRAP.number(), 0);
        }
    }

    /// Lets the tracer decide over a signal, Linux `ptrace_signal`; gives the signal to handle.
    pub(crate) fn trace_signal(&mut self, info: SigInfo) -> Option<SigInfo> {
        let code = info.signal.number();
        let reason = Reason { code, why: CLD_TRAPPED, message: 0, info: Some(info) };
        let (signal, kept) = match self.trace_stop(reason) {
            Resumed::Not => return Some(info),
            Resumed::With(signal, kept) => (Signal::new(signal)?, kept.unwrap_or(info)),
        };
        if self.must_go(false) {
            return None;
        }
        let info = if signal == kept.signal {
            kept
        } else {
            let (pid, uid) = self.tracer().map_or((0, 0), |t| (t.tgid(), t.credentials().uid));
            SigInfo { code: SI_USER, ..SigInfo::kill(signal, pid, uid) }
        };
        if self.signals().mask().contains(signal) {
            // A queue that is full loses a real-time signal, as in Linux.
            let _full = send_to_task(self.task(), info);
            return None;
        }
        Some(info)
    }

    /// Makes the stops that were asked for, and takes part in one of the whole process; tells whether there was any.
    pub(crate) fn trace_traps(&mut self) -> bool {
        let group = Arc::clone(self.group());
        let job = &group.signals().job;
        let stopping = job.epoch_to_heed(&self.tracing);
        if stopping == 0 && !self.tracing.watches(watch::TRAP) {
            return false;
        }
        if stopping != 0 {
            self.tracing.heeded.store(stopping, Ordering::SeqCst);
            signal::count_stopped(self);
        }
        {
            // Before the process is looked at: what it does after that is told by one more stop.
            let mut state = self.tracing.lock();
            (state.trap, state.notify) = (false, false);
            self.tracing.note_traps(&state);
        }
        let stop_signal = job.signal();
        let seized = self.tracing.watches(watch::SEIZED);
        let reason = if seized {
            let signal = stop_signal.unwrap_or(Signal::SIGTRAP);
            let code = event::STOP << 8 | signal.number();
            Reason { code, why: CLD_STOPPED, message: 0, info: Some(self.own_info(signal, code)) }
        } else {
            let code = stop_signal.map_or(0, Signal::number);
            Reason { code, why: CLD_STOPPED, message: 0, info: None }
        };
        // There is none if the process goes on again.
        if reason.code != 0 {
            self.trace_stop(reason);
        }
        true
    }

    /// The memory's patches, which a tracer must not see and a step cannot pass, are taken back.
    pub(crate) fn forbid_patches(&self) {
        if let Some(mm) = self.mm() {
            mm.forbid_patches();
        }
    }
}

impl Task {
    /// Asks for a stop of a thread that was made or stopped under a tracer's eyes.
    pub(crate) fn ask_for_trap(&self) {
        let mut state = self.tracing.lock();
        state.trap |= state.tracer.is_some();
        self.tracing.note_traps(&state);
    }

    /// Its process was stopped or goes on: a seized thread stops to tell of it. Linux `ptrace_trap_notify`.
    pub(crate) fn notify_of_job(&self) {
        if !self.tracing.watches(watch::SEIZED) {
            return;
        }
        {
            let mut state = self.tracing.lock();
            state.notify |= state.tracer.is_some();
            self.tracing.note_traps(&state);
        }
        self.interrupt();
    }

    /// Lets a stopped thread go on, if it is stopped.
    pub(super) fn trace_resume(&self, how: Resume, signal: i32) -> Result<(), Errno> {
        {
            let mut state = self.tracing.lock();
            let stop = state.stop.as_mut().filter(|s| s.go.is_none()).ok_or(Errno::ESRCH)?;
            stop.go = Some(signal);
            self.tracing.set_resume(how);
        }
        self.waiter().wake_up();
        Ok(())
    }
}

/// Sends the tracer `SIGCHLD`, and wakes its wait(2); Linux `do_notify_parent_cldstop`.
fn tell_tracer(tracer: &Arc<Task>, tracee: &Arc<Task>, why: i32, status: i32) {
    let (utime, stime) = tracee.cpu_times().ticks();
    let uid = tracee.credentials().uid;
    signal::tell_of_stop(tracer.group(), why, (tracee.tid(), uid), status, (utime, stime));
}
