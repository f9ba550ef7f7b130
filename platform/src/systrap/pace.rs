//! Where a guest thread and the sentry's thread for it run, and how each waits for the other.
//!
//! *Apart*, on two CPUs, each looks for the other's answer before it sleeps: a hand-off costs a cache line. It pays where
//! the guest traps often and a CPU is to spare. *Together*, on one CPU, a hand-off is a switch of the host's scheduler;
//! that is what [`Placement`] sees to. Two that look for each other on one CPU would wait for its scheduler's whims, so
//! nothing looks unless it is apart.
//!
//! Pairs that are apart share their two CPUs with each other and with the mappers: who looks for more than a moment lets
//! others run in between. So a pair that wakes another, and one that asks for a change of its mappings, never wakes a CPU.
//! It works as long as all that is on these CPUs is of a kind: a pair whose guest computes leaves, one whose calls take
//! long while others are there. Where something else is found to have the CPUs, nobody lets others run for a while: pairs
//! that others live with, and those whose mappings change all the time, leave.
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::thread::Waiting;
use crate::cpu::{self, Cpus, Placement};
use crate::sys::ticks;

/// The mean ticks in the guest, around 50 µs, from which looking for its next trap does not pay.
const LONG_TICKS: u64 = 1 << 17;
/// The mean ticks in the guest, around 25 µs, up to which a pair moves to where others run too.
const BRIEF_TICKS: u64 = 1 << 16;
/// For how many ticks, around a microsecond and a half, whoever looks for an answer lets nobody else have the CPU: answers to
/// most system calls are there by then, and a switch costs as much.
const POLITE_TICKS: u64 = 1 << 12;
/// The longest that anybody looks before sleeping.
const MOST_TICKS: u64 = 1 << 17;
/// The shortest, around 25 µs: less than what waking a sleeper on another CPU costs, more than most requests to a mapper.
const LEAST_TICKS: u64 = 1 << 16;
/// From which mean of [`Pace::changes`] on a pair stays together where there are hogs.
const MANY_CHANGES: u64 = 128;
/// How many switches in a row must find room before a pair moves apart, at least: moving costs as much as many switches.
const CALM: u32 = 64;
/// And at most, which is where pairs get that are crowded again and again.
const MOST_CALM: u32 = 1 << 16;
/// How many switches apart show that it was right to move.
const SETTLED: u32 = 4096;
/// How long a task looks for what it waits for in the sentry, if that pays.
const LOOK: Duration = Duration::from_micros(40);
/// The same in ticks, generously.
const LOOK_TICKS: u64 = 1 << 18;
/// How much credit a task has at most: the waits in vain after which it does not look any more.
const MOST_CREDIT: u32 = 4;
/// Without credit, every so many waits it looks nevertheless.
const PROBE: u32 = 64;

/// For how many ticks nobody looks after a hog was met, around a tenth of a second.
const HOLD_TICKS: u64 = 1 << 28;
/// And for how many at most, where hogs are met again and again.
const MOST_HOLD_TICKS: u64 = 1 << 33;

/// What is known of all pairs.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// The guest threads that run now, of those that are together with the sentry's.
    inside: AtomicU32,
    /// When a hog was met last, and for how long nobody looks since. Hints, each by itself.
    hogged: AtomicU64,
    hold: AtomicU64,
}

impl Crowd {
    /// Tells whether looking would be letting hogs run.
    fn is_hogged(&self, now: u64) -> bool {
        now.saturating_sub(self.hogged.load(Relaxed)) < self.hold.load(Relaxed)
    }

    fn meet_hog(&self, now: u64) {
        if !self.is_hogged(now) {
            let hold = self.hold.load(Relaxed);
            let again = now.saturating_sub(self.hogged.load(Relaxed)) < 2 * hold;
            self.hold.store(if again { (2 * hold).min(MOST_HOLD_TICKS) } else { HOLD_TICKS }, Relaxed);
            self.hogged.store(now, Relaxed);
        }
    }

    /// Tells whether each guest that runs, and one more, may have two CPUs.
    fn is_roomy(&self, cpus: &Cpus) -> bool {
        let inside = self.inside.load(Relaxed).saturating_add(cpus.inside());
        let inside = usize::try_from(inside).unwrap_or(usize::MAX);
        inside.saturating_add(1).saturating_mul(2) <= cpus.count()
    }
}

/// The pace of one pair.
#[derive(Debug)]
pub(super) struct Pace {
    crowd: Arc<Crowd>,
    cpus: Cpus,
    placement: Placement,
    apart: bool,
    calm: u32,
    /// How much of it makes the pair move apart.
    enough: u32,
    /// Switches since it did.
    stayed: u32,
    entered: u64,
    left: u64,
    /// Means of the ticks in the guest, and in the sentry.
    guest: u64,
    sentry: u64,
    /// As `sentry`, without waits.
    work: u64,
    /// The guest thread may run anywhere.
    loose: bool,
    /// No hog is known of.
    eager: bool,
    /// 1024 times the mean of the switches before which a mapper was asked for something.
    changes: u64,
    rest: Rest,
}

/// What is known of the task's waits in the sentry.
#[derive(Debug)]
struct Rest {
    /// When the last began.
    since: Cell<u64>,
    /// Whether it looked.
    looks: Cell<bool>,
    credit: Cell<u32>,
    /// Waits since the last that looked.
    skipped: Cell<u32>,
    /// The ticks of all since the last switch.
    sum: Cell<u64>,
}

impl Rest {
    const fn new() -> Self {
        Self {
            since: Cell::new(0),
            looks: Cell::new(false),
            credit: Cell::new(MOST_CREDIT),
            skipped: Cell::new(0),
            sum: Cell::new(0),
        }
    }

    /// A wait begins. Tells whether looking pays.
    fn begin(&self) -> bool {
        self.skipped.set(self.skipped.get() + 1);
        let looks = self.credit.get() > 0 || self.skipped.get() >= PROBE;
        if looks {
            self.skipped.set(0);
        }
        self.looks.set(looks);
        self.since.set(ticks());
        looks
    }

    /// It is over.
    fn end(&self) {
        let took = ticks().saturating_sub(self.since.get());
        self.sum.set(self.sum.get().saturating_add(took));
        if self.looks.get() {
            let credit = self.credit.get();
            let paid = took < LOOK_TICKS;
            self.credit.set(if paid { MOST_CREDIT.min(credit + 1) } else { credit.saturating_sub(1) });
        }
    }
}

fn blend(mean: u64, value: u64) -> u64 {
    mean - mean / 4 + value.min(2 * LONG_TICKS) / 4
}

impl Pace {
    pub(super) fn new(crowd: Arc<Crowd>, cpus: Cpus, tid: i32) -> Self {
        let roomy = crowd.is_roomy(&cpus) && !crowd.is_hogged(ticks());
        let placement = Placement::new(cpus.clone(), tid);
        let mut pace = Self {
            crowd,
            cpus,
            placement,
            apart: false,
            calm: 0,
            enough: CALM,
            stayed: 0,
            entered: 0,
            left: 0,
            guest: 0,
            sentry: 0,
            work: 0,
            loose: false,
            eager: true,
            changes: 0,
            rest: Rest::new(),
        };
        // Programs trap often while they start, and those that others wait for are short.
        if roomy && pace.placement.part() {
            pace.apart = true;
            pace.calm = CALM;
        } else {
            pace.placement.settle();
        }
        pace
    }

    /// Before the guest runs.
    pub(super) fn enter(&mut self) -> Waiting {
        let now = ticks();
        let stay = now.saturating_sub(self.left);
        self.sentry = blend(self.sentry, stay);
        self.work = blend(self.work, stay.saturating_sub(self.rest.sum.take()));
        let more = if cpu::take_requested() { 64 } else { 0 };
        self.changes = self.changes - self.changes / 16 + more;
        let hogged = self.crowd.is_hogged(now);
        if self.apart {
            self.stayed = self.stayed.saturating_add(1);
            let shared = self.placement.is_shared();
            let crowds = shared && (self.work >= LONG_TICKS || hogged);
            if self.guest >= LONG_TICKS || crowds || hogged && self.changes >= MANY_CHANGES {
                self.leave_couple();
            }
        } else if self.is_calm(hogged) {
            self.apart = self.placement.part();
            self.stayed = 0;
        }
        self.entered = now;
        if !self.apart {
            self.crowd.inside.fetch_add(1, Relaxed);
            self.placement.enter();
            return Waiting::default();
        }
        if std::mem::take(&mut self.loose) {
            self.placement.hold();
        }
        self.eager = !hogged;
        self.placement.enter_apart(self.eager);
        let long = |mean: u64| (2 * mean).clamp(LEAST_TICKS, MOST_TICKS);
        // Who lets a hog run waits for long.
        let polite_ticks = if hogged { MOST_TICKS } else { POLITE_TICKS };
        Waiting { sentry_ticks: long(self.guest), stub_ticks: long(self.sentry), polite_ticks }
    }

    /// Counts a switch together; tells whether there were enough that would have been better apart.
    fn is_calm(&mut self, hogged: bool) -> bool {
        let roomy = self.crowd.is_roomy(&self.cpus);
        let limit = if roomy { LONG_TICKS } else { BRIEF_TICKS };
        let calm = self.guest < limit && (!hogged || roomy && self.changes < MANY_CHANGES);
        self.calm = if calm { self.calm.saturating_add(1) } else { 0 };
        self.calm >= self.enough
    }

    /// The guest runs on while nobody looks for it any more: the host's scheduler knows best where.
    pub(super) fn loosen(&mut self) {
        if self.apart {
            self.loose = true;
            self.placement.loosen();
        }
    }

    /// After it; the guest thread met a hog, or not.
    pub(super) fn leave(&mut self, hogged: bool) {
        self.left = ticks();
        self.guest = blend(self.guest, self.left.saturating_sub(self.entered));
        if cpu::take_hogged() | hogged {
            self.crowd.meet_hog(self.left);
        }
        if self.apart {
            self.placement.leave_apart();
        } else {
            self.crowd.inside.fetch_sub(1, Relaxed);
            self.placement.leave();
        }
    }

    /// The task waits for something in the sentry. Gives how long it is to look for that before it sleeps.
    pub(super) fn rest(&self) -> Duration {
        if self.rest.begin() && self.apart && self.eager { LOOK } else { Duration::ZERO }
    }

    /// That is over.
    pub(super) fn rested(&self) {
        self.rest.end();
    }

    fn leave_couple(&mut self) {
        self.apart = false;
        self.loose = false;
        self.calm = 0;
        self.enough = if self.stayed < SETTLED {
            (self.enough * 4).min(MOST_CALM)
        } else {
            (self.enough / 4).max(CALM)
        };
        self.placement.join();
    }
}
