//! containerd from Debian with our shim, by a daemon of our own: `ctr` with runsc against `ctr` with runc, and the CRI plugin.

use crate::bundle::{Runtime, Scratch};
use crate::proc::{self, Pid};
use crate::pty::Session;
use crate::report::Report;
use crate::run::{self, Output};
use crate::{Options, apt, build, image, posture};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const RUNSC: &str = "io.containerd.runsc.v1";
const RUNC: &str = "io.containerd.runc.v2";

/// A containerd with its own data and sockets; ended with the value.
#[derive(Debug)]
pub(crate) struct Containerd {
    child: Child,
    /// Short, because sockets lie in it.
    own: PathBuf,
    pub(crate) scratch: Scratch,
}

impl Containerd {
    /// Starts it, with the images imported for `ctr` and for the CRI plugin.
    ///
    /// # Errors
    /// When it cannot be installed or started.
    pub(crate) fn start(runtime: &Runtime) -> Result<Self> {
        apt::ensure(&["containerd", "runc"])?;
        let shim = build::shim()?;
        let scratch = Scratch::new()?;
        let own = PathBuf::from(run::unique("/run/sentrybox-containerd"));
        std::fs::create_dir(&own)?;
        // What a container uses is counted by its control group.
        let flags = runtime.flags.iter().filter(|flag| *flag != "--ignore-cgroups");
        let flags: Vec<String> = flags
            .map(|flag| {
                let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
                format!("{} = \"{value}\"\n", name.trim_start_matches('-'))
            })
            .collect();
        let options = format!(
            "binary_name = \"{}\"\nroot = \"{}\"\n[runsc_config]\n{}",
            runtime.path.display(),
            runtime.root.display(),
            flags.concat()
        );
        std::fs::write(scratch.0.join("runsc.toml"), options)?;
        std::fs::write(scratch.0.join("config.toml"), config(&scratch, &own))?;
        let log = std::fs::File::create(run::target("containerd")?.join("containerd.log"))?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(scratch.0.join("config.toml"));
        let path = std::env::var("PATH").unwrap_or_default();
        let ours = shim.parent().context("the shim is in a folder")?.display();
        command.env("PATH", format!("{ours}:{path}")).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start containerd")?;
        let daemon = Self { child, own, scratch };
        run::until("containerd answers (see target/containerd/containerd.log)", LIMIT, || {
            daemon.ctr(&["version"]).ok().filter(|out| out.code == 0)
        })?;
        let archive = image::archive(&daemon.scratch)?.display().to_string();
        for namespace in ["default", "k8s.io"] {
            let out = daemon.ctr(&["--namespace", namespace, "images", "import", &archive])?;
            ensure!(out.code == 0, "import gives {}: {}", out.code, out.stderr.trim());
        }
        Ok(daemon)
    }

    /// The socket that it serves.
    pub(crate) fn socket(&self) -> PathBuf {
        self.own.join("containerd.sock")
    }

    fn ctr_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(args);
        command
    }

    fn ctr(&self, args: &[&str]) -> Result<Output> {
        run::output(&mut self.ctr_command(args), LIMIT)
    }

    /// `ctr run` by a runtime, up to the flags.
    fn run_args<'a>(&self, runtime: &'a str, options: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["run", "--runtime", runtime];
        if runtime == RUNSC {
            args.extend(["--runtime-config-path", options]);
        }
        args.extend(flags);
        args.push(image::BOX);
        args
    }

    fn options(&self) -> String {
        self.scratch.0.join("runsc.toml").display().to_string()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for namespace in ["default", "k8s.io"] {
            let list = self.ctr(&["--namespace", namespace, "tasks", "ls", "-q"]).map(|out| out.stdout);
            for id in list.unwrap_or_default().lines() {
                drop(self.ctr(&["--namespace", namespace, "tasks", "rm", "--force", id]));
            }
        }
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _gone_already = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        drop(run::wait_deadline(&mut self.child, Duration::from_secs(20)));
        drop(std::fs::remove_dir_all(&self.own));
    }
}

fn config(scratch: &Scratch, own: &std::path::Path) -> String {
    let (root, own) = (scratch.0.display(), own.display());
    format!(
        r#"version = 2
root = "{root}/data"
state = "{own}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "{own}/containerd.sock"
[ttrpc]
address = "{own}/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
stream_server_port = "0"
# A machine that is itself a container may not go below its own.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{root}/none"
conf_dir = "{root}/none"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runsc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
runtime_type = "{RUNSC}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc.options]
TypeUrl = "io.containerd.runsc.v1.options"
ConfigPath = "{root}/runsc.toml"
"#,
        pause = image::PAUSE,
    )
}

/// Commands whose output and exit status must be runc's, and the flags of `ctr run`.
const COMMANDS: [(&str, &[&str], &[&str]); 6] = [
    ("output", &[], &["echo", "hello"]),
    ("exit status", &[], &["sh", "-c", "echo out; echo err >&2; exit 42"]),
    ("a signal", &[], &["sh", "-c", "kill -TERM $$"]),
    ("the image's environment and folder", &["--env", "MORE=1"], &["sh", "-c", "pwd; echo $FROM $MORE; id"]),
    ("files", &[], &["sh", "-c", "seq 1000 > f; wc -l < f; ls /; cat /proc/1/comm"]),
    ("read-only root", &["--read-only"], &["sh", "-c", "touch /x 2>&1; echo $?"]),
];

/// A test that needs the daemon only.
type Test = fn(&Containerd) -> Result<()>;

/// Runs all of it.
///
/// # Errors
/// When containerd cannot be installed or started.
pub(crate) fn run(options: &Options) -> Result<Report> {
    proc::become_subreaper()?;
    let runtime = Runtime::from_options(options)?;
    let daemon = Containerd::start(&runtime)?;
    let mut report = Report::default();
    for (name, flags, command) in COMMANDS {
        let name = format!("ctr run: {name}");
        if options.selects(&name) {
            report.record(&name, same_as_runc(&daemon, flags, command));
        }
    }
    let tests: [(&str, Test); 9] = [
        ("ctr run: input to its end", input),
        ("ctr run -t: a terminal, its size and its end", terminal),
        ("ctr task: exec, its exit status, its end by a signal", exec),
        ("ctr task: kill, with and without a handler", kill),
        ("ctr task: a program that is not there", no_program),
        ("ctr task: pause and resume", pause),
        ("ctr task: metrics", metrics),
        ("ctr task: a lack of memory is told", out_of_memory),
        ("ctr task: an idle one wakes nobody, its shim included", idle),
    ];
    for (name, test) in tests.into_iter().filter(|(name, _)| options.selects(name)) {
        report.record(name, test(&daemon));
    }
    if options.selects("kill the shim") {
        report.record("SIGKILL to the shim: containerd cleans up", kill_shim(&daemon));
    }
    if options.selects("CRI") {
        crate::cri::run(&daemon, &mut report)?;
    }
    Ok(report)
}

fn same_as_runc(daemon: &Containerd, flags: &[&str], command: &[&str]) -> Result<()> {
    let options = daemon.options();
    let by = |runtime| -> Result<Output> {
        let id = run::unique("same");
        let mut args = daemon.run_args(runtime, &options, &["--rm"]);
        args.splice(args.len() - 1..args.len() - 1, flags.iter().copied());
        args.push(&id);
        args.extend(command);
        daemon.ctr(&args)
    };
    let (ours, theirs) = (by(RUNSC)?, by(RUNC)?);
    ensure!(ours == theirs, "{ours:?}, runc: {theirs:?}");
    Ok(())
}

/// A container that runs in the background; removed with the value.
struct Task<'a> {
    daemon: &'a Containerd,
    id: String,
}

impl<'a> Task<'a> {
    fn start(daemon: &'a Containerd, command: &[&str]) -> Result<Self> {
        let (options, id) = (daemon.options(), run::unique("task"));
        let task = Self { daemon, id };
        let mut args = daemon.run_args(RUNSC, &options, &["-d"]);
        args.push(&task.id);
        args.extend(command);
        let out = daemon.ctr(&args)?;
        ensure!(out.code == 0, "run -d gives {}: {}", out.code, out.stderr.trim());
        Ok(task)
    }

    fn exec(&self, name: &str, command: &[&str]) -> Result<Output> {
        let mut args = vec!["tasks", "exec", "--exec-id", name, &self.id];
        args.extend(command);
        self.daemon.ctr(&args)
    }

    fn must(&self, args: &[&str]) -> Result<String> {
        let out = self.daemon.ctr(args)?;
        ensure!(out.code == 0, "{} gives {}: {}", args.join(" "), out.code, out.stderr.trim());
        Ok(out.stdout)
    }

    /// Its pid and status as `ctr task ls` shows them.
    fn line(&self) -> Result<(Pid, String)> {
        let list = self.must(&["tasks", "ls"])?;
        let line = list.lines().find(|line| line.starts_with(&self.id)).context("no such task")?;
        let fields: Vec<&str> = line.split_whitespace().collect();
        Ok((fields.get(1).context("pid")?.parse()?, (*fields.get(2).context("status")?).to_owned()))
    }

    fn wait_for(&self, status: &str) -> Result<()> {
        run::until(&format!("the task is {status}"), Duration::from_secs(10), || {
            self.line().is_ok_and(|(_, now)| now == status).then_some(())
        })
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        drop(self.daemon.ctr(&["tasks", "rm", "--force", &self.id]));
        drop(self.daemon.ctr(&["containers", "rm", &self.id]));
    }
}

fn input(daemon: &Containerd) -> Result<()> {
    let (options, id) = (daemon.options(), run::unique("input"));
    let args = daemon.run_args(RUNSC, &options, &["--rm"]);
    let mut ctr = daemon.ctr_command(&args);
    ctr.arg(&id).args(["wc", "-c"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "head -c 300000 /dev/zero | \"$@\"", "sh"]).arg(ctr.get_program()).args(ctr.get_args());
    let out = run::output(&mut shell, LIMIT)?;
    ensure!((out.code, out.stdout.trim()) == (0, "300000"), "{out:?}");
    Ok(())
}

fn terminal(daemon: &Containerd) -> Result<()> {
    let (options, id) = (daemon.options(), run::unique("terminal"));
    let args = daemon.run_args(RUNSC, &options, &["--rm", "-t"]);
    let mut ctr = daemon.ctr_command(&args);
    ctr.arg(&id).args([
        "sh",
        "-c",
        "tty; until stty size 2>/dev/null | grep 200; do :; done; read x; echo got $x; exit 5",
    ]);
    let mut session = Session::start(&ctr)?;
    session.expect("/dev/pts/0", LIMIT)?;
    session.expect("24 200", LIMIT)?;
    session.send("word\n")?;
    session.expect("got word", LIMIT)?;
    let code = session.finish(LIMIT)?;
    ensure!(code == 5, "exit status {code}");
    Ok(())
}

fn exec(daemon: &Containerd) -> Result<()> {
    let before = There::now()?;
    let task = Task::start(daemon, &["sleep", "1000"])?;
    let out = task.exec("one", &["sh", "-c", "echo $FROM; cat /proc/1/comm; exit 3"])?;
    ensure!((out.code, out.stdout.as_str()) == (3, "image\nsleep\n"), "{out:?}");
    let out = task.exec("two", &["no-such-program"])?;
    ensure!(out.code != 0 && out.stderr.contains("executable file not found"), "{out:?}");
    // As containerd does at a timeout: the process of exec alone gets the signal.
    let mut long = daemon.ctr_command(&[
        "tasks",
        "exec",
        "--exec-id",
        "long",
        &task.id,
        "sh",
        "-c",
        "echo > /tmp/up; sleep 1000",
    ]);
    let mut child = long.spawn()?;
    run::until("it runs", LIMIT, || {
        task.exec(&run::unique("look"), &["test", "-e", "/tmp/up"])
            .is_ok_and(|out| out.code == 0)
            .then_some(())
    })?;
    task.must(&["tasks", "kill", "--exec-id", "long", "--signal", "SIGKILL", &task.id])?;
    let (status, late) = run::wait_deadline(&mut child, LIMIT)?;
    ensure!(!late && run::code_of(status) == 137, "killed: {status}");
    ensure!(task.line()?.1 == "RUNNING", "the container ended with it");
    drop(task);
    before.nothing_more()
}

fn kill(daemon: &Containerd) -> Result<()> {
    let before = There::now()?;
    let script = "trap 'exit 9' TERM; echo > /tmp/ready; while :; do sleep 1; done";
    let task = Task::start(daemon, &["sh", "-c", script])?;
    run::until("its handler is set", LIMIT, || {
        task.exec(&run::unique("look"), &["test", "-e", "/tmp/ready"])
            .is_ok_and(|out| out.code == 0)
            .then_some(())
    })?;
    let (pid, _) = task.line()?;
    ensure!(proc::describe(pid).contains("runsc"), "the task's pid is of {}", proc::describe(pid));
    task.must(&["tasks", "kill", "--signal", "SIGTERM", &task.id])?;
    task.wait_for("STOPPED")?;
    ensure!(delete(&task)?.contains("exit code 9"), "not 9");
    let other = Task::start(daemon, &["sleep", "1000"])?;
    other.must(&["tasks", "kill", "--signal", "SIGKILL", &other.id])?;
    other.wait_for("STOPPED")?;
    ensure!(delete(&other)?.contains("exit code 137"), "not 137");
    before.nothing_more()
}

/// Deletes a task that has ended; what `ctr` says of its end.
fn delete(task: &Task<'_>) -> Result<String> {
    let out = task.daemon.ctr(&["tasks", "delete", &task.id])?;
    ensure!(out.code == 0, "{out:?}");
    Ok(out.stderr)
}

/// Processes below us, and mounts of containerd, at some time.
struct There {
    processes: BTreeSet<Pid>,
    mounts: BTreeSet<String>,
}

impl There {
    fn now() -> Result<Self> {
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let mounts =
            points.filter(|point| point.contains("sentrybox-containerd")).map(str::to_owned).collect();
        Ok(Self { processes: proc::descendants(), mounts })
    }

    /// What is there now and was not then.
    fn more(&self) -> Result<Vec<String>> {
        let now = Self::now()?;
        let fresh = now.processes.difference(&self.processes);
        fresh.clone().for_each(|pid| proc::reap(*pid));
        let mounts = now.mounts.difference(&self.mounts).cloned();
        Ok(fresh.map(|pid| proc::describe(*pid)).chain(mounts).collect())
    }

    /// Waits until every shim and all that it started and mounted is gone.
    fn nothing_more(&self) -> Result<()> {
        run::until("its processes and mounts go", Duration::from_secs(10), || {
            self.more().is_ok_and(|more| more.is_empty()).then_some(())
        })
        .with_context(|| self.more().map(|more| more.join(", ")).unwrap_or_default())
    }
}

fn no_program(daemon: &Containerd) -> Result<()> {
    let before = There::now()?;
    let (options, id) = (daemon.options(), run::unique("none"));
    let mut args = daemon.run_args(RUNSC, &options, &["--rm"]);
    args.extend([id.as_str(), "no-such-program"]);
    let out = daemon.ctr(&args)?;
    ensure!(out.code != 0 && out.stderr.contains("executable file not found in $PATH"), "{out:?}");
    drop(daemon.ctr(&["containers", "rm", &id]));
    before.nothing_more()
}

fn pause(daemon: &Containerd) -> Result<()> {
    let script = "i=0; while :; do i=$((i+1)); echo $i > /tmp/new; cat /tmp/new > /tmp/count; done";
    let task = Task::start(daemon, &["sh", "-c", script])?;
    task.must(&["tasks", "pause", &task.id])?;
    ensure!(task.line()?.1 == "PAUSED", "it is {}", task.line()?.1);
    task.must(&["tasks", "resume", &task.id])?;
    ensure!(task.line()?.1 == "RUNNING", "it is {}", task.line()?.1);
    let count = || task.exec(&run::unique("count"), &["cat", "/tmp/count"]).map(|out| out.stdout);
    let first = count()?;
    run::until("it goes on", LIMIT, || count().is_ok_and(|now| now != first).then_some(()))
}

fn metrics(daemon: &Containerd) -> Result<()> {
    let task =
        Task::start(daemon, &["sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=20; sleep 1000"])?;
    let number = |text: &str, name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().last()?.parse().ok()
    };
    run::until("it uses 20 MB", LIMIT, || {
        let text = task.must(&["tasks", "metrics", &task.id]).ok()?;
        let (memory, cpu) = (number(&text, "memory.usage_in_bytes")?, number(&text, "cpuacct.usage")?);
        (memory > 20 << 20 && cpu > 0).then_some(())
    })
}

fn out_of_memory(daemon: &Containerd) -> Result<()> {
    let heard = daemon.scratch.0.join("events");
    let mut listener = daemon.ctr_command(&["events"]);
    let mut listener = listener.stdout(std::fs::File::create(&heard)?).spawn()?;
    let (options, id) = (daemon.options(), run::unique("hungry"));
    let task = Task { daemon, id };
    let script = "until [ -e /tmp/go ]; do sleep 0.1; done; x=aaaaaaaa; while :; do x=$x$x; done";
    let mut args = daemon.run_args(RUNSC, &options, &["-d", "--memory-limit", "67108864"]);
    args.extend([task.id.as_str(), "sh", "-c", script]);
    let told = daemon.ctr(&args).and_then(|out| {
        ensure!(out.code == 0, "run -d gives {}: {}", out.code, out.stderr.trim());
        let hears = |topic: &str| {
            run::until(&format!("{topic} is told of"), LIMIT, || {
                let text = std::fs::read_to_string(&heard).unwrap_or_default();
                text.lines().any(|line| line.contains(topic) && line.contains(&task.id)).then_some(())
            })
        };
        hears("/tasks/start")?;
        task.exec("go", &["touch", "/tmp/go"])?;
        hears("/tasks/oom")?;
        task.wait_for("STOPPED")?;
        ensure!(delete(&task)?.contains("exit code 137"), "not 137");
        Ok(())
    });
    listener.kill()?;
    listener.wait()?;
    told
}

fn idle(daemon: &Containerd) -> Result<()> {
    let before = There::now()?;
    let task = Task::start(daemon, &["sleep", "1000"])?;
    let fresh: BTreeSet<Pid> = proc::descendants().difference(&before.processes).copied().collect();
    ensure!(fresh.iter().any(|pid| proc::describe(*pid).contains("containerd-shim-runsc")), "no shim");
    posture::rest(&fresh)?;
    drop(task);
    before.nothing_more()
}

fn kill_shim(daemon: &Containerd) -> Result<()> {
    let before = There::now()?;
    let task = Task::start(daemon, &["sleep", "1000"])?;
    let now = proc::descendants();
    let shim =
        now.difference(&before.processes).find(|pid| proc::describe(**pid).contains("containerd-shim-runsc"));
    let shim = nix::unistd::Pid::from_raw(*shim.context("no shim")?);
    let bundle = daemon.own.join("state/io.containerd.runtime.v2.task/default").join(&task.id);
    let address = std::fs::read_to_string(bundle.join("address")).context("the shim's address")?;
    let socket = PathBuf::from(address.trim().trim_start_matches("unix://"));
    ensure!(socket.exists(), "the shim listens at {address}");
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL)?;
    before.nothing_more()?;
    run::until("its socket is removed", LIMIT, || (!socket.exists()).then_some(()))?;
    drop(task);
    Ok(())
}
