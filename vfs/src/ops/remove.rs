//! Taking names away: unlink(2), rmdir(2).
use std::sync::Arc;

use abi::Errno;

use super::{Vfs, notify_name};
use crate::dentry::Target;
use crate::inode::{Caching, access};
use crate::notify::event;
use crate::walk::{At, Last, directory, lookup};
use crate::{Dentry, InodeOps, Path, permission};

/// What was known of a directory before a name in it went.
#[derive(Clone, Copy, Debug)]
struct Known {
    generation: u64,
    /// What is kept of the missing name, if that may be kept.
    stamp: Option<u64>,
}

impl Known {
    fn of(dir: &Path, inode: &Arc<dyn InodeOps>) -> Self {
        let stamp = if inode.caching() == Caching::Cached { Some(0) } else { inode.missing_stamp() };
        Self { generation: dir.dentry.generation(), stamp }
    }
}

impl Vfs<'_> {
    /// Checks that a child may be removed or replaced, Linux `may_delete`.
    pub(super) fn may_delete(
        &self,
        dir: &Path,
        victim: &Arc<dyn InodeOps>,
        must_be_dir: bool,
    ) -> Result<(), Errno> {
        let inode = directory(dir)?;
        inode.access(&self.cx, access::WRITE | access::EXEC)?;
        let owner = inode.ownership()?;
        if owner.mode & abi::stat::S_ISVTX != 0
            && permission::sticky(self.cx.creds, &owner, victim.ownership()?.uid)
        {
            return Err(Errno::EPERM);
        }
        match (must_be_dir, victim.is_dir()) {
            (true, false) => Err(Errno::ENOTDIR),
            (false, true) => Err(Errno::EISDIR),
            _ if dir.dentry.is_unlinked() => Err(Errno::ENOENT),
            _ => Ok(()),
        }
    }

    /// A name is gone: the cache knows that, watchers hear of it. `known` is from before it went.
    fn removed(&self, dir: &Path, name: &[u8], child: &Arc<Dentry>, known: Known) {
        child.set_unlinked();
        let cache = &dir.mount.sb().cache;
        match known.stamp {
            Some(stamp) => {
                dir.dentry.replace(cache, name, Target::Missing(stamp), known.generation);
            }
            None => dir.dentry.forget(name),
        }
        cache.release(child);
        let watches = &dir.mount.sb().watches;
        if watches.is_empty() {
            return;
        }
        let Some(inode) = child.inode() else { return };
        let is_dir = if inode.is_dir() { event::IN_ISDIR } else { 0 };
        let meta = inode.metadata();
        // Its number of links has changed.
        if let (Ok(meta), 0) = (&meta, is_dir) {
            watches.notify(meta.ino, event::IN_ATTRIB, 0, None);
        }
        notify_name(dir, event::IN_DELETE | is_dir, 0, name);
        if let Ok(meta) = meta
            && (meta.nlink == 0 || is_dir != 0)
        {
            watches.notify(meta.ino, event::IN_DELETE_SELF | is_dir, 0, None);
        }
    }

    /// unlinkat(2) without `AT_REMOVEDIR`.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn unlink(&self, at: &At, path: &[u8]) -> Result<(), Errno> {
        let parent = self.resolve_parent(at, path)?;
        let Last::Name(name) = parent.last else { return Err(Errno::EISDIR) };
        let dir = parent.dir;
        let inode = directory(&dir)?;
        let child = lookup::child(&self.cx, dir.mount.sb(), &dir.dentry, name)?;
        let victim = child.inode().ok_or(Errno::ENOENT)?;
        if parent.slashes {
            return Err(if victim.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        if dir.mount.is_read_only() {
            return Err(Errno::EROFS);
        }
        self.may_delete(&dir, victim, false)?;
        if child.is_mountpoint() && dir.mount.child_at(&child).is_some() {
            return Err(Errno::EBUSY);
        }
        let known = Known::of(&dir, inode);
        inode.unlink(&self.cx, name, victim)?;
        self.removed(&dir, name, &child, known);
        Ok(())
    }

    /// rmdir(2).
    ///
    /// # Errors
    /// Those of rmdir(2).
    pub fn rmdir(&self, at: &At, path: &[u8]) -> Result<(), Errno> {
        let parent = self.resolve_parent(at, path)?;
        let name = match parent.last {
            Last::Name(name) => name,
            Last::Dot => return Err(Errno::EINVAL),
            Last::DotDot => return Err(Errno::ENOTEMPTY),
            Last::Root => return Err(Errno::EBUSY),
        };
        let dir = parent.dir;
        let inode = directory(&dir)?;
        let child = lookup::child(&self.cx, dir.mount.sb(), &dir.dentry, name)?;
        let victim = child.inode().ok_or(Errno::ENOENT)?;
        if dir.mount.is_read_only() {
            return Err(Errno::EROFS);
        }
        self.may_delete(&dir, victim, true)?;
        if child.is_mountpoint() && dir.mount.child_at(&child).is_some() {
            return Err(Errno::EBUSY);
        }
        let known = Known::of(&dir, inode);
        inode.rmdir(&self.cx, name, victim)?;
        self.removed(&dir, name, &child, known);
        Ok(())
    }
}
