//! The copy of an address space that fork(2) makes.
use std::ops::Range;
use std::sync::Arc;

use abi::Errno;
use platform::Access;

use super::MemoryManager;
use super::locked::{Locked, key};
use super::pma::{Place, Pma, intersect};
use super::vma::{Vma, flag};
use crate::{FileRange, MemoryFile, PAGE};

/// How many runs of pages a child is shown before it runs: as many as one request of a back end holds.
const AHEAD_RUNS: usize = 60;

impl MemoryManager {
    /// Makes a copy, as fork(2) does: private pages are shared until one side stores to them. The copy's address space
    /// shows some of what ours does, for loads, and fills by faults.
    ///
    /// # Errors
    /// `ENOMEM` when the platform has no address space to give.
    pub fn fork(&self) -> Result<Arc<Self>, Errno> {
        let (file, platform) = (Arc::clone(&self.memory_file), Arc::clone(&self.platform));
        let child = Self::with_bases(file, platform, self.bases.clone())?;
        {
            let mut from = self.lock();
            if from.state.released || from.state.broken {
                return Err(Errno::ENOMEM);
            }
            let mut to = Locked::new(&child, child.state.write_nested());
            from.copy_to(&mut to);
        }
        Ok(child)
    }
}

impl Locked<'_> {
    fn copy_to(&mut self, child: &mut Locked<'_>) {
        child.state.layout = self.state.layout;
        child.state.auxv.clone_from(&self.state.auxv);
        child.state.stack_limit = self.state.stack_limit;
        self.state.hot.begin();
        child.state.hot = self.state.hot.clone();
        let vmas: Vec<(Range<u64>, Vma)> = self.state.vmas.iter().map(|(r, vma)| (r, vma.clone())).collect();
        for (range, mut vma) in vmas {
            if vma.has(flag::DONT_COPY) {
                continue;
            }
            // mlock(2): locks are not inherited.
            vma.set(flag::LOCKED | flag::LOCK_ON_FAULT, false);
            if let Some(file) = &vma.file {
                file.add_mapping(key(&child.mm.weak, &range, &vma));
            }
            // A file's pages are found again through the file.
            if !vma.shared && !vma.has(flag::WIPE_ON_FORK) {
                self.share_pages(&range, child);
                let guards = self.state.guards.overlapping(range.clone());
                let guards: Vec<_> = guards.map(|(r, ())| intersect(&r, &range)).collect();
                for guard in guards {
                    child.set_guard(&guard, true);
                }
            }
            child.put_vma(range, vma);
        }
        self.copy_trampolines(child);
        self.update_shown(0..u64::MAX);
        child.show_ahead(0..u64::MAX, AHEAD_RUNS);
    }

    /// Shares the private pages of a mapping; those that are stored to after each fork are copied.
    fn share_pages(&mut self, range: &Range<u64>, child: &mut Locked<'_>) {
        let hot = self.state.hot.within(range);
        for at in hot.iter().flat_map(|page| [*page, page + PAGE]).chain([range.start, range.end]) {
            self.state.pmas.split_at(at, Pma::split);
        }
        for (run, pma) in self.state.pmas.overlapping_mut(range.clone()) {
            let run = intersect(&run, range);
            if !pma.private && matches!(pma.place, Place::Host(..)) && pma.shown != Access::NONE {
                child.add_pma(run, Pma { shown: Access::NONE, ..pma.clone() });
                continue;
            }
            let Some(pages) = pma.references(run.end - run.start).filter(|_| pma.private) else { continue };
            if hot.contains(&run.start)
                && let Some(copy) = copy_page(&self.mm.memory_file, pages)
            {
                let place = Place::Memory(copy.start);
                child.add_pma(run, Pma { place, private: true, writable: true, shown: Access::NONE });
                continue;
            }
            self.mm.memory_file.inc_ref(pages);
            pma.writable = false;
            child.add_pma(run, Pma { shown: Access::NONE, ..pma.clone() });
        }
    }
}

/// A copy of a page of the memory file, if there is room.
fn copy_page(file: &MemoryFile, page: FileRange) -> Option<FileRange> {
    let copy = file.allocate_to_fill(page.len()).ok()?;
    file.copy(page.start, copy.start, page.len());
    Some(copy)
}
