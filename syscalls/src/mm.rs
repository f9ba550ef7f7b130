//! Memory of the process: `mmap(2)`, `brk(2)`, `mprotect(2)`, `madvise(2)` and their kin.
use abi::Errno;
use abi::mman::MAP_ANONYMOUS;
use kernel::{Cap, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK};
use memmap::{MmLimits, MmapArgs, PAGE};

use crate::Cx;
use crate::decode::{Fd, UserPtr};

/// The limits that apply to the caller.
pub(crate) fn limits(cx: &Cx<'_>) -> MmLimits {
    let memlock = if cx.credentials().has_cap(Cap::IPC_LOCK) { u64::MAX } else { cx.limit(RLIMIT_MEMLOCK) };
    MmLimits { address_space: cx.limit(RLIMIT_AS), data: cx.limit(RLIMIT_DATA), memlock }
}

/// A result that is an address.
fn address(addr: u64) -> Result<usize, Errno> {
    usize::try_from(addr).map_err(|_wide| Errno::ENOMEM)
}

/// `mmap(2)`
///
/// # Errors
/// `EINVAL`, `EBADF`, `EACCES`, `ENODEV`, `ENOMEM`, `EEXIST`, `EPERM`, `EOVERFLOW`, `EOPNOTSUPP`.
pub fn mmap(
    cx: &mut Cx<'_>,
    addr: u64,
    len: u64,
    prot: u32,
    flags: u32,
    fd: Fd,
    offset: u64,
) -> Result<usize, Errno> {
    if !offset.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let file = if flags & MAP_ANONYMOUS == 0 {
        let file = cx.file(fd)?;
        let end = offset.checked_add(len).filter(|end| end.cast_signed() >= 0);
        let mut file = file.mappable(cx, prot, flags)?;
        if offset.checked_add(len).is_none_or(|end| end > i64::MAX.cast_unsigned()) {
            return Err(Errno::EOVERFLOW);
        }
        file.offset = offset;
        if end.is_none() {
            return Err(Errno::EOVERFLOW);
        }
        Some(file)
    } else {
        None
    };
    address(cx.memory()?.mmap(MmapArgs { addr, len, prot, flags, file, limits: limits(cx), name: None })?)
}

/// `munmap(2)`
///
/// # Errors
/// `EINVAL`, `ENOMEM`.
pub fn munmap(cx: &mut Cx<'_>, addr: u64, len: u64) -> Result<usize, Errno> {
    cx.memory()?.munmap(addr, len).map(|()| 0)
}

/// `mprotect(2)`
///
/// # Errors
/// `EINVAL`, `EACCES`, `ENOMEM`.
pub fn mprotect(cx: &mut Cx<'_>, addr: u64, len: u64, prot: u32) -> Result<usize, Errno> {
    cx.memory()?.mprotect(addr, len, prot, limits(cx)).map(|()| 0)
}

/// `pkey_mprotect(2)`: there are no protection keys, which Linux tells by refusing all but -1.
///
/// # Errors
/// As [`mprotect`].
pub fn pkey_mprotect(cx: &mut Cx<'_>, addr: u64, len: u64, prot: u32, key: i32) -> Result<usize, Errno> {
    if key != -1 {
        return Err(Errno::EINVAL);
    }
    mprotect(cx, addr, len, prot)
}

/// `mremap(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `ENOMEM`, `EAGAIN`.
pub fn mremap(
    cx: &mut Cx<'_>,
    addr: u64,
    old_len: u64,
    new_len: u64,
    flags: u32,
    new_addr: u64,
) -> Result<usize, Errno> {
    address(cx.memory()?.mremap(addr, old_len, new_len, flags, new_addr, limits(cx))?)
}

/// `brk(2)`: gives the end of the heap, moved or not.
///
/// # Errors
/// None.
pub fn brk(cx: &mut Cx<'_>, addr: u64) -> Result<usize, Errno> {
    address(cx.memory()?.brk(addr, limits(cx)))
}

/// `madvise(2)`
///
/// # Errors
/// `EINVAL`, `ENOMEM`, `EACCES`, `EFAULT`.
pub fn madvise(cx: &mut Cx<'_>, addr: u64, len: u64, advice: u32) -> Result<usize, Errno> {
    cx.memory()?.madvise(addr, len, advice).map(|()| 0)
}

/// `msync(2)`
///
/// # Errors
/// `EINVAL`, `ENOMEM`, `EBUSY`, `EIO`.
pub fn msync(cx: &mut Cx<'_>, addr: u64, len: u64, flags: u32) -> Result<usize, Errno> {
    cx.memory()?.msync(addr, len, flags).map(|()| 0)
}

/// `mincore(2)`
///
/// # Errors
/// `EINVAL`, `ENOMEM`, `EFAULT`.
pub fn mincore(cx: &mut Cx<'_>, addr: u64, len: u64, vec: UserPtr<u8>) -> Result<usize, Errno> {
    cx.memory()?.mincore(addr, len, vec.addr()).map(|()| 0)
}

/// `mlock(2)`
///
/// # Errors
/// `EPERM`, `ENOMEM`, `EINVAL`.
pub fn mlock(cx: &mut Cx<'_>, addr: u64, len: u64) -> Result<usize, Errno> {
    mlock2(cx, addr, len, 0)
}

/// `mlock2(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, and as [`mlock`].
pub fn mlock2(cx: &mut Cx<'_>, addr: u64, len: u64, flags: u32) -> Result<usize, Errno> {
    if flags & !abi::mman::MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    may_lock(cx)?;
    cx.memory()?.mlock(addr, len, flags, limits(cx)).map(|()| 0)
}

/// Linux `can_do_mlock`.
fn may_lock(cx: &Cx<'_>) -> Result<(), Errno> {
    if limits(cx).memlock == 0 { Err(Errno::EPERM) } else { Ok(()) }
}

/// `munlock(2)`
///
/// # Errors
/// `ENOMEM`, `EINVAL`.
pub fn munlock(cx: &mut Cx<'_>, addr: u64, len: u64) -> Result<usize, Errno> {
    cx.memory()?.munlock(addr, len).map(|()| 0)
}

/// `mlockall(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, `EPERM`, `ENOMEM`.
pub fn mlockall(cx: &mut Cx<'_>, flags: u32) -> Result<usize, Errno> {
    use abi::mman::{MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT};
    if flags == 0 || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || flags == MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    may_lock(cx)?;
    cx.memory()?.mlockall(flags, limits(cx)).map(|()| 0)
}

/// `munlockall(2)`
///
/// # Errors
/// `ENOMEM`.
pub fn munlockall(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    cx.memory()?.munlockall().map(|()| 0)
}
