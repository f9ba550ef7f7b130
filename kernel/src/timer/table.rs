//! The timers of a process.
use std::collections::BTreeMap;
use std::sync::Arc;

use abi::siginfo::SI_TIMER;
use abi::{Errno, Signal};
use sync::{LockClass, Mutex};

use super::posix::{Notify, PosixTimer, TimerClock, TimerSpec};
use crate::ThreadGroup;
use crate::signal::{SigFields, SigInfo};

/// How many POSIX timers a process may have.
const MAX_TIMERS: usize = 4096;

/// Which timer of setitimer(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalTimer {
    /// `ITIMER_REAL`.
    Real,
    /// `ITIMER_VIRTUAL`.
    Virtual,
    /// `ITIMER_PROF`.
    Prof,
}

#[derive(Debug, Default)]
struct Tables {
    posix: BTreeMap<i32, Arc<PosixTimer>>,
    next_id: i32,
    interval: [Option<Arc<PosixTimer>>; 3],
}

/// All timers of a thread group.
#[derive(Debug)]
pub struct GroupTimers {
    tables: Mutex<Tables>,
}

impl Default for GroupTimers {
    fn default() -> Self {
        Self { tables: Mutex::new(LockClass::Timers, Tables::default()) }
    }
}

impl GroupTimers {
    /// timer_create(2).
    ///
    /// # Errors
    /// `EAGAIN` where the process has too many timers.
    pub fn create(&self, group: &Arc<ThreadGroup>, clock: TimerClock, notify: Notify) -> Result<i32, Errno> {
        let id = {
            let mut tables = self.tables.lock();
            if tables.posix.len() >= MAX_TIMERS {
                return Err(Errno::EAGAIN);
            }
            while tables.posix.contains_key(&tables.next_id) {
                tables.next_id = tables.next_id.wrapping_add(1) & i32::MAX;
            }
            let id = tables.next_id;
            tables.next_id = id.wrapping_add(1) & i32::MAX;
            id
        };
        let notify = match notify {
            Notify::Default => Notify::Group(Signal::SIGALRM, u64::from(id.cast_unsigned())),
            other => other,
        };
        let timer = PosixTimer::new(group, id, clock, notify);
        self.tables.lock().posix.insert(id, timer);
        Ok(id)
    }

    /// The timer with this id.
    ///
    /// # Errors
    /// `EINVAL` where there is none.
    pub fn get(&self, id: i32) -> Result<Arc<PosixTimer>, Errno> {
        self.tables.lock().posix.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// timer_delete(2).
    ///
    /// # Errors
    /// `EINVAL` where there is none.
    pub fn delete(&self, id: i32) -> Result<(), Errno> {
        let timer = self.tables.lock().posix.remove(&id).ok_or(Errno::EINVAL)?;
        timer.set(TimerSpec::default(), false);
        Ok(())
    }

    /// Deletes all POSIX timers, as execve(2) does; interval timers stay.
    pub fn clear_posix(&self) {
        let old = std::mem::take(&mut self.tables.lock().posix);
        for timer in old.into_values() {
            timer.set(TimerSpec::default(), false);
        }
    }

    /// Ends all timers, at exit.
    pub fn clear(&self) {
        self.clear_posix();
        let old = std::mem::take(&mut self.tables.lock().interval);
        for timer in old.into_iter().flatten() {
            timer.set(TimerSpec::default(), false);
        }
    }

    fn slot(which: IntervalTimer) -> (usize, TimerClock, Signal) {
        match which {
            IntervalTimer::Real => (0, TimerClock::Monotonic, Signal::SIGALRM),
            IntervalTimer::Virtual => (1, TimerClock::ProcessUser, Signal::SIGVTALRM),
            IntervalTimer::Prof => (2, TimerClock::ProcessCpu, Signal::SIGPROF),
        }
    }

    fn interval(&self, which: IntervalTimer) -> Option<Arc<PosixTimer>> {
        self.tables.lock().interval.get(Self::slot(which).0).and_then(Clone::clone)
    }

    /// setitimer(2); gives what was set before.
    pub fn set_interval(&self, group: &Arc<ThreadGroup>, which: IntervalTimer, spec: TimerSpec) -> TimerSpec {
        let (at, clock, signal) = Self::slot(which);
        let timer = self.interval(which).unwrap_or_else(|| {
            let timer = PosixTimer::new(group, -1, clock, Notify::Plain(signal));
            let mut tables = self.tables.lock();
            match tables.interval.get_mut(at) {
                Some(slot) => Arc::clone(slot.get_or_insert(timer)),
                None => timer,
            }
        });
        timer.set(spec, false)
    }

    /// getitimer(2).
    #[must_use]
    pub fn get_interval(&self, which: IntervalTimer) -> TimerSpec {
        self.interval(which).map(|t| t.get()).unwrap_or_default()
    }

    /// A signal was taken from a queue of the group: if a timer sent it, its next expiry is armed.
    pub fn signal_taken(&self, info: &mut SigInfo) {
        match (&mut info.fields, info.signal) {
            (SigFields::Timer { id, overrun, .. }, _) if info.code == SI_TIMER => {
                if let Ok(timer) = self.get(*id) {
                    *overrun = timer.signal_taken();
                }
            }
            (_, Signal::SIGALRM) => self.taken(IntervalTimer::Real),
            (_, Signal::SIGVTALRM) => self.taken(IntervalTimer::Virtual),
            (_, Signal::SIGPROF) => self.taken(IntervalTimer::Prof),
            _ => {}
        }
    }

    fn taken(&self, which: IntervalTimer) {
        if let Some(timer) = self.interval(which) {
            timer.signal_taken();
        }
    }
}
