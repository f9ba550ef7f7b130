//! `docker run --runtime=runsc` against runc, by a dockerd of our own.

use crate::bundle::{Runtime, Scratch};
use crate::report::Report;
use crate::run::Output;
use crate::{Options, apt, rootfs, run};
use anyhow::{Context, Result, ensure};
use std::process::{Child, Command};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const IMAGE: &str = "sentrybox-test";

/// Commands whose output and exit status must be runc's.
const COMMANDS: [(&str, &[&str]); 4] = [
    ("echo", &["echo", "hello"]),
    ("exit status", &["sh", "-c", "echo out; echo err >&2; exit 42"]),
    ("python", &["python3", "-c", "import os; print(os.getpid(), os.getcwd(), sum(range(1000)))"]),
    (
        "files",
        &[
            "bash",
            "-c",
            "cd /root && seq 1000 | split -l 10 && ls | wc -l && cat x* | md5sum; id; hostname | wc -l",
        ],
    ),
];

/// A dockerd with its own data, socket and containerd; ended with the value.
#[derive(Debug)]
struct Dockerd {
    child: Child,
    socket: String,
    _scratch: Scratch,
}

impl Dockerd {
    fn start(runtime: &Runtime) -> Result<Self> {
        let scratch = Scratch::new()?;
        let data = run::target("docker")?;
        let own = run::unique("/run/sentrybox-docker");
        let socket = format!("unix://{own}.sock");
        let log = std::fs::File::create(data.join("dockerd.log"))?;
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(data.join("data")).arg("--exec-root").arg(format!("{own}.exec"));
        command.arg("--pidfile").arg(scratch.0.join("pid")).arg("-H").arg(&socket);
        command.arg("--add-runtime").arg(format!("runsc={}", runtime.path.display()));
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start dockerd")?;
        let daemon = Self { child, socket, _scratch: scratch };
        run::until("dockerd answers (see target/docker/dockerd.log)", LIMIT, || {
            daemon.docker(&["version"]).ok().filter(|out| out.code == 0)
        })?;
        Ok(daemon)
    }

    fn docker(&self, args: &[&str]) -> Result<Output> {
        run::output(Command::new("docker").arg("-H").arg(&self.socket).args(args), LIMIT)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _gone_already = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        drop(run::wait_deadline(&mut self.child, Duration::from_secs(20)));
    }
}

/// Runs each command by both runtimes.
///
/// # Errors
/// When docker cannot be installed or started.
pub(crate) fn run(options: &Options) -> Result<Report> {
    apt::ensure(&["docker.io", "runc"])?;
    let root = rootfs::ensure(false)?;
    let runtime = Runtime::from_options(options)?;
    let daemon = Dockerd::start(&runtime)?;
    if daemon.docker(&["image", "inspect", IMAGE])?.code != 0 {
        let script = "tar -C \"$1\" --exclude=./usr/lib/go* --exclude=./usr/share/go* -c . | docker -H \"$2\" import - \"$3\"";
        let mut import = Command::new("sh");
        import.args(["-c", script, "sh"]).arg(&root).args([&daemon.socket, IMAGE]);
        let out = run::output(&mut import, Duration::from_secs(240))?;
        ensure!(out.code == 0, "docker import: {}", out.stderr.trim());
    }
    let mut report = Report::default();
    for (name, args) in COMMANDS.iter().filter(|(name, _)| options.selects(name)) {
        let by = |runtime: &str| {
            let flag = format!("--runtime={runtime}");
            let mut all = vec!["run", "--rm", "--network=none", &flag, IMAGE];
            all.extend(*args);
            daemon.docker(&all)
        };
        let compared = by("runc").and_then(|want| {
            let got = by("runsc")?;
            ensure!(want == got, "prints {got:?}, by runc {want:?}");
            Ok(())
        });
        report.record(&format!("docker run: {name}"), compared);
    }
    Ok(report)
}
