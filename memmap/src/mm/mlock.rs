//! mlock(2) and its kin. No page of a guest is ever written to swap by the sentry; what is locked is counted and present.
use std::ops::Range;

use abi::Errno;
use abi::mman::{MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT};

use super::MemoryManager;
use super::locked::Locked;
use super::pma::intersect;
use super::types::MmLimits;
use super::vma::{Vma, flag};
use crate::PAGE;

/// The pages that any byte of the range is in.
fn cover(addr: u64, len: u64) -> Result<Range<u64>, Errno> {
    let start = addr & !(PAGE - 1);
    // As in Linux, a sum too large wraps, and one too large to be rounded becomes 0.
    let len = len.wrapping_add(addr - start).checked_next_multiple_of(PAGE).unwrap_or(0);
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    Ok(start..end)
}

const fn lock_flags(on_fault: bool) -> u32 {
    if on_fault { flag::LOCKED | flag::LOCK_ON_FAULT } else { flag::LOCKED }
}

fn set_lock(vma: &mut Vma, lock: u32) {
    vma.set(flag::LOCKED | flag::LOCK_ON_FAULT, false);
    if !vma.has(flag::SPECIAL | flag::DROPPABLE) {
        vma.set(lock, lock != 0);
    }
}

impl MemoryManager {
    /// mlock2(2).
    ///
    /// # Errors
    /// `EINVAL` for unknown flags or a range that wraps, `EPERM` with a limit of 0, `ENOMEM` beyond the limit or when a part
    /// is not mapped or cannot be made present, `EAGAIN` when memory is out.
    pub fn mlock(&self, addr: u64, len: u64, flags: u32, limits: MmLimits) -> Result<(), Errno> {
        if flags & !MLOCK_ONFAULT != 0 {
            return Err(Errno::EINVAL);
        }
        if limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let range = cover(addr, len)?;
        {
            let mut locked = self.lock();
            let already: u64 = locked
                .state
                .vmas
                .overlapping(range.clone())
                .filter(|(_, vma)| vma.has(flag::LOCKED))
                .map(|(r, _)| intersect(&r, &range))
                .map(|r| r.end - r.start)
                .sum();
            let more = (range.end - range.start) - already;
            if locked.state.locked.saturating_add(more) > limits.memlock {
                return Err(Errno::ENOMEM);
            }
            locked.lock_range(&range, lock_flags(flags & MLOCK_ONFAULT != 0))?;
        }
        if flags & MLOCK_ONFAULT != 0 {
            return Ok(());
        }
        self.populate(range)
            .map_err(|error| if error == Errno::ENOMEM { Errno::EAGAIN } else { Errno::ENOMEM })
    }

    /// munlock(2).
    ///
    /// # Errors
    /// `EINVAL` for a range that wraps, `ENOMEM` when a part is not mapped.
    pub fn munlock(&self, addr: u64, len: u64) -> Result<(), Errno> {
        let range = cover(addr, len)?;
        self.lock().lock_range(&range, 0)
    }

    /// mlockall(2).
    ///
    /// # Errors
    /// `EINVAL` for unknown flags or none but `MCL_ONFAULT`, `EPERM` with a limit of 0, `ENOMEM` beyond the limit.
    pub fn mlockall(&self, flags: u32, limits: MmLimits) -> Result<(), Errno> {
        if flags & (MCL_CURRENT | MCL_FUTURE) == 0 || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 {
            return Err(Errno::EINVAL);
        }
        if limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let lock = lock_flags(flags & MCL_ONFAULT != 0);
        let ranges: Vec<Range<u64>> = {
            let mut locked = self.lock();
            if flags & MCL_CURRENT != 0 && locked.state.total > limits.memlock {
                return Err(Errno::ENOMEM);
            }
            locked.state.lock_future = if flags & MCL_FUTURE != 0 { lock } else { 0 };
            if flags & MCL_CURRENT == 0 {
                return Ok(());
            }
            locked.change_vmas(0..u64::MAX, |vma| set_lock(vma, lock));
            locked.state.vmas.iter().map(|(r, _)| r).collect()
        };
        if flags & MCL_ONFAULT == 0 {
            for range in ranges {
                // Linux ignores what cannot be made present here.
                let _failed = self.populate(range);
            }
        }
        Ok(())
    }

    /// munlockall(2).
    ///
    /// # Errors
    /// None, as in Linux but for a signal.
    pub fn munlockall(&self) -> Result<(), Errno> {
        let mut locked = self.lock();
        locked.state.lock_future = 0;
        locked.change_vmas(0..u64::MAX, |vma| set_lock(vma, 0));
        Ok(())
    }
}

impl Locked<'_> {
    /// Locks or unlocks what is mapped up to the first hole.
    fn lock_range(&mut self, range: &Range<u64>, lock: u32) -> Result<(), Errno> {
        let end = self.mapped_end(range);
        let mapped = range.start..end;
        if !mapped.is_empty() {
            self.change_vmas(mapped, |vma| set_lock(vma, lock));
        }
        if end < range.end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Where the first hole in `range` begins, or its end.
    pub(super) fn mapped_end(&self, range: &Range<u64>) -> u64 {
        let mut end = range.start;
        for (r, _) in self.state.vmas.overlapping(range.clone()) {
            if r.start > end {
                break;
            }
            end = r.end.min(range.end);
        }
        end
    }
}
