//! Small steps that many topics take.

use crate::sys::{SysError, open, sys, write};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Makes or empties a file, writes `data`, and leaves it open for reading and writing.
pub(crate) fn create(path: &CStr, data: &[u8]) -> Result<OwnedFd, SysError> {
    let file = open(path, libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC, 0o644)?;
    if !data.is_empty() {
        write(file.as_raw_fd(), data)?;
    }
    Ok(file)
}

/// mkdir(2), mode 0755.
pub(crate) fn mkdir(path: &CStr) -> Result<(), SysError> {
    sys!(mkdir(path.as_ptr(), 0o755)).map(drop)
}

/// symlink(2).
pub(crate) fn symlink(target: &CStr, path: &CStr) -> Result<(), SysError> {
    sys!(symlink(target.as_ptr(), path.as_ptr())).map(drop)
}

/// Up to `len` bytes from an offset.
pub(crate) fn pread(fd: i32, offset: i64, len: usize) -> Result<Vec<u8>, SysError> {
    let mut buf = vec![0u8; len];
    let n = sys!(pread(fd, buf.as_mut_ptr().cast(), len, offset))?;
    buf.truncate(n as usize);
    Ok(buf)
}

/// Reads once, up to `len` bytes.
pub(crate) fn read_some(fd: i32, len: usize) -> Result<Vec<u8>, SysError> {
    let mut buf = vec![0u8; len];
    let n = crate::sys::read(fd, &mut buf)?;
    buf.truncate(n);
    Ok(buf)
}

/// A timespec of so many nanoseconds.
pub(crate) fn timespec(ns: u64) -> libc::timespec {
    libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 }
}

/// The nanoseconds of a timespec.
pub(crate) fn nanoseconds(ts: libc::timespec) -> i64 {
    ts.tv_sec * 1_000_000_000 + ts.tv_nsec
}

/// A clock's time, in nanoseconds.
pub(crate) fn clock_ns(clock: i32) -> Result<i64, SysError> {
    let mut ts = timespec(0);
    sys!(clock_gettime(clock, &mut ts))?;
    Ok(nanoseconds(ts))
}

/// poll(2) of one descriptor: its `revents`, 0 at the timeout.
pub(crate) fn poll_one(fd: i32, events: i16, timeout_ms: i32) -> Result<i16, SysError> {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    sys!(poll(&mut poll, 1, timeout_ms))?;
    Ok(poll.revents)
}

/// Sets O_NONBLOCK.
pub(crate) fn set_nonblock(fd: i32) -> Result<(), SysError> {
    let flags = sys!(fcntl(fd, libc::F_GETFL))? as i32;
    sys!(fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
}

/// The process's id.
pub(crate) fn me() -> i32 {
    std::process::id() as i32
}

/// The number after `Name:` in /proc/self/status, or what follows as text.
pub(crate) fn status_field(name: &str) -> Result<String, std::io::Error> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')));
    Ok(line.unwrap_or_default().trim().to_owned())
}

/// Yields until something asynchronous has come about.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) -> crate::case::CaseResult {
    let deadline = crate::sys::monotonic_ns() + 10_000_000_000;
    while !happened() {
        if crate::sys::monotonic_ns() > deadline {
            return Err(format!("not within 10 s: {what}").into());
        }
        sys!(sched_yield())?;
    }
    Ok(())
}
