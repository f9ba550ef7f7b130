//! Reads /proc: which processes a runtime started, and what they are.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A process id.
pub(crate) type Pid = i32;

/// A file of a process under /proc.
pub(crate) fn path(pid: Pid, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

/// A file's text; empty when the process is gone.
pub(crate) fn read(pid: Pid, file: &str) -> String {
    std::fs::read(path(pid, file))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// A line of /proc/PID/status, without its name.
pub(crate) fn status(pid: Pid, field: &str) -> String {
    let text = read(pid, "status");
    let line = text.lines().find_map(|line| line.strip_prefix(field).and_then(|rest| rest.strip_prefix(':')));
    line.unwrap_or_default().trim().to_owned()
}

/// Makes orphans of our children ours, so that every process of a sandbox stays our descendant.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn become_subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("PR_SET_CHILD_SUBREAPER")
}

/// Every live process below this one: not the zombies.
pub(crate) fn descendants() -> BTreeSet<Pid> {
    let mut children: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<Pid>().ok()) else {
            continue;
        };
        if let Ok(parent) = status(pid, "PPid").parse() {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut todo = vec![i32::try_from(std::process::id()).unwrap_or(0)];
    while let Some(parent) = todo.pop() {
        for &pid in children.get(&parent).into_iter().flatten() {
            todo.push(pid);
            if !status(pid, "State").starts_with('Z') && found.insert(pid) {}
        }
    }
    found
}

/// What a process was started as: its arguments, joined by blanks, or its name.
pub(crate) fn describe(pid: Pid) -> String {
    let cmdline = read(pid, "cmdline").replace('\0', " ");
    let name = read(pid, "comm");
    format!("{pid} ({}) {}", name.trim(), cmdline.trim())
}

/// Collects the exit status of an orphan that became ours.
pub(crate) fn reap(pid: Pid) {
    let pid = nix::unistd::Pid::from_raw(pid);
    let _gone_already = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
}
