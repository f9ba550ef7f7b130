//! Open files whose contents are made up.
use std::sync::Arc;

use abi::Errno;
use memmap::{IoDst, IoSrc};
use sync::{LockClass, Mutex, PollEvents, WaitQueue};
use vfs::{FileOps, OpCx};

use crate::inode::{ProcInode, namespace_of};
use crate::node::{NET, Node};
use crate::pid::{self, Kind};
use crate::system::{PerCpu, Static, cpuinfo};

/// The most that one write brings.
const WRITE_LIMIT: usize = 4096;
/// How much of another's memory one read or write moves.
const MEMORY_CHUNK: usize = 64 << 10;

/// Files that only who may trace the process can open.
pub(crate) fn is_guarded(node: &Node) -> bool {
    match node {
        Node::Entry(_, entry) => {
            matches!(entry.name, "auxv" | "environ" | "io" | "maps" | "mem" | "smaps" | "smaps_rollup")
        }
        Node::FdInfo(..) => true,
        _ => false,
    }
}

/// Files that hold what they are about since they were opened; the others ask for the process at each read.
fn outlives(name: &str) -> bool {
    matches!(name, "auxv" | "environ" | "mem" | "mounts" | "mountinfo" | "mountstats")
}

#[derive(Debug)]
pub(crate) struct ContentFile {
    inode: Arc<ProcInode>,
    /// What was made at the last read from the beginning.
    made: Mutex<Option<Arc<[u8]>>>,
    /// For `mounts` and `mountinfo`: the mounts, and the state of them that was read.
    mounts: Option<(Arc<vfs::MountNamespace>, Mutex<u64>)>,
}

impl ContentFile {
    pub(crate) fn new(inode: Arc<ProcInode>) -> Self {
        let mounts = match &inode.node {
            Node::Entry(s, entry) if matches!(entry.name, "mounts" | "mountinfo") => namespace_of(&s.task),
            _ => None,
        };
        let mounts = mounts.map(|namespace| {
            let seen = namespace.generation();
            (namespace, Mutex::new(LockClass::Leaf, seen))
        });
        Self { inode, made: Mutex::new(LockClass::FileState, None), mounts }
    }

    fn make(&self) -> Result<Vec<u8>, Errno> {
        let kernel = self.inode.instance.kernel()?;
        match &self.inode.node {
            Node::Static(line) => Ok(match line {
                Static::File(make) | Static::Writable(make, _) => make(&kernel),
                Static::Text(text) => text.as_bytes().to_vec(),
                Static::CpuInfo => cpuinfo(&kernel, &self.inode.instance.cpu_info),
                Static::Dir(_) | Static::Cpus(_) | Static::Link(_) => return Err(Errno::EINVAL),
            }),
            Node::Entry(_, entry) if !outlives(entry.name) && !self.inode.node.is_live(&kernel) => {
                Err(Errno::ESRCH)
            }
            Node::Entry(s, entry) => match entry.kind {
                Kind::File(make) | Kind::Writable(make, _) => make(&s.task, s.whole),
                _ => Err(Errno::EINVAL),
            },
            Node::CpuFile(n, PerCpu::File(make)) => Ok(make(&kernel, *n).into_bytes()),
            Node::FdInfo(s, fd) => pid::fdinfo(&s.task, *fd),
            Node::NetFile(_, name) => {
                let heading = NET.iter().find(|(n, _)| n == name).map_or("", |(_, text)| text);
                let mut text = heading.as_bytes().to_vec();
                if let Some(rows) = vfs::net_table(name) {
                    text.extend(rows(&kernel));
                }
                Ok(text)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn is_memory(&self) -> bool {
        matches!(&self.inode.node, Node::Entry(_, entry) if matches!(entry.kind, Kind::Memory))
    }

    fn read_memory(&self, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        let mm = self.inode.node.subject().and_then(|s| s.task.mm());
        let Some(mm) = mm else { return Ok(0) };
        let mut buffer = vec![0; dst.remaining().min(MEMORY_CHUNK)];
        let n = mm.read_bytes_force(offset, &mut buffer).or(Err(Errno::EIO))?;
        if n == 0 && !buffer.is_empty() {
            return Err(Errno::EIO);
        }
        dst.write(buffer.get(..n).unwrap_or_default())
    }

    fn write_memory(&self, src: &mut IoSrc<'_>, offset: u64) -> Result<usize, Errno> {
        let mm = self.inode.node.subject().and_then(|s| s.task.mm());
        let Some(mm) = mm else { return Ok(0) };
        let mut buffer = vec![0; src.remaining().min(MEMORY_CHUNK)];
        let n = src.read(&mut buffer)?;
        let n = mm.write_bytes_force(offset, buffer.get(..n).unwrap_or_default()).or(Err(Errno::EIO))?;
        if n == 0 && !buffer.is_empty() { Err(Errno::EIO) } else { Ok(n) }
    }
}

impl FileOps for ContentFile {
    fn read_at(&self, _: &OpCx<'_>, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        if self.is_memory() {
            return self.read_memory(dst, offset);
        }
        let made = self.made.lock().clone();
        let made = match made {
            Some(made) if offset > 0 => made,
            _ => {
                let fresh: Arc<[u8]> = self.make()?.into();
                let old = self.made.lock().replace(Arc::clone(&fresh));
                drop(old);
                fresh
            }
        };
        if let Some((namespace, seen)) = &self.mounts {
            *seen.lock() = namespace.generation();
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        dst.write(made.get(start..).unwrap_or_default())
    }

    fn write_at(&self, cx: &OpCx<'_>, src: &mut IoSrc<'_>, offset: u64) -> Result<usize, Errno> {
        if self.is_memory() {
            return self.write_memory(src, offset);
        }
        let mut bytes = vec![0; src.remaining().min(WRITE_LIMIT)];
        let n = src.read(&mut bytes)?;
        bytes.truncate(n);
        match &self.inode.node {
            Node::Static(Static::Writable(_, set)) => set(cx, &*self.inode.instance.kernel()?, &bytes)?,
            Node::Entry(s, entry) => match entry.kind {
                Kind::Writable(_, set) => set(cx, &s.task, &bytes)?,
                _ => return Err(Errno::EINVAL),
            },
            _ => return Err(Errno::EIO),
        }
        Ok(n)
    }

    fn seek(&self, _: &OpCx<'_>, position: u64, offset: i64, whence: u32) -> Result<u64, Errno> {
        let base = match whence {
            abi::fs::SEEK_SET => 0,
            abi::fs::SEEK_CUR => position,
            _ => return Err(Errno::EINVAL),
        };
        base.checked_add_signed(offset).ok_or(Errno::EINVAL)
    }

    fn poll(&self, _: &OpCx<'_>) -> PollEvents {
        let always = PollEvents::READABLE | PollEvents::WRITABLE;
        match &self.mounts {
            Some((namespace, seen)) if namespace.generation() != *seen.lock() => {
                always | PollEvents::PRI | PollEvents::ERR
            }
            _ => always,
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        self.mounts.as_ref().map(|(namespace, _)| namespace.changes())
    }
}
