//! What the processes of a sandbox use, as the host counts it, in the form of `runc events`.
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sandbox::control::Usage;
use serde_json::{Map, Value, json};

use super::Groups;

fn text(dir: Option<&Path>, file: &str) -> String {
    dir.and_then(|dir| std::fs::read_to_string(dir.join(file)).ok()).unwrap_or_default()
}

/// A file with one number; `max` is the largest there is.
fn number(dir: Option<&Path>, file: &str) -> u64 {
    let text = text(dir, file);
    if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or(0) }
}

/// A number of a file with lines of a key and a value.
fn field(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Nanoseconds of a clock tick: there are 100 a second on every Linux of x86-64.
const TICK_NS: u64 = 10_000_000;

/// All numbers.
pub(crate) fn stats(groups: &Groups) -> Value {
    let (cpu, memory) = if groups.unified() { v2(groups) } else { v1(groups) };
    json!({
        "cpu": cpu,
        "cpuset": {},
        "memory": memory,
        "pids": {"current": number(groups.with("pids"), "pids.current"), "limit": limit(number(groups.with("pids"), "pids.max"))},
        "blkio": blkio(groups),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// The numbers of a container in the sandbox of another, which the sandbox counts: its control groups on the host hold only what
/// serves it.
pub(crate) fn stats_inside(usage: &Usage) -> Value {
    let total = usage.user_ns.saturating_add(usage.system_ns);
    let limit = usage.memory_limit.unwrap_or(u64::MAX);
    json!({
        "cpu": {
            "usage": {"total": total, "percpu": [], "kernel": usage.system_ns, "user": usage.user_ns},
            "throttling": {},
        },
        "cpuset": {},
        "memory": {
            "cache": 0,
            "usage": {"limit": limit, "usage": usage.memory, "max": 0, "failcnt": 0},
            "swap": {"limit": 0, "usage": 0, "max": 0, "failcnt": 0},
            "raw": {"rss": usage.memory, "total_rss": usage.memory},
        },
        "pids": {"current": usage.tasks, "limit": usage.task_limit.unwrap_or(0)},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// No limit is shown as none.
fn limit(value: u64) -> u64 {
    if value == u64::MAX { 0 } else { value }
}

fn v1(groups: &Groups) -> (Value, Value) {
    let (acct, memory) = (groups.with("cpuacct"), groups.with("memory"));
    let stat = text(acct, "cpuacct.stat");
    let each = text(acct, "cpuacct.usage_percpu");
    let each: Vec<u64> = each.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let throttled = text(groups.with("cpu"), "cpu.stat");
    let cpu = json!({
        "usage": {
            "total": number(acct, "cpuacct.usage"),
            "percpu": each,
            "kernel": field(&stat, "system").saturating_mul(TICK_NS),
            "user": field(&stat, "user").saturating_mul(TICK_NS),
        },
        "throttling": {
            "periods": field(&throttled, "nr_periods"),
            "throttledPeriods": field(&throttled, "nr_throttled"),
            "throttledTime": field(&throttled, "throttled_time"),
        },
    });
    let stat = text(memory, "memory.stat");
    let entry = |name: &str| {
        json!({
            "limit": number(memory, &format!("{name}.limit_in_bytes")),
            "usage": number(memory, &format!("{name}.usage_in_bytes")),
            "max": number(memory, &format!("{name}.max_usage_in_bytes")),
            "failcnt": number(memory, &format!("{name}.failcnt")),
        })
    };
    let memory = json!({
        "cache": field(&stat, "cache"),
        "usage": entry("memory"),
        "swap": entry("memory.memsw"),
        "kernel": entry("memory.kmem"),
        "kernelTCP": entry("memory.kmem.tcp"),
        "raw": raw(&stat),
    });
    (cpu, memory)
}

fn v2(groups: &Groups) -> (Value, Value) {
    let dir = groups.with("");
    let stat = text(dir, "cpu.stat");
    let ns = |key: &str| field(&stat, key).saturating_mul(1000);
    let cpu = json!({
        "usage": {"total": ns("usage_usec"), "percpu": [], "kernel": ns("system_usec"), "user": ns("user_usec")},
        "throttling": {
            "periods": field(&stat, "nr_periods"),
            "throttledPeriods": field(&stat, "nr_throttled"),
            "throttledTime": ns("throttled_usec"),
        },
    });
    let stat = text(dir, "memory.stat");
    let events = text(dir, "memory.events");
    let memory = json!({
        "cache": field(&stat, "file"),
        "usage": {
            "limit": number(dir, "memory.max"),
            "usage": number(dir, "memory.current"),
            "max": number(dir, "memory.peak"),
            "failcnt": field(&events, "max"),
        },
        "swap": {"limit": number(dir, "memory.swap.max"), "usage": number(dir, "memory.swap.current"), "max": 0, "failcnt": 0},
        "raw": raw(&stat),
    });
    (cpu, memory)
}

fn raw(stat: &str) -> Value {
    let pairs = stat.lines().filter_map(|line| line.split_once(' '));
    let pairs =
        pairs.filter_map(|(key, value)| Some((key.to_owned(), json!(value.trim().parse::<u64>().ok()?))));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// Bytes and operations by device, of version 1: `8:0 Read 4096`.
fn blkio(groups: &Groups) -> Value {
    if groups.unified() {
        return json!({});
    }
    let dir = groups.with("blkio");
    let list = |file: &str| {
        let text = text(dir, file);
        let entry = |line: &str| {
            let mut words = line.split(' ');
            let (major, minor) = words.next()?.split_once(':')?;
            let (op, value) = (words.next()?, words.next()?);
            let (major, minor) = (major.parse::<u64>().ok()?, minor.parse::<u64>().ok()?);
            Some(json!({"major": major, "minor": minor, "op": op, "value": value.parse::<u64>().ok()?}))
        };
        text.lines().filter_map(entry).collect::<Vec<_>>()
    };
    json!({
        "ioServiceBytesRecursive": list("blkio.throttle.io_service_bytes_recursive"),
        "ioServicedRecursive": list("blkio.throttle.io_serviced_recursive"),
    })
}

/// Tells when the host had to kill for want of memory.
#[derive(Debug)]
pub(crate) enum OomEvents {
    /// Of version 1: a counter, and the file whose end it tells of too.
    Counter(EventFd, PathBuf),
    /// A file that changes, with the key of the count in it; the file is the count where there is no key.
    File(Inotify, PathBuf, Option<&'static str>, u64),
}

/// A count in a file.
fn count(path: &Path, key: Option<&str>) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    key.map_or_else(|| text.trim().parse().unwrap_or(0), |key| field(&text, key))
}

impl OomEvents {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the host does not tell.
    pub(crate) fn new(groups: &Groups) -> Result<Option<Self>> {
        let Some(dir) = groups.with("memory") else { return Ok(None) };
        if groups.unified() {
            return Self::of_file(dir.join("memory.events"), Some("oom_kill")).map(Some);
        }
        let control = File::open(dir.join("memory.oom_control")).context("open memory.oom_control")?;
        let counter =
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context("eventfd")?;
        let line = format!("{} {}", counter.as_fd().as_raw_fd(), control.as_raw_fd());
        let door = dir.join("cgroup.event_control");
        std::fs::write(&door, line).context("listen for want of memory")?;
        Ok(Some(Self::Counter(counter, door)))
    }

    /// Listens to a file that holds a count.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub(crate) fn of_file(path: PathBuf, key: Option<&'static str>) -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("inotify")?;
        let watched = inotify.add_watch(&path, AddWatchFlags::IN_MODIFY);
        watched.with_context(|| format!("watch {}", path.display()))?;
        let seen = count(&path, key);
        Ok(Self::File(inotify, path, key, seen))
    }

    /// Becomes readable when something may have happened.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Counter(counter, _) => counter.as_fd(),
            Self::File(inotify, ..) => inotify.as_fd(),
        }
    }

    /// Tells whether something has happened since it was asked last.
    pub(crate) fn happened(&mut self) -> bool {
        match self {
            // A group that is removed tells of that in the same way.
            Self::Counter(counter, door) => counter.read().is_ok() && door.exists(),
            Self::File(inotify, path, key, seen) => {
                // What changed is read from the file itself.
                let _changes = inotify.read_events();
                let now = count(path, *key);
                let more = now > *seen;
                *seen = now;
                more
            }
        }
    }
}
