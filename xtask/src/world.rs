//! `runsc do`: a program of this machine sees the sandbox's world, not the host's; and start-up stays short.

use crate::bundle::{Bundle, Runtime};
use crate::report::Report;
use crate::{Options, apt, proc, rootfs, rootless, run};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// What `runsc run` of `/bin/true` may take, the best of ten: the machine may be busy with other things.
const START_UP: Duration = Duration::from_millis(80);

/// A name, and what must hold.
type Test = (&'static str, fn(&Runtime) -> Result<()>);

/// Runs what the options select. Only runsc has `do`.
///
/// # Errors
/// When the runtime cannot be built.
pub(crate) fn run(options: &Options) -> Result<Report> {
    apt::ensure(&["procps", "mount", "util-linux"])?;
    proc::become_subreaper()?;
    let runtime = Runtime::from_options(options)?;
    let mut report = Report::default();
    let tests: [Test; 11] = [
        ("do shows the sandbox's processes", processes),
        ("do shows the sandbox's mounts", mounts),
        ("do shows the program's own maps", maps),
        ("do shows the layout of its processors", layout),
        ("do passes streams, cwd and exit status", streams),
        ("do leaves the host's files alone", host_files),
        ("do by a user who is not root", rootless::program),
        ("a container of a user who is not root", rootless::container),
        ("a container of a user who is not root, with a mapping", rootless::mapped),
        ("a user's state is nobody else's", rootless::foreign_state),
        ("run of /bin/true takes at most 80 ms", start_up),
    ];
    for (name, test) in tests.iter().filter(|(name, _)| options.selects(name)) {
        report.record(name, test(&runtime));
    }
    Ok(report)
}

/// What a script prints in a sandbox; it must succeed.
fn sh(runtime: &Runtime, script: &str) -> Result<String> {
    let out = run::output(runtime.command().args(["do", "--", "sh", "-c", script]), LIMIT)?;
    ensure!(!out.timed_out, "did not end: {}{}", out.stdout, out.stderr);
    ensure!(out.code == 0, "exit status {}: {}{}", out.code, out.stdout, out.stderr);
    Ok(out.stdout)
}

fn processes(runtime: &Runtime) -> Result<()> {
    let text = sh(runtime, "id -u; ps -e -o comm=")?;
    ensure!(text.starts_with("0\n"), "id -u says {text:?}");
    ensure!(text.lines().any(|line| line.trim() == "ps"), "ps does not list itself: {text:?}");
    ensure!(text.lines().count() < 8 && !text.contains("xtask"), "ps lists other processes: {text:?}");
    Ok(())
}

fn mounts(runtime: &Runtime) -> Result<()> {
    let text = sh(runtime, "mount; cat /proc/mounts")?;
    ensure!(text.contains(" on / type ") && text.contains(" /proc proc "), "no root or proc: {text:?}");
    let host = std::fs::read_to_string("/proc/mounts")?;
    for line in host.lines().filter(|line| line.starts_with("/dev/")) {
        ensure!(!text.contains(line), "a mount of the host shows: {line}");
    }
    Ok(())
}

fn maps(runtime: &Runtime) -> Result<()> {
    let text = sh(runtime, "cat /proc/self/maps")?;
    ensure!(text.contains("[stack]") && text.contains("/cat"), "not the maps of cat: {text:?}");
    ensure!(!text.contains("memfd"), "the sentry's memory file shows: {text:?}");
    Ok(())
}

/// lscpu reads `/sys` and `/proc/cpuinfo`: each processor is a core of its own, of one package and one node.
fn layout(runtime: &Runtime) -> Result<()> {
    let count: usize = sh(runtime, "nproc")?.trim().parse().context("nproc")?;
    let text = sh(runtime, "lscpu -p=CPU,CORE,SOCKET,NODE; grep -c ^processor /proc/cpuinfo")?;
    let expected = (0..count).map(|cpu| format!("{cpu},{cpu},0,0")).chain([count.to_string()]);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    ensure!(lines.iter().copied().eq(expected), "for {count} processors: {text:?}");
    let memory = sh(runtime, "sed -n 's/^MemTotal: *//p' /proc/meminfo")?;
    let host = std::fs::read_to_string("/proc/meminfo")?;
    ensure!(host.contains(memory.trim()), "the memory of no machine: {memory:?}");
    Ok(())
}

fn streams(runtime: &Runtime) -> Result<()> {
    let mut command = runtime.command();
    command.args(["do", "--", "sh", "-c", "tr a-z A-Z; echo err >&2; pwd; echo $GREETING; exit 42"]);
    command.env("GREETING", "hello there").current_dir("/usr");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe")?.write_all(b"some input\n")?;
    let (status, late) = run::wait_deadline(&mut child, LIMIT)?;
    let out = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(!late, "did not end: {text:?}");
    ensure!(run::code_of(status) == 42, "exit status {}, not 42", run::code_of(status));
    ensure!(text == "SOME INPUT\n/usr\nhello there\n", "prints {text:?}");
    ensure!(String::from_utf8_lossy(&out.stderr) == "err\n", "standard error: {:?}", out.stderr);
    Ok(())
}

fn host_files(runtime: &Runtime) -> Result<()> {
    let path = std::path::PathBuf::from(run::unique("/root/sentrybox-test"));
    let text = sh(runtime, &format!("echo x >{0} && cat {0}", path.display()))?;
    ensure!(text == "x\n", "the sandbox does not keep its own change: {text:?}");
    let leaked = path.exists();
    if leaked {
        std::fs::remove_file(&path)?;
    }
    ensure!(!leaked, "a write in the sandbox reached the host");
    Ok(())
}

fn start_up(runtime: &Runtime) -> Result<()> {
    let root = rootfs::ensure(false)?;
    let bundle = Bundle::scratch(runtime, &root, &["/bin/true"], false)?;
    let mut best = LIMIT;
    for _ in 0..10 {
        let start = Instant::now();
        let out = runtime.run(&bundle, LIMIT)?;
        ensure!(out.code == 0, "exit status {}: {}", out.code, out.stderr);
        best = best.min(start.elapsed());
    }
    ensure!(best <= START_UP, "{} ms", best.as_millis());
    Ok(())
}
