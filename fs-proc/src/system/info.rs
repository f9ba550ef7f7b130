//! Files of `/proc` that tell of the whole system, proc(5).
use std::fmt::Write;

use kernel::Kernel;

use super::topology::layout_line;

/// What uname(2) calls the release; the system calls are those of this version.
pub use self::version::{RELEASE, VERSION};

mod version {
    /// `uname -r`.
    pub const RELEASE: &str = "6.18.0-sentrybox";
    /// `uname -v`.
    pub const VERSION: &str = "#1 SMP Sentrybox";
}

const NS: u64 = 1_000_000_000;
/// Nanoseconds in a tick of `stat`.
const TICK_NS: u64 = 10_000_000;

fn uptime_ns(kernel: &Kernel) -> u64 {
    kernel.clock().realtime_ns().saturating_sub(kernel.boot_time_realtime_ns())
}

/// User and system time that all processes have used.
pub(super) fn used_ns(kernel: &Kernel) -> (u64, u64) {
    let groups = kernel.thread_groups();
    let times = groups.iter().map(|g| g.cpu_times().plus(g.children_usage().cpu));
    times.fold((0, 0), |sum, t| (sum.0 + t.user_ns, sum.1 + t.system_ns))
}

/// `uptime`.
pub(crate) fn uptime(kernel: &Kernel) -> Vec<u8> {
    let up = uptime_ns(kernel);
    let (user, system) = used_ns(kernel);
    let idle = (up * u64::from(kernel.cpus())).saturating_sub(user + system);
    let hundredths = |ns: u64| (ns / NS, ns % NS / TICK_NS);
    let ((s, h), (i, j)) = (hundredths(up), hundredths(idle));
    format!("{s}.{h:02} {i}.{j:02}\n").into_bytes()
}

fn running(kernel: &Kernel) -> usize {
    kernel.tasks().iter().filter(|t| t.is_running()).count()
}

/// `loadavg`. The averages are not kept, hence 0.
pub(crate) fn loadavg(kernel: &Kernel) -> Vec<u8> {
    let (running, all) = (running(kernel), kernel.task_count());
    format!("0.00 0.00 0.00 {running}/{all} {}\n", kernel.last_pid()).into_bytes()
}

/// `stat`.
pub(crate) fn stat(kernel: &Kernel) -> Vec<u8> {
    let cpus = u64::from(kernel.cpus().max(1));
    let (user, system) = used_ns(kernel);
    let idle = (uptime_ns(kernel) * cpus).saturating_sub(user + system);
    let ticks = |ns: u64| ns / TICK_NS;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "cpu  {} 0 {} {} 0 0 0 0 0 0", ticks(user), ticks(system), ticks(idle));
    for cpu in 0..cpus {
        let share = |ns: u64| ticks(ns / cpus);
        let _ = writeln!(out, "cpu{cpu} {} 0 {} {} 0 0 0 0 0 0", share(user), share(system), share(idle));
    }
    let boot = kernel.boot_time_realtime_ns() / NS;
    let _ = writeln!(out, "intr 0\nctxt 0\nbtime {boot}\nprocesses {}", kernel.last_pid());
    let _ =
        writeln!(out, "procs_running {}\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0", running(kernel));
    out.into_bytes()
}

/// `meminfo`.
pub(crate) fn meminfo(kernel: &Kernel) -> Vec<u8> {
    let (total, used) = kernel.memory();
    let free = total.saturating_sub(used);
    let lines = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("Active(anon)", used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("CommitLimit", total),
        ("Committed_AS", used),
        ("VmallocTotal", 34_359_738_367 * 1024),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("HugePages_Total", 0),
        ("HugePages_Free", 0),
        ("HugePages_Rsvd", 0),
        ("HugePages_Surp", 0),
        ("Hugepagesize", 2 << 20),
    ];
    let mut out = String::new();
    for (name, bytes) in lines {
        let unit = if name.starts_with("HugePages_") { "" } else { " kB" };
        let _ = writeln!(out, "{:<15} {:8}{unit}", format!("{name}:"), bytes / 1024);
    }
    out.into_bytes()
}

/// `meminfo` of the only node there is.
pub(crate) fn node_meminfo(kernel: &Kernel) -> Vec<u8> {
    let (total, used) = kernel.memory();
    let (total, used) = (total / 1024, used / 1024);
    let lines = [("MemTotal", total), ("MemFree", total.saturating_sub(used)), ("MemUsed", used)];
    let mut out = String::new();
    for (name, kb) in lines {
        let _ = writeln!(out, "Node 0 {:<15} {kb:8} kB", format!("{name}:"));
    }
    out.into_bytes()
}

/// `vmstat`: what programs look for first.
pub(crate) fn vmstat(kernel: &Kernel) -> Vec<u8> {
    let file = kernel.memory_file();
    let (total, used) = (file.total() / 4096, file.usage_bytes() / 4096);
    let free = total.saturating_sub(used);
    format!("nr_free_pages {free}\nnr_anon_pages {used}\npgpgin 0\npgpgout 0\npswpin 0\npswpout 0\n")
        .into_bytes()
}

/// `version`.
pub(crate) fn version() -> Vec<u8> {
    format!("Linux version {RELEASE} (sentrybox) (rustc) {VERSION}\n").into_bytes()
}

/// `filesystems`.
pub(crate) fn filesystems() -> Vec<u8> {
    let names = ["tmpfs", "proc", "sysfs", "devtmpfs", "devpts", "overlay", "mqueue"];
    names.iter().flat_map(|n| format!("nodev\t{n}\n").into_bytes()).collect()
}

/// `devices`: the character devices there are.
pub(crate) fn devices() -> Vec<u8> {
    b"Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n"
        .to_vec()
}

/// `cgroups`: none.
pub(crate) fn cgroups() -> Vec<u8> {
    b"#subsys_name\thierarchy\tnum_cgroups\tenabled\n".to_vec()
}

/// The tabs between the name and the colon.
fn line_tabs(line: &str) -> &str {
    let name = line.find('\t').unwrap_or(line.len());
    let colon = line.find(':').unwrap_or(line.len());
    line.get(name..colon).unwrap_or_default()
}

/// `cpuinfo`: as many processors as the sandbox has, each described by `block`, the host's lines on one.
pub(crate) fn cpuinfo(kernel: &Kernel, block: &str) -> Vec<u8> {
    let mut out = String::new();
    for cpu in 0..kernel.cpus().max(1) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "processor\t: {cpu}");
        for line in block.lines() {
            let name = line.split('\t').next().unwrap_or_default().trim_end_matches([' ', ':']);
            let _ = match layout_line(kernel, cpu, name) {
                Some(own) => writeln!(out, "{name}{}: {own}", line_tabs(line)),
                None => writeln!(out, "{line}"),
            };
        }
        out.push('\n');
    }
    out.into_bytes()
}
