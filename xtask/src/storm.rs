//! Many containers at once, many in a row, and processes killed at random points: nothing of them is left.

use crate::bundle::{Bundle, Runtime};
use crate::report::Report;
use crate::{Options, build, proc, rootfs, run};
use anyhow::{Context, Result, ensure};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 50;
const IN_A_ROW: usize = 1000;
/// As many as fit into the time of all tests.
const IN_A_ROW_QUICK: usize = 150;
const KILLS: u64 = 100;
/// The control groups of the tests' containers.
const GROUP: &str = "sentrybox-storm";
/// What a `create` takes at most when nothing else runs, and some more: kills are spread over it.
const CREATE_US: u64 = 40_000;

/// Runs every case; all of the thousand only when this stage is named.
///
/// # Errors
/// When the runtime cannot be built.
pub(crate) fn run(options: &Options) -> Result<Report> {
    proc::become_subreaper()?;
    let root = rootfs::ensure(false)?;
    let mut runtime = Runtime::from_options(options)?;
    if options.runtime.is_none() {
        runtime.path = build::release()?;
    }
    runtime.flags.retain(|flag| flag != "--ignore-cgroups");
    let storm = Storm { runtime, root };
    let row = if options.has("--quick") { IN_A_ROW_QUICK } else { IN_A_ROW };
    let mut report = Report::default();
    let mut case = |name: &str, test: &dyn Fn() -> Result<()>| {
        if options.selects(name) {
            report.record(name, test().and_then(|()| storm.nothing_is_left()));
        }
    };
    case(&format!("{AT_ONCE} at once"), &|| storm.at_once());
    case(&format!("{row} in a row"), &|| (0..row).try_for_each(|number| storm.one(number)));
    case(&format!("create killed at {KILLS} points"), &|| (0..KILLS).try_for_each(|n| storm.kill_create(n)));
    case("sentry or gofer killed at start", &|| (0..20).try_for_each(|n| storm.kill_at_start(n)));
    case("delete killed", &|| (0..20).try_for_each(|n| storm.kill_delete(n)));
    Ok(report)
}

#[derive(Debug)]
struct Storm {
    runtime: Runtime,
    root: std::path::PathBuf,
}

/// A number of a sequence that looks random and is the same each time, below a bound.
fn scattered(number: u64, below: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        % below.max(1)
}

impl Storm {
    fn bundle(&self, name: &str) -> Result<Bundle> {
        let bundle = Bundle::new(&self.root, &["sleep", "1000"], false, false)?;
        let path = bundle.dir.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
            linux.insert("cgroupsPath".to_owned(), format!("/{GROUP}/{name}").into());
        }
        std::fs::write(&path, config.to_string())?;
        Ok(bundle)
    }

    /// A verb whose output is nobody's.
    fn spawn(&self, args: &[&str]) -> Result<Child> {
        let mut command: Command = self.runtime.command();
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("start the runtime")
    }

    fn ok(&self, args: &[&str]) -> Result<()> {
        let (status, late) = run::wait_deadline(&mut self.spawn(args)?, LIMIT)?;
        ensure!(status.success() && !late, "{}: {status}", args.join(" "));
        Ok(())
    }

    fn at_once(&self) -> Result<()> {
        let names: Vec<String> = (0..AT_ONCE).map(|_| run::unique("storm")).collect();
        let bundles = names.iter().map(|name| self.bundle(name)).collect::<Result<Vec<_>>>()?;
        let dirs: Vec<String> = bundles.iter().map(|bundle| bundle.dir.display().to_string()).collect();
        let all = |verb: &dyn Fn(usize) -> Vec<String>| -> Result<()> {
            let started = (0..AT_ONCE).map(|number| {
                let args = verb(number);
                self.spawn(&args.iter().map(String::as_str).collect::<Vec<_>>())
            });
            let children = started.collect::<Result<Vec<_>>>()?;
            for (number, mut child) in children.into_iter().enumerate() {
                let (status, late) = run::wait_deadline(&mut child, LIMIT)?;
                ensure!(status.success() && !late, "{:?}: {status}", verb(number));
            }
            Ok(())
        };
        let text = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let name = |number: usize| names.get(number).map_or("", String::as_str);
        let dir = |number: usize| dirs.get(number).map_or("", String::as_str);
        let made = all(&|number| text(&["create", "--bundle", dir(number), name(number)]))
            .and_then(|()| all(&|number| text(&["start", name(number)])))
            .and_then(|()| all(&|number| text(&["kill", name(number), "KILL"])));
        all(&|number| text(&["delete", "--force", name(number)]))?;
        made
    }

    fn one(&self, number: usize) -> Result<()> {
        let name = run::unique("storm");
        let bundle = self.bundle(&name)?;
        self.ok(&["create", "--bundle", &bundle.dir.display().to_string(), &name])?;
        self.ok(&["start", &name])?;
        self.ok(&["delete", "--force", &name]).with_context(|| format!("container {number}"))?;
        reap();
        Ok(())
    }

    /// `delete --force` after a kill; then nothing is left.
    fn cleaned(&self, name: &str, what: &str) -> Result<()> {
        self.ok(&["delete", "--force", name]).with_context(|| what.to_owned())?;
        self.nothing_is_left().with_context(|| what.to_owned())
    }

    fn kill_create(&self, number: u64) -> Result<()> {
        let name = run::unique("storm");
        let bundle = self.bundle(&name)?;
        let after = Duration::from_micros(scattered(number, CREATE_US));
        let start = Instant::now();
        let mut child = self.spawn(&["create", "--bundle", &bundle.dir.display().to_string(), &name])?;
        // The point in time is what is tested.
        std::thread::sleep(after.saturating_sub(start.elapsed()));
        child.kill()?;
        child.wait()?;
        self.cleaned(&name, &format!("create killed after {after:?}"))
    }

    fn kill_at_start(&self, number: u64) -> Result<()> {
        let name = run::unique("storm");
        let bundle = self.bundle(&name)?;
        self.ok(&["create", "--bundle", &bundle.dir.display().to_string(), &name])?;
        let state: Value =
            serde_json::from_slice(&std::fs::read(self.runtime.root.join(&name).join("state.json"))?)?;
        let key = if number.is_multiple_of(2) { "pid" } else { "gofer" };
        let victim =
            state.get(key).and_then(Value::as_i64).with_context(|| format!("the state has no {key}"))?;
        let mut child = self.spawn(&["start", &name])?;
        std::thread::sleep(Duration::from_micros(scattered(number, CREATE_US / 4)));
        let victim = nix::unistd::Pid::from_raw(i32::try_from(victim)?);
        nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL)?;
        let (_, late) = run::wait_deadline(&mut child, LIMIT)?;
        ensure!(!late, "start hangs when its {key} is killed");
        self.cleaned(&name, &format!("{key} killed at start"))
    }

    fn kill_delete(&self, number: u64) -> Result<()> {
        let name = run::unique("storm");
        let bundle = self.bundle(&name)?;
        self.ok(&["create", "--bundle", &bundle.dir.display().to_string(), &name])?;
        self.ok(&["start", &name])?;
        let mut child = self.spawn(&["delete", "--force", &name])?;
        std::thread::sleep(Duration::from_micros(scattered(number, CREATE_US / 2)));
        child.kill()?;
        child.wait()?;
        self.cleaned(&name, "delete killed")
    }

    /// Neither processes nor mounts, control groups or files.
    fn nothing_is_left(&self) -> Result<()> {
        let gone = run::until("every process is gone", Duration::from_secs(5), || {
            reap();
            proc::descendants().is_empty().then_some(())
        });
        let left: Vec<String> = proc::descendants().into_iter().map(proc::describe).collect();
        gone.with_context(|| format!("left: {left:?}"))?;
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        ensure!(!mounts.contains("storm-"), "a mount is left");
        let files: Vec<_> =
            std::fs::read_dir(&self.runtime.root)?.flatten().map(|entry| entry.file_name()).collect();
        ensure!(files.is_empty(), "in the state directory is left: {files:?}");
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
            let groups = group_names(&hierarchy.path().join(GROUP));
            ensure!(groups.is_empty(), "control groups are left: {}: {groups:?}", hierarchy.path().display());
        }
        Ok(())
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // The runtime leaves the group above its own, as runc does.
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        hierarchies.for_each(|hierarchy| drop(std::fs::remove_dir(hierarchy.path().join(GROUP))));
    }
}

fn group_names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().display().to_string())
        .collect()
}

/// Collects orphans that became ours.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}
