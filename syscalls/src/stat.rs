//! Attributes of files: `stat(2)`, `statx(2)`, `statfs(2)`.
use abi::Errno;
use abi::fs::{
    AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_STATX_DONT_SYNC, AT_STATX_FORCE_SYNC, AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
};
use abi::stat::{
    STATX__RESERVED, STATX_ATTR_MOUNT_ROOT, STATX_BASIC_STATS, STATX_BTIME, STATX_MNT_ID, Stat, StatFs,
    Statx, major, minor,
};
use kernel::Metadata;
use vfs::{At, FileDescription, LookupFlags, Path};

use crate::Cx;
use crate::decode::{Fd, UserPtr};

fn to_stat(meta: &Metadata) -> Stat {
    Stat {
        dev: meta.dev,
        ino: meta.ino,
        nlink: u64::from(meta.nlink),
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        rdev: meta.rdev,
        size: meta.size.cast_signed(),
        blksize: i64::from(meta.blksize),
        blocks: meta.blocks.cast_signed(),
        atime: meta.atime,
        mtime: meta.mtime,
        ctime: meta.ctime,
        ..Stat::default()
    }
}

/// The attributes of an open file, also of one without a path.
fn of_fd(cx: &Cx<'_>, fd: Fd) -> Result<Metadata, Errno> {
    cx.file(fd)?.stat(cx)
}

/// Tells whether a call is about a descriptor itself.
fn is_fd(fd: Fd, path: &[u8], flags: u32) -> bool {
    flags & AT_EMPTY_PATH != 0 && path.is_empty() && fd != Fd::CWD
}

/// `fstat(2)`
///
/// # Errors
/// `EBADF`, `EFAULT`.
pub fn fstat(cx: &mut Cx<'_>, fd: Fd, buf: UserPtr<Stat>) -> Result<usize, Errno> {
    let meta = of_fd(cx, fd)?;
    buf.write(cx, &to_stat(&meta))?;
    Ok(0)
}

/// `newfstatat(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, `EBADF`, `EFAULT`, and those of path resolution.
pub fn newfstatat(
    cx: &mut Cx<'_>,
    fd: Fd,
    path: UserPtr<u8>,
    buf: UserPtr<Stat>,
    flags: u32,
) -> Result<usize, Errno> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = cx.path_or_null(path, flags & AT_EMPTY_PATH != 0)?;
    let meta = if is_fd(fd, &path, flags) {
        of_fd(cx, fd)?
    } else {
        let at = At::from_fd_for(cx, fd.0, &path)?;
        cx.vfs(|vfs| vfs.stat(&at, &path, LookupFlags::from_at(flags)))?
    };
    buf.write(cx, &to_stat(&meta))?;
    Ok(0)
}

/// `stat(2)`
///
/// # Errors
/// `EFAULT`, and those of path resolution.
pub fn stat(cx: &mut Cx<'_>, path: UserPtr<u8>, buf: UserPtr<Stat>) -> Result<usize, Errno> {
    newfstatat(cx, Fd::CWD, path, buf, 0)
}

/// `lstat(2)`
///
/// # Errors
/// `EFAULT`, and those of path resolution.
pub fn lstat(cx: &mut Cx<'_>, path: UserPtr<u8>, buf: UserPtr<Stat>) -> Result<usize, Errno> {
    newfstatat(cx, Fd::CWD, path, buf, AT_SYMLINK_NOFOLLOW)
}

fn to_statx(meta: &Metadata, path: Option<&Path>) -> Statx {
    let known_birth = meta.btime != abi::time::Timespec::ZERO;
    let is_mount_root = path.is_some_and(|p| std::sync::Arc::ptr_eq(&p.dentry, p.mount.root()));
    let [mode_low, mode_high, ..] = meta.mode.to_le_bytes();
    let mut mask = STATX_BASIC_STATS | STATX_MNT_ID;
    if known_birth {
        mask |= STATX_BTIME;
    }
    Statx {
        mask,
        blksize: meta.blksize,
        attributes: meta.attributes | if is_mount_root { u64::from(STATX_ATTR_MOUNT_ROOT) } else { 0 },
        nlink: meta.nlink,
        uid: meta.uid,
        gid: meta.gid,
        mode: u16::from_le_bytes([mode_low, mode_high]),
        ino: meta.ino,
        size: meta.size,
        blocks: meta.blocks,
        attributes_mask: meta.attributes | u64::from(STATX_ATTR_MOUNT_ROOT),
        atime: meta.atime.into(),
        btime: meta.btime.into(),
        ctime: meta.ctime.into(),
        mtime: meta.mtime.into(),
        rdev_major: major(meta.rdev),
        rdev_minor: minor(meta.rdev),
        dev_major: major(meta.dev),
        dev_minor: minor(meta.dev),
        mnt_id: path.map_or(0, |p| p.mount.id()),
        ..Statx::default()
    }
}

/// `statx(2)`
///
/// # Errors
/// `EINVAL` for unknown flags and reserved bits, `EBADF`, `EFAULT`, and those of path resolution.
pub fn statx(
    cx: &mut Cx<'_>,
    fd: Fd,
    path: UserPtr<u8>,
    flags: u32,
    mask: u32,
    buf: UserPtr<Statx>,
) -> Result<usize, Errno> {
    let path = cx.path_or_null(path, flags & AT_EMPTY_PATH != 0)?;
    let both = AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC;
    if mask & STATX__RESERVED != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE) != 0 {
        return Err(Errno::EINVAL);
    }
    let value = if is_fd(fd, &path, flags) {
        let file = cx.file(fd)?;
        to_statx(&file.stat(cx)?, FileDescription::from_file(&file).map(FileDescription::path))
    } else {
        let at = At::from_fd_for(cx, fd.0, &path)?;
        let found = cx.vfs(|vfs| vfs.resolve(&at, &path, LookupFlags::from_at(flags)))?;
        to_statx(&found.inode()?.metadata()?, Some(&found))
    };
    buf.write(cx, &value)?;
    Ok(0)
}

/// `statfs(2)`
///
/// # Errors
/// `EFAULT`, and those of path resolution.
pub fn statfs(cx: &mut Cx<'_>, path: UserPtr<u8>, buf: UserPtr<StatFs>) -> Result<usize, Errno> {
    let path = cx.path(path)?;
    let value = cx.vfs(|vfs| vfs.statfs(&vfs.resolve(&At::Cwd, &path, LookupFlags::FOLLOW)?))?;
    buf.write(cx, &value)?;
    Ok(0)
}

/// `fstatfs(2)`
///
/// # Errors
/// `EBADF`, `EFAULT`.
pub fn fstatfs(cx: &mut Cx<'_>, fd: Fd, buf: UserPtr<StatFs>) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let path = FileDescription::from_file(&file).ok_or(Errno::EBADF)?.path();
    let value = cx.vfs(|vfs| vfs.statfs(path))?;
    buf.write(cx, &value)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_are_not_known_are_not_told() {
        let meta = Metadata { mode: 0o100_644, ino: 5, ..Metadata::default() };
        let wire = to_statx(&meta, None);
        assert_eq!((wire.mask & STATX_BTIME, wire.mode, wire.ino), (0, 0o100_644, 5));
        assert_eq!(to_stat(&meta).mode, 0o100_644);
    }
}
