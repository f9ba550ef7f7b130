//! mmap(2) and munmap(2).
use std::ops::Range;
use std::sync::Arc;

use abi::Errno;
use abi::mman::{
    MAP_32BIT, MAP_ANONYMOUS, MAP_DENYWRITE, MAP_DROPPABLE, MAP_EXECUTABLE, MAP_FIXED, MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN, MAP_HUGE_SHIFT, MAP_HUGETLB, MAP_LOCKED, MAP_NONBLOCK, MAP_NORESERVE, MAP_POPULATE,
    MAP_PRIVATE, MAP_SHARED, MAP_SHARED_VALIDATE, MAP_STACK, MAP_TYPE, MAP_UNINITIALIZED, PROT_EXEC,
    PROT_NONE, PROT_WRITE,
};

use super::locked::{Locked, MAX_MAP_COUNT};
use super::types::{MmLimits, MmapArgs, MmapFile};
use super::vma::{PROT_ALL, Vma, flag};
use super::{MemoryManager, place};
use crate::PAGE;
use crate::anonymous::SharedAnonymous;

/// What `MAP_SHARED_VALIDATE` accepts, Linux `LEGACY_MAP_MASK`.
const LEGACY_FLAGS: u32 = MAP_SHARED
    | MAP_PRIVATE
    | MAP_FIXED
    | MAP_ANONYMOUS
    | MAP_DENYWRITE
    | MAP_EXECUTABLE
    | MAP_UNINITIALIZED
    | MAP_GROWSDOWN
    | MAP_LOCKED
    | MAP_NORESERVE
    | MAP_POPULATE
    | MAP_NONBLOCK
    | MAP_STACK
    | MAP_HUGETLB
    | MAP_32BIT
    | ((21 | 30) << MAP_HUGE_SHIFT)
    | MAP_FIXED_NOREPLACE;

/// The range of an address and a length, whole pages of what guests may map.
pub(super) fn page_range(user: &Range<u64>, addr: u64, len: u64) -> Option<Range<u64>> {
    let len = len.checked_next_multiple_of(PAGE)?;
    let end = addr.checked_add(len)?;
    (addr.is_multiple_of(PAGE) && end <= user.end).then_some(addr..end)
}

impl MemoryManager {
    /// mmap(2).
    ///
    /// # Errors
    /// `EINVAL` for a length of 0, an offset or fixed address that is not a page's, or an unknown type of mapping;
    /// `ENOMEM` beyond a limit, when there is no room, or for `MAP_HUGETLB` (there are no such pages); `EPERM` below
    /// `mmap_min_addr`, for execution of what must not be executed, or for locking with a limit of 0; `EEXIST` by
    /// `MAP_FIXED_NOREPLACE`; `EACCES` for a shared writable mapping of a file not open for writing; `EAGAIN` when too
    /// much would be locked; `EOPNOTSUPP` for unknown flags with `MAP_SHARED_VALIDATE`; `EOVERFLOW` for an offset too large.
    pub fn mmap(&self, args: MmapArgs) -> Result<u64, Errno> {
        let (range, populate) = self.lock().mmap(args)?;
        if populate {
            // mmap(2): failing to populate is no error.
            let _failed = self.populate(range.clone());
        }
        Ok(range.start)
    }

    /// munmap(2).
    ///
    /// # Errors
    /// `EINVAL` for a length of 0 or an address that is not a page's or too high, `ENOMEM` when that would make too many
    /// mappings.
    pub fn munmap(&self, addr: u64, len: u64) -> Result<(), Errno> {
        let range = page_range(&self.user, addr, len).filter(|r| !r.is_empty()).ok_or(Errno::EINVAL)?;
        let mut locked = self.lock();
        if locked.state.vmas.len() + locked.splits(&range) > MAX_MAP_COUNT + 1 {
            return Err(Errno::ENOMEM);
        }
        locked.drop_vmas(range);
        Ok(())
    }
}

impl Locked<'_> {
    fn mmap(&mut self, args: MmapArgs) -> Result<(Range<u64>, bool), Errno> {
        if self.state.released {
            return Err(Errno::ENOMEM);
        }
        if args.len == 0 || args.file.as_ref().is_some_and(|f| !f.offset.is_multiple_of(PAGE)) {
            return Err(Errno::EINVAL);
        }
        let len = args.len.checked_next_multiple_of(PAGE).ok_or(Errno::ENOMEM)?;
        let offset = args.file.as_ref().map_or(0, |f| f.offset);
        if offset.checked_add(len).is_none() {
            return Err(Errno::EOVERFLOW);
        }
        if self.state.vmas.len() > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let range = self.place(&args, len)?;
        if args.flags & MAP_FIXED_NOREPLACE != 0 && !self.state.vmas.is_free(range.clone()) {
            return Err(Errno::EEXIST);
        }
        let lock = self.check_lock(args.flags, len, &args.limits)?;
        let MmapArgs { prot, flags, file, limits, name, .. } = args;
        let mut vma = match file {
            Some(file) => file_vma(prot, flags, file)?,
            None => self.anonymous_vma(prot, flags, &range)?,
        };
        vma.flags |= lock;
        vma.set(flag::NO_RESERVE, flags & MAP_NORESERVE != 0 || vma.has(flag::NO_RESERVE));
        let accounted = prot & PROT_WRITE != 0 && !vma.shared && !vma.has(flag::NO_RESERVE);
        vma.set(flag::ACCOUNT, accounted);
        if accounted || vma.has(flag::ANON_SHMEM) && !vma.has(flag::NO_RESERVE) {
            self.may_commit(len)?;
        }
        if let Some(name) = name {
            vma.name = Some(Arc::from(name.as_bytes()));
            vma.flags |= flag::SPECIAL;
        }
        self.make_room(&range, vma.is_data(), &limits)?;
        self.add_vma(range.clone(), vma);
        let locked = lock & flag::LOCKED != 0 && lock & flag::LOCK_ON_FAULT == 0;
        let populate = flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE;
        Ok((range, (locked || populate) && prot & PROT_ALL != PROT_NONE))
    }

    /// Checks limits as if what is in `range` were gone, and makes it go.
    pub(super) fn make_room(
        &mut self,
        range: &Range<u64>,
        data: bool,
        limits: &MmLimits,
    ) -> Result<(), Errno> {
        let replaced: u64 = self
            .state
            .vmas
            .overlapping(range.clone())
            .map(|(r, _)| super::pma::intersect(&r, range))
            .map(|r| r.end - r.start)
            .sum();
        self.may_expand(range.end - range.start - replaced, data, limits)?;
        self.drop_vmas(range.clone());
        Ok(())
    }

    /// Where a mapping goes, Linux `get_unmapped_area`.
    fn place(&self, args: &MmapArgs, len: u64) -> Result<Range<u64>, Errno> {
        let user = &self.mm.user;
        if len > user.end {
            return Err(Errno::ENOMEM);
        }
        if args.flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0 {
            if args.addr > user.end - len {
                return Err(Errno::ENOMEM);
            }
            if !args.addr.is_multiple_of(PAGE) {
                return Err(Errno::EINVAL);
            }
            if args.addr < user.start {
                return Err(Errno::EPERM);
            }
            return Ok(args.addr..args.addr + len);
        }
        let vmas = &self.state.vmas;
        let hint = args.addr & !(PAGE - 1);
        if hint != 0 && args.flags & MAP_32BIT == 0 {
            let hint = hint.max(user.start);
            let wanted = hint.checked_add(len).filter(|end| *end <= user.end).map(|end| hint..end);
            if let Some(wanted) = wanted.filter(|w| place::is_free(vmas, w)) {
                return Ok(wanted);
            }
        }
        self.free_place(len, args.flags & MAP_32BIT != 0)
    }

    /// Any free place of `len` bytes.
    pub(super) fn free_place(&self, len: u64, low: bool) -> Result<Range<u64>, Errno> {
        let (vmas, user, bases) = (&self.state.vmas, &self.mm.user, &self.mm.bases);
        let at = if low {
            place::lowest(vmas, &bases.low, len)
        } else {
            let bottom_up = (user.end / 3) & !(PAGE - 1)..user.end;
            place::highest(vmas, &(user.start..bases.mmap), len)
                .or_else(|| place::lowest(vmas, &bottom_up, len))
        };
        at.map(|at| at..at + len).ok_or(Errno::ENOMEM)
    }

    /// The lock flags of a new mapping.
    fn check_lock(&self, flags: u32, len: u64, limits: &MmLimits) -> Result<u32, Errno> {
        let mut lock = self.state.lock_future;
        if flags & MAP_LOCKED != 0 {
            if limits.memlock == 0 {
                return Err(Errno::EPERM);
            }
            lock |= flag::LOCKED;
        }
        if lock & flag::LOCKED != 0 && self.state.locked.saturating_add(len) > limits.memlock {
            return Err(Errno::EAGAIN);
        }
        Ok(lock)
    }

    fn anonymous_vma(&self, prot: u32, flags: u32, range: &Range<u64>) -> Result<Vma, Errno> {
        if flags & MAP_HUGETLB != 0 {
            return Err(Errno::ENOMEM);
        }
        let mut vma = Vma {
            prot: prot & PROT_ALL,
            shared: false,
            flags: flag::MAY_WRITE | flag::MAY_EXEC,
            file: None,
            offset: range.start,
            anon: 0,
            name: None,
        };
        vma.set(flag::GROWS_DOWN, flags & MAP_GROWSDOWN != 0);
        match flags & MAP_TYPE {
            MAP_PRIVATE => {}
            MAP_SHARED if flags & MAP_GROWSDOWN == 0 => {
                vma.shared = true;
                vma.offset = 0;
                vma.flags |= flag::ANON_SHMEM;
                let file = Arc::clone(&self.mm.memory_file);
                vma.file = Some(SharedAnonymous::new(file, range.end - range.start));
            }
            MAP_DROPPABLE if flags & MAP_GROWSDOWN == 0 => {
                vma.flags |= flag::DROPPABLE | flag::NO_RESERVE | flag::WIPE_ON_FORK | flag::DONT_DUMP;
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(vma)
    }
}

fn file_vma(prot: u32, flags: u32, file: MmapFile) -> Result<Vma, Errno> {
    if flags & MAP_HUGETLB != 0 {
        return Err(Errno::EINVAL);
    }
    let shared = match flags & MAP_TYPE {
        MAP_SHARED => true,
        MAP_SHARED_VALIDATE if flags & !LEGACY_FLAGS != 0 => return Err(Errno::EOPNOTSUPP),
        MAP_SHARED_VALIDATE => true,
        MAP_PRIVATE => false,
        _ => return Err(Errno::EINVAL),
    };
    if shared && prot & PROT_WRITE != 0 && !file.may_write {
        return Err(Errno::EACCES);
    }
    if prot & PROT_EXEC != 0 && !file.may_exec {
        return Err(Errno::EPERM);
    }
    if flags & MAP_GROWSDOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let mut vma = Vma {
        prot: prot & PROT_ALL,
        shared,
        flags: 0,
        file: Some(file.mappable),
        offset: file.offset,
        anon: 0,
        name: None,
    };
    vma.set(flag::MAY_WRITE, !shared || file.may_write);
    vma.set(flag::MAY_EXEC, file.may_exec);
    Ok(vma)
}
