//! A file system in memory, `tmpfs(5)`.
//!
//! An open takes no allocation beyond the description: the inode itself is what is open. A read or write of up to 64 KiB
//! takes the file's lock once and never while guest memory is touched.

mod data;
mod dir;
mod file;
mod inode;
mod options;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use abi::fs::TMPFS_MAGIC;
use abi::stat::S_IFDIR;
use memmap::{MemoryFile, PAGE};
use sync::{LockClass, Mutex};

use crate::filesystem::{StatFs, anonymous_device};
use crate::registry::{FileSystemType, register_filesystem};
use crate::{FileSystem, InodeOps, OpCx};

pub use inode::TmpfsInode;
pub use options::Options;

/// What the inodes of one instance share.
#[derive(Debug)]
pub(crate) struct Shared {
    memory: Arc<MemoryFile>,
    device: u64,
    /// Limits; 0 for none.
    max_pages: AtomicU64,
    max_inodes: AtomicU64,
    pages: AtomicU64,
    inodes: AtomicU64,
    next_ino: AtomicU64,
    /// Held by what locks the entries of more than one directory.
    structure: Mutex<()>,
}

/// Adds to a count that has a limit.
fn charge(count: &AtomicU64, limit: u64, n: u64) -> Result<(), Errno> {
    let add = |now: u64| now.checked_add(n).filter(|sum| limit == 0 || *sum <= limit);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map(drop).or(Err(Errno::ENOSPC))
}

impl Shared {
    fn new(memory: Arc<MemoryFile>, options: &Options) -> Arc<Self> {
        Arc::new(Self {
            memory,
            device: anonymous_device(),
            max_pages: AtomicU64::new(options.size.div_ceil(PAGE)),
            max_inodes: AtomicU64::new(options.nr_inodes),
            pages: AtomicU64::new(0),
            inodes: AtomicU64::new(0),
            next_ino: AtomicU64::new(1),
            structure: Mutex::new(LockClass::Directory, ()),
        })
    }
    fn charge_pages(&self, n: u64) -> Result<(), Errno> {
        charge(&self.pages, self.max_pages.load(Ordering::Relaxed), n)
    }
    fn release_pages(&self, n: u64) {
        self.pages.fetch_sub(n, Ordering::Relaxed);
    }
    fn charge_inode(&self) -> Result<u64, Errno> {
        charge(&self.inodes, self.max_inodes.load(Ordering::Relaxed), 1)?;
        Ok(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }
    fn release_inode(&self) {
        self.inodes.fetch_sub(1, Ordering::Relaxed);
    }
    #[cfg(test)]
    fn used_pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }
}

/// An instance of tmpfs.
#[derive(Debug)]
pub struct Tmpfs {
    name: &'static str,
    shared: Arc<Shared>,
    root: Arc<TmpfsInode>,
    options: Options,
}

impl Tmpfs {
    /// An empty instance, whose pages come from `memory`.
    ///
    /// # Errors
    /// `ENOSPC` where the options allow not even the root.
    pub fn new(cx: &OpCx<'_>, memory: Arc<MemoryFile>, options: Options) -> Result<Arc<Self>, Errno> {
        Self::named("tmpfs", cx, memory, options)
    }

    /// An instance that shows itself as another type, such as `devtmpfs`.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn named(
        name: &'static str,
        cx: &OpCx<'_>,
        memory: Arc<MemoryFile>,
        options: Options,
    ) -> Result<Arc<Self>, Errno> {
        let shared = Shared::new(memory, &options);
        let root = TmpfsInode::root(cx, &shared, &options)?;
        Ok(Arc::new(Self { name, shared, root, options }))
    }

    /// The root directory.
    #[must_use]
    pub const fn root_inode(&self) -> &Arc<TmpfsInode> {
        &self.root
    }

    /// A regular file in no directory, which lives as long as it is open: for memfd_create(2). Its seals are
    /// `F_SEAL_SEAL` at first.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn anonymous_file(&self, cx: &OpCx<'_>, mode: u32) -> Result<Arc<TmpfsInode>, Errno> {
        TmpfsInode::file(cx, &self.shared, mode)
    }
}

impl FileSystem for Tmpfs {
    fn name(&self) -> &'static str {
        self.name
    }
    fn root(&self) -> Arc<dyn InodeOps> {
        self.root.clone()
    }
    fn stat_fs(&self) -> Result<StatFs, Errno> {
        let shared = &self.shared;
        let (max_pages, pages) =
            (shared.max_pages.load(Ordering::Relaxed), shared.pages.load(Ordering::Relaxed));
        let (max_inodes, inodes) =
            (shared.max_inodes.load(Ordering::Relaxed), shared.inodes.load(Ordering::Relaxed));
        let free = max_pages.saturating_sub(pages);
        Ok(StatFs {
            fs_type: i64::from(TMPFS_MAGIC),
            bsize: 4096,
            frsize: 4096,
            namelen: 255,
            blocks: max_pages,
            bfree: free,
            bavail: free,
            files: max_inodes,
            ffree: max_inodes.saturating_sub(inodes),
            ..StatFs::default()
        })
    }
    fn device(&self) -> u64 {
        self.shared.device
    }
    fn options(&self) -> Vec<u8> {
        let size = self.shared.max_pages.load(Ordering::Relaxed) * PAGE;
        let inodes = self.shared.max_inodes.load(Ordering::Relaxed);
        Options { size, nr_inodes: inodes, ..self.options.clone() }.show()
    }
    fn remount(&self, _cx: &OpCx<'_>, data: &[u8]) -> Result<(), Errno> {
        let new = Options::parse_over(&self.options, data)?;
        let pages = new.size.div_ceil(PAGE);
        let too_small = |limit: u64, used: u64| limit != 0 && limit < used;
        if too_small(pages, self.shared.pages.load(Ordering::Relaxed))
            || too_small(new.nr_inodes, self.shared.inodes.load(Ordering::Relaxed))
        {
            return Err(Errno::EINVAL);
        }
        self.shared.max_pages.store(pages, Ordering::Relaxed);
        self.shared.max_inodes.store(new.nr_inodes, Ordering::Relaxed);
        Ok(())
    }
}

/// tmpfs as mount(2) makes it.
#[derive(Debug)]
struct TmpfsType {
    memory: Arc<MemoryFile>,
    default_size: u64,
}

impl FileSystemType for TmpfsType {
    fn name(&self) -> &'static str {
        "tmpfs"
    }
    fn mount(&self, cx: &OpCx<'_>, _source: &[u8], data: &[u8]) -> Result<Arc<dyn FileSystem>, Errno> {
        let defaults = Options { size: self.default_size, ..Options::default() };
        let options = Options::parse_over(&defaults, data)?;
        // On the account of the container that mounts it.
        let memory = cx.kernel().map_or(&self.memory, |kernel| kernel.memory_file());
        Ok(Tmpfs::new(cx, Arc::clone(memory), options)?)
    }
}

/// Has mount(2) know tmpfs and devtmpfs. `default_size` in bytes is what instances get that ask for no size; Linux takes half of the
/// memory.
pub fn register(memory: &Arc<MemoryFile>, default_size: u64) {
    crate::devtmpfs::register(memory);
    register_filesystem(Arc::new(TmpfsType { memory: Arc::clone(memory), default_size }));
}

/// The mode of a root directory, Linux's `0777 | S_ISVTX` unless mounted with another.
const ROOT_MODE: u32 = S_IFDIR | 0o1777;
