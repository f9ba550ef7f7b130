//! The memory of one guest process, Linux's `mm_struct`.
mod brk;
mod copy;
mod fault;
mod fill;
mod fork;
mod hot;
mod info;
mod locked;
mod madvise;
mod mlock;
mod mmap;
mod mprotect;
mod mremap;
mod msync;
mod patch;
mod place;
mod pma;
mod stack;
#[cfg(test)]
mod tests;
mod types;
mod vma;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use platform::patch::Patches;
use platform::{Access, AddressSpace, Platform};
use sync::{LockClass, RwLock};

use crate::{MappingKey, MemoryFile, PAGE};
use locked::{Locked, State};
use place::Bases;

pub use types::{AtomicOp, FaultSignal, FutexKey, MmLayout, MmLimits, MmStatus, MmapArgs, MmapFile, VmaInfo};

/// A number below `below`, hard to guess. 0 if `below` is 0.
fn random_below(below: u64) -> u64 {
    // Hash functions of the standard library are keyed by the host's random numbers.
    RandomState::new().hash_one(below).checked_rem(below).unwrap_or(0)
}

/// The memory of one guest process, Linux's `mm_struct`. Shared by those that `CLONE_VM` made.
pub struct MemoryManager {
    /// Its number, never used again.
    id: u64,
    weak: Weak<Self>,
    memory_file: Arc<MemoryFile>,
    platform: Arc<dyn Platform>,
    space: Arc<dyn AddressSpace>,
    /// The space's.
    patches: Option<Arc<Patches>>,
    /// The addresses that may be mapped.
    user: Range<u64>,
    bases: Bases,
    state: RwLock<State>,
}

impl fmt::Debug for MemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryManager").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MemoryManager {
    /// Makes empty memory, as exec does.
    ///
    /// # Errors
    /// `ENOMEM` when the platform has no address space to give.
    pub fn new(memory_file: Arc<MemoryFile>, platform: Arc<dyn Platform>) -> Result<Arc<Self>, Errno> {
        let bases = Bases::random(&platform.user_range());
        Self::with_bases(memory_file, platform, bases)
    }

    fn with_bases(
        memory_file: Arc<MemoryFile>,
        platform: Arc<dyn Platform>,
        bases: Bases,
    ) -> Result<Arc<Self>, Errno> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let space = platform.new_address_space().map_err(|_host| Errno::ENOMEM)?;
        let user = platform.user_range();
        let state = State { stack_limit: 8 << 20, ..State::default() };
        Ok(Arc::new_cyclic(|weak| Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            weak: weak.clone(),
            memory_file,
            platform,
            patches: space.patches(),
            space,
            user: user.start.max(place::MMAP_MIN_ADDR)..user.end & !(PAGE - 1),
            bases,
            state: RwLock::new(LockClass::MemoryManager, state),
        }))
    }

    fn lock(&self) -> Locked<'_> {
        Locked::new(self, self.state.write())
    }

    /// The guest's side of this memory.
    #[must_use]
    pub fn address_space(&self) -> Arc<dyn AddressSpace> {
        Arc::clone(&self.space)
    }

    /// The memory file that backs what no host file does.
    #[must_use]
    pub fn memory_file(&self) -> &Arc<MemoryFile> {
        &self.memory_file
    }

    /// Unmaps everything for good: the last task that runs in this memory is gone, even if others (a reader of
    /// `/proc`) still hold it. New mappings are refused from then on.
    pub fn release(&self) {
        let mut locked = self.lock();
        locked.state.released = true;
        locked.drop_vmas(0..u64::MAX);
        locked.evict_trampolines(&(0..u64::MAX));
    }

    /// Takes pages of a file away, so that the next access asks the file again: it was truncated, a hole was punched, or
    /// its contents moved. Pages that were copied for a private mapping stay.
    ///
    /// `key` is one that the file got by [`crate::Mappable::add_mapping`], the range is one of the file. The caller may hold
    /// locks of classes before `MemoryManager` only.
    pub fn invalidate_mapping(&self, key: &MappingKey, offset: u64, len: u64) {
        let file_end = offset.saturating_add(len).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        let from = (offset & !(PAGE - 1)).max(key.offset);
        let to = file_end.min(key.offset.saturating_add(key.len));
        if from < to {
            let at = |offset: u64| key.addr.saturating_add(offset - key.offset);
            self.lock().drop_file_pages(at(from)..at(to));
        }
    }

    /// As [`Self::invalidate_mapping`] of all behind `size`, and what was copied for a private mapping goes too: the whole
    /// pages behind the new end.
    pub fn truncate_mapping(&self, key: &MappingKey, size: u64) {
        self.invalidate_mapping(key, size, u64::MAX - size);
        let from = size.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX).max(key.offset);
        let to = key.offset.saturating_add(key.len);
        if from < to {
            let at = |offset: u64| key.addr.saturating_add(offset - key.offset);
            self.lock().drop_pmas(at(from)..at(to));
        }
    }

    /// Where the program's parts are.
    #[must_use]
    pub fn layout(&self) -> MmLayout {
        self.state.read().layout
    }

    /// Sets where the program's parts are, but for the heap's current end.
    pub fn set_layout(&self, layout: MmLayout) {
        let mut state = self.state.write();
        let brk = state.layout.brk.max(layout.start_brk);
        state.layout = MmLayout { brk, ..layout };
    }

    /// The auxiliary vector the program was started with.
    #[must_use]
    pub fn auxv(&self) -> Vec<u64> {
        self.state.read().auxv.clone()
    }

    /// Sets what [`Self::auxv`] tells.
    pub fn set_auxv(&self, auxv: Vec<u64>) {
        self.state.write().auxv = auxv;
    }
}

impl Drop for MemoryManager {
    fn drop(&mut self) {
        let state = std::mem::take(self.state.get_mut());
        let mut garbage = locked::Garbage::new(Arc::clone(&self.memory_file));
        // No task is left to run here; yet what guests share with the sentry is not to be trusted to stand still.
        let shown = !state.trampolines.is_empty() || state.pmas.iter().any(|(_, p)| p.shown != Access::NONE);
        let hidden =
            !shown || pma::is_hidden(&self.space.unmap(self.user.start, self.user.end - self.user.start));
        for (range, pma) in state.pmas.iter() {
            if hidden && !state.broken {
                garbage.add_pma(&range, pma.clone());
            }
        }
        for page in state.trampolines.iter().flat_map(patch::Area::memory) {
            if hidden && !state.broken {
                garbage.add_range(page);
            }
        }
        for (range, vma) in state.vmas.iter() {
            if let Some(file) = &vma.file {
                file.remove_mapping(&locked::key(&self.weak, &range, vma));
            }
        }
    }
}
