//! The host's scheduler, made fair for as long as sandboxes are tested, and the CPUs that they may use.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;

const AUTOGROUP: &str = "/proc/sys/kernel/sched_autogroup_enabled";

/// Keeps the scheduler from making a group of each session, and gives the setting back when it is dropped.
///
/// Linux 6.18 lets a group whose tasks wake each other on two CPUs keep both from all other groups for half a minute
/// (docs/platforms.md), and sandboxes do little else: one that is tested starves the next, and the kernel's own threads.
/// What is killed here leaves the setting off, which takes no more than the grouping.
#[derive(Debug)]
pub(crate) struct Ungrouped(bool);

impl Ungrouped {
    /// Says so where the setting cannot be written; the tests go on.
    pub(crate) fn new() -> Self {
        let on = fs::read_to_string(AUTOGROUP).is_ok_and(|text| text.trim() != "0");
        match on.then(|| fs::write(AUTOGROUP, "0")) {
            None => Self(false),
            Some(Ok(())) => Self(true),
            Some(Err(error)) => {
                println!(
                    "{AUTOGROUP} stays on ({error}): sandboxes may starve each other, and cases time out"
                );
                Self(false)
            }
        }
    }
}

impl Drop for Ungrouped {
    fn drop(&mut self) {
        if let Self(true) = self
            && let Err(error) = fs::write(AUTOGROUP, "1")
        {
            println!("{AUTOGROUP}: {error}");
        }
    }
}

/// Keeps what this thread starts on one CPU, until it is dropped.
#[derive(Debug)]
pub(crate) struct OneCpu(CpuSet);

impl OneCpu {
    /// # Errors
    /// When the host does not let it.
    pub(crate) fn new() -> Result<Self> {
        let this = Pid::from_raw(0);
        let all = sched_getaffinity(this)?;
        let first = (0..CpuSet::count()).find(|&cpu| all.is_set(cpu).unwrap_or(false)).context("no CPU")?;
        let mut one = CpuSet::new();
        one.set(first)?;
        sched_setaffinity(this, &one)?;
        Ok(Self(all))
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &self.0) {
            println!("this program stays on one CPU: {error}");
        }
    }
}
