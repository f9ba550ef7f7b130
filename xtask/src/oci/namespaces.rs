//! `linux.namespaces` with paths: namespaces that exist already.

use super::Case;
use super::process::refused;
use super::subject::{Made, Subject};
use crate::proc;
use anyhow::{Context, Result, ensure};
use std::process::{Child, Command, Stdio};

pub(super) const CASES: &[Case] = &[
    ("namespaces: a path where nothing is", |s| path(s, "network", "/no/such/namespace")),
    ("namespaces: a path of no namespace", |s| path(s, "network", "/etc/passwd")),
    ("namespaces: a path of another kind of namespace", |s| path(s, "network", "/proc/self/ns/uts")),
    ("namespaces: each kind once", |s| refused(s, r#"{"linux":{"namespaces+":[{"type":"pid"}]}}"#)),
    ("linux.sysctl: one that does not exist is an error", |s| {
        refused(s, r#"{"linux":{"sysctl":{"kernel.no_such_parameter":"1"}}}"#)
    }),
    ("linux.sysctl: one that is the machine's is an error", |s| {
        refused(s, r#"{"linux":{"sysctl":{"kernel.pid_max":"1000"}}}"#)
    }),
    ("namespaces: the network of another process is joined", network),
    ("ours: namespaces: ipc of another container is refused", |s| of_other(s, "ipc")),
    ("ours: namespaces: uts of another container is refused", |s| of_other(s, "uts")),
    ("ours: namespaces: pid of another container is refused", |s| of_other(s, "pid")),
];

/// The plain configuration with one namespace, of a path.
fn with(kind: &str, path: &str) -> String {
    let others: Vec<String> = ["pid", "ipc", "uts", "mount", "network"]
        .iter()
        .filter(|other| **other != kind)
        .map(|other| format!(r#"{{"type":"{other}"}}"#))
        .collect();
    let others = others.join(",");
    format!(r#"{{"linux":{{"namespaces":[{{"type":"{kind}","path":"{path}"}},{others}]}}}}"#)
}

fn path(subject: &Subject, kind: &str, path: &str) -> Result<()> {
    refused(subject, &with(kind, path))
}

fn pid_of(made: &Made<'_>) -> Result<proc::Pid> {
    let pid = made.state()?.get("pid").and_then(serde_json::Value::as_i64).context("it has no pid")?;
    Ok(i32::try_from(pid)?)
}

/// A process in a network namespace of its own; ended with the value.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn network(subject: &Subject) -> Result<()> {
    let mut command = Command::new("unshare");
    command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let holder = Holder(command.spawn().context("unshare")?);
    let name = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let (own, its) = (name(std::process::id()), || name(holder.0.id()));
    crate::run::until("it has its own", super::subject::LIMIT, || (its() != own).then_some(()))?;
    let patch = with("network", &format!("/proc/{}/ns/net", holder.0.id()));
    let made = subject.started(&patch, "sleep 1000")?;
    let joined = name(u32::try_from(pid_of(&made)?)?);
    ensure!(joined.is_some() && joined == its(), "{joined:?} is not {:?}", its());
    Ok(())
}

fn of_other(subject: &Subject, kind: &str) -> Result<()> {
    let made = subject.started("{}", "sleep 1000")?;
    path_refused(subject, kind, pid_of(&made)?)
}

fn path_refused(subject: &Subject, kind: &str, pid: proc::Pid) -> Result<()> {
    path(subject, kind, &format!("/proc/{pid}/ns/{kind}"))
}
