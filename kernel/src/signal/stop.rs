//! Stopping and continuing whole processes, Linux `do_signal_stop`, `prepare_signal`.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::siginfo::{CLD_CONTINUED, CLD_STOPPED};
use abi::{SigSet, Signal};
use sync::{LockClass, Mutex, PollEvents};

use super::actions::STOP_SIGNALS;
use super::state::KILL;
use super::{SigFields, SigInfo};
use crate::ptrace::Tracing;
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
pub(crate) struct JobControl {
    /// The number of the stop while not running, else 0; to be read without the lock.
    stop: AtomicU64,
    /// Counts the ends of stops, and what else `SIGCONT` and `SIGKILL` undo.
    continued: AtomicU64,
    job: Mutex<Job>,
}

impl JobControl {
    pub(super) fn new() -> Self {
        let job =
            Job { state: State::Running, epoch: 0, parked: 0, stop_report: None, continue_report: false };
        Self {
            stop: AtomicU64::new(0),
            continued: AtomicU64::new(0),
            job: Mutex::new(LockClass::Signals, job),
        }
    }

    /// Tells whether the threads are to park.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst) != 0
    }

    /// The number of the stop that a thread has not heeded yet, or 0.
    pub(crate) fn epoch_to_heed(&self, tracing: &Tracing) -> u64 {
        let epoch = self.stop.load(Ordering::SeqCst);
        if epoch == tracing.heeded.load(Ordering::SeqCst) { 0 } else { epoch }
    }

    /// The signal that the process is stopped by, or about to be.
    pub(crate) fn signal(&self) -> Option<Signal> {
        match self.job.lock().state {
            State::Running => None,
            State::Stopping(signal) | State::Stopped(signal) => Some(signal),
        }
    }

    /// A number that changes with each `SIGCONT`: a stop signal that was taken before is void after it.
    pub(super) fn continued(&self) -> u64 {
        self.continued.load(Ordering::SeqCst)
    }

    /// Asks all threads to park; tells whether they were running.
    fn begin(&self, signal: Signal) -> bool {
        let mut job = self.job.lock();
        let running = job.state == State::Running;
        if running {
            (job.state, job.parked, job.continue_report) = (State::Stopping(signal), 0, false);
            job.epoch += 1;
            self.stop.store(job.epoch, Ordering::SeqCst);
        }
        running
    }

    /// Counts a thread as parked; tells whether the process is now stopped by that.
    fn park(&self, counted: &AtomicU64, threads: usize) -> Option<Signal> {
        let mut job = self.job.lock();
        let State::Stopping(signal) = job.state else { return None };
        if counted.swap(job.epoch, Ordering::SeqCst) != job.epoch {
            job.parked += 1;
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
        self.stop.store(0, Ordering::SeqCst);
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
    if !matches!(signal, Signal::SIGCONT | Signal::SIGKILL) {
        return;
    }
    group.signals().job.continued.fetch_add(1, Ordering::SeqCst);
    let resumed = group.signals().job.resume();
    if signal == Signal::SIGCONT {
        group.threads().iter().for_each(|task| task.notify_of_job());
    }
    if resumed {
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

/// Asks the whole process to stop. Threads that are traced may run though it is stopped; they stop again.
pub(super) fn begin(cur: &CurrentTask, signal: Signal) {
    let group = cur.group();
    if !group.signals().job.begin(signal) {
        return cur.ask_for_trap();
    }
    for task in group.threads() {
        if task.tid() != cur.tid() {
            task.notify_of_job();
            task.interrupt();
        }
    }
}

/// Counts a thread as stopped that its tracer keeps; the parent hears of the stop if it is the last, and not the tracer.
pub(crate) fn count_stopped(cur: &CurrentTask) {
    let group = cur.group();
    let threads = group.threads().len();
    let completed = group.signals().job.park(&cur.tracing.counted, threads);
    let tracer = cur.tracer().map(|t| t.tgid());
    if let Some(signal) = completed.filter(|_| tracer != Some(group.parent_id())) {
        tell_parent(group, CLD_STOPPED, signal);
    }
}

/// Parks the thread until its process goes on or is killed.
pub(super) fn park(cur: &CurrentTask) {
    let group = Arc::clone(cur.group());
    while group.signals().job.is_stopping() && !cur.is_exiting() && !cur.is_traced() {
        if !cur.signals().pending().intersection(KILL).is_empty() {
            break;
        }
        let threads = group.threads().len();
        if let Some(signal) = group.signals().job.park(&cur.tracing.counted, threads) {
            tell_parent(&group, CLD_STOPPED, signal);
        }
        cur.waiter().wait();
    }
}

/// Sends `SIGCHLD` for a stop or its end, and wakes the parent's wait(2).
fn tell_parent(group: &Arc<ThreadGroup>, code: i32, signal: Signal) {
    let Some(parent) = group.parent() else { return };
    let ids = (group.tgid(), group.credentials().uid);
    tell_of_stop(&parent, code, ids, signal.number(), group.cpu_ticks());
}

/// Sends a process `SIGCHLD` for a stop of a child, or of a thread that it traces, or the end of the stop, and wakes its
/// wait(2). Whose it is: its id, and its user.
pub(crate) fn tell_of_stop(
    to: &Arc<ThreadGroup>,
    code: i32,
    ids: (i32, u32),
    status: i32,
    ticks: (i64, i64),
) {
    if to.signals().actions().no_child_stop() {
        to.child_events().notify(PollEvents::IN);
    } else {
        tell_of_end(to, code, ids, status, ticks);
    }
}

/// As [`tell_of_stop`], for an end, of which a process cannot choose not to hear.
pub(crate) fn tell_of_end(
    to: &Arc<ThreadGroup>,
    code: i32,
    (pid, uid): (i32, u32),
    status: i32,
    (utime, stime): (i64, i64),
) {
    let fields = SigFields::Child { pid, uid, status, utime, stime };
    // SIGCHLD is a standard signal, and those are never refused.
    let _sent = super::send_to_group(to, SigInfo { signal: Signal::SIGCHLD, code, errno: 0, fields });
    to.child_events().notify(PollEvents::IN);
}
