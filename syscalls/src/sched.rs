//! Scheduling: `sched_setaffinity(2)`, `sched_setscheduler(2)`, `setpriority(2)`, and their kin.
//!
//! The host schedules; what programs ask for is checked as Linux does, kept and told.
use std::sync::Arc;

use abi::Errno;
use abi::resource::{PRIO_PGRP, PRIO_PROCESS, PRIO_USER};
use abi::sched::{
    SCHED_ATTR_SIZE_VER0, SCHED_BATCH, SCHED_DEADLINE, SCHED_FIFO, SCHED_IDLE, SCHED_NORMAL,
    SCHED_RESET_ON_FORK, SCHED_RR, SchedAttr,
};
use abi::time::Timespec;
use kernel::{Cap, RLIMIT_NICE, RLIMIT_RTPRIO, Scheduling, Task};

use crate::Cx;
use crate::decode::UserPtr;
use crate::process::id;

/// The thread that `pid` names; 0 is the caller.
fn target(cx: &Cx<'_>, pid: i32) -> Result<Arc<Task>, Errno> {
    match pid {
        0 => Ok(Arc::clone(cx.task())),
        i32::MIN..0 => Err(Errno::EINVAL),
        tid => cx.kernel().task(tid).ok_or(Errno::ESRCH),
    }
}

/// Linux `check_same_owner` or the capability.
fn may_set(cx: &Cx<'_>, task: &Task) -> bool {
    let (mine, theirs) = (cx.credentials(), task.credentials());
    mine.euid == theirs.euid || mine.euid == theirs.uid || mine.has_cap(Cap::SYS_NICE)
}

/// `sched_yield(2)`
///
/// # Errors
/// None.
pub fn sched_yield(_cx: &mut Cx<'_>) -> Result<usize, Errno> {
    std::thread::yield_now();
    Ok(0)
}

/// `sched_getaffinity(2)`: gives the size of the mask.
///
/// # Errors
/// `EINVAL` for a too small or odd size, `ESRCH`, `EFAULT`.
pub fn sched_getaffinity(cx: &mut Cx<'_>, pid: i32, len: u32, mask: UserPtr<u8>) -> Result<usize, Errno> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let cpus = usize::try_from(cx.kernel().cpus()).unwrap_or(usize::MAX);
    if len.saturating_mul(8) < cpus || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let affinity = target(cx, pid)?.scheduling().affinity;
    let bytes: Vec<u8> = affinity.iter().flat_map(|word| word.to_le_bytes()).take(len).collect();
    cx.memory()?.write_bytes(mask.addr(), &bytes)?;
    Ok(bytes.len())
}

/// `sched_setaffinity(2)`
///
/// # Errors
/// `EFAULT`, `ESRCH`, `EPERM`, `EINVAL` for a set without a processor that is there.
pub fn sched_setaffinity(cx: &mut Cx<'_>, pid: i32, len: u32, mask: UserPtr<u8>) -> Result<usize, Errno> {
    let cpus = usize::try_from(cx.kernel().cpus()).unwrap_or(1);
    let words = cpus.div_ceil(64);
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(words * 8);
    let bytes = mask.read_vec(cx, len)?;
    let task = target(cx, pid)?;
    if !may_set(cx, &task) {
        return Err(Errno::EPERM);
    }
    let affinity = affinity(&bytes, cpus);
    if affinity.iter().all(|word| *word == 0) {
        return Err(Errno::EINVAL);
    }
    task.set_scheduling(Scheduling { affinity: Arc::from(affinity), ..task.scheduling() });
    Ok(0)
}

/// The bits of those processors that are there.
fn affinity(bytes: &[u8], cpus: usize) -> Vec<u64> {
    let mut words = vec![0u64; cpus.div_ceil(64)];
    for cpu in 0..cpus {
        if bytes.get(cpu / 8).is_some_and(|b| b >> (cpu % 8) & 1 != 0)
            && let Some(word) = words.get_mut(cpu / 64)
        {
            *word |= 1 << (cpu % 64);
        }
    }
    words
}

/// `getcpu(2)`
///
/// # Errors
/// `EFAULT`.
pub fn getcpu(cx: &mut Cx<'_>, cpu: UserPtr<u32>, node: UserPtr<u32>) -> Result<usize, Errno> {
    // Threads float over the host's processors; the first that this one may use is as right as any other.
    let affinity = cx.scheduling().affinity;
    let first = affinity.iter().zip(0u32..).find(|(word, _)| **word != 0);
    let number = first.map_or(0, |(word, at)| at * 64 + word.trailing_zeros());
    cpu.write_if_some(cx, &number)?;
    node.write_if_some(cx, &0)?;
    Ok(0)
}

const fn is_realtime(policy: i32) -> bool {
    policy == SCHED_FIFO || policy == SCHED_RR
}

/// Checks and keeps what sched_setscheduler(2) and its kin ask for, Linux `__sched_setscheduler`.
fn set(cx: &Cx<'_>, task: &Task, new: Scheduling) -> Result<usize, Errno> {
    if new.policy == SCHED_DEADLINE {
        return Err(cx.unsupported("SCHED_DEADLINE", Errno::EPERM));
    }
    if !matches!(new.policy, SCHED_NORMAL | SCHED_FIFO | SCHED_RR | SCHED_BATCH | SCHED_IDLE) {
        return Err(Errno::EINVAL);
    }
    if !(0..=99).contains(&new.priority) || is_realtime(new.policy) != (new.priority != 0) {
        return Err(Errno::EINVAL);
    }
    let old = task.scheduling();
    if !cx.credentials().has_cap(Cap::SYS_NICE) {
        let limit = task.group().limits().get(RLIMIT_RTPRIO).0;
        let raises = u64::try_from(new.priority).unwrap_or(0) > limit && new.priority > old.priority;
        let starts = is_realtime(new.policy) && new.policy != old.policy && limit == 0;
        let forbidden = raises
            || starts
            || new.nice < old.nice && !may_nice(task, new.nice)
            || !may_set(cx, task)
            || old.reset_on_fork && !new.reset_on_fork;
        if forbidden {
            return Err(Errno::EPERM);
        }
    }
    task.set_scheduling(new);
    Ok(0)
}

/// Linux `can_nice` without the capability.
fn may_nice(task: &Task, nice: i32) -> bool {
    u64::try_from(20 - nice).is_ok_and(|wanted| wanted <= task.group().limits().get(RLIMIT_NICE).0)
}

/// `sched_setscheduler(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `ESRCH`, `EPERM`.
pub fn sched_setscheduler(
    cx: &mut Cx<'_>,
    pid: i32,
    policy: i32,
    param: UserPtr<i32>,
) -> Result<usize, Errno> {
    if policy < 0 || pid < 0 || param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority = param.read(cx)?;
    let task = target(cx, pid)?;
    let reset_on_fork = policy & SCHED_RESET_ON_FORK != 0;
    let policy = policy & !SCHED_RESET_ON_FORK;
    set(cx, &task, Scheduling { policy, priority, reset_on_fork, ..task.scheduling() })
}

/// `sched_setparam(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `ESRCH`, `EPERM`.
pub fn sched_setparam(cx: &mut Cx<'_>, pid: i32, param: UserPtr<i32>) -> Result<usize, Errno> {
    if pid < 0 || param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority = param.read(cx)?;
    let task = target(cx, pid)?;
    set(cx, &task, Scheduling { priority, ..task.scheduling() })
}

/// `sched_getparam(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EFAULT`.
pub fn sched_getparam(cx: &mut Cx<'_>, pid: i32, param: UserPtr<i32>) -> Result<usize, Errno> {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority = target(cx, pid)?.scheduling().priority;
    param.write(cx, &priority)?;
    Ok(0)
}

/// `sched_getscheduler(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`.
pub fn sched_getscheduler(cx: &mut Cx<'_>, pid: i32) -> Result<usize, Errno> {
    let scheduling = target(cx, pid)?.scheduling();
    id(scheduling.policy | if scheduling.reset_on_fork { SCHED_RESET_ON_FORK } else { 0 })
}

fn priority_range(policy: i32) -> Result<(usize, usize), Errno> {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok((1, 99)),
        SCHED_NORMAL | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE => Ok((0, 0)),
        _ => Err(Errno::EINVAL),
    }
}

/// `sched_get_priority_max(2)`
///
/// # Errors
/// `EINVAL`.
pub fn sched_get_priority_max(_cx: &mut Cx<'_>, policy: i32) -> Result<usize, Errno> {
    priority_range(policy).map(|(_, max)| max)
}

/// `sched_get_priority_min(2)`
///
/// # Errors
/// `EINVAL`.
pub fn sched_get_priority_min(_cx: &mut Cx<'_>, policy: i32) -> Result<usize, Errno> {
    priority_range(policy).map(|(min, _)| min)
}

/// `sched_rr_get_interval(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EFAULT`.
pub fn sched_rr_get_interval(cx: &mut Cx<'_>, pid: i32, span: UserPtr<Timespec>) -> Result<usize, Errno> {
    let ns = match target(cx, pid)?.scheduling().policy {
        SCHED_RR => 100_000_000,
        SCHED_NORMAL | SCHED_BATCH => 4_000_000,
        _ => 0,
    };
    span.write(cx, &Timespec::from_ns(ns))?;
    Ok(0)
}

/// `sched_getattr(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EFAULT`.
pub fn sched_getattr(
    cx: &mut Cx<'_>,
    pid: i32,
    attr: UserPtr<u8>,
    size: u32,
    flags: u32,
) -> Result<usize, Errno> {
    if attr.is_null() || !(SCHED_ATTR_SIZE_VER0..=4096).contains(&size) || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let scheduling = target(cx, pid)?.scheduling();
    let known = u32::try_from(size_of::<SchedAttr>()).unwrap_or(u32::MAX);
    let value = SchedAttr {
        size: size.min(known),
        policy: scheduling.policy.cast_unsigned(),
        flags: u64::from(scheduling.reset_on_fork),
        nice: if is_realtime(scheduling.policy) { 0 } else { scheduling.nice },
        priority: scheduling.priority.cast_unsigned(),
        util_max: 1024,
        ..SchedAttr::default()
    };
    let bytes = zerocopy::IntoBytes::as_bytes(&value);
    let len = usize::try_from(value.size).unwrap_or(0);
    cx.memory()?.write_bytes(attr.addr(), bytes.get(..len).unwrap_or(bytes))?;
    Ok(0)
}

/// `SCHED_FLAG_RESET_ON_FORK`.
const FLAG_RESET_ON_FORK: u64 = 1;
/// `SCHED_FLAG_KEEP_POLICY`.
const FLAG_KEEP_POLICY: u64 = 8;
/// `SCHED_FLAG_KEEP_PARAMS`.
const FLAG_KEEP_PARAMS: u64 = 0x10;
/// The flags of bandwidth reservations and utilization clamps, which take a deadline scheduler or cgroups.
const FLAGS_ABSENT: u64 = 0x66;

/// `sched_setattr(2)`
///
/// # Errors
/// `EINVAL`, `E2BIG`, `ESRCH`, `EPERM`, `EFAULT`.
pub fn sched_setattr(cx: &mut Cx<'_>, pid: i32, attr: UserPtr<u32>, flags: u32) -> Result<usize, Errno> {
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let size = match attr.read(cx)? {
        0 => SCHED_ATTR_SIZE_VER0,
        size @ SCHED_ATTR_SIZE_VER0..=4096 => size,
        _ => {
            attr.write(cx, &u32::try_from(size_of::<SchedAttr>()).unwrap_or(0))?;
            return Err(Errno::E2BIG);
        }
    };
    let wire: SchedAttr = crate::clone::read_extensible(cx, attr.addr(), u64::from(size))?;
    if wire.policy.cast_signed() < 0 || wire.flags & !0x7f != 0 {
        return Err(Errno::EINVAL);
    }
    if wire.flags & FLAGS_ABSENT != 0 {
        return Err(cx.unsupported("sched_setattr: flags", Errno::EOPNOTSUPP));
    }
    let task = target(cx, pid)?;
    let mut new = task.scheduling();
    if wire.flags & FLAG_KEEP_POLICY == 0 {
        new.policy = wire.policy.cast_signed();
        new.reset_on_fork = wire.flags & FLAG_RESET_ON_FORK != 0;
    }
    if wire.flags & FLAG_KEEP_PARAMS == 0 {
        new.priority = i32::try_from(wire.priority).map_err(|_wide| Errno::EINVAL)?;
        if !is_realtime(new.policy) {
            new.nice = wire.nice.clamp(-20, 19);
        }
    }
    set(cx, &task, new)
}

/// Calls `f` for each thread that setpriority(2) means.
fn each(cx: &Cx<'_>, which: i32, who: i32, mut f: impl FnMut(&Arc<Task>)) -> Result<(), Errno> {
    match which {
        PRIO_PROCESS if who == 0 => f(cx.task()),
        PRIO_PROCESS => {
            if let Some(task) = cx.kernel().task(who) {
                f(&task);
            }
        }
        PRIO_PGRP => {
            let group = if who == 0 { cx.group().process_group_id() } else { who };
            for task in cx.kernel().process_group_members(group).iter().flat_map(|g| g.threads()) {
                f(&task);
            }
        }
        PRIO_USER => {
            let uid = if who == 0 { cx.credentials().uid } else { who.cast_unsigned() };
            for task in cx.kernel().tasks().iter().filter(|t| t.credentials().uid == uid) {
                f(task);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// `getpriority(2)`: gives 20 less the nice value, of several the highest.
///
/// # Errors
/// `EINVAL`, `ESRCH`.
pub fn getpriority(cx: &mut Cx<'_>, which: i32, who: i32) -> Result<usize, Errno> {
    let mut best = None;
    each(cx, which, who, |task| best = best.max(Some(20 - task.scheduling().nice)))?;
    id(best.ok_or(Errno::ESRCH)?)
}

/// `setpriority(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EPERM` for another's thread, `EACCES` for a lower value than allowed.
pub fn setpriority(cx: &mut Cx<'_>, which: i32, who: i32, nice: i32) -> Result<usize, Errno> {
    let nice = nice.clamp(-20, 19);
    let privileged = cx.credentials().has_cap(Cap::SYS_NICE);
    let mut result = Err(Errno::ESRCH);
    each(cx, which, who, |task| {
        let old = task.scheduling();
        if !may_set(cx, task) {
            result = Err(Errno::EPERM);
        } else if nice < old.nice && !privileged && !may_nice(task, nice) {
            result = Err(Errno::EACCES);
        } else {
            task.set_scheduling(Scheduling { nice, ..old });
            if result == Err(Errno::ESRCH) {
                result = Ok(0);
            }
        }
    })?;
    result
}

const IOPRIO_WHO_PROCESS: i32 = 1;
const IOPRIO_WHO_PGRP: i32 = 2;
const IOPRIO_WHO_USER: i32 = 3;

fn ioprio_which(which: i32) -> Result<i32, Errno> {
    match which {
        IOPRIO_WHO_PROCESS => Ok(PRIO_PROCESS),
        IOPRIO_WHO_PGRP => Ok(PRIO_PGRP),
        IOPRIO_WHO_USER => Ok(PRIO_USER),
        _ => Err(Errno::EINVAL),
    }
}

/// `ioprio_get(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`.
pub fn ioprio_get(cx: &mut Cx<'_>, which: i32, who: i32) -> Result<usize, Errno> {
    let mut best = None;
    each(cx, ioprio_which(which)?, who, |task| {
        let own = task.scheduling().io_priority;
        best = Some(best.map_or(own, |b: u16| b.min(own)));
    })?;
    best.map(usize::from).ok_or(Errno::ESRCH)
}

/// `ioprio_set(2)`
///
/// # Errors
/// `EINVAL`, `EPERM`, `ESRCH`.
pub fn ioprio_set(cx: &mut Cx<'_>, which: i32, who: i32, priority: i32) -> Result<usize, Errno> {
    let io_priority = u16::try_from(priority).map_err(|_wide| Errno::EINVAL)?;
    let creds = cx.credentials();
    match (io_priority >> 13, io_priority & 7) {
        (0, 0) | (2 | 3, _) => {}
        (1, _) if creds.has_cap(Cap::SYS_ADMIN) || creds.has_cap(Cap::SYS_NICE) => {}
        (1, _) => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    }
    let mut result = Err(Errno::ESRCH);
    each(cx, ioprio_which(which)?, who, |task| {
        if may_set(cx, task) {
            task.set_scheduling(Scheduling { io_priority, ..task.scheduling() });
            result = Ok(0);
        } else {
            result = Err(Errno::EPERM);
        }
    })?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_are_not_there_do_not_count() {
        assert_eq!(affinity(&[0xff], 2), [3]);
        assert_eq!(affinity(&[0x04], 2), [0]);
        assert_eq!(affinity(&[0, 0, 0, 0, 0, 0, 0, 0, 1], 65), [0, 1]);
    }
}
