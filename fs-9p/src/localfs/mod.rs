//! Serves folders and files of the host.
//!
//! Each [`Export`] is a tree below a descriptor. A file of the tree is an `O_PATH` descriptor, found by one
//! `openat(2)` with `O_NOFOLLOW` for each name from the descriptor of its directory; no path of more than one name
//! is ever given to the host. So neither a name, nor a symbolic link, nor a concurrent rename leads out of a tree: a file that
//! is moved out of it while a client holds its fid stays that one file.
//!
//! What needs a real open of such a file, or a call that takes no `O_PATH` descriptor, goes by the magic link of the
//! descriptor in a folder `/proc/self/fd`, opened once at the start: see [`LocalFs::new`].
//!
//! Only regular files and directories are ever opened. A FIFO or socket gives `ENXIO`, a device node `EPERM`, a symbolic
//! link `ELOOP`. Users are not looked at: whoever may talk to the server may do what the server may do.

mod attr;
mod backend;
mod change;
mod dir;

use abi::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::{self, FileStat, Mode};
use nix::unistd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use sync::{LockClass, Mutex};

use crate::host::{errno, retry};
use crate::proto::{Attr, mode, open};

pub use dir::Listing;

/// Host calls that [`serve`](crate::server::serve) and this back end make, beyond those of any Rust program (memory,
/// futexes, starting and ending threads). [`LocalFs::new`] additionally needs `openat` of `/proc/self/fd`.
pub const HOST_SYSCALLS: &[&str] = &[
    "recvfrom",
    "sendmsg",
    "shutdown",
    "getsockopt",
    "close",
    "openat",
    "newfstatat",
    "fstat",
    "fstatfs",
    "getdents64",
    "readlinkat",
    "pread64",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "fchmod",
    "fchmodat",
    "fchownat",
    "utimensat",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "linkat",
    "unlinkat",
    "renameat2",
    "fcntl",
    "geteuid",
    "getegid",
    "sched_getaffinity",
    "sched_setaffinity",
];

/// A tree that clients may attach to.
#[derive(Debug)]
pub struct Export {
    /// The name to attach by.
    pub name: Vec<u8>,
    /// The root: a directory or, for a mount of a single file, a regular file. `O_PATH` is enough.
    pub root: OwnedFd,
    /// Whether the tree may be changed; if not, what would change it gives `EROFS`.
    pub writable: bool,
}

/// What the files of one export share.
#[derive(Debug)]
struct Tree {
    name: Vec<u8>,
    root: OwnedFd,
    writable: bool,
    /// The device of the root first, then those of mounts below it.
    devices: Mutex<Vec<u64>>,
}

/// The back end.
#[derive(Debug)]
pub struct LocalFs {
    trees: Vec<Arc<Tree>>,
    proc_self_fd: OwnedFd,
    /// Who makes the files.
    ids: (u32, u32),
}

/// A file of an exported tree.
#[derive(Debug)]
pub struct LocalFile {
    fd: OwnedFd,
    /// `S_IFMT` of the mode, which never changes.
    kind: u32,
    tree: Arc<Tree>,
}

/// An open file of an exported tree.
#[derive(Debug)]
pub struct LocalHandle {
    fd: OwnedFd,
    kind: u32,
    tree: Arc<Tree>,
    listing: Mutex<Option<Listing>>,
}

impl LocalFs {
    /// Serves these exports. `proc_self_fd` is the folder `/proc/self/fd` of the process that will serve, opened with
    /// [`LocalFs::open_proc_self_fd`] or the like; it stays usable after a change of root.
    ///
    /// # Errors
    /// Those of fstat(2) of a root.
    pub fn new(exports: Vec<Export>, proc_self_fd: OwnedFd) -> Result<Self, Errno> {
        let trees = exports.into_iter().map(|Export { name, root, writable }| {
            let device = stat::fstat(&root).map_err(errno)?.st_dev;
            let devices = Mutex::new(LockClass::Leaf, vec![device]);
            Ok(Arc::new(Tree { name, root, writable, devices }))
        });
        let ids = (unistd::geteuid().as_raw(), unistd::getegid().as_raw());
        Ok(Self { trees: trees.collect::<Result<_, Errno>>()?, proc_self_fd, ids })
    }

    /// Opens `/proc/self/fd` for [`LocalFs::new`]. Must be done by the process that will serve, not by its parent.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open_proc_self_fd() -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        retry(|| fcntl::open("/proc/self/fd", flags, Mode::empty()))
    }

    /// Opens the very file that `fd` is open on.
    fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
        let name = fd_name(fd);
        retry(|| fcntl::openat(&self.proc_self_fd, name.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty()))
    }

    /// Finds a name in a directory.
    fn find(&self, dir: &LocalFile, name: &[u8]) -> Result<(LocalFile, Attr), Errno> {
        if dir.kind != mode::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = retry(|| fcntl::openat(&dir.fd, name, flags, Mode::empty()))?;
        LocalFile::new(fd, &dir.tree)
    }

    /// Opens a regular file or directory for I/O.
    fn open_file(&self, file: &LocalFile, flags: u32) -> Result<LocalHandle, Errno> {
        let access = flags & open::O_ACCMODE;
        let changes = access != open::O_RDONLY || flags & open::O_TRUNC != 0;
        let known = open::O_ACCMODE | open::O_TRUNC | open::O_APPEND | open::O_DIRECTORY | open::O_SYNC;
        // Of no meaning for a file that is there and has been found, or on this machine.
        let ignored = open::O_CREAT
            | open::O_NOCTTY
            | open::O_NONBLOCK
            | open::O_LARGEFILE
            | open::O_NOFOLLOW
            | open::O_CLOEXEC
            | open::O_DIRECT
            | open::O_NOATIME;
        match file.kind {
            _ if access == open::O_ACCMODE || flags & !(known | ignored) != 0 => return Err(Errno::EINVAL),
            mode::S_IFREG if flags & open::O_DIRECTORY != 0 => return Err(Errno::ENOTDIR),
            mode::S_IFDIR if changes => return Err(Errno::EISDIR),
            mode::S_IFREG | mode::S_IFDIR => {}
            mode::S_IFLNK => return Err(Errno::ELOOP),
            mode::S_IFIFO | mode::S_IFSOCK => return Err(Errno::ENXIO),
            _ => return Err(Errno::EPERM),
        }
        if changes {
            file.tree.check_writable()?;
        }
        let bits = i32::try_from(flags & known).map_err(|_too_large| Errno::EINVAL)?;
        let fd = self.reopen(file.fd.as_fd(), OFlag::from_bits(bits).ok_or(Errno::EINVAL)?)?;
        Ok(LocalHandle::new(fd, file.kind, &file.tree))
    }
}

/// The name of a descriptor in `/proc/self/fd`.
fn fd_name(fd: BorrowedFd<'_>) -> String {
    fd.as_raw_fd().to_string()
}

impl LocalFile {
    fn new(fd: OwnedFd, tree: &Arc<Tree>) -> Result<(Self, Attr), Errno> {
        let stat = stat::fstat(&fd).map_err(errno)?;
        let kind = stat.st_mode & mode::S_IFMT;
        Ok((Self { fd, kind, tree: Arc::clone(tree) }, tree.attr(&stat)))
    }

    fn stat(&self) -> Result<FileStat, Errno> {
        stat::fstat(&self.fd).map_err(errno)
    }
}

impl LocalHandle {
    fn new(fd: OwnedFd, kind: u32, tree: &Arc<Tree>) -> Self {
        Self { fd, kind, tree: Arc::clone(tree), listing: Mutex::new(LockClass::Leaf, None) }
    }
}

impl Tree {
    fn check_writable(&self) -> Result<(), Errno> {
        if self.writable { Ok(()) } else { Err(Errno::EROFS) }
    }
}
