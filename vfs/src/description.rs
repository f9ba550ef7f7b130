//! Open file descriptions: what open(2) makes and descriptors share.
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use abi::Errno;
use abi::fs::{
    F_SEAL_FUTURE_WRITE, F_SEAL_WRITE, FASYNC, MS_NOATIME, MS_NODIRATIME, MS_NOEXEC, O_ACCMODE, O_APPEND,
    O_CREAT, O_DIRECT, O_EXCL, O_NOATIME, O_NOCTTY, O_NONBLOCK, O_PATH, O_RDWR, O_TRUNC, O_WRONLY,
};
use abi::mman::{MAP_SHARED, MAP_TYPE, PROT_EXEC, PROT_WRITE};
use abi::stat::{S_IFDIR, S_IFMT, S_IFREG};
use kernel::{Credentials, File, RLIMIT_FSIZE, Task};
use memmap::{IoDst, IoSrc, MmapFile};
use sync::{LockClass, Mutex, PollEvents, WaitQueue};

use crate::named_mapping::NamedMapping;
use crate::notify::event;
use crate::tmpfs::TmpfsInode;
use crate::write_count::WriteHold;
use crate::{DirSink, FileOps, Metadata, OpCx, Path, locks, permission};

/// The status flags that `F_SETFL` changes.
const SETTABLE: u32 = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | FASYNC;
/// The flags that matter to open(2) only.
const OPEN_ONLY: u32 = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC;
/// The largest offset there is, Linux `MAX_LFS_FILESIZE`.
pub(crate) const MAX_OFFSET: u64 = i64::MAX.cast_unsigned();

/// An open file, Linux `struct file`. Implements [`kernel::File`].
///
/// A read costs the position's lock, where the file has one, and what the file itself does.
#[derive(Debug)]
pub struct FileDescription {
    ops: Arc<dyn FileOps>,
    path: Path,
    flags: AtomicU32,
    position: Mutex<u64>,
    creds: Arc<Credentials>,
    /// `S_IFMT` of the inode.
    file_type: u32,
    stream: bool,
    /// That it is open for writing, or a running program.
    hold: Option<Arc<WriteHold>>,
    pub(crate) owner: crate::async_owner::AsyncOwner,
    /// The inode's locks, once one was made through this description.
    pub(crate) locks: OnceLock<Arc<locks::FileLocks>>,
}

impl FileDescription {
    /// Opens what `ops` does; the caller checked permissions. `flags` are those of open(2).
    #[must_use]
    pub fn new(cx: &OpCx<'_>, ops: Arc<dyn FileOps>, path: Path, flags: u32) -> Arc<Self> {
        Self::new_holding(cx, ops, path, flags, None)
    }

    /// Likewise, and counts as what `hold` says while it lives.
    pub(crate) fn new_holding(
        cx: &OpCx<'_>,
        ops: Arc<dyn FileOps>,
        path: Path,
        flags: u32,
        hold: Option<Arc<WriteHold>>,
    ) -> Arc<Self> {
        let file_type = path.dentry.inode().map_or(0, |inode| inode.file_type() & S_IFMT);
        let stream = ops.stream();
        path.mount.touch();
        Arc::new(Self {
            ops,
            path,
            flags: AtomicU32::new(flags & !OPEN_ONLY & !abi::fs::O_CLOEXEC),
            position: Mutex::new(LockClass::FilePosition, 0),
            creds: Arc::clone(cx.creds),
            file_type,
            stream,
            hold,
            owner: crate::async_owner::AsyncOwner::default(),
            locks: OnceLock::new(),
        })
    }

    /// The description behind an open file of a descriptor table.
    #[must_use]
    pub fn from_file(file: &Arc<dyn File>) -> Option<&Self> {
        file.downcast_ref()
    }

    /// The description behind an open file of a descriptor table, shared.
    #[must_use]
    pub fn from_file_arc(file: Arc<dyn File>) -> Option<Arc<Self>> {
        file.downcast_arc()
    }

    /// What does the work.
    #[must_use]
    pub const fn ops(&self) -> &Arc<dyn FileOps> {
        &self.ops
    }
    /// Where it was opened.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }
    /// Who opened it.
    #[must_use]
    pub const fn credentials(&self) -> &Arc<Credentials> {
        &self.creds
    }
    /// The type, `S_IFMT`.
    #[must_use]
    pub const fn file_type(&self) -> u32 {
        self.file_type
    }
    /// Access mode and status flags.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }
    /// Tells whether it was opened by `O_PATH`.
    #[must_use]
    pub fn is_path_only(&self) -> bool {
        self.flags() & O_PATH != 0
    }
    /// Tells whether it may be read.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        let flags = self.flags();
        flags & O_PATH == 0 && matches!(flags & O_ACCMODE, 0 | O_RDWR)
    }
    /// Tells whether it may be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        let flags = self.flags();
        flags & O_PATH == 0 && matches!(flags & O_ACCMODE, O_WRONLY | O_RDWR)
    }
    /// Tells whether it has no position.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        self.stream
    }
    /// The position.
    #[must_use]
    pub fn position(&self) -> u64 {
        *self.position.lock()
    }
    /// Runs `f` with the position locked, and leaves it where `f` puts it.
    pub fn with_position<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R {
        f(&mut self.position.lock())
    }

    /// The context in which the file's operations run.
    #[must_use]
    pub fn cx<'a>(&'a self, task: &'a Task) -> OpCx<'a> {
        let mut cx = OpCx::of_task(task, &self.creds);
        cx.flags = self.flags();
        let no_atime = MS_NOATIME | if self.file_type == S_IFDIR { MS_NODIRATIME } else { 0 };
        if self.path.mount.has_flags(no_atime) || self.path.mount.is_read_only() {
            cx.flags |= O_NOATIME;
        }
        cx
    }

    /// Tells whether seals forbid that new mappings write.
    fn has_write_seal(&self) -> bool {
        let inode = self.path.dentry.inode().and_then(|inode| inode.downcast_ref::<TmpfsInode>());
        let seals = inode.and_then(|inode| inode.seals().ok()).unwrap_or(0);
        seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0
    }

    fn readable(&self) -> Result<(), Errno> {
        if !self.is_readable() {
            return Err(Errno::EBADF);
        }
        if self.file_type == S_IFDIR { Err(Errno::EISDIR) } else { Ok(()) }
    }

    fn writable(&self) -> Result<(), Errno> {
        if self.is_writable() { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// Cuts a write of a regular file at `RLIMIT_FSIZE`; raises `SIGXFSZ` where nothing fits.
    fn limit_write(&self, task: &Task, src: &mut IoSrc<'_>, at: u64) -> Result<(), Errno> {
        if self.file_type != S_IFREG || src.remaining() == 0 {
            return Ok(());
        }
        let limit = task.group().limits().get(RLIMIT_FSIZE).0;
        if at >= limit {
            crate::file_size::exceeded(task);
            return Err(Errno::EFBIG);
        }
        let room = limit.min(MAX_OFFSET).checked_sub(at).filter(|room| *room > 0).ok_or(Errno::EFBIG)?;
        src.limit(usize::try_from(room).unwrap_or(usize::MAX));
        Ok(())
    }

    fn read_from(&self, cx: &OpCx<'_>, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        if !self.stream {
            let room = usize::try_from(MAX_OFFSET.saturating_sub(offset)).unwrap_or(usize::MAX);
            dst.limit(room);
        }
        let n = self.ops.read_at(cx, dst, offset)?;
        if n > 0 {
            self.notify(event::IN_ACCESS);
        }
        Ok(n)
    }

    /// Writes at `offset`, or at the end; gives the count and the position after it.
    fn write_to(
        &self,
        task: &Task,
        src: &mut IoSrc<'_>,
        offset: u64,
        append: bool,
    ) -> Result<(usize, u64), Errno> {
        let cx = self.cx(task);
        let (n, at) = if append && !self.stream {
            self.limit_write(task, src, self.ops.size().unwrap_or(0))?;
            self.ops.append(&cx, src)?
        } else {
            self.limit_write(task, src, offset)?;
            (self.ops.write_at(&cx, src, offset)?, offset)
        };
        if n > 0 {
            self.notify(event::IN_MODIFY);
        }
        Ok((n, at.saturating_add(n as u64)))
    }

    /// Tells watchers of the file and of its directory.
    pub(crate) fn notify(&self, mask: u32) {
        crate::ops::notify_path(&self.path, mask);
    }

    /// Reads directory entries from the position, getdents64(2).
    ///
    /// # Errors
    /// `EBADF`, `ENOTDIR`, and those of [`FileOps::readdir`].
    pub fn read_directory(&self, task: &Task, sink: &mut dyn DirSink) -> Result<(), Errno> {
        if !self.is_readable() {
            return Err(Errno::EBADF);
        }
        if self.file_type != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        if self.path.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        let cx = self.cx(task);
        let mut position = self.position.lock();
        *position = self.ops.readdir(&cx, *position, sink)?;
        Ok(())
    }

    /// pwritev2(2) with `RWF_APPEND` or `RWF_NOAPPEND` decided; `position` is given for calls with an offset.
    ///
    /// # Errors
    /// Those of pwritev2(2).
    pub fn write_with(
        &self,
        task: &Task,
        src: &mut IoSrc<'_>,
        offset: Option<i64>,
        append: bool,
    ) -> Result<usize, Errno> {
        self.writable()?;
        match offset {
            Some(_) if self.stream => Err(Errno::ESPIPE),
            Some(offset) => {
                let offset = u64::try_from(offset).or(Err(Errno::EINVAL))?;
                Ok(self.write_to(task, src, offset, append)?.0)
            }
            None if self.stream => Ok(self.write_to(task, src, 0, false)?.0),
            None => {
                let mut position = self.position.lock();
                let (n, after) = self.write_to(task, src, *position, append)?;
                if n > 0 {
                    *position = after;
                }
                Ok(n)
            }
        }
    }
}

impl File for FileDescription {
    fn read(&self, task: &Task, dst: &mut IoDst<'_>) -> Result<usize, Errno> {
        self.readable()?;
        let cx = self.cx(task);
        if self.stream {
            return self.read_from(&cx, dst, 0);
        }
        let mut position = self.position.lock();
        let n = self.read_from(&cx, dst, *position)?;
        *position = position.saturating_add(n as u64);
        Ok(n)
    }

    fn write(&self, task: &Task, src: &mut IoSrc<'_>) -> Result<usize, Errno> {
        self.write_with(task, src, None, self.flags() & O_APPEND != 0)
    }

    fn pread(&self, task: &Task, dst: &mut IoDst<'_>, offset: i64) -> Result<usize, Errno> {
        let offset = u64::try_from(offset).or(Err(Errno::EINVAL))?;
        if self.stream && !self.is_path_only() {
            return Err(Errno::ESPIPE);
        }
        self.readable()?;
        self.read_from(&self.cx(task), dst, offset)
    }

    fn pwrite(&self, task: &Task, src: &mut IoSrc<'_>, offset: i64) -> Result<usize, Errno> {
        if offset < 0 {
            return Err(Errno::EINVAL);
        }
        if self.stream && !self.is_path_only() {
            return Err(Errno::ESPIPE);
        }
        self.write_with(task, src, Some(offset), self.flags() & O_APPEND != 0)
    }

    fn seek(&self, task: &Task, offset: i64, whence: u32) -> Result<i64, Errno> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        if whence > abi::fs::SEEK_HOLE {
            return Err(Errno::EINVAL);
        }
        if self.stream {
            return if self.ops.noop_seek() { Ok(0) } else { Err(Errno::ESPIPE) };
        }
        let cx = self.cx(task);
        let mut position = self.position.lock();
        let to = self.ops.seek(&cx, *position, offset, whence)?;
        *position = to;
        i64::try_from(to).or(Err(Errno::EOVERFLOW))
    }

    fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> Result<usize, Errno> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        crate::ioctl::ioctl(self, task, cmd, arg)
    }

    fn poll(&self, task: &Task) -> PollEvents {
        if self.is_path_only() { PollEvents::NVAL } else { self.ops.poll(&self.cx(task)) }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        self.ops.wait_queue()
    }

    fn mappable(&self, task: &Task, prot: u32, flags: u32) -> Result<MmapFile, Errno> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        let mut may_write = self.is_writable();
        let shared = flags & MAP_TYPE & MAP_SHARED != 0;
        if !self.is_readable() || (shared && prot & PROT_WRITE != 0 && !may_write) {
            return Err(Errno::EACCES);
        }
        if shared && may_write && self.has_write_seal() {
            if prot & PROT_WRITE != 0 {
                return Err(Errno::EPERM);
            }
            may_write = false;
        }
        let may_exec = !self.path.mount.has_flags(MS_NOEXEC);
        if prot & PROT_EXEC != 0 && !may_exec {
            return Err(Errno::EPERM);
        }
        let inner = self.ops.mappable(&self.cx(task))?;
        let writer = self.hold.clone().filter(|hold| hold.is_writer() && shared && may_write);
        let mappable = Arc::new(NamedMapping { inner, path: self.path.clone(), _writer: writer });
        Ok(MmapFile { mappable, offset: 0, may_write, may_exec })
    }

    fn stat(&self, _task: &Task) -> Result<Metadata, Errno> {
        match self.ops.metadata() {
            Some(metadata) => metadata,
            None => self.path.inode()?.metadata(),
        }
    }

    fn status_flags(&self) -> u32 {
        self.flags()
    }

    fn set_status_flags(&self, task: &Task, flags: u32) -> Result<(), Errno> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        let old = self.flags();
        let new = old & !SETTABLE | flags & SETTABLE;
        if new & !old & O_NOATIME != 0 {
            let owner = self.path.inode()?.metadata()?.uid;
            if !permission::owner_or_capable(&task.credentials(), owner) {
                return Err(Errno::EPERM);
            }
        }
        self.ops.set_flags(&self.cx(task), new)?;
        self.flags.store(new, Ordering::Relaxed);
        if (new ^ old) & FASYNC != 0 {
            self.owner.enable(self, task, new & FASYNC != 0);
        }
        Ok(())
    }

    fn flush(&self, task: &Task) -> Result<(), Errno> {
        if self.is_path_only() {
            return Ok(());
        }
        locks::close(self, task);
        self.ops.flush(&self.cx(task))
    }
}

impl Drop for FileDescription {
    fn drop(&mut self) {
        if self.is_path_only() {
            return;
        }
        self.owner.disable(self.ops.wait_queue());
        locks::release_description(self);
        let closed = if self.is_writable() { event::IN_CLOSE_WRITE } else { event::IN_CLOSE_NOWRITE };
        self.notify(closed);
    }
}
