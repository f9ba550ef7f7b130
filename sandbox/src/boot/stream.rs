//! Streams of the host as files of the container: what it reads from and writes to when it has no terminal.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use abi::Errno;
use abi::fs::{O_ACCMODE, O_APPEND};
use abi::stat::{S_IFMT, S_IFREG};
use memmap::{IoDst, IoSrc};
use nix::fcntl::FcntlArg;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::Whence;
use sync::{PollEvents, WaitQueue, Wake};
use vfs::{FileDescription, FileOps, InodeOps, Metadata, OpCx, SetAttr};

use super::notifier::Notifier;
use crate::sys;

/// `FIONREAD`.
const FIONREAD: u32 = 0x541b;
/// What a pipe takes at once when it has room.
const PIPE_BUF: usize = 4096;

/// The errno of a host call.
fn errno(error: nix::Error) -> Errno {
    Errno::from_raw(error as i32).unwrap_or(Errno::EIO)
}

/// An open stream of the host.
#[derive(Debug)]
pub(crate) struct HostStream {
    fd: OwnedFd,
    events: Arc<Events>,
    watch: Option<(Arc<Notifier>, u64)>,
    metadata: Metadata,
}

#[derive(Debug, Default)]
struct Events(WaitQueue);

impl Wake for Events {
    fn wake(&self, events: PollEvents) {
        self.0.notify(events);
    }
}

impl Drop for HostStream {
    fn drop(&mut self) {
        if let Some((notifier, key)) = &self.watch {
            notifier.forget(self.fd.as_fd(), *key);
        }
    }
}

impl HostStream {
    /// Takes charge of a stream.
    ///
    /// # Errors
    /// Those of fstat(2) and epoll_ctl(2).
    pub(crate) fn new(fd: OwnedFd, notifier: &Arc<Notifier>) -> nix::Result<Arc<Self>> {
        let stat = nix::sys::stat::fstat(&fd)?;
        let metadata = Metadata {
            dev: vfs::anon_device(),
            ino: vfs::next_ino(),
            mode: stat.st_mode,
            nlink: 1,
            size: stat.st_size.cast_unsigned(),
            rdev: stat.st_rdev,
            blksize: 4096,
            ..Metadata::default()
        };
        let events = Arc::new(Events::default());
        let wake: Arc<dyn Wake> = events.clone();
        let watch = match notifier.watch(fd.as_fd(), &wake) {
            Ok(key) => Some((Arc::clone(notifier), key)),
            // A regular file and the like: always ready.
            Err(nix::Error::EPERM) => None,
            Err(error) => return Err(error),
        };
        Ok(Arc::new(Self { fd, events, watch, metadata }))
    }

    /// Opens it for the container.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub(crate) fn open(self: Arc<Self>, cx: &OpCx<'_>, name: &str) -> nix::Result<Arc<FileDescription>> {
        let flags = nix::fcntl::fcntl(&self.fd, FcntlArg::F_GETFL)?.cast_unsigned() & (O_ACCMODE | O_APPEND);
        let inode: Arc<dyn InodeOps> = self.clone();
        let position = if self.is_regular() {
            nix::unistd::lseek(&self.fd, 0, Whence::SeekCur)?.cast_unsigned()
        } else {
            0
        };
        let file = vfs::new_inode_file(cx, name.as_bytes(), inode, self, flags);
        file.with_position(|place| *place = position);
        Ok(file)
    }

    /// Tells whether it and another descriptor are of one open file description.
    pub(crate) fn is_same(&self, other: BorrowedFd<'_>) -> bool {
        sys::same_description(self.fd.as_fd(), other)
    }

    fn is_regular(&self) -> bool {
        self.metadata.mode & S_IFMT == S_IFREG
    }

    /// Leaves the host's position after what was read or written, for whoever uses the file next.
    fn moved_to(&self, position: u64) {
        if let Ok(position) = i64::try_from(position) {
            // A regular file can be positioned anywhere.
            let _done = nix::unistd::lseek(&self.fd, position, Whence::SeekSet);
        }
    }

    /// What the host says it is ready for.
    fn ready(&self) -> PollEvents {
        if self.watch.is_none() {
            return PollEvents::READABLE | PollEvents::WRITABLE;
        }
        let asked = PollFlags::POLLIN | PollFlags::POLLOUT | PollFlags::POLLPRI;
        let mut fds = [PollFd::new(self.fd.as_fd(), asked)];
        let polled = nix::poll::poll(&mut fds, PollTimeout::ZERO);
        let bits = fds.first().and_then(PollFd::revents).unwrap_or(PollFlags::empty()).bits();
        if polled.is_err() {
            return PollEvents::NONE;
        }
        let mut events = PollEvents(u32::from(bits.cast_unsigned()));
        if events.intersects(PollEvents::IN) {
            events |= PollEvents::READABLE;
        }
        if events.intersects(PollEvents::OUT) {
            events |= PollEvents::WRITABLE;
        }
        events
    }

    fn read_some(&self, into: &mut [u8]) -> Result<usize, Errno> {
        if self.watch.is_some() {
            match sys::read_now(self.fd.as_fd(), into) {
                Err(nix::Error::EOPNOTSUPP | nix::Error::ESPIPE | nix::Error::EINVAL) => {}
                other => return other.map_err(errno),
            }
            if !self.ready().intersects(PollEvents::IN | PollEvents::HUP | PollEvents::ERR) {
                return Err(Errno::EAGAIN);
            }
        }
        nix::unistd::read(&self.fd, into).map_err(errno)
    }

    fn write_some(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.watch.is_none() {
            return nix::unistd::write(&self.fd, bytes).map_err(errno);
        }
        match sys::write_now(self.fd.as_fd(), bytes) {
            Err(nix::Error::EOPNOTSUPP | nix::Error::ESPIPE | nix::Error::EINVAL) => {}
            other => return other.map_err(errno),
        }
        if !self.ready().intersects(PollEvents::OUT | PollEvents::ERR) {
            return Err(Errno::EAGAIN);
        }
        let some = bytes.get(..bytes.len().min(PIPE_BUF)).unwrap_or(bytes);
        nix::unistd::write(&self.fd, some).map_err(errno)
    }
}

impl FileOps for HostStream {
    fn read_at(&self, _: &OpCx<'_>, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let max = dst.remaining();
        if !self.is_regular() {
            return dst.write_from(max, &mut |into| self.read_some(into));
        }
        let mut at = i64::try_from(offset).or(Err(Errno::EINVAL))?;
        let read = dst.write_from(max, &mut |into| {
            let n = pread(&self.fd, into, at).map_err(errno)?;
            at = at.saturating_add_unsigned(n as u64);
            Ok(n)
        })?;
        self.moved_to(offset.saturating_add(read as u64));
        Ok(read)
    }

    fn write_at(&self, _: &OpCx<'_>, src: &mut IoSrc<'_>, offset: u64) -> Result<usize, Errno> {
        let max = src.remaining();
        if !self.is_regular() {
            return src.read_into(max, &mut |bytes| self.write_some(bytes));
        }
        let mut at = i64::try_from(offset).or(Err(Errno::EINVAL))?;
        let written = src.read_into(max, &mut |bytes| {
            let n = pwrite(&self.fd, bytes, at).map_err(errno)?;
            at = at.saturating_add_unsigned(n as u64);
            Ok(n)
        })?;
        self.moved_to(offset.saturating_add(written as u64));
        Ok(written)
    }

    fn append(&self, _: &OpCx<'_>, src: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        // The host's description appends as well: it has the flag.
        let end = self.size()?;
        let max = src.remaining();
        let written = src.read_into(max, &mut |bytes| nix::unistd::write(&self.fd, bytes).map_err(errno))?;
        Ok((written, end))
    }

    fn size(&self) -> Result<u64, Errno> {
        InodeOps::metadata(self).map(|metadata| metadata.size)
    }

    fn stream(&self) -> bool {
        !self.is_regular()
    }

    fn ioctl(&self, cx: &OpCx<'_>, cmd: u32, arg: u64) -> Result<usize, Errno> {
        if cmd != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let count = sys::readable_bytes(self.fd.as_fd()).map_err(|_none| Errno::ENOTTY)?;
        let mm = cx.mm()?;
        IoDst::user(&mm, arg, 4).write(&count.to_ne_bytes())?;
        Ok(0)
    }

    fn poll(&self, _: &OpCx<'_>) -> PollEvents {
        self.ready()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        self.watch.as_ref().map(|_| &self.events.0)
    }

    fn metadata(&self) -> Option<Result<Metadata, Errno>> {
        Some(InodeOps::metadata(self))
    }

    fn fsync(&self, _: &OpCx<'_>, data_only: bool) -> Result<(), Errno> {
        if !self.is_regular() {
            return Err(Errno::EINVAL);
        }
        let sync = if data_only { nix::unistd::fdatasync } else { nix::unistd::fsync };
        sync(&self.fd).map_err(errno)
    }
}

impl InodeOps for HostStream {
    fn metadata(&self) -> Result<Metadata, Errno> {
        let mut metadata = self.metadata;
        if self.is_regular() {
            metadata.size = nix::sys::stat::fstat(&self.fd).map_err(errno)?.st_size.cast_unsigned();
        }
        Ok(metadata)
    }

    fn file_type(&self) -> u32 {
        self.metadata.mode & S_IFMT
    }

    fn set_attr(&self, _: &OpCx<'_>, attr: &SetAttr) -> Result<(), Errno> {
        match attr.size {
            // `>/dev/stdout` opens with O_TRUNC; what is no file ignores that.
            Some(_) if !self.is_regular() => Ok(()),
            Some(size) => {
                let size = i64::try_from(size).or(Err(Errno::EFBIG))?;
                nix::unistd::ftruncate(&self.fd, size).map_err(errno)
            }
            None => Err(Errno::EPERM),
        }
    }

    fn open(self: Arc<Self>, _: &OpCx<'_>, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        // By /proc/self/fd: the same stream once more, for what it is open for.
        let own = nix::fcntl::fcntl(&self.fd, FcntlArg::F_GETFL).map_err(errno)?.cast_unsigned() & O_ACCMODE;
        if own != abi::fs::O_RDWR && own != flags & O_ACCMODE {
            return Err(Errno::EACCES);
        }
        Ok(self)
    }
}
