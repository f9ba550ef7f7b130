//! What the guest asked for: one mapping, Linux's `vm_area_struct`.
use std::sync::Arc;

use abi::mman::{PROT_EXEC, PROT_READ, PROT_WRITE};
use platform::Access;

use super::pma::Pma;
use crate::Mappable;

/// `PROT_READ | PROT_WRITE | PROT_EXEC`.
pub(super) const PROT_ALL: u32 = PROT_READ | PROT_WRITE | PROT_EXEC;

/// What else is known of a mapping, Linux's `VM_*`.
pub(super) mod flag {
    /// `PROT_WRITE` may be added.
    pub(in crate::mm) const MAY_WRITE: u32 = 1;
    /// `PROT_EXEC` may be added.
    pub(in crate::mm) const MAY_EXEC: u32 = 1 << 1;
    /// Grows downwards when what is below is touched.
    pub(in crate::mm) const GROWS_DOWN: u32 = 1 << 2;
    /// Counts as locked.
    pub(in crate::mm) const LOCKED: u32 = 1 << 3;
    /// `MLOCK_ONFAULT`.
    pub(in crate::mm) const LOCK_ON_FAULT: u32 = 1 << 4;
    /// Children do not get it.
    pub(in crate::mm) const DONT_COPY: u32 = 1 << 5;
    /// Children get it empty.
    pub(in crate::mm) const WIPE_ON_FORK: u32 = 1 << 6;
    /// Core files do not get it.
    pub(in crate::mm) const DONT_DUMP: u32 = 1 << 7;
    /// `MAP_NORESERVE`.
    pub(in crate::mm) const NO_RESERVE: u32 = 1 << 8;
    /// `MADV_RANDOM`.
    pub(in crate::mm) const RAND_READ: u32 = 1 << 9;
    /// `MADV_SEQUENTIAL`.
    pub(in crate::mm) const SEQ_READ: u32 = 1 << 10;
    /// `MADV_HUGEPAGE`.
    pub(in crate::mm) const HUGE_PAGE: u32 = 1 << 11;
    /// `MADV_NOHUGEPAGE`.
    pub(in crate::mm) const NO_HUGE_PAGE: u32 = 1 << 12;
    /// `MADV_MERGEABLE`.
    pub(in crate::mm) const MERGEABLE: u32 = 1 << 13;
    /// `MAP_DROPPABLE`.
    pub(in crate::mm) const DROPPABLE: u32 = 1 << 14;
    /// A mapping the platform shows and the guest cannot resize.
    pub(in crate::mm) const SPECIAL: u32 = 1 << 15;
    /// Shared anonymous memory.
    pub(in crate::mm) const ANON_SHMEM: u32 = 1 << 16;
    /// Linux `VM_ACCOUNT`: private and writable at some time. Decides what merges.
    pub(in crate::mm) const ACCOUNT: u32 = 1 << 17;
}

/// One mapping.
#[derive(Clone, Debug)]
pub(super) struct Vma {
    /// `PROT_READ`, `PROT_WRITE`, `PROT_EXEC`.
    pub prot: u32,
    /// Stores are seen by others who map the same.
    pub shared: bool,
    /// Of [`flag`].
    pub flags: u32,
    /// What is mapped; none for private anonymous memory.
    pub file: Option<Arc<dyn Mappable>>,
    /// The file offset of the first byte; for private anonymous memory the address it was mapped at.
    pub offset: u64,
    /// The number of the `anon_vma` that Linux would have given it at its first store, or 0. Decides what merges.
    pub anon: u64,
    /// What `/proc/PID/maps` shows in place of a path.
    pub name: Option<Arc<[u8]>>,
}

impl Vma {
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// Changes the protections.
    pub(super) fn protect(&mut self, prot: u32) {
        let writable = prot & PROT_WRITE != 0;
        if writable && self.prot & PROT_WRITE == 0 && !self.shared && !self.has(flag::NO_RESERVE) {
            self.flags |= flag::ACCOUNT;
        } else if !writable && self.file.is_none() && self.anon == 0 {
            self.flags &= !flag::ACCOUNT;
        }
        self.prot = prot;
    }

    /// Cuts the upper part off, `offset` bytes above the start.
    pub(super) fn split(&mut self, offset: u64) -> Self {
        let mut upper = self.clone();
        upper.offset = upper.offset.wrapping_add(offset);
        upper
    }

    /// Makes this stand for `upper` too, which begins where this ends after `len` bytes, if they can be one mapping.
    pub(super) fn merge(&mut self, len: u64, upper: &Self) -> bool {
        let merges = self.adjoins(len, upper)
            && self.prot == upper.prot
            && self.flags == upper.flags
            && (self.anon == upper.anon || self.anon == 0 || upper.anon == 0);
        if merges {
            self.anon = self.anon.max(upper.anon);
        }
        merges
    }

    /// Tells whether `upper` continues this after `len` bytes, whatever the protections.
    pub(super) fn adjoins(&self, len: u64, upper: &Self) -> bool {
        let same_file = match (&self.file, &upper.file) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same_file
            && self.shared == upper.shared
            && self.flags & flag::SPECIAL == 0
            && self.name == upper.name
            && self.offset.wrapping_add(len) == upper.offset
    }

    /// What the guest may do by `prot`. The processor has no pages that can be stored to and not loaded from.
    pub(super) fn access(&self) -> Access {
        Access {
            read: self.prot & PROT_ALL != 0,
            write: self.prot & PROT_WRITE != 0,
            execute: self.prot & PROT_EXEC != 0,
        }
    }

    /// What the guest may do to a page of this mapping without the sentry's help.
    pub(super) fn access_to(&self, pma: &Pma) -> Access {
        let all = self.access();
        Access { write: all.write && pma.writable, ..all }
    }

    /// Counts towards `RLIMIT_DATA` (Linux `is_data_mapping`).
    pub(super) fn is_data(&self) -> bool {
        self.prot & PROT_WRITE != 0 && !self.shared && !self.has(flag::GROWS_DOWN)
    }

    /// The file offset of an address, where `start` is the mapping's.
    pub(super) fn offset_of(&self, start: u64, addr: u64) -> u64 {
        self.offset.wrapping_add(addr - start)
    }
}
