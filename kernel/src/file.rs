//! Open files, as tasks see them.
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use abi::Errno;
use abi::time::Timespec;
use memmap::{IoDst, IoSrc, MmapFile};
use sync::{PollEvents, WaitQueue};

use crate::Task;

/// What stat(2) and statx(2) tell of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Device number of the file system, in Linux's encoding (`new_encode_dev`).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type (`S_IFMT`) and permissions.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Storage used, in units of 512 bytes.
    pub blocks: u64,
    /// Preferred size of reads and writes.
    pub blksize: u32,
    /// Last access.
    pub atime: Timespec,
    /// Last change of contents.
    pub mtime: Timespec,
    /// Last change of attributes.
    pub ctime: Timespec,
    /// Creation; zero where not known.
    pub btime: Timespec,
    /// `STATX_ATTR_*`.
    pub attributes: u64,
}

/// An open file description. The methods' defaults give the errno that Linux gives where a file lacks the operation.
///
/// No method blocks: what is not ready is `EAGAIN`, and the file's [`WaitQueue`] tells when to try again.
pub trait File: Any + Send + Sync + Debug {
    /// Reads from the position and moves it; tells how many bytes, 0 at the end.
    ///
    /// # Errors
    /// Those of read(2).
    fn read(&self, task: &Task, dst: &mut IoDst<'_>) -> Result<usize, Errno> {
        let _ = (task, dst);
        Err(Errno::EINVAL)
    }
    /// Writes at the position, or with `O_APPEND` at the end, and moves it; tells how many bytes.
    ///
    /// # Errors
    /// Those of write(2).
    fn write(&self, task: &Task, src: &mut IoSrc<'_>) -> Result<usize, Errno> {
        let _ = (task, src);
        Err(Errno::EINVAL)
    }
    /// Reads at an offset.
    ///
    /// # Errors
    /// Those of pread(2), `ESPIPE` where there is no position.
    fn pread(&self, task: &Task, dst: &mut IoDst<'_>, offset: i64) -> Result<usize, Errno> {
        let _ = (task, dst, offset);
        Err(Errno::ESPIPE)
    }
    /// Writes at an offset (with `O_APPEND` at the end, as Linux does).
    ///
    /// # Errors
    /// Those of pwrite(2), `ESPIPE` where there is no position.
    fn pwrite(&self, task: &Task, src: &mut IoSrc<'_>, offset: i64) -> Result<usize, Errno> {
        let _ = (task, src, offset);
        Err(Errno::ESPIPE)
    }
    /// Moves the position; tells the new one.
    ///
    /// # Errors
    /// Those of lseek(2).
    fn seek(&self, task: &Task, offset: i64, whence: u32) -> Result<i64, Errno> {
        let _ = (task, offset, whence);
        Err(Errno::ESPIPE)
    }
    /// A request of ioctl(2); `arg` may be an address in the task's memory.
    ///
    /// # Errors
    /// Those of ioctl(2), `ENOTTY` for a request the file does not know.
    fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> Result<usize, Errno> {
        let _ = (task, cmd, arg);
        Err(Errno::ENOTTY)
    }
    /// What the file is ready for now.
    fn poll(&self, task: &Task) -> PollEvents {
        let _ = task;
        PollEvents::READABLE | PollEvents::WRITABLE
    }
    /// Who is told when [`Self::poll`] changes; `None` where it never does.
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }
    /// What mmap(2) is to map; the offset is the caller's to fill in.
    ///
    /// # Errors
    /// Those of mmap(2), `ENODEV` where the file cannot be mapped.
    fn mappable(&self, task: &Task, prot: u32, flags: u32) -> Result<MmapFile, Errno> {
        let _ = (task, prot, flags);
        Err(Errno::ENODEV)
    }
    /// The file's attributes.
    ///
    /// # Errors
    /// Those of fstat(2).
    fn stat(&self, task: &Task) -> Result<Metadata, Errno>;
    /// Access mode and status flags, as `F_GETFL` tells them.
    fn status_flags(&self) -> u32;
    /// Changes the status flags that `F_SETFL` may change.
    ///
    /// # Errors
    /// Those of `F_SETFL`.
    fn set_status_flags(&self, task: &Task, flags: u32) -> Result<(), Errno> {
        let _ = (task, flags);
        Err(Errno::EINVAL)
    }
    /// A descriptor of it was closed (Linux `filp_close`): gives up record locks, reports late errors.
    ///
    /// # Errors
    /// Those of close(2).
    fn flush(&self, task: &Task) -> Result<(), Errno> {
        let _ = task;
        Ok(())
    }
}

impl dyn File {
    /// The file as what it really is.
    pub fn downcast_ref<T: File>(&self) -> Option<&T> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }

    /// The file as what it really is, shared.
    ///
    /// # Errors
    /// Gives the file back where it is something else.
    pub fn downcast_arc<T: File>(self: Arc<Self>) -> Option<Arc<T>> {
        let any: Arc<dyn Any + Send + Sync> = self;
        any.downcast().ok()
    }
}
