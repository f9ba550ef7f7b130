//! mprotect(2).
use std::ops::Range;

use abi::Errno;
use abi::mman::{PROT_EXEC, PROT_GROWSDOWN, PROT_GROWSUP, PROT_SEM, PROT_WRITE};

use super::MemoryManager;
use super::locked::{Locked, MAX_MAP_COUNT};
use super::pma::intersect;
use super::types::MmLimits;
use super::vma::{PROT_ALL, Vma, flag};
use crate::PAGE;

impl MemoryManager {
    /// mprotect(2).
    ///
    /// # Errors
    /// `EINVAL` for an address that is not a page's, unknown protections, `PROT_GROWSUP`, and `PROT_GROWSDOWN` on what does
    /// not grow; `ENOMEM` when a part is not mapped (what is before it has changed), beyond `RLIMIT_DATA`, or when
    /// that would make too many mappings; `EACCES` for what the mapped file does not allow.
    pub fn mprotect(&self, addr: u64, len: u64, prot: u32, limits: MmLimits) -> Result<(), Errno> {
        let grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP);
        let prot = prot & !(PROT_GROWSDOWN | PROT_GROWSUP);
        if grows == PROT_GROWSDOWN | PROT_GROWSUP || !addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let len = len.checked_next_multiple_of(PAGE).ok_or(Errno::ENOMEM)?;
        let end = addr.checked_add(len).ok_or(Errno::ENOMEM)?;
        if prot & !(PROT_ALL | PROT_SEM) != 0 {
            return Err(Errno::EINVAL);
        }
        let mut locked = self.lock();
        let mut range = addr..end;
        if grows != 0 {
            let (found, vma) = locked.state.vmas.at_or_after(addr).ok_or(Errno::ENOMEM)?;
            if grows == PROT_GROWSUP {
                return Err(Errno::EINVAL);
            }
            if found.start >= end {
                return Err(Errno::ENOMEM);
            }
            if !vma.has(flag::GROWS_DOWN) {
                return Err(Errno::EINVAL);
            }
            range.start = found.start;
        }
        locked.mprotect(&range, prot & PROT_ALL, &limits)
    }
}

/// Tells whether the mapping may have these protections.
fn allowed(vma: &Vma, prot: u32) -> bool {
    (prot & PROT_WRITE == 0 || vma.has(flag::MAY_WRITE)) && (prot & PROT_EXEC == 0 || vma.has(flag::MAY_EXEC))
}

impl Locked<'_> {
    fn mprotect(&mut self, range: &Range<u64>, prot: u32, limits: &MmLimits) -> Result<(), Errno> {
        if self.state.vmas.len() + self.splits(range) > MAX_MAP_COUNT + 1 {
            return Err(Errno::ENOMEM);
        }
        // Linux changes one mapping after the other and stops at the first that cannot be.
        let mut end = range.start;
        let mut result = Ok(());
        for (found, vma) in self.state.vmas.overlapping(range.clone()) {
            let part = intersect(&found, range);
            if part.start > end {
                break;
            }
            let len = part.end - part.start;
            let becomes_data = prot & PROT_WRITE != 0 && !vma.shared && !vma.is_data();
            result = if !allowed(vma, prot) {
                Err(Errno::EACCES)
            } else if becomes_data && self.state.data.saturating_add(len) > limits.data {
                Err(Errno::ENOMEM)
            } else if becomes_data && !vma.has(flag::NO_RESERVE) {
                self.may_commit(len)
            } else {
                Ok(())
            };
            if result.is_err() {
                break;
            }
            end = part.end;
        }
        if result.is_ok() && end < range.end {
            result = Err(Errno::ENOMEM);
        }
        let changed = range.start..end;
        if !changed.is_empty() {
            if prot & PROT_WRITE != 0 {
                self.unpatch_range(&changed);
            }
            self.change_vmas(changed.clone(), |vma| vma.protect(prot));
            self.update_shown(changed);
        }
        result
    }
}
