//! Runs the guests' cases natively, then in the sandbox, and compares with the list of known differences.

use crate::bundle::{Bundle, Runtime};
use crate::report::Report;
use crate::scheduler::OneCpu;
use crate::{Options, build, run};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Cases run where none is named.
pub(crate) const PLATFORMS: [&str; 2] = ["systrap", "ptrace"];

/// What all cases together may take on one platform.
const PLATFORM_TIME: Duration = Duration::from_secs(240);

/// How long a sandbox may print nothing: more than a case may take before the guest itself gives up on it.
const SILENCE: Duration = Duration::from_secs(40);

/// Each case's message; `None` for a pass.
type Results = BTreeMap<String, Option<String>>;

/// Runs the cases that the options select on each platform.
///
/// # Errors
/// When the guest or the runtime cannot be built or started.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let repeat: usize =
        options.repeat.as_deref().unwrap_or("1").parse().context("--repeat takes a number")?;
    let guest = build::cargo_build("conformance", "guest", false)?;
    let listed =
        run::output(Command::new(&guest).arg("list").args(&options.filters), Duration::from_secs(10))?;
    let cases: Vec<String> = listed.stdout.lines().map(str::to_owned).collect();
    if cases.is_empty() {
        bail!("no case matches {:?}", options.filters);
    }
    let _one_cpu = options.has("--one-cpu").then(OneCpu::new).transpose()?;
    let mut report = Report::default();
    let native = by_topic(&cases, |topic, filters| native_topic(&guest, topic, filters))?;
    table("native", &cases, &native);
    judge(&mut report, "native", &cases, &native, &BTreeMap::new());
    if options.has("--native") {
        return Ok(report);
    }
    let expected_text = std::fs::read_to_string(run::workspace().join("conformance/expect.txt"))?;
    let platforms = match (&options.platform, &options.runtime) {
        (Some(platform), _) => vec![platform.clone()],
        (None, Some(path)) => vec![format!("runtime {path}")],
        (None, None) => PLATFORMS.iter().map(|&platform| platform.to_owned()).collect(),
    };
    for platform in platforms {
        let mut options = options.clone();
        if options.runtime.is_none() {
            options.platform = Some(platform.clone());
        }
        let runtime = Runtime::from_options(&options)?;
        let rootfs = guest_root(&guest)?;
        let expected = expectations(&expected_text, &platform)?;
        for round in 1..=repeat {
            let end = Instant::now() + PLATFORM_TIME;
            let results = by_topic(&cases, |_, filters| sandbox_topic(&runtime, &rootfs, filters, end))?;
            if round == 1 {
                table(&platform, &cases, &results);
            }
            judge(&mut report, &platform, &cases, &results, &expected);
            if round % 10 == 0 {
                println!("  round {round} of {repeat}: {} failed", report.failures.len());
            }
        }
    }
    Ok(report)
}

/// Runs all cases on the default platform, which then has one CPU: threads that wait for each other hand it over.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_on_one_cpu(options: &Options) -> Result<Report> {
    let mut options = options.clone();
    options.flags.push("--one-cpu".to_owned());
    options.platform = Some(PLATFORMS[0].to_owned());
    run(&options)
}

/// The root of the container: the guest, and the folders that are mounted over.
fn guest_root(guest: &Path) -> Result<PathBuf> {
    let root = run::target("conformance/rootfs")?;
    for dir in ["proc", "dev", "tmp", "root", "etc", "sys"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    let fresh = root.join(".guest");
    std::fs::copy(guest, &fresh)?;
    std::fs::rename(&fresh, root.join("guest"))?;
    Ok(root)
}

/// Runs each topic once, two at a time.
fn by_topic(cases: &[String], run: impl Fn(&str, &[String]) -> Result<Results> + Sync) -> Result<Results> {
    let mut topics: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for case in cases {
        topics.entry(case.split("::").next().unwrap_or_default()).or_default().push(case.clone());
    }
    let topics: Vec<_> = topics.into_iter().collect();
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Results> {
        let mut results = Results::new();
        while let Some((topic, filters)) = topics.get(next.fetch_add(1, Ordering::Relaxed)) {
            results.extend(run(topic, filters).with_context(|| format!("topic {topic}"))?);
        }
        Ok(results)
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        let mut results = Results::new();
        for thread in workers {
            match thread.join() {
                Ok(found) => results.extend(found?),
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(results)
    })
}

fn limit(filters: &[String]) -> Duration {
    let cases = u64::try_from(filters.len()).unwrap_or(u64::MAX);
    Duration::from_secs(60 + cases.min(60) * 2)
}

/// Runs a topic natively, in namespaces of its own with an empty /tmp, which hides a guest that was built below it.
fn native_topic(guest: &Path, _topic: &str, filters: &[String]) -> Result<Results> {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
    ]);
    const SCRIPT: &str = "exec 9<\"$1\" && shift && mount -t tmpfs tmpfs /tmp && mkdir /tmp/.guest \
        && cp /proc/self/fd/9 /tmp/.guest/guest && chmod 755 /tmp/.guest/guest && exec 9<&- \
        && exec /tmp/.guest/guest \"$@\"";
    command.arg(SCRIPT).arg("sh").arg(guest).arg("run").args(filters);
    Ok(parse(&run::output(&mut command, limit(filters))?))
}

/// Runs a topic in a sandbox. One that ends or hangs within a case is held against that case, and another sandbox
/// goes on behind it, until the time is over or nothing starts any more.
fn sandbox_topic(runtime: &Runtime, rootfs: &Path, filters: &[String], end: Instant) -> Result<Results> {
    let mut results = Results::new();
    let mut fruitless = 0;
    let mut rest = filters;
    while !rest.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || fruitless == 2 {
            let why = if left.is_zero() { "the time for all cases is over" } else { "no case before it ran" };
            results.extend(rest.iter().map(|case| (case.clone(), Some(format!("not run: {why}")))));
            break;
        }
        let mut args = vec!["/guest", "run"];
        args.extend(rest.iter().map(String::as_str));
        let bundle = Bundle::scratch(runtime, rootfs, &args, false)?;
        let out = runtime.run_watched(&bundle, limit(rest).min(left), SILENCE)?;
        let found = parse(&out);
        let done = rest.iter().take_while(|case| found.contains_key(*case)).count();
        fruitless = if done == 0 { fruitless + 1 } else { 0 };
        results.extend(found);
        let Some(broken) = rest.get(done) else { break };
        results.insert(broken.clone(), Some(ending(&out)));
        rest = rest.get(done + 1..).unwrap_or_default();
    }
    Ok(results)
}

/// Why there is no result, from how the sandbox ended.
fn ending(out: &run::Output) -> String {
    let last = out.stderr.lines().last().unwrap_or_default();
    if out.timed_out {
        format!("the sandbox hangs: {last}")
    } else {
        format!("the sandbox ends with {}: {last}", out.code)
    }
}

/// Reads what the guest printed; what it does not mention has no result, which `judge` counts as a failure.
fn parse(out: &run::Output) -> Results {
    let mut results = Results::new();
    for line in out.stdout.lines() {
        if let Some(name) = line.strip_prefix("ok ") {
            results.insert(name.to_owned(), None);
        } else if let Some((name, message)) =
            line.strip_prefix("FAIL ").and_then(|rest| rest.split_once(": "))
        {
            results.insert(name.to_owned(), Some(message.to_owned()));
        }
    }
    if out.timed_out || (out.code != 0 && out.code != 1) {
        println!(
            "  exit {}{}: {}",
            out.code,
            if out.timed_out { " (deadline)" } else { "" },
            tail(&out.stderr)
        );
    }
    results
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let skip = lines.len().saturating_sub(12);
    lines.iter().skip(skip).copied().collect::<Vec<_>>().join("\n    ")
}

/// The known differences of one platform, with reasons.
fn expectations(text: &str, platform: &str) -> Result<BTreeMap<String, String>> {
    let mut expected = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let (Some(on), Some(case), Some(reason)) = (words.next(), words.next(), words.next()) else {
            bail!("expect.txt: a line is PLATFORM TOPIC::CASE REASON, not {line:?}");
        };
        if on == "*" || on == platform {
            expected.insert(case.to_owned(), reason.to_owned());
        }
    }
    Ok(expected)
}

/// Counts each case: an unexpected failure and an unexpected pass both fail.
fn judge(
    report: &mut Report,
    on: &str,
    cases: &[String],
    results: &Results,
    expected: &BTreeMap<String, String>,
) {
    for case in cases {
        let wrong = match (results.get(case), expected.get(case)) {
            (Some(None), None) | (Some(Some(_)) | None, Some(_)) => None,
            (Some(None), Some(reason)) => Some(format!("passes, though expect.txt says: {reason}")),
            (Some(Some(message)), None) => Some(message.clone()),
            (None, None) => Some("no result".to_owned()),
        };
        match wrong {
            None => report.passed += 1,
            Some(message) => {
                println!("  FAIL  {on} {case}: {message}");
                report.failures.push(format!("{on} {case}: {message}"));
            }
        }
    }
}

fn table(on: &str, cases: &[String], results: &Results) {
    let mut rows: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for case in cases {
        let row = rows.entry(case.split("::").next().unwrap_or_default()).or_default();
        row.1 += 1;
        row.0 += usize::from(results.get(case) == Some(&None));
    }
    println!("  conformance on {on}:");
    for (topic, (passed, all)) in rows {
        println!("    {topic:<20} {passed:>4} of {all:>4}{}", if passed == all { "" } else { "  <--" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unexpected_pass_and_failure_count_as_failures() {
        let cases = ["a::x", "a::y", "a::z", "a::w"].map(str::to_owned);
        let out = run::Output {
            code: 1,
            stdout: "ok a::x\nFAIL a::y: why\nok a::z\n1 passed\n".to_owned(),
            stderr: String::new(),
            timed_out: false,
        };
        let expected =
            expectations("# c\nptrace a::z known\nother a::y no\n", "ptrace").expect("well-formed");
        let mut report = Report::default();
        judge(&mut report, "ptrace", &cases, &parse(&out), &expected);
        assert_eq!(report.passed, 1);
        assert_eq!(report.failures.len(), 3);
    }
}
