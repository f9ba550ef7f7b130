//! The calls on paths, as the system calls of the same names make them.

mod attr;
mod create;
mod mounts;
mod open;
mod pivot_root;
mod remove;
mod rename;
mod xattr;

use abi::Errno;
use kernel::Task;

use crate::notify::event;
use crate::walk::{At, Last, LookupFlags, Walk};
use crate::{FileDescription, FsContext, Metadata, OpCx, Path};

pub use attr::Times;
pub(crate) use open::FIFO;
pub use open::OpenHow;

/// Resolves paths and does what calls ask for, for one caller.
#[derive(Debug)]
pub struct Vfs<'a> {
    /// Who asks.
    pub cx: OpCx<'a>,
    /// From where.
    pub fs: &'a FsContext,
}

/// The directory a path's last component is in.
pub(crate) struct Parent<'p> {
    pub(crate) dir: Path,
    pub(crate) last: Last<'p>,
    /// Slashes follow the last component.
    pub(crate) slashes: bool,
}

impl At {
    /// From a directory descriptor of a system call.
    ///
    /// # Errors
    /// `EBADF`. That a descriptor is no directory is found when the path is walked.
    pub fn from_fd(task: &Task, fd: i32) -> Result<Self, Errno> {
        if fd == abi::fs::AT_FDCWD {
            return Ok(Self::Cwd);
        }
        let table = task.fd_table().ok_or(Errno::EBADF)?;
        let file = table.get(fd)?;
        let file = FileDescription::from_file(&file).ok_or(Errno::EBADF)?;
        Ok(Self::Path(file.path().clone()))
    }

    /// From a directory descriptor and the path it is used with: an absolute path needs none, as in Linux.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn from_fd_for(task: &Task, fd: i32, path: &[u8]) -> Result<Self, Errno> {
        if path.first() == Some(&b'/') { Ok(Self::Cwd) } else { Self::from_fd(task, fd) }
    }
}

impl<'a> Vfs<'a> {
    /// Works for one caller.
    #[must_use]
    pub const fn new(cx: OpCx<'a>, fs: &'a FsContext) -> Self {
        Self { cx, fs }
    }

    pub(crate) fn walk(&self, at: &At, resolve: u32) -> Walk<'_> {
        let (root, start) = match at {
            At::Cwd => self.fs.root_and_cwd(),
            At::Path(path) => (self.fs.root(), path.clone()),
        };
        Walk::new(&self.cx, root, start, resolve)
    }

    /// Resolves a path to what exists.
    ///
    /// # Errors
    /// Those of `path_resolution(7)`: `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`, `ENAMETOOLONG`, `EXDEV`.
    pub fn resolve(&self, at: &At, path: &[u8], flags: LookupFlags) -> Result<Path, Errno> {
        let mut walk = self.walk(at, flags.resolve);
        if path.is_empty() {
            if !flags.empty {
                return Err(Errno::ENOENT);
            }
        } else {
            walk.all(path, flags.follow)?;
        }
        if flags.directory && !walk.at.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(walk.at)
    }

    /// Resolves all but the last component.
    pub(crate) fn resolve_parent<'p>(&self, at: &At, path: &'p [u8]) -> Result<Parent<'p>, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let mut walk = self.walk(at, 0);
        let (last, slashes) = walk.parent(path)?;
        Ok(Parent { dir: walk.at, last, slashes })
    }

    /// The attributes of what a path leads to, fstatat(2).
    ///
    /// # Errors
    /// Those of [`Self::resolve`].
    pub fn stat(&self, at: &At, path: &[u8], flags: LookupFlags) -> Result<Metadata, Errno> {
        self.resolve(at, path, flags)?.inode()?.metadata()
    }

    /// The text of a symbolic link, readlinkat(2); an empty path reads the link that `at` is.
    ///
    /// # Errors
    /// `EINVAL` for what is no link, and those of [`Self::resolve`].
    pub fn readlink(&self, at: &At, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let flags = LookupFlags { empty: matches!(at, At::Path(_)), ..LookupFlags::NO_FOLLOW };
        let found = self.resolve(at, path, flags)?;
        let inode = found.inode()?;
        if !inode.is_symlink() {
            return Err(if path.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
        }
        inode.readlink(&self.cx)
    }

    /// Checks permissions, faccessat(2); `mask` is one of [`crate::access`], 0 for existence.
    ///
    /// # Errors
    /// `EACCES`, `EROFS`, and those of [`Self::resolve`].
    pub fn access(&self, at: &At, path: &[u8], flags: LookupFlags, mask: u32) -> Result<(), Errno> {
        let found = self.resolve(at, path, flags)?;
        let inode = found.inode()?;
        if mask & crate::access::EXEC != 0
            && inode.file_type() == abi::stat::S_IFREG
            && found.mount.has_flags(abi::fs::MS_NOEXEC)
        {
            return Err(Errno::EACCES);
        }
        inode.access(&self.cx, mask)?;
        let writes_files =
            matches!(inode.file_type(), abi::stat::S_IFREG | abi::stat::S_IFDIR | abi::stat::S_IFLNK);
        if mask & crate::access::WRITE != 0 && writes_files && found.mount.is_read_only() {
            return Err(Errno::EROFS);
        }
        Ok(())
    }

    /// chdir(2).
    ///
    /// # Errors
    /// `ENOTDIR`, `EACCES`, and those of [`Self::resolve`].
    pub fn chdir(&self, at: &At, path: &[u8], empty: bool) -> Result<(), Errno> {
        let to = self.resolve(at, path, LookupFlags { empty, ..LookupFlags::DIRECTORY })?;
        to.inode()?.access(&self.cx, crate::access::EXEC)?;
        self.fs.set_cwd(to);
        Ok(())
    }

    /// chroot(2).
    ///
    /// # Errors
    /// `ENOTDIR`, `EACCES`, `EPERM` without `CAP_SYS_CHROOT`, and those of [`Self::resolve`].
    pub fn chroot(&self, path: &[u8]) -> Result<(), Errno> {
        let to = self.resolve(&At::Cwd, path, LookupFlags::DIRECTORY)?;
        to.inode()?.access(&self.cx, crate::access::EXEC)?;
        if !self.cx.creds.has_cap(kernel::Cap::SYS_CHROOT) {
            return Err(Errno::EPERM);
        }
        self.fs.set_root(to);
        Ok(())
    }

    /// getcwd(2).
    ///
    /// # Errors
    /// `ENOENT` in a removed directory, `ENAMETOOLONG`.
    pub fn getcwd(&self) -> Result<Vec<u8>, Errno> {
        let (root, cwd) = self.fs.root_and_cwd();
        cwd.working_directory_name(&root)
    }

    /// statfs(2).
    ///
    /// # Errors
    /// Those of the file system.
    pub fn statfs(&self, path: &Path) -> Result<abi::stat::StatFs, Errno> {
        let sb = path.mount.sb();
        let mut stat = sb.fs().stat_fs()?;
        stat.flags = i64::from(mounts::statfs_flags(&path.mount));
        if stat.fsid == [0, 0] {
            let device = sb.device().to_le_bytes();
            let (low, high) = device.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
            let high = high.first_chunk::<4>().copied().unwrap_or_default();
            stat.fsid = [i32::from_le_bytes(*low), i32::from_le_bytes(high)];
        }
        Ok(stat)
    }
}

/// Tells the watchers of a file, and those of its directory, what happened to it.
pub(crate) fn notify_path(path: &Path, mask: u32) {
    let watches = &path.mount.sb().watches;
    if watches.is_empty() {
        return;
    }
    let Some(inode) = path.dentry.inode() else { return };
    let mask = if inode.is_dir() { mask | event::IN_ISDIR } else { mask };
    let (parent, name) = path.dentry.place();
    if let Some(directory) = parent.as_ref().and_then(|p| p.inode())
        && let Ok(meta) = directory.metadata()
    {
        let nameless = if path.dentry.is_unlinked() { event::IN_EXCL_UNLINK } else { 0 };
        watches.notify(meta.ino, mask | nameless, 0, Some(&name));
    }
    if let Ok(meta) = inode.metadata() {
        watches.notify(meta.ino, mask, 0, None);
    }
}

/// Tells the watchers of a directory what happened to a name in it.
pub(crate) fn notify_name(dir: &Path, mask: u32, cookie: u32, name: &[u8]) {
    let watches = &dir.mount.sb().watches;
    if watches.is_empty() {
        return;
    }
    if let Some(Ok(meta)) = dir.dentry.inode().map(|inode| inode.metadata()) {
        watches.notify(meta.ino, mask, cookie, Some(name));
    }
}
