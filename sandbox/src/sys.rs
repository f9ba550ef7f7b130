//! Host calls that no crate wraps as they are needed here. All of the crate's `unsafe` is in this file.
#![expect(unsafe_code, reason = "host calls that nix does not wrap")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Takes charge of a descriptor that the launcher left in this process at a number agreed on.
///
/// # Errors
/// `EBADF`, if there is none.
pub(crate) fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_GETFD takes a number and touches no memory.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is open, and only the one who is told to by the launcher's protocol takes it, once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Keeps the C library's allocator to its first arena, besides its caches of each thread. For more it opens files of the
/// host, which the sandbox's filter forbids: to count processors (`get_nprocs`) and, when an arena shrinks, to learn of
/// overcommitment (`check_may_shrink_heap`). It also takes less memory.
pub(crate) fn bound_arenas() {
    // SAFETY: mallopt takes numbers; it is called before there is a second thread.
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    debug_assert_eq!(set, 1, "the C library knows the parameter");
}

/// Tells whether the calling thread is of a real-time scheduling class.
pub(crate) fn is_realtime() -> bool {
    // SAFETY: takes a number only.
    let policy = unsafe { libc::sched_getscheduler(0) };
    matches!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_FIFO | libc::SCHED_RR | libc::SCHED_DEADLINE)
}

/// Another handle on a descriptor that this process was started with.
///
/// # Errors
/// `EBADF`.
pub fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC takes numbers only.
    let copy = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A descriptor that becomes readable when a process ends, pidfd_open(2).
///
/// # Errors
/// `ESRCH`; `ENOSYS` before Linux 5.3.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes numbers only.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(|_wide| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes charge of descriptors that recvmsg(2) just made.
pub(crate) fn own_received(numbers: &[RawFd]) -> Vec<OwnedFd> {
    let own = |fd: &RawFd| {
        // SAFETY: the kernel made this descriptor for the message just received; nobody else knows it.
        unsafe { OwnedFd::from_raw_fd(*fd) }
    };
    numbers.iter().map(own).collect()
}

/// fork(2) into new namespaces (`CLONE_NEW*` flags): `None` in the child, its process id in the parent.
///
/// # Errors
/// Those of clone(2).
///
/// # Panics
/// Never; the process must have one thread only, as the child has no other.
pub(crate) fn fork_into(flags: libc::c_int) -> io::Result<Option<i32>> {
    let flags = libc::c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and without a stack this is fork(2); every pointer is null and unused.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => Ok(Some(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Replaces the program by the one that the descriptor shows, execveat(2) with `AT_EMPTY_PATH`; returns on failure only.
pub(crate) fn exec_fd(program: BorrowedFd<'_>, args: &[&str], env: &[&str]) -> io::Error {
    let strings = |list: &[&str]| list.iter().map(|s| CString::new(*s)).collect::<Result<Vec<_>, _>>();
    match (strings(args), strings(env)) {
        (Ok(args), Ok(env)) => {
            let at = nix::fcntl::AtFlags::AT_EMPTY_PATH;
            match nix::unistd::execveat(program, c"", &args, &env, at) {
                Ok(never) => match never {},
                Err(error) => error.into(),
            }
        }
        _ => io::Error::from(io::ErrorKind::InvalidInput),
    }
}

/// Puts these descriptors at 3, 4, …, closes every other from 3 up, and lets them survive exec.
///
/// # Errors
/// Those of dup3(2) and close_range(2).
pub(crate) fn keep_only(fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let above = 3 + RawFd::try_from(fds.len()).map_err(|_wide| io::ErrorKind::InvalidInput)?;
    let mut moved = Vec::new();
    // First out of the way, so that no target overwrites a source.
    for fd in fds {
        // SAFETY: fcntl with F_DUPFD_CLOEXEC takes numbers only.
        let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above) };
        moved.push(Errno::result(copy)?);
    }
    for (target, copy) in (3..).zip(&moved) {
        // SAFETY: dup2 takes numbers only; what was open at the target is of no use to this process any more.
        Errno::result(unsafe { libc::dup2(*copy, target) })?;
    }
    close_from(above)
}

/// Closes every descriptor from this number up.
///
/// # Errors
/// Those of close_range(2).
pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: the call takes numbers only; what it closes is of no use to this process any more (its callers exec or
    // hold nothing above).
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) })?;
    Ok(())
}

/// Lets a descriptor survive exec, or not.
///
/// # Errors
/// `EBADF`.
pub(crate) fn replace_standard(number: RawFd, with: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: dup2 takes numbers only; the standard streams are never owned by a value.
    Errno::result(unsafe { libc::dup2(with.as_raw_fd(), number) })?;
    Ok(())
}

/// Gives a terminal to this session, whose leader the caller is, `TIOCSCTTY`.
///
/// # Errors
/// Those of ioctl(2).
pub(crate) fn take_controlling_terminal(tty: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    Errno::result(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    Ok(())
}

/// The size of a terminal in rows and columns, `TIOCGWINSZ`.
///
/// # Errors
/// Those of ioctl(2).
pub fn terminal_size(tty: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one struct winsize, which the pointer shows.
    Errno::result(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets the size of a terminal, `TIOCSWINSZ`.
///
/// # Errors
/// Those of ioctl(2).
pub fn set_terminal_size(tty: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one struct winsize, which the pointer shows.
    Errno::result(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// Fills a buffer with random bytes of the host, getrandom(2).
pub(crate) fn random(into: &mut [u8]) {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        // SAFETY: the kernel writes at most the given number of bytes of the slice.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        done += usize::try_from(n).unwrap_or(0);
    }
}

/// Ends the process at once, without the exit handlers of the program that it is a fork of, `_exit(2)`.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Takes a copy of the mounts at a path and below, not yet part of any tree, open_tree(2).
///
/// # Errors
/// Those of open_tree(2).
pub(crate) fn clone_mounts(path: &std::path::Path, recursive: bool) -> io::Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let recurse = if recursive { libc::AT_RECURSIVE } else { 0 };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recurse.cast_unsigned();
    // SAFETY: the path is a terminated string that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(|_wide| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds attributes (`MOUNT_ATTR_*`) to a tree of mounts, and makes each private, mount_setattr(2).
///
/// # Errors
/// Those of mount_setattr(2).
pub(crate) fn restrict_mounts(tree: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let attr =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    set_mounts(tree, &attr, true)
}

/// Shows the owners of files in a tree of mounts as the ids of a user namespace say, mount_setattr(2).
///
/// # Errors
/// Those of mount_setattr(2): `EINVAL` for a file system that cannot do it.
pub(crate) fn map_mounts(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let userns_fd = u64::try_from(namespace.as_raw_fd()).map_err(|_negative| io::ErrorKind::InvalidInput)?;
    let attr = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    set_mounts(tree, &attr, recursive)
}

fn set_mounts(tree: BorrowedFd<'_>, attr: &libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a terminated string; the structure is valid for the size that is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(done)?;
    Ok(())
}

/// Whether a descriptor, which may be one of `O_PATH`, shows a namespace, fstatfs(2).
///
/// # Errors
/// Those of fstatfs(2).
pub(crate) fn is_namespace(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the pointer is valid for the structure that the kernel writes.
    Errno::result(unsafe { libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: every pattern of bits is one of this structure of numbers.
    Ok(unsafe { stat.assume_init() }.f_type == libc::NSFS_MAGIC)
}

/// The kind of a namespace as a flag of clone(2), `NS_GET_NSTYPE`.
///
/// # Errors
/// Those of ioctl(2).
pub(crate) fn kind_of_namespace(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request has no argument.
    Ok(Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) })?)
}

/// Puts a tree of mounts at a path, move_mount(2).
///
/// # Errors
/// Those of move_mount(2).
pub(crate) fn attach_mounts(tree: BorrowedFd<'_>, at: &std::path::Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let at = CString::new(at.as_os_str().as_bytes())?;
    // SAFETY: both paths are terminated strings that outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            at.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(done)?;
    Ok(())
}

/// Reads what is there without waiting, preadv2(2) with `RWF_NOWAIT` at the file's own position.
///
/// # Errors
/// `EAGAIN` where there is nothing, `EOPNOTSUPP` for a file that cannot promise not to wait; those of read(2).
pub(crate) fn read_now(fd: BorrowedFd<'_>, into: &mut [u8]) -> nix::Result<usize> {
    let iov = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: the one piece is the slice, which the kernel may fill.
    let n = unsafe { libc::preadv2(fd.as_raw_fd(), &raw const iov, 1, -1, libc::RWF_NOWAIT) };
    Errno::result(n).map(|n| usize::try_from(n).unwrap_or(0))
}

/// Writes what there is room for without waiting, pwritev2(2) with `RWF_NOWAIT` at the file's own position.
///
/// # Errors
/// `EAGAIN` where there is no room, `EOPNOTSUPP` for a file that cannot promise not to wait; those of write(2).
pub(crate) fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the one piece is the slice, which the kernel only reads.
    let n = unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const iov, 1, -1, libc::RWF_NOWAIT) };
    Errno::result(n).map(|n| usize::try_from(n).unwrap_or(0))
}

/// The bytes that can be read at once, `FIONREAD`.
///
/// # Errors
/// Those of ioctl(2).
pub(crate) fn readable_bytes(fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which the pointer shows.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(count)
}

/// Tells whether two descriptors of this process are of one open file description, kcmp(2); no where the host cannot
/// tell.
pub(crate) fn same_description(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    let own = nix::unistd::getpid().as_raw();
    // SAFETY: kcmp takes numbers only.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, a.as_raw_fd(), b.as_raw_fd()) };
    order == 0
}

/// The set of these signals, real-time ones among them.
pub(crate) fn signal_set(signals: &[i32]) -> nix::sys::signal::SigSet {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for a set, which the call initializes.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set is initialized; a number that is no signal is refused.
        unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
    }
    // SAFETY: initialized by sigemptyset.
    let set = unsafe { set.assume_init() };
    // SAFETY: any set of signals is one; nix does not name those of the real-time range.
    unsafe { nix::sys::signal::SigSet::from_sigset_t_unchecked(set) }
}

/// Has `SIGCHLD` tell of ends only, not of stops: those of tracees are waited for.
///
/// # Errors
/// Those of sigaction(2).
pub(crate) fn no_stop_notices() -> nix::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: no handler is installed.
    unsafe { sigaction(Signal::SIGCHLD, &action) }.map(drop)
}
