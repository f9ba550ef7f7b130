//! Descriptors of processes: `pidfd_open(2)`, `pidfd_send_signal(2)`, `pidfd_getfd(2)`, `process_madvise(2)`.
use std::sync::Arc;

use abi::fs::{O_CLOEXEC, O_EXCL, O_NONBLOCK, O_RDWR};
use abi::mman::{MADV_COLD, MADV_COLLAPSE, MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT, MADV_WILLNEED};
use abi::siginfo::{SI_TKILL, SI_USER, SigInfoWire};
use abi::{Errno, Signal};
use kernel::signal::{self, SigInfo};
use kernel::{Cap, Credentials, File, Kernel, ThreadGroup};
use memmap::IoVec;
use vfs::anon::PidFd;
use vfs::{FileDescription, OpCx, new_anon_file};

use crate::Cx;
use crate::decode::{Fd, UserPtr};
use crate::eventfd::install_anon;
use crate::process::may_access;

const NAME: &str = "anon_inode:[pidfd]";

/// Has the kernel make pidfds for `CLONE_PIDFD`.
pub(crate) fn register(kernel: &Kernel) {
    kernel.set_pidfd_factory(Box::new(|group| {
        let creds = Arc::new(Credentials::root());
        let op = OpCx::of_kernel(&creds, group.kernel().clock().as_ref());
        let file: Arc<dyn File> = new_anon_file(&op, NAME.as_bytes(), PidFd::new(group), O_RDWR);
        Ok(file)
    }));
}

/// The process behind a pidfd.
///
/// # Errors
/// `EBADF` for any other file.
pub(crate) fn group_of(file: &Arc<dyn File>) -> Result<Arc<ThreadGroup>, Errno> {
    let pidfd = FileDescription::from_file(file).and_then(|d| d.ops().downcast_ref::<PidFd>());
    pidfd.map(|p| Arc::clone(p.group())).ok_or(Errno::EBADF)
}

/// A process that is not gone.
fn living(cx: &Cx<'_>, fd: Fd) -> Result<Arc<ThreadGroup>, Errno> {
    let group = group_of(&cx.file(fd)?)?;
    if cx.kernel().thread_group(group.tgid()).is_some_and(|g| Arc::ptr_eq(&g, &group)) {
        Ok(group)
    } else {
        Err(Errno::ESRCH)
    }
}

/// `pidfd_open(2)`
///
/// # Errors
/// `EINVAL` for unknown flags or a bad id, `ESRCH`, `ENOENT` for a thread that leads no process, `EMFILE`.
pub fn pidfd_open(cx: &mut Cx<'_>, pid: i32, flags: u32) -> Result<usize, Errno> {
    if flags & !(O_NONBLOCK | O_EXCL) != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    if flags & O_EXCL != 0 {
        return Err(cx.unsupported("pidfd_open: PIDFD_THREAD", Errno::EINVAL));
    }
    let group = match cx.kernel().thread_group(pid) {
        Some(group) => group,
        None if cx.kernel().task(pid).is_some() => return Err(Errno::ENOENT),
        None => return Err(Errno::ESRCH),
    };
    install_anon(cx, NAME, PidFd::new(&group), O_RDWR | O_CLOEXEC | flags)
}

const PIDFD_SIGNAL_THREAD: u32 = 1;
const PIDFD_SIGNAL_THREAD_GROUP: u32 = 2;
const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 4;

/// `pidfd_send_signal(2)`
///
/// # Errors
/// `EINVAL`, `EBADF`, `EFAULT`, `EPERM`, `ESRCH`.
pub fn pidfd_send_signal(
    cx: &mut Cx<'_>,
    fd: Fd,
    number: i32,
    info: UserPtr<SigInfoWire>,
    flags: u32,
) -> Result<usize, Errno> {
    match flags {
        0 | PIDFD_SIGNAL_THREAD_GROUP => {}
        PIDFD_SIGNAL_THREAD | PIDFD_SIGNAL_PROCESS_GROUP => {
            return Err(cx.unsupported("pidfd_send_signal: scope", Errno::EINVAL));
        }
        _ => return Err(Errno::EINVAL),
    }
    let group = group_of(&cx.file(fd)?)?;
    let signal = if number == 0 { None } else { Some(Signal::new(number).ok_or(Errno::EINVAL)?) };
    let to_send = match info.read_if_some(cx)? {
        None => signal.map(|s| SigInfo::kill(s, cx.tgid(), cx.credentials().uid)),
        Some(wire) if wire.si_signo != number => return Err(Errno::EINVAL),
        Some(wire) => {
            let forged = wire.si_code >= SI_USER || wire.si_code == SI_TKILL;
            if forged && group.tgid() != cx.tgid() {
                return Err(Errno::EPERM);
            }
            signal.map(|s| SigInfo::from_wire(s, &wire))
        }
    };
    let group = living(cx, fd).and(Ok(group))?;
    if !signal::may_signal(cx, &group, signal) {
        return Err(Errno::EPERM);
    }
    to_send.map_or(Ok(()), |info| signal::send_to_group(&group, info)).map(|()| 0)
}

/// `pidfd_getfd(2)`
///
/// # Errors
/// `EINVAL` for flags, `EBADF`, `ESRCH`, `EPERM`, `EMFILE`.
pub fn pidfd_getfd(cx: &mut Cx<'_>, fd: Fd, target: Fd, flags: u32) -> Result<usize, Errno> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let group = living(cx, fd)?;
    if !may_access(cx, &group) {
        return Err(Errno::EPERM);
    }
    let file = group.leader().and_then(|t| t.fd_table()).ok_or(Errno::ESRCH)?.get(target.0)?;
    cx.install(file, true)
}

/// `process_madvise(2)`: gives how many bytes were advised.
///
/// # Errors
/// `EINVAL`, `EBADF`, `ESRCH`, `EPERM`, `ENOMEM`.
pub fn process_madvise(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    advice: u32,
    flags: u32,
) -> Result<usize, Errno> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let pieces = cx.iovec(iov, count)?;
    let group = living(cx, fd)?;
    let own = group.tgid() == cx.tgid();
    let harmless = matches!(advice, MADV_COLD | MADV_PAGEOUT | MADV_WILLNEED | MADV_COLLAPSE);
    let own_only = matches!(advice, MADV_DONTNEED | MADV_FREE);
    if !(harmless || own && own_only) {
        return Err(Errno::EINVAL);
    }
    if !may_access(cx, &group) || !own && !cx.credentials().has_cap(Cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mm = group.leader().and_then(|t| t.mm()).ok_or(Errno::ESRCH)?;
    let mut done = 0;
    for piece in pieces {
        match mm.madvise(piece.addr, piece.len, advice) {
            Ok(()) => done += usize::try_from(piece.len).unwrap_or(0),
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}
