//! The sentry's own mapping of the memory file: the one place that turns offsets into addresses.
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};

/// A shared mapping of the first bytes of a sealed memory file.
///
/// Guests store to the same pages at any time, so that no reference to plain bytes is ever made from it: bytes are copied
/// in and out, words are accessed as atomics.
#[derive(Debug)]
pub(super) struct Window {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping lives until the drop of the value and every access to it goes by copies or atomics.
unsafe impl Send for Window {}
// SAFETY: as above; concurrent copies may see torn bytes, which is what the guest gets from racing with itself.
unsafe impl Sync for Window {}

impl Window {
    /// Maps `len` bytes from the start of the file. The file must be at least that long and sealed against shrinking.
    pub(super) fn new(fd: BorrowedFd<'_>, len: usize) -> std::io::Result<Self> {
        let size = NonZeroUsize::new(len).ok_or(std::io::ErrorKind::InvalidInput)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the host's choice touches no memory of this program.
        let base = unsafe { nix::sys::mman::mmap(None, size, prot, flags, fd, 0) }?.cast();
        let window = Self { base, len };
        for advice in [MmapAdvise::MADV_DONTFORK, MmapAdvise::MADV_DONTDUMP] {
            // SAFETY: the range is the mapping just made; the advice keeps it out of children and core files only.
            unsafe { nix::sys::mman::madvise(window.base.cast(), len, advice) }?;
        }
        Ok(window)
    }

    /// The address of `len` bytes at `offset`, if the window shows them all.
    fn at(&self, offset: u64, len: usize) -> Option<NonNull<u8>> {
        let start = usize::try_from(offset).ok()?;
        if start.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: start + len is within the mapping, so that the address is within the same allocation.
        Some(unsafe { self.base.add(start) })
    }

    /// Copies bytes out; false if they are not all in the window.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let Some(from) = self.at(offset, into.len()) else { return false };
        // SAFETY: `from` is valid for that many bytes and cannot overlap memory that Rust references; the file cannot
        // shrink, so that every page is there. A guest that stores meanwhile tears bytes, of which any value is valid.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        true
    }

    /// Copies bytes in; false if the place is not all in the window.
    pub(super) fn write(&self, offset: u64, from: &[u8]) -> bool {
        let Some(into) = self.at(offset, from.len()) else { return false };
        // SAFETY: as in `read`, with the directions swapped.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_ptr(), from.len()) };
        true
    }

    /// Stores zeros; false if the place is not all in the window.
    pub(super) fn zero(&self, offset: u64, len: usize) -> bool {
        let Some(into) = self.at(offset, len) else { return false };
        // SAFETY: as in `write`.
        unsafe { std::ptr::write_bytes(into.as_ptr(), 0, len) };
        true
    }

    /// Copies bytes within the window; false if one of the places is not all in it or they overlap.
    pub(super) fn copy(&self, from: u64, into: u64, len: usize) -> bool {
        if from.abs_diff(into) < len as u64 {
            return false;
        }
        let (Some(from), Some(into)) = (self.at(from, len), self.at(into, len)) else { return false };
        // SAFETY: as in `read`; the two places are in the window and were found not to overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_ptr(), len) };
        true
    }

    /// As [`Self::copy`], by a call of the host, which makes pages of the file cheaper than faults of this mapping do. Tells
    /// how much it copied, 0 where it could not at all.
    pub(super) fn copy_by_host(&self, fd: BorrowedFd<'_>, from: u64, into: u64, len: usize) -> usize {
        if from.abs_diff(into) < len as u64 || self.at(into, len).is_none() {
            return 0;
        }
        let (Some(from), Ok(into)) = (self.at(from, len), i64::try_from(into)) else { return 0 };
        // SAFETY: the host only reads from the place, which is in the window; it cannot overlap memory that Rust references.
        let done = unsafe { libc::pwrite(fd.as_raw_fd(), from.as_ptr().cast(), len, into) };
        usize::try_from(done).unwrap_or(0)
    }

    /// The word at `offset`, which must be a multiple of 4.
    fn word(&self, offset: u64) -> Option<&AtomicU32> {
        let at = self.at(offset, 4).filter(|_| offset.is_multiple_of(4))?.cast::<u32>();
        // SAFETY: the address is valid for the life of `self` and aligned; all other accesses to it by this program go
        // through copies by pointers or through such atomics.
        Some(unsafe { AtomicU32::from_ptr(at.as_ptr()) })
    }

    /// Does something atomic to the word at `offset`; nothing if it is not in the window or not aligned.
    pub(super) fn with_word<R>(&self, offset: u64, f: impl FnOnce(&AtomicU32) -> R) -> Option<R> {
        self.word(offset).map(f)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: the mapping is this value's own and nothing borrowed from it is left.
        let unmapped = unsafe { nix::sys::mman::munmap(self.base.cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own can be unmapped");
    }
}
