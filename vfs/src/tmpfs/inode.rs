//! Inodes of tmpfs.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::{F_SEAL_SEAL, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, XATTR_CREATE, XATTR_REPLACE};
use abi::stat::{S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use abi::time::Timespec;
use memmap::{Mappings, PAGE};
use sync::{LockClass, Mutex, MutexGuard, RwLock};

use super::data::Data;
use super::dir::Entries;
use super::{Options, Shared};
use crate::inode::{SetAttr, SetTime};
use crate::permission::{self, new_inode_owner};
use crate::{FileOps, InodeOps, Metadata, OpCx, WriteCount};

/// The most bytes of extended attributes of one inode, names and values.
const XATTR_SPACE: usize = 128 << 10;
/// What each entry adds to a directory's size, as in Linux (`BOGO_DIRENT_SIZE`).
const ENTRY_SIZE: u64 = 20;
/// The most names of one file.
const LINK_MAX: u32 = u32::MAX >> 1;

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What changes under the inode's lock.
#[derive(Debug)]
pub(super) struct Attributes {
    pub(super) nlink: u32,
    pub(super) atime: Timespec,
    pub(super) mtime: Timespec,
    pub(super) ctime: Timespec,
    btime: Timespec,
    /// Made by `O_TMPFILE`: may get its first name.
    linkable: bool,
    xattrs: Option<Box<Xattrs>>,
}

/// A regular file's contents and who maps them.
#[derive(Debug)]
pub(super) struct FileData {
    pub(super) data: RwLock<Data>,
    pub(super) mappings: Mappings,
    /// `F_SEAL_*`.
    pub(super) seals: AtomicU32,
}

#[derive(Debug)]
pub(super) enum Kind {
    Directory(Mutex<Entries>),
    File(Box<FileData>),
    Symlink(Box<[u8]>),
    /// Device nodes, FIFOs and sockets.
    Special(u64),
}

/// A file, directory, link or node of tmpfs.
#[derive(Debug)]
pub struct TmpfsInode {
    pub(super) shared: Arc<Shared>,
    pub(super) me: Weak<Self>,
    pub(super) ino: u64,
    file_type: u32,
    /// Permissions and owners are apart from the rest so that search permission takes no lock.
    mode: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    pub(super) attributes: Mutex<Attributes>,
    pub(super) kind: Kind,
    writers: WriteCount,
}

impl TmpfsInode {
    fn make(
        shared: &Arc<Shared>,
        (uid, gid, mode): (u32, u32, u32),
        now: Timespec,
        kind: Kind,
    ) -> Result<Arc<Self>, Errno> {
        let ino = shared.charge_inode()?;
        let nlink = if matches!(kind, Kind::Directory(_)) { 2 } else { 1 };
        let attributes = Attributes {
            nlink,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            linkable: false,
            xattrs: None,
        };
        Ok(Arc::new_cyclic(|me| Self {
            shared: Arc::clone(shared),
            me: Weak::clone(me),
            ino,
            file_type: mode & S_IFMT,
            mode: AtomicU32::new(mode & 0o7777),
            uid: AtomicU32::new(uid),
            gid: AtomicU32::new(gid),
            attributes: Mutex::new(LockClass::Inode, attributes),
            kind,
            writers: WriteCount::default(),
        }))
    }

    pub(super) fn root(cx: &OpCx<'_>, shared: &Arc<Shared>, options: &Options) -> Result<Arc<Self>, Errno> {
        let (uid, gid) = (options.uid.unwrap_or(cx.creds.fsuid), options.gid.unwrap_or(cx.creds.fsgid));
        let entries = Mutex::new(LockClass::Directory, Entries::new(1));
        Self::make(shared, (uid, gid, S_IFDIR | options.mode), cx.now(), Kind::Directory(entries))
    }

    /// A regular file without a name.
    pub(super) fn file(cx: &OpCx<'_>, shared: &Arc<Shared>, mode: u32) -> Result<Arc<Self>, Errno> {
        let owner = (cx.creds.fsuid, cx.creds.fsgid, S_IFREG | mode & 0o7777);
        let file = Self::make(shared, owner, cx.now(), Self::empty_file())?;
        file.attributes.lock().nlink = 0;
        Ok(file)
    }

    fn empty_file() -> Kind {
        Kind::File(Box::new(FileData {
            data: RwLock::new(LockClass::Pages, Data::default()),
            mappings: Mappings::new(),
            seals: AtomicU32::new(F_SEAL_SEAL),
        }))
    }

    fn entries(&self) -> Result<MutexGuard<'_, Entries>, Errno> {
        match &self.kind {
            Kind::Directory(entries) => Ok(entries.lock()),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn file_data(&self) -> Result<&FileData, Errno> {
        match &self.kind {
            Kind::File(file) => Ok(file),
            Kind::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn mode_bits(&self) -> u32 {
        self.mode.load(Ordering::Relaxed)
    }
    pub(super) fn set_mode_bits(&self, mode: u32) {
        self.mode.store(mode & 0o7777, Ordering::Relaxed);
    }

    /// A child of this directory, not yet in it.
    fn new_child(&self, cx: &OpCx<'_>, mode: u32, kind: Kind) -> Result<Arc<Self>, Errno> {
        let owner = new_inode_owner(cx.creds, self.mode_bits(), self.gid.load(Ordering::Relaxed), mode);
        Self::make(&self.shared, owner, cx.now(), kind)
    }

    /// Adds a new child under a name.
    fn add(&self, cx: &OpCx<'_>, name: &[u8], child: Arc<Self>) -> Result<Arc<dyn InodeOps>, Errno> {
        let is_dir = matches!(child.kind, Kind::Directory(_));
        {
            let mut entries = self.entries()?;
            if entries.dead {
                return Err(Errno::ENOENT);
            }
            if entries.get(name).is_some() {
                return Err(Errno::EEXIST);
            }
            entries.put(name, Arc::clone(&child));
        }
        self.touch(cx.now(), i32::from(is_dir));
        Ok(child)
    }

    /// The directory's entries changed; `links` is how many more subdirectories it has.
    fn touch(&self, now: Timespec, links: i32) {
        let mut attributes = self.attributes.lock();
        attributes.mtime = now;
        attributes.ctime = now;
        attributes.nlink = attributes.nlink.saturating_add_signed(links);
    }

    /// A name of the inode is gone.
    fn unlinked(&self, now: Timespec) {
        let mut attributes = self.attributes.lock();
        attributes.ctime = now;
        attributes.nlink = attributes.nlink.saturating_sub(1);
    }

    /// An inode of this file system behind a trait object.
    fn of(inode: &Arc<dyn InodeOps>) -> Result<&Self, Errno> {
        inode.downcast_ref().ok_or(Errno::EXDEV)
    }

    /// Checks that a directory is empty and lets nothing be made in it any more.
    fn kill_directory(&self) -> Result<(), Errno> {
        let Kind::Directory(entries) = &self.kind else { return Err(Errno::ENOTDIR) };
        let mut entries = entries.lock_nested();
        if !entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        entries.dead = true;
        drop(entries);
        self.attributes.lock().nlink = 0;
        Ok(())
    }

    fn set_parent(&self, parent: u64) {
        if let Kind::Directory(entries) = &self.kind {
            entries.lock_nested().parent = parent;
        }
    }

    /// Removes a name that leads to `child`.
    fn remove(&self, cx: &OpCx<'_>, name: &[u8], child: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        let victim = Self::of(child)?;
        let Kind::Directory(entries) = &self.kind else { return Err(Errno::ENOTDIR) };
        let taken = {
            let _structure = matches!(victim.kind, Kind::Directory(_)).then(|| self.shared.structure.lock());
            let mut entries = entries.lock_nested();
            if !entries.get(name).is_some_and(|known| std::ptr::eq(Arc::as_ptr(known), victim)) {
                return Err(Errno::ENOENT);
            }
            if matches!(victim.kind, Kind::Directory(_)) {
                victim.kill_directory()?;
            }
            entries.take(name)
        };
        drop(taken);
        let now = cx.now();
        if matches!(victim.kind, Kind::Directory(_)) {
            self.touch(now, -1);
        } else {
            self.touch(now, 0);
            victim.unlinked(now);
        }
        Ok(())
    }

    fn relocate(&self, cx: &OpCx<'_>, rename: &Rename<'_>) -> Result<(), Errno> {
        let now = cx.now();
        let whiteout = match rename.flags & RENAME_WHITEOUT {
            0 => None,
            _ => Some(self.new_child(cx, S_IFCHR, Kind::Special(0))?),
        };
        let (moved, replaced) = {
            let _structure = self.shared.structure.lock();
            let mut guards = rename.lock(self)?;
            rename.exchange_entries(&mut guards, whiteout)?
        };
        let moved_dir = i32::from(matches!(moved.kind, Kind::Directory(_)));
        let replaced_dir = replaced.as_ref().map_or(0, |r| i32::from(matches!(r.kind, Kind::Directory(_))));
        let across = !std::ptr::eq(self, rename.new_dir);
        let (leaves, comes) = match (rename.flags & RENAME_EXCHANGE != 0, across) {
            (true, true) => (replaced_dir - moved_dir, moved_dir - replaced_dir),
            (true, false) => (0, 0),
            (false, true) => (-moved_dir, moved_dir - replaced_dir),
            (false, false) => (-replaced_dir, 0),
        };
        self.touch(now, leaves);
        rename.new_dir.touch(now, comes);
        moved.attributes.lock().ctime = now;
        if let Some(replaced) = replaced {
            if rename.flags & RENAME_EXCHANGE != 0 {
                replaced.attributes.lock().ctime = now;
            } else if replaced_dir == 0 {
                replaced.unlinked(now);
            }
        }
        Ok(())
    }
}

/// A rename under way.
struct Rename<'a> {
    old_dir: &'a TmpfsInode,
    name: &'a [u8],
    new_dir: &'a TmpfsInode,
    new_name: &'a [u8],
    flags: u32,
}

/// The locked entries of the old directory and, where it is another, of the new one.
type Guards<'a> = (MutexGuard<'a, Entries>, Option<MutexGuard<'a, Entries>>);

impl<'a> Rename<'a> {
    fn lock(&self, old_dir: &'a TmpfsInode) -> Result<Guards<'a>, Errno> {
        let (Kind::Directory(old), Kind::Directory(new)) = (&old_dir.kind, &self.new_dir.kind) else {
            return Err(Errno::ENOTDIR);
        };
        let new = (!std::ptr::eq(old_dir, self.new_dir)).then(|| new.lock_nested());
        Ok((old.lock_nested(), new))
    }

    /// Does it; gives what moved and what was in the way.
    fn exchange_entries(
        &self,
        (old, new): &mut Guards<'_>,
        whiteout: Option<Arc<TmpfsInode>>,
    ) -> Result<(Arc<TmpfsInode>, Option<Arc<TmpfsInode>>), Errno> {
        let moved = Arc::clone(old.get(self.name).ok_or(Errno::ENOENT)?);
        let target = new.as_ref().unwrap_or(old).get(self.new_name).map(Arc::clone);
        if new.as_ref().unwrap_or(old).dead {
            return Err(Errno::ENOENT);
        }
        if self.flags & RENAME_NOREPLACE != 0 && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if self.flags & RENAME_EXCHANGE != 0 {
            let other = target.ok_or(Errno::ENOENT)?;
            old.put(self.name, Arc::clone(&other));
            new.as_mut().unwrap_or(old).put(self.new_name, Arc::clone(&moved));
            if new.is_some() {
                moved.set_parent(self.new_dir.ino);
                other.set_parent(self.old_dir.ino);
            }
            return Ok((moved, Some(other)));
        }
        if let Some(target) = target.filter(|t| matches!(t.kind, Kind::Directory(_))) {
            target.kill_directory()?;
        }
        let _moved_out = old.take(self.name);
        let replaced = new.as_mut().unwrap_or(old).put(self.new_name, Arc::clone(&moved));
        if let Some(whiteout) = whiteout {
            old.put(self.name, whiteout);
        }
        if new.is_some() {
            moved.set_parent(self.new_dir.ino);
        }
        Ok((moved, replaced))
    }
}

impl InodeOps for TmpfsInode {
    fn write_count(&self) -> Option<&WriteCount> {
        Some(&self.writers)
    }

    fn metadata(&self) -> Result<Metadata, Errno> {
        let (size, blocks) = match &self.kind {
            Kind::Directory(entries) => ((entries.lock().len() as u64 + 2) * ENTRY_SIZE, 0),
            Kind::File(file) => {
                let data = file.data.read();
                (data.size, data.pages() * (PAGE / 512))
            }
            Kind::Symlink(target) => (target.len() as u64, 0),
            Kind::Special(_) => (0, 0),
        };
        let attributes = self.attributes.lock();
        Ok(Metadata {
            dev: self.shared.device,
            ino: self.ino,
            mode: self.file_type | self.mode_bits(),
            nlink: attributes.nlink,
            uid: self.uid.load(Ordering::Relaxed),
            gid: self.gid.load(Ordering::Relaxed),
            rdev: if let Kind::Special(rdev) = self.kind { rdev } else { 0 },
            size,
            blocks,
            blksize: 4096,
            atime: attributes.atime,
            mtime: attributes.mtime,
            ctime: attributes.ctime,
            btime: attributes.btime,
            attributes: 0,
        })
    }

    fn file_type(&self) -> u32 {
        self.file_type
    }

    fn access(&self, cx: &OpCx<'_>, mask: u32) -> Result<(), Errno> {
        let mode = self.file_type | self.mode_bits();
        let (uid, gid) = (self.uid.load(Ordering::Relaxed), self.gid.load(Ordering::Relaxed));
        permission::generic(cx.creds, mode, uid, gid, mask)
    }

    fn set_attr(&self, cx: &OpCx<'_>, attr: &SetAttr) -> Result<(), Errno> {
        let now = cx.now();
        if let Some(size) = attr.size {
            self.resize(size)?;
        }
        let time = |set: SetTime| if let SetTime::At(at) = set { at } else { now };
        let mut attributes = self.attributes.lock();
        if let Some(uid) = attr.uid {
            self.uid.store(uid, Ordering::Relaxed);
        }
        if let Some(gid) = attr.gid {
            self.gid.store(gid, Ordering::Relaxed);
        }
        if let Some(mode) = attr.mode {
            self.set_mode_bits(mode);
        }
        if attr.size.is_some() {
            attributes.mtime = now;
        }
        attributes.atime = attr.atime.map_or(attributes.atime, time);
        attributes.mtime = attr.mtime.map_or(attributes.mtime, time);
        attributes.ctime = now;
        Ok(())
    }

    fn lookup(&self, _cx: &OpCx<'_>, name: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        let found = self.entries()?.get(name).map(Arc::clone).ok_or(Errno::ENOENT)?;
        Ok(found)
    }

    fn create(&self, cx: &OpCx<'_>, name: &[u8], mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        let child = self.new_child(cx, S_IFREG | mode & 0o7777, Self::empty_file())?;
        self.add(cx, name, child)
    }

    fn mkdir(&self, cx: &OpCx<'_>, name: &[u8], mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        let entries = Mutex::new(LockClass::Directory, Entries::new(self.ino));
        let child = self.new_child(cx, S_IFDIR | mode & 0o7777, Kind::Directory(entries))?;
        self.add(cx, name, child)
    }

    fn mknod(&self, cx: &OpCx<'_>, name: &[u8], mode: u32, rdev: u64) -> Result<Arc<dyn InodeOps>, Errno> {
        let child = self.new_child(cx, mode & (S_IFMT | 0o7777), Kind::Special(rdev))?;
        self.add(cx, name, child)
    }

    fn symlink(&self, cx: &OpCx<'_>, name: &[u8], target: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        let child = self.new_child(cx, S_IFLNK | 0o777, Kind::Symlink(target.into()))?;
        self.add(cx, name, child)
    }

    fn link(&self, cx: &OpCx<'_>, name: &[u8], target: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        let inode = Self::of(target)?;
        let shared =
            inode.me.upgrade().filter(|i| Arc::ptr_eq(&i.shared, &self.shared)).ok_or(Errno::EXDEV)?;
        {
            let mut attributes = inode.attributes.lock();
            if attributes.nlink == 0 && !attributes.linkable {
                return Err(Errno::ENOENT);
            }
            if attributes.nlink >= LINK_MAX {
                return Err(Errno::EMLINK);
            }
            attributes.nlink += 1;
            attributes.ctime = cx.now();
        }
        let added = self.add(cx, name, shared);
        let mut attributes = inode.attributes.lock();
        match added {
            Ok(_) => {
                attributes.linkable = false;
                Ok(())
            }
            Err(error) => {
                attributes.nlink -= 1;
                Err(error)
            }
        }
    }

    fn unlink(&self, cx: &OpCx<'_>, name: &[u8], child: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        self.remove(cx, name, child)
    }

    fn rmdir(&self, cx: &OpCx<'_>, name: &[u8], child: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        self.remove(cx, name, child)
    }

    fn rename(
        &self,
        cx: &OpCx<'_>,
        name: &[u8],
        new_dir: &Arc<dyn InodeOps>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let new_dir = Self::of(new_dir)?;
        self.relocate(cx, &Rename { old_dir: self, name, new_dir, new_name, flags })
    }

    fn tmpfile(&self, cx: &OpCx<'_>, mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        let file = self.new_child(cx, S_IFREG | mode & 0o7777, Self::empty_file())?;
        {
            let mut attributes = file.attributes.lock();
            attributes.nlink = 0;
            attributes.linkable = true;
        }
        Ok(file)
    }

    fn readlink(&self, _cx: &OpCx<'_>) -> Result<Vec<u8>, Errno> {
        if let Kind::Symlink(target) = &self.kind { Ok(target.to_vec()) } else { Err(Errno::EINVAL) }
    }

    fn open(self: Arc<Self>, _cx: &OpCx<'_>, _flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        match self.kind {
            Kind::Directory(_) | Kind::File(_) => Ok(self),
            Kind::Symlink(_) => Err(Errno::ELOOP),
            Kind::Special(_) => Err(Errno::ENXIO),
        }
    }

    fn get_xattr(&self, _cx: &OpCx<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let attributes = self.attributes.lock();
        attributes.xattrs.as_ref().and_then(|x| x.get(name)).cloned().ok_or(Errno::ENODATA)
    }

    fn set_xattr(&self, cx: &OpCx<'_>, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let mut attributes = self.attributes.lock();
        let xattrs = attributes.xattrs.get_or_insert_default();
        let exists = xattrs.contains_key(name);
        if flags & XATTR_CREATE != 0 && exists {
            return Err(Errno::EEXIST);
        }
        if flags & XATTR_REPLACE != 0 && !exists {
            return Err(Errno::ENODATA);
        }
        let others = xattrs.iter().filter(|(key, _)| *key != name);
        let used: usize = others.map(|(key, value)| key.len() + value.len()).sum();
        if used + name.len() + value.len() > XATTR_SPACE {
            return Err(Errno::ENOSPC);
        }
        xattrs.insert(name.to_vec(), value.to_vec());
        attributes.ctime = cx.now();
        Ok(())
    }

    fn list_xattr(&self, _cx: &OpCx<'_>) -> Result<Vec<Vec<u8>>, Errno> {
        let attributes = self.attributes.lock();
        Ok(attributes.xattrs.iter().flat_map(|x| x.keys().cloned()).collect())
    }

    fn remove_xattr(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<(), Errno> {
        let mut attributes = self.attributes.lock();
        attributes.xattrs.as_mut().and_then(|x| x.remove(name)).ok_or(Errno::ENODATA)?;
        attributes.ctime = cx.now();
        Ok(())
    }

    fn same(&self, other: &dyn InodeOps) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| std::ptr::eq(self, other))
    }
}

impl Drop for TmpfsInode {
    /// Takes a tree apart in a loop, because a guest can make one of any depth.
    fn drop(&mut self) {
        self.shared.release_inode();
        let mut left = match &mut self.kind {
            Kind::Directory(entries) => entries.get_mut().take_all(),
            Kind::File(file) => {
                file.data.get_mut().clear(&self.shared);
                return;
            }
            Kind::Symlink(_) | Kind::Special(_) => return,
        };
        while let Some(child) = left.pop() {
            let Some(mut last) = Arc::into_inner(child) else { continue };
            if let Kind::Directory(entries) = &mut last.kind {
                left.append(&mut entries.get_mut().take_all());
            }
        }
    }
}
