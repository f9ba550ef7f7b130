//! `--systemd-cgroup` with a real systemd: one that runs in namespaces of its own, over a part of the host's control
//! groups, and starts nothing but a bus. What it is asked about our containers, it is asked about runc's.

use crate::bundle::{Bundle, Runtime};
use crate::report::Report;
use crate::run::{self, Output};
use crate::{Options, apt, proc, rootfs};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const HIERARCHIES: &str = "/sys/fs/cgroup";

/// Joins the group $1 of each hierarchy, then starts $2 in namespaces.
const JOIN: &str = r#"set -e; group=$1; shift
for root in $(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts); do
    mkdir -p "$root/$group"
    for file in cpuset.cpus cpuset.mems; do [ ! -e "$root/$file" ] || cat "$root/$file" > "$root/$group/$file"; done
    echo $$ > "$root/$group/cgroup.procs"
done
exec unshare --mount --pid --cgroup --fork --kill-child --propagation private sh -c "$1""#;

/// Mounts the hierarchies anew, so that the group is their root, hides the host's units, and becomes systemd. Nothing of the
/// host is set up or cleaned by it: there are only the units that are written here.
const BOOT: &str = r#"set -e
table=$(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2, $3, $4 }' /proc/mounts)
umount -R -l /sys/fs/cgroup; mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
echo "$table" | while read -r at kind options; do
    mkdir -p "$at"
    keep=$(echo "$options" | tr , '\n' | grep -vE '^(rw|ro|relatime|nosuid|nodev|noexec|xattr|nsdelegate|memory_recursiveprot|release_agent=.*|clone_children)$' | paste -sd,)
    mount -t "$kind" ${keep:+-o "$keep"} "$kind" "$at"
done
mount -t proc proc /proc; mount -t tmpfs -o mode=755 tmpfs /run
for dir in /etc/systemd /usr/lib/systemd/system-generators /usr/lib/systemd/system-environment-generators; do
    [ ! -d $dir ] || mount -t tmpfs -o mode=755 tmpfs $dir
done
mkdir /etc/systemd/system
printf '[Unit]\nDefaultDependencies=no\nWants=dbus.socket dbus.service\n' > /etc/systemd/system/sentrybox.target
printf '[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n' > /etc/systemd/system/dbus.socket
cat > /etc/systemd/system/dbus.service <<END
[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
END
export container=sentrybox
exec /lib/systemd/systemd --system --unit=sentrybox.target --log-target=console --log-level=warning --show-status=no"#;

/// A systemd; ended with the value, and its groups removed.
struct Systemd {
    group: String,
    outer: Child,
    /// What programs that should see it enter.
    pid: proc::Pid,
}

impl Systemd {
    fn start() -> Result<Self> {
        apt::ensure(&["systemd", "dbus", "runc"])?;
        let group = run::unique("sentrybox-systemd");
        let outer = Command::new("sh")
            .args(["-c", JOIN, "sh", &group, BOOT])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start a shell")?;
        let mut systemd = Self { group, outer, pid: 0 };
        let parent = systemd.outer.id();
        let children = format!("/proc/{parent}/task/{parent}/children");
        systemd.pid = run::until("systemd starts", LIMIT, || {
            let text = std::fs::read_to_string(&children).ok()?;
            let child = text.split_whitespace().next()?.parse().ok()?;
            (proc::read(child, "comm").trim() == "systemd").then_some(child)
        })?;
        run::until("systemd answers on its bus", LIMIT, || {
            let asked = run::output(systemd.command("busctl").args(["--timeout=2", "status"]), LIMIT).ok()?;
            (asked.code == 0 && systemd.show("init.scope", "ActiveState").ok()? == "active").then_some(())
        })?;
        Ok(systemd)
    }

    /// A program that sees this systemd.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--cgroup", "--target", &self.pid.to_string(), program]);
        command
    }

    fn show(&self, unit: &str, property: &str) -> Result<String> {
        let mut command = self.command("systemctl");
        let out = run::output(command.args(["show", "--value", "-p", property, unit]), LIMIT)?;
        ensure!(out.code == 0, "systemctl show {unit}: {}", out.stderr);
        Ok(out.stdout.trim().to_owned())
    }

    fn expect(&self, unit: &str, wanted: &[(&str, &str)]) -> Result<()> {
        for (property, value) in wanted {
            let found = self.show(unit, property)?;
            ensure!(found == *value, "{unit}: {property} is {found:?}, not {value:?}");
        }
        Ok(())
    }

    /// The group's folder in each hierarchy, as the host sees it.
    fn folders(&self) -> Vec<PathBuf> {
        let hierarchies = std::fs::read_dir(HIERARCHIES).into_iter().flatten().flatten();
        let below = hierarchies.map(|entry| entry.path().join(&self.group));
        below.chain([Path::new(HIERARCHIES).join(&self.group)]).filter(|dir| dir.is_dir()).collect()
    }

    /// Whether a folder of this name is below the group in any hierarchy.
    fn has_group(&self, name: &str) -> bool {
        fn below(dir: &Path, name: &str) -> bool {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let mut dirs = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
            dirs.any(|path| path.file_name().is_some_and(|found| found == name) || below(&path, name))
        }
        self.folders().iter().any(|dir| below(dir, name))
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        fn remove(dir: &Path) {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).for_each(|path| remove(&path));
            // A process that just ended may keep its group for a moment.
            drop(run::until("a group is empty", Duration::from_secs(5), || std::fs::remove_dir(dir).ok()));
        }
        // Its end ends the namespaces, and with them all that runs there.
        drop(self.outer.kill());
        drop(self.outer.wait());
        self.folders().iter().for_each(|dir| remove(dir));
    }
}

/// A runtime that makes its groups by systemd.
struct Subject<'a> {
    systemd: &'a Systemd,
    runtime: Runtime,
}

impl Subject<'_> {
    fn verb(&self, args: &[&str]) -> Result<Output> {
        let path = self.runtime.path.display().to_string();
        let mut command = self.systemd.command(&path);
        command
            .arg("--root")
            .arg("/run/sentrybox-test")
            .args(&self.runtime.flags)
            .arg("--systemd-cgroup")
            .args(args);
        run::output(&mut command, LIMIT)
    }

    fn must(&self, args: &[&str]) -> Result<String> {
        let out = self.verb(args)?;
        ensure!(out.code == 0, "{} gives {}: {}", args.join(" "), out.code, out.stderr.trim());
        Ok(out.stdout)
    }

    /// A container that sleeps, with limits.
    fn start(&self, id: &str, cgroups_path: &str) -> Result<Bundle> {
        let bundle = bundle(cgroups_path)?;
        let dir = bundle.dir.display().to_string();
        self.must(&["run", "--detach", "--bundle", &dir, id])?;
        Ok(bundle)
    }

    fn pid(&self, id: &str) -> Result<String> {
        let state: Value = serde_json::from_str(&self.must(&["state", id])?)?;
        Ok(state.get("pid").and_then(Value::as_i64).context("a pid")?.to_string())
    }

    fn status(&self, id: &str) -> Result<String> {
        let state: Value = serde_json::from_str(&self.must(&["state", id])?)?;
        Ok(state.get("status").and_then(Value::as_str).unwrap_or_default().to_owned())
    }
}

fn bundle(cgroups_path: &str) -> Result<Bundle> {
    let bundle = Bundle::new(&rootfs::ensure(false)?, &["sleep", "1000"], false, false)?;
    let path = bundle.dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let linux = config.get_mut("linux").and_then(Value::as_object_mut).context("config.json")?;
    linux.insert("cgroupsPath".to_owned(), json!(cgroups_path));
    let limits = json!({
        "memory": {"limit": 256 << 20}, "cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": 50}
    });
    linux.insert("resources".to_owned(), limits);
    std::fs::write(&path, config.to_string())?;
    Ok(bundle)
}

/// Runs the cases.
///
/// # Errors
/// When the runtime cannot be built, or systemd does not start.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let mut ours = Runtime::from_options(options)?;
    ours.flags.retain(|flag| flag != "--ignore-cgroups");
    let mut report = Report::default();
    if !Path::new("/run/systemd/system").is_dir() {
        report.record("without systemd: a clear error", without_systemd(&ours));
    }
    let systemd = Systemd::start()?;
    let runc = Runtime { path: "runc".into(), flags: Vec::new(), root: ours.root.join("runc") };
    for (name, runtime) in [("runc", runc), ("runsc", ours)] {
        let subject = Subject { systemd: &systemd, runtime };
        report.record(&format!("{name}: a scope with the limits"), scope(&subject));
        report.record(&format!("{name}: slices in slices"), nested(&subject));
        report.record(&format!("{name}: update, and what systemd reloads"), update(&subject));
        report.record(&format!("{name}: systemctl kill ends the container"), killed(&subject));
        report.record(&format!("{name}: a path of the other form is refused"), refused(&subject));
    }
    Ok(report)
}

fn without_systemd(runtime: &Runtime) -> Result<()> {
    let bundle = bundle("system.slice:sentrybox:none")?;
    let mut command = runtime.command();
    command.args(["--systemd-cgroup", "run", "--bundle"]).arg(&bundle.dir).arg("none");
    let out = run::output(&mut command, LIMIT)?;
    ensure!(
        out.code != 0 && out.stderr.contains("systemd does not run here"),
        "{}: {}",
        out.code,
        out.stderr
    );
    ensure!(!runtime.root.join("none").exists(), "its folder is left");
    Ok(())
}

const LIMITS: [(&str, &str); 3] =
    [("ActiveState", "active"), ("Delegate", "yes"), ("CPUQuotaPerSecUSec", "500ms")];

/// The property that has the limit of memory.
fn memory() -> &'static str {
    if Path::new(HIERARCHIES).join("cgroup.controllers").exists() { "MemoryMax" } else { "MemoryLimit" }
}

fn scope(subject: &Subject<'_>) -> Result<()> {
    let unit = "sentrybox-one.scope";
    let _bundle = subject.start("one", "system.slice:sentrybox:one")?;
    subject.systemd.expect(unit, &LIMITS)?;
    subject.systemd.expect(unit, &[("Slice", "system.slice"), (memory(), "268435456")])?;
    let member = format!("/proc/{}/cgroup", subject.pid("one")?);
    let groups = run::output(subject.systemd.command("cat").arg(member), LIMIT)?.stdout;
    let limited = groups
        .lines()
        .filter(|line| ["memory", "cpu", "pids", "name=systemd"].iter().any(|c| line.contains(c)));
    let outside: Vec<&str> =
        limited.filter(|line| !line.ends_with("/system.slice/sentrybox-one.scope")).collect();
    ensure!(outside.is_empty(), "not in the scope: {outside:?}");
    let names =
        run::output(subject.systemd.command("systemctl").args(["status", "--no-pager", unit]), LIMIT)?;
    ensure!(!names.stdout.contains("keep-scope"), "what held the scope is left: {}", names.stdout);
    subject.must(&["kill", "one", "KILL"])?;
    run::until("it stops", LIMIT, || subject.status("one").ok().filter(|status| status == "stopped"))?;
    subject.must(&["delete", "one"])?;
    gone(subject, unit)
}

fn nested(subject: &Subject<'_>) -> Result<()> {
    let unit = "sentrybox-two.scope";
    let _bundle = subject.start("two", "pods-a.slice:sentrybox:two")?;
    subject.systemd.expect(
        unit,
        &[("Slice", "pods-a.slice"), ("ControlGroup", "/pods.slice/pods-a.slice/sentrybox-two.scope")],
    )?;
    subject.must(&["delete", "--force", "two"])?;
    gone(subject, unit)
}

fn update(subject: &Subject<'_>) -> Result<()> {
    let unit = "sentrybox-three.scope";
    let _bundle = subject.start("three", "system.slice:sentrybox:three")?;
    subject.must(&["update", "--memory", "134217728", "--cpu-quota", "20000", "three"])?;
    let wanted = [(memory(), "134217728"), ("CPUQuotaPerSecUSec", "200ms")];
    subject.systemd.expect(unit, &wanted)?;
    let reload = run::output(subject.systemd.command("systemctl").arg("daemon-reload"), LIMIT)?;
    ensure!(reload.code == 0, "daemon-reload: {}", reload.stderr);
    subject.systemd.expect(unit, &wanted)?;
    ensure!(subject.status("three")? == "running", "it does not run any more");
    subject.must(&["delete", "--force", "three"])?;
    gone(subject, unit)
}

fn killed(subject: &Subject<'_>) -> Result<()> {
    let unit = "sentrybox-four.scope";
    let _bundle = subject.start("four", "system.slice:sentrybox:four")?;
    let out = run::output(subject.systemd.command("systemctl").args(["kill", "--signal=KILL", unit]), LIMIT)?;
    ensure!(out.code == 0, "systemctl kill: {}", out.stderr);
    run::until("it stops", LIMIT, || subject.status("four").ok().filter(|status| status == "stopped"))?;
    subject.must(&["delete", "four"])?;
    gone(subject, unit)
}

fn refused(subject: &Subject<'_>) -> Result<()> {
    let bundle = bundle("/sentrybox/five")?;
    let dir = bundle.dir.display().to_string();
    let out = subject.verb(&["run", "--detach", "--bundle", &dir, "five"])?;
    ensure!(out.code != 0 && out.stderr.contains("slice:prefix:name"), "{}: {}", out.code, out.stderr);
    ensure!(subject.verb(&["state", "five"])?.code != 0, "a container is left");
    Ok(())
}

/// Nothing is left of a scope.
fn gone(subject: &Subject<'_>, unit: &str) -> Result<()> {
    run::until("systemd forgets the scope", LIMIT, || {
        subject.systemd.show(unit, "LoadState").ok().filter(|state| state == "not-found")
    })?;
    run::until("its groups go", LIMIT, || (!subject.systemd.has_group(unit)).then_some(()))
}
