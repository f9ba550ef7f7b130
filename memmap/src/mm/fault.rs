//! Page faults of the guest, and populating mappings ahead of them.
use std::ops::Range;

use abi::mman::{PROT_READ, PROT_WRITE};
use abi::{Errno, Signal};
use platform::{Access, FaultAccess};

use super::MemoryManager;
use super::locked::{Locked, Spurious};
use super::pma::{AHEAD, Place, Pma, around};
use super::types::FaultSignal;
use super::vma::Vma;
use crate::{FileRange, PAGE};

/// How many faults in a row may find their pages shown, as they do when many threads fault on one page at the same time,
/// before the access is taken to be one that can never succeed.
const PATIENCE: u32 = 64;

impl FaultSignal {
    const fn segv(addr: u64, code: i32) -> Self {
        Self { signal: Signal::SIGSEGV, code, addr }
    }

    const fn of(error: Errno, addr: u64) -> Self {
        // Out of memory: what Linux's OOM killer does to the one who asks for more (`SI_KERNEL`).
        if matches!(error, Errno::ENOMEM) {
            return Self { signal: Signal::SIGKILL, code: 0x80, addr };
        }
        Self { signal: Signal::SIGBUS, code: Self::BUS_ADRERR, addr }
    }
}

impl MemoryManager {
    /// Makes an access of the guest that faulted succeed when it is tried again.
    ///
    /// # Errors
    /// The signal to send if it cannot succeed.
    pub fn resolve_fault(&self, addr: u64, access: FaultAccess) -> Result<(), FaultSignal> {
        let mut locked = self.lock();
        if locked.state.broken {
            return Err(FaultSignal::of(Errno::ENOMEM, addr));
        }
        locked.resolve_fault(addr, access)
    }

    /// Makes all pages in `range` present and shows them, as far as their mappings allow access.
    pub(super) fn populate(&self, range: Range<u64>) -> Result<(), Errno> {
        let mut at = range.start;
        while at < range.end {
            // One lock for each step, so that others get their turn.
            at = self.lock().populate_step(at..range.end, None)?;
        }
        Ok(())
    }
}

impl Locked<'_> {
    fn resolve_fault(&mut self, addr: u64, access: FaultAccess) -> Result<(), FaultSignal> {
        let page = addr & !(PAGE - 1);
        if self.show_trampoline(page, access) {
            return Ok(());
        }
        if !self.find_or_grow(page) || self.state.guards.get(page).is_some() {
            return Err(FaultSignal::segv(addr, FaultSignal::SEGV_MAPERR));
        }
        let Some((_, vma)) = self.state.vmas.get(page) else {
            return Err(FaultSignal::segv(addr, FaultSignal::SEGV_MAPERR));
        };
        let shown = self.state.pmas.get(page).map_or(Access::NONE, |(_, p)| p.shown);
        let Some(need) = needed(vma, access, shown) else {
            return Err(FaultSignal::segv(addr, FaultSignal::SEGV_ACCERR));
        };
        let again = shown.contains(need);
        if !again {
            self.state.spurious = Spurious::default();
        } else if !self.is_lost(page, addr, access)? {
            return Ok(());
        }
        self.fill(page, need.write)
            .and_then(|_replaced| self.show(page, again))
            .map_err(|e| FaultSignal::of(e, addr))
    }

    /// The page is shown with all the rights the access takes: another thread's fault was faster, or the host cannot
    /// give what it shows, or the access is not what it seemed. Tells whether to show the page again.
    fn is_lost(&mut self, page: u64, addr: u64, access: FaultAccess) -> Result<bool, FaultSignal> {
        if let Some((range, Pma { place: Place::Host(file, offset), .. })) = self.state.pmas.get(page) {
            let size = nix::sys::stat::fstat(&file.fd).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
            if size.is_some_and(|size| offset + (page - range.start) >= size) {
                return Err(FaultSignal::of(Errno::EFAULT, addr));
            }
        }
        // The host's thread stands for the guest's. What it finds again, though nothing was shown or hidden since it
        // went back to look, is no race.
        let (thread, generation) = (Some(std::thread::current().id()), self.state.generation);
        let last = self.state.spurious;
        let same = (last.page, last.thread, last.generation) == (page, thread, generation);
        let count = if same { last.count + 1 } else { 1 };
        let streak = last.streak + 1;
        self.state.spurious = Spurious { page, thread, generation, count, streak };
        if count <= 2 && streak <= PATIENCE {
            return Ok(count == 2);
        }
        self.state.spurious = Spurious::default();
        if access == FaultAccess::Unknown {
            // It was a store to what is shown for loads, or an instruction fetch.
            return Err(FaultSignal::segv(addr, FaultSignal::SEGV_ACCERR));
        }
        Err(FaultSignal::of(Errno::EFAULT, addr))
    }

    /// Finds the mapping of a page, growing a stack down to it if need be; false if there is none.
    pub(super) fn find_or_grow(&mut self, page: u64) -> bool {
        self.state.vmas.get(page).is_some() || self.grow_stack(page)
    }

    /// Populates the start of `range`, and gives where that ends. With `told`, for loads or stores; else as the mapping
    /// allows.
    ///
    /// # Errors
    /// `ENOMEM` where nothing is mapped or memory is out, `EINVAL` where what is told is not allowed, `EFAULT` beyond the
    /// end of a file, at a guard page, or where no access is allowed.
    pub(super) fn populate_step(&mut self, range: Range<u64>, told: Option<bool>) -> Result<u64, Errno> {
        let at = range.start;
        let Some((in_vma, vma)) = self.state.vmas.get(at) else { return Err(Errno::ENOMEM) };
        let allowed = vma.access();
        let write = told.unwrap_or(allowed.write && !vma.shared);
        let named = if write { PROT_WRITE } else { PROT_READ };
        if told.is_some() && vma.prot & named == 0 {
            return Err(Errno::EINVAL);
        }
        let step = around(at, AHEAD, &range);
        let end = step.end.min(in_vma.end);
        if allowed == Access::NONE {
            return Err(Errno::EFAULT);
        }
        let mut page = at;
        while page < end {
            self.fill(page, write)?;
            let Some((run, pma)) = self.state.pmas.get(page) else { return Err(Errno::EFAULT) };
            // All that the one answer covers, in the mapping and step at hand.
            let done = run.end.min(end);
            if let Place::Memory(start) = pma.place {
                let start = start + (page - run.start);
                self.mm.memory_file.commit(FileRange { start, end: start + (done - page) })?;
            }
            self.show(page, false)?;
            page = done;
        }
        Ok(end)
    }
}

/// The rights that an access takes, if the mapping gives them.
fn needed(vma: &Vma, access: FaultAccess, shown: Access) -> Option<Access> {
    let allowed = vma.access();
    let need = match access {
        FaultAccess::Read => Access::READ,
        FaultAccess::Write => Access { write: true, ..Access::NONE },
        FaultAccess::Execute => Access { execute: true, ..Access::NONE },
        // A store, if what is shown serves loads. Yet where no store is allowed it may be a load that another thread's
        // fault has served meanwhile.
        FaultAccess::Unknown if shown.read && allowed.write => Access { write: true, ..Access::NONE },
        FaultAccess::Unknown => Access::READ,
    };
    allowed.contains(need).then_some(need)
}
