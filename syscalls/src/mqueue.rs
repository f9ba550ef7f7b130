//! POSIX message queues: `mq_open(2)` and its kin, Linux `ipc/mqueue.c`.
use std::sync::Arc;

use abi::fs::{O_ACCMODE, O_NONBLOCK, O_RDONLY, O_WRONLY};
use abi::time::Timespec;
use abi::{Errno, Signal};
use fs_mqueue::{Mqueue, Notice, PRIO_MAX, Queue, Root};
use kernel::File;
use sync::PollEvents;
use vfs::{FileDescription, FsContext, InodeOps, OpCx, new_inode_file};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Cx;
use crate::blocking::Wait;
use crate::decode::{Fd, UserPtr};
use crate::futex::monotonic_deadline;
use crate::timer::{SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, Sigevent};

/// `struct mq_attr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct MqAttr {
    flags: i64,
    maxmsg: i64,
    msgsize: i64,
    curmsgs: i64,
    reserved: [i64; 4],
}

fn directory(cx: &Cx<'_>) -> &'static Arc<Root> {
    Mqueue::instance(Timespec::from_ns(cx.kernel().clock().realtime_ns())).directory()
}

/// `mq_open(2)`; `name` is without the slash that programs give, which libraries take away.
///
/// # Errors
/// `EFAULT`, `ENOENT`, `EEXIST`, `EACCES`, `EINVAL`, `ENAMETOOLONG`, `ENOSPC`, `EMFILE`.
pub fn mq_open(
    cx: &mut Cx<'_>,
    name: UserPtr<u8>,
    flags: u32,
    mode: u32,
    attr: UserPtr<MqAttr>,
) -> Result<usize, Errno> {
    let attr = attr.read_if_some(cx)?;
    let name = cx.path(name)?;
    let mode = mode & 0o7777 & !FsContext::of(cx)?.umask();
    let creds = cx.credentials();
    let op = OpCx::of_task(cx, &creds);
    let limits = attr.map(|attr| (attr.maxmsg, attr.msgsize));
    let queue = directory(cx).open_queue(&op, &name, (flags, mode), limits)?;
    let ops = Arc::clone(&queue).open(&op, flags)?;
    let shown = [b"/", &*name].concat();
    let file = new_inode_file(&op, &shown, queue, ops, flags & (O_ACCMODE | O_NONBLOCK));
    cx.install(file, true)
}

/// `mq_unlink(2)`
///
/// # Errors
/// `EFAULT`, `ENOENT`, `EACCES`, `EPERM`, `ENAMETOOLONG`.
pub fn mq_unlink(cx: &mut Cx<'_>, name: UserPtr<u8>) -> Result<usize, Errno> {
    let name = cx.path(name)?;
    let creds = cx.credentials();
    let op = OpCx::of_task(cx, &creds);
    directory(cx).unlink_queue(&op, &name).map(|()| 0)
}

/// The queue of a descriptor, unless it was opened in the mode `not`.
fn queue(cx: &Cx<'_>, fd: Fd, not: Option<u32>) -> Result<(Arc<dyn File>, Arc<Queue>), Errno> {
    let file = cx.file(fd)?;
    let description = FileDescription::from_file(&file).ok_or(Errno::EBADF)?;
    let inode = Arc::clone(description.path().inode()?);
    let queue = inode.downcast_arc::<Queue>().ok_or(Errno::EBADF)?;
    if not == Some(file.status_flags() & O_ACCMODE) {
        return Err(Errno::EBADF);
    }
    Ok((file, queue))
}

/// How long a call may wait: until a time of the clock `CLOCK_REALTIME`, if one is given.
fn deadline(cx: &Cx<'_>, timeout: UserPtr<Timespec>) -> Result<Option<u64>, Errno> {
    let at = timeout.read_if_some(cx)?.map(Timespec::to_ns).transpose()?;
    Ok(at.map(|at| monotonic_deadline(cx, at, true)))
}

fn how_long(file: &dyn File, deadline: Option<u64>) -> Wait {
    match deadline {
        Some(at) if Wait::of(file) != Wait::Never => Wait::Until(at),
        _ => Wait::of(file),
    }
}

/// A wait whose time is up says so.
fn outcome<T>(result: Result<T, Errno>, wait: Wait) -> Result<T, Errno> {
    match result {
        Err(Errno::EAGAIN) if wait != Wait::Never => Err(Errno::ETIMEDOUT),
        result => result,
    }
}

/// `mq_timedsend(2)`
///
/// # Errors
/// `EBADF`, `EFAULT`, `EINVAL`, `EMSGSIZE`, `ENOMEM`, `EAGAIN`, `ETIMEDOUT`, `EINTR`.
pub fn mq_timedsend(
    cx: &mut Cx<'_>,
    fd: Fd,
    text: UserPtr<u8>,
    len: usize,
    priority: u32,
    timeout: UserPtr<Timespec>,
) -> Result<usize, Errno> {
    let deadline = deadline(cx, timeout)?;
    if priority >= PRIO_MAX {
        return Err(Errno::EINVAL);
    }
    let (file, queue) = queue(cx, fd, Some(O_RDONLY))?;
    if len > queue.limits().size {
        return Err(Errno::EMSGSIZE);
    }
    let _held = queue.hold(len)?;
    let mut message = vec![0; len];
    cx.memory()?.read_bytes(text.addr(), &mut message)?;
    let wait = how_long(file.as_ref(), deadline);
    let creds = cx.credentials();
    let sent = cx.wait_on(queue.changes(), PollEvents::WRITABLE, wait, |cx| {
        queue.send(&OpCx::of_task(cx, &creds), &mut message, priority)
    });
    outcome(sent, wait).map(|()| 0)
}

/// `mq_timedreceive(2)`: gives the length.
///
/// # Errors
/// `EBADF`, `EFAULT`, `EINVAL`, `EMSGSIZE`, `EAGAIN`, `ETIMEDOUT`, `EINTR`.
pub fn mq_timedreceive(
    cx: &mut Cx<'_>,
    fd: Fd,
    text: UserPtr<u8>,
    room: usize,
    priority: UserPtr<u32>,
    timeout: UserPtr<Timespec>,
) -> Result<usize, Errno> {
    let deadline = deadline(cx, timeout)?;
    let (file, queue) = queue(cx, fd, Some(O_WRONLY))?;
    if room < queue.limits().size {
        return Err(Errno::EMSGSIZE);
    }
    let wait = how_long(file.as_ref(), deadline);
    let creds = cx.credentials();
    let at_once = queue.receive(&OpCx::of_task(cx, &creds), false);
    let taken = match at_once {
        Err(Errno::EAGAIN) if wait != Wait::Never => {
            let _waiting = queue.wait();
            let taken = cx.wait_on(queue.changes(), PollEvents::READABLE, wait, |cx| {
                queue.receive(&OpCx::of_task(cx, &creds), true)
            });
            outcome(taken, wait)
        }
        taken => taken,
    };
    let (message, sent_as) = taken?;
    if !priority.is_null() {
        priority.write(cx, &sent_as)?;
    }
    cx.memory()?.write_bytes(text.addr(), &message)?;
    Ok(message.len())
}

/// `mq_notify(2)`
///
/// # Errors
/// `EBADF`, `EFAULT`, `EINVAL`, `EBUSY`.
pub fn mq_notify(cx: &mut Cx<'_>, fd: Fd, event: UserPtr<Sigevent>) -> Result<usize, Errno> {
    let event = event.read_if_some(cx)?;
    let group = Arc::clone(cx.group());
    let notice = |signal, value| Notice { owner: Arc::downgrade(&group), signal, value };
    let notice = match event {
        None => None,
        Some(event) => match event.notify {
            SIGEV_NONE => Some(notice(None, 0)),
            SIGEV_SIGNAL if event.signo == 0 => Some(notice(None, 0)),
            SIGEV_SIGNAL => Some(notice(Some(Signal::new(event.signo).ok_or(Errno::EINVAL)?), event.value)),
            // The library's thread waits at a netlink socket, of which there are none.
            SIGEV_THREAD => return Err(cx.unsupported("mq_notify: SIGEV_THREAD", Errno::EINVAL)),
            _ => return Err(Errno::EINVAL),
        },
    };
    let (_, queue) = queue(cx, fd, None)?;
    match notice {
        None => queue.unregister(&group),
        Some(notice) => queue.register(notice)?,
    }
    Ok(0)
}

/// `mq_getsetattr(2)`
///
/// # Errors
/// `EBADF`, `EFAULT`, `EINVAL` for flags other than `O_NONBLOCK`.
pub fn mq_getsetattr(
    cx: &mut Cx<'_>,
    fd: Fd,
    new: UserPtr<MqAttr>,
    old: UserPtr<MqAttr>,
) -> Result<usize, Errno> {
    let new = new.read_if_some(cx)?;
    let nonblock = i64::from(O_NONBLOCK);
    if new.is_some_and(|new| new.flags & !nonblock != 0) {
        return Err(Errno::EINVAL);
    }
    let (file, queue) = queue(cx, fd, None)?;
    let limits = queue.limits();
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let before = MqAttr {
        flags: i64::from(file.status_flags()) & nonblock,
        maxmsg: number(limits.messages),
        msgsize: number(limits.size),
        curmsgs: number(queue.count()),
        ..MqAttr::default()
    };
    if let Some(new) = new {
        let others = file.status_flags() & !O_NONBLOCK;
        let wanted = if new.flags & nonblock == 0 { others } else { others | O_NONBLOCK };
        file.set_status_flags(cx, wanted)?;
    }
    if !old.is_null() {
        old.write(cx, &before)?;
    }
    Ok(0)
}
