//! mremap(2).
use std::ops::Range;

use abi::Errno;
use abi::mman::{MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE};
use platform::Access;

use super::MemoryManager;
use super::locked::{Locked, MAX_MAP_COUNT};
use super::pma::{Pma, intersect};
use super::types::MmLimits;
use super::vma::{Vma, flag};
use crate::PAGE;

/// The arguments of mremap(2).
#[derive(Clone, Copy, Debug)]
struct MremapArgs {
    addr: u64,
    old_len: u64,
    new_len: u64,
    flags: u32,
    new_addr: u64,
    limits: MmLimits,
}

impl MremapArgs {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Checks what can be checked without the mappings, and rounds the lengths.
    fn check(mut self, user: &Range<u64>) -> Result<Self, Errno> {
        let known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
        if self.flags & !known != 0 || !self.addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        // A length too large to be rounded becomes 0 in Linux.
        self.old_len = self.old_len.checked_next_multiple_of(PAGE).unwrap_or(0);
        self.new_len = self.new_len.checked_next_multiple_of(PAGE).unwrap_or(0);
        if self.new_len == 0 || self.new_len > user.end {
            return Err(Errno::EINVAL);
        }
        if !self.has(MREMAP_FIXED | MREMAP_DONTUNMAP) {
            return Ok(self);
        }
        if !self.has(MREMAP_MAYMOVE) || (self.has(MREMAP_DONTUNMAP) && self.old_len != self.new_len) {
            return Err(Errno::EINVAL);
        }
        if self.has(MREMAP_FIXED) {
            let at = self.new_addr;
            let new = at.checked_add(self.new_len).filter(|end| *end <= user.end).map(|end| at..end);
            let new = new.filter(|_| at.is_multiple_of(PAGE)).ok_or(Errno::EINVAL)?;
            let old = self.addr..self.addr.saturating_add(self.old_len);
            if old.start < new.end && new.start < old.end {
                return Err(Errno::EINVAL);
            }
        }
        Ok(self)
    }
}

impl MemoryManager {
    /// mremap(2): gives the new address. `new_addr` matters with `MREMAP_FIXED`; an `old_len` of 0 makes a second mapping
    /// of shared memory.
    ///
    /// # Errors
    /// `EINVAL` for unknown flags, addresses that are no page's, a new length of 0, overlapping places, and a second mapping
    /// of private memory; `EFAULT` when not all of the old range is one mapping; `ENOMEM` when it cannot grow in place
    /// and may not move, and beyond a limit; `EAGAIN` when too much would be locked; `EPERM` below `mmap_min_addr`.
    pub fn mremap(
        &self,
        addr: u64,
        old_len: u64,
        new_len: u64,
        flags: u32,
        new_addr: u64,
        limits: MmLimits,
    ) -> Result<u64, Errno> {
        let args = MremapArgs { addr, old_len, new_len, flags, new_addr, limits }.check(&self.user)?;
        let (addr, grown) = self.lock().mremap(&args)?;
        if let Some(range) = grown {
            // As with mmap(2), failing to populate locked memory is no error.
            let _failed = self.populate(range);
        }
        Ok(addr)
    }
}

impl Locked<'_> {
    /// Gives the new address, and what was added if that is to be populated.
    fn mremap(&mut self, args: &MremapArgs) -> Result<(u64, Option<Range<u64>>), Errno> {
        if !args.has(MREMAP_FIXED) || args.old_len != args.new_len {
            return self.mremap_one(args);
        }
        // A mere move may, since Linux 6.17, be of several mappings, with the holes between them.
        let old = args.addr..args.addr.saturating_add(args.old_len);
        let parts = self.state.vmas.overlapping(old.clone()).map(|(r, _)| intersect(&r, &old));
        let parts: Vec<Range<u64>> = parts.collect();
        if parts.first().is_none_or(|first| first.start > old.start) {
            return Err(Errno::EFAULT);
        }
        for part in parts {
            let len = part.end - part.start;
            let new_addr = args.new_addr + (part.start - old.start);
            self.mremap_one(&MremapArgs { addr: part.start, old_len: len, new_len: len, new_addr, ..*args })?;
        }
        Ok((args.new_addr, None))
    }

    fn mremap_one(&mut self, args: &MremapArgs) -> Result<(u64, Option<Range<u64>>), Errno> {
        let (in_vma, vma) = self.state.vmas.get(args.addr).ok_or(Errno::EFAULT)?;
        let vma = vma.clone();
        if self.state.vmas.len() + 2 > MAX_MAP_COUNT - 3 {
            return Err(Errno::ENOMEM);
        }
        if args.old_len == 0 && !vma.shared {
            return Err(Errno::EINVAL);
        }
        let old = args.addr..args.addr.saturating_add(args.old_len);
        if !args.has(MREMAP_FIXED | MREMAP_DONTUNMAP) {
            if args.new_len <= args.old_len {
                // Shrinking in place may reach over several mappings.
                let end = old.end.min(self.mm.user.end);
                self.drop_vmas((args.addr + args.new_len).min(end)..end);
                return Ok((args.addr, None));
            }
            self.check_growth(args, &in_vma, &vma)?;
            if old.end == in_vma.end && self.grow_in_place(args, &in_vma)? {
                let grown = old.end..args.addr + args.new_len;
                return Ok((args.addr, Some(grown).filter(|_| vma.has(flag::LOCKED))));
            }
            if !args.has(MREMAP_MAYMOVE) {
                return Err(Errno::ENOMEM);
            }
        } else {
            let kept = MremapArgs { old_len: args.old_len.min(args.new_len), ..*args };
            self.check_growth(&kept, &in_vma, &vma)?;
        }
        self.move_mapping(args)
    }

    fn check_growth(&self, args: &MremapArgs, in_vma: &Range<u64>, vma: &Vma) -> Result<(), Errno> {
        if args.old_len > in_vma.end - args.addr || vma.has(flag::SPECIAL) {
            return Err(Errno::EFAULT);
        }
        if args.new_len <= args.old_len && !args.has(MREMAP_DONTUNMAP) {
            return Ok(());
        }
        let more = if args.has(MREMAP_DONTUNMAP) { args.new_len } else { args.new_len - args.old_len };
        if vma.offset_of(in_vma.start, args.addr).checked_add(args.new_len).is_none() {
            return Err(Errno::EINVAL);
        }
        if vma.has(flag::LOCKED) && self.state.locked.saturating_add(more) > args.limits.memlock {
            return Err(Errno::EAGAIN);
        }
        self.may_expand(more, vma.is_data(), &args.limits)?;
        if vma.has(flag::ACCOUNT) { self.may_commit(more) } else { Ok(()) }
    }

    /// Adds to the end of the mapping, if the place there is free.
    fn grow_in_place(&mut self, args: &MremapArgs, in_vma: &Range<u64>) -> Result<bool, Errno> {
        let end = args.addr.checked_add(args.new_len).filter(|end| *end <= self.mm.user.end);
        let Some(more) = end.map(|end| in_vma.end..end).filter(|m| self.state.vmas.is_free(m.clone())) else {
            return Ok(false);
        };
        let (_, vma) = self.state.vmas.get(args.addr).ok_or(Errno::EFAULT)?;
        let mut vma = vma.clone();
        vma.offset = vma.offset_of(in_vma.start, in_vma.end);
        self.add_vma(more, vma);
        Ok(true)
    }

    fn move_mapping(&mut self, args: &MremapArgs) -> Result<(u64, Option<Range<u64>>), Errno> {
        let new = if args.has(MREMAP_FIXED) {
            if args.new_addr < self.mm.user.start {
                return Err(Errno::EPERM);
            }
            let new = args.new_addr..args.new_addr + args.new_len;
            self.drop_vmas(new.clone());
            new
        } else {
            self.free_place(args.new_len, false)?
        };
        // What is to be moved, without what is cut off by a smaller length.
        let kept = args.addr..args.addr + args.old_len.min(args.new_len);
        // A patch holds for its place only.
        self.unpatch_range(&kept);
        if args.old_len > args.new_len {
            self.drop_vmas(kept.end..args.addr + args.old_len);
        }
        let (in_vma, vma) = self.state.vmas.get(args.addr).ok_or(Errno::EFAULT)?;
        let mut vma = vma.clone();
        // Linux keeps the offset of anonymous memory that was ever stored to, which decides what merges.
        vma.offset = if vma.file.is_some() || vma.anon != 0 {
            vma.offset_of(in_vma.start, args.addr)
        } else {
            new.start
        };
        let locked = vma.has(flag::LOCKED);
        self.move_pages(&kept, new.start);
        let guards: Vec<_> =
            self.state.guards.overlapping(kept.clone()).map(|(r, ())| intersect(&r, &kept)).collect();
        for guard in guards {
            let to = |at: u64| new.start + (at - kept.start);
            self.set_guard(&(to(guard.start)..to(guard.end)), true);
        }
        if args.has(MREMAP_DONTUNMAP) {
            // Linux unlocks the whole mapping, not just what was moved, and merges nothing.
            for (range, mut vma) in self.take_vmas(in_vma) {
                vma.set(flag::LOCKED | flag::LOCK_ON_FAULT, false);
                self.put_vma(range, vma);
            }
        } else if !kept.is_empty() {
            self.drop_vmas(kept.clone());
        }
        self.add_vma(new.clone(), vma);
        Ok((new.start, Some(new).filter(|_| locked)))
    }

    /// Moves pages to an address where nothing is.
    fn move_pages(&mut self, from: &Range<u64>, to: u64) {
        if from.is_empty() {
            return;
        }
        let runs = self.state.pmas.remove_range(from.clone(), Pma::split);
        let hidden = runs.iter().all(|(_, p)| p.shown == Access::NONE) || self.hide(from.clone());
        for (run, mut pma) in runs {
            let run = intersect(&run, from);
            if !hidden {
                self.garbage.keep(pma);
                continue;
            }
            pma.shown = Access::NONE;
            self.add_pma(to + (run.start - from.start)..to + (run.end - from.start), pma);
        }
    }
}
