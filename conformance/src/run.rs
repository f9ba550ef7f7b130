//! Runs cases: each in a forked child, in a fresh directory, with a deadline.

use crate::case::{Case, Failure, Topic};
use crate::child::{Ended, fork_child, wait_for};
use crate::sys::{monotonic_ns, pipe, sys, write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a case may take before its process group is killed: one that hangs is found, and one that uses two seconds of
/// processor time has them on a busy machine too.
const CASE_TIMEOUT_MS: u64 = 30_000;

fn matches(filters: &[String], topic: &Topic, case: &Case) -> bool {
    let full = format!("{}::{}", topic.name, case.name);
    filters.is_empty()
        || filters.iter().any(|f| match f.strip_suffix('*') {
            Some(start) => full.starts_with(start),
            None => f == topic.name || *f == full,
        })
}

fn selected(filters: &[String]) -> Vec<(&'static Topic, &'static Case)> {
    let all = crate::topics::ALL.iter().flat_map(|topic| topic.cases.iter().map(move |case| (topic, case)));
    all.filter(|(topic, case)| matches(filters, topic, case)).collect()
}

/// `guest list`.
pub(crate) fn list(filters: &[String]) -> ExitCode {
    for (topic, case) in selected(filters) {
        println!("{}::{}", topic.name, case.name);
    }
    ExitCode::SUCCESS
}

/// `guest one`.
pub(crate) fn one(filters: &[String]) -> ExitCode {
    let mut cases = selected(filters);
    if cases.len() > 1 {
        // One case's name may begin another's.
        cases.retain(|(topic, case)| filters.contains(&format!("{}::{}", topic.name, case.name)));
    }
    let [(topic, case)] = cases.as_slice() else {
        eprintln!("guest: {filters:?} names {} cases, not one", cases.len());
        return ExitCode::from(2);
    };
    match (case.run)() {
        Ok(()) => {
            println!("ok {}::{}", topic.name, case.name);
            ExitCode::SUCCESS
        }
        Err(Failure(message)) => {
            println!("FAIL {}::{}: {message}", topic.name, case.name);
            ExitCode::FAILURE
        }
    }
}

/// `guest run`.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let (base, filters) = match args {
        [flag, dir, rest @ ..] if flag == "--dir" => (PathBuf::from(dir), rest),
        _ => (PathBuf::from("/tmp"), args),
    };
    let cases = selected(filters);
    if cases.is_empty() {
        eprintln!("guest: no case matches {filters:?}");
        return ExitCode::from(2);
    }
    let (mut passed, mut failed) = (0, 0);
    for (topic, case) in cases {
        let dir = base.join(format!("guest.{}.{}.{}", std::process::id(), topic.name, case.name));
        match run_case(case, &dir) {
            Ok(()) => {
                passed += 1;
                println!("ok {}::{}", topic.name, case.name);
            }
            Err(Failure(message)) => {
                failed += 1;
                println!("FAIL {}::{}: {}", topic.name, case.name, message.replace('\n', " | "));
            }
        }
        let _ = std::fs::remove_dir_all(&dir);
    }
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// Runs a case in a child of its own, which reports by a pipe: 'k', or 'f' and a message.
fn run_case(case: &Case, dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir(dir).map_err(|e| Failure(format!("mkdir {}: {e}", dir.display())))?;
    let (reader, writer) = pipe(libc::O_CLOEXEC)?;
    let pid = fork_child(|| {
        // SAFETY: takes no pointers; the child leads a group that can be killed as a whole.
        unsafe { libc::setpgid(0, 0) };
        let outcome = match std::env::set_current_dir(dir) {
            Ok(()) => (case.run)(),
            Err(error) => Err(Failure(format!("chdir: {error}"))),
        };
        let report = match outcome {
            Ok(()) => vec![b'k'],
            Err(Failure(message)) => [b"f", &message.as_bytes()[..message.len().min(4000)]].concat(),
        };
        i32::from(write(writer.as_raw_fd(), &report).is_err())
    })?;
    drop(writer);
    let mut buf = [0u8; 4096];
    let report = read_before(reader.as_raw_fd(), &mut buf, monotonic_ns() + CASE_TIMEOUT_MS * 1_000_000);
    if matches!(report, Ok(None)) {
        let _ = sys!(kill(pid, libc::SIGKILL));
    }
    let ended = wait_for(pid)?;
    // Whatever the case left behind in its group.
    let _ = sys!(kill(-pid, libc::SIGKILL));
    match (report?, ended) {
        (None, _) => Err(Failure(format!("no result after {} s", CASE_TIMEOUT_MS / 1000))),
        (Some(0), ended) => Err(Failure(format!("ended without a result: {ended:?}"))),
        (Some(1), Ended::Exited(0)) if buf[0] == b'k' => Ok(()),
        (Some(_), Ended::Exited(_)) if buf[0] == b'k' => {
            Err(Failure(format!("passed, but then ended by {ended:?}")))
        }
        (Some(n), _) => Err(Failure(String::from_utf8_lossy(&buf[1..n]).into_owned())),
    }
}

/// Reads once, or gives `None` at the deadline.
fn read_before(fd: i32, buf: &mut [u8], deadline_ns: u64) -> Result<Option<usize>, Failure> {
    loop {
        let now = monotonic_ns();
        if now >= deadline_ns {
            return Ok(None);
        }
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let timeout_ms = (deadline_ns - now) / 1_000_000 + 1;
        match sys!(poll(&mut poll, 1, timeout_ms as i32)) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(crate::sys::read(fd, buf)?)),
            Err(error) if error.errno == libc::EINTR => {}
            Err(error) => return Err(error.into()),
        }
    }
}
