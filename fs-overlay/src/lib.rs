//! The overlay file system: a writable upper layer over a lower one that never changes, Linux `fs/overlayfs`.
//!
//! Whiteouts are character devices 0:0 in the upper layer, and directories that hide the lower one carry
//! `trusted.overlay.opaque`, so that all state is in the upper layer. A file is copied up before its first change; a file
//! opened for reading before that keeps reading the lower one, as in Linux. Reads of a lower file cost what they cost there:
//! the overlay gives out the lower layer's own open file.
//!
//! Renaming a directory that has a lower part copies its tree up first (Linux gives `EXDEV` unless `redirect_dir` is on).
//!
//! Locks: an inode's `copy` is taken before a directory's `change`; of two `change`s the one at the lower address first.
#![forbid(unsafe_code)]

mod change;
mod copy_up;
mod directory;
mod inode;
mod merge;
mod rename;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::OVERLAYFS_SUPER_MAGIC;
use kernel::{Credentials, Kernel};
use sync::{Clock, LockClass, Mutex};
use vfs::{FileSystem, InodeOps, OpCx, StatFs, anonymous_device};

use self::inode::OverlayInode;

/// Marks a directory of the upper layer that hides the lower one.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// Keeps the inode number that a copied-up file had.
const ORIGIN: &[u8] = b"trusted.overlay.origin";
/// Attributes of the overlay itself, which nobody sees.
const PRIVATE_PREFIX: &[u8] = b"trusted.overlay.";

/// Which layer an inode of an overlay was first seen in, and its numbers there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Upper(u64),
    Lower(u64, u64),
}

/// An overlay.
#[derive(Debug)]
pub struct OverlayFs {
    upper: Arc<dyn FileSystem>,
    /// What it keeps for its files goes with the overlay.
    _lower: Arc<dyn FileSystem>,
    lower_device: u64,
    device: u64,
    clock: Arc<dyn Clock>,
    /// Who makes changes in the upper layer.
    creds: Arc<Credentials>,
    root: Arc<OverlayInode>,
    inodes: Mutex<HashMap<Key, Weak<OverlayInode>>>,
}

impl OverlayFs {
    /// Lays `upper`, empty or left by an earlier overlay, over `lower`.
    ///
    /// # Errors
    /// Those of reading the two roots.
    pub fn new(
        kernel: &Kernel,
        upper: Arc<dyn FileSystem>,
        lower: &Arc<dyn FileSystem>,
    ) -> Result<Arc<Self>, Errno> {
        let (upper_root, lower_root) = (upper.root(), lower.root());
        let meta = lower_root.metadata()?;
        let creds = Arc::new(Credentials::root());
        let clock = Arc::clone(kernel.clock());
        copy_up::attributes(&OpCx::of_kernel(&creds, clock.as_ref()), upper_root.as_ref(), &meta)?;
        Ok(Arc::new_cyclic(|this| Self {
            upper,
            _lower: Arc::clone(lower),
            lower_device: meta.dev,
            device: anonymous_device(),
            clock,
            creds,
            root: OverlayInode::root(Weak::clone(this), upper_root, lower_root, meta.ino),
            inodes: Mutex::new(LockClass::Leaf, HashMap::new()),
        }))
    }

    /// The context in which the overlay works in its upper layer.
    fn cx(&self) -> OpCx<'_> {
        OpCx::of_kernel(&self.creds, self.clock.as_ref())
    }

    /// The one inode for a key, made by `make` where there is none.
    fn inode(&self, key: Key, make: impl FnOnce() -> Arc<OverlayInode>) -> Arc<OverlayInode> {
        let find = |inodes: &HashMap<Key, Weak<OverlayInode>>| inodes.get(&key).and_then(Weak::upgrade);
        if let Some(found) = find(&self.inodes.lock()) {
            return found;
        }
        let fresh = make();
        let mut inodes = self.inodes.lock();
        if let Some(found) = find(&inodes) {
            return found;
        }
        if inodes.len() >= 1024 && inodes.len().is_power_of_two() {
            inodes.retain(|_, inode| inode.strong_count() > 0);
        }
        inodes.insert(key, Arc::downgrade(&fresh));
        fresh
    }

    /// An inode that was copied up is found by its place in the upper layer too.
    fn remember(&self, key: Key, inode: &Arc<OverlayInode>) {
        self.inodes.lock().insert(key, Arc::downgrade(inode));
    }

    fn forget(&self, keys: &[Key]) {
        let mut inodes = self.inodes.lock();
        for key in keys {
            if inodes.get(key).is_some_and(|i| i.strong_count() == 0) {
                inodes.remove(key);
            }
        }
    }

    /// The number that programs see of a lower inode. Those of another device than the root's are moved out of the way.
    fn lower_ino(&self, dev: u64, ino: u64) -> u64 {
        if dev == self.lower_device { ino } else { ino ^ dev.rotate_left(40) ^ 1 << 62 }
    }

    /// The number that programs see of an inode that is in the upper layer only.
    const fn upper_ino(ino: u64) -> u64 {
        ino | 1 << 44
    }
}

impl FileSystem for OverlayFs {
    fn name(&self) -> &'static str {
        "overlay"
    }
    fn root(&self) -> Arc<dyn InodeOps> {
        Arc::clone(&self.root) as Arc<dyn InodeOps>
    }
    fn stat_fs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { fs_type: i64::from(OVERLAYFS_SUPER_MAGIC), ..self.upper.stat_fs()? })
    }
    fn device(&self) -> u64 {
        self.device
    }
    fn options(&self) -> Vec<u8> {
        b"lowerdir=/,upperdir=/,workdir=/".to_vec()
    }
    fn sync(&self) -> Result<(), Errno> {
        self.upper.sync()
    }
}
