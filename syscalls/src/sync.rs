//! Writing back and making room: `fsync(2)`, `fallocate(2)`, `fadvise(2)`, `readahead(2)`.
use std::sync::Arc;

use abi::Errno;
use abi::fs::{
    FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_UNSHARE_RANGE, FALLOC_FL_ZERO_RANGE,
};
use abi::stat::{S_IFDIR, S_IFIFO, S_IFREG};
use kernel::{File, RLIMIT_FSIZE};
use vfs::FileDescription;

use crate::Cx;
use crate::decode::Fd;

/// The description of a descriptor that is open for more than its path.
fn description(file: &Arc<dyn File>) -> Result<&FileDescription, Errno> {
    FileDescription::from_file(file).filter(|d| !d.is_path_only()).ok_or(Errno::EBADF)
}

/// Writes a file's data back, and unless `data_only` its attributes.
///
/// # Errors
/// Those of fsync(2).
pub(crate) fn sync_file(cx: &Cx<'_>, file: &Arc<dyn File>, data_only: bool) -> Result<(), Errno> {
    let description = description(file)?;
    description.ops().fsync(&description.cx(cx), data_only)
}

/// `fsync(2)`
///
/// # Errors
/// `EBADF`, `EINVAL`, `EIO`, `ENOSPC`.
pub fn fsync(cx: &mut Cx<'_>, fd: Fd) -> Result<usize, Errno> {
    sync_file(cx, &cx.file(fd)?, false).map(|()| 0)
}

/// `fdatasync(2)`
///
/// # Errors
/// As [`fsync`].
pub fn fdatasync(cx: &mut Cx<'_>, fd: Fd) -> Result<usize, Errno> {
    sync_file(cx, &cx.file(fd)?, true).map(|()| 0)
}

/// `syncfs(2)`
///
/// # Errors
/// `EBADF`, `EIO`.
pub fn syncfs(cx: &mut Cx<'_>, fd: Fd) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    description(&file)?.path().mount.sb().fs().sync().map(|()| 0)
}

/// `sync(2)`
///
/// # Errors
/// None.
pub fn sync(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    for mount in vfs::FsContext::of(cx)?.namespace().mounts() {
        // sync(2) tells no errors.
        let _untold = mount.sb().fs().sync();
    }
    Ok(0)
}

/// `sync_file_range(2)`: as on file systems without delayed writing, a write-back of the data.
///
/// # Errors
/// `EBADF`, `EINVAL`, `ESPIPE`, `EIO`.
pub fn sync_file_range(cx: &mut Cx<'_>, fd: Fd, offset: i64, len: i64, flags: u32) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let description = description(&file)?;
    if flags & !7 != 0 || offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL);
    }
    if !matches!(description.file_type(), S_IFREG | S_IFDIR) {
        return Err(Errno::ESPIPE);
    }
    if flags == 0 { Ok(0) } else { sync_file(cx, &file, true).map(|()| 0) }
}

/// Linux `vfs_fallocate`: which modes go together.
fn check_mode(mode: u32) -> Result<(), Errno> {
    const KNOWN: u32 = FALLOC_FL_KEEP_SIZE
        | FALLOC_FL_PUNCH_HOLE
        | FALLOC_FL_COLLAPSE_RANGE
        | FALLOC_FL_ZERO_RANGE
        | FALLOC_FL_INSERT_RANGE
        | FALLOC_FL_UNSHARE_RANGE;
    if mode & !KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    match mode & !FALLOC_FL_KEEP_SIZE {
        0 | FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_ZERO_RANGE => Ok(()),
        FALLOC_FL_PUNCH_HOLE if mode & FALLOC_FL_KEEP_SIZE != 0 => Ok(()),
        FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE if mode & FALLOC_FL_KEEP_SIZE == 0 => Ok(()),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// `fallocate(2)`
///
/// # Errors
/// `EBADF`, `EINVAL`, `EOPNOTSUPP`, `ESPIPE`, `EISDIR`, `ENODEV`, `EFBIG`, `ENOSPC`.
pub fn fallocate(cx: &mut Cx<'_>, fd: Fd, mode: u32, offset: i64, len: i64) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let description = description(&file)?;
    let (Ok(start), Ok(count)) = (u64::try_from(offset), u64::try_from(len)) else {
        return Err(Errno::EINVAL);
    };
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    check_mode(mode)?;
    if !description.is_writable() {
        return Err(Errno::EBADF);
    }
    match description.file_type() {
        S_IFIFO => return Err(Errno::ESPIPE),
        S_IFDIR => return Err(Errno::EISDIR),
        S_IFREG => {}
        _ => return Err(Errno::ENODEV),
    }
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    let grows = mode & (FALLOC_FL_KEEP_SIZE | FALLOC_FL_COLLAPSE_RANGE) == 0;
    if grows && u64::try_from(end).unwrap_or(u64::MAX) > cx.limit(RLIMIT_FSIZE) {
        return Err(Errno::EFBIG);
    }
    description.ops().fallocate(&description.cx(cx), mode, start, count).map(|()| 0)
}

/// `fadvise64(2)`: the advice is checked; the sentry's caches need none.
///
/// # Errors
/// `EBADF`, `ESPIPE`, `EINVAL`.
pub fn fadvise64(cx: &mut Cx<'_>, fd: Fd, _offset: i64, len: i64, advice: i32) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    if description(&file)?.file_type() == S_IFIFO {
        return Err(Errno::ESPIPE);
    }
    if len < 0 || !(0..=5).contains(&advice) { Err(Errno::EINVAL) } else { Ok(0) }
}

/// `readahead(2)`
///
/// # Errors
/// `EBADF`, `EINVAL`.
pub fn readahead(cx: &mut Cx<'_>, fd: Fd, _offset: i64, _count: usize) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let description = description(&file)?;
    if !description.is_readable() {
        return Err(Errno::EBADF);
    }
    if description.file_type() == S_IFREG { Ok(0) } else { Err(Errno::EINVAL) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_of_fallocate() {
        assert_eq!(check_mode(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE), Ok(()));
        assert_eq!(check_mode(FALLOC_FL_PUNCH_HOLE), Err(Errno::EOPNOTSUPP));
        assert_eq!(check_mode(FALLOC_FL_ZERO_RANGE | FALLOC_FL_INSERT_RANGE), Err(Errno::EOPNOTSUPP));
        assert_eq!(check_mode(0x80), Err(Errno::EOPNOTSUPP));
    }
}
