//! The requests that change what a stub shows its guest.
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::control::Operation;
use super::layout::{LOWEST, PAGE};
use crate::{Access, PlatformError};

/// Refuses ranges that reach into the stub's own region, before they reach its mapper; guests may map up to `user_end`.
pub(crate) fn check(call: &'static str, range: Range<u64>, user_end: u64) -> Result<(), PlatformError> {
    if range.start >= LOWEST && range.end <= user_end && range.start.is_multiple_of(PAGE) {
        return Ok(());
    }
    let source = std::io::Error::from_raw_os_error(libc::EINVAL);
    Err(PlatformError::Host { call, source })
}

/// The range of `len` bytes; one that nobody may map if there is none.
pub(crate) const fn range(addr: u64, len: u64) -> Range<u64> {
    addr..addr.saturating_add(len)
}

fn protection(access: Access) -> u64 {
    let bit = |on: bool, flag: i32| if on { u64::from(flag.cast_unsigned()) } else { 0 };
    bit(access.read, libc::PROT_READ)
        | bit(access.write, libc::PROT_WRITE)
        | bit(access.execute, libc::PROT_EXEC)
}

/// Maps a file over what is there.
pub(crate) fn map(
    addr: u64,
    len: u64,
    file: BorrowedFd<'_>,
    offset: u64,
    access: Access,
    populate: bool,
) -> Operation {
    let populate = if populate { libc::MAP_POPULATE } else { 0 };
    let flags = u64::from((libc::MAP_SHARED | libc::MAP_FIXED | populate).cast_unsigned());
    let file = u64::from(file.as_raw_fd().cast_unsigned());
    Operation::call(libc::SYS_mmap, [addr, len, protection(access), flags, file, offset])
}

/// Unmaps.
pub(crate) fn unmap(addr: u64, len: u64) -> Operation {
    Operation::call(libc::SYS_munmap, [addr, len, 0, 0, 0, 0])
}

/// Changes what may be done.
pub(crate) fn protect(addr: u64, len: u64, access: Access) -> Operation {
    Operation::call(libc::SYS_mprotect, [addr, len, protection(access), 0, 0, 0])
}
