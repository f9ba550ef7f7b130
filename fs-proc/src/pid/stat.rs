//! `/proc/PID/{stat,statm,status,schedstat}`, proc(5).
use std::fmt::Write;
use std::sync::Arc;

use abi::{SigSet, Signal};
use kernel::signal;
use kernel::{CapSet, RLIMIT_RSS, RLIMIT_SIGPENDING, Task, ThreadGroup};
use memmap::MmStatus;

const PAGE: u64 = 4096;
/// The ticks of the times in `stat`.
const TICK_NS: u64 = 10_000_000;

/// A task's letter in `stat`.
fn state(task: &Task, group: &ThreadGroup) -> (char, &'static str) {
    if task.mm().is_none() {
        ('Z', "Z (zombie)")
    } else if task.is_trace_stopped() {
        ('t', "t (tracing stop)")
    } else if group.is_stopped() {
        ('T', "T (stopped)")
    } else if task.is_running() {
        ('R', "R (running)")
    } else {
        ('S', "S (sleeping)")
    }
}

/// The name up to its first zero byte, with what would break the line replaced.
pub(crate) fn comm(task: &Task) -> String {
    let name = task.name();
    let name: Vec<u8> = name.iter().copied().take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&name).into_owned()
}

fn memory(task: &Task) -> MmStatus {
    task.mm().map(|mm| mm.status()).unwrap_or_default()
}

/// `stat`: of the whole process, or of one thread.
pub(super) fn stat(task: &Arc<Task>, whole: bool) -> Vec<u8> {
    let group = task.group();
    let layout = task.mm().map(|mm| mm.layout()).unwrap_or_default();
    let memory = memory(task);
    let usage = group.usage();
    let children = group.children_usage();
    let cpu = if whole { usage.cpu } else { task.cpu_times() };
    let (utime, stime) = cpu.ticks();
    let (cutime, cstime) = children.cpu.ticks();
    let scheduling = task.scheduling();
    let (tty, foreground) = group
        .session()
        .and_then(|s| s.tty())
        .map_or((0, -1), |tty| (tty.device(), tty.foreground().unwrap_or(-1)));
    let (ignored, caught) = group.signals().actions().ignored_and_caught();
    let mut out = String::with_capacity(320);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{} ({}) {} {} {} {} {tty} {foreground} 0 {} {} {} {} {utime} {stime} {cutime} {cstime} {} {} {} 0 {} {} {} {} ",
        task.tid(),
        comm(task),
        state(task, group).0,
        group.parent_id(),
        group.process_group_id(),
        group.session_id(),
        usage.minor_faults,
        children.minor_faults,
        usage.major_faults,
        children.major_faults,
        20 + scheduling.nice,
        scheduling.nice,
        group.thread_count(),
        task.start_ns() / TICK_NS,
        memory.size,
        memory.rss() / PAGE,
        group.limits().get(RLIMIT_RSS).0,
    );
    let _ = writeln!(
        out,
        "{} {} {} 0 0 {} {} {} {} 0 0 0 17 0 {} {} 0 0 0 {} {} {} {} {} {} {} {}",
        layout.start_code,
        layout.end_code,
        layout.start_stack,
        legacy_set(signal::pending(task)),
        legacy_set(task.signals().mask()),
        legacy_set(ignored),
        legacy_set(caught),
        scheduling.priority,
        scheduling.policy,
        layout.start_data,
        layout.end_data,
        layout.start_brk,
        layout.arg_start,
        layout.arg_end,
        layout.env_start,
        layout.env_end,
        group.exit_status().map_or(0, |s| s.raw()),
    );
    out.into_bytes()
}

/// `stat` shows the first 31 signals only.
fn legacy_set(set: SigSet) -> u64 {
    set.0 & 0x7fff_ffff
}

/// `statm`.
pub(super) fn statm(task: &Task) -> Vec<u8> {
    let m = memory(task);
    let shared = m.rss_file + m.rss_shmem;
    let text = m.exe.div_ceil(PAGE);
    let data = (m.data + m.stack) / PAGE;
    format!("{} {} {} {text} 0 {data} 0\n", m.size / PAGE, m.rss() / PAGE, shared / PAGE).into_bytes()
}

/// `status`.
pub(super) fn status(task: &Arc<Task>) -> Vec<u8> {
    let group = task.group();
    let credentials = task.credentials();
    let mut out = String::with_capacity(1500);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name}:\t{value}");
    };
    line("Name", &comm(task));
    line("Umask", &format!("{:04o}", super::umask(task)));
    line("State", state(task, group).1);
    line("Tgid", &group.tgid().to_string());
    line("Ngid", "0");
    line("Pid", &task.tid().to_string());
    line("PPid", &group.parent_id().to_string());
    line("TracerPid", &task.tracer().map_or(0, |t| t.tid()).to_string());
    let c = &credentials;
    line("Uid", &format!("{}\t{}\t{}\t{}", c.uid, c.euid, c.suid, c.fsuid));
    line("Gid", &format!("{}\t{}\t{}\t{}", c.gid, c.egid, c.sgid, c.fsgid));
    line("FDSize", &task.fd_table().map_or(0, |t| t.capacity()).to_string());
    line("Groups", &c.groups.iter().map(|g| format!("{g} ")).collect::<String>());
    line("NStgid", &group.tgid().to_string());
    line("NSpid", &task.tid().to_string());
    line("NSpgid", &group.process_group_id().to_string());
    line("NSsid", &group.session_id().to_string());
    line("Kthread", "0");
    if task.mm().is_some() {
        memory_lines(&memory(task), &mut line);
    }
    line("CoreDumping", "0");
    line("Threads", &group.thread_count().to_string());
    let limit = group.limits().get(RLIMIT_SIGPENDING).0;
    line("SigQ", &format!("{}/{limit}", group.signals().queued()));
    let (ignored, caught) = group.signals().actions().ignored_and_caught();
    line("SigPnd", &set(task.signals().pending()));
    line("ShdPnd", &set(group.signals().pending()));
    line("SigBlk", &set(task.signals().mask()));
    line("SigIgn", &set(ignored));
    line("SigCgt", &set(caught));
    let capabilities = [
        ("CapInh", c.cap_inheritable),
        ("CapPrm", c.cap_permitted),
        ("CapEff", c.cap_effective),
        ("CapBnd", c.cap_bounding),
        ("CapAmb", c.cap_ambient),
    ];
    for (name, CapSet(bits)) in capabilities {
        line(name, &format!("{bits:016x}"));
    }
    line("NoNewPrivs", if c.no_new_privs { "1" } else { "0" });
    let seccomp = task.seccomp();
    line("Seccomp", &seccomp.mode().to_string());
    line("Seccomp_filters", &seccomp.filters().to_string());
    line("Speculation_Store_Bypass", "unknown");
    line("SpeculationIndirectBranch", "unknown");
    let cpus = task.kernel().cpus();
    line("Cpus_allowed", &format!("{:x}", (1_u128 << cpus.min(64)) - 1));
    line("Cpus_allowed_list", &super::cpu_list(cpus));
    line("Mems_allowed", "1");
    line("Mems_allowed_list", "0");
    let usage = group.usage();
    line("voluntary_ctxt_switches", &usage.voluntary_switches.to_string());
    line("nonvoluntary_ctxt_switches", &usage.involuntary_switches.to_string());
    out.into_bytes()
}

fn set(SigSet(bits): SigSet) -> String {
    format!("{bits:016x}")
}

fn memory_lines(m: &MmStatus, line: &mut impl FnMut(&str, &str)) {
    let sizes = [
        ("VmPeak", m.peak),
        ("VmSize", m.size),
        ("VmLck", m.locked),
        ("VmPin", 0),
        ("VmHWM", m.peak_rss),
        ("VmRSS", m.rss()),
        ("RssAnon", m.rss_anon),
        ("RssFile", m.rss_file),
        ("RssShmem", m.rss_shmem),
        ("VmData", m.data),
        ("VmStk", m.stack),
        ("VmExe", m.exe),
        ("VmLib", m.lib),
        ("VmPTE", 0),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ];
    for (name, bytes) in sizes {
        line(name, &format!("{:8} kB", bytes / 1024));
    }
}

/// `schedstat`: time on a processor, time waiting for one (not known), times it got one.
pub(super) fn schedstat(task: &Task) -> Vec<u8> {
    let usage = task.group().usage();
    let switches = usage.voluntary_switches + usage.involuntary_switches;
    format!("{} 0 {switches}\n", task.cpu_times().total_ns()).into_bytes()
}

/// The signal of `SIGCHLD` is what `stat` calls the exit signal.
const _: () = assert!(Signal::SIGCHLD.number() == 17);
