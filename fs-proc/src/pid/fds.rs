//! `/proc/PID/fd` and `/proc/PID/fdinfo`.
use std::sync::Arc;

use abi::Errno;
use kernel::{File, Task};
use vfs::{FileDescription, FsContext, OpCx, Path};

fn file(task: &Task, fd: i32) -> Result<(Arc<dyn File>, bool), Errno> {
    let table = task.fd_table().ok_or(Errno::ENOENT)?;
    table.get_with_flags(fd).or(Err(Errno::ENOENT))
}

/// The open descriptors, ascending.
pub(crate) fn fds(task: &Task) -> Vec<i32> {
    task.fd_table().map(|t| t.fds()).unwrap_or_default()
}

/// Where `/proc/PID/fd/N` leads.
pub(crate) fn fd_link(task: &Task, fd: i32) -> Result<Path, Errno> {
    let (file, _) = file(task, fd)?;
    FileDescription::from_file(&file).map(|f| f.path().clone()).ok_or(Errno::ENOENT)
}

/// The permissions of `/proc/PID/fd/N`: what the file was opened for.
pub(crate) fn fd_mode(task: &Task, fd: i32) -> Result<u32, Errno> {
    let (file, _) = file(task, fd)?;
    let description = FileDescription::from_file(&file).ok_or(Errno::ENOENT)?;
    let read = if description.is_readable() { 0o500 } else { 0 };
    let write = if description.is_writable() { 0o300 } else { 0 };
    Ok(read | write)
}

/// What a link to this place says, from the reader's root.
pub(crate) fn fd_name(cx: &OpCx<'_>, path: &Path) -> Result<Vec<u8>, Errno> {
    let root = match cx.task {
        Some(task) => FsContext::of(task)?.root(),
        None => path.mount.root_path(),
    };
    Ok(path.name(&root).display())
}

/// `/proc/PID/fdinfo/N`.
pub(crate) fn fdinfo(task: &Task, fd: i32) -> Result<Vec<u8>, Errno> {
    let (file, cloexec) = file(task, fd)?;
    let description = FileDescription::from_file(&file).ok_or(Errno::ENOENT)?;
    let flags = description.flags() | if cloexec { abi::fs::O_CLOEXEC } else { 0 };
    let ino = description.path().inode().and_then(|i| i.metadata()).map_or(0, |m| m.ino);
    let mount = description.path().mount.id();
    let position = description.position();
    let mut out =
        format!("pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t{mount}\nino:\t{ino}\n").into_bytes();
    out.extend(description.ops().fdinfo());
    Ok(out)
}
