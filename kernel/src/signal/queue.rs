//! Signals that were sent and not yet taken, Linux `struct sigpending`.
use std::collections::VecDeque;

use abi::{SigSet, Signal};

use super::SigInfo;

/// Pending signals of a task or of a thread group.
#[derive(Debug, Default)]
pub struct PendingSignals {
    set: SigSet,
    /// A standard signal is queued once, a real-time signal as often as it was sent; in the order of sending.
    queue: VecDeque<SigInfo>,
}

impl PendingSignals {
    /// Which signals are pending.
    #[must_use]
    pub const fn set(&self) -> SigSet {
        self.set
    }

    /// The information that came with those that have any, in the order of sending.
    pub fn infos(&self) -> impl Iterator<Item = &SigInfo> {
        self.queue.iter()
    }

    /// How many signals are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Tells whether none is pending.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Adds a signal; a standard signal that is pending already stays as it is. With `room` false the signal is pending
    /// without its information, as in Linux when `RLIMIT_SIGPENDING` is reached; tells whether the information was kept.
    pub fn push(&mut self, info: SigInfo, room: bool) -> bool {
        if !info.signal.is_realtime() && self.set.contains(info.signal) {
            return true;
        }
        self.set.insert(info.signal);
        if room {
            self.queue.push_back(info);
        }
        room
    }

    /// Takes the signal of `wanted` that is delivered first: synchronous ones, then by number, oldest first.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let ready = self.set.intersection(wanted);
        let urgent = ready.intersection(SYNCHRONOUS);
        let signal = if urgent.is_empty() { ready.first()? } else { urgent.first()? };
        let at = self.queue.iter().position(|i| i.signal == signal);
        let info = at.and_then(|at| self.queue.remove(at));
        if !self.queue.iter().any(|i| i.signal == signal) {
            self.set.remove(signal);
        }
        Some(info.unwrap_or(SigInfo::kill(signal, 0, 0)))
    }

    /// Forgets the pending signals of a set.
    pub fn discard(&mut self, unwanted: SigSet) {
        self.set = self.set.difference(unwanted);
        self.queue.retain(|i| !unwanted.contains(i.signal));
    }
}

/// Caused by the instruction at which the thread is, so they go first (Linux `SYNCHRONOUS_MASK`).
const SYNCHRONOUS: SigSet = SigSet(
    Signal::SIGSEGV.bit()
        | Signal::SIGBUS.bit()
        | Signal::SIGILL.bit()
        | Signal::SIGTRAP.bit()
        | Signal::SIGFPE.bit()
        | Signal::SIGSYS.bit(),
);

#[cfg(test)]
mod tests {
    use super::*;

    fn rt(n: i32) -> Signal {
        Signal::new(34 + n).expect("a real-time signal")
    }

    #[test]
    fn order_is_linuxs() {
        let mut pending = PendingSignals::default();
        for signal in [rt(1), Signal::SIGUSR1, rt(0), Signal::SIGSEGV, Signal::SIGHUP, rt(0)] {
            pending.push(SigInfo::kernel(signal), true);
        }
        let all: Vec<_> = std::iter::from_fn(|| pending.take(SigSet::FULL)).map(|i| i.signal).collect();
        assert_eq!(all, [Signal::SIGSEGV, Signal::SIGHUP, Signal::SIGUSR1, rt(0), rt(0), rt(1)]);
        assert!(pending.is_empty());
    }

    #[test]
    fn standard_signals_fold_and_real_time_ones_queue() {
        let mut pending = PendingSignals::default();
        for value in 0..3 {
            pending.push(SigInfo::queue(Signal::SIGUSR1, 1, 1, value), true);
            pending.push(SigInfo::queue(rt(0), 1, 1, value), true);
        }
        assert_eq!(pending.len(), 4);
        assert_eq!(pending.take(SigSet::of(Signal::SIGUSR1)), Some(SigInfo::queue(Signal::SIGUSR1, 1, 1, 0)));
        assert_eq!(pending.take(SigSet::of(rt(0))), Some(SigInfo::queue(rt(0), 1, 1, 0)));
        assert!(pending.set().contains(rt(0)));
    }

    #[test]
    fn without_room_the_signal_is_pending_without_information() {
        let mut pending = PendingSignals::default();
        assert!(!pending.push(SigInfo::queue(Signal::SIGUSR1, 7, 7, 7), false));
        assert_eq!(pending.take(SigSet::FULL), Some(SigInfo::kill(Signal::SIGUSR1, 0, 0)));
        assert_eq!(pending.take(SigSet::FULL), None);
    }
}
