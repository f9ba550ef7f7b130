//! OCI bundles, the runtime under test, and the same program run natively.

use crate::run::{self, Output};
use crate::{Options, build};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The environment of programs, in a container and natively.
const ENV: [&str; 5] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LC_ALL=C.UTF-8",
    "TERM=dumb",
    "GOFLAGS=-mod=mod",
];

/// A runtime with the OCI command line.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    /// The program.
    pub(crate) path: PathBuf,
    /// Global flags.
    pub(crate) flags: Vec<String>,
    /// Where it keeps its state.
    pub(crate) root: PathBuf,
}

impl Runtime {
    /// The workspace's runsc (built first), or the one the options name.
    ///
    /// # Errors
    /// When the build fails.
    pub(crate) fn from_options(options: &Options) -> Result<Self> {
        let root = run::target("state")?.join(run::unique("root"));
        std::fs::create_dir_all(&root)?;
        if let Some(path) = &options.runtime {
            // A name alone is looked up in PATH; a path must hold wherever the program is started.
            let path = if path.contains('/') { std::path::absolute(path)? } else { PathBuf::from(path) };
            return Ok(Self { path, flags: Vec::new(), root });
        }
        // Roots of tests are used again: what a test changes stays in memory.
        let flags = ["--network=none", "--ignore-cgroups", "--overlay2=root:memory"];
        let mut flags: Vec<String> = flags.map(str::to_owned).into();
        flags.extend(options.platform.iter().map(|platform| format!("--platform={platform}")));
        Ok(Self { path: build::release()?, flags, root })
    }

    /// Whether it is our own, with what runc does not promise.
    pub(crate) fn is_ours(&self) -> bool {
        self.path.file_name().is_some_and(|name| name == "runsc")
    }

    /// The command line up to the verb.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(&self.root).args(&self.flags);
        command
    }

    /// `run`s a bundle to its end, and removes what a killed run leaves.
    ///
    /// # Errors
    /// When the runtime cannot be started.
    pub(crate) fn run(&self, bundle: &Bundle, limit: Duration) -> Result<Output> {
        self.run_watched(bundle, limit, limit)
    }

    /// Like `run`, but gives up when nothing has been printed for `silence`.
    ///
    /// # Errors
    /// When the runtime cannot be started.
    pub(crate) fn run_watched(&self, bundle: &Bundle, limit: Duration, silence: Duration) -> Result<Output> {
        let id = run::unique("test");
        let mut command = self.command();
        command.arg("run").arg("--bundle").arg(&bundle.dir).arg(&id);
        let out = run::output_watched(&mut command, limit, silence)?;
        if out.timed_out {
            run::output(self.command().args(["delete", "--force", &id]), Duration::from_secs(20))?;
        }
        Ok(out)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Only when empty: what is left there is a finding.
        drop(std::fs::remove_dir(&self.root));
    }
}

/// A bundle's folder, removed with the value.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The folder that holds config.json.
    pub(crate) dir: PathBuf,
}

impl Bundle {
    /// Writes a bundle over a root that stays as it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn new(rootfs: &Path, args: &[&str], terminal: bool, writable: bool) -> Result<Self> {
        let dir = run::target("bundles")?.join(run::unique("bundle"));
        std::fs::create_dir_all(&dir)?;
        std::fs::write(
            dir.join("config.json"),
            serde_json::to_string_pretty(&config(rootfs, args, terminal, writable))?,
        )?;
        Ok(Self { dir })
    }

    /// A bundle whose root is writable for runsc (which keeps changes in memory), and for another runtime read-only with
    /// tmpfs where scripts write.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn scratch(runtime: &Runtime, rootfs: &Path, args: &[&str], terminal: bool) -> Result<Self> {
        Self::new(rootfs, args, terminal, runtime.is_ours())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": kind, "options": options})
}

fn config(rootfs: &Path, args: &[&str], terminal: bool, writable: bool) -> Value {
    let namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "network"].iter().map(|kind| json!({"type": kind})).collect();
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec", "mode=1777", "size=65536k"]),
        mount("/tmp", "tmpfs", &["nodev", "mode=1777"]),
    ];
    if !writable {
        mounts.push(mount("/root", "tmpfs", &["nosuid", "nodev", "mode=700"]));
    }
    // Those that docker gives: a test machine may itself lack the others.
    let all = [
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": args, "env": ENV, "cwd": "/",
            "capabilities": {"bounding": all, "effective": all, "inheritable": [], "permitted": all, "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024}],
            "noNewPrivileges": false,
        },
        "root": {"path": rootfs, "readonly": !writable},
        "hostname": "sandbox",
        "mounts": mounts,
        "linux": {"namespaces": namespaces},
    })
}

/// The same program natively: chroot into an overlay over the same root, in mount, PID, IPC and UTS namespaces of its own.
///
/// # Errors
/// When the folders of the overlay cannot be made.
pub(crate) fn native_command(rootfs: &Path, args: &[&str]) -> Result<(Command, Scratch)> {
    let scratch = Scratch::new()?;
    let script = r#"set -e; root=$1; work=$2; shift 2
        mount -t tmpfs tmpfs "$work"; mkdir "$work/up" "$work/wk" "$work/m"; m=$work/m
        mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/up,workdir=$work/wk" "$m"
        mount -t proc proc "$m/proc"; mount -t tmpfs tmpfs "$m/tmp"; mount -t tmpfs -o mode=755 tmpfs "$m/dev"
        mkdir "$m/dev/shm" "$m/dev/pts"; mount -t tmpfs tmpfs "$m/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=0666,gid=5 devpts "$m/dev/pts"; ln -s pts/ptmx "$m/dev/ptmx"
        for node in null zero full random urandom tty; do cp -a "/dev/$node" "$m/dev/"; done
        ln -s /proc/self/fd "$m/dev/fd"; ln -s fd/0 "$m/dev/stdin"; ln -s fd/1 "$m/dev/stdout"; ln -s fd/2 "$m/dev/stderr"
        hostname sandbox; ulimit -Sn 1024; ulimit -Hn 4096; exec chroot "$m" "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-c", script, "sh"]);
    command.arg(rootfs).arg(&scratch.0).args(args);
    command.env_clear().envs(ENV.iter().filter_map(|pair| pair.split_once('=')));
    Ok((command, scratch))
}

/// Runs a program natively to its end.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn native(rootfs: &Path, args: &[&str], limit: Duration) -> Result<Output> {
    let (mut command, _scratch) = native_command(rootfs, args)?;
    run::output(&mut command, limit)
}

/// An empty folder, removed with the value.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// Makes it under target/.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn new() -> Result<Self> {
        let dir = run::target("tmp")?.join(run::unique("scratch"));
        std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
