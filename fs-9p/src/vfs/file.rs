//! Regular files: open ones, and the descriptors behind them.

use super::inode::{GoferInode, Want};
use crate::host::{errno, retry};
use abi::Errno;
use abi::fs::{SEEK_DATA, SEEK_HOLE};
use memmap::{Backing, HostMemory, IoDst, IoSrc, Mappable, MappingKey};
use nix::fcntl::{self, FallocateFlags};
use nix::sys::stat::{self, FileStat};
use nix::sys::uio;
use nix::unistd::{self, Whence};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::{FileOps, OpCx, seek_in_size};

const PAGE: u64 = 4096;

fn host_offset(offset: u64) -> Result<i64, Errno> {
    i64::try_from(offset).map_err(|_too_large| Errno::EINVAL)
}

/// A descriptor that the gofer donated.
#[derive(Debug)]
pub(super) struct Donated {
    inode: Arc<GoferInode>,
    memory: Arc<HostMemory>,
}

impl Donated {
    pub(super) const fn new(inode: Arc<GoferInode>, memory: Arc<HostMemory>) -> Self {
        Self { inode, memory }
    }

    pub(super) const fn memory(&self) -> &Arc<HostMemory> {
        &self.memory
    }

    pub(super) fn stat(&self) -> Result<FileStat, Errno> {
        stat::fstat(&self.memory.fd).map_err(errno)
    }

    /// Tells whether the file has no name any more.
    pub(super) fn is_nameless(&self) -> bool {
        self.stat().is_ok_and(|stat| stat.st_nlink == 0)
    }

    pub(super) fn is_of(&self, inode: &GoferInode) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.inode), inode)
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(u64::try_from(self.stat()?.st_size).unwrap_or(0))
    }

    pub(super) fn sync(&self, data_only: bool) -> Result<(), Errno> {
        let fd = &self.memory.fd;
        retry(|| if data_only { unistd::fdatasync(fd) } else { unistd::fsync(fd) })
    }

    fn punch(&self, mode: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
        let (offset, len) = (host_offset(offset)?, host_offset(len)?);
        retry(|| fcntl::fallocate(&self.memory.fd, mode, offset, len))
    }
}

impl Mappable for Donated {
    fn translate(&self, offset: u64, len: u64, write: bool) -> Result<Backing, Errno> {
        if write && !self.memory.writable {
            return Err(Errno::EACCES);
        }
        let end = self.size()?.checked_next_multiple_of(PAGE).ok_or(Errno::EFAULT)?;
        let there = end.checked_sub(offset).filter(|there| *there > 0).ok_or(Errno::EFAULT)?;
        Ok(Backing::Host { file: Arc::clone(&self.memory), offset, len: len.min(there) })
    }

    fn add_mapping(&self, key: MappingKey) {
        self.inode.mappings.add(key);
    }

    fn remove_mapping(&self, key: &MappingKey) {
        self.inode.mappings.remove(key);
    }

    fn sync(&self, _offset: u64, _len: u64) -> Result<(), Errno> {
        self.sync(true)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        self.punch(mode, offset, len)
    }

    fn identity(&self) -> (u64, u64, Vec<u8>) {
        (self.inode.device(), self.inode.ino(), Vec::new())
    }
}

/// An open regular file.
#[derive(Debug)]
pub(super) struct GoferFile {
    inode: Arc<GoferInode>,
    donated: Arc<Donated>,
}

impl GoferFile {
    pub(super) fn new(inode: Arc<GoferInode>, donated: Arc<Donated>) -> Arc<Self> {
        inode.opened();
        Arc::new(Self { inode, donated })
    }

    fn touch(&self) {
        if !self.inode.touched.load(Ordering::Relaxed) {
            self.inode.touched.store(true, Ordering::Relaxed);
        }
    }

    /// Writes to a descriptor; with one for appending the offset does not matter to the host.
    fn write(&self, file: &Donated, src: &mut IoSrc<'_>, offset: u64) -> Result<usize, Errno> {
        let mut at = host_offset(offset)?;
        self.touch();
        src.read_into(src.remaining(), &mut |bytes| {
            let done = retry(|| uio::pwrite(&file.memory.fd, bytes, at))?;
            at = at.saturating_add(i64::try_from(done).unwrap_or(i64::MAX));
            Ok(done)
        })
    }
}

impl Drop for GoferFile {
    fn drop(&mut self) {
        self.inode.closed(&self.donated);
    }
}

impl FileOps for GoferFile {
    fn read_at(&self, _cx: &OpCx<'_>, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        let mut at = host_offset(offset)?;
        self.touch();
        dst.write_from(dst.remaining(), &mut |room| {
            let got = retry(|| uio::pread(&self.donated.memory.fd, room, at))?;
            at = at.saturating_add(i64::try_from(got).unwrap_or(i64::MAX));
            Ok(got)
        })
    }

    fn write_at(&self, _cx: &OpCx<'_>, src: &mut IoSrc<'_>, offset: u64) -> Result<usize, Errno> {
        self.write(&self.donated, src, offset)
    }

    fn append(&self, _cx: &OpCx<'_>, src: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        // The host finds the end: of two who append at a time neither overwrites the other.
        let file = self.inode.file(Want::Append, false)?;
        let done = self.write(&file, src, 0)?;
        Ok((done, file.size()?.saturating_sub(done as u64)))
    }

    fn size(&self) -> Result<u64, Errno> {
        self.donated.size()
    }

    fn seek(&self, _cx: &OpCx<'_>, position: u64, offset: i64, whence: u32) -> Result<u64, Errno> {
        // The position of the host's descriptor is of no use to anyone else: it is only read and written at offsets.
        let whence = match whence {
            SEEK_DATA => Whence::SeekData,
            SEEK_HOLE => Whence::SeekHole,
            _ => return seek_in_size(self.size()?, position, offset, whence),
        };
        let found = unistd::lseek(&self.donated.memory.fd, offset, whence).map_err(errno)?;
        u64::try_from(found).map_err(|_negative| Errno::EIO)
    }

    fn mappable(&self, _cx: &OpCx<'_>) -> Result<Arc<dyn Mappable>, Errno> {
        Ok(self.donated.clone())
    }

    fn fsync(&self, _cx: &OpCx<'_>, data_only: bool) -> Result<(), Errno> {
        self.donated.sync(data_only)
    }

    fn fallocate(&self, _cx: &OpCx<'_>, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let bits = i32::try_from(mode).map_err(|_unknown| Errno::EOPNOTSUPP)?;
        let mode = FallocateFlags::from_bits(bits).ok_or(Errno::EOPNOTSUPP)?;
        self.touch();
        self.donated.punch(mode, offset, len)?;
        // The mapped pages are the host's, which took or moved them; the sentry's own copies of where they are go.
        self.inode.mappings.invalidate(offset, u64::MAX - offset);
        Ok(())
    }
}
