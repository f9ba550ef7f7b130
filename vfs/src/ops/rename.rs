//! rename(2) and renameat2(2), Linux `fs/namei.c:do_renameat2` and `vfs_rename`.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;
use abi::fs::{RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT};
use kernel::Cap;

use super::{Parent, Vfs, notify_name};
use crate::inode::access;
use crate::notify::event;
use crate::walk::{At, Last, directory, lookup};
use crate::{Dentry, InodeOps};

/// Ties the two halves of a rename for watchers.
static NEXT_COOKIE: AtomicU32 = AtomicU32::new(1);

/// The two names of a rename and what they lead to.
struct Names<'p> {
    old: &'p Parent<'p>,
    old_name: &'p [u8],
    source: Arc<Dentry>,
    new: &'p Parent<'p>,
    new_name: &'p [u8],
    target: Arc<Dentry>,
    flags: u32,
}

impl Names<'_> {
    const fn exchanges(&self) -> bool {
        self.flags & RENAME_EXCHANGE != 0
    }
    fn source_inode(&self) -> Result<&Arc<dyn InodeOps>, Errno> {
        self.source.inode().ok_or(Errno::ENOENT)
    }
    fn same_dir(&self) -> bool {
        Arc::ptr_eq(&self.old.dir.dentry, &self.new.dir.dentry)
    }
}

impl Vfs<'_> {
    /// renameat2(2).
    ///
    /// # Errors
    /// Those of rename(2).
    pub fn rename(
        &self,
        old_at: &At,
        old_path: &[u8],
        new_at: &At,
        new_path: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let senseless = flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) != 0
            || flags & RENAME_EXCHANGE != 0 && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) != 0;
        if senseless {
            return Err(Errno::EINVAL);
        }
        if flags & RENAME_WHITEOUT != 0 && !self.cx.creds.has_cap(Cap::MKNOD) {
            return Err(Errno::EPERM);
        }
        let old = self.resolve_parent(old_at, old_path)?;
        let new = self.resolve_parent(new_at, new_path)?;
        if !Arc::ptr_eq(&old.dir.mount, &new.dir.mount) {
            return Err(Errno::EXDEV);
        }
        let Last::Name(old_name) = old.last else { return Err(Errno::EBUSY) };
        let Last::Name(new_name) = new.last else {
            return Err(if flags & RENAME_NOREPLACE != 0 { Errno::EEXIST } else { Errno::EBUSY });
        };
        if old.dir.mount.is_read_only() {
            return Err(Errno::EROFS);
        }
        let sb = Arc::clone(old.dir.mount.sb());
        let moves = !Arc::ptr_eq(&old.dir.dentry, &new.dir.dentry);
        // The one lock held across calls of the file system: without it two moves of directories could make a loop.
        let _guard = moves.then(|| sb.rename.lock());
        let source = lookup::child(&self.cx, &sb, &old.dir.dentry, old_name)?;
        let target = lookup::child(&self.cx, &sb, &new.dir.dentry, new_name)?;
        let names = Names { old: &old, old_name, source, new: &new, new_name, target, flags };
        self.check_rename(&names)?;
        self.do_rename(&names)
    }

    /// The checks on names and types.
    fn check_rename(&self, names: &Names<'_>) -> Result<(), Errno> {
        let source = names.source_inode()?;
        let target = names.target.inode();
        if names.flags & RENAME_NOREPLACE != 0 && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if names.exchanges() {
            let other = target.ok_or(Errno::ENOENT)?;
            if !other.is_dir() && names.new.slashes {
                return Err(Errno::ENOTDIR);
            }
        }
        if !source.is_dir() && (names.old.slashes || !names.exchanges() && names.new.slashes) {
            return Err(Errno::ENOTDIR);
        }
        if names.new.dir.dentry.is_below(&names.source) {
            return Err(Errno::EINVAL);
        }
        if target.is_some() && names.old.dir.dentry.is_below(&names.target) {
            return Err(if names.exchanges() { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        Ok(())
    }

    /// The checks on permissions.
    fn may_rename(&self, names: &Names<'_>) -> Result<(), Errno> {
        let source = names.source_inode()?;
        let (old_dir, new_dir) = (&names.old.dir, &names.new.dir);
        self.may_delete(old_dir, source, source.is_dir())?;
        match names.target.inode() {
            None => {
                if new_dir.dentry.is_unlinked() {
                    return Err(Errno::ENOENT);
                }
                directory(new_dir)?.access(&self.cx, access::WRITE | access::EXEC)?;
            }
            Some(target) if names.exchanges() => self.may_delete(new_dir, target, target.is_dir())?,
            Some(target) => self.may_delete(new_dir, target, source.is_dir())?,
        }
        if names.same_dir() {
            return Ok(());
        }
        // A directory that moves gets another `..`.
        if source.is_dir() {
            source.access(&self.cx, access::WRITE)?;
        }
        match names.target.inode() {
            Some(target) if names.exchanges() && target.is_dir() => target.access(&self.cx, access::WRITE),
            _ => Ok(()),
        }
    }

    fn do_rename(&self, names: &Names<'_>) -> Result<(), Errno> {
        let source = names.source_inode()?;
        if let Some(target) = names.target.inode()
            && (Arc::ptr_eq(source, target) || source.same(target.as_ref()))
        {
            return Ok(());
        }
        self.may_rename(names)?;
        let mount = &names.old.dir.mount;
        for dentry in [&names.source, &names.target] {
            if dentry.is_mountpoint() && mount.child_at(dentry).is_some() {
                return Err(Errno::EBUSY);
            }
        }
        let new_inode = directory(&names.new.dir)?;
        directory(&names.old.dir)?.rename(
            &self.cx,
            names.old_name,
            new_inode,
            names.new_name,
            names.flags,
        )?;
        self.renamed(names);
        Ok(())
    }

    /// The cache follows, watchers hear of it.
    fn renamed(&self, names: &Names<'_>) {
        let (old_dir, new_dir) = (&names.old.dir, &names.new.dir);
        if names.exchanges() {
            // Each directory forgets both; the moved dentries stay known at their new places.
            old_dir.dentry.forget(names.old_name);
            new_dir.dentry.move_child(&names.target, &old_dir.dentry, names.old_name);
            names.source.set_place(&new_dir.dentry, names.new_name);
        } else {
            if let Some(target) = names.target.inode() {
                target.lost_name();
                names.target.set_unlinked();
                new_dir.mount.sb().cache.release(&names.target);
            }
            old_dir.dentry.move_child(&names.source, &new_dir.dentry, names.new_name);
        }
        if new_dir.mount.sb().watches.is_empty() {
            return;
        }
        let cookie = NEXT_COOKIE.fetch_add(1, Ordering::Relaxed);
        let Some(source) = names.source.inode() else { return };
        let is_dir = if source.is_dir() { event::IN_ISDIR } else { 0 };
        notify_name(old_dir, event::IN_MOVED_FROM | is_dir, cookie, names.old_name);
        notify_name(new_dir, event::IN_MOVED_TO | is_dir, cookie, names.new_name);
        let watches = &new_dir.mount.sb().watches;
        if let Ok(meta) = source.metadata() {
            watches.notify(meta.ino, event::IN_MOVE_SELF | is_dir, 0, None);
        }
        if !names.exchanges()
            && let Some(Ok(meta)) = names.target.inode().map(|inode| inode.metadata())
        {
            let mask = if meta.nlink == 0 { event::IN_DELETE_SELF } else { event::IN_ATTRIB };
            watches.notify(meta.ino, mask, 0, None);
        }
    }
}
