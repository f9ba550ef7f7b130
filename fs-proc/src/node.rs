//! What an inode stands for.
use std::sync::Arc;

use abi::stat::{S_IFDIR, S_IFLNK, S_IFREG};
use kernel::Task;

use crate::pid::{self, Entry, Kind};
use crate::system::{CpuTable, PerCpu, Static};

/// A directory of a table.
pub(crate) type Table = &'static [(&'static str, Static)];

/// A task, and whether it stands for its whole process.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub task: Arc<Task>,
    pub whole: bool,
}

/// What an inode stands for.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// `/proc`.
    ProcRoot,
    /// `/sys`.
    SysRoot,
    /// A directory of a table.
    Table(Table),
    /// A directory with one directory for each processor, and what else is there.
    Cpus(Table),
    /// A directory of one processor.
    CpuDir(u32, CpuTable),
    /// A file of one processor.
    CpuFile(u32, &'static PerCpu),
    /// A file or link of a table.
    Static(&'static Static),
    /// `self`.
    SelfLink,
    /// `thread-self`.
    ThreadSelf,
    /// `/proc/PID` or `/proc/PID/task/TID`.
    Task(Subject),
    /// A file or link of a task.
    Entry(Subject, &'static Entry),
    /// `task`.
    Threads(Subject),
    /// `fd`.
    Fds(Subject),
    /// `fd/N`.
    Fd(Subject, i32),
    /// `fdinfo`.
    FdInfos(Subject),
    /// `fdinfo/N`.
    FdInfo(Subject, i32),
    /// `ns`.
    Namespaces(Subject),
    /// `ns/NAME`.
    Namespace(Subject, &'static str, u64),
    /// `net`: the tables of sockets that other families than unix have.
    Net(Subject),
    /// A file in `net`.
    NetFile(Subject, &'static str),
}

/// The files of `/proc/PID/net`, with their first lines. There is no network yet.
pub(crate) static NET: [(&str, &str); 9] = [
    ("arp", "IP address       HW type     Flags       HW address            Mask     Device\n"),
    (
        "dev",
        "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    ),
    ("if_inet6", ""),
    ("packet", "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n"),
    ("route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"),
    (
        "tcp",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
    ),
    (
        "tcp6",
        "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
    ),
    (
        "udp",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n",
    ),
    ("unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"),
];

impl Node {
    /// Type and permissions.
    pub(crate) fn mode(&self) -> u32 {
        match self {
            Self::ProcRoot | Self::SysRoot | Self::Table(_) | Self::Cpus(_) | Self::CpuDir(..) => {
                S_IFDIR | 0o555
            }
            Self::Task(_) | Self::Threads(_) | Self::FdInfos(_) | Self::Net(_) => S_IFDIR | 0o555,
            Self::Static(line) => match line {
                Static::File(_) | Static::Text(_) | Static::CpuInfo => S_IFREG | 0o444,
                Static::Writable(..) => S_IFREG | 0o644,
                Static::Dir(_) | Static::Cpus(_) => S_IFDIR | 0o555,
                Static::Link(_) => S_IFLNK | 0o777,
            },
            Self::SelfLink | Self::ThreadSelf | Self::Namespace(..) => S_IFLNK | 0o777,
            Self::Entry(_, entry) => match entry.kind {
                Kind::Link(_) => S_IFLNK | entry.mode,
                Kind::File(_) | Kind::Writable(..) | Kind::Memory => S_IFREG | entry.mode,
                Kind::Fds | Kind::FdInfos | Kind::Threads | Kind::Namespaces => S_IFDIR | entry.mode,
            },
            Self::Fds(_) => S_IFDIR | 0o500,
            Self::Namespaces(_) => S_IFDIR | 0o511,
            Self::Fd(subject, fd) => S_IFLNK | pid::fd_mode(&subject.task, *fd).unwrap_or(0),
            Self::FdInfo(..) | Self::NetFile(..) | Self::CpuFile(..) => S_IFREG | 0o444,
        }
    }

    /// The task it is about.
    pub(crate) fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Task(s)
            | Self::Entry(s, _)
            | Self::Threads(s)
            | Self::Fds(s)
            | Self::Fd(s, _)
            | Self::FdInfos(s)
            | Self::FdInfo(s, _)
            | Self::Namespaces(s)
            | Self::Namespace(s, ..)
            | Self::Net(s)
            | Self::NetFile(s, _) => Some(s),
            Self::ProcRoot
            | Self::SysRoot
            | Self::Table(_)
            | Self::Cpus(_)
            | Self::CpuDir(..)
            | Self::CpuFile(..)
            | Self::Static(_)
            | Self::SelfLink
            | Self::ThreadSelf => None,
        }
    }

    /// A number that tells it from others in its file system while it exists.
    pub(crate) fn ino(&self) -> u64 {
        let task =
            |s: &Subject| 1 << 48 | u64::from(s.task.tid().cast_unsigned()) << 20 | u64::from(s.whole) << 19;
        let at = |p: usize| (p as u64) & 0xffff_ffff_ffff;
        let of_cpu = |n: u32, p: usize| 1 << 51 | (at(p) & 0xffff_ffff) << 16 | u64::from(n);
        match self {
            Self::ProcRoot | Self::SysRoot => 1,
            Self::SelfLink => 2,
            Self::ThreadSelf => 3,
            Self::Table(t) | Self::Cpus(t) => 1 << 50 | at(t.as_ptr().addr()),
            Self::CpuDir(n, table) => of_cpu(*n, table.as_ptr().addr()),
            Self::CpuFile(n, file) => of_cpu(*n, std::ptr::from_ref::<PerCpu>(file).addr()),
            Self::Static(line) => 1 << 52 | at(std::ptr::from_ref::<Static>(line).addr()),
            Self::Task(s) => task(s),
            Self::Entry(s, entry) => {
                let index = pid::ENTRIES.iter().position(|e| std::ptr::eq(e, *entry)).unwrap_or(0);
                task(s) + 16 + index as u64
            }
            Self::Threads(s) => task(s) + 1,
            Self::Fds(s) => task(s) + 2,
            Self::FdInfos(s) => task(s) + 3,
            Self::Namespaces(s) => task(s) + 4,
            Self::Net(s) => task(s) + 5,
            Self::NetFile(s, name) => {
                task(s) + 6 + NET.iter().position(|(n, _)| n == name).unwrap_or(0) as u64
            }
            Self::Fd(s, fd) => 1 << 49 | (task(s) ^ 1 << 48) | (u64::from(fd.cast_unsigned()) + 256),
            Self::FdInfo(s, fd) => 3 << 52 | task(s) | (u64::from(fd.cast_unsigned()) + 256),
            Self::Namespace(_, _, number) => *number,
        }
    }
}
