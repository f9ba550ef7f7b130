//! What can be mapped: the seam between memory and files.
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use abi::Errno;

use crate::MemoryManager;

/// Bytes of the memory file, page-aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last byte.
    pub end: u64,
}

impl FileRange {
    /// How many bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }
    /// Tells whether there is no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end == self.start
    }
}

/// A regular file of the host that the gofer donated, shown to guests page by page.
#[derive(Debug)]
pub struct HostMemory {
    /// The open file.
    pub fd: OwnedFd,
    /// Whether the fd was opened for writing, so that shared writable mappings of it work.
    pub writable: bool,
}

/// Where bytes of a mapped file are.
#[derive(Clone, Debug)]
pub enum Backing {
    /// In the memory file. The caller of `translate` gets one reference to each page.
    Memory(FileRange),
    /// In a host file, from this offset (page-aligned) for this many bytes (the last page may reach past the end of file).
    Host {
        /// The file.
        file: Arc<HostMemory>,
        /// Offset of the first byte.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
}

/// One mapping of a file, as the file keeps it to be able to take pages back.
#[derive(Clone, Debug)]
pub struct MappingKey {
    /// Who maps.
    pub mm: Weak<MemoryManager>,
    /// The guest address of the first byte.
    pub addr: u64,
    /// How many bytes.
    pub len: u64,
    /// The file offset of the first byte.
    pub offset: u64,
    /// A shared mapping that may be written.
    pub writable: bool,
}

/// A file's contents as mmap(2) sees them. Offsets and lengths are page-aligned.
pub trait Mappable: Send + Sync + Debug {
    /// Tells where the bytes from `offset` are: at least one page, at most `len` bytes (a longer answer saves faults).
    /// With `write`, stores to the answer become stores to the file; without, the caller will only read (private
    /// mappings copy before they write).
    ///
    /// # Errors
    /// `EFAULT` beyond the last page of the file: the guest gets `SIGBUS`. `ENOMEM`, `EIO`, `EACCES`.
    fn translate(&self, offset: u64, len: u64, write: bool) -> Result<Backing, Errno>;

    /// A mapping was made; the file calls [`MemoryManager::invalidate_mapping`] on it when it takes pages back (truncate,
    /// hole punching, copy-up).
    fn add_mapping(&self, key: MappingKey);

    /// A mapping, or a part of one, is gone: the same key as was added, or a sub-range of it.
    fn remove_mapping(&self, key: &MappingKey);

    /// msync(2) with `MS_SYNC`. Called without the memory manager's lock.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`, as fsync(2).
    fn sync(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let _ = (offset, len);
        Ok(())
    }

    /// `MADV_REMOVE`: fallocate(2) with `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`. Called without the memory manager's
    /// lock, so that the file can take its own and call [`MemoryManager::invalidate_mapping`].
    ///
    /// # Errors
    /// `EOPNOTSUPP` for files that cannot have holes.
    fn punch_hole(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let _ = (offset, len);
        Err(Errno::EOPNOTSUPP)
    }

    /// Device number (Linux's encoding, `new_encode_dev`), inode number and path, for `/proc/PID/maps`. Called
    /// without the memory manager's lock.
    fn identity(&self) -> (u64, u64, Vec<u8>);
}
