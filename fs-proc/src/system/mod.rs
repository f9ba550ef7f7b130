//! What is in `/proc` beside processes, and `/sys`: tables of names.

mod cgroup;
pub(crate) mod info;
mod sys;
mod sysfs;
mod topology;

use abi::Errno;
use kernel::Kernel;
use vfs::OpCx;

pub(crate) use cgroup::CGROUP;
pub(crate) use info::cpuinfo;
pub use info::{RELEASE, VERSION};
pub(crate) use sysfs::SYSFS;
pub(crate) use topology::{CPU_N, CpuTable, PerCpu};

/// What a name stands for.
#[derive(Debug)]
pub(crate) enum Static {
    /// A file whose contents are made when it is read.
    File(fn(&Kernel) -> Vec<u8>),
    /// The same, and what is written to it.
    Writable(fn(&Kernel) -> Vec<u8>, fn(&OpCx<'_>, &Kernel, &[u8]) -> Result<(), Errno>),
    /// `cpuinfo`.
    CpuInfo,
    /// A file whose contents depend on nothing.
    Text(&'static str),
    /// A directory.
    Dir(&'static [(&'static str, Static)]),
    /// A symbolic link.
    Link(&'static str),
    /// A directory `cpuN` for each processor, and what else is there.
    Cpus(&'static [(&'static str, Static)]),
}

/// The top of `/proc`.
pub(crate) static PROC: &[(&str, Static)] = &[
    ("cgroups", Static::File(|_| info::cgroups())),
    ("cmdline", Static::Text("\n")),
    ("consoles", Static::Text("")),
    ("cpuinfo", Static::CpuInfo),
    ("devices", Static::File(|_| info::devices())),
    ("diskstats", Static::Text("")),
    ("filesystems", Static::File(|_| info::filesystems())),
    ("interrupts", Static::Text("")),
    ("loadavg", Static::File(info::loadavg)),
    ("locks", Static::Text("")),
    ("meminfo", Static::File(info::meminfo)),
    ("misc", Static::Text("")),
    ("modules", Static::Text("")),
    ("mounts", Static::Link("self/mounts")),
    ("net", Static::Link("self/net")),
    ("partitions", Static::Text("major minor  #blocks  name\n\n")),
    ("stat", Static::File(info::stat)),
    ("swaps", Static::Text("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
    ("sys", Static::Dir(sys::SYS)),
    ("sysvipc", Static::Dir(sys::SYSVIPC)),
    ("uptime", Static::File(info::uptime)),
    ("version", Static::File(|_| info::version())),
    ("vmstat", Static::File(info::vmstat)),
    ("zoneinfo", Static::Text("")),
];
