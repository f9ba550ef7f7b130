//! What is in `/dev` of every container.
use std::sync::Arc;

use abi::Errno;
use abi::stat::{S_IFCHR, S_IFDIR, makedev};
use memmap::MemoryFile;

use crate::tmpfs::{Options, Tmpfs};
use crate::{FileSystem, FileSystemType, InodeOps, OpCx, register_filesystem};

/// The nodes that the OCI runtime specification wants: name, major and minor number.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];
const DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];

/// Puts the standard nodes, links and directories into a directory; what is there already stays.
///
/// # Errors
/// Those of mknod(2), but `EEXIST`.
pub fn populate(cx: &OpCx<'_>, dev: &dyn InodeOps) -> Result<(), Errno> {
    let there = |result: Result<Arc<dyn InodeOps>, Errno>| match result {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error),
    };
    for (name, major, minor) in NODES {
        there(dev.mknod(cx, name.as_bytes(), S_IFCHR | 0o666, makedev(major, minor)))?;
    }
    for (name, target) in LINKS {
        there(dev.symlink(cx, name.as_bytes(), target.as_bytes()))?;
    }
    for name in DIRECTORIES {
        there(dev.mkdir(cx, name.as_bytes(), S_IFDIR | 0o755))?;
    }
    Ok(())
}

/// What its files may hold.
const DEV_SIZE: u64 = 64 << 20;

/// devtmpfs as mount(2) makes it.
#[derive(Debug)]
struct DevtmpfsType(Arc<MemoryFile>);

impl FileSystemType for DevtmpfsType {
    fn name(&self) -> &'static str {
        "devtmpfs"
    }
    fn mount(&self, cx: &OpCx<'_>, _source: &[u8], data: &[u8]) -> Result<Arc<dyn FileSystem>, Errno> {
        let defaults = Options { mode: 0o755, size: DEV_SIZE, ..Options::default() };
        let fs = Tmpfs::named("devtmpfs", cx, Arc::clone(&self.0), Options::parse_over(&defaults, data)?)?;
        populate(cx, fs.root_inode().as_ref())?;
        Ok(fs)
    }
}

/// Has mount(2) know devtmpfs. Each mount is an instance of its own, as containers must not share one.
pub fn register(memory: &Arc<MemoryFile>) {
    register_filesystem(Arc::new(DevtmpfsType(Arc::clone(memory))));
}
