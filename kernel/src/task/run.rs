//! The loop of a task's host thread: run the program, answer what it traps for.
use std::sync::atomic::Ordering;

use abi::siginfo::SI_KERNEL;
use abi::{Errno, Signal};
use platform::Trap;

use super::last_trap::LastTrap;
use super::{CurrentTask, Mode};
use crate::ExitStatus;
use crate::ptrace::{Syscall, watch};
use crate::signal::{self, SigInfo};

/// `orig_rax` while no system call is being made.
const NO_SYSCALL: u64 = u64::MAX;
/// The flag by which the processor traps after each instruction.
const TRAP_FLAG: u64 = 0x100;

impl CurrentTask {
    /// Runs until the task exits.
    pub(crate) fn run(mut self) {
        self.begin_program();
        loop {
            self.wait_until_resumed();
            signal::deliver(&mut self);
            if self.is_leaving() {
                break;
            }
            if self.refiltered.swap(false, Ordering::SeqCst) {
                self.begin_program();
            }
            self.run_program();
        }
        self.finish();
    }

    /// The task has a program, or a place to run it, that it has not run yet.
    pub(crate) fn begin_program(&mut self) {
        if let Some(syscalls) = self.kernel().syscalls().cloned() {
            syscalls.begin(self);
        }
    }

    /// Tells whether the task is to exit now.
    pub(crate) fn is_leaving(&self) -> bool {
        self.exit_code.is_some() || self.is_exiting()
    }

    /// Runs the program until it traps, and answers.
    fn run_program(&mut self) {
        let stepping = self.tracing.watched() & watch::STEP != 0 && self.regs.eflags & TRAP_FLAG == 0;
        let Self { task, context, regs, .. } = self;
        if stepping {
            regs.eflags |= TRAP_FLAG;
        }
        let clock = task.kernel().clock();
        regs.orig_rax = NO_SYSCALL;
        task.cpu.enter(Mode::User, clock.monotonic_ns());
        let trap = context.switch(regs);
        task.cpu.enter(Mode::System, clock.monotonic_ns());
        if stepping {
            regs.eflags &= !TRAP_FLAG;
        }
        match trap {
            Ok(Trap::Syscall) => {
                if context.wants_patch()
                    && let Some(mm) = task.mm()
                {
                    mm.patch_syscall(regs.rip, regs.orig_rax);
                }
                self.answer_syscall();
            }
            Ok(Trap::Fault { addr, access }) => self.answer_fault(addr, access),
            Ok(Trap::Exception { signal, code, addr }) => {
                self.last_trap = self.last_trap.exception(signal, code);
                if self.regs.eflags & TRAP_FLAG != 0 {
                    // A program that steps through itself cannot step through patches.
                    self.forbid_patches();
                }
                signal::force_signal(self, SigInfo::fault(signal, code, addr));
            }
            Ok(Trap::Interrupted) => {}
            Err(error) => {
                tracing::error!(%error, pid = self.tgid(), "the process is lost");
                self.exit_group(ExitStatus::Signaled { signal: Signal::SIGKILL, core: false });
            }
        }
    }

    fn answer_syscall(&mut self) {
        if self.tracing.watched() != 0 {
            self.answer_watched_syscall();
        } else {
            self.make_syscall();
        }
    }

    /// A call that filters or a tracer look at, in Linux's order (`syscall_trace_enter`).
    fn answer_watched_syscall(&mut self) {
        let mut emulated = false;
        if self.tracing.watched() & watch::TRACED != 0 {
            self.regs.set_syscall_return(Errno::ENOSYS.as_return());
            emulated = self.tracing.watched() & watch::EMULATED != 0;
            self.trace_syscall(Syscall::Entry);
            if self.is_leaving() || signal::is_killed(self) {
                return;
            }
        }
        if !emulated
            && self.wants_call()
            && (self.tracing.watched() & watch::FILTERED == 0 || self.may_call())
        {
            self.make_syscall();
        }
        if self.tracing.watched() & watch::TRACED != 0 && !self.is_leaving() {
            self.trace_syscall(Syscall::Exit);
        }
    }

    /// Tells whether the registers ask for a call: a tracer may have taken the number away.
    pub(crate) const fn wants_call(&self) -> bool {
        self.regs.syscall_number() & 0xffff_ffff != 0xffff_ffff
    }

    fn make_syscall(&mut self) {
        // Taken out for the time of the call, which borrows the whole task.
        let syscalls = self.syscalls.take().or_else(|| self.kernel().syscalls().cloned());
        match &syscalls {
            Some(syscalls) => syscalls.call(self),
            None => self.regs.set_syscall_return(Errno::ENOSYS.as_return()),
        }
        self.syscalls = syscalls;
    }

    fn answer_fault(&mut self, addr: u64, access: platform::FaultAccess) {
        let Some(mm) = self.mm() else { return };
        let info = match mm.resolve_fault(addr, access) {
            Ok(()) => return self.cpu.count_fault(),
            Err(fault) => {
                let rip = self.regs.rip;
                tracing::debug!(pid = self.tgid(), rip, addr, ?access, signal = ?fault.signal, code = fault.code, "fault");
                self.last_trap = LastTrap::fault(addr, access, fault.code);
                if fault.signal == Signal::SIGKILL {
                    self.kernel().tell_out_of_memory();
                }
                SigInfo::fault(fault.signal, fault.code, fault.addr)
            }
        };
        signal::force_signal(self, info);
    }

    /// Ends the process as a fault does that no handler can see (a broken signal frame, a failed execve(2)).
    pub fn force_kill(&self, signal: Signal) {
        signal::force_signal(self, SigInfo { code: SI_KERNEL, ..SigInfo::kernel(signal) });
    }
}
