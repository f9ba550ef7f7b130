//! What a server serves.

use crate::proto::{Attr, Make, SetAttr, StatFs};
use abi::Errno;
use std::fmt::Debug;
use std::os::fd::BorrowedFd;

/// An entry of a directory, as a back end tells it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Where to go on after this entry; not 0.
    pub offset: u64,
    /// `DT_REG` and its kin.
    pub kind: u8,
    /// Inode number.
    pub ino: u64,
    /// Its name.
    pub name: &'a [u8],
    /// Its attributes, when they were asked for and could be told.
    pub attr: Option<Attr>,
}

/// A record lock, `F_GETLK(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// 0 read, 1 write, 2 unlock.
    pub kind: u8,
    /// The first byte.
    pub start: u64,
    /// How many bytes; 0: to the end of the file.
    pub length: u64,
    /// The owner's number at the client.
    pub proc_id: u32,
}

/// File trees that a server can serve. Calls come from many threads.
///
/// Names are single components: the server has refused empty names, `.`, `..`, and those with a slash or a NUL. Every
/// method's error is the one that Linux gives for the call it is named after.
pub trait Backend: Send + Sync + Debug {
    /// A file that has been walked to, not open.
    type File: Send + Sync + Debug;
    /// An open file.
    type Handle: Send + Sync + Debug;

    /// The root of the tree `aname`.
    ///
    /// # Errors
    /// `ENOENT` when there is no such tree.
    fn attach(&self, aname: &[u8]) -> Result<(Self::File, Attr), Errno>;

    /// The file `name` in a directory; a symbolic link is not followed.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES`.
    fn walk(&self, dir: &Self::File, name: &[u8]) -> Result<(Self::File, Attr), Errno>;

    /// stat(2).
    ///
    /// # Errors
    /// `EIO`.
    fn get_attr(&self, file: &Self::File) -> Result<Attr, Errno>;

    /// chmod(2), chown(2), truncate(2) and utimensat(2) in one.
    ///
    /// # Errors
    /// `EROFS`, `EPERM`, `EISDIR`, `EINVAL`.
    fn set_attr(&self, file: &Self::File, set: &SetAttr) -> Result<(), Errno>;

    /// open(2) of a regular file or directory, with flags of [`open`](crate::proto::open).
    ///
    /// # Errors
    /// `EROFS`, `ENXIO`, `ELOOP`, `EACCES`, `EISDIR`.
    fn open(&self, file: &Self::File, flags: u32) -> Result<Self::Handle, Errno>;

    /// Makes a file of any type; `handle` is there when [`Make::open`] asked for it.
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, `ENOTDIR`, `EINVAL`, `ENOSPC`.
    fn make(&self, dir: &Self::File, name: &[u8], make: &Make<'_>) -> Result<MadeFile<Self>, Errno>;

    /// readlink(2).
    ///
    /// # Errors
    /// `EINVAL` when the file is no symbolic link.
    fn read_link(&self, file: &Self::File) -> Result<Vec<u8>, Errno>;

    /// link(2).
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, `EPERM`, `EXDEV`, `EMLINK`.
    fn link(&self, file: &Self::File, dir: &Self::File, name: &[u8]) -> Result<(), Errno>;

    /// renameat2(2).
    ///
    /// # Errors
    /// `ENOENT`, `EROFS`, `EXDEV`, `ENOTEMPTY`, `EINVAL`.
    fn rename(&self, from: (&Self::File, &[u8]), to: (&Self::File, &[u8]), flags: u32) -> Result<(), Errno>;

    /// unlinkat(2); `flags` is 0 or `AT_REMOVEDIR`.
    ///
    /// # Errors
    /// `ENOENT`, `EROFS`, `EISDIR`, `ENOTEMPTY`.
    fn unlink(&self, dir: &Self::File, name: &[u8], flags: u32) -> Result<(), Errno>;

    /// statfs(2).
    ///
    /// # Errors
    /// `EIO`.
    fn stat_fs(&self, file: &Self::File) -> Result<StatFs, Errno>;

    /// pread(2).
    ///
    /// # Errors
    /// `EIO`, `EISDIR`, `EBADF` when the file is not open for reading.
    fn read(&self, handle: &Self::Handle, buf: &mut [u8], offset: u64) -> Result<usize, Errno>;

    /// pwrite(2).
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`, `EFBIG`, `EBADF` when the file is not open for writing.
    fn write(&self, handle: &Self::Handle, data: &[u8], offset: u64) -> Result<usize, Errno>;

    /// fsync(2), or fdatasync(2).
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`.
    fn sync(&self, handle: &Self::Handle, data_only: bool) -> Result<(), Errno>;

    /// Tells the entries after the place `offset` until `sink` says that it takes no more (false: not this one either).
    ///
    /// # Errors
    /// `ENOTDIR`, `EIO`.
    fn read_dir(
        &self,
        handle: &Self::Handle,
        offset: u64,
        with_attr: bool,
        sink: &mut dyn FnMut(&Entry<'_>) -> bool,
    ) -> Result<(), Errno>;

    /// The descriptor to give to the client for this open file; `None` when the file is only to be used through the server.
    fn donate<'a>(&self, handle: &'a Self::Handle) -> Option<BorrowedFd<'a>> {
        let _ = handle;
        None
    }

    /// fcntl(2) `F_SETLK`: true when the lock was taken, false when another is in the way.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EBADF`.
    fn set_lock(&self, handle: &Self::Handle, lock: &Lock) -> Result<bool, Errno> {
        let _ = (handle, lock);
        Err(Errno::EOPNOTSUPP)
    }

    /// fcntl(2) `F_GETLK`: a lock in the way of this one, or this one with the kind 2.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EBADF`.
    fn get_lock(&self, handle: &Self::Handle, lock: &Lock) -> Result<Lock, Errno> {
        let _ = (handle, lock);
        Err(Errno::EOPNOTSUPP)
    }

    /// getxattr(2), or listxattr(2) when the name is empty.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`.
    fn get_xattr(&self, file: &Self::File, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let _ = (file, name);
        Err(Errno::EOPNOTSUPP)
    }

    /// setxattr(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EEXIST`, `ENODATA`, `EROFS`, `ENOSPC`.
    fn set_xattr(&self, file: &Self::File, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let _ = (file, name, value, flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// removexattr(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENODATA`, `EROFS`.
    fn remove_xattr(&self, file: &Self::File, name: &[u8]) -> Result<(), Errno> {
        let _ = (file, name);
        Err(Errno::EOPNOTSUPP)
    }
}

/// A file that [`Backend::make`] made.
#[derive(Debug)]
pub struct MadeFile<B: Backend + ?Sized> {
    /// The file.
    pub file: B::File,
    /// Its attributes.
    pub attr: Attr,
    /// The file, open.
    pub handle: Option<B::Handle>,
}
