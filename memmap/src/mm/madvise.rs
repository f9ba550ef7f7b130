//! madvise(2).
use std::ops::Range;

use abi::Errno;
use abi::mman::{
    MADV_COLD, MADV_COLLAPSE, MADV_DODUMP, MADV_DOFORK, MADV_DONTDUMP, MADV_DONTFORK, MADV_DONTNEED,
    MADV_DONTNEED_LOCKED, MADV_FREE, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE, MADV_HUGEPAGE, MADV_KEEPONFORK,
    MADV_MERGEABLE, MADV_NOHUGEPAGE, MADV_NORMAL, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
    MADV_RANDOM, MADV_REMOVE, MADV_SEQUENTIAL, MADV_UNMERGEABLE, MADV_WILLNEED, MADV_WIPEONFORK,
};

use super::MemoryManager;
use super::locked::Locked;
use super::pma::intersect;
use super::vma::{Vma, flag};
use crate::PAGE;

/// What one advice does to one mapping.
enum Effect {
    /// Flags to clear, then to set.
    Flags(u32, u32),
    /// The pages go.
    Drop,
    /// The pages go, and accesses raise `SIGSEGV`.
    Guard,
    /// They do so no longer.
    Unguard,
    /// A hint that there is nothing to do about.
    Nothing,
}

fn effect(advice: u32, vma: &Vma) -> Result<Effect, Errno> {
    let special = vma.has(flag::SPECIAL);
    let locked = vma.has(flag::LOCKED);
    let anonymous = vma.file.is_none() && !special;
    let ok = |condition: bool, effect: Effect| if condition { Ok(effect) } else { Err(Errno::EINVAL) };
    let on = |flag: u32| Ok(Effect::Flags(0, flag));
    match advice {
        MADV_NORMAL => Ok(Effect::Flags(flag::RAND_READ | flag::SEQ_READ, 0)),
        MADV_RANDOM => Ok(Effect::Flags(flag::SEQ_READ, flag::RAND_READ)),
        MADV_SEQUENTIAL => Ok(Effect::Flags(flag::RAND_READ, flag::SEQ_READ)),
        MADV_DONTFORK => on(flag::DONT_COPY),
        MADV_DOFORK => ok(!special, Effect::Flags(flag::DONT_COPY, 0)),
        MADV_WIPEONFORK => ok(anonymous && !vma.shared, Effect::Flags(0, flag::WIPE_ON_FORK)),
        MADV_KEEPONFORK => ok(!vma.has(flag::DROPPABLE), Effect::Flags(flag::WIPE_ON_FORK, 0)),
        MADV_DONTDUMP => on(flag::DONT_DUMP),
        MADV_DODUMP => ok(!special && !vma.has(flag::DROPPABLE), Effect::Flags(flag::DONT_DUMP, 0)),
        MADV_MERGEABLE => on(flag::MERGEABLE),
        MADV_UNMERGEABLE => Ok(Effect::Flags(flag::MERGEABLE, 0)),
        MADV_HUGEPAGE => Ok(Effect::Flags(flag::NO_HUGE_PAGE, flag::HUGE_PAGE)),
        MADV_NOHUGEPAGE => Ok(Effect::Flags(flag::HUGE_PAGE, flag::NO_HUGE_PAGE)),
        // Nothing is read ahead or swapped by the sentry: the host's page cache does that for its files.
        MADV_WILLNEED => Ok(Effect::Nothing),
        MADV_COLD | MADV_PAGEOUT => ok(!locked && !special, Effect::Nothing),
        MADV_DONTNEED => ok(!locked && !special, Effect::Drop),
        MADV_DONTNEED_LOCKED => ok(!special, Effect::Drop),
        // The contents may go at any time, so they may go now.
        MADV_FREE => ok(!locked && anonymous, Effect::Drop),
        MADV_GUARD_INSTALL => ok(!locked && !special, Effect::Guard),
        MADV_GUARD_REMOVE => ok(!special, Effect::Unguard),
        // Huge pages cannot be made here, as on a Linux without them.
        MADV_COLLAPSE => Err(Errno::EINVAL),
        _ => Err(Errno::EINVAL),
    }
}

const fn is_known(advice: u32) -> bool {
    matches!(
        advice,
        MADV_NORMAL..=MADV_DONTNEED
            | MADV_FREE..=MADV_COLLAPSE
            | MADV_GUARD_INSTALL
            | MADV_GUARD_REMOVE
    )
}

impl MemoryManager {
    /// madvise(2).
    ///
    /// # Errors
    /// `EINVAL` for unknown advice, an address that is not a page's, a range that wraps, and what the advice cannot be given
    /// for; `ENOMEM` when a part is not mapped (the rest was advised); `EACCES` and `EOPNOTSUPP` by `MADV_REMOVE`; `EFAULT`
    /// when `MADV_POPULATE_*` meets the end of a file.
    pub fn madvise(&self, addr: u64, len: u64, advice: u32) -> Result<(), Errno> {
        if !is_known(advice) || !addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let len = len.checked_next_multiple_of(PAGE).ok_or(Errno::EINVAL)?;
        let range = addr..addr.checked_add(len).ok_or(Errno::EINVAL)?;
        match advice {
            _ if range.is_empty() => Ok(()),
            MADV_REMOVE => self.remove(range),
            MADV_POPULATE_READ => self.populate_as_told(range, false),
            MADV_POPULATE_WRITE => self.populate_as_told(range, true),
            _ => self.lock().advise(&range, advice),
        }
    }

    /// `MADV_REMOVE`: punches a hole into the files that are mapped.
    fn remove(&self, range: Range<u64>) -> Result<(), Errno> {
        let mut files = Vec::new();
        let mut hole = false;
        {
            let locked = self.lock();
            let mut end = range.start;
            for (r, vma) in locked.state.vmas.overlapping(range.clone()) {
                let part = intersect(&r, &range);
                hole |= part.start > end;
                end = part.end;
                let file = vma.file.clone().filter(|_| !vma.has(flag::LOCKED)).ok_or(Errno::EINVAL);
                let file = file.and_then(|f| {
                    if vma.shared && vma.has(flag::MAY_WRITE) { Ok(f) } else { Err(Errno::EACCES) }
                });
                let stop = file.is_err();
                files.push(file.map(|f| (f, vma.offset_of(r.start, part.start), part.end - part.start)));
                if stop {
                    break;
                }
            }
            hole |= end < range.end;
        }
        // The files take their own locks, and come back to take the pages away.
        for file in files {
            let (file, offset, len) = file?;
            file.punch_hole(offset, len)?;
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// `MADV_POPULATE_READ` and `MADV_POPULATE_WRITE`.
    fn populate_as_told(&self, range: Range<u64>, write: bool) -> Result<(), Errno> {
        let mut at = range.start;
        while at < range.end {
            at = self.lock().populate_step(at..range.end, Some(write))?;
        }
        Ok(())
    }
}

impl Locked<'_> {
    fn advise(&mut self, range: &Range<u64>, advice: u32) -> Result<(), Errno> {
        let parts: Vec<(Range<u64>, Vma)> = self
            .state
            .vmas
            .overlapping(range.clone())
            .map(|(r, vma)| (intersect(&r, range), vma.clone()))
            .collect();
        let mut end = range.start;
        let mut hole = false;
        for (part, vma) in parts {
            hole |= part.start > end;
            end = part.end;
            let effect = effect(advice, &vma);
            self.garbage.add_vma(vma);
            match effect? {
                Effect::Flags(clear, set) => self.change_vmas(part, |vma| {
                    vma.set(clear, false);
                    vma.set(set, true);
                }),
                Effect::Drop => self.drop_pmas(part),
                Effect::Guard => {
                    self.drop_pmas(part.clone());
                    self.set_guard(&part, true);
                }
                Effect::Unguard => self.set_guard(&part, false),
                Effect::Nothing => {}
            }
        }
        if hole || end < range.end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Makes accesses to `range` raise signals whatever the mapping allows, or no longer.
    pub(super) fn set_guard(&mut self, range: &Range<u64>, on: bool) {
        let guards = &mut self.state.guards;
        guards.remove_range(range.clone(), |(), _| ());
        if on && guards.insert(range.clone(), ()).is_ok() {
            guards.merge_range(range.clone(), |(), _, ()| true);
        }
    }
}
