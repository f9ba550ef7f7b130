//! What programs do, told to a file that nobody has to read: `--events-log`.

use super::Case;
use super::subject::Subject;
use crate::run;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;

pub(super) const CASES: &[Case] = &[
    ("ours: events: programs, their ends and what they open for writing", programs),
    ("ours: events: what is denied, by permission and by the profile", denied),
    ("ours: events: sockets", sockets),
    ("ours: events: a FIFO that nobody reads holds nobody up", unread),
    ("ours: events: the annotation excepts a container", annotation),
    ("ours: events: a place that cannot be is an error", bad_place),
];

/// Runs a script with its events told to a file, which must succeed: the events.
fn told(subject: &Subject, patch: &str, script: &str) -> Result<Vec<Value>> {
    let bundle = subject.bundle(patch, script)?;
    let log = bundle.0.join("%ID%.events");
    let id = run::unique("oci");
    let dir = bundle.0.display().to_string();
    subject.ok(&["--events-log", &log.display().to_string(), "run", "--bundle", &dir, &id])?;
    lines(&std::fs::read_to_string(bundle.0.join(format!("{id}.events"))).context("no events")?)
}

fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Whether an event has these fields.
fn has(event: &Value, fields: &str) -> bool {
    let fields: Value = serde_json::from_str(fields).unwrap_or_default();
    fields.as_object().is_some_and(|fields| fields.iter().all(|(name, value)| event.get(name) == Some(value)))
}

/// Checks that events with these fields are there, in this order.
fn in_order(events: &[Value], wanted: &[&str]) -> Result<()> {
    let mut rest = events.iter();
    for fields in wanted {
        ensure!(rest.any(|event| has(event, fields)), "no event with {fields} in its place: {events:#?}");
    }
    Ok(())
}

fn programs(subject: &Subject) -> Result<()> {
    let events = told(
        subject,
        "{}",
        "echo text > /tmp/new; /bin/true a 'b c'; cat < /etc/hostname; sh -c 'kill -9 $$'; exit 0",
    )?;
    in_order(
        &events,
        &[
            r#"{"event": "exec", "pid": 1, "ppid": 0, "uid": 0, "comm": "sh", "argc": 3}"#,
            r#"{"event": "open", "pid": 1, "path": "/tmp/new", "flags": ["create", "truncate"]}"#,
            r#"{"event": "exec", "ppid": 1, "comm": "true", "argv": ["/bin/true", "a", "b c"]}"#,
            r#"{"event": "exit", "comm": "true", "code": 0}"#,
            r#"{"event": "exit", "signal": "SIGKILL"}"#,
            r#"{"event": "exit", "pid": 1, "code": 0}"#,
        ],
    )?;
    ensure!(!events.iter().any(|event| has(event, r#"{"path": "/etc/hostname"}"#)), "{events:#?}");
    let first = events.first().context("nothing")?;
    let field = |name: &str| first.get(name).and_then(Value::as_str).unwrap_or_default();
    ensure!(field("time").ends_with('Z') && field("container").starts_with("oci"), "{first}");
    ensure!(field("path").ends_with("sh") && field("path").starts_with('/'), "{first}");
    Ok(())
}

fn denied(subject: &Subject) -> Result<()> {
    let patch = r#"{"process": {"user": {"uid": 1000, "gid": 1000}, "capabilities": null}, "linux": {"seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}}}"#;
    let script = "cat /etc/shadow; hostname other; chown 0 /tmp; exit 0";
    let events = told(subject, patch, script)?;
    in_order(
        &events,
        &[
            r#"{"event": "denied", "by": "permission", "call": "openat", "error": "EACCES", "comm": "cat", "uid": 1000}"#,
            r#"{"event": "denied", "by": "seccomp", "call": "sethostname", "action": "SCMP_ACT_ERRNO(1)"}"#,
            r#"{"event": "denied", "by": "permission", "error": "EPERM", "comm": "chown"}"#,
        ],
    )?;
    let shadow = events.iter().find(|event| has(event, r#"{"call": "openat", "comm": "cat"}"#));
    ensure!(shadow.is_some_and(|event| event.to_string().contains("/etc/shadow")), "{shadow:?}");
    Ok(())
}

fn sockets(subject: &Subject) -> Result<()> {
    let script = "python3 -c '
import socket
s = socket.socket(socket.AF_UNIX); s.bind(\"/tmp/s\"); s.listen(1)
c = socket.socket(socket.AF_UNIX); c.connect(\"/tmp/s\")
d = socket.socket(socket.AF_UNIX)
try: d.connect(\"/tmp/none\")
except OSError: pass
'";
    let events = told(subject, "{}", script)?;
    in_order(
        &events,
        &[
            r#"{"event": "listen", "family": "unix", "address": "/tmp/s"}"#,
            r#"{"event": "connect", "family": "unix", "address": "/tmp/s"}"#,
            r#"{"event": "connect", "family": "unix", "address": "/tmp/none", "error": "ENOENT"}"#,
        ],
    )
}

fn unread(subject: &Subject) -> Result<()> {
    let script = "i=0; while [ $i -lt 1500 ]; do : > /tmp/f; i=$((i+1)); done";
    let bundle = subject.bundle("{}", script)?;
    let fifo = bundle.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    let mut reader = open_reader(&fifo)?;
    let dir = bundle.0.display().to_string();
    let log = fifo.display().to_string();
    subject.ok(&["--events-log", &log, "run", "--bundle", &dir, &run::unique("oci")])?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text)?;
    let events = lines(&text)?;
    let opened = events.iter().filter(|event| has(event, r#"{"event": "open", "path": "/tmp/f"}"#)).count();
    ensure!((50..1500).contains(&opened), "{opened} events of a FIFO that was not read");
    // That nobody has it open for reading is no matter either.
    drop(reader);
    subject.ok(&["--events-log", &log, "run", "--bundle", &dir, &run::unique("oci")]).map(drop)
}

fn open_reader(path: &Path) -> Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    Ok(std::fs::File::options().read(true).custom_flags(flags).open(path)?)
}

fn annotation(subject: &Subject) -> Result<()> {
    let log = |value: &str| -> Result<bool> {
        let patch = format!(r#"{{"annotations": {{"dev.sentrybox.events": "{value}"}}}}"#);
        let bundle = subject.bundle(&patch, "exit 0")?;
        let (log, id) = (bundle.0.join("events"), run::unique("oci"));
        let dir = bundle.0.display().to_string();
        subject.ok(&["--events-log", &log.display().to_string(), "run", "--bundle", &dir, &id])?;
        Ok(log.exists())
    };
    ensure!(log("on")? && !log("off")?, "the annotation makes no difference");
    ensure!(log("perhaps").is_err(), "a value without meaning is taken");
    Ok(())
}

fn bad_place(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle("{}", "exit 0")?;
    let dir = bundle.0.display().to_string();
    for (place, why) in [("/nowhere/events", "no such folder"), ("/dev/null", "neither a file nor a FIFO")] {
        let said = subject.fails(&["--events-log", place, "run", "--bundle", &dir, &run::unique("oci")])?;
        ensure!(said.contains(why) && said.contains(place) && said.trim().lines().count() == 1, "{said}");
    }
    Ok(())
}
