//! Waiting where the requests come from.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

/// No CPU in particular.
const ANY: u32 = u32::MAX;

thread_local! {
    /// The CPU that this thread is bound to.
    static BOUND: Cell<u32> = const { Cell::new(ANY) };
}

/// Where the client last said that its requests come from.
///
/// A thread that sleeps is woken by the host wherever there is an idle CPU, which costs a multiple of what it costs to switch
/// to it on the CPU whose thread is about to wait for the answer.
#[derive(Debug)]
pub(super) struct Near {
    /// The CPUs that the server may use; nothing where there is no choice.
    all: Option<CpuSet>,
    cpu: AtomicU32,
}

impl Near {
    /// Nobody moves unless `follow`.
    pub(super) fn new(follow: bool) -> Self {
        let all = if follow { sched_getaffinity(Pid::from_raw(0)).ok() } else { None };
        let several =
            |all: &CpuSet| (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu) == Ok(true)).count() > 1;
        Self { all: all.filter(several), cpu: AtomicU32::new(ANY) }
    }

    /// The client said so. A CPU that the server may not use is none in particular.
    pub(super) fn set(&self, cpu: u32) {
        let usable = |all: CpuSet| usize::try_from(cpu).is_ok_and(|cpu| all.is_set(cpu) == Ok(true));
        self.cpu.store(if self.all.is_some_and(usable) { cpu } else { ANY }, Ordering::Relaxed);
    }

    /// Moves the calling thread there.
    pub(super) fn follow(&self) {
        let cpu = self.cpu.load(Ordering::Relaxed);
        let Some(all) = self.all.filter(|_| cpu != BOUND.get()) else { return };
        BOUND.set(cpu);
        let mut there = CpuSet::new();
        let one = usize::try_from(cpu).is_ok_and(|cpu| there.set(cpu).is_ok());
        // A host that does not allow it only costs time.
        sched_setaffinity(Pid::from_raw(0), if one { &there } else { &all }).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Vec<usize> {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
        (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap()).collect()
    }

    #[test]
    fn a_thread_follows_to_a_cpu_it_may_use_and_is_free_again() {
        let all = allowed();
        let (near, last) = (Near::new(true), *all.last().unwrap());
        near.set(u32::try_from(last).unwrap());
        near.follow();
        assert_eq!(allowed(), [last]);
        for no_cpu in [1023, 1024, 70_000, u32::MAX - 1, ANY] {
            near.set(no_cpu);
            near.follow();
            assert_eq!(allowed(), all);
        }
        let near = Near::new(false);
        near.set(u32::try_from(last).unwrap());
        near.follow();
        assert_eq!(allowed(), all);
    }
}
