//! On which CPU a sentry thread and its guest thread run: together, because a switch on one CPU costs an eighth of one
//! across two, and the host's scheduler, left alone, would wake each of them wherever it finds an idle CPU.
//!
//! A pair moves when another pair was just seen on its CPU while some CPU saw none for a while. For the load of the rest of
//! the machine the host's scheduler is asked: for one switch whenever the pair has been bound for long, and as long as the
//! guest runs without a trap to speak of. Nothing ticks.
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::sys::ticks;

/// The ticks of the time stamp counter, some milliseconds to ten of them, after which a place is reconsidered.
const BOUND_TICKS: u64 = 1 << 25;
/// The ticks, around a millisecond, for which a pair stays where it is in any case.
const MOVE_TICKS: u64 = 1 << 21;
/// The ticks, around a tenth of a millisecond, after which a CPU counts as free.
const QUIET_TICKS: u64 = 1 << 18;
/// The ticks, around a millisecond, from which a stay in the guest is long: the cost of waking another CPU is lost in it.
const LONG_TICKS: u64 = 1 << 21;

thread_local! {
    /// The CPU that this thread is bound to, and since when.
    static BOUND: Cell<Option<(usize, u64)>> = const { Cell::new(None) };
}

/// The CPUs that the process may use, and what its pairs do there; nothing if there is one only.
#[derive(Clone, Debug)]
pub(crate) struct Cpus(Option<Arc<Machine>>);

#[derive(Debug)]
struct Machine {
    all: CpuSet,
    loads: Vec<Load>,
}

/// What was seen on one CPU. Hints, each by itself; on cache lines of their own, which stay with the CPU.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Load {
    number: usize,
    /// Pairs whose guest runs.
    inside: AtomicU32,
    /// The pair that entered last.
    last: AtomicI32,
    /// When one entered or left.
    seen: AtomicU64,
}

impl Load {
    fn is_quiet(&self, now: u64) -> bool {
        // The counters of two CPUs may differ a little; the future is now.
        let ago = now.saturating_sub(self.seen.load(Relaxed));
        self.inside.load(Relaxed) == 0 && ago > QUIET_TICKS
    }

    fn is_shared(&self, tid: i32, now: u64) -> bool {
        self.last.load(Relaxed) != tid && !self.is_quiet(now)
    }
}

impl Cpus {
    /// Those of the calling thread.
    pub(crate) fn allowed() -> Self {
        let Ok(all) = sched_getaffinity(Pid::from_raw(0)) else {
            return Self(None);
        };
        let member = |number: &usize| all.is_set(*number).unwrap_or(false);
        let load = |number| Load { number, ..Load::default() };
        let loads: Vec<Load> = (0..CpuSet::count()).filter(member).map(load).collect();
        Self((loads.len() > 1).then(|| Arc::new(Machine { all, loads })))
    }
}

impl Cpus {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |machine| machine.loads.len())
    }
}

impl Machine {
    fn load(&self, cpu: usize) -> Option<&Load> {
        self.loads.iter().find(|load| load.number == cpu)
    }

    /// A CPU better than `cpu` for a pair, which nobody else gets at the same moment.
    fn better_than(&self, cpu: usize, tid: i32, now: u64) -> Option<usize> {
        if self.load(cpu).is_some_and(|load| !load.is_shared(tid, now)) {
            return None;
        }
        let claim = |load: &&Load| {
            let seen = load.seen.load(Relaxed);
            load.is_quiet(now) && load.seen.compare_exchange(seen, now, Relaxed, Relaxed).is_ok()
        };
        self.loads.iter().find(claim).map(|load| load.number)
    }
}

/// The place of a guest thread and the calling thread, which serves it.
#[derive(Debug)]
pub(crate) struct Placement {
    tid: i32,
    cpus: Cpus,
    entered: u64,
    /// The CPU counted as having this pair inside.
    counted: Option<usize>,
}

impl Placement {
    /// Binds a new guest thread and the calling thread to a CPU.
    pub(crate) fn new(cpus: Cpus, tid: i32) -> Self {
        let placement = Self { tid, cpus, entered: 0, counted: None };
        if let Some(machine) = &placement.cpus.0 {
            match BOUND.get() {
                Some((cpu, _)) => bind(tid, cpu),
                None => placement.bind_near(machine, ticks()),
            }
        }
        placement
    }

    /// Before the guest runs.
    pub(crate) fn enter(&mut self) {
        let Some(machine) = &self.cpus.0 else { return };
        let now = ticks();
        self.entered = now;
        let Some((cpu, since)) = BOUND.get() else { return };
        let stay = now.wrapping_sub(since);
        if stay > BOUND_TICKS {
            BOUND.set(None);
            for tid in [0, self.tid] {
                sched_setaffinity(Pid::from_raw(tid), &machine.all).ok();
            }
            return;
        }
        let better = if stay > MOVE_TICKS { machine.better_than(cpu, self.tid, now) } else { None };
        if let Some(better) = better {
            self.bind_both(better, now);
        }
        let cpu = better.unwrap_or(cpu);
        if let Some(load) = machine.load(cpu) {
            load.inside.fetch_add(1, Relaxed);
            load.last.store(self.tid, Relaxed);
            load.seen.store(now, Relaxed);
            self.counted = Some(cpu);
        }
    }

    /// After it.
    pub(crate) fn leave(&mut self) {
        let Some(machine) = &self.cpus.0 else { return };
        let now = ticks();
        if let Some(load) = self.counted.take().and_then(|cpu| machine.load(cpu)) {
            load.inside.fetch_sub(1, Relaxed);
            load.seen.store(now, Relaxed);
        }
        match (now.wrapping_sub(self.entered) > LONG_TICKS, BOUND.get()) {
            // The next switch is free at once.
            (true, Some((cpu, _))) => BOUND.set(Some((cpu, now.wrapping_sub(BOUND_TICKS + 1)))),
            (false, None) => self.bind_near(machine, now),
            (true, None) | (false, Some(_)) => {}
        }
    }

    /// Binds both to the CPU where the calling thread is, or a better one.
    fn bind_near(&self, machine: &Machine, now: u64) {
        if let Ok(cpu) = sched_getcpu() {
            self.bind_both(machine.better_than(cpu, self.tid, now).unwrap_or(cpu), now);
        }
    }

    /// Puts the guest thread on another CPU than the calling thread's, which stays where it is. Tells whether it could.
    pub(crate) fn part(&self) -> bool {
        let (Some(machine), Ok(cpu)) = (&self.cpus.0, sched_getcpu()) else { return false };
        let mut others = machine.all;
        if others.unset(cpu).is_err() || sched_setaffinity(Pid::from_raw(self.tid), &others).is_err() {
            return false;
        }
        bind(0, cpu);
        BOUND.set(Some((cpu, ticks())));
        true
    }

    /// Puts both on one CPU.
    pub(crate) fn join(&self) {
        if let Some(machine) = &self.cpus.0 {
            self.bind_near(machine, ticks());
        }
    }

    fn bind_both(&self, cpu: usize, now: u64) {
        bind(self.tid, cpu);
        bind(0, cpu);
        BOUND.set(Some((cpu, now)));
    }
}

/// The CPU that this thread is bound to.
pub(crate) fn bound() -> Option<usize> {
    BOUND.get().map(|(cpu, _)| cpu)
}

/// Lets a thread run on one CPU only, 0 being the caller. What the host does not allow is no error: it only costs time.
pub(crate) fn bind(tid: i32, cpu: usize) {
    let mut set = CpuSet::new();
    if set.set(cpu).is_ok() {
        sched_setaffinity(Pid::from_raw(tid), &set).ok();
    }
}
