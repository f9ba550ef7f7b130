//! msync(2) and mincore(2).
use abi::Errno;
use abi::mman::{MS_ASYNC, MS_INVALIDATE, MS_SYNC};

use super::MemoryManager;
use super::pma::{Place, intersect};
use super::vma::flag;
use crate::memory_file::Presence;
use crate::{FileRange, PAGE};

/// How many pages mincore(2) looks at under one lock.
const STEP: u64 = 4096;

impl MemoryManager {
    /// msync(2).
    ///
    /// # Errors
    /// `EINVAL` for unknown or contradicting flags or an address that is no page's, `ENOMEM` when a part is not mapped (the
    /// rest was synced), `EBUSY` by `MS_INVALIDATE` of locked pages, `EIO` and others of fsync(2).
    pub fn msync(&self, addr: u64, len: u64, flags: u32) -> Result<(), Errno> {
        let both = MS_ASYNC | MS_SYNC;
        if flags & !(both | MS_INVALIDATE) != 0 || flags & both == both || !addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        // A length too large to be rounded becomes 0 in Linux.
        let len = len.checked_next_multiple_of(PAGE).unwrap_or(0);
        let range = addr..addr.checked_add(len).ok_or(Errno::ENOMEM)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut files = Vec::new();
        let (mut end, mut hole) = (range.start, false);
        {
            let locked = self.lock();
            for (r, vma) in locked.state.vmas.overlapping(range.clone()) {
                let part = intersect(&r, &range);
                hole |= part.start > end;
                end = part.end;
                if flags & MS_INVALIDATE != 0 && vma.has(flag::LOCKED) {
                    return Err(Errno::EBUSY);
                }
                if let Some(file) = vma.file.as_ref().filter(|_| flags & MS_SYNC != 0 && vma.shared) {
                    files.push((file.clone(), vma.offset_of(r.start, part.start), part.end - part.start));
                }
            }
        }
        for (file, offset, len) in files {
            file.sync(offset, len)?;
        }
        if hole || end < range.end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// mincore(2): stores a byte for each page at `vec`, whose lowest bit tells whether the page is in memory.
    ///
    /// # Errors
    /// `EINVAL` for an address that is no page's, `ENOMEM` when a part is not mapped, `EFAULT` when `vec` cannot be stored to.
    pub fn mincore(&self, addr: u64, len: u64, vec: u64) -> Result<(), Errno> {
        if !addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let end =
            addr.checked_add(len).and_then(|end| end.checked_next_multiple_of(PAGE)).ok_or(Errno::ENOMEM)?;
        if end > self.user.end {
            return Err(Errno::ENOMEM);
        }
        let mut at = addr;
        while at < end {
            let step = at..end.min(at + STEP * PAGE);
            let bytes = self.residency(step.clone());
            self.write_bytes(vec.wrapping_add((at - addr) / PAGE), &bytes)?;
            if (bytes.len() as u64) < (step.end - step.start) / PAGE {
                return Err(Errno::ENOMEM);
            }
            at = step.end;
        }
        Ok(())
    }

    /// A byte for each page up to the first hole.
    fn residency(&self, range: std::ops::Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut memory = Vec::new();
        {
            let locked = self.lock();
            let mapped = range.start..locked.mapped_end(&range);
            let index = |at: u64| usize::try_from((at - range.start) / PAGE).unwrap_or(usize::MAX);
            bytes.resize(index(mapped.end.max(range.start)), 0);
            for (r, pma) in locked.state.pmas.overlapping(mapped.clone()) {
                let part = intersect(&r, &mapped);
                match pma.place {
                    Place::Memory(start) => {
                        let start = start + (part.start - r.start);
                        let end = start + (part.end - part.start);
                        memory.push((index(part.start), FileRange { start, end }));
                    }
                    // The host's page cache has what it has; what is shown was there when it was.
                    Place::Host(..) => {
                        bytes.get_mut(index(part.start)..index(part.end)).unwrap_or_default().fill(1);
                    }
                }
            }
        }
        let mut presence = Presence::new(&self.memory_file);
        for (first, run) in memory {
            presence.for_each(run, &mut |part: FileRange| {
                let skip = |at: u64| first + usize::try_from((at - run.start) / PAGE).unwrap_or(0);
                bytes.get_mut(skip(part.start)..skip(part.end)).unwrap_or_default().fill(1);
            });
        }
        bytes
    }
}
