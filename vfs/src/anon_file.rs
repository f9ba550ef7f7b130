//! Open files that no directory has: pipes, sockets, eventfds and their kin.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use abi::Errno;
use abi::fs::{ANON_INODE_FS_MAGIC, O_RDONLY, O_RDWR, O_WRONLY};
use abi::stat::{S_IFIFO, S_IFMT, S_IFSOCK};
use abi::time::Timespec;
use kernel::Credentials;

use crate::filesystem::{StatFs, anonymous_device};
use crate::{
    Dentry, FileDescription, FileOps, FileSystem, InodeOps, Metadata, Mount, OpCx, Path, SuperBlock,
};

/// The file system of files without a directory; mounted nowhere.
#[derive(Debug)]
struct AnonFs {
    device: u64,
    root: Arc<AnonInode>,
}

impl FileSystem for AnonFs {
    fn name(&self) -> &'static str {
        "anon_inodefs"
    }
    fn root(&self) -> Arc<dyn InodeOps> {
        self.root.clone()
    }
    fn stat_fs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs {
            fs_type: i64::from(ANON_INODE_FS_MAGIC),
            bsize: 4096,
            frsize: 4096,
            namelen: 255,
            ..StatFs::default()
        })
    }
    fn device(&self) -> u64 {
        self.device
    }
    fn is_virtual(&self) -> bool {
        true
    }
}

struct Anon {
    mount: Arc<Mount>,
    inode: Arc<AnonInode>,
}

static ANON: OnceLock<Anon> = OnceLock::new();
static NEXT_INO: AtomicU64 = AtomicU64::new(1024);

fn anon() -> &'static Anon {
    ANON.get_or_init(|| {
        let device = anonymous_device();
        let inode = Arc::new(AnonInode {
            meta: Metadata {
                dev: device,
                ino: next_ino(),
                mode: 0o600,
                nlink: 1,
                blksize: 4096,
                ..Metadata::default()
            },
        });
        let fs = Arc::new(AnonFs { device, root: Arc::clone(&inode) });
        let sb = SuperBlock::new(fs, false);
        let root = Arc::clone(sb.root());
        Anon { mount: Mount::new(sb, root, b"none", 0), inode }
    })
}

/// An inode number for a pipe, a socket or another file without a directory.
#[must_use]
pub fn next_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// The device number of files without a directory.
#[must_use]
pub fn anon_device() -> u64 {
    anon().mount.sb().device()
}

/// An inode that has attributes and nothing else: opening it through `/proc/PID/fd` is `ENXIO`.
#[derive(Debug)]
pub struct AnonInode {
    meta: Metadata,
}

impl AnonInode {
    /// An inode of this type and mode, owned by the caller.
    #[must_use]
    pub fn new(cx: &OpCx<'_>, mode: u32) -> Arc<Self> {
        let now = cx.now();
        Arc::new(Self { meta: attributes(cx.creds, mode, now) })
    }
}

fn attributes(creds: &Credentials, mode: u32, now: Timespec) -> Metadata {
    Metadata {
        dev: anon_device(),
        ino: next_ino(),
        mode,
        nlink: 1,
        uid: creds.fsuid,
        gid: creds.fsgid,
        blksize: 4096,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        ..Metadata::default()
    }
}

impl InodeOps for AnonInode {
    fn metadata(&self) -> Result<Metadata, Errno> {
        Ok(self.meta)
    }
    fn file_type(&self) -> u32 {
        self.meta.mode & S_IFMT
    }
    fn open(self: Arc<Self>, _cx: &OpCx<'_>, _flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }
}

/// Opens a file that shares the one inode of all such files: eventfd, epoll, timerfd, signalfd, inotify, pidfd. `name` is
/// what `/proc/PID/fd` shows, such as `anon_inode:[eventfd]`; `flags` are an access mode and status flags.
#[must_use]
pub fn new_anon_file(cx: &OpCx<'_>, name: &[u8], ops: Arc<dyn FileOps>, flags: u32) -> Arc<FileDescription> {
    new_inode_file(cx, name, Arc::clone(&anon().inode) as Arc<dyn InodeOps>, ops, flags)
}

/// Opens a file on an inode of its own in no directory: a pipe end, a memfd. `name` is what `/proc/PID/fd` shows.
#[must_use]
pub fn new_inode_file(
    cx: &OpCx<'_>,
    name: &[u8],
    inode: Arc<dyn InodeOps>,
    ops: Arc<dyn FileOps>,
    flags: u32,
) -> Arc<FileDescription> {
    let dentry = Dentry::disconnected(name, inode);
    FileDescription::new(cx, ops, Path { mount: Arc::clone(&anon().mount), dentry }, flags)
}

/// Opens a socket, `socket:[ino]`; `flags` are status flags.
#[must_use]
pub fn new_socket_file(cx: &OpCx<'_>, ops: Arc<dyn FileOps>, flags: u32) -> Arc<FileDescription> {
    let inode = AnonInode::new(cx, S_IFSOCK | 0o777);
    let name = format!("socket:[{}]", inode.meta.ino);
    new_inode_file(cx, name.as_bytes(), inode, ops, flags | O_RDWR)
}

/// Opens a pipe, `pipe:[ino]`: the end to read and the end to write; `flags` are status flags. Opening it again through
/// `/proc/PID/fd` works as for a FIFO.
#[must_use]
pub fn new_pipe(cx: &OpCx<'_>, flags: u32) -> [Arc<FileDescription>; 2] {
    let inode = AnonInode::new(cx, S_IFIFO | 0o600);
    let name = format!("pipe:[{}]", inode.meta.ino);
    let [read, write] = crate::anon::pipe();
    anon().mount.sb().attach_with(inode.meta.ino, crate::ops::FIFO, || Arc::clone(read.pipe()));
    let end = |end: Arc<crate::anon::PipeEnd>, mode| {
        new_inode_file(cx, name.as_bytes(), inode.clone(), end, flags | mode)
    };
    [end(read, O_RDONLY), end(write, O_WRONLY)]
}
