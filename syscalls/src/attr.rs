//! Changing attributes: `chmod(2)`, `chown(2)`, `utimensat(2)`, `truncate(2)`, `access(2)`.
use std::sync::Arc;

use abi::Errno;
use abi::fs::{AT_EACCESS, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW};
use abi::time::{Timespec, Timeval, UTIME_NOW, UTIME_OMIT, Utimbuf};
use kernel::credentials::securebits::NOROOT;
use kernel::{CapSet, Credentials, IdMap};
use vfs::{FileDescription, FsContext, LookupFlags, OpCx, Path, SetTime, Times, Vfs};

use crate::Cx;
use crate::decode::{Fd, UserPtr};

type PathPtr = UserPtr<u8>;

/// Runs `f` on what a path leads to.
fn on_path(
    cx: &Cx<'_>,
    fd: Fd,
    path: PathPtr,
    flags: u32,
    f: impl FnOnce(&Vfs<'_>, &Path) -> Result<(), Errno>,
) -> Result<usize, Errno> {
    let (at, path) = cx.at_or_empty(fd, path, flags)?;
    cx.vfs(|vfs| f(vfs, &vfs.resolve(&at, &path, LookupFlags::from_at(flags))?)).map(|()| 0)
}

/// Runs `f` on where an open file is.
fn on_fd(
    cx: &Cx<'_>,
    fd: Fd,
    f: impl FnOnce(&Vfs<'_>, &FileDescription) -> Result<(), Errno>,
) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let description = FileDescription::from_file(&file).filter(|d| !d.is_path_only()).ok_or(Errno::EBADF)?;
    cx.vfs(|vfs| f(vfs, description)).map(|()| 0)
}

/// `fchmodat2(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, and those of chmod(2).
pub fn fchmodat2(cx: &mut Cx<'_>, fd: Fd, path: PathPtr, mode: u16, flags: u32) -> Result<usize, Errno> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    on_path(cx, fd, path, flags, |vfs, path| vfs.chmod(path, u32::from(mode)))
}

/// `fchmodat(2)`
///
/// # Errors
/// Those of chmod(2).
pub fn fchmodat(cx: &mut Cx<'_>, fd: Fd, path: PathPtr, mode: u16) -> Result<usize, Errno> {
    fchmodat2(cx, fd, path, mode, 0)
}

/// `chmod(2)`
///
/// # Errors
/// Those of chmod(2).
pub fn chmod(cx: &mut Cx<'_>, path: PathPtr, mode: u16) -> Result<usize, Errno> {
    fchmodat2(cx, Fd::CWD, path, mode, 0)
}

/// `fchmod(2)`
///
/// # Errors
/// `EBADF`, `EPERM`, `EROFS`.
pub fn fchmod(cx: &mut Cx<'_>, fd: Fd, mode: u16) -> Result<usize, Errno> {
    on_fd(cx, fd, |vfs, file| vfs.chmod(file.path(), u32::from(mode)))
}

/// An id that exists in this map, where -1 leaves the old one.
fn new_id(map: &IdMap, id: u32) -> Result<Option<u32>, Errno> {
    match id {
        u32::MAX => Ok(None),
        id if map.contains(id) => Ok(Some(id)),
        _ => Err(Errno::EINVAL),
    }
}

/// `fchownat(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, and those of chown(2).
pub fn fchownat(
    cx: &mut Cx<'_>,
    fd: Fd,
    path: PathPtr,
    uid: u32,
    gid: u32,
    flags: u32,
) -> Result<usize, Errno> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let maps = cx.kernel().id_maps();
    on_path(cx, fd, path, flags, |vfs, path| {
        vfs.chown(path, new_id(&maps.users, uid)?, new_id(&maps.groups, gid)?)
    })
}

/// `chown(2)`
///
/// # Errors
/// Those of chown(2).
pub fn chown(cx: &mut Cx<'_>, path: PathPtr, uid: u32, gid: u32) -> Result<usize, Errno> {
    fchownat(cx, Fd::CWD, path, uid, gid, 0)
}

/// `lchown(2)`
///
/// # Errors
/// Those of chown(2).
pub fn lchown(cx: &mut Cx<'_>, path: PathPtr, uid: u32, gid: u32) -> Result<usize, Errno> {
    fchownat(cx, Fd::CWD, path, uid, gid, AT_SYMLINK_NOFOLLOW)
}

/// `fchown(2)`
///
/// # Errors
/// `EBADF`, `EPERM`, `EROFS`.
pub fn fchown(cx: &mut Cx<'_>, fd: Fd, uid: u32, gid: u32) -> Result<usize, Errno> {
    let maps = cx.kernel().id_maps();
    on_fd(cx, fd, |vfs, file| vfs.chown(file.path(), new_id(&maps.users, uid)?, new_id(&maps.groups, gid)?))
}

/// One of the two times of utimensat(2).
fn time(time: Timespec) -> Result<Option<SetTime>, Errno> {
    match time.nsec {
        UTIME_NOW => Ok(Some(SetTime::Now)),
        UTIME_OMIT => Ok(None),
        0..1_000_000_000 => Ok(Some(SetTime::At(time))),
        _ => Err(Errno::EINVAL),
    }
}

/// Sets the times of what a path leads to; the null path, those of the descriptor.
fn set_times(cx: &Cx<'_>, fd: Fd, path: PathPtr, times: Times, flags: u32) -> Result<usize, Errno> {
    if path.is_null() && fd != Fd::CWD {
        if flags & !AT_EMPTY_PATH != 0 {
            return Err(Errno::EINVAL);
        }
        return on_fd(cx, fd, |vfs, file| vfs.set_times(file.path(), times));
    }
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    on_path(cx, fd, path, flags, |vfs, path| vfs.set_times(path, times))
}

/// `utimensat(2)`
///
/// # Errors
/// `EFAULT`, `EINVAL`, `EACCES`, `EPERM`, and those of path resolution.
pub fn utimensat(
    cx: &mut Cx<'_>,
    fd: Fd,
    path: PathPtr,
    times: UserPtr<[Timespec; 2]>,
    flags: u32,
) -> Result<usize, Errno> {
    let times = match times.read_if_some(cx)? {
        None => Times::NOW,
        Some([atime, mtime]) => {
            if atime.nsec == UTIME_OMIT && mtime.nsec == UTIME_OMIT {
                // Linux does not even look at the path.
                return Ok(0);
            }
            Times { atime: time(atime)?, mtime: time(mtime)? }
        }
    };
    set_times(cx, fd, path, times, flags)
}

/// `futimesat(2)`
///
/// # Errors
/// As [`utimensat`].
pub fn futimesat(
    cx: &mut Cx<'_>,
    fd: Fd,
    path: PathPtr,
    times: UserPtr<[Timeval; 2]>,
) -> Result<usize, Errno> {
    let at = |time: Timeval| {
        if (0..1_000_000).contains(&time.usec) {
            Ok(Some(SetTime::At(Timespec { sec: time.sec, nsec: time.usec * 1000 })))
        } else {
            Err(Errno::EINVAL)
        }
    };
    let times = match times.read_if_some(cx)? {
        None => Times::NOW,
        Some([atime, mtime]) => Times { atime: at(atime)?, mtime: at(mtime)? },
    };
    set_times(cx, fd, path, times, 0)
}

/// `utimes(2)`
///
/// # Errors
/// As [`utimensat`].
pub fn utimes(cx: &mut Cx<'_>, path: PathPtr, times: UserPtr<[Timeval; 2]>) -> Result<usize, Errno> {
    futimesat(cx, Fd::CWD, path, times)
}

/// `utime(2)`
///
/// # Errors
/// As [`utimensat`].
pub fn utime(cx: &mut Cx<'_>, path: PathPtr, times: UserPtr<Utimbuf>) -> Result<usize, Errno> {
    let at = |sec| Some(SetTime::At(Timespec { sec, nsec: 0 }));
    let times = match times.read_if_some(cx)? {
        None => Times::NOW,
        Some(times) => Times { atime: at(times.actime), mtime: at(times.modtime) },
    };
    set_times(cx, Fd::CWD, path, times, 0)
}

/// `truncate(2)`
///
/// # Errors
/// `EINVAL`, `EISDIR`, `EACCES`, `EFBIG`, `EROFS`, and those of path resolution.
pub fn truncate(cx: &mut Cx<'_>, path: PathPtr, size: i64) -> Result<usize, Errno> {
    if size < 0 {
        return Err(Errno::EINVAL);
    }
    on_path(cx, Fd::CWD, path, 0, |vfs, path| vfs.truncate(path, size))
}

/// `ftruncate(2)`
///
/// # Errors
/// `EINVAL`, `EBADF`, `EFBIG`.
pub fn ftruncate(cx: &mut Cx<'_>, fd: Fd, size: i64) -> Result<usize, Errno> {
    if size < 0 {
        return Err(Errno::EINVAL);
    }
    on_fd(cx, fd, |vfs, file| vfs.ftruncate(file, size))
}

/// The credentials that access(2) asks for: the real ids, and the capabilities that go with them.
fn real(creds: &Credentials) -> Credentials {
    let effective = if creds.securebits & NOROOT != 0 {
        creds.cap_effective
    } else if creds.uid == 0 {
        creds.cap_permitted
    } else {
        CapSet::EMPTY
    };
    Credentials { fsuid: creds.uid, fsgid: creds.gid, cap_effective: effective, ..creds.clone() }
}

/// `faccessat2(2)`
///
/// # Errors
/// `EINVAL` for an unknown mode or flags, `EACCES`, `EROFS`, and those of path resolution.
pub fn faccessat2(cx: &mut Cx<'_>, fd: Fd, path: PathPtr, mode: u32, flags: u32) -> Result<usize, Errno> {
    if mode & !7 != 0 || flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let (at, path) = cx.at_or_empty(fd, path, flags)?;
    let creds = cx.credentials();
    let creds = if flags & AT_EACCESS != 0 { creds } else { Arc::new(real(&creds)) };
    let fs = FsContext::of(cx)?;
    Vfs::new(OpCx::of_task(cx, &creds), &fs).access(&at, &path, LookupFlags::from_at(flags), mode).map(|()| 0)
}

/// `faccessat(2)`
///
/// # Errors
/// As [`faccessat2`].
pub fn faccessat(cx: &mut Cx<'_>, fd: Fd, path: PathPtr, mode: u32) -> Result<usize, Errno> {
    faccessat2(cx, fd, path, mode, 0)
}

/// `access(2)`
///
/// # Errors
/// As [`faccessat2`].
pub fn access(cx: &mut Cx<'_>, path: PathPtr, mode: u32) -> Result<usize, Errno> {
    faccessat2(cx, Fd::CWD, path, mode, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_asks_for_the_real_user() {
        let creds = Credentials { uid: 1000, ..Credentials::root() };
        let real_user = real(&creds);
        assert_eq!((real_user.fsuid, real_user.cap_effective), (1000, CapSet::EMPTY));
        assert_eq!(real(&Credentials::root()).cap_effective, CapSet::FULL);
    }

    #[test]
    fn times_of_utimensat() {
        assert_eq!(time(Timespec { sec: 0, nsec: UTIME_OMIT }), Ok(None));
        assert_eq!(time(Timespec { sec: 0, nsec: 1_000_000_000 }), Err(Errno::EINVAL));
        assert!(matches!(time(Timespec { sec: -5, nsec: 0 }), Ok(Some(SetTime::At(_)))));
    }
}
