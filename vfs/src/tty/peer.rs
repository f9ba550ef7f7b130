//! `TIOCGPTPEER`: opens the slave by its master, Linux `drivers/tty/pty.c:ptm_open_peer`.
use abi::Errno;
use abi::fs::{O_CLOEXEC, O_LARGEFILE};
use kernel::{RLIMIT_NOFILE, Task};

use super::{Master, Slave};
use crate::{At, FileDescription, FsContext, LookupFlags, Path, Vfs};

/// Where the slave is: in the file system that the master was opened in or, where that was `/dev/ptmx`, in `pts` beside it.
fn slave_path(file: &FileDescription, index: u32, task: &Task) -> Result<Path, Errno> {
    let cx = file.cx(task);
    let fs = FsContext::of(task)?;
    let vfs = Vfs::new(cx, &fs);
    let path = file.path();
    let is_devpts = |path: &Path| path.mount.sb().fs().name() == "devpts";
    let root = if is_devpts(path) {
        path.mount.root_path()
    } else {
        let dentry = path.dentry.parent().ok_or(Errno::ENODEV)?;
        let beside = At::Path(Path { mount: path.mount.clone(), dentry });
        vfs.resolve(&beside, b"pts", LookupFlags::FOLLOW)?
    };
    if !is_devpts(&root) {
        return Err(Errno::ENODEV);
    }
    vfs.resolve(&At::Path(root), index.to_string().as_bytes(), LookupFlags::default())
}

/// Opens the slave with these flags of open(2); the new descriptor.
///
/// # Errors
/// `EIO` where it is locked, `ENODEV` where its file system is not mounted where it is looked for, and those of open(2).
pub(crate) fn open_peer(
    file: &FileDescription,
    master: &Master,
    task: &Task,
    flags: u64,
) -> Result<usize, Errno> {
    let flags = u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(0);
    let path = slave_path(file, master.tty().index(), task)?;
    let cx = file.cx(task);
    let slave = Slave::open(master.tty(), &cx, flags)?;
    let peer = FileDescription::new(&cx, slave, path, flags | O_LARGEFILE);
    let limit = task.group().limits().get(RLIMIT_NOFILE).0;
    let table = task.fd_table().ok_or(Errno::EBADF)?;
    let fd = table.install(peer, flags & O_CLOEXEC != 0, limit)?;
    usize::try_from(fd).map_err(|_negative| Errno::EBADF)
}
