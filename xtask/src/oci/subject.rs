//! The runtime under test, with bundles for it.

use crate::bundle::{Runtime, Scratch};
use crate::run::{self, Output};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a command may take.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// The runtime under test.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) runtime: Runtime,
    /// The Debian root.
    pub(super) root: PathBuf,
}

/// A merge patch as RFC 7386 has it; the list of a key that ends with `+` is added to.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else if let (Some(key), Some(more)) = (key.strip_suffix('+'), value.as_array()) {
            let list = target.entry(key).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.extend(more.iter().cloned());
            }
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn plain(root: &Path, args: &[&str]) -> Value {
    let caps = [
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_SETGID",
        "CAP_SETUID",
    ];
    let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    let namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "network"].iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
            "noNewPrivileges": true,
        },
        "root": {"path": root, "readonly": true},
        "hostname": "oci",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        ],
        "linux": {"namespaces": namespaces},
    })
}

impl Subject {
    /// A bundle whose program is a shell script.
    pub(super) fn bundle(&self, patch: &str, script: &str) -> Result<Scratch> {
        self.bundle_of(&self.root, patch, &["sh", "-c", script])
    }

    /// A bundle over a root.
    pub(super) fn bundle_of(&self, root: &Path, patch: &str, args: &[&str]) -> Result<Scratch> {
        let scratch = Scratch::new()?;
        let text = patch.replace("BUNDLE", &scratch.0.display().to_string());
        let patch: Value = serde_json::from_str(&text).with_context(|| format!("the patch {text}"))?;
        let mut config = plain(root, args);
        merge(&mut config, &patch);
        std::fs::write(scratch.0.join("config.json"), serde_json::to_string_pretty(&config)?)?;
        Ok(scratch)
    }

    /// `run`s a script in a container of its own.
    pub(super) fn run_script(&self, patch: &str, script: &str) -> Result<Output> {
        self.run(&self.bundle(patch, script)?)
    }

    /// `run`s a bundle.
    pub(super) fn run(&self, bundle: &Scratch) -> Result<Output> {
        let id = run::unique("oci");
        let out = self.verb(&["run", "--bundle", &bundle.0.display().to_string(), &id])?;
        if out.timed_out {
            self.verb(&["delete", "--force", &id])?;
        }
        Ok(out)
    }

    /// The command of a verb.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.runtime.command();
        command.args(args);
        command
    }

    /// Runs a verb.
    pub(super) fn verb(&self, args: &[&str]) -> Result<Output> {
        run::output(&mut self.command(args), LIMIT)
    }

    /// Runs a verb that must succeed: what it prints.
    pub(super) fn ok(&self, args: &[&str]) -> Result<String> {
        let out = self.verb(args)?;
        ensure!(out.code == 0, "{}: status {}: {}", args.join(" "), out.code, out.stderr.trim());
        Ok(out.stdout.trim_end().to_owned())
    }

    /// Runs a verb that must fail: what it complains of.
    pub(super) fn fails(&self, args: &[&str]) -> Result<String> {
        let out = self.verb(args)?;
        ensure!(out.code != 0 && !out.timed_out, "{}: it succeeds", args.join(" "));
        ensure!(!out.stderr.trim().is_empty(), "{}: it fails without a word", args.join(" "));
        Ok(out.stderr)
    }

    /// Creates a container, whose output goes to a file of its bundle; removed with the value.
    pub(super) fn create(&self, bundle: Scratch, flags: &[&str]) -> Result<Made<'_>> {
        let id = run::unique("oci");
        let dir = bundle.0.display().to_string();
        let all = [&["create", "--bundle", &dir], flags, &[&id]].concat();
        let out = std::fs::File::create(bundle.0.join("out"))?;
        let err = std::fs::File::create(bundle.0.join("err"))?;
        let mut command = self.command(&all);
        command.stdin(std::process::Stdio::null()).stdout(out).stderr(err);
        let mut child = command.spawn()?;
        let (status, late) = run::wait_deadline(&mut child, LIMIT)?;
        let made = Made { subject: self, id, bundle };
        ensure!(status.success() && !late, "create: {status}: {}", made.text("err"));
        Ok(made)
    }

    /// Creates and starts a container that runs a script.
    pub(super) fn started(&self, patch: &str, script: &str) -> Result<Made<'_>> {
        let made = self.create(self.bundle(patch, script)?, &[])?;
        self.ok(&["start", &made.id])?;
        Ok(made)
    }

    /// Checks that no container is left.
    pub(super) fn left_nothing(&self) -> Result<()> {
        let left: Vec<_> =
            std::fs::read_dir(&self.runtime.root)?.flatten().map(|entry| entry.file_name()).collect();
        ensure!(left.is_empty(), "containers are left: {left:?}");
        Ok(())
    }
}

/// A container that was created; removed with the value.
#[derive(Debug)]
pub(super) struct Made<'a> {
    subject: &'a Subject,
    pub(super) id: String,
    pub(super) bundle: Scratch,
}

impl Made<'_> {
    /// Its state.
    pub(super) fn state(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.subject.ok(&["state", &self.id])?)?)
    }

    /// Its status.
    pub(super) fn status(&self) -> Result<String> {
        Ok(self.state()?.get("status").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Waits for a status.
    pub(super) fn becomes(&self, status: &str) -> Result<()> {
        run::until(&format!("it is {status}"), LIMIT, || self.status().ok().filter(|now| now == status))
            .map(drop)
    }

    /// A file of its bundle; empty when there is none.
    pub(super) fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.bundle.0.join(file)).unwrap_or_default()
    }

    /// Waits until a file of its bundle holds this.
    pub(super) fn wrote(&self, file: &str, text: &str) -> Result<()> {
        run::until(&format!("{file} has {text:?}"), LIMIT, || self.text(file).contains(text).then_some(()))
    }

    /// A verb with its name.
    pub(super) fn ok(&self, verb: &str, more: &[&str]) -> Result<String> {
        self.subject.ok(&[&[verb, &self.id], more].concat())
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        drop(self.subject.verb(&["delete", "--force", &self.id]));
    }
}
