//! Making and removing names, Linux `fs/overlayfs/dir.c`.
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::stat::{S_IFCHR, S_IFMT};
use vfs::{InodeOps, OpCx};

use crate::inode::{Layers, OverlayInode, Place, is_whiteout};
use crate::merge::read_all;
use crate::{Key, OPAQUE, OverlayFs};

impl OverlayInode {
    /// Makes a name in the upper layer by `make`, in place of a whiteout if there is one.
    pub(crate) fn make(
        &self,
        cx: &OpCx<'_>,
        name: &[u8],
        make: impl FnOnce(&Arc<dyn InodeOps>) -> Result<Arc<dyn InodeOps>, Errno>,
    ) -> Result<Arc<dyn InodeOps>, Errno> {
        let fs = self.fs()?;
        let dir = self.copy_up(None)?;
        let hides = self.lower_has(cx, name)?;
        let _changing = self.change.lock();
        let whiteout = self.clear_way(&fs, &dir, name, hides)?;
        let made = make(&dir).inspect_err(|_| {
            if whiteout {
                // The name must stay hidden; the whiteout was there, so there is room for it.
                let _restored = put_whiteout(&fs, &dir, name);
            }
        })?;
        if hides && made.is_dir() {
            made.set_xattr(&fs.cx(), OPAQUE, b"y", 0)?;
        }
        let ino = made.metadata()?.ino;
        let file_type = made.file_type() & S_IFMT;
        let place = Place { parent: self.myself(&fs), name: name.to_vec(), removed: false };
        let layers = Layers { upper: Some(made), lower: None };
        let (key, number) = (Key::Upper(ino), OverlayFs::upper_ino(ino));
        Ok(fs.inode(key, || Self::new(Weak::clone(&self.fs), Some(key), file_type, number, layers, place)))
    }

    /// Takes a whiteout away that is in the way of a new name; tells whether there was one.
    pub(crate) fn clear_way(
        &self,
        fs: &OverlayFs,
        dir: &Arc<dyn InodeOps>,
        name: &[u8],
        hides: bool,
    ) -> Result<bool, Errno> {
        let cx = fs.cx();
        match self.upper_entry(&cx, name)? {
            Some(there) if is_whiteout(there.as_ref()) => {
                dir.unlink(&cx, name, &there)?;
                Ok(true)
            }
            Some(_) => Err(Errno::EEXIST),
            None if hides => Err(Errno::EEXIST),
            None => Ok(false),
        }
    }

    /// link(2).
    pub(crate) fn add_link(&self, cx: &OpCx<'_>, name: &[u8], target: &Arc<Self>) -> Result<(), Errno> {
        let fs = self.fs()?;
        let upper = target.copy_up(None)?;
        let dir = self.copy_up(None)?;
        let hides = self.lower_has(cx, name)?;
        {
            let _changing = self.change.lock();
            let whiteout = self.clear_way(&fs, &dir, name, hides)?;
            dir.link(cx, name, &upper).inspect_err(|_| {
                if whiteout {
                    // The name must stay hidden; the whiteout was there, so there is room for it.
                    let _restored = put_whiteout(&fs, &dir, name);
                }
            })?;
        }
        let me = self.myself(&fs);
        let mut place = target.place.lock();
        if place.removed || place.parent.is_none() {
            *place = Place { parent: me, name: name.to_vec(), removed: false };
        }
        Ok(())
    }

    /// unlink(2) and rmdir(2).
    pub(crate) fn take_name(&self, cx: &OpCx<'_>, name: &[u8], child: &Arc<Self>) -> Result<(), Errno> {
        let fs = self.fs()?;
        let dir = self.copy_up(None)?;
        if child.is_dir() {
            child.check_empty(cx)?;
        }
        let hides = self.lower_has(cx, name)?;
        {
            let _changing = self.change.lock();
            self.drop_upper(cx, &fs, &dir, name)?;
            if hides {
                put_whiteout(&fs, &dir, name)?;
            }
        }
        if child.layers.read().upper.is_none() {
            child.place.lock().removed = true;
        }
        Ok(())
    }

    /// Takes what the upper layer has under a name away; a directory's whiteouts go with it.
    pub(crate) fn drop_upper(
        &self,
        cx: &OpCx<'_>,
        fs: &OverlayFs,
        dir: &Arc<dyn InodeOps>,
        name: &[u8],
    ) -> Result<(), Errno> {
        let own = fs.cx();
        let Some(there) = self.upper_entry(&own, name)? else { return Ok(()) };
        if is_whiteout(there.as_ref()) {
            return dir.unlink(&own, name, &there);
        }
        if !there.is_dir() {
            return dir.unlink(cx, name, &there);
        }
        for entry in read_all(&own, &there)? {
            let inner = there.lookup(&own, &entry.name)?;
            if entry.file_type != S_IFCHR || !is_whiteout(inner.as_ref()) {
                return Err(Errno::ENOTEMPTY);
            }
            there.unlink(&own, &entry.name, &inner)?;
        }
        dir.rmdir(cx, name, &there)
    }

    pub(crate) fn check_empty(&self, cx: &OpCx<'_>) -> Result<(), Errno> {
        if self.list(cx)?.is_empty() { Ok(()) } else { Err(Errno::ENOTEMPTY) }
    }
}

/// Hides a name of the lower layer.
pub(crate) fn put_whiteout(fs: &OverlayFs, dir: &Arc<dyn InodeOps>, name: &[u8]) -> Result<(), Errno> {
    dir.mknod(&fs.cx(), name, S_IFCHR, 0).map(drop)
}
