//! Copying a file to the upper layer before its first change, Linux `fs/overlayfs/copy_up.c`.
use std::sync::Arc;

use abi::Errno;
use abi::fs::{O_RDONLY, O_WRONLY};
use abi::stat::{S_IFDIR, S_IFLNK, S_IFREG};
use memmap::IoSrc;
use vfs::{InodeOps, Metadata, OpCx, SetAttr, SetTime};

use crate::inode::{OverlayInode, Place};
use crate::merge::{is_directory, read_some};
use crate::{Key, OPAQUE, ORIGIN, OverlayFs, PRIVATE_PREFIX};

/// How much of a file is copied at once.
const CHUNK: usize = 128 << 10;
/// How deep trees are that can be copied up for a rename.
const MAX_DEPTH: usize = 256;

/// Gives an inode of the upper layer the attributes of a lower one.
pub(crate) fn attributes(cx: &OpCx<'_>, to: &dyn InodeOps, from: &Metadata) -> Result<(), Errno> {
    let is_link = to.file_type() == S_IFLNK;
    let attr = SetAttr {
        mode: (!is_link).then_some(from.mode & 0o7777),
        uid: Some(from.uid),
        gid: Some(from.gid),
        size: None,
        atime: Some(SetTime::At(from.atime)),
        mtime: Some(SetTime::At(from.mtime)),
    };
    to.set_attr(cx, &attr)
}

fn extended_attributes(cx: &OpCx<'_>, to: &dyn InodeOps, from: &dyn InodeOps) -> Result<(), Errno> {
    let names = match from.list_xattr(cx) {
        Err(Errno::EOPNOTSUPP) => return Ok(()),
        other => other?,
    };
    for name in names.iter().filter(|n| !n.starts_with(PRIVATE_PREFIX)) {
        let copied = from.get_xattr(cx, name).and_then(|value| to.set_xattr(cx, name, &value, 0));
        match copied {
            // What the upper layer cannot hold is left behind, as Linux leaves what is not a capability or a label.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn contents(cx: &OpCx<'_>, to: &Arc<dyn InodeOps>, from: &Arc<dyn InodeOps>, size: u64) -> Result<(), Errno> {
    if size == 0 {
        return Ok(());
    }
    let (source, target) = (Arc::clone(from).open(cx, O_RDONLY)?, Arc::clone(to).open(cx, O_WRONLY)?);
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let want = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
        let n = read_some(cx, source.as_ref(), at, buffer.get_mut(..want).unwrap_or_default())?;
        let bytes = buffer.get(..n).unwrap_or_default();
        if n == 0 {
            break;
        }
        // Zeros stay a hole.
        if bytes.iter().any(|b| *b != 0) {
            write_all(cx, target.as_ref(), at, bytes)?;
        }
        at += n as u64;
    }
    to.set_attr(cx, &SetAttr { size: Some(at), ..SetAttr::default() })
}

fn write_all(cx: &OpCx<'_>, file: &dyn vfs::FileOps, mut at: u64, bytes: &[u8]) -> Result<(), Errno> {
    let mut source = IoSrc::kernel(bytes);
    while source.remaining() > 0 {
        match file.write_at(cx, &mut source, at)? {
            0 => return Err(Errno::EIO),
            n => at += n as u64,
        }
    }
    Ok(())
}

impl OverlayInode {
    /// The inode's part in the upper layer, made if it is not there yet. Of a regular file at most `size` bytes are copied.
    pub(crate) fn copy_up(&self, size: Option<u64>) -> Result<Arc<dyn InodeOps>, Errno> {
        if let Some(upper) = self.layers.read().upper.clone() {
            return Ok(upper);
        }
        let fs = self.fs()?;
        let Place { parent, name, removed } = self.place.lock().clone();
        let parent = parent.ok_or(Errno::EIO)?;
        let dir = parent.copy_up(None)?;
        let _copying = self.copy.lock();
        let layers = self.layers();
        if let Some(upper) = layers.upper {
            return Ok(upper);
        }
        let lower = layers.lower.ok_or(Errno::EIO)?;
        let upper = self.copy_to(&fs, &parent, &dir, &name, &lower, size, removed)?;
        let ino = upper.metadata()?.ino;
        if let Some(me) = self.myself(&fs) {
            self.keys.lock().push(Key::Upper(ino));
            fs.remember(Key::Upper(ino), &me);
        }
        self.layers.write().upper = Some(Arc::clone(&upper));
        Ok(upper)
    }

    #[expect(clippy::too_many_arguments, reason = "what is copied, where to, and how much of it")]
    fn copy_to(
        &self,
        fs: &OverlayFs,
        parent: &Self,
        dir: &Arc<dyn InodeOps>,
        name: &[u8],
        lower: &Arc<dyn InodeOps>,
        size: Option<u64>,
        removed: bool,
    ) -> Result<Arc<dyn InodeOps>, Errno> {
        let cx = fs.cx();
        let meta = lower.metadata()?;
        let finish = |upper: &Arc<dyn InodeOps>| {
            extended_attributes(&cx, upper.as_ref(), lower.as_ref())?;
            match upper.set_xattr(&cx, ORIGIN, &self.ino.to_le_bytes(), 0) {
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EPERM) => {}
                Err(error) => return Err(error),
            }
            attributes(&cx, upper.as_ref(), &meta)
        };
        if self.file_type == S_IFREG {
            let upper = dir.tmpfile(&cx, 0o600)?;
            let size = size.unwrap_or(meta.size).min(meta.size);
            contents(&cx, &upper, lower, size)?;
            finish(&upper)?;
            if !removed {
                let _changing = parent.change.lock();
                dir.link(&cx, name, &upper)?;
            }
            return Ok(upper);
        }
        let _changing = parent.change.lock();
        let upper = match self.file_type {
            S_IFDIR => dir.mkdir(&cx, name, 0o700)?,
            S_IFLNK => dir.symlink(&cx, name, &lower.readlink(&cx)?)?,
            file_type => dir.mknod(&cx, name, file_type | 0o600, meta.rdev)?,
        };
        finish(&upper)?;
        Ok(upper)
    }

    /// Copies a directory and all below it up, so that it no longer depends on its place in the lower layer.
    pub(crate) fn copy_up_tree(&self, cx: &OpCx<'_>, depth: usize) -> Result<(), Errno> {
        let upper = self.copy_up(None)?;
        if !self.is_dir() || self.layers.read().lower.is_none() {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(Errno::EXDEV);
        }
        for entry in self.list(cx)? {
            let child = self.find(cx, &entry.name)?;
            if is_directory(&entry) {
                child.copy_up_tree(cx, depth + 1)?;
            } else {
                child.copy_up(None)?;
            }
        }
        let fs = self.fs()?;
        let _changing = self.change.lock();
        upper.set_xattr(&fs.cx(), OPAQUE, b"y", 0)?;
        // Dropped without the lock: the last reference to a remote file tells its server.
        let lower = self.layers.write().lower.take();
        drop(lower);
        Ok(())
    }
}
