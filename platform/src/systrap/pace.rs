//! Where a guest thread and the sentry's thread for it run, and how each waits for the other.
//!
//! *Apart*, on two CPUs, each looks for the other's answer before it sleeps: a hand-off costs a cache line. It pays where
//! the guest traps often and a CPU is to spare. *Together*, on one CPU, a hand-off is a switch of the host's scheduler;
//! that is what [`Placement`] sees to. Two that look for each other on one CPU would wait for its scheduler's whims, so
//! nothing looks unless it is apart.
//!
//! Pairs that are apart share their two CPUs with each other and with the mappers: who looks for more than a moment lets
//! others run in between. So a pair that wakes another, and one that asks for a change of its mappings, never wakes a CPU.
//! It works as long as all that is on these CPUs is of a kind: a pair whose guest computes leaves, and so does one that
//! finds the CPU busy with something else.
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::thread::{Looked, Waiting};
use crate::cpu::{Cpus, Placement};
use crate::sys::ticks;

/// The mean ticks in the guest, around 50 µs, from which looking for its next trap does not pay.
const LONG_TICKS: u64 = 1 << 17;
/// The mean ticks in the guest, around 25 µs, up to which a pair moves to where others run too.
const BRIEF_TICKS: u64 = 1 << 16;
/// The longest that anybody looks before sleeping.
const MOST_TICKS: u64 = 1 << 17;
/// The shortest, around 25 µs: less than what waking a sleeper on another CPU costs, more than most requests to a mapper.
const LEAST_TICKS: u64 = 1 << 16;
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

/// The guest threads that run now.
#[derive(Debug, Default)]
pub(super) struct Crowd(AtomicU32);

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
    /// Something else than guest threads and their like had one of the CPUs.
    hogged: bool,
    /// The guest thread may run anywhere.
    loose: bool,
    rest: Rest,
}

/// What is known of the task's waits in the sentry.
#[derive(Debug)]
struct Rest {
    /// When the last began, if it looked.
    since: Cell<Option<u64>>,
    credit: Cell<u32>,
    /// Waits since the last that looked.
    skipped: Cell<u32>,
}

impl Rest {
    const fn new() -> Self {
        Self { since: Cell::new(None), credit: Cell::new(MOST_CREDIT), skipped: Cell::new(0) }
    }

    /// A wait begins. Tells whether looking pays.
    fn begin(&self) -> bool {
        self.skipped.set(self.skipped.get() + 1);
        let looks = self.credit.get() > 0 || self.skipped.get() >= PROBE;
        if looks {
            self.skipped.set(0);
            self.since.set(Some(ticks()));
        }
        looks
    }

    /// It is over.
    fn end(&self, now: u64) {
        if let Some(since) = self.since.take() {
            let paid = now.saturating_sub(since) < LOOK_TICKS;
            let credit = self.credit.get();
            self.credit.set(if paid { MOST_CREDIT.min(credit + 1) } else { credit.saturating_sub(1) });
        }
    }
}

fn blend(mean: u64, value: u64) -> u64 {
    mean - mean / 4 + value.min(2 * LONG_TICKS) / 4
}

impl Pace {
    pub(super) fn new(crowd: Arc<Crowd>, cpus: Cpus, tid: i32) -> Self {
        let roomy = is_roomy(&crowd, &cpus, 1);
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
            hogged: false,
            loose: false,
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
        self.rest.end(now);
        self.sentry = blend(self.sentry, now.saturating_sub(self.left));
        self.crowd.0.fetch_add(1, Relaxed);
        let roomy = is_roomy(&self.crowd, &self.cpus, 0);
        if self.apart {
            self.stayed = self.stayed.saturating_add(1);
            if self.guest >= LONG_TICKS || self.hogged {
                self.leave_couple();
            }
        } else if self.is_calm(roomy) {
            self.apart = self.placement.part();
            self.stayed = 0;
        }
        self.hogged = false;
        self.entered = now;
        if !self.apart {
            self.placement.enter();
            return Waiting::default();
        }
        if std::mem::take(&mut self.loose) {
            self.placement.hold();
        }
        self.placement.enter_apart();
        let long = |mean: u64| (2 * mean).clamp(LEAST_TICKS, MOST_TICKS);
        Waiting { sentry_ticks: long(self.guest), stub_ticks: long(self.sentry) }
    }

    /// Counts a switch together; tells whether there were enough that would have been better apart.
    fn is_calm(&mut self, roomy: bool) -> bool {
        let limit = if roomy { LONG_TICKS } else { BRIEF_TICKS };
        self.calm = if self.guest < limit && !self.hogged { self.calm.saturating_add(1) } else { 0 };
        self.calm >= self.enough
    }

    /// The guest runs on while nobody looks for it any more: the host's scheduler knows best where.
    pub(super) fn loosen(&mut self) {
        if self.apart {
            self.loose = true;
            self.placement.loosen();
        }
    }

    /// After it, which the sentry's thread saw as told.
    pub(super) fn leave(&mut self, looked: Looked) {
        self.left = ticks();
        self.guest = blend(self.guest, self.left.saturating_sub(self.entered));
        self.hogged |= looked == Looked::Hogged;
        self.crowd.0.fetch_sub(1, Relaxed);
        if self.apart {
            self.placement.leave_apart();
        } else {
            self.placement.leave();
        }
    }

    /// The task waits for something in the sentry. Gives how long it is to look for that before it sleeps.
    pub(super) fn rest(&self) -> Duration {
        if self.apart && self.rest.begin() { LOOK } else { Duration::ZERO }
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

/// Tells whether each guest that runs, and `more`, may have two CPUs.
fn is_roomy(crowd: &Crowd, cpus: &Cpus, more: usize) -> bool {
    let inside = usize::try_from(crowd.0.load(Relaxed)).unwrap_or(usize::MAX);
    inside.saturating_add(more).saturating_mul(2) <= cpus.count()
}
