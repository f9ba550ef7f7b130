//! Process ids, groups and sessions: `getpid(2)`, `setpgid(2)`, `setsid(2)`, and their kin.
use std::sync::Arc;

use abi::Errno;
use kernel::ThreadGroup;
use kernel::futex::RobustList;

use crate::Cx;
use crate::decode::UserPtr;

/// An id as a result; ids are not negative.
pub(crate) fn id(value: i32) -> Result<usize, Errno> {
    usize::try_from(value).map_err(|_negative| Errno::ESRCH)
}

/// `getpid(2)`
///
/// # Errors
/// None.
pub fn getpid(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    id(cx.tgid())
}

/// `gettid(2)`
///
/// # Errors
/// None.
pub fn gettid(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    id(cx.tid())
}

/// `getppid(2)`
///
/// # Errors
/// None.
pub fn getppid(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    id(cx.group().parent_id())
}

/// The process that `pid` names, by the id of any of its threads; 0 is the caller's.
pub(crate) fn group_of(cx: &Cx<'_>, pid: i32) -> Result<Arc<ThreadGroup>, Errno> {
    if pid == 0 || pid == cx.tid() {
        return Ok(Arc::clone(cx.group()));
    }
    cx.kernel().task(pid).map(|task| Arc::clone(task.group())).ok_or(Errno::ESRCH)
}

/// `getpgrp(2)`
///
/// # Errors
/// None.
pub fn getpgrp(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    id(cx.group().process_group_id())
}

/// `getpgid(2)`
///
/// # Errors
/// `ESRCH`.
pub fn getpgid(cx: &mut Cx<'_>, pid: i32) -> Result<usize, Errno> {
    id(group_of(cx, pid)?.process_group_id())
}

/// `getsid(2)`
///
/// # Errors
/// `ESRCH`.
pub fn getsid(cx: &mut Cx<'_>, pid: i32) -> Result<usize, Errno> {
    id(group_of(cx, pid)?.session_id())
}

/// `setpgid(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EPERM`, `EACCES`.
pub fn setpgid(cx: &mut Cx<'_>, pid: i32, pgid: i32) -> Result<usize, Errno> {
    cx.group().setpgid(pid, pgid).map(|()| 0)
}

/// `setsid(2)`
///
/// # Errors
/// `EPERM`.
pub fn setsid(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    id(cx.group().setsid()?)
}

/// `set_tid_address(2)`
///
/// # Errors
/// None.
pub fn set_tid_address(cx: &mut Cx<'_>, addr: u64) -> Result<usize, Errno> {
    cx.set_clear_child_tid(addr);
    id(cx.tid())
}

/// Size of `struct robust_list_head`.
const ROBUST_LIST_HEAD: usize = 24;

/// `set_robust_list(2)`
///
/// # Errors
/// `EINVAL` for another size than Linux's.
pub fn set_robust_list(cx: &mut Cx<'_>, head: u64, len: usize) -> Result<usize, Errno> {
    if len != ROBUST_LIST_HEAD {
        return Err(Errno::EINVAL);
    }
    cx.set_robust_list(RobustList(head));
    Ok(0)
}

/// `get_robust_list(2)`
///
/// # Errors
/// `ESRCH`, `EPERM`, `EFAULT`.
pub fn get_robust_list(
    cx: &mut Cx<'_>,
    pid: i32,
    head: UserPtr<u64>,
    len: UserPtr<usize>,
) -> Result<usize, Errno> {
    let list = if pid == 0 || pid == cx.tid() {
        cx.robust_list()
    } else {
        let task = cx.kernel().task(pid).ok_or(Errno::ESRCH)?;
        if !kernel::ptrace::may_access(cx, &task) {
            return Err(Errno::EPERM);
        }
        task.robust_list()
    };
    len.write(cx, &ROBUST_LIST_HEAD)?;
    head.write(cx, &list.0)?;
    Ok(0)
}

/// Tells whether the caller may look into another process.
pub(crate) fn may_access(cx: &Cx<'_>, target: &Arc<ThreadGroup>) -> bool {
    target.leader().is_some_and(|leader| kernel::ptrace::may_access(cx, &leader))
}
