//! Making names: mkdir(2), mknod(2), symlink(2), link(2).
use std::sync::Arc;

use abi::Errno;
use abi::fs::PATH_MAX;
use abi::stat::{
    S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_ISGID, S_ISUID, S_ISVTX,
    S_IXGRP,
};
use kernel::Cap;

use super::{Vfs, notify_name, notify_path};
use crate::dentry::Target;
use crate::inode::access;
use crate::notify::event;
use crate::permission;
use crate::walk::{At, Last, LookupFlags, directory, lookup};
use crate::{InodeOps, Path};

/// The bits of a new mode that a caller decides.
const MODE_BITS: u32 = 0o7777;

/// A name that is free, and may be made.
pub(super) struct NewName<'p> {
    pub(super) dir: Path,
    pub(super) name: &'p [u8],
    generation: u64,
}

impl Vfs<'_> {
    /// Finds a free name, Linux `filename_create` and `may_create`.
    pub(super) fn new_name<'p>(&self, at: &At, path: &'p [u8], is_dir: bool) -> Result<NewName<'p>, Errno> {
        let parent = self.resolve_parent(at, path)?;
        let Last::Name(name) = parent.last else { return Err(Errno::EEXIST) };
        let dir = parent.dir;
        let inode = directory(&dir)?;
        let generation = dir.dentry.generation();
        let child = lookup::child(&self.cx, dir.mount.sb(), &dir.dentry, name)?;
        if child.inode().is_some() {
            return Err(Errno::EEXIST);
        }
        if parent.slashes && !is_dir {
            return Err(Errno::ENOENT);
        }
        if dir.mount.is_read_only() {
            return Err(Errno::EROFS);
        }
        if dir.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        inode.access(&self.cx, access::WRITE | access::EXEC)?;
        Ok(NewName { dir, name, generation })
    }

    /// The name was made.
    fn created(&self, new: &NewName<'_>, inode: Arc<dyn InodeOps>) -> Path {
        let mask = event::IN_CREATE | if inode.is_dir() { event::IN_ISDIR } else { 0 };
        let cache = &new.dir.mount.sb().cache;
        let dentry = new.dir.dentry.replace(cache, new.name, Target::Inode(inode), new.generation);
        notify_name(&new.dir, mask, 0, new.name);
        Path { mount: Arc::clone(&new.dir.mount), dentry }
    }

    /// mkdirat(2); `mode` as given by the caller.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn mkdir(&self, at: &At, path: &[u8], mode: u32) -> Result<Path, Errno> {
        let new = self.new_name(at, path, true)?;
        let mode = mode & (0o777 | S_ISVTX) & !self.fs.umask();
        let inode = directory(&new.dir)?.mkdir(&self.cx, new.name, mode | S_IFDIR)?;
        Ok(self.created(&new, inode))
    }

    /// mknodat(2); a mode without a type makes a regular file.
    ///
    /// # Errors
    /// Those of mknod(2).
    pub fn mknod(&self, at: &At, path: &[u8], mode: u32, rdev: u64) -> Result<Path, Errno> {
        let kind = match mode & S_IFMT {
            0 => S_IFREG,
            S_IFDIR => return Err(Errno::EPERM),
            kind @ (S_IFREG | S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK) => kind,
            _ => return Err(Errno::EINVAL),
        };
        let new = self.new_name(at, path, false)?;
        let is_device = matches!(kind, S_IFCHR | S_IFBLK);
        // A whiteout of an overlay, the device 0:0, needs no privilege.
        let whiteout = kind == S_IFCHR && rdev == 0;
        if is_device && !whiteout && !self.cx.creds.has_cap(Cap::MKNOD) {
            return Err(Errno::EPERM);
        }
        let mode = mode & MODE_BITS & !self.fs.umask();
        let dir = directory(&new.dir)?;
        let inode = if kind == S_IFREG {
            dir.create(&self.cx, new.name, mode | S_IFREG)?
        } else {
            dir.mknod(&self.cx, new.name, mode | kind, if is_device { rdev } else { 0 })?
        };
        Ok(self.created(&new, inode))
    }

    /// symlinkat(2).
    ///
    /// # Errors
    /// Those of symlink(2).
    pub fn symlink(&self, target: &[u8], at: &At, path: &[u8]) -> Result<Path, Errno> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let new = self.new_name(at, path, false)?;
        let inode = directory(&new.dir)?.symlink(&self.cx, new.name, target)?;
        Ok(self.created(&new, inode))
    }

    /// linkat(2).
    ///
    /// # Errors
    /// Those of link(2).
    pub fn link(
        &self,
        old_at: &At,
        old_path: &[u8],
        flags: LookupFlags,
        new_at: &At,
        new_path: &[u8],
    ) -> Result<(), Errno> {
        if flags.empty && old_path.is_empty() && !self.cx.creds.has_cap(Cap::DAC_READ_SEARCH) {
            return Err(Errno::ENOENT);
        }
        let old = self.resolve(old_at, old_path, flags)?;
        let new = self.new_name(new_at, new_path, false)?;
        if !Arc::ptr_eq(&old.mount, &new.dir.mount) {
            return Err(Errno::EXDEV);
        }
        let inode = old.inode()?;
        if old.dentry.is_nameless() {
            return Err(Errno::ENOENT);
        }
        self.may_link(inode)?;
        if inode.is_dir() {
            return Err(Errno::EPERM);
        }
        directory(&new.dir)?.link(&self.cx, new.name, inode)?;
        self.created(&new, Arc::clone(inode));
        notify_path(&old, event::IN_ATTRIB);
        Ok(())
    }

    /// `/proc/sys/fs/protected_hardlinks` = 1, Linux `may_linkat`: who does not own a file links it only where it could
    /// read and write it and it is nothing special.
    fn may_link(&self, inode: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        let meta = inode.metadata()?;
        if permission::owner_or_capable(self.cx.creds, meta.uid) {
            return Ok(());
        }
        let special = meta.mode & S_IFMT != S_IFREG
            || meta.mode & S_ISUID != 0
            || meta.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP;
        let safe = meta.mode & S_IFMT == S_IFLNK
            || !special && inode.access(&self.cx, access::READ | access::WRITE).is_ok();
        if safe { Ok(()) } else { Err(Errno::EPERM) }
    }
}
