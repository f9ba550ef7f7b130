//! brk(2).
use abi::mman::{PROT_READ, PROT_WRITE};

use super::locked::{Locked, MAX_MAP_COUNT};
use super::types::MmLimits;
use super::vma::{Vma, flag};
use super::{MemoryManager, place};
use crate::PAGE;

impl MemoryManager {
    /// Says where the heap begins; it is empty.
    pub fn set_brk_start(&self, addr: u64) {
        let layout = &mut self.state.write().layout;
        (layout.start_brk, layout.brk) = (addr, addr);
    }

    /// brk(2) as the kernel has it: moves the heap's end to `addr` if that can be done, and gives where it is then.
    pub fn brk(&self, addr: u64, limits: MmLimits) -> u64 {
        let mut locked = self.lock();
        let layout = locked.state.layout;
        // Linux check_data_rlimit.
        let heap_and_data = addr
            .saturating_sub(layout.start_brk)
            .saturating_add(layout.end_data - layout.start_data.min(layout.end_data));
        if addr < layout.start_brk || heap_and_data > limits.data || locked.move_brk(addr, &limits).is_none()
        {
            return layout.brk;
        }
        locked.state.layout.brk = addr;
        addr
    }
}

impl Locked<'_> {
    fn move_brk(&mut self, addr: u64, limits: &MmLimits) -> Option<()> {
        let old_end = self.state.layout.brk.checked_next_multiple_of(PAGE)?;
        let end = addr.checked_next_multiple_of(PAGE).filter(|end| *end <= self.mm.user.end)?;
        if end <= old_end {
            self.drop_vmas(end..old_end);
            return Some(());
        }
        let range = old_end..end;
        let lock = self.state.lock_future;
        // Linux keeps one page free behind the heap.
        let free =
            range.start >= self.mm.user.start && place::is_free(&self.state.vmas, &(range.start..end + PAGE));
        let over_lock = lock != 0 && self.state.locked.saturating_add(end - old_end) > limits.memlock;
        if self.state.released || !free || over_lock || self.state.vmas.len() > MAX_MAP_COUNT {
            return None;
        }
        self.may_expand(end - old_end, true, limits).ok()?;
        self.may_commit(end - old_end).ok()?;
        let flags = flag::MAY_WRITE | flag::MAY_EXEC | flag::ACCOUNT | lock;
        let prot = PROT_READ | PROT_WRITE;
        let vma = Vma { prot, shared: false, flags, file: None, offset: range.start, anon: 0, name: None };
        self.add_vma(range, vma);
        Some(())
    }
}
