//! Inodes of an overlay.
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::{O_ACCMODE, O_RDONLY, O_TRUNC, XATTR_REPLACE};
use abi::stat::{S_IFCHR, S_IFDIR, S_IFMT, S_IFREG};
use sync::{LockClass, Mutex, RwLock};
use vfs::{Caching, FileOps, InodeOps, Metadata, OpCx, SetAttr, WriteCount};

use crate::directory::OverlayDirectory;
use crate::{Key, OverlayFs, PRIVATE_PREFIX};

/// Where an inode's parts are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    pub upper: Option<Arc<dyn InodeOps>>,
    /// Of a directory: merged with the upper one. Of a file: what was or is to be copied up.
    pub lower: Option<Arc<dyn InodeOps>>,
}

/// Where an inode is to be copied up to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub parent: Option<Arc<OverlayInode>>,
    pub name: Vec<u8>,
    /// It lost its name while only the lower layer had it.
    pub removed: bool,
}

#[derive(Debug)]
pub(crate) struct OverlayInode {
    pub fs: Weak<OverlayFs>,
    pub file_type: u32,
    pub ino: u64,
    pub layers: RwLock<Layers>,
    /// Under which keys the table of the file system has it.
    pub keys: Mutex<Vec<Key>>,
    pub place: Mutex<Place>,
    /// Held while it is copied up.
    pub copy: Mutex<()>,
    /// Of a directory: held while names in it change.
    pub change: Mutex<()>,
    writers: WriteCount,
}

impl OverlayInode {
    pub(crate) fn new(
        fs: Weak<OverlayFs>,
        key: Option<Key>,
        file_type: u32,
        ino: u64,
        layers: Layers,
        place: Place,
    ) -> Arc<Self> {
        Arc::new(Self {
            fs,
            file_type,
            ino,
            layers: RwLock::new(LockClass::Leaf, layers),
            keys: Mutex::new(LockClass::Leaf, key.into_iter().collect()),
            place: Mutex::new(LockClass::Leaf, place),
            copy: Mutex::new(LockClass::OverlayCopy, ()),
            change: Mutex::new(LockClass::OverlayChange, ()),
            writers: WriteCount::default(),
        })
    }

    pub(crate) fn root(
        fs: Weak<OverlayFs>,
        upper: Arc<dyn InodeOps>,
        lower: Arc<dyn InodeOps>,
        ino: u64,
    ) -> Arc<Self> {
        let layers = Layers { upper: Some(upper), lower: Some(lower) };
        Self::new(fs, None, S_IFDIR, ino, layers, Place::default())
    }

    pub(crate) fn fs(&self) -> Result<Arc<OverlayFs>, Errno> {
        self.fs.upgrade().ok_or(Errno::EIO)
    }

    pub(crate) fn layers(&self) -> Layers {
        self.layers.read().clone()
    }

    /// What tells attributes and contents: the upper part where there is one.
    pub(crate) fn top(&self) -> Result<Arc<dyn InodeOps>, Errno> {
        let layers = self.layers.read();
        layers.upper.as_ref().or(layers.lower.as_ref()).cloned().ok_or(Errno::EIO)
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.file_type == S_IFDIR
    }
}

/// Tells whether an inode of the upper layer says that there is nothing.
pub(crate) fn is_whiteout(inode: &dyn InodeOps) -> bool {
    inode.file_type() & S_IFMT == S_IFCHR && inode.metadata().is_ok_and(|m| m.rdev == 0)
}

/// The overlay's inode behind an inode of the file system.
pub(crate) fn of(inode: &Arc<dyn InodeOps>) -> Result<Arc<OverlayInode>, Errno> {
    Arc::clone(inode).downcast_arc().ok_or(Errno::EXDEV)
}

impl InodeOps for OverlayInode {
    fn write_count(&self) -> Option<&WriteCount> {
        Some(&self.writers)
    }

    fn metadata(&self) -> Result<Metadata, Errno> {
        let meta = self.top()?.metadata()?;
        let nlink = if self.place.lock().removed { meta.nlink.saturating_sub(1) } else { meta.nlink };
        Ok(Metadata { dev: self.fs()?.device, ino: self.ino, nlink, ..meta })
    }

    fn file_type(&self) -> u32 {
        self.file_type
    }

    fn set_attr(&self, cx: &OpCx<'_>, attr: &SetAttr) -> Result<(), Errno> {
        self.copy_up(attr.size)?.set_attr(cx, attr)
    }

    fn lookup(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        if !self.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.find(cx, name)?)
    }

    fn create(&self, cx: &OpCx<'_>, name: &[u8], mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        self.make(cx, name, |dir| dir.create(cx, name, mode))
    }

    fn mkdir(&self, cx: &OpCx<'_>, name: &[u8], mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        self.make(cx, name, |dir| dir.mkdir(cx, name, mode))
    }

    fn mknod(&self, cx: &OpCx<'_>, name: &[u8], mode: u32, rdev: u64) -> Result<Arc<dyn InodeOps>, Errno> {
        if mode & S_IFMT == S_IFCHR && rdev == 0 {
            // It would be taken for a whiteout.
            return Err(Errno::EPERM);
        }
        self.make(cx, name, |dir| dir.mknod(cx, name, mode, rdev))
    }

    fn symlink(&self, cx: &OpCx<'_>, name: &[u8], target: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        self.make(cx, name, |dir| dir.symlink(cx, name, target))
    }

    fn link(&self, cx: &OpCx<'_>, name: &[u8], target: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        self.add_link(cx, name, &of(target)?)
    }

    fn unlink(&self, cx: &OpCx<'_>, name: &[u8], child: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        self.take_name(cx, name, &of(child)?)
    }

    fn rmdir(&self, cx: &OpCx<'_>, name: &[u8], child: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        self.take_name(cx, name, &of(child)?)
    }

    fn rename(
        &self,
        cx: &OpCx<'_>,
        name: &[u8],
        new_dir: &Arc<dyn InodeOps>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        self.rename_to(cx, name, &of(new_dir)?, new_name, flags)
    }

    fn tmpfile(&self, cx: &OpCx<'_>, mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        let inode = self.copy_up(None)?.tmpfile(cx, mode)?;
        let fs = self.fs()?;
        let ino = inode.metadata()?.ino;
        let layers = Layers { upper: Some(inode), lower: None };
        let (key, number) = (Key::Upper(ino), OverlayFs::upper_ino(ino));
        let make = || Self::new(Weak::clone(&self.fs), Some(key), S_IFREG, number, layers, Place::default());
        Ok(fs.inode(key, make))
    }

    fn readlink(&self, cx: &OpCx<'_>) -> Result<Vec<u8>, Errno> {
        self.top()?.readlink(cx)
    }

    fn open(self: Arc<Self>, cx: &OpCx<'_>, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        if self.is_dir() {
            return Ok(Arc::new(OverlayDirectory::new(self)));
        }
        if self.file_type == S_IFREG && (flags & O_ACCMODE != O_RDONLY || flags & O_TRUNC != 0) {
            let size = (flags & O_TRUNC != 0).then_some(0);
            return self.copy_up(size)?.open(cx, flags);
        }
        self.top()?.open(cx, flags)
    }

    fn truncates_on_open(&self) -> bool {
        self.top().is_ok_and(|top| top.truncates_on_open())
    }

    fn get_xattr(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if name.starts_with(PRIVATE_PREFIX) {
            return Err(Errno::ENODATA);
        }
        self.top()?.get_xattr(cx, name)
    }

    fn set_xattr(&self, cx: &OpCx<'_>, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        if name.starts_with(PRIVATE_PREFIX) {
            return Err(Errno::EPERM);
        }
        if flags & XATTR_REPLACE != 0 {
            // Not worth copying a file up for an error.
            self.top()?.get_xattr(cx, name)?;
        }
        self.copy_up(None)?.set_xattr(cx, name, value, flags)
    }

    fn list_xattr(&self, cx: &OpCx<'_>) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = self.top()?.list_xattr(cx)?;
        names.retain(|n| !n.starts_with(PRIVATE_PREFIX));
        Ok(names)
    }

    fn remove_xattr(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<(), Errno> {
        self.get_xattr(cx, name)?;
        self.copy_up(None)?.remove_xattr(cx, name)
    }

    fn caching(&self) -> Caching {
        self.layers().lower.map_or(Caching::Cached, |lower| lower.caching())
    }

    fn revalidate(&self, cx: &OpCx<'_>) -> bool {
        let Layers { upper, lower } = self.layers();
        upper.is_some() || lower.is_some_and(|l| l.revalidate(cx))
    }
}

impl Drop for OverlayInode {
    fn drop(&mut self) {
        let Some(fs) = self.fs.upgrade() else { return };
        let keys = std::mem::take(self.keys.get_mut());
        fs.forget(&keys);
    }
}
