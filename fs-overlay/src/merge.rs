//! Finding names in both layers.
use std::collections::HashSet;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::stat::{S_IFCHR, S_IFDIR, S_IFMT};
use memmap::IoDst;
use vfs::{DirEntry, DirSink, InodeOps, OpCx};

use crate::inode::{Layers, OverlayInode, Place, is_whiteout};
use crate::{Key, OPAQUE, ORIGIN, OverlayFs};

/// What a directory shows.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub name: Vec<u8>,
    pub ino: u64,
    pub file_type: u32,
}

/// `ENOENT` as `None`.
fn optional<T>(found: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_opaque(cx: &OpCx<'_>, dir: &dyn InodeOps) -> bool {
    dir.get_xattr(cx, OPAQUE).is_ok_and(|v| v == b"y")
}

/// The number of the lower inode that a file of the upper layer was copied from.
fn origin(cx: &OpCx<'_>, inode: &dyn InodeOps) -> Option<u64> {
    let bytes = inode.get_xattr(cx, ORIGIN).ok()?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

impl OverlayInode {
    /// Whether the lower layer shows this name through, were it not in the upper one.
    pub(crate) fn lower_has(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<bool, Errno> {
        let lower = self.layers.read().lower.clone();
        match lower {
            Some(lower) => Ok(optional(lower.lookup(cx, name))?.is_some()),
            None => Ok(false),
        }
    }

    /// What the upper layer has under this name, a whiteout included.
    pub(crate) fn upper_entry(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<Option<Arc<dyn InodeOps>>, Errno> {
        let upper = self.layers.read().upper.clone();
        match upper {
            Some(upper) => optional(upper.lookup(cx, name)),
            None => Ok(None),
        }
    }

    /// Finds a name in the merged directory.
    pub(crate) fn find(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<Arc<Self>, Errno> {
        let fs = self.fs()?;
        let own = fs.cx();
        let upper = self.upper_entry(&own, name)?;
        if upper.as_ref().is_some_and(|u| is_whiteout(u.as_ref())) {
            return Err(Errno::ENOENT);
        }
        let lower = self.layers.read().lower.clone();
        let merges = |u: &Arc<dyn InodeOps>| u.is_dir() && !is_opaque(&own, u.as_ref());
        let lower = match lower {
            Some(lower) if upper.as_ref().is_none_or(merges) => optional(lower.lookup(cx, name))?,
            _ => None,
        };
        // A directory merges with a directory only.
        let lower = lower.filter(|l| upper.is_none() || l.is_dir());
        self.join(&fs, name, Layers { upper, lower })
    }

    /// The inode made of these layers.
    pub(crate) fn join(&self, fs: &OverlayFs, name: &[u8], layers: Layers) -> Result<Arc<Self>, Errno> {
        let (key, ino, file_type) = match (&layers.upper, &layers.lower) {
            (Some(upper), lower) => {
                let meta = upper.metadata()?;
                let from = match lower {
                    Some(lower) => Some(lower.metadata()?).map(|m| fs.lower_ino(m.dev, m.ino)),
                    None => origin(&fs.cx(), upper.as_ref()),
                };
                let ino = from.unwrap_or_else(|| OverlayFs::upper_ino(meta.ino));
                (Key::Upper(meta.ino), ino, upper.file_type())
            }
            (None, Some(lower)) => {
                let meta = lower.metadata()?;
                (Key::Lower(meta.dev, meta.ino), fs.lower_ino(meta.dev, meta.ino), lower.file_type())
            }
            (None, None) => return Err(Errno::ENOENT),
        };
        let place = Place { parent: self.myself(fs), name: name.to_vec(), removed: false };
        let file_type = file_type & S_IFMT;
        Ok(fs.inode(key, || Self::new(Weak::clone(&self.fs), Some(key), file_type, ino, layers, place)))
    }

    /// The shared form of this inode: every inode but the root is in the table under its layers' numbers.
    pub(crate) fn myself(&self, fs: &OverlayFs) -> Option<Arc<Self>> {
        if std::ptr::eq(self, Arc::as_ptr(&fs.root)) {
            return Some(Arc::clone(&fs.root));
        }
        let keys = self.keys.lock().clone();
        let found: Vec<Weak<Self>> = {
            let inodes = fs.inodes.lock();
            keys.iter().filter_map(|k| inodes.get(k).cloned()).collect()
        };
        // Upgraded without the lock: the last reference to another inode may be dropped here, and that takes it.
        found.iter().filter_map(Weak::upgrade).find(|i| std::ptr::eq(self, Arc::as_ptr(i)))
    }

    /// Everything in the merged directory but `.` and `..`.
    pub(crate) fn list(&self, cx: &OpCx<'_>) -> Result<Vec<Listed>, Errno> {
        let fs = self.fs()?;
        let Layers { upper, lower } = self.layers();
        let mut seen = HashSet::new();
        let mut out = Vec::new();
        if let Some(upper) = upper {
            let own = fs.cx();
            for mut entry in read_all(&own, &upper)? {
                seen.insert(entry.name.clone());
                let inode = optional(upper.lookup(&own, &entry.name))?;
                let Some(inode) = inode else { continue };
                if entry.file_type == S_IFCHR && is_whiteout(inode.as_ref()) {
                    continue;
                }
                entry.ino = origin(&own, inode.as_ref()).unwrap_or_else(|| OverlayFs::upper_ino(entry.ino));
                out.push(entry);
            }
        }
        if let Some(lower) = lower {
            let device = lower.metadata()?.dev;
            for mut entry in read_all(cx, &lower)? {
                if seen.contains(&entry.name) {
                    continue;
                }
                entry.ino = fs.lower_ino(device, entry.ino);
                out.push(entry);
            }
        }
        Ok(out)
    }
}

struct Collect(Vec<Listed>);

impl DirSink for Collect {
    fn add(&mut self, entry: &DirEntry<'_>) -> bool {
        if entry.name != b"." && entry.name != b".." {
            let (name, file_type) = (entry.name.to_vec(), entry.file_type & S_IFMT);
            self.0.push(Listed { name, ino: entry.ino, file_type });
        }
        true
    }
}

/// Every entry of one layer's directory.
pub(crate) fn read_all(cx: &OpCx<'_>, dir: &Arc<dyn InodeOps>) -> Result<Vec<Listed>, Errno> {
    let file = Arc::clone(dir).open(cx, abi::fs::O_RDONLY | abi::fs::O_DIRECTORY)?;
    let mut all = Collect(Vec::new());
    let mut position = 0;
    loop {
        let before = all.0.len();
        let next = file.readdir(cx, position, &mut all)?;
        if next == position || all.0.len() == before {
            return Ok(all.0);
        }
        position = next;
    }
}

/// Reads a file of one layer from an offset; 0 bytes are its end.
pub(crate) fn read_some(
    cx: &OpCx<'_>,
    file: &dyn vfs::FileOps,
    offset: u64,
    buffer: &mut [u8],
) -> Result<usize, Errno> {
    file.read_at(cx, &mut IoDst::kernel(buffer), offset)
}

/// Directories have the type that is listed for them.
pub(crate) const fn is_directory(listed: &Listed) -> bool {
    listed.file_type == S_IFDIR
}
