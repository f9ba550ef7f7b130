//! The posture of a live sandbox (design §1), read from /proc; what is left when one of its processes is killed; and that
//! an idle one uses no CPU.

use crate::bundle::{Bundle, Runtime};
use crate::pods::Pod;
use crate::proc::{self, Pid};
use crate::report::Report;
use crate::{Options, rootfs, run};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

/// The capabilities that the gofer may keep: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID.
const GOFER_CAPS: u64 = 0b1_1111;

/// The uid of nobody.
const NOBODY: &str = "65534";

/// A container that runs `sleep`, made by `create` and `start`.
#[derive(Debug)]
pub(crate) struct Sleeper<'a> {
    runtime: &'a Runtime,
    id: String,
    bundle: Bundle,
    /// Its processes: all that appeared and stayed.
    pub(crate) pids: BTreeSet<Pid>,
}

impl<'a> Sleeper<'a> {
    /// Starts it.
    ///
    /// # Errors
    /// When the runtime fails.
    pub(crate) fn start(runtime: &'a Runtime) -> Result<Self> {
        let root = rootfs::ensure(false)?;
        let bundle = Bundle::scratch(runtime, &root, &["sleep", "1000"], false)?;
        let before = proc::descendants();
        let mut sleeper = Self { runtime, id: run::unique("sleeper"), bundle, pids: BTreeSet::new() };
        let dir = sleeper.bundle.dir.display().to_string();
        for args in [vec!["create", "--bundle", &dir, &sleeper.id], vec!["start", &sleeper.id]] {
            let out = run::output(runtime.command().args(&args), Duration::from_secs(30))?;
            ensure!(out.code == 0, "{} gives {}: {}", args.join(" "), out.code, out.stderr.trim());
        }
        sleeper.pids = proc::descendants().difference(&before).copied().collect();
        ensure!(!sleeper.pids.is_empty(), "the container has no process");
        Ok(sleeper)
    }

    /// Its state as `state` tells it.
    fn status(&self) -> Option<String> {
        let out =
            run::output(self.runtime.command().args(["state", &self.id]), Duration::from_secs(10)).ok()?;
        let state: serde_json::Value = serde_json::from_str(&out.stdout).ok()?;
        state.pointer("/status")?.as_str().map(str::to_owned)
    }

    /// Its processes that still live.
    fn alive(&self) -> Vec<Pid> {
        let now = proc::descendants();
        for pid in &self.pids {
            if !now.contains(pid) {
                proc::reap(*pid);
            }
        }
        self.pids.iter().copied().filter(|pid| now.contains(pid)).collect()
    }

    /// Fails when a process, mount or cgroup of it is left.
    fn nothing_left(&self) -> Result<()> {
        run::until("its processes end", Duration::from_secs(5), || self.alive().is_empty().then_some(()))
            .with_context(|| {
                self.alive().iter().map(|pid| proc::describe(*pid)).collect::<Vec<_>>().join(", ")
            })?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let bundle = self.bundle.dir.display().to_string();
        ensure!(!mounts.contains(&self.id) && !mounts.contains(&bundle), "a mount of it is left");
        for controller in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            ensure!(!controller.path().join(&self.id).exists(), "a cgroup of it is left");
        }
        Ok(())
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        let limit = Duration::from_secs(20);
        drop(run::output(self.runtime.command().args(["delete", "--force", &self.id]), limit));
        for pid in self.alive() {
            let _gone_already =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        drop(run::until("gone", Duration::from_secs(2), || self.alive().is_empty().then_some(())));
    }
}

/// Runs all of it.
///
/// # Errors
/// When the runtime cannot be built.
pub(crate) fn run(options: &Options) -> Result<Report> {
    proc::become_subreaper()?;
    let runtime = Runtime::from_options(options)?;
    let mut report = Report::default();
    if options.selects("posture") {
        match Sleeper::start(&runtime) {
            Ok(sleeper) => {
                for &pid in &sleeper.pids {
                    let name = format!("posture of {}", proc::describe(pid));
                    report.record(&name, posture(pid));
                }
                report.record("one gofer, and a sentry", roles(&sleeper));
            }
            Err(error) => report.record("posture", Err(error)),
        }
    }
    if options.selects("pod") {
        report.record("posture of a pod, and of what stays behind for exec", pod(&runtime));
    }
    if options.selects("idle") {
        report.record(
            "an idle sandbox is not woken up, nor uses any CPU",
            idle(&runtime, options.platform.is_some()),
        );
    }
    if options.selects("kill") {
        kill_each(&runtime, &mut report);
        report.record("SIGKILL to run in the foreground", kill_foreground(&runtime));
    }
    if options.selects("delete") {
        report.record("kill and delete leave nothing", kill_and_delete(&runtime));
    }
    Ok(report)
}

fn is_gofer(pid: Pid) -> bool {
    proc::read(pid, "cmdline").split('\0').any(|word| word == "gofer" || word == "runsc-gofer")
}

fn roles(sleeper: &Sleeper<'_>) -> Result<()> {
    let gofers = sleeper.pids.iter().filter(|pid| is_gofer(**pid)).count();
    ensure!(gofers == 1, "{gofers} gofers");
    ensure!(sleeper.pids.len() >= 2, "{} processes", sleeper.pids.len());
    Ok(())
}

/// Two containers in a sandbox, and a program that runs detached in each.
fn pod(runtime: &Runtime) -> Result<()> {
    let pod = Pod::of_containerd(runtime)?;
    let first = pod.processes();
    let second = pod.sleeper()?;
    let stand_in = pod.pid(&second)?;
    let added: BTreeSet<Pid> = pod.processes().difference(&first).copied().collect();
    ensure!(added.contains(&stand_in), "the container's process is not there: {added:?}");
    let before = pod.processes();
    let file = pod.file("exec.pid");
    let path = file.display().to_string();
    pod.must(&["exec", "--detach", "--pid-file", &path, &second, "sleep", "1000"])?;
    let proxy: Pid = std::fs::read_to_string(&file)?.trim().parse()?;
    ensure!(!before.contains(&proxy) && pod.processes().contains(&proxy), "no process stays behind");
    for pid in pod.processes() {
        posture(pid).with_context(|| proc::describe(pid))?;
    }
    Ok(())
}

/// What design §1 promises of one process; every breach in one message.
fn posture(pid: Pid) -> Result<()> {
    confined(pid, NOBODY)
}

/// The same of a process that is this user, if it is not the gofer.
///
/// # Errors
/// When it is not so.
pub(crate) fn confined(pid: Pid, user: &str) -> Result<()> {
    let mut wrong: Vec<String> = Vec::new();
    let gofer = is_gofer(pid);
    let mut must = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let caps = u64::from_str_radix(&proc::status(pid, field), 16).context("a capability set")?;
        let allowed = if gofer { GOFER_CAPS } else { 0 };
        must(caps & !allowed == 0, format!("{field} {caps:x}"));
    }
    for (field, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        let found = proc::status(pid, field);
        must(found == value, format!("{field} {found}"));
    }
    if !gofer {
        for field in ["Uid", "Gid"] {
            let ids = proc::status(pid, field);
            must(ids.split_whitespace().all(|id| id == user), format!("{field} {ids}"));
        }
        for problem in root_problems(pid).into_iter().chain(open_directories(pid)) {
            must(false, problem);
        }
    }
    let namespaces: &[&str] =
        if gofer { &["mnt", "pid", "ipc", "uts", "net"] } else { &["user", "mnt", "pid", "ipc", "uts"] };
    for kind in namespaces {
        let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{kind}"));
        let (its, ours) = (of(&pid.to_string())?, of("self")?);
        must(its != ours, format!("shares our {kind} namespace"));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

fn root_problems(pid: Pid) -> Vec<String> {
    let mut problems = Vec::new();
    match std::fs::read_dir(proc::path(pid, "root/")) {
        Ok(entries) => {
            let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
            if !names.is_empty() {
                problems.push(format!("its root holds {names:?}"));
            }
        }
        Err(error) => problems.push(format!("its root: {error}")),
    }
    let mounts = proc::read(pid, "mountinfo");
    let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/"));
    if !root.is_some_and(|line| line.split(' ').nth(5).is_some_and(|o| o.split(',').any(|word| word == "ro")))
    {
        problems.push("its root is not read-only".to_owned());
    }
    problems
}

fn open_directories(pid: Pid) -> Vec<String> {
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(proc::path(pid, "fd")).into_iter().flatten().flatten() {
        if std::fs::metadata(entry.path()).is_ok_and(|meta| meta.is_dir() && meta.nlink() > 0) {
            let to = std::fs::read_link(entry.path()).unwrap_or_default();
            problems.push(format!("has the directory {} open", to.display()));
        }
    }
    problems
}

/// CPU time and wake-ups of all threads of these processes, and how many of them want to run.
fn activity(pids: &BTreeSet<Pid>) -> (u64, u64, u64) {
    let (mut ticks, mut switches, mut runnable) = (0, 0, 0);
    for &pid in pids {
        for task in std::fs::read_dir(proc::path(pid, "task")).into_iter().flatten().flatten() {
            let text = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let stat = text("stat");
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            runnable += u64::from(fields.first() == Some(&"R"));
            ticks += [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<u64>().ok()).sum::<u64>();
            let status = text("status");
            let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
            switches += counts.filter_map(|l| l.split_whitespace().last()?.parse::<u64>().ok()).sum::<u64>();
        }
    }
    (ticks, switches, runnable)
}

/// How long an idle sandbox is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Watches processes that have nothing to do: a measurement, so time has to pass.
///
/// # Errors
/// When one of their threads runs, however shortly.
pub(crate) fn rest(pids: &BTreeSet<Pid>) -> Result<()> {
    let settled = || {
        let before = activity(pids);
        std::thread::sleep(Duration::from_millis(300));
        // On a busy machine, what is still starting may not get to run for a while.
        (before.2 == 0 && activity(pids) == before).then_some(())
    };
    run::until("the processes settle", Duration::from_secs(10), settled)?;
    let before = activity(pids);
    std::thread::sleep(WATCHED);
    let after = activity(pids);
    ensure!(after == before, "in 10 s: {} ticks, {} wake-ups", after.0 - before.0, after.1 - before.1);
    Ok(())
}

/// An idle sandbox of each platform, both at a time.
fn idle(runtime: &Runtime, chosen: bool) -> Result<()> {
    let platforms: &[&str] = if chosen || !runtime.is_ours() { &[""] } else { &["systrap", "ptrace"] };
    let runtimes: Vec<Runtime> = platforms
        .iter()
        .map(|name| {
            let mut runtime = runtime.clone();
            runtime.flags.extend((!name.is_empty()).then(|| format!("--platform={name}")));
            runtime
        })
        .collect();
    let sleepers = runtimes.iter().map(Sleeper::start).collect::<Result<Vec<_>>>()?;
    rest(&sleepers.iter().flat_map(|sleeper| sleeper.pids.iter().copied()).collect())
}

/// SIGKILL to each process of a sandbox, one a run; afterwards nothing of it may be left, and `delete` succeeds.
fn kill_each(runtime: &Runtime, report: &mut Report) {
    let mut index = 0;
    loop {
        let sleeper = match Sleeper::start(runtime) {
            Ok(sleeper) => sleeper,
            Err(error) => return report.record("kill: start a container", Err(error)),
        };
        let Some(&victim) = sleeper.pids.iter().nth(index) else { return };
        let name =
            format!("SIGKILL to process {} of {}: {}", index + 1, sleeper.pids.len(), proc::describe(victim));
        report.record(&name, kill_one(&sleeper, victim));
        index += 1;
    }
}

fn kill_one(sleeper: &Sleeper<'_>, victim: Pid) -> Result<()> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), nix::sys::signal::Signal::SIGKILL)?;
    run::until("every process of the sandbox ends", Duration::from_secs(5), || {
        sleeper.alive().is_empty().then_some(())
    })
    .with_context(|| sleeper.alive().iter().map(|pid| proc::describe(*pid)).collect::<Vec<_>>().join(", "))?;
    delete(sleeper)
}

/// Who kills `run` in the foreground means the container, whose streams nobody serves any more.
fn kill_foreground(runtime: &Runtime) -> Result<()> {
    let root = rootfs::ensure(false)?;
    let bundle = Bundle::scratch(runtime, &root, &["sh", "-c", "echo up; exec sleep 1000"], false)?;
    let (before, id) = (proc::descendants(), run::unique("foreground"));
    let mut command = runtime.command();
    command.arg("run").arg("--bundle").arg(&bundle.dir).arg(&id).stdout(Stdio::piped());
    let mut child = command.spawn().context("start run")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
    let pids: BTreeSet<Pid> = proc::descendants().difference(&before).copied().collect();
    child.kill()?;
    child.wait()?;
    let ended = run::until("every process of the sandbox ends", Duration::from_secs(5), || {
        pids.iter().for_each(|pid| proc::reap(*pid));
        pids.is_disjoint(&proc::descendants()).then_some(())
    });
    let out = run::output(runtime.command().args(["delete", "--force", &id]), Duration::from_secs(10))?;
    ensure!(line == "up\n" && pids.len() > 2, "it does not run: {line:?}, {pids:?}");
    ensure!(out.code == 0, "delete gives {}: {}", out.code, out.stderr.trim());
    ended
}

fn kill_and_delete(runtime: &Runtime) -> Result<()> {
    let sleeper = Sleeper::start(runtime)?;
    ensure!(sleeper.status().as_deref() == Some("running"), "state is {:?}, not running", sleeper.status());
    let out = run::output(runtime.command().args(["kill", &sleeper.id, "KILL"]), Duration::from_secs(10))?;
    ensure!(out.code == 0, "kill gives {}: {}", out.code, out.stderr.trim());
    run::until("the container stops", Duration::from_secs(5), || {
        sleeper.alive();
        (sleeper.status().as_deref() == Some("stopped")).then_some(())
    })?;
    delete(&sleeper)
}

fn delete(sleeper: &Sleeper<'_>) -> Result<()> {
    let out = run::output(sleeper.runtime.command().args(["delete", &sleeper.id]), Duration::from_secs(10))?;
    ensure!(out.code == 0, "delete gives {}: {}", out.code, out.stderr.trim());
    ensure!(sleeper.status().is_none(), "state still knows it");
    sleeper.nothing_left()
}
