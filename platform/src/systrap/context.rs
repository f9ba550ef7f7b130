//! A guest thread: a stub thread that traps.
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use abi::Registers;

use super::area::AREA;
use super::interrupt::Interrupter;
use super::pace::Pace;
use super::space::SystrapSpace;
use super::thread::{Thread, Waiting, broken};
use super::trap::{self, Event};
use crate::patch::Patches;
use crate::{Context, FaultAccess, FpuState, Interrupt, PlatformError, Trap, fpu, registers};

/// The guest thread.
#[derive(Debug)]
pub(super) struct SystrapContext {
    space: Arc<SystrapSpace>,
    /// Taken by drop only.
    thread: Option<Thread>,
    interrupter: Arc<Interrupter>,
    pace: Pace,
    /// The registers that the guest had at its last trap.
    current: Registers,
    /// Where the guest goes on after a patched call, as long as no more patches were removed than that.
    tail: Option<(u64, u64)>,
    /// The last trap was a system call that came by a signal.
    by_signal: bool,
    /// Only the thread that made it may use it.
    _local: PhantomData<*const ()>,
}

impl SystrapContext {
    pub(super) fn new(space: Arc<SystrapSpace>, thread: Thread) -> Self {
        let shared = space.shared();
        let pace = Pace::new(Arc::clone(&shared.crowd), shared.cpus.clone(), thread.tid);
        let interrupter = Arc::new(Interrupter::new(space.pid(), thread.tid, Arc::clone(&thread.slot)));
        let current = Registers { cs: registers::USER_CS, ss: registers::USER_DS, ..Registers::default() };
        Self {
            space,
            thread: Some(thread),
            interrupter,
            pace,
            current,
            tail: None,
            by_signal: false,
            _local: PhantomData,
        }
    }

    fn thread(&mut self) -> &mut Thread {
        self.thread.as_mut().expect("taken by drop only")
    }

    fn run(&mut self, regs: &mut Registers, waiting: Waiting) -> Result<Trap, PlatformError> {
        let Self { space, thread, interrupter, pace, current, tail, by_signal, .. } = self;
        let thread = thread.as_mut().expect("taken by drop only");
        let patches = space.patches_of();
        let mut wanted = *regs;
        registers::sanitize(&mut wanted, current);
        let removals = || patches.map_or(0, Patches::removals);
        let after_call = tail.take().filter(|(_, then)| wanted.rip == current.rip && *then == removals());
        let result = Registers { rax: wanted.rax, orig_rax: wanted.orig_rax, ..*current };
        let steps = wanted.eflags & registers::TRAP_FLAG != 0;
        let returns = after_call.is_some() && result == wanted && !steps;
        let mut returns = returns && thread.give_result(wanted.rax);
        *current = wanted;
        let mut rip = after_call.map_or_else(|| resumption(patches, current.rip), |(tail, _)| tail);
        loop {
            let before = removals();
            // A guest that has no use for its GS base lends it to the stub, whose patched calls find their area by it.
            let lent = thread.slot.region() + AREA;
            let gs_base = if current.gs_base == 0 { lent } else { current.gs_base };
            if !returns {
                thread.area().store_registers(&Registers { rip, ..*current }, gs_base);
            }
            thread.resume(waiting, returns, space.life(), interrupter, &mut || pace.loosen())?;
            returns = false;
            let event = trap::event(thread.area(), current);
            let own_gs = current.gs_base != lent;
            if !own_gs {
                current.gs_base = 0;
            }
            *by_signal = matches!(event, Event::Trap(Trap::Syscall));
            let mut moved = false;
            if let Some(patches) = patches.filter(|_| !matches!(event, Event::Patched(_))) {
                // Who loads the GS register by itself cannot leave a trampoline.
                let stuck = matches!(event, Event::Halted | Event::Trap(Trap::Fault { .. })) && own_gs;
                if let Some(site) = patches.entering(current.rip).filter(|_| stuck) {
                    let trap = trap::call_from(&site, current);
                    *regs = *current;
                    return Ok(trap);
                }
                let fetch = matches!(event, Event::Trap(Trap::Fault { access: FaultAccess::Execute, .. }));
                moved = trap::leave_patch(&thread.slot, patches, current) && fetch;
            }
            rip = resumption(patches, current.rip);
            let again = moved || matches!(event, Event::Halted) && rip != current.rip;
            // A guest that makes this up, by another of its threads, must not keep the sentry's thread for ever.
            if again && !interrupter.is_pending() {
                continue;
            }
            let trap = match event {
                _ if again => Trap::Interrupted,
                Event::Trap(trap) => trap,
                Event::Patched(next) => {
                    *tail = Some((next, before));
                    Trap::Syscall
                }
                Event::Halted => trap::PROTECTION,
                Event::Stopped => {
                    // In this order, so that an interrupt that comes now is not lost.
                    thread.area().interrupt.store(0, Ordering::SeqCst);
                    if !interrupter.is_pending() {
                        continue;
                    }
                    Trap::Interrupted
                }
                Event::Broken => return Err(broken(space.pid())),
            };
            *regs = *current;
            return Ok(trap);
        }
    }
}

/// Where a guest that is to go on at `rip` goes on.
fn resumption(patches: Option<&Patches>, rip: u64) -> u64 {
    patches.map_or(rip, |patches| patches.resumption(rip))
}

impl Context for SystrapContext {
    fn switch(&mut self, regs: &mut Registers) -> Result<Trap, PlatformError> {
        if self.interrupter.enter() {
            return Ok(Trap::Interrupted);
        }
        let waiting = self.pace.enter();
        let result = self.run(regs, waiting);
        let hogged = self.thread().take_hogged();
        self.pace.leave(hogged);
        self.interrupter.leave(matches!(result, Ok(Trap::Interrupted)));
        result
    }

    fn wants_patch(&self) -> bool {
        self.by_signal
    }

    fn answer_ids(&mut self, ids: Option<(i32, i32)>) {
        self.thread().slot.answer(ids);
    }

    fn rest(&self) -> Duration {
        self.pace.rest()
    }

    fn rested(&self) {
        self.pace.rested();
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::<Interrupter>::clone(&self.interrupter)
    }

    fn save_fpu(&mut self) -> Result<FpuState, PlatformError> {
        let space = Arc::clone(&self.space);
        self.thread().save_fpu(space.life())
    }

    fn load_fpu(&mut self, state: &FpuState) -> Result<bool, PlatformError> {
        if !fpu::is_loadable(&state.0) {
            return Ok(false);
        }
        self.thread().load_fpu(&state.0);
        Ok(true)
    }
}

impl Drop for SystrapContext {
    fn drop(&mut self) {
        self.interrupter.end();
        if let Some(thread) = self.thread.take() {
            self.space.give_back(thread);
        }
    }
}
