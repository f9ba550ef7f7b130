//! Memory of other processes, and what two processes share: `process_vm_readv(2)`, `kcmp(2)`.
use std::cmp::Ordering;
use std::sync::Arc;

use abi::Errno;
use kernel::Task;
use kernel::ptrace::may_access;
use memmap::{IoVec, MemoryManager};
use smallvec::SmallVec;

use crate::Cx;
use crate::decode::{Fd, UserPtr};

/// How many bytes go through the sentry at a time.
const CHUNK: usize = 16 << 10;

/// Finds the process and its memory.
fn remote(cx: &Cx<'_>, pid: i32) -> Result<Arc<MemoryManager>, Errno> {
    let task = cx.kernel().task(pid).ok_or(Errno::ESRCH)?;
    if !may_access(cx, &task) {
        return Err(Errno::EPERM);
    }
    task.mm().ok_or(Errno::ESRCH)
}

/// Copies from the pieces of one memory to those of another until either ends or cannot be accessed.
fn copy(
    (from, source): (&MemoryManager, &[IoVec]),
    (to, target): (&MemoryManager, &[IoVec]),
) -> Result<usize, Errno> {
    let mut buffer = vec![0; CHUNK];
    let (mut source, mut target) = (source.iter().copied(), target.iter().copied());
    let (mut src, mut dst) = (IoVec::default(), IoVec::default());
    let mut done = 0;
    loop {
        while src.len == 0 {
            let Some(next) = source.next() else { return Ok(done) };
            src = next;
        }
        while dst.len == 0 {
            let Some(next) = target.next() else { return Ok(done) };
            dst = next;
        }
        let len = usize::try_from(src.len.min(dst.len)).unwrap_or(CHUNK).min(CHUNK);
        let Some(chunk) = buffer.get_mut(..len) else { return Ok(done) };
        let read = match from.read_bytes_partial(src.addr, chunk) {
            Ok(n) if n > 0 => n,
            _ if done > 0 => return Ok(done),
            _ => return Err(Errno::EFAULT),
        };
        let written = match to.write_bytes_partial(dst.addr, chunk.get(..read).unwrap_or(&[])) {
            Ok(n) if n > 0 => n,
            _ if done > 0 => return Ok(done),
            _ => return Err(Errno::EFAULT),
        };
        done += written;
        if written < len {
            return Ok(done);
        }
        for piece in [&mut src, &mut dst] {
            piece.addr = piece.addr.wrapping_add(written as u64);
            piece.len -= written as u64;
        }
    }
}

type Pieces = SmallVec<[IoVec; 4]>;

fn pieces(
    cx: &Cx<'_>,
    local: (UserPtr<IoVec>, usize),
    other: (UserPtr<IoVec>, usize),
    flags: u64,
) -> Result<(Pieces, Pieces), Errno> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    Ok((cx.iovec(local.0, local.1)?, cx.iovec(other.0, other.1)?))
}

/// `process_vm_readv(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `ESRCH`, `EPERM`.
pub fn process_vm_readv(
    cx: &mut Cx<'_>,
    pid: i32,
    local: UserPtr<IoVec>,
    local_count: usize,
    other: UserPtr<IoVec>,
    other_count: usize,
    flags: u64,
) -> Result<usize, Errno> {
    let (local, other) = pieces(cx, (local, local_count), (other, other_count), flags)?;
    copy((&*remote(cx, pid)?, &other), (cx.memory()?, &local))
}

/// `process_vm_writev(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `ESRCH`, `EPERM`.
pub fn process_vm_writev(
    cx: &mut Cx<'_>,
    pid: i32,
    local: UserPtr<IoVec>,
    local_count: usize,
    other: UserPtr<IoVec>,
    other_count: usize,
    flags: u64,
) -> Result<usize, Errno> {
    let (local, other) = pieces(cx, (local, local_count), (other, other_count), flags)?;
    copy((cx.memory()?, &local), (&*remote(cx, pid)?, &other))
}

const KCMP_FILE: i32 = 0;
const KCMP_VM: i32 = 1;
const KCMP_FILES: i32 = 2;
const KCMP_FS: i32 = 3;
const KCMP_SIGHAND: i32 = 4;
const KCMP_IO: i32 = 5;
const KCMP_SYSVSEM: i32 = 6;
const KCMP_EPOLL_TFD: i32 = 7;

/// 0 for equal, 1 for less, 2 for greater; the order means nothing but is total.
fn compare<T: ?Sized>(a: &Arc<T>, b: &Arc<T>) -> usize {
    match Arc::as_ptr(a).cast::<u8>().cmp(&Arc::as_ptr(b).cast::<u8>()) {
        Ordering::Equal => 0,
        Ordering::Less => 1,
        Ordering::Greater => 2,
    }
}

/// `kcmp(2)`
///
/// # Errors
/// `ESRCH`, `EPERM`, `EBADF`, `EINVAL`.
pub fn kcmp(cx: &mut Cx<'_>, pid1: i32, pid2: i32, kind: i32, a: u64, b: u64) -> Result<usize, Errno> {
    let task = |pid| cx.kernel().task(pid).ok_or(Errno::ESRCH);
    let (one, two): (Arc<Task>, Arc<Task>) = (task(pid1)?, task(pid2)?);
    if !may_access(cx, &one) || !may_access(cx, &two) {
        return Err(Errno::EPERM);
    }
    let file = |task: &Task, fd: u64| {
        let fd = Fd(i32::try_from(fd).map_err(|_wide| Errno::EBADF)?);
        task.fd_table().ok_or(Errno::EBADF)?.get(fd.0)
    };
    match kind {
        KCMP_FILE => Ok(compare(&file(&one, a)?, &file(&two, b)?)),
        KCMP_VM => Ok(compare(&one.mm().ok_or(Errno::ESRCH)?, &two.mm().ok_or(Errno::ESRCH)?)),
        KCMP_FILES => Ok(compare(&one.fd_table().ok_or(Errno::ESRCH)?, &two.fd_table().ok_or(Errno::ESRCH)?)),
        KCMP_SIGHAND => Ok(compare(&one.group().signals().actions(), &two.group().signals().actions())),
        KCMP_FS => {
            Ok(compare(&one.get(&vfs::FS).ok_or(Errno::ESRCH)?, &two.get(&vfs::FS).ok_or(Errno::ESRCH)?))
        }
        // No task has an I/O context or undo lists of its own here: all have the same, none.
        KCMP_IO | KCMP_SYSVSEM => Ok(0),
        KCMP_EPOLL_TFD => Err(cx.unsupported("kcmp: KCMP_EPOLL_TFD", Errno::EOPNOTSUPP)),
        _ => Err(Errno::EINVAL),
    }
}
