//! What file systems implement for each open file.
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET};
use memmap::{IoDst, IoSrc, Mappable};
use sync::{PollEvents, WaitQueue};

use crate::{Metadata, OpCx, SocketOps};

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// The position after it: reading goes on behind it from there.
    pub next: u64,
    /// Type, `S_IFMT`; 0 where not known.
    pub file_type: u32,
    /// The name.
    pub name: &'a [u8],
}

/// Takes the entries of a directory.
pub trait DirSink {
    /// Takes one entry; false when there is no room for it, and it must be told again at the next call.
    fn add(&mut self, entry: &DirEntry<'_>) -> bool;
}

/// What seek(2) in a file of this size gives, without holes; for files that know no better.
///
/// # Errors
/// `EINVAL` for a negative result or an unknown `whence`, `EOVERFLOW`, `ENXIO` beyond the end for `SEEK_DATA` and `SEEK_HOLE`.
pub fn seek_in_size(size: u64, position: u64, offset: i64, whence: u32) -> Result<u64, Errno> {
    let base = match whence {
        SEEK_SET => 0,
        SEEK_CUR => position,
        SEEK_END => size,
        SEEK_DATA | SEEK_HOLE => {
            let at = u64::try_from(offset).ok().filter(|at| *at < size).ok_or(Errno::ENXIO)?;
            return Ok(if whence == SEEK_DATA { at } else { size });
        }
        _ => return Err(Errno::EINVAL),
    };
    let base = i64::try_from(base).or(Err(Errno::EOVERFLOW))?;
    let to = base.checked_add(offset).ok_or(Errno::EOVERFLOW)?;
    u64::try_from(to).or(Err(Errno::EINVAL))
}

/// What is behind an open file description. Positions are the description's; pipes, sockets and terminals have none.
///
/// Nothing here blocks: `EAGAIN`, and a notification of the wait queue when to try again, whatever `O_NONBLOCK` says.
/// Releasing is `Drop`.
pub trait FileOps: Any + Send + Sync + Debug {
    /// Reads at an offset (0 for streams).
    ///
    /// # Errors
    /// Those of read(2).
    fn read_at(&self, cx: &OpCx<'_>, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        let _ = (cx, dst, offset);
        Err(Errno::EINVAL)
    }

    /// Writes at an offset (0 for streams).
    ///
    /// # Errors
    /// Those of write(2).
    fn write_at(&self, cx: &OpCx<'_>, src: &mut IoSrc<'_>, offset: u64) -> Result<usize, Errno> {
        let _ = (cx, src, offset);
        Err(Errno::EINVAL)
    }

    /// Writes at the end; tells how many bytes and where the file ended before.
    ///
    /// # Errors
    /// Those of write(2).
    fn append(&self, cx: &OpCx<'_>, src: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        let end = self.size()?;
        Ok((self.write_at(cx, src, end)?, end))
    }

    /// The size in bytes; what `SEEK_END`, `append` and the limit of file sizes go by.
    ///
    /// # Errors
    /// `EINVAL` where there is none.
    fn size(&self) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }

    /// Tells whether the file has no position: pread(2) and lseek(2) are then `ESPIPE`.
    fn stream(&self) -> bool {
        false
    }

    /// Where `lseek` leads from `position`.
    ///
    /// # Errors
    /// Those of lseek(2).
    fn seek(&self, cx: &OpCx<'_>, position: u64, offset: i64, whence: u32) -> Result<u64, Errno> {
        let _ = cx;
        seek_in_size(self.size().unwrap_or(0), position, offset, whence)
    }

    /// Tells whether lseek(2) of a stream succeeds and does nothing, as Linux `noop_llseek`.
    fn noop_seek(&self) -> bool {
        false
    }

    /// Tells the entries of a directory from `position` (0 at first, then [`DirEntry::next`] of the last taken), with `.`
    /// and `..`. Gives the position to go on from.
    ///
    /// # Errors
    /// `ENOTDIR` for what is no directory, `ENOENT` for a removed one, `EIO`.
    fn readdir(&self, cx: &OpCx<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let _ = (cx, position, sink);
        Err(Errno::ENOTDIR)
    }

    /// A request of ioctl(2).
    ///
    /// # Errors
    /// `ENOTTY` for one the file does not know.
    fn ioctl(&self, cx: &OpCx<'_>, cmd: u32, arg: u64) -> Result<usize, Errno> {
        let _ = (cx, cmd, arg);
        Err(Errno::ENOTTY)
    }

    /// What the file is ready for.
    fn poll(&self, cx: &OpCx<'_>) -> PollEvents {
        let _ = cx;
        PollEvents::READABLE | PollEvents::WRITABLE
    }

    /// Who is told when [`Self::poll`] changes; `None` where it never does.
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// Tells whether epoll(7) takes the file: it takes those with a wait queue.
    fn epollable(&self) -> bool {
        self.wait_queue().is_some()
    }

    /// Tells whether the open is complete: `EAGAIN` while a FIFO waits for its other end, announced by the wait queue.
    ///
    /// # Errors
    /// `EAGAIN`.
    fn finish_open(&self, cx: &OpCx<'_>) -> Result<(), Errno> {
        let _ = cx;
        Ok(())
    }

    /// What mmap(2) maps.
    ///
    /// # Errors
    /// `ENODEV` for what cannot be mapped.
    fn mappable(&self, cx: &OpCx<'_>) -> Result<Arc<dyn Mappable>, Errno> {
        let _ = cx;
        Err(Errno::ENODEV)
    }

    /// fsync(2); `data_only` for fdatasync(2).
    ///
    /// # Errors
    /// `EINVAL` for what has nothing to write back, `EIO`, `ENOSPC`.
    fn fsync(&self, cx: &OpCx<'_>, data_only: bool) -> Result<(), Errno> {
        let _ = (cx, data_only);
        Err(Errno::EINVAL)
    }

    /// fallocate(2); the caller checked `mode`'s combinations and the range.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENODEV`, `ENOSPC`, `EFBIG`.
    fn fallocate(&self, cx: &OpCx<'_>, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let _ = (cx, mode, offset, len);
        Err(Errno::ENODEV)
    }

    /// A descriptor was closed: late errors.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`, `EDQUOT`.
    fn flush(&self, cx: &OpCx<'_>) -> Result<(), Errno> {
        let _ = cx;
        Ok(())
    }

    /// The status flags are about to become `flags` (`F_SETFL`).
    ///
    /// # Errors
    /// `EINVAL` for a flag that the file refuses.
    fn set_flags(&self, cx: &OpCx<'_>, flags: u32) -> Result<(), Errno> {
        let _ = (cx, flags);
        Ok(())
    }

    /// Attributes that are the open file's rather than its inode's.
    fn metadata(&self) -> Option<Result<Metadata, Errno>> {
        None
    }

    /// The open file as a socket.
    fn socket(&self) -> Option<&dyn SocketOps> {
        None
    }

    /// Lines for `/proc/PID/fdinfo/N` beyond `pos`, `flags`, `mnt_id` and `ino`.
    fn fdinfo(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl dyn FileOps {
    /// The open file as what it really is.
    #[must_use]
    pub fn downcast_ref<T: FileOps>(&self) -> Option<&T> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }

    /// The open file as what it really is, shared.
    #[must_use]
    pub fn downcast_arc<T: FileOps>(self: Arc<Self>) -> Option<Arc<T>> {
        let any: Arc<dyn Any + Send + Sync> = self;
        any.downcast().ok()
    }
}
