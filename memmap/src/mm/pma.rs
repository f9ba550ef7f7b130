//! Which pages back a mapping, and how the guest's address space shows them.
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use abi::Errno;
use platform::{Access, Change, PlatformError};

use super::locked::Locked;
use crate::{FileRange, HostMemory};

/// Where a run of pages is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the memory file, from this offset. One reference is held to each page.
    Memory(u64),
    /// In a host file, from this offset.
    Host(Arc<HostMemory>, u64),
}

/// A run of pages, and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Pma {
    /// Where the first page is.
    pub place: Place,
    /// The pages are this address space's (and, before they are copied on write, those of its relatives) and no file's.
    pub private: bool,
    /// Stores may go to these pages. Else the run is copied, or the file is asked, before the first store.
    pub writable: bool,
    /// How the address space shows the run now.
    pub shown: Access,
}

impl Pma {
    pub(super) fn split(&mut self, offset: u64) -> Self {
        let mut upper = self.clone();
        match &mut upper.place {
            Place::Memory(start) | Place::Host(_, start) => *start += offset,
        }
        upper
    }

    pub(super) fn merges(&self, len: u64, upper: &Self) -> bool {
        let adjacent = match (&self.place, &upper.place) {
            (Place::Memory(a), Place::Memory(b)) => a + len == *b,
            (Place::Host(f, a), Place::Host(g, b)) => Arc::ptr_eq(f, g) && a + len == *b,
            _ => false,
        };
        adjacent
            && self.private == upper.private
            && self.writable == upper.writable
            && self.shown == upper.shown
    }

    /// The references that a run of this length holds.
    pub(super) fn references(&self, len: u64) -> Option<FileRange> {
        match self.place {
            Place::Memory(start) => Some(FileRange { start, end: start + len }),
            Place::Host(..) => None,
        }
    }
}

/// The size of the steps in which memory is taken and shown ahead of need.
pub(super) const AHEAD: u64 = 2 << 20;
/// Runs up to this length get page-table entries when they are shown.
const SHORT: u64 = 16 << 10;

/// The part of `range` that is in one aligned step of `size` (a power of two) with `at`.
pub(super) fn around(at: u64, size: u64, range: &Range<u64>) -> Range<u64> {
    let start = at & !(size - 1);
    start.max(range.start)..start.saturating_add(size).min(range.end)
}

pub(super) fn intersect(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Tells whether what was to be unmapped is no longer shown.
pub(super) const fn is_hidden(unmapped: &Result<(), PlatformError>) -> bool {
    // With the process that held it, the address space is gone.
    matches!(unmapped, Ok(()) | Err(PlatformError::StubDied { .. }))
}

impl Locked<'_> {
    /// Adds pages where there are none.
    pub(super) fn add_pma(&mut self, range: Range<u64>, pma: Pma) {
        let refused = self.state.pmas.insert(range.clone(), pma);
        debug_assert!(refused.is_ok(), "pages are added to holes only");
        if let Err(pma) = refused {
            self.garbage.add_pma(&range, pma);
        } else {
            self.merge_pmas(range);
        }
    }

    pub(super) fn merge_pmas(&mut self, range: Range<u64>) {
        self.state.pmas.merge_range(range, |lower, len, upper| lower.merges(len, upper));
    }

    /// Takes pages away, after the guest can no longer reach them.
    pub(super) fn drop_pmas(&mut self, range: Range<u64>) {
        self.forget_patches(&range);
        let gone = self.state.pmas.remove_range(range, Pma::split);
        let shown = gone.iter().filter(|(_, p)| p.shown != Access::NONE).map(|(r, _)| r.clone());
        let hull = shown.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
        let hidden = hull.is_none_or(|hull| self.hide(hull));
        for (range, pma) in gone {
            if hidden {
                self.garbage.add_pma(&range, pma);
            } else {
                self.garbage.keep(pma);
            }
        }
    }

    /// Replaces the pages in `range`, which the guest may still reach until the caller shows the new ones.
    pub(super) fn replace_pmas(&mut self, range: Range<u64>, pma: Pma) {
        for (range, old) in self.state.pmas.remove_range(range.clone(), Pma::split) {
            self.garbage.add_pma(&range, old);
        }
        self.add_pma(range, pma);
    }

    /// Makes the guest's address space show nothing in `range`; false if that failed, and the pages there must not get
    /// another use.
    pub(super) fn hide(&mut self, range: Range<u64>) -> bool {
        let hidden = is_hidden(&self.mm.space.unmap(range.start, range.end - range.start));
        self.state.broken |= !hidden;
        self.state.generation += 1;
        hidden
    }

    /// Shows the guest the page at `at`, which is there, with as many around it as one call can show. With `again`, also
    /// what is shown already.
    pub(super) fn show(&mut self, at: u64, again: bool) -> Result<(), Errno> {
        let Some((in_vma, vma)) = self.state.vmas.get(at) else { return Err(Errno::EFAULT) };
        let Some((in_pma, pma)) = self.state.pmas.get(at) else { return Err(Errno::EFAULT) };
        let access = vma.access_to(pma);
        let range = around(at, AHEAD, &intersect(&in_vma, &in_pma));
        let shown = pma.shown;
        if access == Access::NONE || (shown == access && !again) {
            return Ok(());
        }
        self.state.pmas.split_at(range.start, Pma::split);
        self.state.pmas.split_at(range.end, Pma::split);
        let len = range.end - range.start;
        let Some((_, pma)) = self.state.pmas.get_mut(at) else { return Err(Errno::EFAULT) };
        let (space, file) = (&self.mm.space, &self.mm.memory_file);
        let done = match &pma.place {
            _ if shown != Access::NONE && !again => space.protect(range.start, len, access),
            // A short run is touched at once and mostly there; of a long one the pages may never be needed.
            Place::Memory(offset) => space.map(range.start, len, file.fd(), *offset, access, len <= SHORT),
            Place::Host(host, offset) => space.map(range.start, len, host.fd.as_fd(), *offset, access, false),
        };
        let result = match done {
            Ok(()) => {
                pma.shown = access;
                // Showing again what was shown is no change.
                self.state.generation += u64::from(!again);
                Ok(())
            }
            Err(_host) => {
                pma.shown = Access::NONE;
                self.hide(range.clone());
                Err(Errno::ENOMEM)
            }
        };
        self.merge_pmas(range);
        result
    }

    /// Shows the guest what is there in `range` and not shown yet, up to so many runs: what is executed first, then what may
    /// be stored to, and of both the last first. Showing is a bonus here: what fails is shown by faults.
    pub(super) fn show_ahead(&mut self, range: Range<u64>, most: usize) {
        let state = &mut *self.state;
        let mut runs: Vec<(Range<u64>, Access)> = Vec::new();
        for (in_vma, vma) in state.vmas.overlapping(range) {
            let found = state.pmas.overlapping(in_vma.clone()).filter(|(_, pma)| pma.shown == Access::NONE);
            let shown = found.map(|(run, pma)| (intersect(&run, &in_vma), vma.access_to(pma)));
            runs.extend(shown.filter(|(_, access)| *access != Access::NONE));
        }
        runs.sort_by_key(|(run, access)| (!access.execute, !access.write, std::cmp::Reverse(run.start)));
        runs.truncate(most);
        for (run, _) in &runs {
            state.pmas.split_at(run.start, Pma::split);
            state.pmas.split_at(run.end, Pma::split);
        }
        let memory = &self.mm.memory_file;
        let mut maps = Vec::with_capacity(runs.len());
        for (run, access) in &runs {
            let Some((_, pma)) = state.pmas.get(run.start) else { continue };
            let (file, offset) = match &pma.place {
                Place::Memory(offset) => (memory.fd(), *offset),
                Place::Host(host, offset) => (host.fd.as_fd(), *offset),
            };
            maps.push(Change::Map {
                addr: run.start,
                len: run.end - run.start,
                file,
                offset,
                access: *access,
            });
        }
        let done = self.mm.space.apply(&maps).is_ok();
        drop(maps);
        self.state.generation += 1;
        for (run, access) in runs {
            if let Some((_, pma)) = self.state.pmas.get_mut(run.start).filter(|_| done) {
                pma.shown = access;
            }
            if !done {
                self.hide(run.clone());
            }
            self.merge_pmas(run);
        }
    }

    /// Makes the address space allow, in `range`, no more than the mappings there do; and no less, where it shows
    /// something.
    pub(super) fn update_shown(&mut self, range: Range<u64>) {
        self.state.pmas.split_at(range.start, Pma::split);
        self.state.pmas.split_at(range.end, Pma::split);
        let mut changes: Vec<(Range<u64>, Access)> = Vec::new();
        let state = &mut *self.state;
        for (in_vma, vma) in state.vmas.overlapping(range.clone()) {
            let part = intersect(&in_vma, &range);
            for at in [part.start, part.end] {
                state.pmas.split_at(at, Pma::split);
            }
            for (run, pma) in state.pmas.overlapping_mut(part) {
                let access = vma.access_to(pma);
                if pma.shown == Access::NONE || pma.shown == access {
                    continue;
                }
                pma.shown = access;
                match changes.last_mut().filter(|(last, a)| last.end == run.start && *a == access) {
                    Some((last, _)) => last.end = run.end,
                    None => changes.push((run, access)),
                }
            }
        }
        self.state.generation += u64::from(!changes.is_empty());
        let protects: Vec<Change<'_>> = changes
            .iter()
            .filter(|(_, access)| *access != Access::NONE)
            .map(|(run, access)| Change::Protect {
                addr: run.start,
                len: run.end - run.start,
                access: *access,
            })
            .collect();
        let protected = self.mm.space.apply(&protects).is_ok();
        for (run, access) in changes {
            if access == Access::NONE || !protected {
                self.hide(run.clone());
                for (_, pma) in self.state.pmas.overlapping_mut(run) {
                    pma.shown = Access::NONE;
                }
            }
        }
        self.merge_pmas(range);
    }
}
