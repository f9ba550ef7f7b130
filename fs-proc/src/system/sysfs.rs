//! `/sys`: what programs ask for about processors and memory.
use kernel::Kernel;

use super::{Static, info, topology};

fn cpus(kernel: &Kernel) -> Vec<u8> {
    topology::all_list(kernel).into_bytes()
}

/// The top of `/sys`.
pub(crate) static SYSFS: &[(&str, Static)] = &[
    ("block", Static::Dir(&[])),
    ("bus", Static::Dir(&[])),
    ("class", Static::Dir(CLASS)),
    ("dev", Static::Dir(DEV)),
    ("devices", Static::Dir(DEVICES)),
    ("firmware", Static::Dir(&[])),
    ("fs", Static::Dir(FS)),
    ("kernel", Static::Dir(KERNEL)),
    ("module", Static::Dir(&[])),
    ("power", Static::Dir(&[])),
];

static CLASS: &[(&str, Static)] = &[("net", Static::Dir(&[])), ("power_supply", Static::Dir(&[]))];
static DEV: &[(&str, Static)] = &[("block", Static::Dir(&[])), ("char", Static::Dir(&[]))];
static FS: &[(&str, Static)] = &[("cgroup", Static::Dir(&[]))];

static DEVICES: &[(&str, Static)] = &[("system", Static::Dir(SYSTEM)), ("virtual", Static::Dir(&[]))];
static SYSTEM: &[(&str, Static)] = &[("cpu", Static::Cpus(CPU)), ("node", Static::Dir(NODE))];

static CPU: &[(&str, Static)] = &[
    ("isolated", Static::Text("\n")),
    ("kernel_max", Static::Text("8191\n")),
    ("offline", Static::Text("\n")),
    ("online", Static::File(cpus)),
    ("possible", Static::File(cpus)),
    ("present", Static::File(cpus)),
];

static NODE: &[(&str, Static)] = &[
    ("has_cpu", Static::Text("0\n")),
    ("has_memory", Static::Text("0\n")),
    ("has_normal_memory", Static::Text("0\n")),
    ("node0", Static::Dir(NODE0)),
    ("online", Static::Text("0\n")),
    ("possible", Static::Text("0\n")),
];
static NODE0: &[(&str, Static)] = &[
    ("cpulist", Static::File(cpus)),
    ("cpumap", Static::File(|k| topology::all_mask(k).into_bytes())),
    ("distance", Static::Text("10\n")),
    ("meminfo", Static::File(info::node_meminfo)),
];

static KERNEL: &[(&str, Static)] = &[("mm", Static::Dir(MM))];
static MM: &[(&str, Static)] =
    &[("hugepages", Static::Dir(&[])), ("transparent_hugepage", Static::Dir(TRANSPARENT))];
static TRANSPARENT: &[(&str, Static)] =
    &[("enabled", Static::Text("always madvise [never]\n")), ("hpage_pmd_size", Static::Text("2097152\n"))];
