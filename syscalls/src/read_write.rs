//! Moving bytes between files and memory: `read(2)`, `write(2)`, `pread(2)`, `readv(2)`, `lseek(2)`.
use std::sync::Arc;

use abi::uio::{RWF_APPEND, RWF_DSYNC, RWF_HIPRI, RWF_NOAPPEND, RWF_NOWAIT, RWF_SYNC};
use abi::{Errno, Signal};
use kernel::File;
use kernel::signal::{SigInfo, send_to_task};
use memmap::{IoDst, IoSrc, IoVec};
use smallvec::SmallVec;
use sync::PollEvents;
use vfs::FileDescription;

use crate::Cx;
use crate::blocking::Wait;
use crate::cx::rest;
use crate::decode::{Fd, UserPtr};

/// Where in the file.
#[derive(Clone, Copy, Debug)]
enum At {
    Position,
    Offset(i64),
}

impl At {
    /// The offset of pread(2) and its kin.
    fn offset(offset: i64) -> Result<Self, Errno> {
        if offset < 0 { Err(Errno::EINVAL) } else { Ok(Self::Offset(offset)) }
    }
    const fn as_offset(self) -> Option<i64> {
        match self {
            Self::Position => None,
            Self::Offset(offset) => Some(offset),
        }
    }
    /// The offset of preadv2(2), where -1 is the position.
    fn offset_or_position(offset: i64) -> Result<Self, Errno> {
        if offset == -1 { Ok(Self::Position) } else { Self::offset(offset) }
    }
    /// Refuses what would end beyond the largest offset, Linux `rw_verify_area`.
    fn verify(&self, len: usize) -> Result<(), Errno> {
        match *self {
            Self::Offset(offset) if i64::try_from(len).is_ok_and(|len| offset.checked_add(len).is_none()) => {
                Err(Errno::EINVAL)
            }
            _ => Ok(()),
        }
    }
}

fn read_at(
    cx: &mut Cx<'_>,
    file: &Arc<dyn File>,
    at: At,
    dst: &mut IoDst<'_>,
    wait: Wait,
) -> Result<usize, Errno> {
    at.verify(dst.remaining())?;
    cx.blocking(file, PollEvents::READABLE, wait, |cx| match at {
        At::Position => file.read(cx, dst),
        At::Offset(offset) => file.pread(cx, dst, offset),
    })
}

/// Each attempt starts behind what was taken, for a file may have looked at bytes that it then did not take.
fn write_at(
    cx: &mut Cx<'_>,
    file: &Arc<dyn File>,
    at: At,
    pieces: &[IoVec],
    wait: Wait,
) -> Result<usize, Errno> {
    write_appending(cx, file, at, pieces, wait, None)
}

/// As [`write_at`], with `append` in the place of the description's `O_APPEND`.
fn write_appending(
    cx: &mut Cx<'_>,
    file: &Arc<dyn File>,
    at: At,
    pieces: &[IoVec],
    wait: Wait,
    append: Option<bool>,
) -> Result<usize, Errno> {
    let mm = Arc::clone(cx.memory()?);
    let len = usize::try_from(pieces.iter().map(|p| p.len).sum::<u64>()).unwrap_or(usize::MAX);
    at.verify(len)?;
    let result = cx.blocking_all(file, wait, len, |cx, done| {
        let mut src = IoSrc::user_iovec(&mm, rest(pieces, done));
        match (append, at) {
            (None, At::Position) => file.write(cx, &mut src),
            (None, At::Offset(offset)) => file.pwrite(cx, &mut src, offset),
            (Some(append), at) => {
                let file = FileDescription::from_file(file).ok_or(Errno::EOPNOTSUPP)?;
                file.write_with(cx, &mut src, at.as_offset(), append)
            }
        }
    });
    result.map_err(|errno| signal_for(cx, errno))
}

/// Sends the signal that goes with the error of a write; gives the error back.
pub(crate) fn signal_for(cx: &Cx<'_>, errno: Errno) -> Errno {
    let signal = match errno {
        Errno::EPIPE => Signal::SIGPIPE,
        _ => return errno,
    };
    // Neither is a real-time signal, which alone could find no room.
    let _never_full = send_to_task(cx, SigInfo::kill(signal, cx.tgid(), cx.credentials().uid));
    errno
}

/// `read(2)`
///
/// # Errors
/// `EBADF`, `EFAULT`, and the file's.
pub fn read(cx: &mut Cx<'_>, fd: Fd, buf: UserPtr<u8>, len: usize) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let mm = Arc::clone(cx.memory()?);
    let mut dst = Cx::dst(&mm, buf, len)?;
    read_at(cx, &file, At::Position, &mut dst, Wait::of(&*file))
}

/// `write(2)`
///
/// # Errors
/// `EBADF`, `EFAULT`, `EPIPE` with `SIGPIPE`, `EFBIG` with `SIGXFSZ`, and the file's.
pub fn write(cx: &mut Cx<'_>, fd: Fd, buf: UserPtr<u8>, len: usize) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let pieces = Cx::src(buf, len)?;
    write_at(cx, &file, At::Position, &pieces, Wait::of(&*file))
}

/// `pread64(2)`
///
/// # Errors
/// As [`read`], `EINVAL` for a negative offset, `ESPIPE` where there is no position.
pub fn pread64(cx: &mut Cx<'_>, fd: Fd, buf: UserPtr<u8>, len: usize, offset: i64) -> Result<usize, Errno> {
    let at = At::offset(offset)?;
    let file = cx.file(fd)?;
    let mm = Arc::clone(cx.memory()?);
    let mut dst = Cx::dst(&mm, buf, len)?;
    read_at(cx, &file, at, &mut dst, Wait::of(&*file))
}

/// `pwrite64(2)`
///
/// # Errors
/// As [`write`], `EINVAL` for a negative offset, `ESPIPE` where there is no position.
pub fn pwrite64(cx: &mut Cx<'_>, fd: Fd, buf: UserPtr<u8>, len: usize, offset: i64) -> Result<usize, Errno> {
    let at = At::offset(offset)?;
    let file = cx.file(fd)?;
    let pieces = Cx::src(buf, len)?;
    write_at(cx, &file, at, &pieces, Wait::of(&*file))
}

fn read_pieces(
    cx: &mut Cx<'_>,
    file: &Arc<dyn File>,
    at: At,
    pieces: SmallVec<[IoVec; 4]>,
    wait: Wait,
) -> Result<usize, Errno> {
    let mm = Arc::clone(cx.memory()?);
    read_at(cx, file, at, &mut IoDst::user_iovec(&mm, pieces), wait)
}

/// `readv(2)`
///
/// # Errors
/// As [`read`], `EINVAL` for a bad vector.
pub fn readv(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<IoVec>, count: usize) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let pieces = cx.iovec(iov, count)?;
    read_pieces(cx, &file, At::Position, pieces, Wait::of(&*file))
}

/// `writev(2)`
///
/// # Errors
/// As [`write`], `EINVAL` for a bad vector.
pub fn writev(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<IoVec>, count: usize) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let pieces = cx.iovec(iov, count)?;
    write_at(cx, &file, At::Position, &pieces, Wait::of(&*file))
}

/// `preadv(2)`
///
/// # Errors
/// As [`pread64`], `EINVAL` for a bad vector.
pub fn preadv(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    offset: i64,
) -> Result<usize, Errno> {
    let at = At::offset(offset)?;
    let file = cx.file(fd)?;
    let pieces = cx.iovec(iov, count)?;
    read_pieces(cx, &file, at, pieces, Wait::of(&*file))
}

/// `pwritev(2)`
///
/// # Errors
/// As [`pwrite64`], `EINVAL` for a bad vector.
pub fn pwritev(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    offset: i64,
) -> Result<usize, Errno> {
    let at = At::offset(offset)?;
    let file = cx.file(fd)?;
    let pieces = cx.iovec(iov, count)?;
    write_at(cx, &file, at, &pieces, Wait::of(&*file))
}

/// Checks the flags of preadv2(2) and pwritev2(2), Linux `kiocb_set_rw_flags`.
fn read_flags(flags: u32) -> Result<(), Errno> {
    if flags & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND | RWF_NOAPPEND) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & RWF_APPEND != 0 && flags & RWF_NOAPPEND != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn wait_flags(file: &dyn File, flags: u32) -> Wait {
    if flags & RWF_NOWAIT != 0 { Wait::Never } else { Wait::of(file) }
}

/// `preadv2(2)`
///
/// # Errors
/// As [`preadv`], `EOPNOTSUPP` for unknown flags.
pub fn preadv2(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    offset: i64,
    _offset_high: u64,
    flags: u32,
) -> Result<usize, Errno> {
    let at = At::offset_or_position(offset)?;
    let file = cx.file(fd)?;
    let pieces = cx.iovec(iov, count)?;
    read_flags(flags)?;
    read_pieces(cx, &file, at, pieces, wait_flags(&*file, flags))
}

/// `pwritev2(2)`
///
/// # Errors
/// As [`pwritev`], `EOPNOTSUPP` for unknown flags.
pub fn pwritev2(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    offset: i64,
    _offset_high: u64,
    flags: u32,
) -> Result<usize, Errno> {
    let at = At::offset_or_position(offset)?;
    let file = cx.file(fd)?;
    let pieces = cx.iovec(iov, count)?;
    read_flags(flags)?;
    let append = match flags & (RWF_APPEND | RWF_NOAPPEND) {
        0 => None,
        append => Some(append == RWF_APPEND),
    };
    let written = write_appending(cx, &file, at, &pieces, wait_flags(&*file, flags), append)?;
    if flags & (RWF_DSYNC | RWF_SYNC) != 0 && written > 0 {
        crate::sync::sync_file(cx, &file, flags & RWF_SYNC == 0)?;
    }
    Ok(written)
}

/// The highest `SEEK_*`, `SEEK_HOLE`.
const SEEK_MAX: u32 = 4;

/// `lseek(2)`
///
/// # Errors
/// `EBADF`, `EINVAL`, `ESPIPE`, `ENXIO`, `EOVERFLOW`.
pub fn lseek(cx: &mut Cx<'_>, fd: Fd, offset: i64, whence: u32) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    if whence > SEEK_MAX {
        return Err(Errno::EINVAL);
    }
    let position = file.seek(cx, offset, whence)?;
    usize::try_from(position).map_err(|_negative| Errno::EOVERFLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_preadv2() {
        assert_eq!(read_flags(RWF_NOWAIT | RWF_HIPRI), Ok(()));
        assert_eq!(read_flags(0x100), Err(Errno::EOPNOTSUPP));
        assert_eq!(read_flags(RWF_APPEND | RWF_NOAPPEND), Err(Errno::EINVAL));
    }
}
