//! Whether the host's scheduler lets one group starve another: some pairs of threads that wake each other by pipes run in
//! a session of their own, and on each CPU one program that only computes in another. Prints what that program gets.
//!
//! `group_starvation [PAIRS [SECONDS]]`; sessions are groups where /proc/sys/kernel/sched_autogroup_enabled is 1.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people to run")]
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, setsid};
use std::io::{Read, Write, pipe};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A gap in a computing program's time that is longer belongs to others.
const GAP: Duration = Duration::from_micros(50);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["pairs", pairs, seconds] => ping(pairs.parse().unwrap(), seconds.parse().unwrap()),
        ["hog", cpu, seconds] => compute(cpu.parse().unwrap(), seconds.parse().unwrap()),
        rest => {
            let pairs = rest.first().unwrap_or(&"2");
            let seconds = rest.get(1).unwrap_or(&"5");
            let start = |args: [&str; 3]| -> Child {
                Command::new(std::env::current_exe().unwrap()).args(args).spawn().unwrap()
            };
            let cpus = cpus().into_iter().map(|cpu| start(["hog", &cpu.to_string(), seconds]));
            let children: Vec<Child> = cpus.chain([start(["pairs", pairs, seconds])]).collect();
            children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
        }
    }
}

fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap()).collect()
}

fn bind(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// Two threads a pair, both on one CPU.
fn ping(pairs: usize, seconds: u64) {
    setsid().unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    for cpu in cpus().into_iter().cycle().take(pairs) {
        let ((mut there, mut to), (mut back, mut from)) = (pipe().unwrap(), pipe().unwrap());
        std::thread::spawn(move || {
            bind(cpu);
            let mut byte = [0];
            while there.read(&mut byte).is_ok_and(|n| n == 1) && from.write_all(&byte).is_ok() {}
        });
        std::thread::spawn(move || {
            bind(cpu);
            let mut byte = [0];
            while to.write_all(&byte).is_ok() && back.read(&mut byte).is_ok_and(|n| n == 1) {}
        });
    }
    std::thread::sleep(end - Instant::now());
}

fn compute(cpu: usize, seconds: u64) {
    setsid().unwrap();
    bind(cpu);
    let start = Instant::now();
    let (mut last, mut longest, mut own) = (start, Duration::ZERO, Duration::ZERO);
    while last - start < Duration::from_secs(seconds) {
        let now = Instant::now();
        longest = longest.max(now - last);
        own += if now - last < GAP { now - last } else { Duration::ZERO };
        last = now;
    }
    let share = own.as_secs_f64() / (last - start).as_secs_f64();
    println!("cpu {cpu}: {:.0} % of the time, longest wait {} ms", share * 100.0, longest.as_millis());
}
