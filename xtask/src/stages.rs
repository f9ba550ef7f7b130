//! The stages of `cargo xtask test`: each by name, with its time, and one line at the end.

use crate::report::Report;
use crate::{
    Options, apt, bad_input, build, conformance, containerd, docker, oci, podman, pods, posture, run,
    scheduler, storm, systemd, userland, world,
};
use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::{Duration, Instant};

type Stage = (&'static str, fn(&Options) -> Result<Report>);

/// In the order in which they run: what fails fast comes first.
const STAGES: [Stage; 18] = [
    ("tidy", |_| cargo_tests(&["test", "--package", "xtask"])),
    ("fmt", |_| cargo(&["fmt", "--all", "--check"])),
    ("clippy", |_| cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("unit", |_| cargo_tests(&["test", "--workspace", "--no-fail-fast", "--exclude", "xtask"])),
    ("build", |_| build::release().and_then(|_| build::shim()).map(|_| one_passed())),
    ("conformance", conformance::run),
    ("one-cpu", conformance::run_on_one_cpu),
    ("world", world::run),
    ("posture", posture::run),
    ("bad-input", bad_input::run),
    ("pods", pods::run),
    ("oci", oci::run),
    ("storm", storm::run),
    ("userland", userland::run),
    ("systemd", systemd::run),
    ("docker", docker::run),
    ("containerd", containerd::run),
    ("podman", podman::run),
];

/// What all stages together may take, with some room below the quarter of an hour that CI gives.
const ALL_STAGES: Duration = Duration::from_secs(14 * 60);

/// Runs the stages that are named, or all; with `--list`, says which there are.
///
/// # Errors
/// When a stage that is named does not exist.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if options.has("--list") {
        STAGES.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(true);
    }
    if let Some(unknown) = options.filters.iter().find(|f| !STAGES.iter().any(|(name, _)| name == f)) {
        bail!("no stage {unknown}");
    }
    run::limit_all(ALL_STAGES);
    let mut inner = Options { filters: Vec::new(), ..options.clone() };
    inner.flags.push("--quick".to_owned());
    let mut total = Report::default();
    apt::ensure(&["gcc", "binutils", "util-linux"])?;
    let _ungrouped = scheduler::Ungrouped::new();
    for (name, stage) in STAGES.iter().filter(|(name, _)| options.filters.is_empty() || options.selects(name))
    {
        total.add(timed(name, *stage, &inner));
    }
    Ok(summary(&total))
}

/// Runs one stage, the filters being its own.
///
/// # Errors
/// When it does not exist.
pub(crate) fn run_one(name: &str, options: &Options) -> Result<bool> {
    let stage =
        STAGES.iter().find(|(stage, _)| *stage == name).with_context(|| format!("no stage {name}"))?;
    let _ungrouped = scheduler::Ungrouped::new();
    Ok(summary(&timed(stage.0, stage.1, options)))
}

fn timed(name: &str, stage: fn(&Options) -> Result<Report>, options: &Options) -> Report {
    println!("== {name}");
    let start = Instant::now();
    let report = stage(options).unwrap_or_else(|error| {
        println!("  FAIL  {error:#}");
        Report { passed: 0, failures: vec![format!("{name}: {error:#}")] }
    });
    let seconds = start.elapsed().as_secs_f64();
    println!("== {name}: {} passed, {} failed, {seconds:.1} s", report.passed, report.failures.len());
    report
}

fn summary(report: &Report) -> bool {
    for failure in &report.failures {
        println!("failed: {}", failure.lines().next().unwrap_or_default());
    }
    println!("{} passed, {} failed", report.passed, report.failures.len());
    report.failures.is_empty()
}

fn one_passed() -> Report {
    Report { passed: 1, failures: Vec::new() }
}

fn cargo_command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.args(args);
    command
}

fn cargo(args: &[&str]) -> Result<Report> {
    run::check(&mut cargo_command(args)).map(|()| one_passed())
}

/// Runs `cargo test`, and counts what it counted.
fn cargo_tests(args: &[&str]) -> Result<Report> {
    let out = run::output(&mut cargo_command(args), Duration::from_secs(800))?;
    let mut report = Report::default();
    for line in out.stdout.lines() {
        if line.starts_with("test result:") {
            let words: Vec<&str> = line.split_whitespace().collect();
            let passed = words.windows(2).find_map(|pair| match pair {
                [n, "passed;"] => n.parse::<usize>().ok(),
                _ => None,
            });
            report.passed += passed.unwrap_or(0);
        } else if line.starts_with("test ") && line.ends_with("FAILED") {
            report.failures.push(line.to_owned());
        }
    }
    if out.code != 0 {
        println!("{}\n{}", out.stdout, out.stderr);
        if report.failures.is_empty() {
            bail!("cargo {} gives {}", args.join(" "), out.code);
        }
    }
    Ok(report)
}
