//! Signals: `rt_sigaction(2)`, `rt_sigprocmask(2)`, `kill(2)`, and their kin.
use std::sync::Arc;

use abi::sigframe::{MINSIGSTKSZ, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, StackT};
use abi::siginfo::{SI_TKILL, SI_USER, SigAction, SigInfoWire};
use abi::time::Timespec;
use abi::{Errno, SigSet, Signal};
use kernel::ThreadGroup;
use kernel::signal::{self, SigInfo};

use crate::Cx;
use crate::decode::{UserPtr, sigset};

const SIGSET_SIZE: usize = size_of::<SigSet>();

fn signal_number(number: i32) -> Result<Signal, Errno> {
    Signal::new(number).ok_or(Errno::EINVAL)
}

/// `rt_sigaction(2)`
///
/// # Errors
/// `EINVAL` for a bad signal or set size, or changing what cannot be caught; `EFAULT`.
pub fn rt_sigaction(
    cx: &mut Cx<'_>,
    number: i32,
    new: UserPtr<SigAction>,
    old: UserPtr<SigAction>,
    size: usize,
) -> Result<usize, Errno> {
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let new = new.read_if_some(cx)?;
    let signal = signal_number(number)?;
    if new.is_some() && SigSet::UNBLOCKABLE.contains(signal) {
        return Err(Errno::EINVAL);
    }
    let before = match new {
        Some(mut action) => {
            action.mask = action.mask.difference(SigSet::UNBLOCKABLE);
            signal::set_action(cx.group(), signal, action)
        }
        None => cx.group().signals().actions().get(signal),
    };
    old.write_if_some(cx, &before)?;
    Ok(0)
}

/// `rt_sigprocmask(2)`
///
/// # Errors
/// `EINVAL` for a bad set size or operation, `EFAULT`.
pub fn rt_sigprocmask(
    cx: &mut Cx<'_>,
    how: i32,
    new: UserPtr<SigSet>,
    old: UserPtr<SigSet>,
    size: usize,
) -> Result<usize, Errno> {
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let before = cx.signals().mask();
    if let Some(set) = new.read_if_some(cx)? {
        let mask = match how {
            0 => before.union(set),
            1 => before.difference(set),
            2 => set,
            _ => return Err(Errno::EINVAL),
        };
        signal::change_mask(cx, mask.difference(SigSet::UNBLOCKABLE));
    }
    old.write_if_some(cx, &before)?;
    Ok(0)
}

/// `rt_sigpending(2)`
///
/// # Errors
/// `EINVAL` for a too large set size, `EFAULT`.
pub fn rt_sigpending(cx: &mut Cx<'_>, set: UserPtr<u8>, size: usize) -> Result<usize, Errno> {
    if size > SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let pending = signal::pending(cx).intersection(cx.signals().mask());
    let bytes = pending.0.to_ne_bytes();
    cx.memory()?.write_bytes(set.addr(), bytes.get(..size).unwrap_or(&bytes))?;
    Ok(0)
}

/// `rt_sigsuspend(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`; otherwise a signal.
pub fn rt_sigsuspend(cx: &mut Cx<'_>, set: UserPtr<SigSet>, size: usize) -> Result<usize, Errno> {
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let mask = set.read(cx)?;
    cx.signals().set_temporary_mask(mask);
    pause(cx)
}

/// `pause(2)`
///
/// # Errors
/// A signal.
pub fn pause(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    loop {
        cx.sleep(None)?;
    }
}

/// `rt_sigreturn(2)`
///
/// # Errors
/// None: a bad frame is a `SIGSEGV`.
pub fn rt_sigreturn(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    match signal::sigreturn(cx.cur) {
        Ok(rax) => usize::try_from(rax).map_err(|_wide| Errno::EINVAL),
        Err(_) => {
            signal::force_signal(cx.task(), SigInfo::kernel(Signal::SIGSEGV));
            Ok(0)
        }
    }
}

/// `rt_sigtimedwait(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EAGAIN` when the time is up, `EINTR` for another signal.
pub fn rt_sigtimedwait(
    cx: &mut Cx<'_>,
    set: UserPtr<SigSet>,
    info: UserPtr<SigInfoWire>,
    timeout: UserPtr<Timespec>,
    size: usize,
) -> Result<usize, Errno> {
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let wanted = set.read(cx)?.difference(SigSet::UNBLOCKABLE);
    let timeout_ns = timeout.read_if_some(cx)?.map(Timespec::to_ns).transpose()?;
    let deadline = timeout_ns.map(|t| cx.now_ns().saturating_add(t));
    cx.signals().set_awaited(wanted);
    let result = loop {
        if let Some(info) = signal::dequeue(cx, wanted) {
            break Ok(info);
        }
        match cx.cur.block(deadline) {
            kernel::BlockResult::Woken => {}
            kernel::BlockResult::TimedOut => {
                break signal::dequeue(cx, wanted).ok_or(Errno::EAGAIN);
            }
            // The signal that interrupts may be one that is waited for.
            kernel::BlockResult::Interrupted => {
                break signal::dequeue(cx, wanted).ok_or(Errno::EINTR);
            }
        }
    };
    cx.signals().set_awaited(SigSet::EMPTY);
    let taken = result?;
    info.write_if_some(cx, &taken.to_wire())?;
    crate::process::id(taken.signal.number())
}

/// `sigaltstack(2)`
///
/// # Errors
/// `EFAULT`, `EPERM` while on the stack, `EINVAL` for unknown flags, `ENOMEM` for a too small stack.
pub fn sigaltstack(cx: &mut Cx<'_>, new: UserPtr<StackT>, old: UserPtr<StackT>) -> Result<usize, Errno> {
    let new = new.read_if_some(cx)?;
    let sp = cx.regs().rsp;
    let now = cx.signals().alt_stack();
    let shown = StackT { flags: cx.signals().alt_stack_flags(sp), pad: 0, ..now };
    if let Some(stack) = new {
        if cx.signals().is_on_alt_stack(sp) {
            return Err(Errno::EPERM);
        }
        let mode = stack.flags & !SS_AUTODISARM;
        if mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0 {
            return Err(Errno::EINVAL);
        }
        let stack = if mode == SS_DISABLE {
            StackT { sp: 0, flags: stack.flags, pad: 0, size: 0 }
        } else if stack.size < MINSIGSTKSZ {
            return Err(Errno::ENOMEM);
        } else {
            StackT { pad: 0, ..stack }
        };
        cx.signals().set_alt_stack(stack);
    }
    old.write_if_some(cx, &shown)?;
    Ok(0)
}

fn send(cx: &Cx<'_>, group: &Arc<ThreadGroup>, signal: Option<Signal>) -> Result<(), Errno> {
    if !signal::may_signal(cx, group, signal) {
        return Err(Errno::EPERM);
    }
    match signal {
        Some(signal) => signal::send_to_group(group, SigInfo::kill(signal, cx.tgid(), cx.credentials().uid)),
        None => Ok(()),
    }
}

/// A signal number, or 0 to send nothing.
fn optional(number: i32) -> Result<Option<Signal>, Errno> {
    if number == 0 { Ok(None) } else { signal_number(number).map(Some) }
}

/// `kill(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EPERM`.
pub fn kill(cx: &mut Cx<'_>, pid: i32, number: i32) -> Result<usize, Errno> {
    // Linux looks for the target first.
    let targets = match pid {
        1.. => vec![target_group(cx, pid)?],
        0 => cx.kernel().process_group_members(cx.group().process_group_id()),
        -1 => cx
            .kernel()
            .thread_groups()
            .into_iter()
            .filter(|g| g.tgid() > 1 && g.tgid() != cx.tgid())
            .collect(),
        i32::MIN => return Err(Errno::ESRCH),
        group => cx.kernel().process_group_members(-group),
    };
    let signal = optional(number)?;
    if pid > 0 {
        return targets.iter().try_for_each(|g| send(cx, g, signal)).map(|()| 0);
    }
    // For all processes at once, those that may not be signaled count, but do not make it fail.
    let mut result = if pid == -1 && !targets.is_empty() { Ok(0) } else { Err(Errno::ESRCH) };
    for group in &targets {
        match send(cx, group, signal) {
            Ok(()) => result = Ok(0),
            Err(Errno::EPERM) if pid == -1 => {}
            Err(errno) if result.is_err() => result = Err(errno),
            Err(_) => {}
        }
    }
    result
}

/// The process that `pid` names, also by the id of a thread that is not its leader.
fn target_group(cx: &Cx<'_>, pid: i32) -> Result<Arc<ThreadGroup>, Errno> {
    let kernel = cx.kernel();
    kernel.thread_group(pid).or_else(|| kernel.task(pid).map(|t| Arc::clone(t.group()))).ok_or(Errno::ESRCH)
}

fn send_to_thread(cx: &Cx<'_>, tgid: Option<i32>, tid: i32, number: i32) -> Result<usize, Errno> {
    let signal = optional(number)?;
    let task = cx.kernel().task(tid).filter(|t| tgid.is_none_or(|g| g == t.tgid())).ok_or(Errno::ESRCH)?;
    if !signal::may_signal(cx, task.group(), signal) {
        return Err(Errno::EPERM);
    }
    if let Some(signal) = signal {
        signal::send_to_task(&task, SigInfo::tkill(signal, cx.tgid(), cx.credentials().uid))?;
    }
    Ok(0)
}

/// `tkill(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EPERM`, `EAGAIN`.
pub fn tkill(cx: &mut Cx<'_>, tid: i32, number: i32) -> Result<usize, Errno> {
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    send_to_thread(cx, None, tid, number)
}

/// `tgkill(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EPERM`, `EAGAIN`.
pub fn tgkill(cx: &mut Cx<'_>, tgid: i32, tid: i32, number: i32) -> Result<usize, Errno> {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    send_to_thread(cx, Some(tgid), tid, number)
}

/// Reads what rt_sigqueueinfo(2) and its kin are to send. Programs may not pretend to be the kernel or kill(2), but to
/// themselves.
fn queued_info(
    cx: &Cx<'_>,
    number: i32,
    info: UserPtr<SigInfoWire>,
    to_self: bool,
) -> Result<Option<SigInfo>, Errno> {
    let wire = info.read(cx)?;
    if (wire.si_code >= SI_USER || wire.si_code == SI_TKILL) && !to_self {
        return Err(Errno::EPERM);
    }
    Ok(optional(number)?.map(|signal| SigInfo::from_wire(signal, &wire)))
}

/// `rt_sigqueueinfo(2)`
///
/// # Errors
/// `EFAULT`, `EPERM`, `ESRCH`, `EINVAL`, `EAGAIN`.
pub fn rt_sigqueueinfo(
    cx: &mut Cx<'_>,
    pid: i32,
    number: i32,
    info: UserPtr<SigInfoWire>,
) -> Result<usize, Errno> {
    let info = queued_info(cx, number, info, pid == cx.tgid())?;
    let group = target_group(cx, pid)?;
    if !signal::may_signal(cx, &group, info.map(|i| i.signal)) {
        return Err(Errno::EPERM);
    }
    if let Some(info) = info {
        signal::send_to_group(&group, info)?;
    }
    Ok(0)
}

/// `rt_tgsigqueueinfo(2)`
///
/// # Errors
/// `EFAULT`, `EPERM`, `ESRCH`, `EINVAL`, `EAGAIN`.
pub fn rt_tgsigqueueinfo(
    cx: &mut Cx<'_>,
    tgid: i32,
    tid: i32,
    number: i32,
    info: UserPtr<SigInfoWire>,
) -> Result<usize, Errno> {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = queued_info(cx, number, info, tid == cx.tid())?;
    let task = cx.kernel().task(tid).filter(|t| t.tgid() == tgid).ok_or(Errno::ESRCH)?;
    if !signal::may_signal(cx, task.group(), info.map(|i| i.signal)) {
        return Err(Errno::EPERM);
    }
    if let Some(info) = info {
        signal::send_to_task(&task, info)?;
    }
    Ok(0)
}

/// Sets the mask for the time of the call, as ppoll(2) and its kin do; nothing for the null pointer.
///
/// # Errors
/// `EINVAL` for a bad set size, `EFAULT`.
pub(crate) fn set_temporary_mask(cx: &Cx<'_>, set: UserPtr<SigSet>, size: usize) -> Result<(), Errno> {
    if let Some(mask) = sigset(cx, set, size)? {
        cx.signals().set_temporary_mask(mask);
    }
    Ok(())
}

/// Puts the mask back after the call, unless a signal is about to be handled, which does so after its handler.
pub(crate) fn restore_mask<T>(cx: &Cx<'_>, result: Result<T, Errno>) -> Result<T, Errno> {
    if !matches!(result, Err(Errno::ERESTARTNOHAND | Errno::EINTR)) {
        cx.signals().restore_mask();
    }
    result
}
