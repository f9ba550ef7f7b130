//! File systems and their instances.
use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::stat::makedev;
use sync::{LockClass, Mutex};

use crate::dentry::{Dentry, DentryCache};
use crate::notify::Watches;
use crate::{InodeOps, OpCx};

pub use abi::stat::StatFs;

/// An instance of a file system: what mount(2) makes.
pub trait FileSystem: Any + Send + Sync + Debug {
    /// The type as `/proc/mounts` shows it.
    fn name(&self) -> &'static str;

    /// The root directory; the same inode each time.
    fn root(&self) -> Arc<dyn InodeOps>;

    /// What statfs(2) tells; `flags` is filled in by the caller.
    ///
    /// # Errors
    /// `EIO`, `ENOSYS`.
    fn stat_fs(&self) -> Result<StatFs, Errno>;

    /// The device number, `st_dev`; see [`anonymous_device`].
    fn device(&self) -> u64;

    /// What `/proc/mounts` shows after `rw`, such as `size=100k,mode=755`; empty for nothing.
    fn options(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Writes everything back, sync(2).
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`.
    fn sync(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Takes new options, `MS_REMOUNT`. Whether it is read-only is kept elsewhere.
    ///
    /// # Errors
    /// `EINVAL` for options it does not know.
    fn remount(&self, cx: &OpCx<'_>, data: &[u8]) -> Result<(), Errno> {
        let _ = cx;
        if data.is_empty() { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Tells whether there can be no device nodes in it that work and no set-user-id programs, as in proc.
    fn is_virtual(&self) -> bool {
        false
    }
}

static NEXT_ANONYMOUS: AtomicU32 = AtomicU32::new(20);

/// A device number for a file system without a device, Linux `get_anon_bdev`.
#[must_use]
pub fn anonymous_device() -> u64 {
    makedev(0, NEXT_ANONYMOUS.fetch_add(1, Ordering::Relaxed) & 0xf_ffff)
}

/// How many dentries that nothing uses a file system keeps, unless it is told otherwise.
const DEFAULT_DENTRIES: usize = 4096;

/// By inode number and kind.
type Attached = HashMap<(u64, &'static str), Weak<dyn Any + Send + Sync>>;

/// What the sentry keeps of a mounted file system, Linux `super_block`: shared by all mounts of it.
#[derive(Debug)]
pub struct SuperBlock {
    fs: Arc<dyn FileSystem>,
    device: u64,
    root: Arc<Dentry>,
    read_only: AtomicBool,
    pub(crate) cache: DentryCache,
    /// Held while a directory moves to another, so that ancestors stay what they are, Linux `s_vfs_rename_mutex`.
    pub(crate) rename: Mutex<()>,
    /// What belongs to an inode by number and not to a name: FIFOs, bound sockets, file locks.
    attached: Mutex<Attached>,
    pub(crate) watches: Watches,
}

impl SuperBlock {
    /// Prepares a file system for mounting.
    #[must_use]
    pub fn new(fs: Arc<dyn FileSystem>, read_only: bool) -> Arc<Self> {
        Self::with_dentries(fs, read_only, DEFAULT_DENTRIES)
    }

    /// Prepares a file system for mounting, with a bound on the dentries that are kept unused.
    #[must_use]
    pub fn with_dentries(fs: Arc<dyn FileSystem>, read_only: bool, dentries: usize) -> Arc<Self> {
        let root = Dentry::root(fs.root());
        Arc::new(Self {
            device: fs.device(),
            fs,
            root,
            read_only: AtomicBool::new(read_only),
            cache: DentryCache::new(dentries),
            rename: Mutex::new(LockClass::Rename, ()),
            attached: Mutex::new(LockClass::Leaf, HashMap::new()),
            watches: Watches::default(),
        })
    }

    /// The file system.
    #[must_use]
    pub const fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }
    /// Its device number.
    #[must_use]
    pub const fn device(&self) -> u64 {
        self.device
    }
    /// Its root directory.
    #[must_use]
    pub const fn root(&self) -> &Arc<Dentry> {
        &self.root
    }
    /// Tells whether nothing of it may be changed by whatever mount.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }
    /// Sets whether nothing of it may be changed.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    /// What is attached to an inode under a name, if it still lives.
    pub fn attachment<T: Any + Send + Sync>(&self, ino: u64, what: &'static str) -> Option<Arc<T>> {
        let found = self.attached.lock().get(&(ino, what)).and_then(Weak::upgrade);
        found?.downcast().ok()
    }

    /// What is attached to an inode under a name, made by `make` where there is none. It lives as long as someone holds
    /// what this returns.
    pub fn attach_with<T: Any + Send + Sync>(
        &self,
        ino: u64,
        what: &'static str,
        make: impl FnOnce() -> Arc<T>,
    ) -> Arc<T> {
        let fresh = make();
        let mut attached = self.attached.lock();
        if let Some(found) = attached.get(&(ino, what)).and_then(Weak::upgrade)
            && let Ok(found) = found.downcast()
        {
            drop(attached);
            return found;
        }
        if attached.len() >= 64 && attached.len().is_power_of_two() {
            attached.retain(|_, value| value.strong_count() > 0);
        }
        let shared: Arc<dyn Any + Send + Sync> = fresh.clone();
        attached.insert((ino, what), Arc::downgrade(&shared));
        fresh
    }
}
