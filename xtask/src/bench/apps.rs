//! `cargo xtask bench apps`: what people run, in the Debian root, natively and in the sandbox.

use crate::bundle::{Bundle, Runtime, Scratch};
use crate::run::Output;
use crate::{Options, build, rootfs, run};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
/// How often everything is measured, in turn.
const ROUNDS: usize = 5;

/// What is measured, as the guests call it and as it is printed, and how many times native it may take.
const CASES: [(&str, &str, f64); 5] = [
    ("cpu", "computing on every CPU", 1.02),
    ("gcc", "gcc, 5,000 lines", 1.25),
    ("python3", "python3 -c pass", 1.5),
    ("git", "git status, 5,000 files", 2.0),
    ("loop", "300 times /bin/true", 3.0),
];

/// Makes a root that may be written to, over one that stays as it is, and then executes the rest of the arguments. What
/// runs natively and what runs in the sandbox have the same files below them.
const OVER: &str = r#"set -e; root=$1; work=$2; program=$3; shift 3
    mount -t tmpfs tmpfs "$work"; mkdir "$work/up" "$work/wk" "$work/m"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/up,workdir=$work/wk" "$work/m"
    cp "$program" "$work/m/root/bench_guest"; exec "$@""#;
/// Goes on natively.
const NATIVE: &str = r#"set -e; m=$1; shift
    mount -t proc proc "$m/proc"; mount -t tmpfs tmpfs "$m/tmp"; mount --bind /dev "$m/dev"; exec chroot "$m" "$@""#;
/// What both execute.
const SCRIPT: &str = concat!("/root/bench_guest cpu\n", include_str!("apps.sh"));

/// One way to run the script.
#[derive(Debug)]
struct Column {
    title: &'static str,
    /// The runtime; none natively.
    runtime: Option<Runtime>,
    /// All that was measured, by name.
    seen: BTreeMap<String, Vec<f64>>,
}

/// Measures and prints.
///
/// # Errors
/// When something does not run.
pub(super) fn run(options: &Options) -> Result<bool> {
    let root = rootfs::ensure(false)?;
    let guest = build::cargo_build("conformance", "bench_guest", true)?;
    let written = |overlay: &str| -> Result<Runtime> {
        let mut runtime = Runtime::from_options(options)?;
        if runtime.is_ours() {
            runtime.flags.retain(|flag| !flag.starts_with("--overlay2"));
            runtime.flags.push(format!("--overlay2={overlay}"));
        }
        Ok(runtime)
    };
    let column = |title, runtime| Column { title, runtime, seen: BTreeMap::new() };
    let mut columns = [
        column("native", None),
        column("written", Some(written("none")?)),
        column("memory", Some(written("root:memory")?)),
    ];
    for _ in 0..ROUNDS {
        for column in &mut columns {
            let out = once(column.runtime.as_ref(), &root, &guest)?;
            ensure!(out.code == 0, "{}: exit status {}: {}", column.title, out.code, out.stderr.trim());
            for (name, value) in out.stdout.lines().filter_map(|line| line.split_once(' ')) {
                column.seen.entry(name.to_owned()).or_default().push(value.trim().parse()?);
            }
        }
    }
    println!(
        "ms, the median of all runs of {ROUNDS} rounds; \"written\": changes go to the host, \"memory\": they do not"
    );
    print!("{:<26}", "");
    columns.iter().for_each(|column| print!(" {:>9} {:>7}", column.title, "ratio"));
    println!(" {:>7}", "bar");
    for (name, title, bar) in CASES {
        print!("{title:<26}");
        let mut native = None;
        for column in &mut columns {
            let ms = column.median(name)? / 1e3;
            print!(" {ms:>9.1} {:>7.2}", ms / *native.get_or_insert(ms));
        }
        println!(" {bar:>7.2}");
    }
    Ok(true)
}

impl Column {
    fn median(&mut self, name: &str) -> Result<f64> {
        let values = self.seen.get_mut(name).with_context(|| format!("{}: no {name}", self.title))?;
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().with_context(|| format!("{}: no {name}", self.title))
    }
}

/// Runs the script once.
fn once(runtime: Option<&Runtime>, root: &Path, guest: &Path) -> Result<Output> {
    let scratch = Scratch::new()?;
    let over = scratch.0.join("m");
    let script = ["bash", "-c", SCRIPT];
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", OVER, "sh"]);
    command.arg(root).arg(&scratch.0).arg(guest);
    let Some(runtime) = runtime else {
        command.args(["sh", "-c", NATIVE, "sh"]).arg(&over).args(script);
        return run::output(&mut command, LIMIT);
    };
    let bundle = Bundle::new(&over, &script, false, true)?;
    let start = runtime.command();
    command.arg(start.get_program()).args(start.get_args());
    command.arg("run").arg("--bundle").arg(&bundle.dir).arg(run::unique("apps"));
    run::output(&mut command, LIMIT)
}
