//! Bad input: one clear line, a non-zero exit, nothing left behind.

use crate::bundle::{Bundle, Runtime, Scratch};
use crate::report::Report;
use crate::run::Output;
use crate::{Options, hostile_bundle, proc, rootfs, run};
use anyhow::{Result, ensure};
use std::path::Path;
use std::time::Duration;

/// Runs every case.
///
/// # Errors
/// When the runtime cannot be built.
pub(crate) fn run(options: &Options) -> Result<Report> {
    proc::become_subreaper()?;
    let runtime = Runtime::from_options(options)?;
    let root = rootfs::ensure(false)?;
    let mut report = Report::default();
    let mut case = |name: &str, test: &dyn Fn() -> Result<Output>| {
        if options.selects(name) {
            report.record(name, judge(&runtime, test));
        }
    };
    let in_bundle = |prepare: &dyn Fn(&Path) -> Result<()>| -> Result<Output> {
        let bundle = Bundle::scratch(&runtime, &root, &["true"], false)?;
        prepare(&bundle.dir)?;
        runtime.run(&bundle, Duration::from_secs(10))
    };
    let edit = |from: &str, to: &str| {
        in_bundle(&|dir| {
            let path = dir.join("config.json");
            let text = std::fs::read_to_string(&path)?;
            ensure!(text.contains(from), "config.json has no {from}");
            Ok(std::fs::write(path, text.replace(from, to))?)
        })
    };
    case("config.json is missing", &|| in_bundle(&|dir| Ok(std::fs::remove_file(dir.join("config.json"))?)));
    case("config.json is empty", &|| in_bundle(&|dir| Ok(std::fs::write(dir.join("config.json"), "")?)));
    case("config.json is cut short", &|| {
        in_bundle(&|dir| Ok(std::fs::write(dir.join("config.json"), "{\"oci")?))
    });
    case("config.json is a list", &|| in_bundle(&|dir| Ok(std::fs::write(dir.join("config.json"), "[]")?)));
    case("config.json has a number for args", &|| edit("\"args\": [", "\"args\": 7, \"x\": ["));
    case("config.json has no args", &|| edit("\"true\"", ""));
    case("rootfs is missing", &|| edit(&root.display().to_string(), "/nonexistent/rootfs"));
    case("program is missing", &|| edit("\"true\"", "\"/no/such/program\""));
    case("program is a directory", &|| edit("\"true\"", "\"/etc\""));
    case("program is not executable", &|| edit("\"true\"", "\"/etc/passwd\""));
    for (name, image) in
        [("truncated ELF", truncated_elf()?), ("foreign ELF", foreign_elf()?), ("empty file", vec![])]
    {
        case(&format!("program is: {name}"), &|| with_program(&runtime, &image));
    }
    case("bundle is a file", &|| {
        let scratch = Scratch::new()?;
        let file = scratch.0.join("file");
        std::fs::write(&file, "")?;
        verb(&runtime, &["run", "--bundle", &file.display().to_string(), "x"])
    });
    case("bundle is missing", &|| verb(&runtime, &["run", "--bundle", "/no/such/bundle", "x"]));
    case("id has a slash", &|| {
        let bundle = Bundle::scratch(&runtime, &root, &["true"], false)?;
        verb(&runtime, &["run", "--bundle", &bundle.dir.display().to_string(), "../x"])
    });
    for args in [vec!["frobnicate"], vec!["run", "--no-such-flag", "x"], vec!["--no-such-flag", "list"]] {
        case(&format!("command line: {}", args.join(" ")), &|| verb(&runtime, &args));
    }
    for name in ["state", "start", "kill", "delete", "exec", "wait"] {
        let mut args = vec![name, "no-such-container"];
        args.extend((name == "exec").then_some("true"));
        case(&format!("{name} of an unknown container"), &|| verb(&runtime, &args));
    }
    for names in ["bogus", "read,no_such_call"] {
        case(&format!("--strace-syscalls={names}"), &|| {
            let bundle = Bundle::scratch(&runtime, &root, &["true"], false)?;
            let dir = bundle.dir.display().to_string();
            verb(&runtime, &[&format!("--strace-syscalls={names}"), "run", "--bundle", &dir, "x"])
        });
    }
    let refused = |test: &hostile_bundle::Attempt<'_>| judge(&runtime, test);
    hostile_bundle::refused(options, &mut report, (&runtime, &root), &refused)?;
    hostile_bundle::odd(options, &mut report, &runtime, &root)?;
    if options.selects("duplicate id") {
        report.record("duplicate id", duplicate(&runtime));
    }
    Ok(report)
}

fn verb(runtime: &Runtime, args: &[&str]) -> Result<Output> {
    run::output(runtime.command().args(args), Duration::from_secs(10))
}

/// A failed call: not zero, one line, no panic, no state, no process.
fn judge(runtime: &Runtime, test: &dyn Fn() -> Result<Output>) -> Result<()> {
    let before = proc::descendants();
    let out = test()?;
    ensure!(!out.timed_out, "not ended after 10 s: {}", out.stderr.trim());
    one_line(&out)?;
    run::until("its processes end", Duration::from_secs(3), || {
        let left: Vec<_> = proc::descendants().difference(&before).copied().collect();
        left.is_empty().then_some(())
    })?;
    let left: Vec<_> = std::fs::read_dir(&runtime.root)?.flatten().map(|e| e.file_name()).collect();
    ensure!(left.is_empty(), "left in the state folder: {left:?}");
    Ok(())
}

fn one_line(out: &Output) -> Result<()> {
    ensure!(out.code != 0, "exit status 0");
    let lines: Vec<&str> = out.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(lines.len() == 1, "{} lines on standard error: {}", lines.len(), out.stderr.trim());
    ensure!(!out.stderr.contains("panicked"), "a panic: {}", out.stderr.trim());
    Ok(())
}

fn with_program(runtime: &Runtime, image: &[u8]) -> Result<Output> {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new()?;
    for dir in ["proc", "dev", "tmp", "root", "sys"] {
        std::fs::create_dir(scratch.0.join(dir))?;
    }
    let program = scratch.0.join("program");
    std::fs::write(&program, image)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let bundle = Bundle::scratch(runtime, &scratch.0, &["/program"], false)?;
    runtime.run(&bundle, Duration::from_secs(10))
}

/// A program that ends within its ELF header.
fn truncated_elf() -> Result<Vec<u8>> {
    let mut image = std::fs::read(std::env::current_exe()?)?;
    image.truncate(60);
    Ok(image)
}

/// A program for another machine (EM_AARCH64).
fn foreign_elf() -> Result<Vec<u8>> {
    let mut image = std::fs::read("/bin/true")?;
    if let Some(machine) = image.get_mut(18) {
        *machine = 183;
    }
    Ok(image)
}

fn duplicate(runtime: &Runtime) -> Result<()> {
    let root = rootfs::ensure(false)?;
    let bundle = Bundle::scratch(runtime, &root, &["true"], false)?;
    let dir = bundle.dir.display().to_string();
    let id = run::unique("twice");
    let first = verb(runtime, &["create", "--bundle", &dir, &id])?;
    let second = verb(runtime, &["create", "--bundle", &dir, &id])?;
    let deleted = verb(runtime, &["delete", "--force", &id])?;
    ensure!(first.code == 0, "create gives {}: {}", first.code, first.stderr.trim());
    one_line(&second)?;
    ensure!(deleted.code == 0, "delete gives {}: {}", deleted.code, deleted.stderr.trim());
    Ok(())
}
