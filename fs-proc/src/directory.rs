//! Open directories of proc and sysfs.
use std::sync::Arc;

use abi::Errno;
use abi::stat::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use kernel::Kernel;
use vfs::{DirEntry, DirSink, FileOps, OpCx};

use crate::inode::ProcInode;
use crate::node::{NET, Node, Subject, Table};
use crate::pid::{self, NAMESPACES};
use crate::system::{CPU_N, PROC, SYSFS, Static};

/// Positions of processes and descriptors: their number above this, so that those that come and go move no other.
const NUMBERS: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct ProcDirectory(pub Arc<ProcInode>);

struct Listed {
    position: u64,
    ino: u64,
    file_type: u32,
    name: Vec<u8>,
}

fn table_type(line: &Static) -> u32 {
    match line {
        Static::File(_) | Static::Writable(..) | Static::Text(_) | Static::CpuInfo => S_IFREG,
        Static::Dir(_) | Static::Cpus(_) => S_IFDIR,
        Static::Link(_) => S_IFLNK,
    }
}

/// Collects entries in the order of their positions, `.` and `..` first.
struct Listing(Vec<Listed>);

impl Listing {
    fn named(&mut self, name: &str, ino: u64, file_type: u32) {
        let position = self.0.len() as u64;
        self.0.push(Listed { position, ino, file_type, name: name.as_bytes().to_vec() });
    }
    fn table(&mut self, table: Table) {
        for (name, line) in table {
            let ino = match line {
                Static::Dir(t) => Node::Table(t).ino(),
                Static::Cpus(t) => Node::Cpus(t).ino(),
                _ => Node::Static(line).ino(),
            };
            self.named(name, ino, table_type(line));
        }
    }
    fn numbered(&mut self, number: i32, node: &Node, file_type: u32) {
        let position = NUMBERS + u64::from(number.cast_unsigned());
        let name = number.to_string().into_bytes();
        self.0.push(Listed { position, ino: node.ino(), file_type, name });
    }
}

fn list(node: &Node, cx: &OpCx<'_>, kernel: &Kernel) -> Result<Vec<Listed>, Errno> {
    let mut out = Listing(Vec::new());
    out.named(".", node.ino(), S_IFDIR);
    out.named("..", 1, S_IFDIR);
    match node {
        Node::ProcRoot => {
            out.table(PROC);
            out.named("self", Node::SelfLink.ino(), S_IFLNK);
            out.named("thread-self", Node::ThreadSelf.ino(), S_IFLNK);
            for group in kernel.thread_groups() {
                let Some(task) = group.leader() else { continue };
                let node = Node::Task(Subject { task, whole: true });
                out.numbered(group.tgid(), &node, S_IFDIR);
            }
        }
        Node::SysRoot => out.table(SYSFS),
        Node::Table(table) => out.table(table),
        Node::Cpus(table) => {
            out.table(table);
            for n in 0..kernel.cpus() {
                out.named(&format!("cpu{n}"), Node::CpuDir(n, CPU_N).ino(), S_IFDIR);
            }
        }
        Node::CpuDir(n, table) => {
            for (name, line) in *table {
                let node = Node::of_cpu(*n, line);
                out.named(name, node.ino(), node.mode() & S_IFMT);
            }
        }
        Node::Task(subject) => {
            for entry in pid::ENTRIES {
                let node = Node::Entry(subject.clone(), entry);
                if entry.name != "task" || subject.whole {
                    out.named(entry.name, node.ino(), node.mode() & S_IFMT);
                }
            }
            out.named("net", Node::Net(subject.clone()).ino(), S_IFDIR);
        }
        Node::Threads(subject) => {
            let mut threads = subject.task.group().threads();
            threads.sort_by_key(|t| t.tid());
            for task in threads {
                let tid = task.tid();
                out.numbered(tid, &Node::Task(Subject { task, whole: false }), S_IFDIR);
            }
        }
        Node::Fds(subject) | Node::FdInfos(subject) => {
            pid::check_access(cx, &subject.task)?;
            let links = matches!(node, Node::Fds(_));
            for fd in pid::fds(&subject.task) {
                let (node, file_type) = if links {
                    (Node::Fd(subject.clone(), fd), S_IFLNK)
                } else {
                    (Node::FdInfo(subject.clone(), fd), S_IFREG)
                };
                out.numbered(fd, &node, file_type);
            }
        }
        Node::Namespaces(_) => NAMESPACES.iter().for_each(|(name, number)| out.named(name, *number, S_IFLNK)),
        Node::Net(subject) => {
            for (name, _) in &NET {
                out.named(name, Node::NetFile(subject.clone(), name).ino(), S_IFREG);
            }
        }
        _ => {}
    }
    Ok(out.0)
}

impl FileOps for ProcDirectory {
    fn readdir(&self, cx: &OpCx<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let kernel = self.0.instance.kernel()?;
        let mut at = position;
        for entry in list(&self.0.node, cx, &kernel)?.iter().filter(|e| e.position >= position) {
            let next = entry.position + 1;
            let told = DirEntry { ino: entry.ino, next, file_type: entry.file_type, name: &entry.name };
            if !sink.add(&told) {
                break;
            }
            at = next;
        }
        Ok(at)
    }
}
