//! On which CPU a sentry thread and its guest thread run: together, because a switch on one CPU costs an eighth of one
//! across two, and the host's scheduler, left alone, would wake each of them wherever it finds an idle CPU; or apart, on a
//! couple of CPUs, of which one is for the sentry's threads and one for the stubs': then each half of a pair may look for
//! the other, and pairs that wake each other meet on either CPU.
//!
//! A pair that is together moves when another pair was just seen on its CPU while some CPU saw none for a while. For the load of the rest of
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
    /// The CPU of the stubs that this thread serves, where that is another.
    static APART: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The CPUs that the process may use, and what its pairs do there; nothing if there is one only.
#[derive(Clone, Debug)]
pub(crate) struct Cpus(Option<Arc<Machine>>);

#[derive(Debug)]
struct Machine {
    all: CpuSet,
    loads: Vec<Load>,
    couples: Vec<Couple>,
}

/// Two CPUs for pairs that live apart.
#[derive(Debug)]
#[repr(align(64))]
struct Couple {
    sentry: usize,
    stub: usize,
    /// Pairs that live here.
    pairs: AtomicU32,
    /// Pairs whose guest runs.
    inside: AtomicU32,
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
        let couples = loads.as_chunks::<2>().0.iter().map(|[sentry, stub]| Couple {
            sentry: sentry.number,
            stub: stub.number,
            pairs: AtomicU32::new(0),
            inside: AtomicU32::new(0),
        });
        let couples = couples.collect();
        Self((loads.len() > 1).then(|| Arc::new(Machine { all, loads, couples })))
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
    /// The couple of CPUs that the pair lives on.
    couple: Option<usize>,
}

impl Placement {
    /// The place of a new guest thread, which is nowhere yet.
    pub(crate) const fn new(cpus: Cpus, tid: i32) -> Self {
        Self { tid, cpus, entered: 0, counted: None, couple: None }
    }

    /// Binds it and the calling thread to a CPU.
    pub(crate) fn settle(&self) {
        if let Some(machine) = &self.cpus.0 {
            APART.set(None);
            match BOUND.get() {
                Some((cpu, _)) => {
                    bind(self.tid, cpu);
                }
                None => self.bind_near(machine, ticks()),
            }
        }
    }

    /// Before the guest runs.
    pub(crate) fn enter(&mut self) {
        let Some(machine) = &self.cpus.0 else { return };
        let now = ticks();
        self.entered = now;
        APART.set(None);
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

    fn couple(&self) -> Option<&Couple> {
        self.cpus.0.as_ref()?.couples.get(self.couple?)
    }

    /// Puts both on a couple of CPUs. Tells whether it could.
    pub(crate) fn part(&mut self) -> bool {
        let Some(machine) = &self.cpus.0 else { return false };
        let couples = machine.couples.iter().enumerate();
        let Some((index, couple)) = couples.min_by_key(|(_, couple)| couple.inside.load(Relaxed)) else {
            return false;
        };
        if !bind(self.tid, couple.stub) {
            return false;
        }
        if BOUND.get().is_none_or(|(cpu, _)| cpu != couple.sentry) && !bind(0, couple.sentry) {
            return false;
        }
        BOUND.set(Some((couple.sentry, ticks())));
        APART.set(Some(couple.stub));
        couple.pairs.fetch_add(1, Relaxed);
        self.couple = Some(index);
        true
    }

    /// Lets the guest thread of a pair that is apart run anywhere.
    pub(crate) fn loosen(&self) {
        if let Some(machine) = &self.cpus.0 {
            sched_setaffinity(Pid::from_raw(self.tid), &machine.all).ok();
        }
    }

    /// Puts it where it was again.
    pub(crate) fn hold(&self) {
        if let Some(couple) = self.couple() {
            bind(self.tid, couple.stub);
        }
    }

    /// Before the guest of a pair that is apart runs. Gives how many others run on the same couple.
    pub(crate) fn enter_apart(&self) -> u32 {
        self.couple().map_or(0, |couple| {
            APART.set(Some(couple.stub));
            couple.inside.fetch_add(1, Relaxed)
        })
    }

    /// After it.
    pub(crate) fn leave_apart(&self) {
        if let Some(couple) = self.couple() {
            couple.inside.fetch_sub(1, Relaxed);
        }
    }

    /// Puts both on one CPU.
    pub(crate) fn join(&mut self) {
        self.forget_couple();
        if let Some(machine) = &self.cpus.0 {
            self.bind_near(machine, ticks());
        }
    }

    fn forget_couple(&mut self) {
        if let Some(couple) = self.couple() {
            couple.pairs.fetch_sub(1, Relaxed);
        }
        self.couple = None;
    }

    fn bind_both(&self, cpu: usize, now: u64) {
        bind(self.tid, cpu);
        bind(0, cpu);
        BOUND.set(Some((cpu, now)));
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        self.forget_couple();
    }
}

/// The CPU that the stubs are to be on that this thread serves, and whether it is another than this thread's.
pub(crate) fn of_stubs() -> Option<(usize, bool)> {
    let together = || BOUND.get().map(|(cpu, _)| (cpu, false));
    APART.get().map(|cpu| (cpu, true)).or_else(together)
}

/// Lets a thread run on one CPU only, 0 being the caller; tells whether the host allows it. It only costs time if not.
pub(crate) fn bind(tid: i32, cpu: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(cpu).is_ok() && sched_setaffinity(Pid::from_raw(tid), &set).is_ok()
}
