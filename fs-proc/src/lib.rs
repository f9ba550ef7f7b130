//! proc(5), sysfs(5), and cgroups(7).
//!
//! What is there is told by tables ([`pid`], [`system`]); an inode names a line of a table and, in proc, a task. Inodes are
//! made on lookup and never cached; contents are made when a file is read from its beginning.
#![forbid(unsafe_code)]
#![expect(clippy::let_underscore_must_use, reason = "writing to a String cannot fail")]
#![expect(clippy::type_complexity, reason = "lines of tables are functions")]

mod content;
mod directory;
mod inode;
mod node;
mod pid;
mod system;

use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::{CGROUP2_SUPER_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC};
use kernel::Kernel;
use vfs::{FileSystem, FileSystemType, InodeOps, OpCx, StatFs, anonymous_device, register_filesystem};

use self::inode::ProcInode;
use self::node::Node;

pub use pid::cmdline;
pub use system::{RELEASE, VERSION};

/// Which of the file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Proc,
    Sys,
    Cgroup,
}

/// An instance of one.
#[derive(Debug)]
pub(crate) struct Instance {
    which: Which,
    kernel: Weak<Kernel>,
    device: u64,
    /// The lines of `/proc/cpuinfo` for one processor, after its number.
    cpu_info: Arc<str>,
    this: Weak<Self>,
}

impl Instance {
    fn kernel(&self) -> Result<Arc<Kernel>, Errno> {
        self.kernel.upgrade().ok_or(Errno::EIO)
    }
    fn inode(&self, node: Node) -> Result<Arc<dyn InodeOps>, Errno> {
        let instance = self.this.upgrade().ok_or(Errno::EIO)?;
        Ok(Arc::new(ProcInode { instance, node }))
    }
}

impl FileSystem for Instance {
    fn name(&self) -> &'static str {
        match self.which {
            Which::Proc => "proc",
            Which::Sys => "sysfs",
            Which::Cgroup => "cgroup2",
        }
    }
    fn root(&self) -> Arc<dyn InodeOps> {
        let node = match self.which {
            Which::Proc => Node::ProcRoot,
            Which::Sys => Node::SysRoot,
            Which::Cgroup => Node::Table(system::CGROUP),
        };
        let instance = self.this.upgrade().expect("the method is called on a live instance");
        Arc::new(ProcInode { instance, node })
    }
    fn stat_fs(&self) -> Result<StatFs, Errno> {
        let magic = match self.which {
            Which::Proc => PROC_SUPER_MAGIC,
            Which::Sys => SYSFS_MAGIC,
            Which::Cgroup => CGROUP2_SUPER_MAGIC,
        };
        Ok(StatFs { fs_type: i64::from(magic), bsize: 4096, frsize: 4096, namelen: 255, ..StatFs::default() })
    }
    fn device(&self) -> u64 {
        self.device
    }
    fn is_virtual(&self) -> bool {
        true
    }
    fn remount(&self, _: &OpCx<'_>, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
}

#[derive(Debug)]
struct Type {
    which: Which,
    cpu_info: Arc<str>,
}

impl FileSystemType for Type {
    fn name(&self) -> &'static str {
        match self.which {
            Which::Proc => "proc",
            Which::Sys => "sysfs",
            Which::Cgroup => "cgroup2",
        }
    }
    fn mount(&self, cx: &OpCx<'_>, _: &[u8], _: &[u8]) -> Result<Arc<dyn FileSystem>, Errno> {
        let kernel = cx.kernel()?;
        Ok(Arc::new_cyclic(|this| Instance {
            which: self.which,
            kernel: Arc::downgrade(kernel),
            device: anonymous_device(),
            cpu_info: Arc::clone(&self.cpu_info),
            this: Weak::clone(this),
        }))
    }
}

/// Registers the file system types `proc`, `sysfs` and `cgroup2`; an instance shows the kernel of who mounts it. `cpu_info` is what `/proc/cpuinfo` says of one processor, the line
/// with its number left out.
pub fn register(cpu_info: &str) {
    let cpu_info: Arc<str> = Arc::from(cpu_info);
    for which in [Which::Proc, Which::Sys, Which::Cgroup] {
        register_filesystem(Arc::new(Type { which, cpu_info: Arc::clone(&cpu_info) }));
    }
}
