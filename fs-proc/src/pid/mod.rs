//! `/proc/PID`: a table of what is in it.

mod fds;
mod memory;
mod mounts;
mod stat;

use std::sync::Arc;

use abi::Errno;
use kernel::{Cap, Task};
use memmap::MemoryManager;
use vfs::{FileDescription, FsContext, OpCx, Path};

pub(crate) use fds::{fd_link, fd_mode, fd_name, fdinfo, fds};
pub use memory::cmdline;
pub(crate) use stat::comm;

/// What a name in `/proc/PID` stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A file whose contents are made when it is read. The flag tells the whole process from one thread.
    File(fn(&Arc<Task>, bool) -> Result<Vec<u8>, Errno>),
    /// The same, and what is written to it.
    Writable(
        fn(&Arc<Task>, bool) -> Result<Vec<u8>, Errno>,
        fn(&OpCx<'_>, &Arc<Task>, &[u8]) -> Result<(), Errno>,
    ),
    /// A link to a place.
    Link(fn(&Arc<Task>) -> Result<Path, Errno>),
    /// `mem`.
    Memory,
    /// `fd`.
    Fds,
    /// `fdinfo`.
    FdInfos,
    /// `task`, of processes only.
    Threads,
    /// `ns`.
    Namespaces,
}

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Entry {
    pub name: &'static str,
    pub mode: u32,
    pub kind: Kind,
}

const fn entry(name: &'static str, mode: u32, kind: Kind) -> Entry {
    Entry { name, mode, kind }
}

/// Everything in `/proc/PID`.
pub(crate) static ENTRIES: &[Entry] = &[
    entry("auxv", 0o400, Kind::File(|t, _| Ok(mm(t).map(|mm| memory::auxv(&mm)).unwrap_or_default()))),
    entry("cgroup", 0o444, Kind::File(|_, _| Ok(b"0::/\n".to_vec()))),
    entry("cmdline", 0o444, Kind::File(|t, _| Ok(mm(t).map(|mm| cmdline(&mm)).unwrap_or_default()))),
    entry("comm", 0o644, Kind::Writable(|t, _| Ok(format!("{}\n", comm(t)).into_bytes()), set_comm)),
    entry("coredump_filter", 0o644, Kind::Writable(coredump_filter, set_coredump_filter)),
    entry("cwd", 0o777, Kind::Link(|t| Ok(FsContext::of(t)?.cwd()))),
    entry("environ", 0o400, Kind::File(|t, _| Ok(mm(t).map(|mm| memory::environ(&mm)).unwrap_or_default()))),
    entry("exe", 0o777, Kind::Link(exe)),
    entry("fd", 0o500, Kind::Fds),
    entry("fdinfo", 0o555, Kind::FdInfos),
    entry("gid_map", 0o644, Kind::File(|t, _| Ok(t.kernel().id_maps().groups.lines().into_bytes()))),
    entry("io", 0o400, Kind::File(|t, _| Ok(memory::io(t)))),
    entry("limits", 0o444, Kind::File(|t, _| Ok(memory::limits(t.group())))),
    entry("loginuid", 0o644, Kind::File(|_, _| Ok(u32::MAX.to_string().into_bytes()))),
    entry("maps", 0o444, Kind::File(|t, _| Ok(mm(t).map(|mm| memory::maps(t, &mm)).unwrap_or_default()))),
    entry("mem", 0o600, Kind::Memory),
    entry("mountinfo", 0o444, Kind::File(|t, _| mounts::mountinfo(t))),
    entry("mounts", 0o444, Kind::File(|t, _| mounts::mounts(t))),
    entry("mountstats", 0o400, Kind::File(|t, _| mounts::mountstats(t))),
    entry("ns", 0o511, Kind::Namespaces),
    entry(
        "oom_adj",
        0o644,
        Kind::File(|t, _| Ok(format!("{}\n", t.group().oom_score_adj() * 15 / 1000).into())),
    ),
    entry("oom_score", 0o444, Kind::File(|t, _| Ok(format!("{}\n", oom_score(t)).into()))),
    entry("oom_score_adj", 0o644, Kind::Writable(oom_score_adj, set_oom_score_adj)),
    entry("personality", 0o400, Kind::File(|t, _| Ok(format!("{:08x}\n", t.group().personality()).into()))),
    entry("root", 0o777, Kind::Link(|t| Ok(FsContext::of(t)?.root()))),
    entry("schedstat", 0o444, Kind::File(|t, _| Ok(stat::schedstat(t)))),
    entry("sessionid", 0o444, Kind::File(|_, _| Ok(u32::MAX.to_string().into_bytes()))),
    entry("setgroups", 0o644, Kind::File(|_, _| Ok(b"allow\n".to_vec()))),
    entry("smaps", 0o444, Kind::File(|t, _| Ok(mm(t).map(|mm| memory::smaps(&mm)).unwrap_or_default()))),
    entry("smaps_rollup", 0o444, Kind::File(|t, _| Ok(memory::smaps_rollup(&*mm(t).ok_or(Errno::ESRCH)?)))),
    entry("stat", 0o444, Kind::File(|t, whole| Ok(stat::stat(t, whole)))),
    entry("statm", 0o444, Kind::File(|t, _| Ok(stat::statm(t)))),
    entry("status", 0o444, Kind::File(|t, _| Ok(stat::status(t)))),
    entry("task", 0o555, Kind::Threads),
    entry(
        "timerslack_ns",
        0o666,
        Kind::File(|t, _| Ok(format!("{}\n", t.scheduling().timer_slack_ns).into())),
    ),
    entry("uid_map", 0o644, Kind::File(|t, _| Ok(t.kernel().id_maps().users.lines().into_bytes()))),
    entry("wchan", 0o444, Kind::File(|_, _| Ok(b"0".to_vec()))),
];

/// The namespaces of `/proc/PID/ns`; there is one of each, with the numbers Linux gives to the initial ones.
pub(crate) const NAMESPACES: [(&str, u64); 7] = [
    ("cgroup", 0xefff_fffb),
    ("ipc", 0xefff_ffff),
    ("mnt", 0xeffffff8),
    ("net", 0xefff_fff9),
    ("pid", 0xefff_fffc),
    ("user", 0xefff_fffd),
    ("uts", 0xefff_fffe),
];

fn mm(task: &Task) -> Option<Arc<MemoryManager>> {
    task.mm()
}

/// The umask, 0 for a task that has exited.
fn umask(task: &Task) -> u32 {
    FsContext::of(task).map_or(0, |c| c.umask())
}

/// `0-N`.
fn cpu_list(cpus: u32) -> String {
    if cpus <= 1 { "0".to_owned() } else { format!("0-{}", cpus - 1) }
}

fn exe(task: &Arc<Task>) -> Result<Path, Errno> {
    let image = task.group().exe().ok_or(Errno::ENOENT)?;
    FileDescription::from_file(&image.file).map(|f| f.path().clone()).ok_or(Errno::ENOENT)
}

fn set_comm(cx: &OpCx<'_>, task: &Arc<Task>, bytes: &[u8]) -> Result<(), Errno> {
    if cx.task.is_none_or(|t| t.tgid() != task.tgid()) {
        return Err(Errno::EINVAL);
    }
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    task.set_name(bytes.get(..end).unwrap_or(bytes));
    Ok(())
}

fn oom_score(task: &Task) -> u64 {
    let used = mm(task).map_or(0, |mm| mm.status().rss());
    let total = task.kernel().memory_file().total().max(1);
    used.saturating_mul(1000) / total
}

fn coredump_filter(task: &Arc<Task>, _: bool) -> Result<Vec<u8>, Errno> {
    if task.mm().is_none() {
        return Ok(Vec::new());
    }
    Ok(format!("{:08x}\n", task.group().coredump_filter()).into_bytes())
}

/// As Linux `kstrtouint_from_user` reads it: `0x`, `0` and decimal.
fn set_coredump_filter(_: &OpCx<'_>, task: &Arc<Task>, bytes: &[u8]) -> Result<(), Errno> {
    let text = std::str::from_utf8(bytes).or(Err(Errno::EINVAL))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    let value = u32::from_str_radix(digits, radix).or(Err(Errno::EINVAL))?;
    if task.mm().is_none() {
        return Err(Errno::ESRCH);
    }
    task.group().set_coredump_filter(value);
    Ok(())
}

fn oom_score_adj(task: &Arc<Task>, _: bool) -> Result<Vec<u8>, Errno> {
    Ok(format!("{}\n", task.group().oom_score_adj()).into_bytes())
}

fn set_oom_score_adj(cx: &OpCx<'_>, task: &Arc<Task>, bytes: &[u8]) -> Result<(), Errno> {
    let text = std::str::from_utf8(bytes).or(Err(Errno::EINVAL))?;
    let value: i32 = text.trim().parse().or(Err(Errno::EINVAL))?;
    if !(-1000..=1000).contains(&value) {
        return Err(Errno::EINVAL);
    }
    if value < task.group().oom_score_adj() && !cx.creds.has_cap(Cap::SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    task.group().set_oom_score_adj(value);
    Ok(())
}

/// Linux `ptrace_may_access` with `PTRACE_MODE_READ_FSCREDS`: the same user throughout and dumpable, or `CAP_SYS_PTRACE`.
pub(crate) fn check_access(cx: &OpCx<'_>, task: &Task) -> Result<(), Errno> {
    if cx.task.is_some_and(|t| t.tgid() == task.tgid()) || cx.creds.has_cap(Cap::SYS_PTRACE) {
        return Ok(());
    }
    let same = task.credentials().ids_are_all(cx.creds.fsuid, cx.creds.fsgid);
    let contained = task.credentials().cap_permitted.is_subset(cx.creds.cap_effective);
    if same && contained && task.group().dumpable() == 1 { Ok(()) } else { Err(Errno::EACCES) }
}
