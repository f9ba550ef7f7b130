//! `cargo xtask bench --quick`: natively and in the sandbox in one run; a table, and target/bench/quick.json.
//! `cargo xtask bench platform`: the platforms against each other and against the host.
//! `cargo xtask bench apps`: programs that people run.

mod apps;

use crate::bundle::{Bundle, Runtime};
use crate::posture::Sleeper;
use crate::{Options, build, proc, rootfs, run};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);
const STARTS: usize = 10;

/// Measures and prints.
///
/// # Errors
/// When something does not run.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if options.filters.iter().any(|name| name == "platform") {
        return platforms(options);
    }
    if options.filters.iter().any(|name| name == "apps") {
        return apps::run(options);
    }
    ensure!(options.has("--quick"), "there are bench --quick, bench platform and bench apps");
    proc::become_subreaper()?;
    let (guest, root) = guest_root()?;
    let runtime = Runtime::from_options(options)?;
    let native = parse(&run::output(&mut Command::new(&guest), LIMIT)?)?;
    let bundle = Bundle::scratch(&runtime, &root, &["/bench_guest"], false)?;
    let sandbox = parse(&runtime.run(&bundle, LIMIT)?)?;
    let mut rows: Vec<(String, f64, f64)> = Vec::new();
    for (name, ns) in &native {
        rows.push((format!("{name}, ns"), *ns, *sandbox.get(name).with_context(|| format!("no {name}"))?));
    }
    let debian = rootfs::ensure(false)?;
    let bundle = Bundle::scratch(&runtime, &debian, &["/bin/true"], false)?;
    let own = median_ms(|| run::output(&mut Command::new("/bin/true"), LIMIT))?;
    rows.push(("start-up: /bin/true, ms".to_owned(), own, median_ms(|| runtime.run(&bundle, LIMIT))?));
    let sleeper = Sleeper::start(&runtime)?;
    let pss: f64 = sleeper.pids.iter().map(|pid| pss_kb(*pid)).sum();
    rows.push(("idle memory (PSS), kB".to_owned(), 0.0, pss));
    println!("{:<28} {:>14} {:>14} {:>8}", "", "native", "sandbox", "ratio");
    for (name, native, sandbox) in &rows {
        let ratio = if *native > 0.0 { format!("{:.1}", sandbox / native) } else { "-".to_owned() };
        println!("{name:<28} {native:>14.1} {sandbox:>14.1} {ratio:>8}");
    }
    let rows: Vec<_> = rows.iter().map(|(n, a, b)| json!({"name": n, "native": a, "sandbox": b})).collect();
    std::fs::write(run::target("bench")?.join("quick.json"), serde_json::to_string_pretty(&rows)?)?;
    Ok(true)
}

/// The guest, and a root folder with it.
fn guest_root() -> Result<(PathBuf, PathBuf)> {
    let guest = build::cargo_build("conformance", "bench_guest", true)?;
    let root = run::target("bench/rootfs")?;
    for dir in ["proc", "dev", "tmp", "root", "sys"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    std::fs::copy(&guest, root.join("bench_guest"))?;
    Ok((guest, root))
}

/// How often each is measured by `bench platform`.
const ROUNDS: usize = 5;

/// Measures each platform, and systrap without patches, against the same guest natively: medians, in turn.
fn platforms(options: &Options) -> Result<bool> {
    let (guest, root) = guest_root()?;
    let kinds: [(&str, &[&str]); 3] = [
        ("systrap", &["--platform=systrap"]),
        ("unpatched", &["--platform=systrap", "--systrap-disable-syscall-patching"]),
        ("ptrace", &["--platform=ptrace"]),
    ];
    let mut seen: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut note = |column: usize, found: BTreeMap<String, f64>| {
            for (name, ns) in found {
                let columns = seen.entry(name).or_insert_with(|| vec![Vec::new(); kinds.len() + 1]);
                columns.get_mut(column).into_iter().for_each(|times| times.push(ns));
            }
        };
        note(0, parse(&run::output(&mut Command::new(&guest), LIMIT)?)?);
        for (column, (_, flags)) in (1..).zip(kinds) {
            let mut runtime = Runtime::from_options(options)?;
            runtime.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
            let bundle = Bundle::scratch(&runtime, &root, &["/bench_guest"], false)?;
            note(column, parse(&runtime.run(&bundle, LIMIT)?)?);
        }
    }
    print!("{:<20} {:>12}", "ns an operation", "native");
    kinds.iter().for_each(|(name, _)| print!(" {name:>12} {:>8}", "ratio"));
    println!();
    for (name, columns) in &mut seen {
        columns.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
        let median = |times: &Vec<f64>| times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
        let native = columns.first().map_or(f64::NAN, median);
        print!("{name:<20} {native:>12.1}");
        for times in columns.iter().skip(1) {
            print!(" {:>12.1} {:>8.2}", median(times), median(times) / native);
        }
        println!();
    }
    Ok(true)
}

fn parse(out: &run::Output) -> Result<BTreeMap<String, f64>> {
    ensure!(out.code == 0, "bench_guest gives {}: {}", out.code, out.stderr.trim());
    let pairs = out.stdout.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, ns)| Ok((name.to_owned(), ns.trim().parse()?))).collect()
}

fn median_ms(mut once: impl FnMut() -> Result<run::Output>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let start = Instant::now();
        let out = once()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(out.code == 0, "exit status {}: {}", out.code, out.stderr.trim());
    }
    times.sort_by(f64::total_cmp);
    times.get(STARTS / 2).copied().context("no run")
}

fn pss_kb(pid: proc::Pid) -> f64 {
    let text = proc::read(pid, "smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
