//! What file systems implement for each of their files, directories and links.
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use abi::Errno;
use abi::stat::{S_IFDIR, S_IFLNK, S_IFMT};
use abi::time::Timespec;

use crate::{FileOps, OpCx, Path, WriteCount};

pub use kernel::Metadata;

/// A time that utimensat(2) stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The file system's present time.
    Now,
    /// This time.
    At(Timespec),
}

/// The attributes to change; `None` leaves one as it is. The change time always becomes the present time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permissions, without the type.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Owning group.
    pub gid: Option<u32>,
    /// Size of a regular file; the modification time then becomes the present time too.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of contents.
    pub mtime: Option<SetTime>,
}

/// What permissions are decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
}

/// A file that was made, and what it was opened as.
pub type Created = (Arc<dyn InodeOps>, Arc<dyn FileOps>);

/// How far dentries of an inode may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Nobody but this sentry changes the file system: what was found, and what was not, stays true.
    Cached,
    /// Kept, and asked by [`InodeOps::revalidate`] at each use; that a name is missing is kept where the directory has a
    /// [`InodeOps::missing_stamp`], and asked by [`InodeOps::is_still_missing`].
    Revalidate,
    /// Kept only while something uses it (and then revalidated).
    Never,
}

/// What a permission is asked for, the bits of access(2).
pub mod access {
    /// Execute, or search of a directory.
    pub const EXEC: u32 = 1;
    /// Write.
    pub const WRITE: u32 = 2;
    /// Read.
    pub const READ: u32 = 4;
}

/// An inode. The walker checks permissions, names, types and limits before it calls; what is here only does it.
///
/// Defaults give the errno of a file system that lacks the operation. No method is called with a lock held but that of
/// renaming directories.
pub trait InodeOps: Any + Send + Sync + Debug {
    /// The attributes.
    ///
    /// # Errors
    /// `EIO` and other errors of the server of a remote file system.
    fn metadata(&self) -> Result<Metadata, Errno>;

    /// The type, `S_IFMT` of the mode; constant and cheap.
    fn file_type(&self) -> u32;

    /// Counts who writes it and who executes it, of regular files; `None` where that is not kept apart.
    fn write_count(&self) -> Option<&WriteCount> {
        None
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// `EPERM` where the file system has none to change, `EROFS`, `ENOSPC`, `EFBIG`.
    fn set_attr(&self, cx: &OpCx<'_>, attr: &SetAttr) -> Result<(), Errno> {
        let _ = (cx, attr);
        Err(Errno::EPERM)
    }

    /// Finds a name in a directory.
    ///
    /// # Errors
    /// `ENOENT` where it is missing, `ENOTDIR` for what is no directory.
    fn lookup(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        let _ = (cx, name);
        Err(Errno::ENOTDIR)
    }

    /// Makes a regular file, owned by the caller's file system ids, or by the directory's group where it is set-group-id
    /// (`new_inode_owner` tells).
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT` in a removed directory, `ENOSPC`, `EDQUOT`, `EROFS`.
    fn create(&self, cx: &OpCx<'_>, name: &[u8], mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        let _ = (cx, name, mode);
        Err(Errno::EACCES)
    }

    /// Makes a regular file and opens it, in one step where the file system can.
    ///
    /// # Errors
    /// Those of [`Self::create`] and [`Self::open`].
    fn create_open(&self, cx: &OpCx<'_>, name: &[u8], mode: u32, flags: u32) -> Result<Created, Errno> {
        let inode = self.create(cx, name, mode)?;
        let file = Arc::clone(&inode).open(cx, flags)?;
        Ok((inode, file))
    }

    /// Makes a directory; owners as for [`Self::create`].
    ///
    /// # Errors
    /// Those of mkdir(2).
    fn mkdir(&self, cx: &OpCx<'_>, name: &[u8], mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        let _ = (cx, name, mode);
        Err(Errno::EPERM)
    }

    /// Makes a device node, FIFO or socket; `mode` has the type.
    ///
    /// # Errors
    /// Those of mknod(2).
    fn mknod(&self, cx: &OpCx<'_>, name: &[u8], mode: u32, rdev: u64) -> Result<Arc<dyn InodeOps>, Errno> {
        let _ = (cx, name, mode, rdev);
        Err(Errno::EPERM)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// Those of symlink(2).
    fn symlink(&self, cx: &OpCx<'_>, name: &[u8], target: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        let _ = (cx, name, target);
        Err(Errno::EPERM)
    }

    /// Gives a file of the same file system one more name.
    ///
    /// # Errors
    /// Those of link(2).
    fn link(&self, cx: &OpCx<'_>, name: &[u8], target: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        let _ = (cx, name, target);
        Err(Errno::EPERM)
    }

    /// Takes a name of a file away.
    ///
    /// # Errors
    /// Those of unlink(2); `ENOENT` where the name is not `child`'s any more.
    fn unlink(&self, cx: &OpCx<'_>, name: &[u8], child: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        let _ = (cx, name, child);
        Err(Errno::EPERM)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of rmdir(2); `ENOENT` where the name is not `child`'s any more.
    fn rmdir(&self, cx: &OpCx<'_>, name: &[u8], child: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        let _ = (cx, name, child);
        Err(Errno::EPERM)
    }

    /// Renames a child to `new_name` in `new_dir`, a directory of the same file system. `flags` are `RENAME_*`. The caller
    /// checked types, ancestors and permissions; whether a directory in the way is empty is the file system's to say.
    ///
    /// # Errors
    /// Those of rename(2); `EINVAL` for flags the file system lacks.
    fn rename(
        &self,
        cx: &OpCx<'_>,
        name: &[u8],
        new_dir: &Arc<dyn InodeOps>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let _ = (cx, name, new_dir, new_name, flags);
        Err(Errno::EPERM)
    }

    /// A rename gave one of its names to another file.
    fn lost_name(&self) {}

    /// Makes a regular file without a name, `O_TMPFILE`.
    ///
    /// # Errors
    /// Those of `O_TMPFILE` in open(2).
    fn tmpfile(&self, cx: &OpCx<'_>, mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        let _ = (cx, mode);
        Err(Errno::EOPNOTSUPP)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL` for what is none.
    fn readlink(&self, cx: &OpCx<'_>) -> Result<Vec<u8>, Errno> {
        let _ = cx;
        Err(Errno::EINVAL)
    }

    /// Where following the link leads without walking its text, as `/proc/PID/exe` does; `None` for ordinary links.
    fn magic_link(&self, cx: &OpCx<'_>) -> Option<Result<Path, Errno>> {
        let _ = cx;
        None
    }

    /// Opens it. `flags` are those of open(2), already checked; `O_TRUNC` is the caller's to do (by
    /// [`Self::set_attr`]) unless [`Self::truncates_on_open`].
    ///
    /// # Errors
    /// Those of open(2).
    fn open(self: Arc<Self>, cx: &OpCx<'_>, flags: u32) -> Result<Arc<dyn FileOps>, Errno>;

    /// Tells whether a device node is opened by [`Self::open`] rather than by the registry of devices.
    fn opens_devices(&self) -> bool {
        false
    }

    /// Tells whether [`Self::open`] obeys `O_TRUNC` by itself.
    fn truncates_on_open(&self) -> bool {
        false
    }

    /// The value of an extended attribute; `name` has its prefix.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`.
    fn get_xattr(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let _ = (cx, name);
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets an extended attribute; `flags` are `XATTR_CREATE` and `XATTR_REPLACE`.
    ///
    /// # Errors
    /// Those of setxattr(2).
    fn set_xattr(&self, cx: &OpCx<'_>, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let _ = (cx, name, value, flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// The names of the extended attributes.
    ///
    /// # Errors
    /// `EOPNOTSUPP`.
    fn list_xattr(&self, cx: &OpCx<'_>) -> Result<Vec<Vec<u8>>, Errno> {
        let _ = cx;
        Ok(Vec::new())
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// Those of removexattr(2).
    fn remove_xattr(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<(), Errno> {
        let _ = (cx, name);
        Err(Errno::EOPNOTSUPP)
    }

    /// How far dentries of it may be kept; of a directory also, whether missing names may be.
    fn caching(&self) -> Caching {
        Caching::Cached
    }

    /// Of a directory: a missing name is `ENOENT` even to who would make it, as in proc, whose lookups fail with it.
    fn never_makes_names(&self) -> bool {
        false
    }

    /// Tells whether the name that led here still does; asked unless [`Caching::Cached`].
    fn revalidate(&self, cx: &OpCx<'_>) -> bool {
        let _ = cx;
        true
    }

    /// Of a directory that others change too: what [`Self::is_still_missing`] is to be told later of a name that is found
    /// missing from now on; `None` where that is not to be kept.
    fn missing_stamp(&self) -> Option<u64> {
        None
    }

    /// Tells whether a name that was missing at that stamp may still be taken as missing.
    fn is_still_missing(&self, stamp: u64) -> bool {
        let _ = stamp;
        false
    }

    /// Mode, owner and group, which is what [`Self::access`] looks at; cheaper than all attributes where those are far.
    ///
    /// # Errors
    /// Those of [`Self::metadata`].
    fn ownership(&self) -> Result<Ownership, Errno> {
        let Metadata { mode, uid, gid, .. } = self.metadata()?;
        Ok(Ownership { mode, uid, gid })
    }

    /// Checks a permission, a mask of [`access`].
    ///
    /// # Errors
    /// `EACCES`; those of [`Self::metadata`].
    fn access(&self, cx: &OpCx<'_>, mask: u32) -> Result<(), Errno> {
        let m = self.ownership()?;
        crate::permission::generic(cx.creds, m.mode, m.uid, m.gid, mask)
    }

    /// Tells whether the inode is `other`, seen through whatever else; files use it to tell hard links.
    fn same(&self, other: &dyn InodeOps) -> bool {
        match (self.metadata(), other.metadata()) {
            (Ok(a), Ok(b)) => a.dev == b.dev && a.ino == b.ino,
            _ => false,
        }
    }
}

impl dyn InodeOps {
    /// Tells whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.file_type() & S_IFMT == S_IFDIR
    }

    /// Tells whether it is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.file_type() & S_IFMT == S_IFLNK
    }

    /// The inode as what it really is.
    #[must_use]
    pub fn downcast_ref<T: InodeOps>(&self) -> Option<&T> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }

    /// The inode as what it really is, shared.
    #[must_use]
    pub fn downcast_arc<T: InodeOps>(self: Arc<Self>) -> Option<Arc<T>> {
        let any: Arc<dyn Any + Send + Sync> = self;
        any.downcast().ok()
    }
}
