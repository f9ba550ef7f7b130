//! The life of a container: create, start, state, kill, delete, list, pause, resume, update, events.

use super::Case;
use super::subject::{LIMIT, Subject};
use crate::run;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub(super) const CASES: &[Case] = &[
    ("create: the program does not run", create_does_not_run),
    ("create: a name that is taken is an error", name_is_taken),
    ("create: names that are no names of files are errors", bad_names),
    ("create --pid-file", pid_file),
    ("create: a failure leaves nothing", failure_leaves_nothing),
    ("create: later changes of the configuration have no effect", changes_have_no_effect),
    ("start: the program runs", start_runs),
    ("start: twice is an error", start_twice),
    ("start: a container that is not there is an error", |s| s.fails(&["start", "none"]).map(drop)),
    ("start: a container that has stopped is an error", start_stopped),
    ("state: of a created container", state_created),
    ("state: of a running container", state_running),
    ("state: of a stopped container", state_stopped),
    ("state: annotations", state_annotations),
    ("state: a container that is not there is an error", |s| s.fails(&["state", "none"]).map(drop)),
    ("kill: TERM reaches the program", kill_term),
    ("kill: a signal by its number", |s| kill_usr1(s, "10")),
    ("kill: a signal by its name", |s| kill_usr1(s, "SIGUSR1")),
    ("kill: a signal by its short name", |s| kill_usr1(s, "USR1")),
    ("kill: a real-time signal", kill_real_time),
    ("kill: KILL ends it", kill_kill),
    ("kill: a created container", kill_created),
    ("kill: an unknown signal is an error", kill_unknown),
    ("kill: a container that has stopped is an error", kill_stopped),
    ("kill: a container that is not there is an error", |s| s.fails(&["kill", "none", "KILL"]).map(drop)),
    ("kill: other processes end with the first", others_end),
    ("delete: a running container is an error", delete_running),
    ("delete: a container that has stopped is gone", delete_stopped),
    ("delete: the name can be used again", name_again),
    ("delete: a container that is not there is an error", |s| s.fails(&["delete", "none"]).map(drop)),
    ("delete --force: a running container", delete_force),
    ("delete --force: a created container", delete_force_created),
    ("delete --force: no container is no error", |s| s.ok(&["delete", "--force", "none"]).map(drop)),
    ("delete: control groups are removed", groups_are_removed),
    ("list", list),
    ("list --quiet", list_quiet),
    ("pause and resume", pause),
    ("pause: a container that does not run is an error", pause_stopped),
    ("resume: a container that is not paused is an error", resume_running),
    ("ps --format json", ps),
    ("events --stats", events),
    ("update", update),
    ("spec", spec),
    ("spec: a file that is there stays", spec_twice),
    ("--version", version),
    ("features", features),
    ("--log and --log-format json", log_json),
    ("--log and --log-format text", log_text),
    ("run --detach", run_detached),
    ("run: nothing is left", run_leaves_nothing),
    ("ours: checkpoint is a clear error", |s| clear_error(s, &["checkpoint", "none"])),
    ("ours: restore is a clear error", |s| clear_error(s, &["restore", "none"])),
    ("ours: wait", wait),
    ("ours: debug --strace", strace),
    ("ours: debug --stacks and --signal", stacks),
];

const FOREVER: &str = "echo up; while :; do sleep 0.05; done";

fn create_does_not_run(subject: &Subject) -> Result<()> {
    let made = subject.create(subject.bundle("{}", "echo ran")?, &[])?;
    ensure!(made.text("out").is_empty(), "it ran");
    made.ok("start", &[])?;
    made.wrote("out", "ran")
}

fn name_is_taken(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    let bundle = made.bundle.0.display().to_string();
    subject.fails(&["create", "--bundle", &bundle, &made.id])?;
    subject.fails(&["run", "--bundle", &bundle, &made.id])?;
    ensure!(made.status()? == "running", "the container that was there is {}", made.status()?);
    Ok(())
}

fn bad_names(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle("{}", "true")?;
    let dir = bundle.0.display().to_string();
    for name in ["", "a/b", "../x", "a b", "..", "é"] {
        subject.fails(&["create", "--bundle", &dir, name])?;
    }
    Ok(())
}

fn pid_file(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle("{}", FOREVER)?;
    let file = bundle.0.join("pid");
    let made = subject.create(bundle, &["--pid-file", &file.display().to_string()])?;
    let pid: i64 = made.text("pid").trim().parse().context("the file has no number")?;
    let state = made.state()?;
    ensure!(state.get("pid").and_then(Value::as_i64) == Some(pid), "{pid} is not {state}");
    ensure!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "there is no process {pid}");
    Ok(())
}

fn failure_leaves_nothing(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle(r#"{"process":{"args":["/no/such/program"]}}"#, "")?;
    let name = run::unique("oci");
    let dir = bundle.0.display().to_string();
    // Where the program is looked for is the runtime's own affair: at create, or at start.
    if subject.verb(&["create", "--bundle", &dir, &name])?.code == 0 {
        subject.fails(&["start", &name])?;
        subject.ok(&["delete", "--force", &name])?;
    }
    subject.fails(&["state", &name]).map(drop)
}

fn changes_have_no_effect(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle("{}", "echo before")?;
    let made = subject.create(bundle, &[])?;
    let path = made.bundle.0.join("config.json");
    let text = std::fs::read_to_string(&path)?.replace("echo before", "echo after");
    std::fs::write(&path, text)?;
    made.ok("start", &[])?;
    made.wrote("out", "before")
}

fn start_runs(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "echo ran; exit 3")?;
    made.wrote("out", "ran")?;
    made.becomes("stopped")
}

fn start_twice(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    subject.fails(&["start", &made.id])?;
    ensure!(made.status()? == "running", "it is {}", made.status()?);
    Ok(())
}

fn start_stopped(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "true")?;
    made.becomes("stopped")?;
    subject.fails(&["start", &made.id]).map(drop)
}

fn check_state(state: &Value, id: &str, status: &str, bundle: &str) -> Result<()> {
    let text = |key: &str| state.get(key).and_then(Value::as_str).unwrap_or_default();
    ensure!(text("id") == id && text("status") == status && text("bundle") == bundle, "{state}");
    ensure!(text("ociVersion").starts_with("1."), "ociVersion: {state}");
    let alive = status != "stopped";
    let pid = state.get("pid").and_then(Value::as_i64).unwrap_or(0);
    ensure!(!alive || std::path::Path::new(&format!("/proc/{pid}")).exists(), "pid: {state}");
    Ok(())
}

fn state_created(subject: &Subject) -> Result<()> {
    let made = subject.create(subject.bundle("{}", "true")?, &[])?;
    check_state(&made.state()?, &made.id, "created", &made.bundle.0.display().to_string())
}

fn state_running(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    check_state(&made.state()?, &made.id, "running", &made.bundle.0.display().to_string())
}

fn state_stopped(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "true")?;
    made.becomes("stopped")?;
    check_state(&made.state()?, &made.id, "stopped", &made.bundle.0.display().to_string())
}

fn state_annotations(subject: &Subject) -> Result<()> {
    let made = subject.create(subject.bundle(r#"{"annotations":{"org.x":"y"}}"#, "true")?, &[])?;
    let state = made.state()?;
    ensure!(state.pointer("/annotations/org.x").and_then(Value::as_str) == Some("y"), "{state}");
    Ok(())
}

fn kill_term(subject: &Subject) -> Result<()> {
    let made =
        subject.started("{}", "trap 'echo caught; exit 7' TERM; echo up; while :; do sleep 0.05; done")?;
    made.wrote("out", "up")?;
    made.ok("kill", &[])?;
    made.wrote("out", "caught")?;
    made.becomes("stopped")
}

fn kill_usr1(subject: &Subject, signal: &str) -> Result<()> {
    let made = subject.started("{}", "trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done")?;
    made.wrote("out", "up")?;
    made.ok("kill", &[signal])?;
    made.wrote("out", "usr1")
}

fn kill_real_time(subject: &Subject) -> Result<()> {
    let script = "exec bash -c \"trap 'echo rt' RTMIN+3; echo up; while :; do sleep 0.05; done\"";
    let made = subject.started("{}", script)?;
    made.wrote("out", "up")?;
    made.ok("kill", &["37"])?;
    made.wrote("out", "rt")
}

fn kill_kill(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    made.ok("kill", &["KILL"])?;
    made.becomes("stopped")
}

fn kill_created(subject: &Subject) -> Result<()> {
    let made = subject.create(subject.bundle("{}", "echo ran")?, &[])?;
    made.ok("kill", &["KILL"])?;
    made.becomes("stopped")?;
    ensure!(made.text("out").is_empty(), "it ran");
    Ok(())
}

fn kill_unknown(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    subject.fails(&["kill", &made.id, "SIGFOO"])?;
    ensure!(made.status()? == "running", "it is {}", made.status()?);
    Ok(())
}

fn kill_stopped(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "true")?;
    made.becomes("stopped")?;
    let error = subject.fails(&["kill", &made.id, "KILL"])?;
    // containerd looks for these words.
    ensure!(error.contains("container not running"), "{error}");
    Ok(())
}

fn others_end(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "sleep 1000 & sleep 1000 & echo up; wait")?;
    made.wrote("out", "up")?;
    made.ok("kill", &["KILL"])?;
    made.becomes("stopped")
}

fn delete_running(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    subject.fails(&["delete", &made.id])?;
    ensure!(made.status()? == "running", "it is {}", made.status()?);
    Ok(())
}

fn delete_stopped(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "true")?;
    made.becomes("stopped")?;
    made.ok("delete", &[])?;
    subject.fails(&["state", &made.id])?;
    subject.left_nothing()
}

fn name_again(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "true")?;
    made.becomes("stopped")?;
    made.ok("delete", &[])?;
    let bundle = made.bundle.0.display().to_string();
    subject.ok(&["run", "--bundle", &bundle, &made.id]).map(drop)
}

fn delete_force(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    let pid = made.state()?.get("pid").and_then(Value::as_i64).context("no pid")?;
    subject.ok(&["delete", "--force", &made.id])?;
    run::until("the process is gone", LIMIT, || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z")).then_some(())
    })?;
    subject.left_nothing()
}

fn delete_force_created(subject: &Subject) -> Result<()> {
    let made = subject.create(subject.bundle("{}", "true")?, &[])?;
    subject.ok(&["delete", "--force", &made.id])?;
    subject.left_nothing()
}

const LIMITED: &str = r#"{"linux":{"cgroupsPath":"/sentrybox-oci-c","resources":{"memory":{"limit":268435456},"pids":{"limit":50}}}}"#;

fn memory_group(name: &str) -> Option<std::path::PathBuf> {
    let places = [format!("/sys/fs/cgroup/memory/{name}"), format!("/sys/fs/cgroup/{name}")];
    places.into_iter().map(std::path::PathBuf::from).find(|path| path.exists())
}

fn groups_are_removed(subject: &Subject) -> Result<()> {
    let made = subject.started(LIMITED, FOREVER)?;
    let group = memory_group("sentrybox-oci-c").context("there is no group")?;
    let pid = made.state()?.get("pid").and_then(Value::as_i64).context("no pid")?;
    let members = std::fs::read_to_string(group.join("cgroup.procs"))?;
    ensure!(members.lines().any(|line| line == pid.to_string()), "{pid} is not in {members:?}");
    subject.ok(&["delete", "--force", &made.id])?;
    ensure!(memory_group("sentrybox-oci-c").is_none(), "the group is left");
    Ok(())
}

fn list(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    let list: Value = serde_json::from_str(&subject.ok(&["list", "--format", "json"])?)?;
    let entry = list.as_array().and_then(|list| list.first()).context("the list is empty")?;
    check_state(entry, &made.id, "running", &made.bundle.0.display().to_string())?;
    let table = subject.ok(&["list"])?;
    ensure!(table.starts_with("ID") && table.contains(&made.id) && table.contains("running"), "{table}");
    Ok(())
}

fn list_quiet(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    ensure!(subject.ok(&["list", "--quiet"])? == made.id, "another list");
    Ok(())
}

fn pause(subject: &Subject) -> Result<()> {
    let patch = r#"{"linux":{"cgroupsPath":"/sentrybox-oci-d"},"mounts+":[{"destination":"/mnt","type":"bind","source":".","options":["bind","rw"]}]}"#;
    let script = "i=0; while :; do i=$((i+1)); echo $i > /mnt/new; mv /mnt/new /mnt/count; done";
    let made = subject.started(patch, script)?;
    let count = || made.text("count").trim().parse::<u64>().ok();
    run::until("it counts", LIMIT, || count().filter(|n| *n > 5))?;
    made.ok("pause", &[])?;
    ensure!(made.status()? == "paused", "it is {}", made.status()?);
    let before = count();
    subject.fails(&["exec", &made.id, "true"])?;
    ensure!(count() == before, "it counts on");
    made.ok("resume", &[])?;
    ensure!(made.status()? == "running", "it is {}", made.status()?);
    run::until("it counts on", LIMIT, || count().filter(|n| Some(*n) > before.map(|b| b + 5)))?;
    made.ok("pause", &[])?;
    subject.ok(&["delete", "--force", &made.id]).map(drop)
}

fn pause_stopped(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "true")?;
    made.becomes("stopped")?;
    subject.fails(&["pause", &made.id]).map(drop)
}

fn resume_running(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    subject.fails(&["resume", &made.id]).map(drop)
}

fn ps(subject: &Subject) -> Result<()> {
    let made = subject.started(LIMITED, FOREVER)?;
    let list: Value = serde_json::from_str(
        &made
            .ok("ps", &["--format", "json"])
            .or_else(|_| subject.ok(&["ps", "--format", "json", &made.id]))?,
    )?;
    let pid = made.state()?.get("pid").cloned().context("no pid")?;
    ensure!(list.as_array().is_some_and(|list| list.contains(&pid)), "{pid} is not in {list}");
    Ok(())
}

fn events(subject: &Subject) -> Result<()> {
    let made = subject.started(LIMITED, FOREVER)?;
    made.wrote("out", "up")?;
    let event: Value = serde_json::from_str(&subject.ok(&["events", "--stats", &made.id])?)?;
    let number = |path: &str| event.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    ensure!(event.get("type").and_then(Value::as_str) == Some("stats"), "{event}");
    ensure!(event.get("id").and_then(Value::as_str) == Some(&made.id), "{event}");
    ensure!(number("/data/memory/usage/limit") == 268_435_456, "{event}");
    ensure!(number("/data/memory/usage/usage") > 0 && number("/data/cpu/usage/total") > 0, "{event}");
    ensure!(number("/data/pids/current") > 0, "{event}");
    Ok(())
}

fn update(subject: &Subject) -> Result<()> {
    let made = subject.started(LIMITED, FOREVER)?;
    subject.ok(&["update", "--memory", "134217728", "--pids-limit", "40", &made.id])?;
    let group = memory_group("sentrybox-oci-c").context("there is no group")?;
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let limit = read("memory.limit_in_bytes").or_else(|| read("memory.max")).context("no limit")?;
    ensure!(limit.trim() == "134217728", "the limit is {limit}");
    Ok(())
}

fn spec(subject: &Subject) -> Result<()> {
    let scratch = crate::bundle::Scratch::new()?;
    subject.ok(&["spec", "--bundle", &scratch.0.display().to_string()])?;
    let config: Value = serde_json::from_str(&std::fs::read_to_string(scratch.0.join("config.json"))?)?;
    ensure!(config.pointer("/process/args/0").and_then(Value::as_str) == Some("sh"), "{config}");
    ensure!(config.pointer("/root/path").and_then(Value::as_str) == Some("rootfs"), "{config}");
    Ok(())
}

fn spec_twice(subject: &Subject) -> Result<()> {
    let scratch = crate::bundle::Scratch::new()?;
    let dir = scratch.0.display().to_string();
    subject.ok(&["spec", "--bundle", &dir])?;
    subject.fails(&["spec", "--bundle", &dir]).map(drop)
}

fn version(subject: &Subject) -> Result<()> {
    let text = subject.ok(&["--version"])?;
    let mut lines = text.lines();
    // docker and containerd read both lines.
    ensure!(lines.next().is_some_and(|line| line.contains(" version ")), "{text}");
    ensure!(lines.any(|line| line.starts_with("spec: 1.")), "{text}");
    Ok(())
}

fn features(subject: &Subject) -> Result<()> {
    let features: Value = serde_json::from_str(&subject.ok(&["features"])?)?;
    let has = |path: &str, value: &str| {
        let list = features.pointer(path).and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|entry| entry.as_str() == Some(value)))
    };
    ensure!(has("/hooks", "createRuntime") && has("/mountOptions", "ro"), "{features}");
    ensure!(has("/linux/namespaces", "pid") && has("/linux/capabilities", "CAP_CHOWN"), "{features}");
    ensure!(has("/linux/seccomp/actions", "SCMP_ACT_ERRNO"), "{features}");
    Ok(())
}

fn logged(subject: &Subject, format: &str) -> Result<String> {
    let scratch = crate::bundle::Scratch::new()?;
    let log = scratch.0.join("log").display().to_string();
    subject.fails(&["--log", &log, "--log-format", format, "state", "none"])?;
    Ok(std::fs::read_to_string(scratch.0.join("log"))?)
}

fn log_json(subject: &Subject) -> Result<()> {
    let text = logged(subject, "json")?;
    let line: Value = serde_json::from_str(text.lines().next().unwrap_or_default())?;
    let field = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default();
    ensure!(field("level") == "error" && field("msg").contains("does not exist"), "{text}");
    ensure!(field("time").len() >= 20 && field("time").contains('T'), "{text}");
    Ok(())
}

fn log_text(subject: &Subject) -> Result<()> {
    let text = logged(subject, "text")?;
    ensure!(text.contains("level=error") && text.contains("msg=") && text.contains("time="), "{text}");
    Ok(())
}

fn run_detached(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle("{}", FOREVER)?;
    let id = run::unique("oci");
    let dir = bundle.0.display().to_string();
    subject.ok(&["run", "--detach", "--bundle", &dir, &id])?;
    let state: Value = serde_json::from_str(&subject.ok(&["state", &id])?)?;
    subject.ok(&["delete", "--force", &id])?;
    check_state(&state, &id, "running", &dir).or_else(|error| {
        // The process is gone by now; the rest must be right.
        ensure!(error.to_string().starts_with("pid"), "{error}");
        Ok(())
    })
}

fn run_leaves_nothing(subject: &Subject) -> Result<()> {
    subject.run_script("{}", "exit 3")?;
    subject.left_nothing()
}

fn clear_error(subject: &Subject, args: &[&str]) -> Result<()> {
    let made = subject.started("{}", FOREVER)?;
    let args: Vec<&str> =
        args.iter().map(|arg| if *arg == "none" { made.id.as_str() } else { *arg }).collect();
    let error = subject.fails(&args)?;
    ensure!(error.contains("not supported yet"), "{error}");
    Ok(())
}

fn wait(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "exit 9")?;
    let text = made.ok("wait", &[])?;
    ensure!(text.contains("\"exitStatus\":9"), "{text}");
    Ok(())
}

fn strace(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle("{}", "while :; do ls /no/such/name; sleep 0.05; done")?;
    let made = subject.create(bundle, &[])?;
    made.ok("start", &[])?;
    made.wrote("err", "cannot access")?;
    ensure!(!made.text("err").contains("newfstatat("), "calls are reported unasked");
    subject.ok(&["debug", "--strace", "on", &made.id])?;
    run::until("calls are reported", LIMIT, || made.text("err").contains("execve(").then_some(()))?;
    subject.ok(&["debug", "--strace", "off", &made.id]).map(drop)
}

fn stacks(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done")?;
    made.wrote("out", "up")?;
    let text = subject.ok(&["debug", "--stacks", "--ps", "--signal", "USR1", &made.id])?;
    ensure!(text.contains("process 1 thread 1 sh:") && text.contains("PPID"), "{text}");
    made.wrote("out", "usr1")
}
