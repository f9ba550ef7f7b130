//! What the walker and the calls on paths ask of a file.

use super::dir::GoferDir;
use super::file::GoferFile;
use super::inode::{GoferInode, Want};
use super::{Access, lacks_xattr};
use crate::client::MadeFid;
use crate::proto::{self, Make, SetAttrMask, Str, Time, open};
use abi::Errno;
use abi::fs::{O_ACCMODE, O_TRUNC, XATTR_LIST_MAX, XATTR_SIZE_MAX};
use abi::stat::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::{Caching, FileOps, InodeOps, Metadata, OpCx, Ownership, SetAttr, SetTime, WriteCount, permission};

const AT_REMOVEDIR: u32 = 0x200;

impl GoferInode {
    pub(super) fn device(&self) -> u64 {
        self.shared.device
    }

    /// The other file of a call on two, which must be of the same mount.
    fn same_mount<'a>(&self, other: &'a Arc<dyn InodeOps>) -> Result<&'a Self, Errno> {
        let other = other.downcast_ref::<Self>().ok_or(Errno::EXDEV)?;
        if Arc::ptr_eq(&self.shared, &other.shared) { Ok(other) } else { Err(Errno::EXDEV) }
    }

    /// Makes a file with the owner that Linux gives it; `more` is device number, target, and flags to open it with.
    fn make(
        &self,
        cx: &OpCx<'_>,
        name: &[u8],
        mode: u32,
        more: (u64, &[u8], u32),
    ) -> Result<(Arc<Self>, MadeFile), Errno> {
        let (rdev, target, open) = more;
        let dir = self.permissions();
        let (uid, gid, mode) = permission::new_inode_owner(cx.creds, dir.mode, dir.gid, mode);
        let make = Make { mode, uid, gid, rdev, target: Str(target), open };
        let made = self.fid.make(name, &make);
        self.changed();
        let MadeFid { fid, attr, fd } = made?;
        let here = self.myself()?;
        Ok((self.shared.inode(fid, &attr, Some((&here, name))), fd))
    }

    /// Keeps the kind of refusal that makes asking again useless.
    fn xattr<T>(&self, result: Result<T, Errno>) -> Result<T, Errno> {
        if matches!(result, Err(Errno::EOPNOTSUPP)) {
            self.shared.no_xattr.store(true, Ordering::Relaxed);
        }
        result
    }

    fn check_xattr(&self) -> Result<(), Errno> {
        if lacks_xattr(&self.shared) { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
    }

    fn remove(&self, name: &[u8], child: &Arc<dyn InodeOps>, flags: u32) -> Result<(), Errno> {
        let removed = self.fid.unlink(name, flags);
        self.changed();
        if let Some(child) = child.downcast_ref::<Self>() {
            child.changed();
            self.shared.forget_nameless(|file| file.is_of(child));
        }
        removed
    }
}

type MadeFile = Option<std::os::fd::OwnedFd>;

/// The protocol's form of what is to change.
fn to_wire(attr: &SetAttr) -> proto::SetAttr {
    let mut set = proto::SetAttr::default();
    let mut put = |flag, there: bool| set.valid |= if there { flag } else { 0 };
    put(SetAttrMask::MODE, attr.mode.is_some());
    put(SetAttrMask::UID, attr.uid.is_some());
    put(SetAttrMask::GID, attr.gid.is_some());
    put(SetAttrMask::SIZE, attr.size.is_some());
    put(SetAttrMask::ATIME, attr.atime.is_some());
    put(SetAttrMask::MTIME, attr.mtime.is_some());
    put(SetAttrMask::ATIME_SET, matches!(attr.atime, Some(SetTime::At(_))));
    put(SetAttrMask::MTIME_SET, matches!(attr.mtime, Some(SetTime::At(_))));
    let time = |time| match time {
        Some(SetTime::At(at)) => Time { sec: at.sec.cast_unsigned(), nsec: at.nsec.cast_unsigned() },
        Some(SetTime::Now) | None => Time::default(),
    };
    set.mode = attr.mode.unwrap_or(0);
    set.uid = attr.uid.unwrap_or(0);
    set.gid = attr.gid.unwrap_or(0);
    set.size = attr.size.unwrap_or(0);
    set.atime = time(attr.atime);
    set.mtime = time(attr.mtime);
    set
}

impl InodeOps for GoferInode {
    fn metadata(&self) -> Result<Metadata, Errno> {
        self.attributes()
    }

    fn write_count(&self) -> Option<&WriteCount> {
        Some(&self.writers)
    }

    fn file_type(&self) -> u32 {
        self.kind
    }

    fn access(&self, cx: &OpCx<'_>, mask: u32) -> Result<(), Errno> {
        // Shared trees: all but the root have just been revalidated.
        if self.is_root && !self.shared.exclusive() {
            self.attributes()?;
        }
        let Ownership { mode, uid, gid } = self.permissions();
        permission::generic(cx.creds, mode, uid, gid, mask)
    }

    fn ownership(&self) -> Result<Ownership, Errno> {
        Ok(self.permissions())
    }

    fn missing_stamp(&self) -> Option<u64> {
        (self.shared.options.access == Access::Leased).then(crate::host::monotonic_ns)
    }

    fn is_still_missing(&self, stamp: u64) -> bool {
        self.shared.believes(stamp)
    }

    fn set_attr(&self, _cx: &OpCx<'_>, attr: &SetAttr) -> Result<(), Errno> {
        let set = self.fid.set_attr(&to_wire(attr));
        match &set {
            Ok(attr) => self.changed_to(attr),
            Err(_) => self.changed(),
        }
        set?;
        if let Some(size) = attr.size {
            self.mappings.truncate(size);
        }
        Ok(())
    }

    fn lookup(&self, _cx: &OpCx<'_>, name: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        if self.kind != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let walked = self.fid.walk_attr(&[name], Make::UNOPENED)?;
        let (fid, attr) = walked.files.into_iter().next().ok_or(Errno::EIO)?;
        let here = self.myself()?;
        Ok(self.shared.inode(fid, &attr, Some((&here, name))))
    }

    fn create(&self, cx: &OpCx<'_>, name: &[u8], mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        let mode = S_IFREG | (mode & !S_IFMT);
        Ok(self.make(cx, name, mode, (0, b"", Make::UNOPENED))?.0)
    }

    fn create_open(
        &self,
        cx: &OpCx<'_>,
        name: &[u8],
        mode: u32,
        _flags: u32,
    ) -> Result<(Arc<dyn InodeOps>, Arc<dyn FileOps>), Errno> {
        let mode = S_IFREG | (mode & !S_IFMT);
        let (inode, fd) = self.make(cx, name, mode, (0, b"", open::O_RDWR))?;
        let file = inode.adopt(fd.ok_or(Errno::EIO)?, Want::Write)?;
        Ok((inode.clone(), GoferFile::new(inode, file)))
    }

    fn mkdir(&self, cx: &OpCx<'_>, name: &[u8], mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        let mode = S_IFDIR | (mode & !S_IFMT);
        Ok(self.make(cx, name, mode, (0, b"", Make::UNOPENED))?.0)
    }

    fn mknod(&self, cx: &OpCx<'_>, name: &[u8], mode: u32, rdev: u64) -> Result<Arc<dyn InodeOps>, Errno> {
        Ok(self.make(cx, name, mode, (rdev, b"", Make::UNOPENED))?.0)
    }

    fn symlink(&self, cx: &OpCx<'_>, name: &[u8], target: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        Ok(self.make(cx, name, S_IFLNK | 0o777, (0, target, Make::UNOPENED))?.0)
    }

    fn link(&self, _cx: &OpCx<'_>, name: &[u8], target: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        let target = self.same_mount(target)?;
        let linked = target.fid.link(&self.fid, name);
        self.changed();
        target.changed();
        linked
    }

    fn unlink(&self, _cx: &OpCx<'_>, name: &[u8], child: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        self.remove(name, child, 0)
    }

    fn rmdir(&self, _cx: &OpCx<'_>, name: &[u8], child: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        self.remove(name, child, AT_REMOVEDIR)
    }

    fn rename(
        &self,
        _cx: &OpCx<'_>,
        name: &[u8],
        new_dir: &Arc<dyn InodeOps>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let new_dir = self.same_mount(new_dir)?;
        let renamed = self.fid.rename(name, &new_dir.fid, new_name, flags);
        self.changed();
        new_dir.changed();
        renamed
    }

    fn lost_name(&self) {
        self.changed();
        self.shared.forget_nameless(|file| file.is_of(self));
    }

    fn readlink(&self, _cx: &OpCx<'_>) -> Result<Vec<u8>, Errno> {
        if self.kind != S_IFLNK {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = self.target.get() {
            return Ok(target.to_vec());
        }
        let target = self.fid.read_link()?;
        Ok(self.target.get_or_init(|| target.into_boxed_slice()).to_vec())
    }

    fn open(self: Arc<Self>, _cx: &OpCx<'_>, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        match self.kind {
            S_IFREG => {
                let truncate = flags & O_TRUNC != 0;
                let want = if flags & O_ACCMODE != 0 || truncate { Want::Write } else { Want::Read };
                let file = self.file(want, truncate)?;
                if truncate {
                    self.changed();
                    self.mappings.truncate(0);
                }
                Ok(GoferFile::new(self, file))
            }
            S_IFDIR => Ok(GoferDir::new(self)),
            S_IFLNK => Err(Errno::ELOOP),
            _ => Err(Errno::ENXIO),
        }
    }

    fn truncates_on_open(&self) -> bool {
        true
    }

    fn get_xattr(&self, _cx: &OpCx<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.check_xattr()?;
        self.xattr(self.fid.get_xattr(name, XATTR_SIZE_MAX))
    }

    fn set_xattr(&self, _cx: &OpCx<'_>, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        self.check_xattr()?;
        let set = self.xattr(self.fid.set_xattr(name, value, flags));
        self.changed();
        set
    }

    fn list_xattr(&self, _cx: &OpCx<'_>) -> Result<Vec<Vec<u8>>, Errno> {
        self.check_xattr()?;
        let names = self.xattr(self.fid.get_xattr(b"", XATTR_LIST_MAX))?;
        Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn remove_xattr(&self, _cx: &OpCx<'_>, name: &[u8]) -> Result<(), Errno> {
        self.check_xattr()?;
        let removed = self.xattr(self.fid.remove_xattr(name));
        self.changed();
        removed
    }

    fn caching(&self) -> Caching {
        if self.shared.exclusive() { Caching::Cached } else { Caching::Revalidate }
    }

    fn revalidate(&self, _cx: &OpCx<'_>) -> bool {
        self.still_there()
    }

    fn same(&self, other: &dyn InodeOps) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| std::ptr::eq(self, other))
    }
}
