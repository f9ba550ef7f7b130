//! Stopping and continuing whole processes, Linux `do_signal_stop`, `prepare_signal`.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::siginfo::{CLD_CONTINUED, CLD_STOPPED};
use abi::{SigSet, Signal};
use sync::{LockClass, Mutex, PollEvents};

use super::actions::STOP_SIGNALS;
use super::state::KILL;
use super::{SigFields, SigInfo};
use crate::{CurrentTask, ThreadGroup};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Some threads still run.
    Stopping(Signal),
    Stopped(Signal),
}

#[derive(Debug)]
struct Job {
    state: State,
    /// Counts the stops, so that a thread that slept through a resumption counts again.
    epoch: u64,
    /// How many threads are parked.
    parked: usize,
    /// The stop that wait(2) has not seen.
    stop_report: Option<Signal>,
    /// Whether wait(2) has not seen that it goes on.
    continue_report: bool,
}

/// Whether a process is stopped.
#[derive(Debug)]
pub(super) struct JobControl {
    /// Set while not running, to be read without the lock.
    stop: AtomicBool,
    job: Mutex<Job>,
}

impl JobControl {
    pub(super) fn new() -> Self {
        let job =
            Job { state: State::Running, epoch: 0, parked: 0, stop_report: None, continue_report: false };
        Self { stop: AtomicBool::new(false), job: Mutex::new(LockClass::Signals, job) }
    }

    /// Tells whether the threads are to park.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Asks all threads to park; tells whether they were running.
    fn begin(&self, signal: Signal) -> bool {
        let mut job = self.job.lock();
        let running = job.state == State::Running;
        if running {
            (job.state, job.parked, job.continue_report) = (State::Stopping(signal), 0, false);
            job.epoch += 1;
            self.stop.store(true, Ordering::SeqCst);
        }
        running
    }

    /// Counts a thread as parked; tells whether the process is now stopped by that.
    fn park(&self, counted: &mut u64, threads: usize) -> Option<Signal> {
        let mut job = self.job.lock();
        let State::Stopping(signal) = job.state else { return None };
        if *counted != job.epoch {
            job.parked += 1;
            *counted = job.epoch;
        }
        Self::complete(&mut job, signal, threads)
    }

    fn complete(job: &mut Job, signal: Signal, threads: usize) -> Option<Signal> {
        if job.parked < threads {
            return None;
        }
        (job.state, job.stop_report) = (State::Stopped(signal), Some(signal));
        Some(signal)
    }

    /// Lets the threads go on; tells whether the process was stopped or about to be.
    fn resume(&self) -> bool {
        let mut job = self.job.lock();
        let was = job.state;
        if was == State::Running {
            return false;
        }
        (job.state, job.parked, job.stop_report) = (State::Running, 0, None);
        job.continue_report = matches!(was, State::Stopped(_));
        self.stop.store(false, Ordering::SeqCst);
        true
    }
}

impl ThreadGroup {
    /// The stop that wait4(2) with `WUNTRACED` reports; `consume` makes it reported.
    #[must_use]
    pub fn stop_report(&self, consume: bool) -> Option<Signal> {
        let mut job = self.signals().job.job.lock();
        if consume { job.stop_report.take() } else { job.stop_report }
    }

    /// Whether wait4(2) with `WCONTINUED` has something to report; `consume` makes it reported.
    #[must_use]
    pub fn continue_report(&self, consume: bool) -> bool {
        let mut job = self.signals().job.job.lock();
        let report = job.continue_report;
        job.continue_report &= !consume;
        report
    }

    /// Tells whether every thread is stopped, for `/proc/PID/stat`.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.signals().job.job.lock().state, State::Stopped(_))
    }

    /// A thread of the group is gone: the others may all be parked now. To be called without locks.
    pub fn thread_left(self: &Arc<Self>) {
        if !self.signals().job.is_stopping() {
            return;
        }
        let threads = self.threads().len();
        let completed = {
            let mut job = self.signals().job.job.lock();
            match job.state {
                State::Stopping(signal) if threads > 0 => JobControl::complete(&mut job, signal, threads),
                _ => None,
            }
        };
        if let Some(signal) = completed {
            tell_parent(self, CLD_STOPPED, signal);
        }
    }
}

/// The stop signals cancel pending `SIGCONT`s and the other way round; `SIGCONT` and `SIGKILL` let a stopped process go on.
pub(super) fn before_sending(group: &Arc<ThreadGroup>, signal: Signal) {
    if STOP_SIGNALS.contains(signal) {
        discard_everywhere(group, SigSet::of(Signal::SIGCONT));
        return;
    }
    if signal == Signal::SIGCONT {
        discard_everywhere(group, STOP_SIGNALS);
    }
    if matches!(signal, Signal::SIGCONT | Signal::SIGKILL) && group.signals().job.resume() {
        for task in group.threads() {
            task.interrupt();
        }
        if signal == Signal::SIGCONT && group.continue_report(false) {
            tell_parent(group, CLD_CONTINUED, Signal::SIGCONT);
        }
    }
}

fn discard_everywhere(group: &Arc<ThreadGroup>, unwanted: SigSet) {
    let signals = group.signals();
    signals.discard(&signals.pending, unwanted);
    for task in group.threads() {
        signals.discard(&task.signals().pending, unwanted);
    }
}

/// Asks the whole process to stop.
pub(super) fn begin(cur: &CurrentTask, signal: Signal) {
    let group = cur.group();
    if group.signals().job.begin(signal) {
        for task in group.threads() {
            if task.tid() != cur.tid() {
                task.interrupt();
            }
        }
    }
}

/// Parks the thread until its process goes on or is killed.
pub(super) fn park(cur: &CurrentTask) {
    let group = Arc::clone(cur.group());
    let mut counted = 0;
    while group.signals().job.is_stopping() && !group.is_exiting() {
        if !cur.signals().pending().intersection(KILL).is_empty() {
            break;
        }
        let threads = group.threads().len();
        if let Some(signal) = group.signals().job.park(&mut counted, threads) {
            tell_parent(&group, CLD_STOPPED, signal);
        }
        cur.waiter().wait();
    }
}

/// Sends `SIGCHLD` for a stop or its end, and wakes the parent's wait(2).
fn tell_parent(group: &Arc<ThreadGroup>, code: i32, signal: Signal) {
    let Some(parent) = group.parent() else { return };
    if !parent.signals().actions().no_child_stop() {
        let (utime, stime) = group.cpu_ticks();
        let uid = group.credentials().uid;
        let status = signal.number();
        let fields = SigFields::Child { pid: group.tgid(), uid, status, utime, stime };
        let info = SigInfo { signal: Signal::SIGCHLD, code, errno: 0, fields };
        // SIGCHLD is a standard signal, and those are never refused.
        let _sent = super::send_to_group(&parent, info);
    }
    parent.child_events().notify(PollEvents::IN);
}
