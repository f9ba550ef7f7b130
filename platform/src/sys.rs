//! Host calls that no crate wraps as they are needed here.
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use crate::PlatformError;

/// Turns what a C library call returned into a result.
///
/// # Errors
/// `errno`, if `value` is -1.
pub(crate) fn check(call: &'static str, value: i64) -> Result<i64, PlatformError> {
    if value == -1 {
        Err(PlatformError::Host { call, source: io::Error::last_os_error() })
    } else {
        Ok(value)
    }
}

/// memfd_create(2), closed on exec.
pub(crate) fn memfd(name: &CStr, flags: libc::c_uint) -> Result<File, PlatformError> {
    // SAFETY: the name is a terminated string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | flags) };
    check("memfd_create", fd.into())?;
    // SAFETY: the call just gave this descriptor to us.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// eventfd(2) that starts at 0 and never blocks.
pub(crate) fn eventfd() -> Result<OwnedFd, PlatformError> {
    // SAFETY: eventfd touches no memory.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    check("eventfd", fd.into())?;
    // SAFETY: the call just gave this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// fallocate(2): these bytes of a file are zero, and take no memory.
pub(crate) fn punch_hole(file: &File, offset: u64, len: u64) -> Result<(), PlatformError> {
    let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: fallocate takes numbers only; what the bytes mean is the caller's business.
    let done = unsafe { libc::fallocate(file.as_raw_fd(), flags, offset.cast_signed(), len.cast_signed()) };
    check("fallocate", done.into()).map(drop)
}

/// Maps `len` bytes of a file, shared, wherever there is room; never unmapped but by [`unmap`].
pub(crate) fn map_shared(file: i32, len: usize, protection: i32) -> Result<*mut u8, PlatformError> {
    // SAFETY: without MAP_FIXED the kernel picks free addresses, so no memory of ours changes.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, file, 0) };
    if at == libc::MAP_FAILED {
        return Err(PlatformError::Host { call: "mmap", source: io::Error::last_os_error() });
    }
    Ok(at.cast())
}

/// Unmaps what [`map_shared`] mapped.
///
/// # Safety
/// Nothing refers to that memory any more.
pub(crate) unsafe fn unmap(at: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    let _ = unsafe { libc::munmap(at.cast(), len) };
}

/// Ignores a signal.
///
/// # Errors
/// `EINVAL` for what is none.
pub(crate) fn ignore(signal: i32) -> Result<(), PlatformError> {
    // SAFETY: SIG_IGN runs no code of ours.
    let old = unsafe { libc::signal(signal, libc::SIG_IGN) };
    check("signal", if old == libc::SIG_ERR { -1 } else { 0 }).map(drop)
}

/// tgkill(2).
pub(crate) fn tgkill(pid: i32, tid: i32, signal: i32) -> Result<(), PlatformError> {
    // SAFETY: tgkill takes numbers only.
    check("tgkill", unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) })?;
    Ok(())
}

/// futex(2) `FUTEX_WAKE` of one waiter on a word that processes share.
pub(crate) fn futex_wake(word: &std::sync::atomic::AtomicU32) {
    // SAFETY: the word is valid memory; a wake does not write to it.
    let _ = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// futex(2) `FUTEX_WAIT` on a word that processes share, for as long as it has this value; at most for `timeout`. That it
/// returned means nothing.
pub(crate) fn futex_wait(word: &std::sync::atomic::AtomicU32, value: u32, timeout: Option<Duration>) {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the word and the time are valid memory, which the call only reads.
    let _ = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, timeout) };
}

/// wait4(2) for one child or tracee of any kind; `None` if `WNOHANG` found nothing.
pub(crate) fn wait(pid: i32, options: i32) -> Result<Option<i32>, PlatformError> {
    loop {
        let mut status = 0;
        // SAFETY: the status is a valid place to write to, and no usage is asked for.
        let got = unsafe { libc::wait4(pid, &raw mut status, libc::__WALL | options, ptr::null_mut()) };
        match check("wait4", got.into()) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(status)),
            Err(PlatformError::Host { source, .. }) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The `errno` of a failed host call.
pub(crate) fn errno_of(error: &PlatformError) -> i32 {
    match error {
        PlatformError::Host { source, .. } => source.raw_os_error().unwrap_or(0),
        PlatformError::StubDied { .. }
        | PlatformError::StubBroken { .. }
        | PlatformError::Unavailable { .. } => 0,
    }
}

/// The time stamp counter.
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, which touches nothing but two registers.
    unsafe { core::arch::x86_64::_rdtsc() }
}
