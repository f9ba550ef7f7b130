//! Bundles that mean no good, or are only odd: those that cannot be run are refused like other bad input, the others run as
//! under runc, and none makes the runtime wait.

use crate::Options;
use crate::bundle::{Bundle, Runtime, Scratch};
use crate::report::Report;
use crate::run::Output;
use anyhow::{Context, Result, ensure};
use nix::sys::stat::Mode;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time that each may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What is done to a bundle before it is run.
type Prepare<'a> = Box<dyn Fn(&Path) -> Result<()> + 'a>;

/// Says whether a run was refused as bad input should be.
pub(crate) type Judge<'a> = dyn Fn(&Attempt<'_>) -> Result<()> + 'a;

/// Runs a bundle.
pub(crate) type Attempt<'a> = dyn Fn() -> Result<Output> + 'a;

/// Replaces what is at a JSON pointer of a bundle's configuration.
fn set(dir: &Path, pointer: &str, value: &Value) -> Result<()> {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    *config.pointer_mut(pointer).with_context(|| format!("config.json has no {pointer}"))? = value.clone();
    Ok(std::fs::write(path, serde_json::to_vec(&config)?)?)
}

/// Adds mounts to a bundle's configuration.
fn add_mounts(dir: &Path, more: &[Value]) -> Result<()> {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let mounts = config.pointer_mut("/mounts").and_then(Value::as_array_mut).context("mounts")?;
    mounts.extend(more.iter().cloned());
    Ok(std::fs::write(path, serde_json::to_vec(&config)?)?)
}

fn bind(source: &Path) -> Value {
    json!({"destination": "/mnt/it", "type": "bind", "source": source, "options": ["bind", "ro"]})
}

fn run_with(runtime: &Runtime, root: &Path, args: &[&str], prepare: &Prepare<'_>) -> Result<Output> {
    let bundle = Bundle::scratch(runtime, root, args, false)?;
    prepare(&bundle.dir)?;
    runtime.run(&bundle, LIMIT)
}

/// Makes config.json a text that is nested deeper than any parser's stack allows.
fn nest(dir: &Path) -> Result<()> {
    let deep = 1 << 20;
    let text = format!("{{\"ociVersion\": \"1.0.2\", \"x\": {}{}}}", "[".repeat(deep), "]".repeat(deep));
    Ok(std::fs::write(dir.join("config.json"), text)?)
}

fn grow(dir: &Path) -> Result<()> {
    let file = std::fs::File::options().write(true).open(dir.join("config.json"))?;
    Ok(file.set_len(100 << 20)?)
}

fn make_fifo(dir: &Path) -> Result<()> {
    std::fs::remove_file(dir.join("config.json"))?;
    Ok(nix::unistd::mkfifo(&dir.join("config.json"), Mode::S_IRWXU)?)
}

/// Bundles that cannot be run; `judge` says whether they were refused as they should be.
pub(crate) fn refused(
    options: &Options,
    report: &mut Report,
    (runtime, root): (&Runtime, &Path),
    judge: &Judge<'_>,
) -> Result<()> {
    let scratch = Scratch::new()?;
    let circle = scratch.0.join("circle");
    std::os::unix::fs::symlink(&circle, &circle)?;
    let missing = scratch.0.join("missing");
    let mut cases: Vec<(String, Prepare<'_>)> = vec![
        ("config.json has 100 MB".to_owned(), Box::new(grow)),
        ("config.json is nested a million deep".to_owned(), Box::new(nest)),
        ("config.json is a FIFO".to_owned(), Box::new(make_fifo)),
        ("bind mount of what is missing".to_owned(), Box::new(move |dir| add_mounts(dir, &[bind(&missing)]))),
        (
            "bind mount of a circle of links".to_owned(),
            Box::new(move |dir| add_mounts(dir, &[bind(&circle)])),
        ),
    ];
    for pointer in
        ["/process/args/0", "/process/env/0", "/process/cwd", "/root/path", "/mounts/0/destination"]
    {
        let name = format!("config.json has a NUL in {pointer}");
        cases.push((name, Box::new(move |dir| set(dir, pointer, &json!("/a\0b=c")))));
    }
    for (name, prepare) in &cases {
        if options.selects(name) {
            report.record(name, judge(&|| run_with(runtime, root, &["true"], prepare)));
        }
    }
    Ok(())
}

/// Bundles that are odd and run all the same: what they print.
pub(crate) fn odd(options: &Options, report: &mut Report, runtime: &Runtime, root: &Path) -> Result<()> {
    let scratch = Scratch::new()?;
    let at = |name: &str| -> PathBuf { scratch.0.join(name) };
    std::fs::create_dir(at("folder"))?;
    std::fs::write(at("folder/file"), "inside")?;
    std::os::unix::fs::symlink("folder", at("link"))?;
    std::os::unix::fs::symlink("/etc/shadow", at("folder/out"))?;
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU)?;
    let (link, folder, fifo) = (at("link"), at("folder"), at("fifo"));
    let tmpfs = |to: &str| json!({"destination": to, "type": "tmpfs", "source": "tmpfs"});
    let cases: [(&str, &str, &str, Vec<Value>); 6] = [
        ("bind mount of a link to a folder", "cat /mnt/it/file", "inside", vec![bind(&link)]),
        (
            "a link in a bind mount means the container's file",
            "readlink /mnt/it/out; test ! -e /mnt/it/etc; cmp /mnt/it/out /etc/shadow && echo same",
            "/etc/shadow\nsame\n",
            vec![bind(&folder)],
        ),
        ("bind mount of a FIFO", "test -p /mnt/it && echo fifo", "fifo\n", vec![bind(&fifo)]),
        (
            "bind mount of a device",
            "test -c /mnt/it && head -c 3 /mnt/it | wc -c",
            "3\n",
            vec![bind(Path::new("/dev/zero"))],
        ),
        (
            "two mounts in one place",
            "echo x >/mnt/it/new; grep -c ' /mnt/it ' /proc/self/mounts; ls /mnt/it",
            "2\nnew\n",
            vec![bind(&folder), tmpfs("/mnt/it")],
        ),
        (
            "a destination that goes up",
            "grep -c ' /mnt/up ' /proc/self/mounts",
            "1\n",
            vec![tmpfs("/mnt/../../../mnt/up")],
        ),
    ];
    for (name, script, expected, mounts) in &cases {
        if options.selects(name) {
            let prepare: Prepare<'_> = Box::new(|dir| add_mounts(dir, mounts));
            let outcome = run_with(runtime, root, &["sh", "-c", script], &prepare);
            report.record(name, outcome.and_then(|out| printed(&out, expected)));
        }
    }
    Ok(())
}

fn printed(out: &Output, expected: &str) -> Result<()> {
    ensure!(!out.timed_out, "not ended after {LIMIT:?}");
    let (stdout, stderr) = (&out.stdout, out.stderr.trim());
    ensure!(stdout == expected && out.code == 0, "exit {}, {stdout:?}, {stderr:?}", out.code);
    Ok(())
}
