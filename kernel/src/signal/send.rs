//! Sending signals, Linux `kernel/signal.c:__send_signal_locked`, `complete_signal`.
use std::sync::Arc;

use abi::siginfo::SI_USER;
use abi::{Errno, SigSet, Signal};
use sync::PollEvents;

use super::state::{KILL, Pending};
use super::{DefaultAction, SigInfo, default_action, stop};
use crate::ptrace::watch;
use crate::{Cap, Kernel, RLIMIT_SIGPENDING, Task, ThreadGroup};

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// A program, or the kernel on its behalf.
    Inside,
    /// The runtime: an ancestor of the sandbox's PID namespace.
    Outside,
}

/// Sends a signal to one thread. No permission is checked. To be called without locks of class `TaskTree` or later.
///
/// # Errors
/// `EAGAIN` where a real-time signal finds `RLIMIT_SIGPENDING` exhausted.
pub fn send_to_task(task: &Arc<Task>, info: SigInfo) -> Result<(), Errno> {
    let group = task.group();
    send(group, task, &task.signals().pending, info, From::Inside, |signal| {
        if !task.signals().deaf_to().contains(signal) {
            task.interrupt();
        }
    })
}

/// Sends a signal to a process. No permission is checked. To be called without locks of class `TaskTree` or later.
///
/// # Errors
/// `EAGAIN` where a real-time signal finds `RLIMIT_SIGPENDING` exhausted.
pub fn send_to_group(group: &Arc<ThreadGroup>, info: SigInfo) -> Result<(), Errno> {
    send_to_group_from(group, info, From::Inside)
}

/// Sends a signal from outside the sandbox, as `runsc kill` does: `SIGKILL` and `SIGSTOP` also reach init.
///
/// # Errors
/// `EAGAIN` where a real-time signal finds `RLIMIT_SIGPENDING` exhausted.
pub fn send_from_outside(group: &Arc<ThreadGroup>, info: SigInfo) -> Result<(), Errno> {
    send_to_group_from(group, info, From::Outside)
}

fn send_to_group_from(group: &Arc<ThreadGroup>, info: SigInfo, from: From) -> Result<(), Errno> {
    // A process that was reaped hears nothing any more.
    let Some(leader) = group.leader() else { return Ok(()) };
    send(group, &leader, &group.signals().pending, info, from, |signal| wake_one(group, signal))
}

/// Sends a signal to every process of a process group, as terminals do.
///
/// # Errors
/// `ESRCH` where there is no process in it.
pub fn send_to_process_group(kernel: &Kernel, id: i32, info: SigInfo) -> Result<(), Errno> {
    let members = kernel.process_group_members(id);
    if members.is_empty() {
        return Err(Errno::ESRCH);
    }
    for group in members {
        send_to_group(&group, info)?;
    }
    Ok(())
}

fn send(
    group: &Arc<ThreadGroup>,
    target: &Arc<Task>,
    queue: &Pending,
    info: SigInfo,
    from: From,
    wake: impl FnOnce(Signal),
) -> Result<(), Errno> {
    if group.is_exiting() && from == From::Inside {
        // Linux `prepare_signal`: a process that is dying hears nothing more.
        return Ok(());
    }
    let signals = group.signals();
    let forced = from == From::Outside && SigSet::UNBLOCKABLE.contains(info.signal);
    if info.signal == Signal::SIGKILL && (forced || !is_ignored(group, target, info.signal)) {
        // First of all: a stopped process that goes on must find no other signal before this one.
        kill_all_threads(group);
        stop::before_sending(group, info.signal);
        return Ok(());
    }
    stop::before_sending(group, info.signal);
    if !forced && is_ignored(group, target, info.signal) {
        return Ok(());
    }
    let limit = usize::try_from(group.limits().get(RLIMIT_SIGPENDING).0).unwrap_or(usize::MAX);
    let kept = signals.push(queue, info, limit);
    if !kept && info.signal.is_realtime() && info.code != SI_USER {
        return Err(Errno::EAGAIN);
    }
    signals.arrivals().notify(PollEvents::READABLE);
    wake(info.signal);
    Ok(())
}

/// Linux `sig_ignored`: what is blocked is never dropped, for its action may change until it is unblocked; nor is what a
/// tracer may want to know of.
fn is_ignored(group: &ThreadGroup, target: &Task, signal: Signal) -> bool {
    if target.signals().mask().contains(signal) || target.is_traced() && signal != Signal::SIGKILL {
        return false;
    }
    let actions = group.signals().actions();
    let is_default = actions.get(signal).handler == abi::siginfo::SIG_DFL;
    actions.is_ignored(signal) && default_action(signal) != DefaultAction::Continue
        || signal != Signal::SIGCONT && is_default && group.signals().is_unkillable()
}

/// `SIGKILL` needs no queue: every thread is told to die.
fn kill_all_threads(group: &Arc<ThreadGroup>) {
    for task in group.threads() {
        group.signals().push(&task.signals().pending, SigInfo::kernel(Signal::SIGKILL), 0);
        task.interrupt();
    }
}

/// Interrupts one thread that does not block the signal; if there is none, whoever unblocks it first finds it pending.
fn wake_one(group: &Arc<ThreadGroup>, signal: Signal) {
    let hears = |t: &&Arc<Task>| !t.signals().deaf_to().contains(signal) && !t.is_exiting();
    if let Some(task) = group.threads().iter().find(hears) {
        task.interrupt();
    }
}

/// Finds other threads for signals of the group that this task no longer takes, because it exits or has blocked them.
pub fn pass_on(task: &Task) {
    let group = task.group();
    let left = group.signals().pending();
    for signal in (1..=64).filter_map(Signal::new).filter(|s| left.contains(*s)) {
        let hears = |t: &&Arc<Task>| {
            t.tid() != task.tid() && !t.signals().deaf_to().contains(signal) && !t.is_exiting()
        };
        if let Some(other) = group.threads().iter().find(hears) {
            other.interrupt();
        }
    }
}

/// Replaces the mask of the calling task, and passes on signals of the group that it newly blocks.
pub fn change_mask(task: &Task, mask: SigSet) {
    let newly = mask.difference(task.signals().mask());
    task.signals().set_mask(mask);
    if !task.group().signals().pending().intersection(newly).is_empty() {
        pass_on(task);
    }
}

/// Tells whether kill(2) is allowed: same user, `CAP_KILL`, or `SIGCONT` within a session.
#[must_use]
pub fn may_signal(sender: &Task, target: &ThreadGroup, signal: Option<Signal>) -> bool {
    if sender.tgid() == target.tgid() {
        return true;
    }
    let (mine, theirs) = (sender.credentials(), target.credentials());
    let same = [mine.euid, mine.uid].iter().any(|id| *id == theirs.suid || *id == theirs.uid);
    same || mine.has_cap(Cap::KILL)
        || signal == Some(Signal::SIGCONT) && sender.group().session_id() == target.session_id()
}

/// Tells whether the task was told to die.
#[must_use]
pub fn is_killed(task: &Task) -> bool {
    !task.signals().pending().intersection(KILL).is_empty()
}

/// Tells whether the task has something to do on its way out to the program: a signal to handle, or to stop.
/// Takes no lock.
#[must_use]
pub fn has_work(task: &Task) -> bool {
    let group = task.group().signals();
    let pending = task.signals().pending().union(group.pending());
    !pending.difference(task.signals().deaf_to()).is_empty()
        || group.job.epoch_to_heed(&task.tracing) != 0
        || task.tracing.watches(watch::TRAP)
}

/// Signals pending for the task: its own and its group's.
#[must_use]
pub fn pending(task: &Task) -> SigSet {
    task.signals().pending().union(task.group().signals().pending())
}

/// Takes a pending signal of the set, blocked or not: sigtimedwait(2), signalfd(2).
#[must_use]
pub fn dequeue(task: &Task, wanted: SigSet) -> Option<SigInfo> {
    let wanted = wanted.difference(SigSet::UNBLOCKABLE);
    take(task, wanted)
}

fn take(task: &Task, wanted: SigSet) -> Option<SigInfo> {
    let group = task.group().signals();
    let own = group.take(&task.signals().pending, wanted);
    let mut info = own.or_else(|| group.take(&group.pending, wanted))?;
    task.group().timers().signal_taken(&mut info);
    Some(info)
}

/// The task dies of `SIGKILL` now.
pub(crate) fn forget_kill(task: &Task) {
    task.group().signals().discard(&task.signals().pending, KILL);
}

/// A traced thread that was just made is stopped by `SIGSTOP`, which nobody sent.
pub(crate) fn add_first_stop(task: &Task) {
    task.group().signals().push(&task.signals().pending, SigInfo::kernel(Signal::SIGSTOP), 0);
}

/// Takes the next signal that the task does not block.
pub(super) fn take_deliverable(task: &Task) -> Option<SigInfo> {
    take(task, SigSet::FULL.difference(task.signals().mask()))
}

/// Replaces the action of a signal, and forgets it where it is pending and now ignored, as rt_sigaction(2) does.
pub fn set_action(
    group: &Arc<ThreadGroup>,
    signal: Signal,
    action: abi::siginfo::SigAction,
) -> abi::siginfo::SigAction {
    let signals = group.signals();
    let actions = signals.actions();
    let old = actions.set(signal, action);
    if actions.is_ignored(signal) {
        let unwanted = SigSet::of(signal);
        signals.discard(&signals.pending, unwanted);
        for task in group.threads() {
            signals.discard(&task.signals().pending, unwanted);
        }
    }
    old
}

/// Sends a signal that the task cannot escape, for a fault it made: unblocks it and, if blocked or ignored, takes its
/// handler away (Linux `force_sig_info`).
pub fn force_signal(task: &Arc<Task>, info: SigInfo) {
    let group = task.group();
    let (signals, actions) = (group.signals(), group.signals().actions());
    let mut action = actions.get(info.signal);
    let mask = task.signals().mask();
    let blocked = mask.contains(info.signal);
    if blocked || action.handler == abi::siginfo::SIG_IGN {
        action.handler = abi::siginfo::SIG_DFL;
        actions.set(info.signal, action);
    }
    let mut unblocked = mask;
    unblocked.remove(info.signal);
    task.signals().set_mask(unblocked);
    // Nobody expects that init can be killed because it is being debugged.
    if action.handler == abi::siginfo::SIG_DFL && !task.is_traced() {
        signals.set_unkillable(false);
    }
    // The fault replaces what may be pending of the same kind: its address is the one that matters.
    signals.discard(&task.signals().pending, SigSet::of(info.signal));
    signals.push(&task.signals().pending, info, usize::MAX);
    task.interrupt();
}
