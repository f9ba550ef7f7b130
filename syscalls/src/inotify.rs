//! Watching files: `inotify_init(2)`, `inotify_add_watch(2)`, `inotify_rm_watch(2)`.
use abi::Errno;
use abi::fs::{O_CLOEXEC, O_NONBLOCK};
use kernel::File;
use std::sync::Arc;
use vfs::anon::Inotify;
use vfs::{At, FileDescription, LookupFlags, access, permission};

use crate::Cx;
use crate::decode::{Fd, UserPtr};
use crate::eventfd::install_anon;

/// The path must lead to a directory.
const IN_ONLYDIR: u32 = 0x0100_0000;
/// A symbolic link at the end is watched itself.
const IN_DONT_FOLLOW: u32 = 0x0200_0000;

/// `inotify_init(2)`
///
/// # Errors
/// `EMFILE`.
pub fn inotify_init(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    inotify_init1(cx, 0)
}

/// `inotify_init1(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, `EMFILE`.
pub fn inotify_init1(cx: &mut Cx<'_>, flags: u32) -> Result<usize, Errno> {
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    install_anon(cx, "anon_inode:inotify", Inotify::new(), flags)
}

fn instance(file: &Arc<dyn File>) -> Result<&Inotify, Errno> {
    let description = FileDescription::from_file(file).ok_or(Errno::EINVAL)?;
    description.ops().downcast_ref().ok_or(Errno::EINVAL)
}

/// `inotify_add_watch(2)`
///
/// # Errors
/// `EBADF`, `EINVAL` for another kind of file or no condition, `EACCES` where the file may not be read, `EEXIST`, `ENOSPC`,
/// `ENOTDIR`, and those of path resolution.
pub fn inotify_add_watch(cx: &mut Cx<'_>, fd: Fd, path: UserPtr<u8>, mask: u32) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let inotify = instance(&file)?;
    let path = cx.path(path)?;
    let flags = LookupFlags {
        follow: mask & IN_DONT_FOLLOW == 0,
        directory: mask & IN_ONLYDIR != 0,
        ..LookupFlags::default()
    };
    let found = cx.vfs(|vfs| {
        let found = vfs.resolve(&At::Cwd, &path, flags)?;
        permission::check(&vfs.cx, found.inode()?.as_ref(), access::READ)?;
        Ok(found)
    })?;
    Ok(usize::try_from(inotify.add(&found, mask)?).unwrap_or(0))
}

/// `inotify_rm_watch(2)`
///
/// # Errors
/// `EBADF`, `EINVAL` for another kind of file or no such watch.
pub fn inotify_rm_watch(cx: &mut Cx<'_>, fd: Fd, wd: i32) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    instance(&file)?.remove(wd)?;
    Ok(0)
}
