//! A memory manager's state, and what holding its lock takes.
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::thread::ThreadId;

use abi::Errno;
use sync::{RangeMap, RwLockWriteGuard};

use super::MemoryManager;
use super::hot::HotPages;
use super::patch::Area;
use super::pma::{Place, Pma, intersect};
use super::types::{MmLayout, MmLimits};
use super::vma::{Vma, flag};
use crate::{FileRange, MappingKey, MemoryFile};

/// Linux `DEFAULT_MAX_MAP_COUNT`.
pub(super) const MAX_MAP_COUNT: usize = 65_530;

/// The last faults that found their pages shown already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spurious {
    /// The page of the last.
    pub page: u64,
    /// Who it was.
    pub thread: Option<ThreadId>,
    /// [`State::generation`] then.
    pub generation: u64,
    /// How many there were of the same page and thread since.
    pub count: u32,
    /// How many there were in a row, of any.
    pub streak: u32,
}

/// What the lock of a memory manager protects.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What the guest asked for.
    pub vmas: RangeMap<Vma>,
    /// What backs it; every run is within mappings, yet may reach over several.
    pub pmas: RangeMap<Pma>,
    pub layout: MmLayout,
    pub auxv: Vec<u64>,
    /// `RLIMIT_STACK`.
    pub stack_limit: u64,
    /// The flags that new mappings get by `mlockall(MCL_FUTURE)`.
    pub lock_future: u32,
    /// Bytes of all mappings.
    pub total: u64,
    /// The most there ever were.
    pub peak: u64,
    /// The most bytes of memory that were ever seen present.
    pub peak_rss: u64,
    /// Bytes of locked mappings.
    pub locked: u64,
    /// Bytes that count towards `RLIMIT_DATA`.
    pub data: u64,
    /// The last [`Vma::anon`] given.
    pub last_anon: u64,
    /// What `MADV_GUARD_INSTALL` guards; there are no pages there.
    pub guards: RangeMap<()>,
    /// Where patched system calls go.
    pub trampolines: Vec<Area>,
    pub spurious: Spurious,
    /// Grows by each change of what the address space shows.
    pub generation: u64,
    /// Where the last copy on write ended, and how long it was.
    pub last_copy: (u64, u64),
    /// Pages to copy at the next fork.
    pub hot: HotPages,
    /// The address space shows what it should not: the guest must not run on.
    pub broken: bool,
    /// All is gone for good.
    pub released: bool,
}

/// What is let go of once the lock is free: dropping a file may take its locks, and freeing memory calls the host.
#[derive(Debug)]
pub(super) struct Garbage {
    file: Arc<MemoryFile>,
    ranges: Vec<FileRange>,
    pmas: Vec<Pma>,
    vmas: Vec<Vma>,
}

impl Garbage {
    pub(super) fn new(file: Arc<MemoryFile>) -> Self {
        Self { file, ranges: Vec::new(), pmas: Vec::new(), vmas: Vec::new() }
    }
    pub(super) fn add_pma(&mut self, range: &Range<u64>, pma: Pma) {
        match pma.references(range.end - range.start) {
            Some(r) => match self.ranges.last_mut().filter(|last| last.end == r.start) {
                Some(last) => last.end = r.end,
                None => self.ranges.push(r),
            },
            None => self.pmas.push(pma),
        }
    }
    /// Drops what is not a page of the memory file; those stay in use for ever.
    pub(super) fn keep(&mut self, pma: Pma) {
        if matches!(pma.place, Place::Host(..)) {
            self.pmas.push(pma);
        }
    }
    pub(super) fn add_range(&mut self, range: FileRange) {
        self.ranges.push(range);
    }
    pub(super) fn add_vma(&mut self, vma: Vma) {
        if vma.file.is_some() {
            self.vmas.push(vma);
        }
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        for range in self.ranges.drain(..) {
            self.file.dec_ref(range);
        }
    }
}

/// What a mapping's file knows it by.
pub(super) fn key(mm: &Weak<MemoryManager>, range: &Range<u64>, vma: &Vma) -> MappingKey {
    MappingKey {
        mm: mm.clone(),
        addr: range.start,
        len: range.end - range.start,
        offset: vma.offset,
        writable: vma.shared && vma.has(flag::MAY_WRITE),
    }
}

/// A memory manager whose lock is held. The fields' order is that in which they go: the lock before the garbage.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    pub mm: &'a MemoryManager,
    pub state: RwLockWriteGuard<'a, State>,
    pub garbage: Garbage,
}

impl<'a> Locked<'a> {
    pub(super) fn new(mm: &'a MemoryManager, state: RwLockWriteGuard<'a, State>) -> Self {
        Self { mm, state, garbage: Garbage::new(Arc::clone(&mm.memory_file)) }
    }

    fn account(&mut self, len: u64, vma: &Vma, add: bool) {
        let state = &mut *self.state;
        let change =
            |sum: &mut u64| *sum = if add { sum.saturating_add(len) } else { sum.saturating_sub(len) };
        change(&mut state.total);
        if vma.has(flag::LOCKED) {
            change(&mut state.locked);
        }
        if vma.is_data() {
            change(&mut state.data);
        }
        state.peak = state.peak.max(state.total);
    }

    pub(super) fn key(&self, range: &Range<u64>, vma: &Vma) -> MappingKey {
        key(&self.mm.weak, range, vma)
    }

    /// Adds a mapping where there is none; does not merge.
    pub(super) fn put_vma(&mut self, range: Range<u64>, vma: Vma) {
        self.evict_trampolines(&range);
        self.account(range.end - range.start, &vma, true);
        let refused = self.state.vmas.insert(range, vma);
        debug_assert!(refused.is_ok(), "mappings are added to holes only");
    }

    /// Notes that the private mapping at `at` is about to be stored to, Linux `__anon_vma_prepare`.
    pub(super) fn note_store(&mut self, at: u64) {
        let Some((range, vma)) = self.state.vmas.get(at) else { return };
        if vma.anon != 0 || vma.shared {
            return;
        }
        // What may merge one day, but for its protections now, has one in common.
        let flags = |vma: &Vma| vma.flags & !flag::ACCOUNT;
        let alike = |low: &Vma, len: u64, up: &Vma| low.adjoins(len, up) && flags(low) == flags(up);
        let above = self.state.vmas.get(range.end).filter(|(_, up)| alike(vma, range.end - range.start, up));
        let below = self
            .state
            .vmas
            .before(range.start)
            .filter(|(r, low)| r.end == range.start && alike(low, r.end - r.start, vma));
        let shared = [above, below].into_iter().flatten().map(|(_, vma)| vma.anon).find(|anon| *anon != 0);
        let anon = shared.unwrap_or(self.state.last_anon + 1);
        self.state.last_anon = self.state.last_anon.max(anon);
        if let Some((_, vma)) = self.state.vmas.get_mut(at) {
            vma.anon = anon;
        }
    }

    /// Takes mappings out, split at the ends of `range`, to be put back changed or dropped.
    pub(super) fn take_vmas(&mut self, range: Range<u64>) -> Vec<(Range<u64>, Vma)> {
        let taken = self.state.vmas.remove_range(range, Vma::split);
        for (range, vma) in &taken {
            self.account(range.end - range.start, vma, false);
        }
        taken
    }

    pub(super) fn merge_vmas(&mut self, range: Range<u64>) {
        self.state.vmas.merge_range(range, Vma::merge);
    }

    /// Adds a new mapping, tells its file, and merges it with its neighbours.
    pub(super) fn add_vma(&mut self, range: Range<u64>, vma: Vma) {
        if let Some(file) = &vma.file {
            file.add_mapping(self.key(&range, &vma));
        }
        self.put_vma(range.clone(), vma);
        self.merge_vmas(range);
    }

    /// Takes mappings and their pages away for good.
    pub(super) fn drop_vmas(&mut self, range: Range<u64>) {
        self.drop_pmas(range.clone());
        self.set_guard(&range, false);
        for (range, vma) in self.take_vmas(range) {
            if let Some(file) = &vma.file {
                file.remove_mapping(&self.key(&range, &vma));
            }
            self.garbage.add_vma(vma);
        }
    }

    /// Takes the pages in `range` away that are a file's.
    pub(super) fn drop_file_pages(&mut self, range: Range<u64>) {
        let runs = self.state.pmas.overlapping(range.clone());
        let runs: Vec<_> = runs.filter(|(_, p)| !p.private).map(|(r, _)| intersect(&r, &range)).collect();
        for run in runs {
            self.drop_pmas(run);
        }
    }

    /// Changes mappings in `range` by `change`, and merges what has become equal.
    pub(super) fn change_vmas(&mut self, range: Range<u64>, mut change: impl FnMut(&mut Vma)) {
        for (part, mut vma) in self.take_vmas(range.clone()) {
            change(&mut vma);
            self.put_vma(part, vma);
        }
        self.merge_vmas(range);
    }

    /// How many mappings there would be more if `range` were cut out of them.
    pub(super) fn splits(&self, range: &Range<u64>) -> usize {
        let inside = |at: u64| self.state.vmas.get(at).is_some_and(|(r, _)| r.start < at);
        usize::from(inside(range.start)) + usize::from(inside(range.end))
    }

    /// Linux `__vm_enough_memory` with `vm.overcommit_memory` = 0: what could never be had at all is refused.
    pub(super) fn may_commit(&self, len: u64) -> Result<(), Errno> {
        if len > self.mm.memory_file.total() { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Linux `may_expand_vm`.
    pub(super) fn may_expand(&self, len: u64, data: bool, limits: &MmLimits) -> Result<(), Errno> {
        let fits = |used: u64, limit: u64| used.checked_add(len).is_some_and(|sum| sum <= limit);
        if !fits(self.state.total, limits.address_space) || (data && !fits(self.state.data, limits.data)) {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }
}
