//! The stack, and mappings that grow down like it.
use std::ops::Range;

use abi::Errno;
use abi::mman::{
    MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE,
};

use super::MemoryManager;
use super::locked::Locked;
use super::place::STACK_GUARD_GAP;
use super::types::MmapArgs;
use super::vma::flag;
use crate::PAGE;

/// The stack's size before it grows (Linux `setup_arg_pages`), in bytes.
const INITIAL: u64 = 33 * PAGE;

impl MemoryManager {
    /// Maps the stack of a program near the top of the address space and gives the part that is mapped; it grows down by
    /// itself, up to `limit` bytes (`RLIMIT_STACK`).
    ///
    /// # Errors
    /// `ENOMEM` when there is no room.
    pub fn map_stack(&self, limit: u64, executable: bool) -> Result<Range<u64>, Errno> {
        let prot = PROT_READ | PROT_WRITE | if executable { PROT_EXEC } else { 0 };
        let len = INITIAL.min(limit.checked_next_multiple_of(PAGE).unwrap_or(INITIAL)).max(PAGE);
        self.set_stack_limit(limit);
        let start = self.mmap(MmapArgs {
            addr: self.bases.stack - len,
            len,
            prot,
            flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE,
            ..MmapArgs::default()
        });
        let start = start.map_err(|_taken| Errno::ENOMEM)?;
        // What /proc/PID/maps calls [stack] is the mapping that holds this address.
        self.state.write().layout.start_stack = start + len - 1;
        Ok(start..start + len)
    }

    /// Sets how far stacks grow: `RLIMIT_STACK`, in bytes.
    pub fn set_stack_limit(&self, limit: u64) {
        self.state.write().stack_limit = limit;
    }
}

impl Locked<'_> {
    /// Grows the mapping above `page` down to it; false if there is none that may. Linux `expand_downwards`.
    pub(super) fn grow_stack(&mut self, page: u64) -> bool {
        let state = &*self.state;
        let Some((range, vma)) = state.vmas.at_or_after(page) else { return false };
        let room = state.vmas.before(page).is_none_or(|(below, vma)| {
            vma.has(flag::GROWS_DOWN) || vma.prot == 0 || page - below.end >= STACK_GUARD_GAP
        });
        let fits = vma.has(flag::GROWS_DOWN) && range.end - page <= state.stack_limit;
        if !fits || !room || page < self.mm.user.start || state.released {
            return false;
        }
        let start = range.start;
        for (range, mut vma) in self.take_vmas(range) {
            vma.offset = vma.offset.wrapping_sub(start - page);
            self.put_vma(page..range.end, vma);
        }
        true
    }
}
