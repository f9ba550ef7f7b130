//! The life of containers: started, looked at, paused, stopped, removed.

use super::Case;
use super::daemon::{Dockerd, IMAGE, LIMIT};
use crate::run;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// The cases.
pub(super) const CASES: &[Case] = &[
    ("run -d, logs, wait", logs_and_wait),
    ("stop, with a handler", stop_with_a_handler),
    ("stop, without a handler", stop_without_a_handler),
    ("kill", kill),
    ("restart policy", restart_policy),
    ("restart", restart),
    ("pause and unpause", pause),
    ("exec", exec),
    ("many execs at once", many_execs),
    ("exec -d", exec_detached),
    ("top", top),
    ("stats", stats),
    ("health checks", health),
    ("rm -f leaves nothing", removal_leaves_nothing),
    ("create and start", create_and_start),
    ("attach", attach),
];

const FOREVER: &str = "echo up; while :; do sleep 0.1; done";

fn logs_and_wait(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&[], "echo one; echo two >&2; exit 5")?;
    let code = docker.ok(&["wait", &container.id])?;
    ensure!(code == "5", "wait says {code}");
    let out = docker.docker(&["logs", &container.id])?;
    ensure!(out.stdout == "one\n" && out.stderr == "two\n", "{out:?}");
    Ok(())
}

fn stop_with_a_handler(docker: &Dockerd) -> Result<()> {
    let script = "trap 'echo caught; exit 7' TERM; echo up; while :; do sleep 0.1; done";
    let container = docker.background(&[], script)?;
    container.wrote("up")?;
    docker.ok(&["stop", "-t", "30", &container.id])?;
    let code = container.inspect(".State.ExitCode")?;
    ensure!(code == "7", "exit code {code}");
    container.wrote("caught")
}

fn stop_without_a_handler(docker: &Dockerd) -> Result<()> {
    // The first process of a container ignores what it does not handle.
    let container = docker.background(&[], FOREVER)?;
    container.wrote("up")?;
    docker.ok(&["stop", "-t", "1", &container.id])?;
    let code = container.inspect(".State.ExitCode")?;
    ensure!(code == "137", "exit code {code}");
    Ok(())
}

fn kill(docker: &Dockerd) -> Result<()> {
    let script = "trap 'echo usr1' USR1; echo up; while :; do sleep 0.1; done";
    let container = docker.background(&[], script)?;
    container.wrote("up")?;
    docker.ok(&["kill", "-s", "USR1", &container.id])?;
    container.wrote("usr1")?;
    docker.ok(&["kill", &container.id])?;
    container.becomes(".State.Status", "exited")?;
    let code = container.inspect(".State.ExitCode")?;
    ensure!(code == "137", "exit code {code}");
    Ok(())
}

fn restart_policy(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&["--restart=on-failure:2"], "exit 3")?;
    container.becomes(".RestartCount", "2")?;
    container.becomes(".State.Status", "exited")?;
    let code = container.inspect(".State.ExitCode")?;
    ensure!(code == "3", "exit code {code}");
    Ok(())
}

fn restart(docker: &Dockerd) -> Result<()> {
    let container =
        docker.background(&[], "echo run >> /count; wc -l < /count; while :; do sleep 0.1; done")?;
    container.wrote("1")?;
    docker.ok(&["restart", "-t", "0", &container.id])?;
    // The root is the same: what was written is there.
    container.wrote("2")
}

fn pause(docker: &Dockerd) -> Result<()> {
    let volume = docker.scratch.0.join("pause");
    std::fs::create_dir(&volume)?;
    let flag = format!("-v={}:/v", volume.display());
    let script = "echo up; i=0; while :; do i=$((i+1)); echo $i > /v/new; mv /v/new /v/count; done";
    let container = docker.background(&[&flag], script)?;
    let count = || {
        std::fs::read_to_string(volume.join("count")).ok().and_then(|text| text.trim().parse::<u64>().ok())
    };
    run::until("the container counts", LIMIT, || count().filter(|n| *n > 5))?;
    docker.ok(&["pause", &container.id])?;
    let status = container.inspect(".State.Status")?;
    ensure!(status == "paused", "the state is {status}");
    let before = count().context("no count")?;
    let out = docker.docker(&["exec", &container.id, "true"])?;
    ensure!(out.code != 0 && out.stderr.contains("paused"), "exec in a paused container: {out:?}");
    ensure!(count() == Some(before), "it counts on");
    docker.ok(&["unpause", &container.id])?;
    run::until("the container counts on", LIMIT, || count().filter(|n| *n > before + 5))?;
    docker.ok(&["pause", &container.id])?;
    docker.ok(&["rm", "-f", &container.id]).map(drop)
}

fn exec(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&["--env=A=1"], FOREVER)?;
    let script = "id -u; id -g; pwd; echo $A$B; exit 3";
    let args = ["exec", "-u", "1000:1001", "-w", "/tmp", "-e", "B=2", &container.id, "sh", "-c", script];
    let out = docker.docker(&args)?;
    ensure!(out.code == 3 && out.stdout == "1000\n1001\n/tmp\n12\n", "{out:?}");
    let out = docker.docker(&["exec", &container.id, "sh", "-c", "kill -KILL $$"])?;
    ensure!(out.code == 137, "{out:?}");
    let names = container.sh("cat /proc/1/cmdline | tr '\\0' ' '")?;
    ensure!(names.contains("echo up"), "process 1 is {names:?}");
    Ok(())
}

fn many_execs(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&[], FOREVER)?;
    let all: Vec<_> = (0..12)
        .map(|number| {
            let mut command = docker.command(&["exec", &container.id, "sh", "-c", &format!("exit {number}")]);
            command.spawn()
        })
        .collect::<std::io::Result<_>>()?;
    for (number, mut child) in (0..).zip(all) {
        let (status, late) = run::wait_deadline(&mut child, LIMIT)?;
        ensure!(!late && status.code() == Some(number), "exec {number} gives {status}");
    }
    Ok(())
}

fn exec_detached(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&[], FOREVER)?;
    docker.ok(&["exec", "-d", &container.id, "sh", "-c", "echo done > /mark"])?;
    run::until("the detached program has run", LIMIT, || container.sh("cat /mark").ok()).map(drop)
}

fn top(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&[], "sleep 1001 & sleep 1002 & echo up; wait %2; echo on; wait")?;
    container.wrote("up")?;
    let pid = container.inspect(".State.Pid")?;
    let shown = |wanted: &[&str], not: &str| {
        run::until(&format!("top shows {wanted:?} and not {not:?}"), LIMIT, || {
            let shown = docker.ok(&["top", &container.id]).ok()?;
            let lines: Vec<&str> = shown.lines().collect();
            let has = |text: &str| lines.iter().any(|line| line.trim_end().ends_with(text));
            (lines.iter().any(|line| line.contains(&pid)) && wanted.iter().all(|text| has(text)) && !has(not))
                .then_some(())
        })
    };
    shown(&["sleep 1001", "sleep 1002", "wait"], "sleep 1003")?;
    container.sh("for p in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' < $p/cmdline)\" = 'sleep 1002 ' ] && kill ${p#/proc/}; done; true")?;
    shown(&["sleep 1001", "wait"], "sleep 1002")?;
    // Other columns, and other words of ps.
    let shown = docker.ok(&["top", &container.id, "-o", "pid,args"])?;
    ensure!(shown.lines().any(|line| line.trim_end().ends_with("sleep 1001")), "{shown}");
    Ok(())
}

fn stats(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&["--memory=100m"], FOREVER)?;
    container.wrote("up")?;
    let format = "{{.MemUsage}}|{{.PIDs}}";
    let shown = docker.ok(&["stats", "--no-stream", "--format", format, &container.id])?;
    let (memory, pids) = shown.split_once('|').context("stats shows nothing")?;
    ensure!(memory.ends_with("/ 100MiB") && !memory.starts_with("0B"), "memory: {memory}");
    ensure!(pids.parse::<u32>().is_ok_and(|pids| pids > 1), "pids: {pids}");
    Ok(())
}

fn health(docker: &Dockerd) -> Result<()> {
    let flags = ["--health-cmd=test -e /well", "--health-interval=1s", "--health-retries=1"];
    let container = docker.background(&flags, FOREVER)?;
    container.becomes(".State.Health.Status", "unhealthy")?;
    container.sh("touch /well")?;
    container.becomes(".State.Health.Status", "healthy")
}

fn removal_leaves_nothing(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&["--memory=100m"], FOREVER)?;
    let id = container.id.clone();
    let group = Path::new("/sys/fs/cgroup/memory/docker").join(&id);
    ensure!(
        group.is_dir() || Path::new("/sys/fs/cgroup/docker").join(&id).is_dir(),
        "there is no control group"
    );
    docker.ok(&["rm", "-f", &id])?;
    ensure!(!group.exists(), "{} is left", group.display());
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline);
        ensure!(!cmdline.contains(&id), "{} is left: {cmdline}", entry.path().display());
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(&id), "a mount is left");
    Ok(())
}

fn create_and_start(docker: &Dockerd) -> Result<()> {
    let id = docker.ok(&["create", "--network=none", IMAGE, "sh", "-c", "echo started"])?;
    let started = docker.ok(&["start", "-a", &id]);
    docker.ok(&["rm", "-f", &id])?;
    ensure!(started? == "started", "it did not run");
    Ok(())
}

fn attach(docker: &Dockerd) -> Result<()> {
    let container = docker.background(&["-i"], "read line; echo got $line; exit 4")?;
    let mut command = docker.command(&["attach", &container.id]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        std::io::Write::write_all(&mut input, b"words\n")?;
    }
    let (status, late) = run::wait_deadline(&mut child, LIMIT)?;
    ensure!(!late && status.code() == Some(4), "attach gives {status}");
    container.wrote("got words")
}
