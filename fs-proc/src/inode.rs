//! Inodes of proc and sysfs.
use std::sync::Arc;

use abi::Errno;
use abi::fs::{O_ACCMODE, O_RDONLY};
use abi::stat::{S_IFDIR, S_IFMT};
use abi::time::Timespec;
use kernel::{Kernel, Task};
use vfs::{Caching, FileOps, FsContext, InodeOps, Metadata, OpCx, Path, SetAttr};

use crate::content::ContentFile;
use crate::directory::ProcDirectory;
use crate::node::{NET, Node, Subject, Table};
use crate::pid::{self, Kind, NAMESPACES};
use crate::system::{CPU_N, PROC, PerCpu, SYSFS, Static};
use crate::{Instance, Which, content};

#[derive(Debug)]
pub(crate) struct ProcInode {
    pub instance: Arc<Instance>,
    pub node: Node,
}

/// A canonical decimal number.
fn number(name: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(name).ok()?;
    let n: i32 = text.parse().ok().filter(|n| *n >= 0)?;
    (n.to_string() == text).then_some(n)
}

fn in_table(table: Table, name: &[u8]) -> Option<Node> {
    let (_, line) = table.iter().find(|(n, _)| n.as_bytes() == name)?;
    Some(match line {
        Static::Dir(table) => Node::Table(table),
        Static::Cpus(table) => Node::Cpus(table),
        Static::File(_) | Static::Writable(..) | Static::Text(_) | Static::Link(_) | Static::CpuInfo => {
            Node::Static(line)
        }
    })
}

/// How many directories a table has.
fn directories(table: Table) -> u32 {
    let count = table.iter().filter(|(_, line)| matches!(line, Static::Dir(_) | Static::Cpus(_))).count();
    u32::try_from(count).unwrap_or(0)
}

fn process(kernel: &Kernel, name: &[u8]) -> Option<Node> {
    let id = number(name).filter(|n| *n > 0)?;
    let (task, whole) = match kernel.thread_group(id) {
        Some(group) => (group.leader()?, true),
        // Threads are not listed, yet can be named.
        None => (kernel.task(id)?, false),
    };
    Some(Node::Task(Subject { task, whole }))
}

fn of_task(subject: &Subject, name: &[u8]) -> Option<Node> {
    let subject = subject.clone();
    if name == b"net" {
        return Some(Node::Net(subject));
    }
    let entry = pid::ENTRIES.iter().find(|e| e.name.as_bytes() == name)?;
    Some(match entry.kind {
        Kind::File(_) | Kind::Writable(..) | Kind::Link(_) | Kind::Memory => Node::Entry(subject, entry),
        Kind::Fds => Node::Fds(subject),
        Kind::FdInfos => Node::FdInfos(subject),
        Kind::Threads if subject.whole => Node::Threads(subject),
        Kind::Threads => return None,
        Kind::Namespaces => Node::Namespaces(subject),
    })
}

impl Node {
    /// What a name in the directory of a processor stands for.
    pub(crate) const fn of_cpu(cpu: u32, line: &'static PerCpu) -> Self {
        match line {
            PerCpu::File(_) => Self::CpuFile(cpu, line),
            PerCpu::Dir(table) => Self::CpuDir(cpu, table),
        }
    }

    fn child(&self, cx: &OpCx<'_>, kernel: &Kernel, name: &[u8]) -> Result<Self, Errno> {
        if self.subject().is_some() && !self.is_live(kernel) {
            return Err(Errno::ENOENT);
        }
        let found = match self {
            Self::ProcRoot => match name {
                b"self" => Some(Self::SelfLink),
                b"thread-self" => Some(Self::ThreadSelf),
                _ => in_table(PROC, name).or_else(|| process(kernel, name)),
            },
            Self::SysRoot => in_table(SYSFS, name),
            Self::Table(table) => in_table(table, name),
            Self::Cpus(table) => in_table(table, name).or_else(|| {
                let n = name.strip_prefix(b"cpu").and_then(number)?.cast_unsigned();
                (n < kernel.cpus()).then_some(Self::CpuDir(n, CPU_N))
            }),
            Self::CpuDir(n, table) => {
                let found = table.iter().find(|(known, _)| known.as_bytes() == name);
                found.map(|(_, line)| Self::of_cpu(*n, line))
            }
            Self::Task(subject) => of_task(subject, name),
            Self::Threads(subject) => {
                let id = number(name);
                let task = subject.task.group().threads().into_iter().find(|t| Some(t.tid()) == id);
                task.map(|task| Self::Task(Subject { task, whole: false }))
            }
            Self::Fds(subject) | Self::FdInfos(subject) => {
                pid::check_access(cx, &subject.task)?;
                let fd = number(name).filter(|fd| pid::fd_mode(&subject.task, *fd).is_ok());
                fd.map(|fd| match self {
                    Self::Fds(_) => Self::Fd(subject.clone(), fd),
                    _ => Self::FdInfo(subject.clone(), fd),
                })
            }
            Self::Namespaces(subject) => {
                let found = NAMESPACES.iter().find(|(n, _)| n.as_bytes() == name);
                found.map(|(n, number)| Self::Namespace(subject.clone(), n, *number))
            }
            Self::Net(subject) => {
                let found = NET.iter().find(|(n, _)| n.as_bytes() == name);
                found.map(|(n, _)| Self::NetFile(subject.clone(), n))
            }
            _ => return Err(Errno::ENOTDIR),
        };
        found.ok_or(Errno::ENOENT)
    }

    /// Tells whether what it is about still exists.
    pub(crate) fn is_live(&self, kernel: &Kernel) -> bool {
        match (self, self.subject()) {
            (_, None) => true,
            (Self::Fd(s, fd) | Self::FdInfo(s, fd), _) => pid::fd_mode(&s.task, *fd).is_ok(),
            (_, Some(s)) => kernel.task(s.task.tid()).is_some_and(|t| Arc::ptr_eq(&t, &s.task)),
        }
    }
}

/// The task that asks, if it has an id here.
fn current<'a>(cx: &OpCx<'a>, kernel: &Arc<Kernel>) -> Result<&'a Task, Errno> {
    cx.task.filter(|task| Arc::ptr_eq(task.kernel(), kernel)).ok_or(Errno::ENOENT)
}

impl InodeOps for ProcInode {
    fn metadata(&self) -> Result<Metadata, Errno> {
        let kernel = self.instance.kernel()?;
        let mode = self.node.mode();
        // Files of a process that may not be looked into are root's, Linux task_dump_owner.
        let dumpable = |s: &&Subject| s.task.group().dumpable() == 1 || mode == S_IFDIR | 0o555;
        let (uid, gid) = self.node.subject().filter(dumpable).map_or((0, 0), |s| {
            let c = s.task.credentials();
            (c.euid, c.egid)
        });
        let time = Timespec::from_ns(kernel.clock().realtime_ns());
        let nlink = match &self.node {
            Node::ProcRoot => {
                2 + directories(PROC) + u32::try_from(kernel.thread_groups().len()).unwrap_or(u32::MAX)
            }
            _ if mode & S_IFMT == S_IFDIR => 2,
            _ => 1,
        };
        let size = if matches!(self.node, Node::Fd(..)) { 64 } else { 0 };
        Ok(Metadata {
            dev: self.instance.device,
            ino: self.node.ino(),
            mode,
            nlink,
            uid,
            gid,
            size,
            blksize: 1024,
            atime: time,
            mtime: time,
            ctime: time,
            ..Metadata::default()
        })
    }

    fn file_type(&self) -> u32 {
        self.node.mode() & S_IFMT
    }

    /// Opening for writing with `O_TRUNC` sets the size, which means nothing here.
    fn set_attr(&self, _: &OpCx<'_>, attr: &SetAttr) -> Result<(), Errno> {
        let only_size = SetAttr { size: attr.size, ..SetAttr::default() };
        if *attr == only_size && attr.size == Some(0) { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn lookup(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        let kernel = self.instance.kernel()?;
        self.instance.inode(self.node.child(cx, &kernel, name)?)
    }

    fn readlink(&self, cx: &OpCx<'_>) -> Result<Vec<u8>, Errno> {
        match &self.node {
            Node::SelfLink => Ok(current(cx, &self.instance.kernel()?)?.tgid().to_string().into_bytes()),
            Node::ThreadSelf => {
                let task = current(cx, &self.instance.kernel()?)?;
                Ok(format!("{}/task/{}", task.tgid(), task.tid()).into_bytes())
            }
            Node::Static(Static::Link(target)) => Ok(target.as_bytes().to_vec()),
            Node::Namespace(_, name, number) => Ok(format!("{name}:[{number}]").into_bytes()),
            _ => match self.magic_link(cx) {
                Some(path) => pid::fd_name(cx, &path?),
                None => Err(Errno::EINVAL),
            },
        }
    }

    fn magic_link(&self, cx: &OpCx<'_>) -> Option<Result<Path, Errno>> {
        match &self.node {
            Node::Fd(s, fd) => Some(pid::check_access(cx, &s.task).and_then(|()| pid::fd_link(&s.task, *fd))),
            Node::Entry(s, entry) => match entry.kind {
                Kind::Link(target) => Some(pid::check_access(cx, &s.task).and_then(|()| target(&s.task))),
                _ => None,
            },
            // A namespace cannot be opened: there is one of each, and nothing to do with it.
            Node::Namespace(..) => Some(Err(Errno::EACCES)),
            _ => None,
        }
    }

    fn open(self: Arc<Self>, cx: &OpCx<'_>, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        if self.file_type() == S_IFDIR {
            return Ok(Arc::new(ProcDirectory(self)));
        }
        if let (Some(subject), true) = (self.node.subject(), content::is_guarded(&self.node)) {
            pid::check_access(cx, &subject.task)?;
        }
        if let (Node::Entry(s, entry), true) = (&self.node, flags & O_ACCMODE != O_RDONLY)
            && matches!(entry.kind, Kind::File(_))
        {
            let _ = s;
            return Err(Errno::EACCES);
        }
        Ok(Arc::new(ContentFile::new(self)))
    }

    fn caching(&self) -> Caching {
        Caching::Never
    }

    fn never_makes_names(&self) -> bool {
        self.instance.which == Which::Proc
    }

    /// The directory of a process that is gone cannot be searched, Linux `proc_pid_permission`.
    fn access(&self, cx: &OpCx<'_>, mask: u32) -> Result<(), Errno> {
        let is_process = matches!(&self.node, Node::Task(subject) if subject.whole);
        if is_process && !self.node.is_live(&*self.instance.kernel()?) {
            return Err(Errno::ESRCH);
        }
        let meta = self.metadata()?;
        vfs::permission::generic(cx.creds, meta.mode, meta.uid, meta.gid, mask)
    }

    fn revalidate(&self, _: &OpCx<'_>) -> bool {
        self.instance.kernel().is_ok_and(|kernel| self.node.is_live(&kernel))
    }
}

/// The namespace that `mounts` waits for.
pub(crate) fn namespace_of(task: &Task) -> Option<Arc<vfs::MountNamespace>> {
    FsContext::of(task).ok().map(|c| c.namespace())
}
