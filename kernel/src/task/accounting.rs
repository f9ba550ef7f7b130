//! Processor time, `getrusage(2)`.
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Nanoseconds in one of the ticks that programs see.
const TICK_NS: u64 = 10_000_000;

/// Processor time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In the program.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
}

impl CpuTimes {
    /// The sum of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { user_ns: self.user_ns + other.user_ns, system_ns: self.system_ns + other.system_ns }
    }
    /// User and system time together.
    #[must_use]
    pub const fn total_ns(self) -> u64 {
        self.user_ns + self.system_ns
    }
    /// User and system time in ticks of 1/100 s.
    #[must_use]
    pub const fn ticks(self) -> (i64, i64) {
        ((self.user_ns / TICK_NS).cast_signed(), (self.system_ns / TICK_NS).cast_signed())
    }
}

/// What getrusage(2) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time.
    pub cpu: CpuTimes,
    /// The most memory resident at once, in KiB.
    pub max_rss_kb: u64,
    /// Faults resolved without input.
    pub minor_faults: u64,
    /// Faults that took input.
    pub major_faults: u64,
    /// Times it gave the processor up.
    pub voluntary_switches: u64,
    /// Times the processor was taken from it.
    pub involuntary_switches: u64,
}

impl Usage {
    /// Both together; of the memory, the larger.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.plus(other.cpu),
            max_rss_kb: self.max_rss_kb.max(other.max_rss_kb),
            minor_faults: self.minor_faults + other.minor_faults,
            major_faults: self.major_faults + other.major_faults,
            voluntary_switches: self.voluntary_switches + other.voluntary_switches,
            involuntary_switches: self.involuntary_switches + other.involuntary_switches,
        }
    }
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// Waits.
    Idle = 0,
    /// Runs the program.
    User = 1,
    /// Runs the kernel.
    System = 2,
}

/// Counts the time a task spends in each [`Mode`]. Written by the task's own thread only.
#[derive(Debug, Default)]
pub(crate) struct CpuClock {
    user_ns: AtomicU64,
    system_ns: AtomicU64,
    mode: AtomicU8,
    since_ns: AtomicU64,
    /// How often the task waited.
    waits: AtomicU64,
    /// How many faults were resolved.
    faults: AtomicU64,
}

impl CpuClock {
    pub(crate) fn enter(&self, mode: Mode, now_ns: u64) {
        let spent = now_ns.saturating_sub(self.since_ns.load(Ordering::Relaxed));
        let old = self.mode.load(Ordering::Relaxed);
        // One writer: a load and a store do what an addition would.
        if old == Mode::User as u8 {
            self.user_ns.store(self.user_ns.load(Ordering::Relaxed) + spent, Ordering::Relaxed);
        } else if old == Mode::System as u8 {
            self.system_ns.store(self.system_ns.load(Ordering::Relaxed) + spent, Ordering::Relaxed);
        }
        if mode == Mode::Idle {
            self.waits.store(self.waits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        self.since_ns.store(now_ns, Ordering::Relaxed);
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    pub(crate) fn times(&self, now_ns: u64) -> CpuTimes {
        let mode = self.mode.load(Ordering::Relaxed);
        let running = now_ns.saturating_sub(self.since_ns.load(Ordering::Relaxed));
        let add = |counted: &AtomicU64, in_mode: Mode| {
            counted.load(Ordering::Relaxed) + if mode == in_mode as u8 { running } else { 0 }
        };
        CpuTimes { user_ns: add(&self.user_ns, Mode::User), system_ns: add(&self.system_ns, Mode::System) }
    }

    pub(crate) fn count_fault(&self) {
        self.faults.store(self.faults.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// All that is counted here.
    pub(crate) fn usage(&self, now_ns: u64) -> Usage {
        Usage {
            cpu: self.times(now_ns),
            minor_faults: self.faults.load(Ordering::Relaxed),
            voluntary_switches: self.waits.load(Ordering::Relaxed),
            ..Usage::default()
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.mode.load(Ordering::Relaxed) != Mode::Idle as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_for_the_mode_it_passed_in() {
        let clock = CpuClock::default();
        clock.enter(Mode::System, 100);
        clock.enter(Mode::User, 130);
        clock.enter(Mode::Idle, 200);
        clock.enter(Mode::User, 900);
        assert_eq!(clock.times(910), CpuTimes { user_ns: 80, system_ns: 30 });
        assert!(clock.is_running());
    }
}
