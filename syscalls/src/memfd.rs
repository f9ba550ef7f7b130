//! Files in memory without a name: `memfd_create(2)`.
use std::sync::{Arc, OnceLock};

use abi::Errno;
use abi::fs::O_RDWR;
use vfs::tmpfs::{Options, Tmpfs, TmpfsInode};
use vfs::{FileDescription, InodeOps, OpCx, new_inode_file};

use crate::Cx;
use crate::decode::UserPtr;

const MFD_CLOEXEC: u32 = 1;
const MFD_ALLOW_SEALING: u32 = 2;
const MFD_HUGETLB: u32 = 4;
const MFD_NOEXEC_SEAL: u32 = 8;
const MFD_EXEC: u32 = 0x10;
/// The longest name, Linux `NAME_MAX` less `memfd:`.
const NAME_MAX: usize = 249;

/// The file system that all such files are in, mounted nowhere: Linux `shm_mnt`.
static SHM: OnceLock<Arc<Tmpfs>> = OnceLock::new();

/// That file system.
///
/// # Errors
/// `ENOSPC`.
pub(crate) fn shm(cx: &Cx<'_>, op: &OpCx<'_>) -> Result<&'static Arc<Tmpfs>, Errno> {
    if let Some(shm) = SHM.get() {
        return Ok(shm);
    }
    let new = Tmpfs::new(op, Arc::clone(cx.kernel().memory_file()), Options::default())?;
    Ok(SHM.get_or_init(|| new))
}

/// `memfd_create(2)`
///
/// # Errors
/// `EINVAL` for unknown flags or a long name, `EFAULT`, `EMFILE`, `ENOSPC`.
pub fn memfd_create(cx: &mut Cx<'_>, name: UserPtr<u8>, flags: u32) -> Result<usize, Errno> {
    if flags & (MFD_HUGETLB | MFD_NOEXEC_SEAL) != 0 {
        return Err(cx.unsupported("memfd_create: MFD_HUGETLB, MFD_NOEXEC_SEAL", Errno::EINVAL));
    }
    if flags & !(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = cx.memory()?.read_cstr(name.addr(), NAME_MAX + 1).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })?;
    let creds = cx.credentials();
    let op = OpCx::of_task(cx, &creds);
    let inode = shm(cx, &op)?.anonymous_file(&op, 0o777)?;
    if flags & MFD_ALLOW_SEALING != 0 {
        inode.allow_sealing();
    }
    let ops = Arc::clone(&inode).open(&op, O_RDWR)?;
    let shown = [b"/memfd:", &*name, b" (deleted)"].concat();
    cx.install(new_inode_file(&op, &shown, inode, ops, O_RDWR), flags & MFD_CLOEXEC != 0)
}

/// The inode of a file that can have seals.
fn sealable(file: &FileDescription) -> Result<&TmpfsInode, Errno> {
    file.path().inode()?.downcast_ref::<TmpfsInode>().ok_or(Errno::EINVAL)
}

/// `F_GET_SEALS`.
///
/// # Errors
/// `EINVAL` for a file that has no seals.
pub(crate) fn seals(file: &FileDescription) -> Result<usize, Errno> {
    sealable(file)?.seals().map(|seals| seals as usize)
}

/// `F_ADD_SEALS`.
///
/// # Errors
/// `EINVAL`, `EPERM`, `EBUSY`.
pub(crate) fn add_seals(file: &FileDescription, seals: u32) -> Result<usize, Errno> {
    let inode = sealable(file)?;
    if !file.is_writable() {
        return Err(Errno::EPERM);
    }
    inode.add_seals(seals).map(|()| 0)
}
