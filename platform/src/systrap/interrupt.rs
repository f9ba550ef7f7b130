//! Stopping a guest thread from another thread.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::area::AreaSlot;
use super::code::INTERRUPT;
use crate::{Interrupt, sys};

/// The guest runs, or is about to.
const RUNNING: u32 = 1;
/// An interrupt has not been seen yet.
const PENDING: u32 = 2;
/// The context is no more.
const DROPPED: u32 = 4;

/// Stops the guest thread by a signal, which its code in the stub takes. The word in the area stops one that is about to
/// enter the guest when the signal comes.
#[derive(Debug)]
pub(super) struct Interrupter {
    state: AtomicU32,
    pid: i32,
    tid: i32,
    slot: Arc<AreaSlot>,
}

impl Interrupter {
    pub(super) const fn new(pid: i32, tid: i32, slot: Arc<AreaSlot>) -> Self {
        Self { state: AtomicU32::new(0), pid, tid, slot }
    }

    /// Before the guest runs: takes a pending interrupt instead, if there is one. Setting the bit before looking leaves no
    /// moment at which an interrupt is neither seen here nor sends the signal.
    pub(super) fn enter(&self) -> bool {
        let pending = self.state.fetch_or(RUNNING, Ordering::SeqCst) & PENDING != 0;
        if pending {
            self.leave(true);
        }
        pending
    }

    /// Tells whether an interrupt has not been seen yet.
    pub(super) fn is_pending(&self) -> bool {
        self.state.load(Ordering::SeqCst) & PENDING != 0
    }

    /// After it. What the guest stopped for may have been the interrupt; a word that stays from one which came too late
    /// costs one more stop.
    pub(super) fn leave(&self, seen: bool) {
        let bits = if seen { RUNNING | PENDING } else { RUNNING };
        if seen {
            self.slot.area().interrupt.store(0, Ordering::SeqCst);
        }
        self.state.fetch_and(!bits, Ordering::SeqCst);
    }

    /// The context is dropped.
    pub(super) fn end(&self) {
        self.state.fetch_or(DROPPED, Ordering::SeqCst);
        self.slot.area().interrupt.store(0, Ordering::SeqCst);
    }
}

impl Interrupt for Interrupter {
    fn interrupt(&self) {
        if self.state.fetch_or(PENDING, Ordering::SeqCst) == RUNNING {
            self.slot.area().interrupt.store(1, Ordering::SeqCst);
            // A thread that is gone needs no interrupt.
            sys::tgkill(self.pid, self.tid, INTERRUPT).ok();
            // One that does not answer is not to keep the sentry's thread for ever.
            sys::futex_wake(&self.slot.area().event);
        }
    }
}
