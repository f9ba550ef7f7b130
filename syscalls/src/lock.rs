//! Locks of files: `flock(2)`, and the lock commands of `fcntl(2)`.
use std::ops::RangeInclusive;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{
    F_GETLK, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_RDLCK, F_SETLKW, F_UNLCK, F_WRLCK, Flock, LOCK_EX,
    LOCK_NB, LOCK_SH, LOCK_UN, SEEK_CUR, SEEK_END, SEEK_SET,
};
use kernel::File;
use sync::PollEvents;
use vfs::FileDescription;
use vfs::locks::{FileLocks, LAST, LockOwner, RecordLock, Waiting};

use crate::Cx;
use crate::blocking::Wait;
use crate::decode::{Fd, UserPtr};

/// `flock(2)`
///
/// # Errors
/// `EINVAL`, `EBADF`, `EAGAIN`, `EINTR`.
pub fn flock(cx: &mut Cx<'_>, fd: Fd, operation: u32) -> Result<usize, Errno> {
    let exclusive = match operation & !LOCK_NB {
        LOCK_SH => Some(false),
        LOCK_EX => Some(true),
        LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    let file = cx.file(fd)?;
    let description = FileDescription::from_file(&file).filter(|d| !d.is_path_only()).ok_or(Errno::EBADF)?;
    let locks = Arc::clone(description.locks()?);
    let id = description.lock_id();
    let wait = Wait::unless(operation & LOCK_NB != 0);
    cx.wait_on(locks.released(), PollEvents::IN, wait, |_| locks.set_whole(id, exclusive)).map(|()| 0)
}

/// The bytes that a `struct flock` means, Linux `flock64_to_posix_lock`.
fn range(start: i64, len: i64, base: i64) -> Result<RangeInclusive<u64>, Errno> {
    let start = start.checked_add(base).ok_or(Errno::EOVERFLOW)?;
    if start < 0 {
        return Err(Errno::EINVAL);
    }
    let (start, last) = match len {
        0 => (start, i64::MAX),
        1.. => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        _ => (start.checked_add(len).filter(|s| *s >= 0).ok_or(Errno::EINVAL)?, start - 1),
    };
    match (u64::try_from(start), u64::try_from(last)) {
        (Ok(start), Ok(last)) => Ok(start..=last),
        _ => Err(Errno::EINVAL),
    }
}

/// The bytes that the caller means.
fn wanted(cx: &Cx<'_>, file: &Arc<dyn File>, lock: &Flock) -> Result<RangeInclusive<u64>, Errno> {
    let base = match u32::try_from(lock.whence).map_err(|_negative| Errno::EINVAL)? {
        SEEK_SET => 0,
        SEEK_CUR => file.seek(cx, 0, SEEK_CUR).unwrap_or(0),
        SEEK_END => i64::try_from(file.stat(cx)?.size).map_err(|_wide| Errno::EOVERFLOW)?,
        _ => return Err(Errno::EINVAL),
    };
    range(lock.start, lock.len, base)
}

/// The lock commands of fcntl(2).
///
/// # Errors
/// `EFAULT`, `EINVAL`, `EOVERFLOW`, `EBADF`, `EAGAIN`, `EDEADLK`, `EINTR`.
pub(crate) fn record_lock(
    cx: &mut Cx<'_>,
    file: &Arc<dyn File>,
    command: u32,
    arg: u64,
) -> Result<usize, Errno> {
    let at = UserPtr::<Flock>::new(arg);
    let lock = at.read(cx)?;
    let description = FileDescription::from_file(file).ok_or(Errno::EBADF)?;
    let by_description = matches!(command, F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW);
    if by_description && lock.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = u32::try_from(lock.ty).map_err(|_negative| Errno::EINVAL)?;
    let range = wanted(cx, file, &lock)?;
    let owner = if by_description {
        LockOwner::Description(description.lock_id())
    } else {
        LockOwner::Process(cx.group().process_id())
    };
    let new = RecordLock { owner, exclusive: kind == F_WRLCK, range };
    let locks = Arc::clone(description.locks()?);
    if matches!(command, F_GETLK | F_OFD_GETLK) {
        if kind != F_RDLCK && kind != F_WRLCK {
            return Err(Errno::EINVAL);
        }
        at.write(cx, &told(lock, locks.conflict(&new)))?;
        return Ok(0);
    }
    match kind {
        F_UNLCK => {
            locks.unlock(owner, &new.range);
            return Ok(0);
        }
        F_RDLCK if !description.is_readable() => return Err(Errno::EBADF),
        F_WRLCK if !description.is_writable() => return Err(Errno::EBADF),
        F_RDLCK | F_WRLCK => {}
        _ => return Err(Errno::EINVAL),
    }
    if matches!(command, F_SETLKW | F_OFD_SETLKW) {
        wait_for(cx, &locks, &new)?;
    } else {
        locks.set(&new)?;
    }
    Ok(0)
}

/// Sets a lock as soon as it can be.
fn wait_for(cx: &mut Cx<'_>, locks: &FileLocks, new: &RecordLock) -> Result<(), Errno> {
    let mut waiting = None;
    cx.wait_on(locks.released(), PollEvents::IN, Wait::Forever, |_| {
        // Whom this waits for may have changed.
        waiting = None;
        let result = locks.set(new);
        if result == Err(Errno::EAGAIN)
            && let LockOwner::Process(own) = new.owner
            && let Some(RecordLock { owner: LockOwner::Process(holder), .. }) = locks.conflict(new)
        {
            waiting = Some(Waiting::new(own, holder)?);
        }
        result
    })
}

/// What `F_GETLK` stores.
fn told(asked: Flock, conflict: Option<RecordLock>) -> Flock {
    let ty = |kind: u32| i16::try_from(kind).unwrap_or_default();
    let Some(lock) = conflict else { return Flock { ty: ty(F_UNLCK), ..asked } };
    let (start, last) = lock.range.into_inner();
    let len = if last == LAST { 0 } else { last - start + 1 };
    Flock {
        ty: ty(if lock.exclusive { F_WRLCK } else { F_RDLCK }),
        whence: ty(SEEK_SET),
        start: start.cast_signed(),
        len: len.cast_signed(),
        pid: match lock.owner {
            LockOwner::Process(process) => process.tgid,
            LockOwner::Description(_) => -1,
        },
        ..asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_linux_s() {
        assert_eq!(range(10, 5, 0), Ok(10..=14));
        assert_eq!(range(10, 0, 5), Ok(15..=LAST));
        assert_eq!(range(10, -3, 0), Ok(7..=9));
        assert_eq!(range(2, -3, 0), Err(Errno::EINVAL));
        assert_eq!(range(-1, 1, 0), Err(Errno::EINVAL));
        assert_eq!(range(i64::MAX, 2, 0), Err(Errno::EOVERFLOW));
        assert_eq!(range(i64::MAX, 1, 1), Err(Errno::EOVERFLOW));
        assert_eq!(range(i64::MAX, 1, 0), Ok(LAST..=LAST));
    }
}
