//! Where a guest thread and the sentry's thread for it run, and how each waits for the other.
//!
//! *Apart*, on two CPUs, each looks for the other's answer before it sleeps: a hand-off costs a cache line. It pays where
//! the guest traps often and a CPU is to spare. *Together*, on one CPU, a hand-off is a switch of the host's scheduler;
//! that is what [`Placement`] sees to. Two that look for each other on one CPU would wait for its scheduler's whims, so
//! nothing looks unless it is apart.
//!
//! A pair whose memory changes all the time stays together: a change of mappings interrupts every other CPU that has the
//! address space loaded, which a guest thread that looks for its answer does.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::thread::Waiting;
use crate::cpu::{Cpus, Placement};
use crate::sys::ticks;

/// The mean ticks in the guest, around 50 µs, from which looking for its next trap does not pay.
const LONG_TICKS: u64 = 1 << 17;
/// The longest that anybody looks before sleeping.
const MOST_TICKS: u64 = 1 << 17;
/// The shortest, around 25 µs: less than what waking a sleeper on another CPU costs, more than most requests to a mapper.
const LEAST_TICKS: u64 = 1 << 16;
/// How many switches in a row must find room before a pair moves apart, at least: moving costs as much as many switches.
const CALM: u32 = 64;
/// And at most, which is where pairs get that are crowded again and again.
const MOST_CALM: u32 = 1 << 16;

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
    entered: u64,
    left: u64,
    /// Means of the ticks in the guest, and in the sentry.
    guest: u64,
    sentry: u64,
    /// The requests to the mapper at the last switch, and 1024 times the mean of those between two switches.
    requests: u32,
    changes: u64,
}

/// From which mean of [`Pace::changes`] on a pair stays together.
const MANY_CHANGES: u64 = 128;

fn blend(mean: u64, value: u64) -> u64 {
    mean - mean / 4 + value.min(2 * LONG_TICKS) / 4
}

impl Pace {
    pub(super) fn new(crowd: Arc<Crowd>, cpus: Cpus, tid: i32) -> Self {
        let placement = Placement::new(cpus.clone(), tid);
        Self {
            crowd,
            cpus,
            placement,
            apart: false,
            calm: 0,
            enough: CALM,
            entered: 0,
            left: 0,
            guest: 0,
            sentry: 0,
            requests: 0,
            changes: 0,
        }
    }

    /// Before the guest runs.
    pub(super) fn enter(&mut self, requests: u32) -> Waiting {
        let now = ticks();
        self.sentry = blend(self.sentry, now.saturating_sub(self.left));
        let inside = self.crowd.0.fetch_add(1, Relaxed) + 1;
        let roomy = usize::try_from(inside).is_ok_and(|inside| inside * 2 <= self.cpus.count());
        let more = u64::from(requests.wrapping_sub(self.requests).min(1));
        self.requests = requests;
        self.changes = self.changes - self.changes / 16 + more * 64;
        let roomy = roomy && self.changes < MANY_CHANGES;
        self.calm = if roomy && self.guest < LONG_TICKS { self.calm.saturating_add(1) } else { 0 };
        let apart = self.calm >= self.enough;
        if apart && !self.apart {
            self.apart = self.placement.part();
        } else if !apart && self.apart {
            self.apart = false;
            if self.changes < MANY_CHANGES {
                self.enough = (self.enough * 4).min(MOST_CALM);
            }
            self.placement.join();
        }
        self.entered = now;
        if !self.apart {
            self.placement.enter();
            return Waiting::default();
        }
        let long = |mean: u64| (2 * mean).clamp(LEAST_TICKS, MOST_TICKS);
        Waiting { sentry_ticks: long(self.guest), stub_ticks: long(self.sentry) }
    }

    /// After it.
    pub(super) fn leave(&mut self) {
        self.left = ticks();
        self.guest = blend(self.guest, self.left.saturating_sub(self.entered));
        self.crowd.0.fetch_sub(1, Relaxed);
        if !self.apart {
            self.placement.leave();
        }
    }
}
