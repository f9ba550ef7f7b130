//! Changing attributes: chmod(2), chown(2), utimensat(2), truncate(2).
use abi::Errno;
use abi::stat::{S_IFDIR, S_IFMT, S_IFREG, S_ISGID};
use kernel::Cap;

use super::{Vfs, notify_path};
use crate::inode::{SetAttr, SetTime, access};
use crate::notify::event;
use crate::write_count::WriteHold;
use crate::{FileDescription, Path, file_size, permission};

/// The times of utimensat(2): `None` leaves one as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of contents.
    pub mtime: Option<SetTime>,
}

impl Times {
    /// Both times become the present.
    pub const NOW: Self = Self { atime: Some(SetTime::Now), mtime: Some(SetTime::Now) };
}

impl Vfs<'_> {
    fn writable_mount(&self, path: &Path) -> Result<(), Errno> {
        if path.mount.is_read_only() { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// chmod(2) of what was resolved.
    ///
    /// # Errors
    /// `EPERM`, `EROFS`, `EOPNOTSUPP` for a symbolic link.
    pub fn chmod(&self, path: &Path, mode: u32) -> Result<(), Errno> {
        self.writable_mount(path)?;
        let inode = path.inode()?;
        if inode.is_symlink() {
            return Err(Errno::EOPNOTSUPP);
        }
        let meta = inode.metadata()?;
        if !permission::owner_or_capable(self.cx.creds, meta.uid) {
            return Err(Errno::EPERM);
        }
        let foreign_group = !self.cx.creds.in_group(meta.gid) && !self.cx.creds.has_cap(Cap::FSETID);
        let mode = mode & 0o7777 & !if foreign_group { S_ISGID } else { 0 };
        inode.set_attr(&self.cx, &SetAttr { mode: Some(mode), ..SetAttr::default() })?;
        notify_path(path, event::IN_ATTRIB);
        Ok(())
    }

    /// chown(2) of what was resolved; `None` leaves an id as it is.
    ///
    /// # Errors
    /// `EPERM`, `EROFS`.
    pub fn chown(&self, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        self.writable_mount(path)?;
        let inode = path.inode()?;
        let meta = inode.metadata()?;
        let creds = self.cx.creds;
        let capable = creds.has_cap(Cap::CHOWN);
        let owns = creds.fsuid == meta.uid;
        let user_ok = uid.is_none_or(|uid| capable || owns && uid == meta.uid);
        let group_ok = gid.is_none_or(|gid| capable || owns && (gid == meta.gid || creds.in_group(gid)));
        if !user_ok || !group_ok {
            return Err(Errno::EPERM);
        }
        let kept =
            if meta.mode & S_IFMT == S_IFDIR { meta.mode } else { permission::without_suid(meta.mode) };
        let mode = (kept != meta.mode).then_some(kept & 0o7777);
        inode.set_attr(&self.cx, &SetAttr { uid, gid, mode, ..SetAttr::default() })?;
        notify_path(path, event::IN_ATTRIB);
        Ok(())
    }

    /// utimensat(2) of what was resolved.
    ///
    /// # Errors
    /// `EPERM`, `EACCES`, `EROFS`.
    pub fn set_times(&self, path: &Path, times: Times) -> Result<(), Errno> {
        if times.atime.is_none() && times.mtime.is_none() {
            return Ok(());
        }
        self.writable_mount(path)?;
        let inode = path.inode()?;
        let meta = inode.metadata()?;
        if !permission::owner_or_capable(self.cx.creds, meta.uid) {
            if times != Times::NOW {
                return Err(Errno::EPERM);
            }
            inode.access(&self.cx, access::WRITE)?;
        }
        let attr = SetAttr { atime: times.atime, mtime: times.mtime, ..SetAttr::default() };
        inode.set_attr(&self.cx, &attr)?;
        notify_path(path, event::IN_ATTRIB);
        Ok(())
    }

    fn resize(&self, path: &Path, size: u64) -> Result<(), Errno> {
        let inode = path.inode()?;
        let meta = inode.metadata()?;
        file_size::check(self.cx.task, meta.size, size)?;
        let kept = permission::without_suid(meta.mode);
        let drops = kept != meta.mode && !self.cx.creds.has_cap(Cap::FSETID);
        let mode = drops.then_some(kept & 0o7777);
        inode.set_attr(&self.cx, &SetAttr { size: Some(size), mode, ..SetAttr::default() })?;
        notify_path(path, event::IN_MODIFY);
        Ok(())
    }

    /// truncate(2) of what was resolved.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL`, `EACCES`, `EROFS`, `EFBIG`, `ETXTBSY` for a running program.
    pub fn truncate(&self, path: &Path, size: i64) -> Result<(), Errno> {
        let size = u64::try_from(size).or(Err(Errno::EINVAL))?;
        let inode = path.inode()?;
        match inode.file_type() & S_IFMT {
            S_IFREG => {}
            S_IFDIR => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        self.writable_mount(path)?;
        inode.access(&self.cx, access::WRITE)?;
        let _hold = WriteHold::writer(inode)?;
        self.resize(path, size)
    }

    /// ftruncate(2).
    ///
    /// # Errors
    /// `EINVAL` for a file not open for writing or not regular, `EFBIG`.
    pub fn ftruncate(&self, file: &FileDescription, size: i64) -> Result<(), Errno> {
        let size = u64::try_from(size).or(Err(Errno::EINVAL))?;
        if file.is_path_only() {
            return Err(Errno::EBADF);
        }
        if !file.is_writable() || file.file_type() != S_IFREG {
            return Err(Errno::EINVAL);
        }
        self.resize(file.path(), size)
    }
}
