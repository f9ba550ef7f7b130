//! Calls into the kernel: libc functions and raw system calls, with the error as a value.

use crate::case::Failure;
use std::os::fd::{FromRawFd, OwnedFd};

/// A call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SysError {
    /// The function, for the message.
    pub(crate) call: &'static str,
    /// Its line.
    pub(crate) line: u32,
    /// The error number.
    pub(crate) errno: i32,
}

impl From<SysError> for Failure {
    fn from(error: SysError) -> Self {
        Self(format!("line {}: {}: {}", error.line, error.call, errno_name(error.errno)))
    }
}

/// The error number that the last libc call left.
pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Calls a libc function: `sys!(open(c"f".as_ptr(), libc::O_RDONLY))` is `Result<i64, SysError>`; -1 is an error.
macro_rules! sys {
    ($name:ident ( $($arg:expr),* $(,)? )) => {{
        #[allow(unused_unsafe)]
        let value = unsafe { libc::$name($($arg),*) } as isize as i64;
        if value == -1 {
            Err($crate::sys::SysError { call: stringify!($name), line: line!(), errno: $crate::sys::errno() })
        } else {
            Ok::<i64, $crate::sys::SysError>(value)
        }
    }};
}
pub(crate) use sys;

/// Makes a system call by number, past libc: `syscall(libc::SYS_dup, &[9])`.
pub(crate) fn syscall(number: i64, args: &[u64]) -> Result<i64, SysError> {
    let arg = |index: usize| args.get(index).copied().unwrap_or(0);
    let value: i64;
    // SAFETY: the clobbers are those of the x86-64 system call convention; what the kernel does with the arguments is
    // the case's business.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => value,
            in("rdi") arg(0), in("rsi") arg(1), in("rdx") arg(2), in("r10") arg(3), in("r8") arg(4), in("r9") arg(5),
            lateout("rcx") _, lateout("r11") _,
        );
    }
    if (-4095..0).contains(&value) {
        Err(SysError { call: "syscall", line: 0, errno: (-value) as i32 })
    } else {
        Ok(value)
    }
}

/// Makes a system call by number, past libc, and names it in the error: `raw!(SYS_openat2(dirfd, path, how, size))`.
macro_rules! raw {
    ($number:ident ( $($arg:expr),* $(,)? )) => {
        $crate::sys::syscall(libc::$number, &[$($crate::sys::Argument::word($arg)),*])
            .map_err(|error| $crate::sys::SysError { call: stringify!($number), line: line!(), ..error })
    };
}
pub(crate) use raw;

/// What a register can hold.
pub(crate) trait Argument {
    /// As the register holds it: signed numbers extended by their sign.
    fn word(self) -> u64;
}

macro_rules! arguments {
    ($($number:ty)*) => {
        $(impl Argument for $number {
            fn word(self) -> u64 {
                self as u64
            }
        })*
    };
}
arguments!(i32 u32 i64 u64 usize isize);

impl<T> Argument for *const T {
    fn word(self) -> u64 {
        self as u64
    }
}

impl<T> Argument for *mut T {
    fn word(self) -> u64 {
        self as u64
    }
}

/// A plain C structure, all zero.
pub(crate) fn zeroed<T: Copy>() -> T {
    // SAFETY: used for C structures of integers and pointers, of which all zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Takes a descriptor that a call has just returned.
pub(crate) fn owned(fd: i64) -> OwnedFd {
    // SAFETY: the caller got it from a call that made it, and keeps no other owner.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// A pipe: read end, write end.
pub(crate) fn pipe(flags: i32) -> Result<(OwnedFd, OwnedFd), SysError> {
    let mut fds = [0i32; 2];
    sys!(pipe2(fds.as_mut_ptr(), flags))?;
    Ok((owned(i64::from(fds[0])), owned(i64::from(fds[1]))))
}

/// Opens a file with a C-string path: `open(c"f", libc::O_RDWR | libc::O_CREAT, 0o644)`.
pub(crate) fn open(path: &std::ffi::CStr, flags: i32, mode: u32) -> Result<OwnedFd, SysError> {
    sys!(open(path.as_ptr(), flags, mode)).map(owned)
}

/// read(2) into a buffer.
pub(crate) fn read(fd: i32, buf: &mut [u8]) -> Result<usize, SysError> {
    sys!(read(fd, buf.as_mut_ptr().cast(), buf.len())).map(|n| n as usize)
}

/// write(2) from a buffer.
pub(crate) fn write(fd: i32, buf: &[u8]) -> Result<usize, SysError> {
    sys!(write(fd, buf.as_ptr().cast(), buf.len())).map(|n| n as usize)
}

/// stat(2).
pub(crate) fn stat(path: &std::ffi::CStr) -> Result<libc::stat, SysError> {
    // SAFETY: stat is plain data, all zero is a value of it.
    let mut buf: libc::stat = unsafe { std::mem::zeroed() };
    sys!(stat(path.as_ptr(), &mut buf))?;
    Ok(buf)
}

/// fstat(2).
pub(crate) fn fstat(fd: i32) -> Result<libc::stat, SysError> {
    // SAFETY: stat is plain data, all zero is a value of it.
    let mut buf: libc::stat = unsafe { std::mem::zeroed() };
    sys!(fstat(fd, &mut buf))?;
    Ok(buf)
}

/// CLOCK_MONOTONIC, in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: ts is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

macro_rules! errno_names {
    ($($name:ident)*) => {
        /// The name of an error number, for messages.
        pub(crate) fn errno_name(errno: i32) -> String {
            match errno {
                0 => "no error".to_owned(),
                $(libc::$name => stringify!($name).to_owned(),)*
                other => format!("errno {other}"),
            }
        }
    };
}
errno_names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV
    ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK
    ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENODATA ETIME EOVERFLOW EILSEQ ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
    ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN
    ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ETIMEDOUT ECONNREFUSED EHOSTUNREACH EALREADY EINPROGRESS
    ESTALE EDQUOT ECANCELED EOWNERDEAD ENOTRECOVERABLE
}
