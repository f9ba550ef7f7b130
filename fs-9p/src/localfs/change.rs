//! Making, moving and removing names.

use super::{LocalFile, LocalFs, LocalHandle};
use crate::host::{errno, retry};
use crate::proto::{Make, mode, open};
use crate::server::MadeFile;
use abi::Errno;
use nix::fcntl::{self, AtFlags, OFlag, RenameFlags};
use nix::sys::stat::{self, Mode, SFlag};
use nix::unistd::{self, UnlinkatFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Flags of unlinkat(2).
const AT_REMOVEDIR: u32 = 0x200;
/// Who is not changed by a new file's owner.
const KEEP: u32 = u32::MAX;

impl LocalFs {
    /// Makes a file of any type. It is made without permissions, then gets its owner, then its permissions.
    pub(super) fn make_file(
        &self,
        dir: &LocalFile,
        name: &[u8],
        make: &Make<'_>,
    ) -> Result<MadeFile<Self>, Errno> {
        dir.tree.check_writable()?;
        if dir.kind != mode::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        if make.mode & mode::S_IFMT == mode::S_IFREG {
            return self.make_regular(dir, name, make);
        }
        let kind = make.mode & mode::S_IFMT;
        match kind {
            mode::S_IFDIR => retry(|| stat::mkdirat(&dir.fd, name, Mode::empty()))?,
            mode::S_IFLNK => retry(|| unistd::symlinkat(make.target.0, &dir.fd, name))?,
            mode::S_IFIFO | mode::S_IFSOCK | mode::S_IFCHR | mode::S_IFBLK => {
                let kind = SFlag::from_bits(kind).ok_or(Errno::EINVAL)?;
                retry(|| stat::mknodat(&dir.fd, name, kind, Mode::empty(), make.rdev))?;
            }
            _ => return Err(Errno::EINVAL),
        }
        let (file, _) = self.find(dir, name)?;
        // Someone who may change the directory may have put another file here meanwhile, which must not get the owner
        // and permissions meant for ours: ours has no permissions, and is of the type that was asked for.
        let found = file.stat()?;
        let fresh = kind == mode::S_IFLNK || found.st_mode & 0o1777 == 0;
        if file.kind != kind || !fresh || found.st_uid != self.ids.0 {
            return Err(Errno::EEXIST);
        }
        // A set-group-id directory hands this bit to new directories, and its group to all; the kernel decided on it.
        let inherited = found.st_mode & 0o2000;
        self.own(file.fd.as_fd(), make)?;
        if kind != mode::S_IFLNK {
            self.chmod(file.fd.as_fd(), (make.mode & 0o7777) | inherited)?;
        }
        let attr = file.tree.attr(&file.stat()?);
        Ok(MadeFile { file, attr, handle: None })
    }

    fn own(&self, fd: BorrowedFd<'_>, make: &Make<'_>) -> Result<(), Errno> {
        let id = |id: u32| (id != KEEP).then_some(id);
        if (id(make.uid), id(make.gid)) == (None, None) {
            return Ok(());
        }
        Self::chown(fd, id(make.uid), id(make.gid))
    }

    fn make_regular(&self, dir: &LocalFile, name: &[u8], make: &Make<'_>) -> Result<MadeFile<Self>, Errno> {
        let opened = make.open != Make::UNOPENED;
        let wanted = if opened { make.open & (open::O_ACCMODE | open::O_APPEND | open::O_SYNC) } else { 0 };
        let bits = i32::try_from(wanted).map_err(|_too_large| Errno::EINVAL)?;
        let flags = OFlag::from_bits(bits).ok_or(Errno::EINVAL)?
            | OFlag::O_CREAT
            | OFlag::O_EXCL
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        // Without permissions until it has its owner, unless that is who makes it.
        let is_own = |wanted: u32, own: u32| wanted == KEEP || wanted == own;
        let own = is_own(make.uid, self.ids.0) && is_own(make.gid, self.ids.1);
        let early = if own { Mode::from_bits_truncate(make.mode & 0o777) } else { Mode::empty() };
        let fd = retry(|| fcntl::openat(&dir.fd, name, flags, early))?;
        let mut found = stat::fstat(&fd).map_err(errno)?;
        let differs = |is: u32, wanted: u32| wanted != KEEP && wanted != is;
        let foreign = differs(found.st_uid, make.uid) || differs(found.st_gid, make.gid);
        let permissions = Mode::from_bits(make.mode & 0o7777).ok_or(Errno::EINVAL)?;
        if foreign || found.st_mode & 0o7777 != permissions.bits() {
            if foreign {
                self.own(fd.as_fd(), make)?;
            }
            retry(|| stat::fchmod(&fd, permissions))?;
            found = stat::fstat(&fd).map_err(errno)?;
        }
        let path = self.reopen(fd.as_fd(), OFlag::O_PATH)?;
        let file = LocalFile { fd: path, kind: mode::S_IFREG, tree: Arc::clone(&dir.tree) };
        let attr = dir.tree.attr(&found);
        let handle = opened.then(|| LocalHandle::new(fd, file.kind, &dir.tree));
        Ok(MadeFile { file, attr, handle })
    }

    pub(super) fn make_link(&self, file: &LocalFile, dir: &LocalFile, name: &[u8]) -> Result<(), Errno> {
        dir.tree.check_writable()?;
        if dir.kind != mode::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        if !Arc::ptr_eq(&file.tree, &dir.tree) {
            return Err(Errno::EXDEV);
        }
        let old = super::fd_name(file.fd.as_fd());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        retry(|| unistd::linkat(&self.proc_self_fd, old.as_str(), &dir.fd, name, follow))
    }

    pub(super) fn move_name(
        from: (&LocalFile, &[u8]),
        to: (&LocalFile, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        from.0.tree.check_writable()?;
        if from.0.kind != mode::S_IFDIR || to.0.kind != mode::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        if !Arc::ptr_eq(&from.0.tree, &to.0.tree) {
            return Err(Errno::EXDEV);
        }
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        retry(|| fcntl::renameat2(&from.0.fd, from.1, &to.0.fd, to.1, flags))
    }

    pub(super) fn remove_name(dir: &LocalFile, name: &[u8], flags: u32) -> Result<(), Errno> {
        dir.tree.check_writable()?;
        if dir.kind != mode::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let flag = match flags {
            0 => UnlinkatFlags::NoRemoveDir,
            AT_REMOVEDIR => UnlinkatFlags::RemoveDir,
            _ => return Err(Errno::EINVAL),
        };
        unistd::unlinkat(&dir.fd, name, flag).map_err(errno)
    }
}
