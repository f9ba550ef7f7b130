//! Mappings, and words shared between processes to order their steps.

use crate::sys::{SysError, raw, sys};
use std::sync::atomic::{AtomicU32, Ordering};

/// The size of a page.
pub(crate) const PAGE: usize = 4096;

/// Readable and writable.
pub(crate) const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// mmap(2) at an address of the kernel's choice.
pub(crate) fn map(len: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> Result<*mut u8, SysError> {
    map_at(0, len, prot, flags, fd, offset)
}

/// mmap(2) with an address.
pub(crate) fn map_at(
    address: usize,
    len: usize,
    prot: i32,
    flags: i32,
    fd: i32,
    offset: i64,
) -> Result<*mut u8, SysError> {
    raw!(SYS_mmap(address, len, prot, flags, fd, offset)).map(|address| address as usize as *mut u8)
}

/// Private anonymous memory.
pub(crate) fn anonymous(pages: usize, prot: i32) -> Result<*mut u8, SysError> {
    map(pages * PAGE, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
}

/// munmap(2).
pub(crate) fn unmap(address: *mut u8, len: usize) -> Result<(), SysError> {
    sys!(munmap(address.cast(), len)).map(drop)
}

/// mprotect(2).
pub(crate) fn protect(address: *mut u8, len: usize, prot: i32) -> Result<(), SysError> {
    sys!(mprotect(address.cast(), len, prot)).map(drop)
}

/// Reads a byte of a mapping.
pub(crate) fn peek(address: *const u8, offset: usize) -> u8 {
    // SAFETY: callers pass memory that they have mapped.
    unsafe { address.add(offset).read_volatile() }
}

/// Writes a byte of a mapping.
pub(crate) fn poke(address: *mut u8, offset: usize, value: u8) {
    // SAFETY: callers pass memory that they have mapped for writing.
    unsafe { address.add(offset).write_volatile(value) }
}

/// A page of words that children share.
pub(crate) fn shared_words() -> Result<&'static [AtomicU32; 1024], SysError> {
    let page = map(PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)?;
    // SAFETY: a fresh zeroed page that is never unmapped.
    Ok(unsafe { &*page.cast() })
}

/// futex(2) on a word, with no timeout unless given.
pub(crate) fn futex(
    word: &AtomicU32,
    op: i32,
    value: u32,
    timeout: Option<&libc::timespec>,
) -> Result<i64, SysError> {
    let timeout = timeout.map_or(std::ptr::null(), std::ptr::from_ref);
    raw!(SYS_futex(word.as_ptr(), op, value, timeout, 0, 0))
}

/// Waits, by futex, until the word is at least `value`.
pub(crate) fn wait_for_word(word: &AtomicU32, value: u32) {
    loop {
        let now = word.load(Ordering::SeqCst);
        if now >= value {
            return;
        }
        let _ = futex(word, libc::FUTEX_WAIT, now, None);
    }
}

/// Adds one to the word and wakes who waits for it.
pub(crate) fn post(word: &AtomicU32) {
    word.fetch_add(1, Ordering::SeqCst);
    let _ = futex(word, libc::FUTEX_WAKE, i32::MAX as u32, None);
}
