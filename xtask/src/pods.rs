//! Several containers in one sandbox, by the annotations of those who make pods.

use crate::bundle::{Bundle, Runtime, Scratch};
use crate::proc::{self, Pid};
use crate::report::Report;
use crate::run::{self, Output};
use crate::{Options, rootfs};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
/// How often a container comes and goes where nothing of it may stay.
const ROUNDS: usize = 20;

/// Annotations of containerd, and of CRI-O: what it is, whose sandbox it is for.
const CONTAINERD: (&str, &str) = ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id");
const CRIO: (&str, &str) = ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID");

/// A sandbox and the containers in it; all ended with the value.
pub(crate) struct Pod<'a> {
    runtime: &'a Runtime,
    names: (&'static str, &'static str),
    scratch: Scratch,
    id: String,
    before: BTreeSet<Pid>,
    /// A container needs its bundle for exec.
    bundles: RefCell<Vec<Bundle>>,
}

impl<'a> Pod<'a> {
    /// Starts the first container, in containerd's words.
    ///
    /// # Errors
    /// When the runtime fails.
    pub(crate) fn of_containerd(runtime: &'a Runtime) -> Result<Self> {
        Self::start(runtime, CONTAINERD)
    }

    /// Starts the first container.
    fn start(runtime: &'a Runtime, names: (&'static str, &'static str)) -> Result<Self> {
        let before = proc::descendants();
        let pod = Self {
            runtime,
            names,
            scratch: Scratch::new()?,
            id: run::unique("pod"),
            before,
            bundles: RefCell::default(),
        };
        let bundle = pod.bundle("sandbox", &["sleep", "1000"])?;
        pod.create_and_start(&pod.id, bundle)?;
        Ok(pod)
    }

    /// A bundle of the pod, over the Debian root and with the pod's folder at /shared.
    fn bundle(&self, kind: &str, args: &[&str]) -> Result<Bundle> {
        let bundle = Bundle::new(&rootfs::ensure(false)?, args, false, true)?;
        let path = bundle.dir.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let shared = json!({"destination": "/shared", "type": "bind", "source": self.scratch.0, "options": ["rbind", "rw"]});
        let (kind, id) = (json!({self.names.0: kind, self.names.1: self.id}), "annotations".to_owned());
        config.as_object_mut().context("config.json")?.insert(id, kind);
        let mut add = |list: &str, value: Value| {
            let list = config.pointer_mut(list).and_then(Value::as_array_mut).context("config.json")?;
            list.push(value);
            anyhow::Ok(())
        };
        add("/mounts", shared)?;
        for set in ["bounding", "effective", "permitted"] {
            add(&format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"))?;
        }
        std::fs::write(&path, config.to_string())?;
        Ok(bundle)
    }

    /// Where the pod may keep a file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.0.join(name)
    }

    fn runsc(&self, args: &[&str]) -> Result<Output> {
        run::output(self.runtime.command().args(args), LIMIT)
    }

    /// Runs a verb that must succeed; what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn must(&self, args: &[&str]) -> Result<String> {
        let out = self.runsc(args)?;
        ensure!(out.code == 0, "{} gives {}: {}", args.join(" "), out.code, out.stderr.trim());
        Ok(out.stdout)
    }

    fn create_and_start(&self, id: &str, bundle: Bundle) -> Result<()> {
        let pid_file = self.scratch.0.join(format!("{id}.pid"));
        let (dir, pid_file) = (bundle.dir.display().to_string(), pid_file.display().to_string());
        self.bundles.borrow_mut().push(bundle);
        self.must(&["create", "--bundle", &dir, "--pid-file", &pid_file, id])?;
        self.must(&["start", id]).map(drop)
    }

    /// Starts another container; its name.
    fn add(&self, args: &[&str]) -> Result<String> {
        let id = run::unique("container");
        let bundle = self.bundle("container", args)?;
        self.create_and_start(&id, bundle)?;
        Ok(id)
    }

    /// Starts one that sleeps; its name.
    ///
    /// # Errors
    /// When the runtime fails.
    pub(crate) fn sleeper(&self) -> Result<String> {
        self.add(&["sleep", "1000"])
    }

    /// What a script prints in a container.
    fn script(&self, id: &str, script: &str) -> Result<String> {
        self.must(&["exec", id, "sh", "-c", script]).map(|text| text.trim().to_owned())
    }

    /// The process of the host that ends as a container ends.
    ///
    /// # Errors
    /// When the container was not created.
    pub(crate) fn pid(&self, id: &str) -> Result<Pid> {
        let text = std::fs::read_to_string(self.scratch.0.join(format!("{id}.pid")))?;
        Ok(text.trim().parse()?)
    }

    fn status(&self, id: &str) -> Result<String> {
        let state: Value = serde_json::from_str(&self.must(&["state", id])?)?;
        Ok(state.pointer("/status").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    fn wait_for(&self, id: &str, status: &str) -> Result<()> {
        run::until(&format!("{id} is {status}"), Duration::from_secs(10), || {
            self.status(id).is_ok_and(|now| now == status).then_some(())
        })
    }

    /// The processes that appeared with the pod and live.
    pub(crate) fn processes(&self) -> BTreeSet<Pid> {
        let now = proc::descendants();
        now.difference(&self.before).copied().collect()
    }

    /// Waits until as few processes live as then: one that is kept for the next program may be another.
    fn back_to(&self, then: &BTreeSet<Pid>) -> Result<()> {
        let done = || {
            reap(&self.processes());
            (self.processes().len() <= then.len()).then_some(())
        };
        run::until("its processes end", Duration::from_secs(5), done).with_context(|| {
            let left = self.processes();
            left.difference(then).map(|pid| proc::describe(*pid)).collect::<Vec<_>>().join(", ")
        })
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let ids = self.runsc(&["list", "--quiet"]).map(|out| out.stdout).unwrap_or_default();
        for id in ids.lines() {
            drop(self.runsc(&["delete", "--force", id]));
        }
    }
}

/// A test of a pod that has one container beside its first.
type Test = fn(&Pod<'_>, &str) -> Result<()>;

const TESTS: [(&str, Test); 14] = [
    ("each container has its own process ids", own_pids),
    ("each container has its own files and mounts", own_files),
    ("a terminal is of its own container", own_terminals),
    ("containers share names, sockets and System V objects", shared_namespaces),
    ("a folder that both mount shows the same", shared_folder),
    ("the end of one that another does not see", own_undo),
    ("run gives the exit status and the output", run_to_the_end),
    ("the process of the pid file ends as the container does", stands_in),
    ("each is told what it uses itself", own_usage),
    ("one that runs out of memory ends alone", out_of_memory),
    ("one deleted leaves the others", delete_one),
    ("a container whose gofer or stand-in is killed ends alone", kill_parts),
    ("a container that cannot start leaves nothing", cannot_start),
    ("containers that come and go leave nothing in the sentry", come_and_go),
];

/// Runs all of it.
///
/// # Errors
/// When the runtime cannot be built.
pub(crate) fn run(options: &Options) -> Result<Report> {
    proc::become_subreaper()?;
    let runtime = Runtime::from_options(options)?;
    let mut report = Report::default();
    match Pod::start(&runtime, CONTAINERD).and_then(|pod| Ok((pod.sleeper()?, pod))) {
        Ok((id, pod)) => {
            for (name, test) in TESTS.iter().filter(|(name, _)| options.selects(name)) {
                report.record(name, test(&pod, &id));
            }
        }
        Err(error) => report.record("a pod of two", Err(error)),
    }
    for (name, names) in [("containerd", CONTAINERD), ("CRI-O", CRIO)] {
        let name = format!("the end of the first container ends all, as {name} makes pods");
        if options.selects(&name) {
            report.record(&name, first_ends_all(&runtime, names));
        }
    }
    if options.selects("refused") {
        report.record("what is no pod is refused", refused(&runtime));
    }
    Ok(report)
}

fn own_pids(pod: &Pod<'_>, id: &str) -> Result<()> {
    let script = "cat /proc/1/comm; set -- /proc/[0-9]*; echo $#; ps -e -o args= | grep -c '[s]leep'; kill -0 1 && echo seen";
    for container in [&pod.id, id] {
        let seen = pod.script(container, script)?;
        let lines: Vec<&str> = seen.lines().map(str::trim).collect();
        // Its first, and the shell of the script.
        ensure!(lines == ["sleep", "2", "1", "seen"], "{container}: {lines:?}");
    }
    let unseen = pod.script(id, "cat /proc/self/status | grep ^NSpid; readlink /proc/self | grep -c .")?;
    ensure!(unseen.ends_with('1'), "no /proc/self: {unseen}");
    Ok(())
}

fn own_files(pod: &Pod<'_>, id: &str) -> Result<()> {
    pod.script(id, "echo mine > /root/mine && mount -t tmpfs tmpfs /mnt && touch /mnt/x")?;
    ensure!(pod.script(id, "cat /root/mine; grep -c ' /mnt ' /proc/mounts")? == "mine\n1", "not even here");
    let other =
        pod.script(&pod.id, "ls /root/mine 2>&1; ls /mnt | wc -l; grep -c ' /mnt ' /proc/mounts || true")?;
    ensure!(other.ends_with("No such file or directory\n0\n0"), "the other sees {other}");
    Ok(())
}

fn own_terminals(pod: &Pod<'_>, id: &str) -> Result<()> {
    let script = "exec 3<>/dev/ptmx; ls /dev/pts | grep -c '^[0-9]'; cat > /dev/null <&3 & kill $!";
    // Each begins with the terminal 0 of its own.
    let open = r#"python3 -c 'import os; m, s = os.openpty(); print(os.ttyname(s), len([n for n in os.listdir("/dev/pts") if n.isdigit()]))'"#;
    for container in [&pod.id, id] {
        ensure!(pod.script(container, script)? == "1", "{container} does not see its own terminal alone");
        ensure!(
            pod.script(container, open)? == "/dev/pts/0 1",
            "{container}: {}",
            pod.script(container, open)?
        );
    }
    Ok(())
}

fn shared_namespaces(pod: &Pod<'_>, id: &str) -> Result<()> {
    pod.script(id, "python3 -c 'import socket; socket.sethostname(\"both\")'")?;
    ensure!(pod.script(&pod.id, "hostname")? == "both", "the host name is not shared");
    let listen = r#"python3 -c '
import socket, os
s = socket.socket(socket.AF_UNIX); s.bind("\0pod-test"); s.listen(1); open("/shared/listens", "w").close()
c, _ = s.accept(); c.sendall(c.recv(9).upper())' > /dev/null 2>&1 &"#;
    pod.script(id, listen)?;
    run::until("it listens", LIMIT, || pod.scratch.0.join("listens").exists().then_some(()))?;
    let connect = r#"python3 -c '
import socket
s = socket.socket(socket.AF_UNIX); s.connect("\0pod-test"); s.sendall(b"hello"); print(s.recv(9).decode())'"#;
    ensure!(pod.script(&pod.id, connect)? == "HELLO", "the network is not shared");
    let send =
        r#"perl -e '$q = msgget(77, 0666 | 01000) // die; msgsnd($q, pack("l! a*", 1, "from"), 0) or die'"#;
    let receive =
        r#"perl -e '$q = msgget(77, 0666) // die; msgrcv($q, $m, 9, 0, 0) or die; print substr($m, 8)'"#;
    pod.script(id, send)?;
    ensure!(pod.script(&pod.id, receive)? == "from", "System V objects are not shared");
    Ok(())
}

/// Processor time in nanoseconds and bytes of memory, as `events --stats` tells them.
fn usage(pod: &Pod<'_>, id: &str) -> Result<(u64, u64)> {
    let event: Value = serde_json::from_str(&pod.must(&["events", "--stats", id])?)?;
    let number = |path: &str| event.pointer(path).and_then(Value::as_u64).with_context(|| event.to_string());
    Ok((number("/data/cpu/usage/total")?, number("/data/memory/usage/usage")?))
}

fn own_usage(pod: &Pod<'_>, _: &str) -> Result<()> {
    const MOST: u64 = 12 << 20;
    let (busy, idle) = (pod.sleeper()?, pod.sleeper()?);
    let before = usage(pod, &busy)?;
    ensure!(before.1 > 0 && before.1 < MOST, "{before:?} for sleep");
    pod.script(
        &busy,
        "head -c 20m /dev/zero > /dev/shm/held; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done",
    )?;
    let after = usage(pod, &busy)?;
    ensure!(after.0 > before.0 + 10_000_000, "processor time: {before:?}, {after:?}");
    ensure!(after.1 > 20 << 20 && after.1 < (20 << 20) + MOST, "memory: {before:?}, {after:?}");
    ensure!(usage(pod, &idle)?.1 < MOST, "the other's memory: {:?}", usage(pod, &idle)?);
    pod.script(&busy, "rm /dev/shm/held")?;
    ensure!(usage(pod, &busy)?.1 < MOST, "memory that was given back: {:?}", usage(pod, &busy)?);
    [&busy, &idle].into_iter().try_for_each(|id| pod.must(&["delete", "--force", id]).map(drop))
}

fn out_of_memory(pod: &Pod<'_>, id: &str) -> Result<()> {
    // A program that asks for too much is killed; the container goes on, as on Linux, unless that is its first.
    let script = "x=aaaaaaaa; while :; do x=$x$x; done";
    let bundle = pod.bundle("container", &["sh", "-c", &format!("until [ -e /shared/go ]; do sleep 0.1; done; sh -c '{script}'; echo $? > /shared/code; {script}")])?;
    let path = bundle.dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let linux = config.pointer_mut("/linux").and_then(Value::as_object_mut).context("config.json")?;
    linux.insert("resources".to_owned(), json!({"memory": {"limit": 256 << 20}}));
    std::fs::write(&path, config.to_string())?;
    let eater = run::unique("container");
    pod.create_and_start(&eater, bundle)?;
    pod.must(&["update", "--memory", "64m", &eater])?;
    let told = pod.scratch.0.join("told");
    let mut events = pod.runtime.command();
    events.args(["events", "--interval", "1h", &eater]).stdout(std::fs::File::create(&told)?);
    let mut events = events.spawn()?;
    // That it listens is seen in its descriptors.
    let fds = format!("/proc/{}/fd", events.id());
    let listens = || {
        let links =
            std::fs::read_dir(&fds).ok()?.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        links.into_iter().any(|link| link.to_string_lossy().contains("pidfd")).then_some(())
    };
    run::until("events listens", LIMIT, listens)?;
    std::fs::write(pod.scratch.0.join("go"), "")?;
    pod.wait_for(&eater, "stopped")?;
    let (status, late) = run::wait_deadline(&mut events, LIMIT)?;
    ensure!(status.success() && !late, "events: {status}");
    let told = std::fs::read_to_string(told)?;
    ensure!(told.lines().filter(|line| line.contains(r#""type":"oom""#)).count() >= 1, "told: {told:?}");
    let code = std::fs::read_to_string(pod.scratch.0.join("code"))?;
    ensure!(code.trim() == "137", "the first that was killed gives {code}");
    ensure!(
        pod.must(&["wait", &eater])?.contains("137"),
        "the container gives {}",
        pod.must(&["wait", &eater])?
    );
    pod.must(&["delete", &eater])?;
    for other in [&pod.id, id] {
        ensure!(pod.script(other, "echo well")? == "well", "{other} suffers");
    }
    Ok(())
}

fn shared_folder(pod: &Pod<'_>, id: &str) -> Result<()> {
    pod.script(id, "echo one > /shared/file")?;
    ensure!(pod.script(&pod.id, "cat /shared/file && echo two >> /shared/file")? == "one", "not seen");
    ensure!(pod.script(id, "cat /shared/file")? == "one\ntwo", "the change is not seen");
    ensure!(std::fs::read_to_string(pod.scratch.0.join("file"))? == "one\ntwo\n", "not on the host");
    pod.script(id, "rm /shared/file")?;
    ensure!(pod.script(&pod.id, "ls /shared/file || echo gone")?.ends_with("gone"), "still there");
    Ok(())
}

/// Process 1 of each container is another process: the end of one gives back nothing of the other.
fn own_undo(pod: &Pod<'_>, _: &str) -> Result<()> {
    // SEM_UNDO; the process that holds it is the container's first.
    let hold = r#"$s = semget(78, 1, 0666 | 01000) // die; semop($s, pack("s3", 0, 3, 010000)) or die; open(F, ">/shared/held"); close F; sleep 1000"#;
    let holder = pod.add(&["perl", "-e", hold])?;
    run::until("the semaphore is held", LIMIT, || pod.scratch.0.join("held").exists().then_some(()))?;
    let other = pod.add(&["true"])?;
    pod.wait_for(&other, "stopped")?;
    let value = r#"perl -e '$s = semget(78, 1, 0666) // die; print semctl($s, 0, 12, 0) + 0'"#;
    ensure!(pod.script(&pod.id, value)? == "3", "given back by another's end");
    pod.must(&["kill", &holder, "KILL"])?;
    pod.wait_for(&holder, "stopped")?;
    ensure!(pod.script(&pod.id, value)? == "0", "not given back");
    for id in [holder, other] {
        pod.must(&["delete", &id])?;
    }
    Ok(())
}

fn run_to_the_end(pod: &Pod<'_>, _: &str) -> Result<()> {
    let bundle = pod.bundle("container", &["sh", "-c", "echo out; echo err >&2; exit 42"])?;
    let dir = bundle.dir.display().to_string();
    let out = pod.runsc(&["run", "--bundle", &dir, &run::unique("run")])?;
    ensure!((out.code, out.stdout.as_str(), out.stderr.as_str()) == (42, "out\n", "err\n"), "{out:?}");
    Ok(())
}

fn stands_in(pod: &Pod<'_>, _: &str) -> Result<()> {
    let id =
        pod.add(&["sh", "-c", "trap 'exit 9' TERM; touch /shared/trapped; while :; do sleep 0.1; done"])?;
    run::until("its handler is set", LIMIT, || pod.scratch.0.join("trapped").exists().then_some(()))?;
    let pid = pod.pid(&id)?;
    for field in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
        let caps = proc::status(pid, field);
        ensure!(caps.trim_start_matches('0').is_empty(), "{field} {caps}");
    }
    ensure!(proc::status(pid, "NoNewPrivs") == "1", "it may get new privileges");
    pod.must(&["kill", &id, "TERM"])?;
    let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)?;
    let nix::sys::wait::WaitStatus::Exited(_, code) = status else { bail!("{status:?}") };
    ensure!(code == 9, "it ends with {code}");
    let told: Value = serde_json::from_str(&pod.must(&["wait", &id])?)?;
    ensure!(told.pointer("/exitStatus") == Some(&json!(9)), "wait gives {told}");
    pod.must(&["delete", &id]).map(drop)
}

fn delete_one(pod: &Pod<'_>, id: &str) -> Result<()> {
    let before = pod.processes();
    let other = pod.sleeper()?;
    ensure!(pod.processes().len() > before.len(), "it has no process of its own");
    let out = pod.runsc(&["delete", &other])?;
    ensure!(out.code != 0 && out.stderr.contains("not stopped"), "a running one is deleted: {out:?}");
    pod.must(&["delete", "--force", &other])?;
    ensure!(pod.runsc(&["state", &other])?.code != 0, "state still knows it");
    pod.back_to(&before)?;
    for left in [&pod.id, id] {
        ensure!(pod.status(left)? == "running" && pod.script(left, "echo well")? == "well", "{left} suffers");
    }
    // One that was never started.
    let (never, bundle) = (run::unique("never"), pod.bundle("container", &["true"])?);
    pod.must(&["create", "--bundle", &bundle.dir.display().to_string(), &never])?;
    ensure!(pod.status(&never)? == "created", "not created");
    pod.must(&["kill", &never, "KILL"])?;
    pod.must(&["delete", &never])?;
    pod.back_to(&before)
}

fn reap(pids: &BTreeSet<Pid>) {
    pids.iter().for_each(|pid| proc::reap(*pid));
}

fn kill_parts(pod: &Pod<'_>, id: &str) -> Result<()> {
    let before = pod.processes();
    for part in ["gofer", "proxy"] {
        let other = pod.sleeper()?;
        let own: Vec<Pid> = pod.processes().difference(&before).copied().collect();
        let victim = own.iter().find(|pid| proc::describe(**pid).contains(part));
        let victim = *victim.with_context(|| format!("no {part}"))?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), nix::sys::signal::Signal::SIGKILL)?;
        pod.wait_for(&other, "stopped").context(part)?;
        pod.must(&["delete", &other])?;
        pod.back_to(&before)?;
        ensure!(pod.script(id, "echo well")? == "well", "the other suffers");
    }
    Ok(())
}

fn cannot_start(pod: &Pod<'_>, id: &str) -> Result<()> {
    let before = pod.processes();
    for (args, said) in [
        (["no-such-program"].as_slice(), "executable file not found"),
        (&["/etc/passwd"], "permission denied"),
    ] {
        let (bad, bundle) = (run::unique("bad"), pod.bundle("container", args)?);
        let out = pod.runsc(&["run", "--bundle", &bundle.dir.display().to_string(), &bad])?;
        ensure!(out.code != 0 && out.stderr.to_lowercase().contains(said), "{out:?}");
        ensure!(pod.runsc(&["state", &bad])?.code != 0, "state knows it");
    }
    pod.back_to(&before)?;
    ensure!(pod.script(id, "echo well")? == "well", "the other suffers");
    Ok(())
}

/// Descriptors and threads of the sentry.
fn holdings(pod: &Pod<'_>) -> Result<(usize, usize)> {
    let pid = pod.pid(&pod.id)?;
    let count = |what| std::fs::read_dir(proc::path(pid, what)).map(Iterator::count);
    Ok((count("fd")?, count("task")?))
}

fn come_and_go(pod: &Pod<'_>, _: &str) -> Result<()> {
    let before = pod.processes();
    let once = |pod: &Pod<'_>| {
        let other = pod.sleeper()?;
        pod.script(&other, "seq 100 > /tmp/x; cat /usr/bin/env > /root/y; sleep 100 > /dev/null 2>&1 &")?;
        pod.must(&["delete", "--force", &other])
    };
    once(pod)?;
    pod.back_to(&before)?;
    let least = holdings(pod)?;
    for _ in 0..ROUNDS {
        once(pod)?;
    }
    pod.back_to(&before)?;
    let settled = run::until("descriptors and threads are given back", Duration::from_secs(5), || {
        holdings(pod).is_ok_and(|now| now.0 < least.0 + ROUNDS / 2 && now.1 <= least.1).then_some(())
    });
    settled.with_context(|| format!("{:?} after {ROUNDS} rounds, {least:?} before", holdings(pod)))
}

fn first_ends_all(runtime: &Runtime, names: (&'static str, &'static str)) -> Result<()> {
    let pod = Pod::start(runtime, names)?;
    let (one, two) = (pod.sleeper()?, pod.sleeper()?);
    ensure!(pod.script(&one, "echo well")? == "well", "no echo");
    pod.must(&["kill", &pod.id, "KILL"])?;
    for id in [&one, &two, &pod.id] {
        pod.wait_for(id, "stopped")?;
        pod.must(&["delete", id])?;
    }
    let stand_in = nix::unistd::Pid::from_raw(pod.pid(&one)?);
    let status = nix::sys::wait::waitpid(stand_in, None);
    if let Ok(nix::sys::wait::WaitStatus::Exited(_, code)) = status {
        ensure!(code == 137, "the stand-in ends with {code}");
    }
    pod.back_to(&BTreeSet::new())
}

fn refused(runtime: &Runtime) -> Result<()> {
    let mut pod = Pod::start(runtime, CONTAINERD)?;
    let (other, first) = (pod.sleeper()?, pod.id.clone());
    let refuse = |pod: &Pod<'_>, kind: &str, said: &str| {
        let (id, bundle) = (run::unique("refused"), pod.bundle(kind, &["true"])?);
        let out = pod.runsc(&["create", "--bundle", &bundle.dir.display().to_string(), &id])?;
        ensure!(out.code != 0 && out.stderr.contains(said) && out.stderr.lines().count() == 1, "{out:?}");
        ensure!(!pod.runtime.root.join(&id).exists(), "something of it is left");
        Ok(())
    };
    refuse(&pod, "pod", "neither sandbox nor container")?;
    pod.id.clone_from(&other);
    refuse(&pod, "container", "is itself in the sandbox of")?;
    pod.id = "../..".to_owned();
    refuse(&pod, "container", "invalid container id")?;
    pod.id = "nowhere".to_owned();
    refuse(&pod, "container", "does not exist")?;
    pod.id.clone_from(&first);
    pod.must(&["kill", &first, "KILL"])?;
    pod.wait_for(&first, "stopped")?;
    refuse(&pod, "container", "does not run")
}
