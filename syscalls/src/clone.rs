//! Making threads and processes: `clone(2)`, `clone3(2)`, `fork(2)`, `vfork(2)`.
use abi::sched::{CLONE_ARGS_SIZE_VER0, CloneArgsWire};
use abi::{Errno, Signal};
use kernel::{CloneArgs, CloneFlags};
use zerocopy::{FromBytes, IntoBytes};

use crate::Cx;
use crate::decode::{Fd, UserPtr};
use crate::process::id;

/// The exit signal in clone(2)'s flags, Linux `CSIGNAL`.
const CSIGNAL: u64 = 0xff;

fn clone_task(cx: &mut Cx<'_>, args: CloneArgs) -> Result<usize, Errno> {
    id(cx.cur.clone_task(args)?)
}

/// `fork(2)`
///
/// # Errors
/// `EAGAIN`, `ENOMEM`.
pub fn fork(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    clone_task(cx, CloneArgs { exit_signal: Signal::SIGCHLD.number(), ..CloneArgs::default() })
}

/// `vfork(2)`
///
/// # Errors
/// `EAGAIN`, `ENOMEM`.
pub fn vfork(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    let flags = CloneFlags::VFORK | CloneFlags::VM;
    clone_task(cx, CloneArgs { flags, exit_signal: Signal::SIGCHLD.number(), ..CloneArgs::default() })
}

/// `clone(2)`
///
/// # Errors
/// `EINVAL` for flags that exclude each other, `EAGAIN`, `ENOMEM`, `EPERM`.
pub fn clone(
    cx: &mut Cx<'_>,
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
) -> Result<usize, Errno> {
    // Flags above 32 bits are clone3(2)'s.
    let exit_signal = i32::try_from(flags & CSIGNAL).unwrap_or(0);
    let flags = CloneFlags(flags & 0xffff_ffff & !CSIGNAL);
    // CLONE_PIDFD stores where CLONE_PARENT_SETTID would.
    let pidfd = if flags.contains(CloneFlags::PIDFD) { parent_tid } else { 0 };
    if flags.contains(CloneFlags::PIDFD) && flags.intersects(CloneFlags::DETACHED | CloneFlags::PARENT_SETTID)
    {
        return Err(Errno::EINVAL);
    }
    clone_task(cx, CloneArgs { flags, exit_signal, stack, parent_tid, child_tid, tls, pidfd })
}

/// Reads an extensible struct: bytes beyond what is known must be zero, bytes that are missing are.
///
/// # Errors
/// `E2BIG` for unknown bytes that are not zero or more than a page, `EFAULT`.
pub(crate) fn read_extensible<T: FromBytes + IntoBytes + Default>(
    cx: &Cx<'_>,
    addr: u64,
    size: u64,
) -> Result<T, Errno> {
    let size = usize::try_from(size).ok().filter(|s| *s <= 4096).ok_or(Errno::E2BIG)?;
    let mut bytes = vec![0; size];
    cx.memory()?.read_bytes(addr, &mut bytes)?;
    let (known, unknown) = bytes.split_at(size.min(size_of::<T>()));
    if unknown.iter().any(|b| *b != 0) {
        return Err(Errno::E2BIG);
    }
    let mut value = T::default();
    for (to, from) in value.as_mut_bytes().iter_mut().zip(known) {
        *to = *from;
    }
    Ok(value)
}

/// `clone3(2)`
///
/// # Errors
/// As [`clone`], `E2BIG` for what is not known.
pub fn clone3(cx: &mut Cx<'_>, args: UserPtr<CloneArgsWire>, size: u64) -> Result<usize, Errno> {
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    if size < CLONE_ARGS_SIZE_VER0 {
        return Err(Errno::EINVAL);
    }
    let wire: CloneArgsWire = read_extensible(cx, args.addr(), size)?;
    check(cx, &wire)?;
    // The stack grows down from the end of what is given.
    let stack = if wire.stack == 0 { 0 } else { wire.stack.wrapping_add(wire.stack_size) };
    clone_task(
        cx,
        CloneArgs {
            flags: CloneFlags(wire.flags),
            exit_signal: i32::try_from(wire.exit_signal).unwrap_or(0),
            stack,
            parent_tid: wire.parent_tid,
            child_tid: wire.child_tid,
            tls: wire.tls,
            pidfd: wire.pidfd,
        },
    )
}

/// Linux `copy_clone_args_from_user` and `clone3_args_valid`.
fn check(cx: &Cx<'_>, wire: &CloneArgsWire) -> Result<(), Errno> {
    let flags = CloneFlags(wire.flags);
    if wire.exit_signal & !CSIGNAL != 0 || wire.exit_signal > 64 {
        return Err(Errno::EINVAL);
    }
    if wire.set_tid != 0 || wire.set_tid_size != 0 {
        if wire.set_tid == 0 || wire.set_tid_size == 0 || wire.set_tid_size > 32 {
            return Err(Errno::EINVAL);
        }
        return Err(cx.unsupported("clone3: set_tid", Errno::EPERM));
    }
    if flags.contains(CloneFlags::INTO_CGROUP) {
        return Err(cx.unsupported("clone3: CLONE_INTO_CGROUP", Errno::EBADF));
    }
    let known = CloneFlags::ALL.0 & !CloneFlags::DETACHED.0;
    let clears_shared = CloneFlags::SIGHAND | CloneFlags::CLEAR_SIGHAND;
    let silent = CloneFlags::THREAD | CloneFlags::PARENT;
    let bad = wire.flags & !known != 0
        || flags.contains(clears_shared)
        || flags.intersects(silent) && wire.exit_signal != 0
        || (wire.stack == 0) != (wire.stack_size == 0);
    if bad { Err(Errno::EINVAL) } else { Ok(()) }
}

/// `unshare(2)`
///
/// # Errors
/// `EINVAL`, `EPERM`.
pub fn unshare(cx: &mut Cx<'_>, flags: u64) -> Result<usize, Errno> {
    cx.cur.unshare(CloneFlags(flags)).map(|()| 0)
}

/// `setns(2)`: there is no way yet into a namespace that another process has.
///
/// # Errors
/// `EBADF`, else `EINVAL`.
pub fn setns(cx: &mut Cx<'_>, fd: Fd, _kind: u32) -> Result<usize, Errno> {
    cx.file(fd)?;
    Err(cx.unsupported("setns", Errno::EINVAL))
}
