//! Names of files: `mkdir(2)`, `unlink(2)`, `rename(2)`, `link(2)`, `symlink(2)`, `readlink(2)`, `mknod(2)`.
use abi::Errno;
use abi::fs::{
    AT_EMPTY_PATH, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT,
};
use vfs::{At, LookupFlags};

use crate::Cx;
use crate::decode::{Fd, UserPtr};

type Path = UserPtr<u8>;

/// `mkdirat(2)`
///
/// # Errors
/// Those of mkdir(2).
pub fn mkdirat(cx: &mut Cx<'_>, fd: Fd, path: Path, mode: u16) -> Result<usize, Errno> {
    let (at, path) = cx.at(fd, path)?;
    cx.vfs(|vfs| vfs.mkdir(&at, &path, u32::from(mode))).map(|_| 0)
}

/// `mkdir(2)`
///
/// # Errors
/// Those of mkdir(2).
pub fn mkdir(cx: &mut Cx<'_>, path: Path, mode: u16) -> Result<usize, Errno> {
    mkdirat(cx, Fd::CWD, path, mode)
}

/// `mknodat(2)`
///
/// # Errors
/// Those of mknod(2).
pub fn mknodat(cx: &mut Cx<'_>, fd: Fd, path: Path, mode: u16, device: u32) -> Result<usize, Errno> {
    let (at, path) = cx.at(fd, path)?;
    cx.vfs(|vfs| vfs.mknod(&at, &path, u32::from(mode), u64::from(device))).map(|_| 0)
}

/// `mknod(2)`
///
/// # Errors
/// Those of mknod(2).
pub fn mknod(cx: &mut Cx<'_>, path: Path, mode: u16, device: u32) -> Result<usize, Errno> {
    mknodat(cx, Fd::CWD, path, mode, device)
}

/// `unlinkat(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, and those of unlink(2) and rmdir(2).
pub fn unlinkat(cx: &mut Cx<'_>, fd: Fd, path: Path, flags: u32) -> Result<usize, Errno> {
    if flags & !AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let (at, path) = cx.at(fd, path)?;
    let removes_directory = flags & AT_REMOVEDIR != 0;
    cx.vfs(|vfs| if removes_directory { vfs.rmdir(&at, &path) } else { vfs.unlink(&at, &path) }).map(|()| 0)
}

/// `unlink(2)`
///
/// # Errors
/// Those of unlink(2).
pub fn unlink(cx: &mut Cx<'_>, path: Path) -> Result<usize, Errno> {
    unlinkat(cx, Fd::CWD, path, 0)
}

/// `rmdir(2)`
///
/// # Errors
/// Those of rmdir(2).
pub fn rmdir(cx: &mut Cx<'_>, path: Path) -> Result<usize, Errno> {
    unlinkat(cx, Fd::CWD, path, AT_REMOVEDIR)
}

/// `renameat2(2)`
///
/// # Errors
/// `EINVAL` for flags that are unknown or exclude each other, `EPERM`, and those of rename(2).
pub fn renameat2(
    cx: &mut Cx<'_>,
    old_fd: Fd,
    old: Path,
    new_fd: Fd,
    new: Path,
    flags: u32,
) -> Result<usize, Errno> {
    if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) != 0
        || flags & RENAME_EXCHANGE != 0 && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) != 0
    {
        return Err(Errno::EINVAL);
    }
    let (old_at, old) = cx.at(old_fd, old)?;
    let (new_at, new) = cx.at(new_fd, new)?;
    cx.vfs(|vfs| vfs.rename(&old_at, &old, &new_at, &new, flags)).map(|()| 0)
}

/// `renameat(2)`
///
/// # Errors
/// Those of rename(2).
pub fn renameat(cx: &mut Cx<'_>, old_fd: Fd, old: Path, new_fd: Fd, new: Path) -> Result<usize, Errno> {
    renameat2(cx, old_fd, old, new_fd, new, 0)
}

/// `rename(2)`
///
/// # Errors
/// Those of rename(2).
pub fn rename(cx: &mut Cx<'_>, old: Path, new: Path) -> Result<usize, Errno> {
    renameat2(cx, Fd::CWD, old, Fd::CWD, new, 0)
}

/// `linkat(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, and those of link(2).
pub fn linkat(
    cx: &mut Cx<'_>,
    old_fd: Fd,
    old: Path,
    new_fd: Fd,
    new: Path,
    flags: u32,
) -> Result<usize, Errno> {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let (old_at, old) = cx.at_or_empty(old_fd, old, flags)?;
    let (new_at, new) = cx.at(new_fd, new)?;
    let lookup = LookupFlags {
        follow: flags & AT_SYMLINK_FOLLOW != 0,
        empty: flags & AT_EMPTY_PATH != 0,
        ..LookupFlags::NO_FOLLOW
    };
    cx.vfs(|vfs| vfs.link(&old_at, &old, lookup, &new_at, &new)).map(|()| 0)
}

/// `link(2)`
///
/// # Errors
/// Those of link(2).
pub fn link(cx: &mut Cx<'_>, old: Path, new: Path) -> Result<usize, Errno> {
    linkat(cx, Fd::CWD, old, Fd::CWD, new, 0)
}

/// `symlinkat(2)`
///
/// # Errors
/// Those of symlink(2).
pub fn symlinkat(cx: &mut Cx<'_>, target: Path, fd: Fd, path: Path) -> Result<usize, Errno> {
    let target = cx.path(target)?;
    let (at, path) = cx.at(fd, path)?;
    cx.vfs(|vfs| vfs.symlink(&target, &at, &path)).map(|_| 0)
}

/// `symlink(2)`
///
/// # Errors
/// Those of symlink(2).
pub fn symlink(cx: &mut Cx<'_>, target: Path, path: Path) -> Result<usize, Errno> {
    symlinkat(cx, target, Fd::CWD, path)
}

/// `readlinkat(2)`
///
/// # Errors
/// `EINVAL` for no room or what is no link, `EFAULT`, and those of path resolution.
pub fn readlinkat(cx: &mut Cx<'_>, fd: Fd, path: Path, buf: UserPtr<u8>, len: i32) -> Result<usize, Errno> {
    let room = usize::try_from(len).ok().filter(|room| *room > 0).ok_or(Errno::EINVAL)?;
    let (at, path) = cx.at(fd, path)?;
    let target = cx.vfs(|vfs| vfs.readlink(&at, &path))?;
    let shown = target.get(..room).unwrap_or(&target);
    cx.memory()?.write_bytes(buf.addr(), shown)?;
    Ok(shown.len())
}

/// `readlink(2)`
///
/// # Errors
/// As [`readlinkat`].
pub fn readlink(cx: &mut Cx<'_>, path: Path, buf: UserPtr<u8>, len: i32) -> Result<usize, Errno> {
    readlinkat(cx, Fd::CWD, path, buf, len)
}

/// `chdir(2)`
///
/// # Errors
/// `EFAULT`, and those of path resolution.
pub fn chdir(cx: &mut Cx<'_>, path: Path) -> Result<usize, Errno> {
    let path = cx.path(path)?;
    cx.vfs(|vfs| vfs.chdir(&At::Cwd, &path, false)).map(|()| 0)
}

/// `fchdir(2)`
///
/// # Errors
/// `EBADF`, `ENOTDIR`, `EACCES`.
pub fn fchdir(cx: &mut Cx<'_>, fd: Fd) -> Result<usize, Errno> {
    // AT_FDCWD is no descriptor here.
    cx.file(fd)?;
    let at = At::from_fd(cx, fd.0)?;
    cx.vfs(|vfs| vfs.chdir(&at, &[], true)).map(|()| 0)
}

/// `chroot(2)`
///
/// # Errors
/// `EFAULT`, `EPERM`, and those of path resolution.
pub fn chroot(cx: &mut Cx<'_>, path: Path) -> Result<usize, Errno> {
    let path = cx.path(path)?;
    cx.vfs(|vfs| vfs.chroot(&path)).map(|()| 0)
}

/// `getcwd(2)`: gives the length with the terminator.
///
/// # Errors
/// `ENOENT` in a removed directory, `ERANGE` for too little room, `EFAULT`.
pub fn getcwd(cx: &mut Cx<'_>, buf: UserPtr<u8>, size: usize) -> Result<usize, Errno> {
    let mut name = cx.vfs(|vfs| vfs.getcwd())?;
    name.push(0);
    if name.len() > size {
        return Err(Errno::ERANGE);
    }
    cx.memory()?.write_bytes(buf.addr(), &name)?;
    Ok(name.len())
}

/// `umask(2)`: gives the old one.
///
/// # Errors
/// None.
pub fn umask(cx: &mut Cx<'_>, mask: u32) -> Result<usize, Errno> {
    Ok(vfs::FsContext::of(cx)?.set_umask(mask) as usize)
}
