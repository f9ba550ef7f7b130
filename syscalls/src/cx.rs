//! What a handler gets: the calling thread, and short ways to its files and memory.
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use abi::Errno;
use abi::uio::{MAX_RW_COUNT, UIO_MAXIOV};
use kernel::{CurrentTask, File};
use memmap::{IoDst, IoVec, MemoryManager};
use smallvec::SmallVec;

use crate::decode::{Fd, UserPtr};

/// The longest path with its terminator, Linux `PATH_MAX`.
pub const PATH_MAX: usize = 4096;

/// One system call of one thread.
#[derive(Debug)]
pub struct Cx<'a> {
    /// The thread that called.
    pub cur: &'a mut CurrentTask,
    /// Its memory; none only while it exits.
    mm: Option<Arc<MemoryManager>>,
    /// The call, for counted events.
    name: &'static str,
}

impl Deref for Cx<'_> {
    type Target = CurrentTask;
    fn deref(&self) -> &CurrentTask {
        self.cur
    }
}
impl DerefMut for Cx<'_> {
    fn deref_mut(&mut self) -> &mut CurrentTask {
        self.cur
    }
}

impl<'a> Cx<'a> {
    /// The call `name` of `cur`.
    #[must_use]
    pub fn new(cur: &'a mut CurrentTask, name: &'static str) -> Self {
        let mm = cur.mm();
        Self { cur, mm, name }
    }

    /// Counts that the call, which is not there, was made; gives the error back.
    pub fn absent(&self, errno: Errno) -> Errno {
        self.cur.kernel().unsupported(self.name);
        errno
    }

    /// Counts that something of the call was asked for that is not there; gives the error back.
    pub fn unsupported(&self, what: &'static str, errno: Errno) -> Errno {
        self.cur.kernel().unsupported(what);
        errno
    }

    /// The memory of the process.
    ///
    /// # Errors
    /// `EFAULT` where it has none any more.
    pub fn memory(&self) -> Result<&Arc<MemoryManager>, Errno> {
        self.mm.as_ref().ok_or(Errno::EFAULT)
    }

    /// The open file of a descriptor.
    ///
    /// # Errors
    /// `EBADF` where it is not open.
    pub fn file(&self, fd: Fd) -> Result<Arc<dyn File>, Errno> {
        self.cur.fd_table().ok_or(Errno::EBADF)?.get(fd.0)
    }

    /// The soft limit on a resource.
    #[must_use]
    pub fn limit(&self, resource: kernel::Resource) -> u64 {
        self.cur.group().limits().get(resource).0
    }

    /// Copies a path in, without its terminator.
    ///
    /// # Errors
    /// `EFAULT`; `ENAMETOOLONG` where no terminator comes within [`PATH_MAX`].
    pub fn path(&self, path: UserPtr<u8>) -> Result<Vec<u8>, Errno> {
        self.memory()?.read_cstr(path.addr(), PATH_MAX)
    }

    /// Copies a path in; the null pointer is the empty path where `AT_EMPTY_PATH` allows one.
    ///
    /// # Errors
    /// As [`Self::path`].
    pub fn path_or_null(&self, path: UserPtr<u8>, empty: bool) -> Result<Vec<u8>, Errno> {
        if empty && path.is_null() { Ok(Vec::new()) } else { self.path(path) }
    }

    /// A guest buffer to read into, cut to what one call moves.
    ///
    /// # Errors
    /// `EFAULT` for what cannot be a user address.
    pub fn dst(mm: &MemoryManager, buf: UserPtr<u8>, len: usize) -> Result<IoDst<'_>, Errno> {
        check_range(buf.addr(), len)?;
        Ok(IoDst::user(mm, buf.addr(), len.min(MAX_RW_COUNT)))
    }

    /// A guest buffer to write from, cut to what one call moves.
    ///
    /// # Errors
    /// `EFAULT` for what cannot be a user address.
    pub fn src(buf: UserPtr<u8>, len: usize) -> Result<SmallVec<[IoVec; 4]>, Errno> {
        check_range(buf.addr(), len)?;
        Ok(SmallVec::from_slice(&[IoVec { addr: buf.addr(), len: len.min(MAX_RW_COUNT) as u64 }]))
    }

    /// Copies a vector of buffers in, cut to what one call moves: Linux `import_iovec`.
    ///
    /// # Errors
    /// `EINVAL` for more than `UIO_MAXIOV` buffers or a negative length, `EFAULT`.
    pub fn iovec(&self, iov: UserPtr<IoVec>, count: usize) -> Result<SmallVec<[IoVec; 4]>, Errno> {
        if count > UIO_MAXIOV {
            return Err(Errno::EINVAL);
        }
        let mut pieces = SmallVec::<[IoVec; 4]>::new();
        for i in 0..count {
            pieces.push(iov.at(i)?.read(self)?);
        }
        cut_iovec(&mut pieces)?;
        Ok(pieces)
    }
}

/// What is left of a vector of buffers after its first `done` bytes.
pub(crate) fn rest(pieces: &[IoVec], done: usize) -> SmallVec<[IoVec; 4]> {
    let mut skip = done as u64;
    let mut rest = SmallVec::new();
    for piece in pieces {
        let cut = skip.min(piece.len);
        skip -= cut;
        rest.push(IoVec { addr: piece.addr.wrapping_add(cut), len: piece.len - cut });
    }
    rest
}

/// The end of what user space can address, Linux `TASK_SIZE_MAX` with four-level page tables.
const TASK_SIZE_MAX: u64 = (1 << 47) - 4096;

/// Linux `access_ok`.
fn check_range(addr: u64, len: usize) -> Result<(), Errno> {
    let end = addr.checked_add(len as u64).ok_or(Errno::EFAULT)?;
    if end > TASK_SIZE_MAX { Err(Errno::EFAULT) } else { Ok(()) }
}

/// Checks each piece and cuts all to [`MAX_RW_COUNT`] bytes, Linux `__import_iovec`.
fn cut_iovec(pieces: &mut [IoVec]) -> Result<(), Errno> {
    let mut left = MAX_RW_COUNT as u64;
    for piece in pieces {
        if piece.len.cast_signed() < 0 {
            return Err(Errno::EINVAL);
        }
        check_range(piece.addr, usize::try_from(piece.len).unwrap_or(usize::MAX))?;
        piece.len = piece.len.min(left);
        left -= piece.len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_passed_over() {
        let pieces = [IoVec { addr: 10, len: 5 }, IoVec { addr: 100, len: 0 }, IoVec { addr: 50, len: 5 }];
        assert_eq!(
            rest(&pieces, 7)[..],
            [IoVec { addr: 15, len: 0 }, IoVec { addr: 100, len: 0 }, IoVec { addr: 52, len: 3 }]
        );
    }

    #[test]
    fn vectors_are_checked_and_cut() {
        let mut pieces = [IoVec { addr: 0, len: 0x7fff_0000 }, IoVec { addr: 1, len: 0x7fff_0000 }];
        assert_eq!(cut_iovec(&mut pieces), Ok(()));
        assert_eq!(pieces[1].len, 0xf000);
        assert_eq!(cut_iovec(&mut [IoVec { addr: 0, len: 1 << 63 }]), Err(Errno::EINVAL));
        assert_eq!(cut_iovec(&mut [IoVec { addr: 1 << 47, len: 1 }]), Err(Errno::EFAULT));
        assert_eq!(cut_iovec(&mut [IoVec { addr: u64::MAX, len: 2 }]), Err(Errno::EFAULT));
    }
}
