//! podman from Debian with our runtime: a container, exec, a pod of two.

use crate::bundle::{Runtime, Scratch};
use crate::report::Report;
use crate::run::{self, Output};
use crate::{Options, apt, image, proc};
use anyhow::{Result, ensure};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// podman on a storage of its own; emptied with the value.
struct Podman<'a> {
    runtime: &'a Runtime,
    scratch: Scratch,
    /// Short, because sockets lie in it.
    run_root: PathBuf,
}

impl<'a> Podman<'a> {
    fn start(runtime: &'a Runtime) -> Result<Self> {
        apt::ensure(&["podman", "crun"])?;
        let run_root = PathBuf::from(run::unique("/run/sentrybox-podman"));
        std::fs::create_dir(&run_root)?;
        let podman = Self { runtime, scratch: Scratch::new()?, run_root };
        std::fs::write(podman.scratch.0.join("containers.conf"), "[engine]\nevents_logger = \"none\"\n")?;
        podman.write_runtime()?;
        let archive = image::archive(&podman.scratch)?.display().to_string();
        podman.must(&["load", "--quiet", "--input", &archive])?;
        Ok(podman)
    }

    /// A program that calls the runtime with its flags: podman forgets --runtime-flag where it cleans up.
    fn write_runtime(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let runtime = self.runtime.command();
        let words = std::iter::once(runtime.get_program()).chain(runtime.get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.display())).collect();
        let path = self.scratch.0.join("runsc");
        std::fs::write(&path, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))?;
        Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.scratch.0.join("containers.conf"));
        command.arg("--root").arg(self.scratch.0.join("storage")).arg("--runroot").arg(&self.run_root);
        command.arg("--tmpdir").arg(self.run_root.join("tmp"));
        command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime"]);
        command.arg(self.scratch.0.join("runsc"));
        command
    }

    fn podman(&self, args: &[&str]) -> Result<Output> {
        run::output(self.command().args(args), LIMIT)
    }

    fn must(&self, args: &[&str]) -> Result<String> {
        let out = self.podman(args)?;
        ensure!(out.code == 0, "{} gives {}: {}", args.join(" "), out.code, out.stderr.trim());
        Ok(out.stdout.trim().to_owned())
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        drop(self.podman(&["pod", "rm", "--all", "--force", "--time", "0"]));
        drop(self.podman(&["rm", "--all", "--force", "--time", "0"]));
        drop(std::fs::remove_dir_all(&self.run_root));
    }
}

/// Runs all of it.
///
/// # Errors
/// When podman cannot be installed.
pub(crate) fn run(options: &Options) -> Result<Report> {
    proc::become_subreaper()?;
    let runtime = Runtime::from_options(options)?;
    let podman = Podman::start(&runtime)?;
    let mut report = Report::default();
    let tests: [(&str, Test); 6] = [
        ("podman run: output and exit status", run_once),
        ("podman run -d: exec, logs, stop", background),
        ("podman pod: two containers in one sandbox", pod),
        ("podman run --uidmap: users are mapped", mapped),
        ("podman pod --uidmap: users are mapped in each container", mapped_pod),
        ("podman: nothing is left", nothing_left),
    ];
    for (name, test) in tests.into_iter().filter(|(name, _)| options.selects(name)) {
        report.record(name, test(&podman));
    }
    Ok(report)
}

/// A test.
type Test = fn(&Podman<'_>) -> Result<()>;

fn run_once(podman: &Podman<'_>) -> Result<()> {
    let script = "echo $FROM; cat /proc/1/comm; echo err >&2; exit 42";
    let out = podman.podman(&["run", "--rm", "--network=none", image::BOX, "sh", "-c", script])?;
    ensure!((out.code, out.stdout.as_str()) == (42, "image\nsh\n") && out.stderr.contains("err"), "{out:?}");
    Ok(())
}

fn background(podman: &Podman<'_>) -> Result<()> {
    let script = "echo started; trap 'exit 3' TERM; while :; do sleep 0.1; done";
    let id = podman.must(&["run", "-d", "--network=none", image::BOX, "sh", "-c", script])?;
    ensure!(podman.must(&["exec", &id, "sh", "-c", "echo $FROM; cat /proc/1/comm"])? == "image\nsh", "exec");
    let out = podman.podman(&["exec", &id, "sh", "-c", "exit 7"])?;
    ensure!(out.code == 7, "exec: {out:?}");
    run::until("it has started", LIMIT, || {
        podman.must(&["logs", &id]).is_ok_and(|text| text == "started").then_some(())
    })?;
    podman.must(&["stop", "--time", "10", &id])?;
    ensure!(podman.must(&["wait", &id])? == "3", "wait gives {}", podman.must(&["wait", &id])?);
    podman.must(&["rm", &id]).map(drop)
}

fn pod(podman: &Podman<'_>) -> Result<()> {
    let before = proc::descendants();
    let name = run::unique("pod");
    podman.must(&["pod", "create", "--network=none", "--infra-image", image::PAUSE, "--name", &name])?;
    let shared = podman.scratch.0.join("shared");
    std::fs::create_dir(&shared)?;
    let volume = format!("{}:/shared", shared.display());
    let start = || podman.must(&["run", "-d", "--pod", &name, "-v", &volume, image::BOX, "sleep", "1000"]);
    let (one, two) = (start()?, start()?);
    let script = |id: &str, script: &str| podman.must(&["exec", id, "sh", "-c", script]);
    script(&one, "echo here > /shared/file")?;
    ensure!(
        script(&two, "cat /shared/file; cat /proc/1/comm")? == "here\nsleep",
        "the other does not see it"
    );
    ensure!(script(&one, "hostname")? == script(&two, "hostname")?, "the host name is not shared");
    let now = proc::descendants();
    let all: Vec<String> = now.difference(&before).map(|pid| proc::describe(*pid)).collect();
    let sentries = all.iter().filter(|process| process.contains("runsc boot")).count();
    ensure!(sentries == 1, "{sentries} sentries: {all:?}");
    podman.must(&["rm", "--force", "--time", "0", &two])?;
    ensure!(script(&one, "echo well")? == "well", "the other suffers");
    podman.must(&["pod", "rm", "--force", "--time", "0", &name]).map(drop)
}

/// What podman is told of users.
const MAPPING: [&str; 4] = ["--uidmap", "0:100000:2000", "--gidmap", "0:300000:2000"];
/// Shows who there is, and makes a file.
const MAPPED: &str = "b=/bin/busybox; $b tr -s ' ' < /proc/self/uid_map; $b tr -s ' ' < /proc/self/gid_map; $b stat -c %u:%g $b; \
                      $b touch /shared/file && $b chown 7:8 /shared/file";

/// A folder for a container whose root that user and group are.
fn mapped_folder(podman: &Podman<'_>, name: &str) -> Result<(PathBuf, String)> {
    let folder = podman.scratch.0.join(name);
    std::fs::create_dir(&folder)?;
    std::os::unix::fs::chown(&folder, Some(100_000), Some(300_000))?;
    let volume = format!("{}:/shared", folder.display());
    Ok((folder, volume))
}

fn is_mapped(folder: &Path, out: &str) -> Result<()> {
    ensure!(out == "0 100000 2000\n 0 300000 2000\n0:0", "prints {out:?}");
    let meta = std::fs::metadata(folder.join("file"))?;
    let owner = (meta.uid(), meta.gid());
    ensure!(owner == (100_007, 300_008), "the file is owned by {owner:?}");
    Ok(())
}

fn mapped(podman: &Podman<'_>) -> Result<()> {
    let (folder, volume) = mapped_folder(podman, "mapped")?;
    let args = [
        &["run", "--rm", "--network=none", "-v", &volume],
        MAPPING.as_slice(),
        &[image::BOX, "sh", "-c", MAPPED],
    ];
    is_mapped(&folder, &podman.must(&args.concat())?)
}

fn mapped_pod(podman: &Podman<'_>) -> Result<()> {
    let (folder, volume) = mapped_folder(podman, "mapped-pod")?;
    let name = run::unique("pod");
    let create = ["pod", "create", "--network=none", "--infra-image", image::PAUSE, "--name", &name];
    podman.must(&[create.as_slice(), MAPPING.as_slice()].concat())?;
    let id = podman.must(&["run", "-d", "--pod", &name, "-v", &volume, image::BOX, "sleep", "1000"])?;
    is_mapped(&folder, &podman.must(&["exec", &id, "sh", "-c", MAPPED])?)?;
    podman.must(&["pod", "rm", "--force", "--time", "0", &name]).map(drop)
}

fn nothing_left(podman: &Podman<'_>) -> Result<()> {
    let left = podman.must(&["ps", "--all", "--quiet"])?;
    ensure!(left.is_empty(), "podman knows {left}");
    let left = run::output(podman.runtime.command().args(["list", "--quiet"]), LIMIT)?.stdout;
    ensure!(left.trim().is_empty(), "the runtime knows {left}");
    Ok(())
}
