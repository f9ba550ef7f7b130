//! Watching many files: `epoll_create1(2)`, `epoll_ctl(2)`, `epoll_wait(2)`.
use std::sync::Arc;

use abi::fs::{O_CLOEXEC, O_PATH, O_RDWR};
use abi::time::Timespec;
use abi::uio::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EpollEvent};
use abi::{Errno, SigSet};
use kernel::File;
use sync::PollEvents;
use vfs::FileDescription;
use vfs::anon::{Epoll, Interest};

use crate::Cx;
use crate::blocking::Wait;
use crate::decode::{Fd, UserPtr};
use crate::eventfd::install_anon;
use crate::poll::deadline;

/// How many events one call may ask for, Linux `EP_MAX_EVENTS`.
const MAX_EVENTS: i32 = i32::MAX / 12;
/// How many are collected at a time.
const BATCH: usize = 1024;

/// `epoll_create(2)`
///
/// # Errors
/// `EINVAL`, `EMFILE`.
pub fn epoll_create(cx: &mut Cx<'_>, size: i32) -> Result<usize, Errno> {
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    epoll_create1(cx, 0)
}

/// `epoll_create1(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, `EMFILE`.
pub fn epoll_create1(cx: &mut Cx<'_>, flags: u32) -> Result<usize, Errno> {
    if flags & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    install_anon(cx, "anon_inode:[eventpoll]", Epoll::new(), O_RDWR | flags)
}

fn epoll(file: &Arc<dyn File>) -> Result<Arc<Epoll>, Errno> {
    let ops = FileDescription::from_file(file).ok_or(Errno::EINVAL)?.ops();
    Arc::clone(ops).downcast_arc::<Epoll>().ok_or(Errno::EINVAL)
}

/// `epoll_ctl(2)`
///
/// # Errors
/// `EFAULT`, `EBADF`, `EPERM`, `EINVAL`, `EEXIST`, `ENOENT`, `ELOOP`.
pub fn epoll_ctl(
    cx: &mut Cx<'_>,
    epfd: Fd,
    operation: i32,
    fd: Fd,
    event: UserPtr<EpollEvent>,
) -> Result<usize, Errno> {
    let interest = if operation == EPOLL_CTL_DEL {
        Interest { events: 0, data: 0 }
    } else {
        let event = event.read(cx)?;
        Interest { events: event.events(), data: event.data() }
    };
    let instance = cx.file(epfd)?;
    let file = cx.file(fd)?;
    if file.status_flags() & O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    let pollable = FileDescription::from_file(&file).is_some_and(|d| d.ops().epollable());
    if !pollable {
        return Err(Errno::EPERM);
    }
    if Arc::ptr_eq(&instance, &file) {
        return Err(Errno::EINVAL);
    }
    let instance = epoll(&instance)?;
    match operation {
        EPOLL_CTL_ADD => instance.add(cx, fd.0, &file, interest)?,
        EPOLL_CTL_MOD => instance.modify(cx, fd.0, &file, interest)?,
        EPOLL_CTL_DEL => instance.remove(fd.0, &file)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn wait_until(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    deadline_ns: Option<u64>,
) -> Result<usize, Errno> {
    if max <= 0 || max > MAX_EVENTS {
        return Err(Errno::EINVAL);
    }
    let file = cx.file(epfd)?;
    let instance = epoll(&file)?;
    let max = usize::try_from(max).unwrap_or(1).min(BATCH);
    let wait = match deadline_ns {
        None => Wait::Forever,
        Some(0) => Wait::Never,
        Some(at) => Wait::Until(at),
    };
    let found = cx.blocking(&file, PollEvents::READABLE, wait, |cx| {
        let found = instance.collect(cx, max, |at, ready| {
            events.at(at)?.write(cx, &EpollEvent::new(ready.events, ready.data))
        })?;
        if found == 0 { Err(Errno::EAGAIN) } else { Ok(found) }
    });
    match found {
        Err(Errno::EAGAIN) => Ok(0),
        // Never started again, signal(7).
        Err(Errno::ERESTARTSYS) => Err(Errno::EINTR),
        found => found,
    }
}

fn milliseconds(cx: &Cx<'_>, timeout: i32) -> Option<u64> {
    deadline(cx, u64::try_from(timeout).ok().map(|ms| ms * 1_000_000))
}

/// `epoll_wait(2)`
///
/// # Errors
/// `EBADF`, `EINVAL`, `EFAULT`, `EINTR`.
pub fn epoll_wait(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout: i32,
) -> Result<usize, Errno> {
    let deadline_ns = milliseconds(cx, timeout);
    wait_until(cx, epfd, events, max, deadline_ns)
}

fn with_mask(
    cx: &mut Cx<'_>,
    (mask, size): (UserPtr<SigSet>, usize),
    wait: impl FnOnce(&mut Cx<'_>) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    crate::signal::set_temporary_mask(cx, mask, size)?;
    let result = wait(cx);
    crate::signal::restore_mask(cx, result)
}

/// `epoll_pwait(2)`
///
/// # Errors
/// As [`epoll_wait`].
pub fn epoll_pwait(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout: i32,
    mask: UserPtr<SigSet>,
    size: usize,
) -> Result<usize, Errno> {
    let deadline_ns = milliseconds(cx, timeout);
    with_mask(cx, (mask, size), |cx| wait_until(cx, epfd, events, max, deadline_ns))
}

/// `epoll_pwait2(2)`
///
/// # Errors
/// As [`epoll_wait`].
pub fn epoll_pwait2(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<SigSet>,
    size: usize,
) -> Result<usize, Errno> {
    let span = timeout.read_if_some(cx)?.map(Timespec::to_ns).transpose()?;
    let deadline_ns = deadline(cx, span);
    with_mask(cx, (mask, size), |cx| wait_until(cx, epfd, events, max, deadline_ns))
}
