//! `spec`: writes a config.json to start from.
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use sandbox::spec::{CAPABILITIES, Capabilities};
use serde_json::{Value, json};

/// What `spec` takes.
#[derive(Args, Debug)]
pub(crate) struct Spec {
    /// Directory of the bundle
    #[arg(short, long, default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Writes it.
///
/// # Errors
/// When there is one already, or it cannot be written.
pub(crate) fn run(args: &Spec) -> Result<i32> {
    let path = args.bundle.join("config.json");
    let file = File::options().write(true).create_new(true).open(&path);
    let mut file = file.with_context(|| format!("write {}", path.display()))?;
    let program = if args.args.is_empty() { vec!["sh".to_owned()] } else { args.args.clone() };
    file.write_all(serde_json::to_string_pretty(&config(&program))?.as_bytes())?;
    Ok(0)
}

/// Every capability that a process can have, in each set but the inheritable and the ambient one.
pub(crate) fn all_capabilities() -> Capabilities {
    let all: Vec<String> = CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    Capabilities { bounding: all.clone(), effective: all.clone(), permitted: all, ..Capabilities::default() }
}

fn config(args: &[String]) -> Value {
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": sandbox::spec::OCI_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "runsc",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            ],
        },
    })
}
