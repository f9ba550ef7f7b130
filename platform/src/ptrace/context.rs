//! A guest thread: a stub thread that the sentry's thread traces.
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Registers;

use super::calls::{Tracee, is_gone};
use super::decode;
use super::space::PtraceSpace;
use super::stop::{self, INTERRUPT, Stop};
use crate::cpu::Placement;
use crate::registers;
use crate::stub::{blob, layout};
use crate::{Context, FaultAccess, FpuState, Interrupt, PlatformError, Trap, fpu, sys};

/// The guest thread.
#[derive(Debug)]
pub(super) struct PtraceContext {
    space: Arc<PtraceSpace>,
    tracee: Tracee,
    interrupter: Arc<Interrupter>,
    placement: Placement,
    /// The registers that the stopped thread has.
    current: Registers,
    /// The last fault, to tell one that comes again after it was resolved.
    last_fault: Option<(u64, u64)>,
    /// The thread has ended and was waited for.
    gone: bool,
    /// Only the thread that traces may use it.
    _local: PhantomData<*const ()>,
}

impl PtraceContext {
    /// Takes over a parked thread of the space's stub.
    pub(super) fn new(space: Arc<PtraceSpace>, tid: i32) -> Result<Self, PlatformError> {
        let pid = space.pid();
        let died = |error| if is_gone(&error) { dead(pid) } else { error };
        let placement = Placement::new(space.shared().cpus.clone(), tid);
        placement.settle();
        let tracee = Tracee::seize(tid).map_err(died)?;
        space.shared().tracees.lock().insert(tid);
        let interrupter = Arc::new(Interrupter { state: AtomicU32::new(0), pid, tid });
        let mut context = Self {
            space,
            tracee,
            interrupter,
            placement,
            current: Registers::default(),
            last_fault: None,
            gone: false,
            _local: PhantomData,
        };
        tracee.interrupt().map_err(died)?;
        context.wait_stop()?;
        tracee.set_signal_mask(0).map_err(died)?;
        tracee.registers(&mut context.current).map_err(died)?;
        Ok(context)
    }

    fn wait_stop(&mut self) -> Result<Stop, PlatformError> {
        let stop = match self.tracee.wait() {
            Ok(status) => Stop::from_status(status),
            Err(error) if is_gone(&error) => Stop::Ended,
            Err(error) => return Err(error),
        };
        if stop == Stop::Ended {
            self.gone = true;
            return Err(dead(self.space.pid()));
        }
        Ok(stop)
    }

    /// Makes the error of a request to the stopped thread that of a dead stub, if it has been killed meanwhile.
    fn check<T>(&mut self, result: Result<T, PlatformError>) -> Result<T, PlatformError> {
        match result {
            Err(error) if is_gone(&error) && !self.gone => {
                self.tracee.wait().ok();
                self.gone = true;
                Err(dead(self.space.pid()))
            }
            other => other,
        }
    }

    fn load_registers(&mut self, regs: &Registers) -> Result<(), PlatformError> {
        let mut wanted = *regs;
        let high = registers::sanitize(&mut wanted, &self.current);
        if wanted == self.current {
            return Ok(());
        }
        let result =
            if high { self.tracee.set_most_registers(&wanted) } else { self.tracee.set_registers(&wanted) };
        self.check(result)?;
        self.current = wanted;
        Ok(())
    }

    fn run(&mut self, regs: &mut Registers) -> Result<Trap, PlatformError> {
        self.load_registers(regs)?;
        loop {
            let result = self.tracee.resume();
            self.check(result)?;
            let stop = self.wait_stop()?;
            if stop == Stop::Event {
                continue;
            }
            let result = self.tracee.registers(&mut self.current);
            self.check(result)?;
            *regs = self.current;
            match stop {
                Stop::SystemCall => {
                    let result = stop::system_call(self.tracee, regs);
                    return self.check(result);
                }
                Stop::Signal(INTERRUPT) if self.interrupter.is_pending() => return Ok(Trap::Interrupted),
                Stop::Signal(signal) => {
                    let result = self.tracee.signal_info();
                    let info = self.check(result)?;
                    if signal == libc::SIGSYS
                        && let Some(trap) = stop::vsyscall(info, regs)
                    {
                        return Ok(trap);
                    }
                    if let Some(trap) = stop::signal(signal, info, regs) {
                        return Ok(trap);
                    }
                }
                Stop::Ended | Stop::Event => {}
            }
        }
    }

    /// Finds out what kind of access faulted. A fetch that faults again at the same place was none: the instruction reads
    /// or writes itself. An access near the instruction that faults again may be the fetch of its second half, on the next
    /// page.
    fn refine(&mut self, regs: &Registers, trap: Trap) -> Trap {
        let Trap::Fault { addr, access } = trap else {
            self.last_fault = None;
            return trap;
        };
        let rip = regs.rip;
        let again = self.last_fault.replace((rip, addr)) == Some((rip, addr));
        let straddles = addr > rip && addr - rip < 15 && addr.is_multiple_of(layout::PAGE);
        if again {
            self.last_fault = None;
        }
        let access = match access {
            FaultAccess::Execute if !again => FaultAccess::Execute,
            _ if straddles && again => FaultAccess::Execute,
            _ if straddles => FaultAccess::Unknown,
            _ => self.decode(addr, regs),
        };
        Trap::Fault { addr, access }
    }

    /// What the instruction at `rip` does.
    fn decode(&self, addr: u64, regs: &Registers) -> FaultAccess {
        if let Ok(code) = self.tracee.peek(regs.rip) {
            return decode::access(code, addr, regs);
        }
        // The next page is not there: an instruction that faults on data ends before it.
        let last = (regs.rip | (layout::PAGE - 1)) - 7;
        let Ok(bytes) = self.tracee.peek(regs.rip.min(last)) else {
            return FaultAccess::Unknown;
        };
        let beyond = u32::try_from(regs.rip.saturating_sub(last) * 8).unwrap_or(0);
        let code = u64::from_le_bytes(bytes) >> beyond;
        decode::access(code.to_le_bytes(), addr, regs)
    }

    /// Sends the thread into the code that ends it.
    fn release(&mut self) -> Result<(), PlatformError> {
        let mut last = self.current;
        last.rip = layout::CODE + blob::exit_offset();
        last.eflags &= !registers::TRAP_FLAG;
        // The guest may have left for a 32-bit segment.
        last.cs = registers::USER_CS;
        self.tracee.set_signal_mask(u64::MAX)?;
        self.load_registers(&last)?;
        self.tracee.detach()
    }
}

fn dead(pid: i32) -> PlatformError {
    PlatformError::StubDied { pid, what: "a guest thread ended" }
}

impl Context for PtraceContext {
    fn switch(&mut self, regs: &mut Registers) -> Result<Trap, PlatformError> {
        if self.gone {
            return Err(dead(self.space.pid()));
        }
        if self.interrupter.enter() {
            return Ok(Trap::Interrupted);
        }
        self.placement.enter();
        let result = self.run(regs);
        self.placement.leave();
        self.interrupter.leave(matches!(result, Ok(Trap::Interrupted)));
        let trap = self.space.shared().notice(result)?;
        Ok(self.refine(regs, trap))
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::<Interrupter>::clone(&self.interrupter)
    }

    fn save_fpu(&mut self) -> Result<FpuState, PlatformError> {
        let mut area = vec![0; fpu::size()];
        let result = self.tracee.fpu(&mut area);
        let len = self.check(result)?;
        area.truncate(len);
        Ok(FpuState(area.into_boxed_slice()))
    }

    fn load_fpu(&mut self, state: &FpuState) -> Result<bool, PlatformError> {
        let result = self.tracee.set_fpu(&state.0);
        self.check(result)
    }
}

impl Drop for PtraceContext {
    fn drop(&mut self) {
        self.interrupter.state.fetch_or(DROPPED, Ordering::Relaxed);
        self.space.shared().tracees.lock().remove(&self.interrupter.tid);
        if !self.gone {
            let released = self.release();
            if self.check(released).is_err() && !self.gone {
                // Guest code must not go on without its tracer.
                sys::tgkill(self.space.pid(), self.space.pid(), libc::SIGKILL).ok();
                while self.wait_stop().is_ok() {}
            }
        }
    }
}

/// The guest runs, or is about to.
const RUNNING: u32 = 1;
/// An interrupt has not been seen yet.
const PENDING: u32 = 2;
/// The context is no more.
const DROPPED: u32 = 4;

/// Stops the guest thread by a signal that never reaches it. A signal that comes when the interrupt has been seen already
/// finds nothing pending and is ignored.
#[derive(Debug)]
struct Interrupter {
    state: AtomicU32,
    pid: i32,
    tid: i32,
}

impl Interrupter {
    /// Before the guest runs: takes a pending interrupt instead, if there is one. Setting the bit before looking leaves no
    /// moment at which an interrupt is neither seen here nor sends the signal.
    fn enter(&self) -> bool {
        let pending = self.state.fetch_or(RUNNING, Ordering::SeqCst) & PENDING != 0;
        if pending {
            self.leave(true);
        }
        pending
    }

    fn is_pending(&self) -> bool {
        self.state.load(Ordering::SeqCst) & PENDING != 0
    }

    fn leave(&self, seen: bool) {
        let bits = if seen { RUNNING | PENDING } else { RUNNING };
        self.state.fetch_and(!bits, Ordering::SeqCst);
    }
}

impl Interrupt for Interrupter {
    fn interrupt(&self) {
        if self.state.fetch_or(PENDING, Ordering::SeqCst) == RUNNING {
            // A thread that is gone needs no interrupt.
            sys::tgkill(self.pid, self.tid, INTERRUPT).ok();
        }
    }
}
