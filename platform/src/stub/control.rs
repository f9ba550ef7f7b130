//! The pages through which the sentry gives requests to mappers.
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::layout::PAGE;
use super::lock::Mutex;
use crate::{PlatformError, sys};

/// How many stubs there may be at a time.
const SLOTS: u32 = 32768;
/// How many operations a request holds.
pub(crate) const MAX_OPERATIONS: usize = 63;

/// How many operations a request with data has at most.
pub(crate) const DATA: usize = 7;
/// Where in the page that data is.
pub(crate) const DATA_OFFSET: u64 = 64 * (1 + DATA as u64);

/// One operation of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// One of `blob::KIND_…`.
    pub(crate) kind: u64,
    /// The host system call, or what the kind says.
    pub(crate) nr: i64,
    /// Its arguments.
    pub(crate) args: [u64; 6],
}

impl Operation {
    /// A plain system call.
    pub(crate) const fn call(nr: i64, args: [u64; 6]) -> Self {
        Self { kind: super::blob::KIND_CALL, nr, args }
    }
}

/// A page as the mapper reads it. Atomic, because another process reads it; only the sentry writes.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct RequestPage {
    number: AtomicU32,
    count: AtomicU32,
    /// How long the mapper is to look for the next request before it sleeps, in ticks of the time stamp counter.
    look: AtomicU64,
    unused: [u8; 48],
    operations: [[AtomicU64; 8]; MAX_OPERATIONS],
}

impl RequestPage {
    /// Makes `operations`, at most [`MAX_OPERATIONS`], the request with this number, which must differ from the last.
    pub(crate) fn publish(&self, number: u32, operations: &[Operation], look: u64) {
        for (place, operation) in self.operations.iter().zip(operations) {
            let [a, b, c, d, e, f] = operation.args;
            for (word, value) in
                place.iter().zip([operation.nr.cast_unsigned(), a, b, c, d, e, f, operation.kind])
            {
                word.store(value, Ordering::Relaxed);
            }
        }
        let count = operations.len().min(MAX_OPERATIONS);
        self.count.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
        self.look.store(look, Ordering::Relaxed);
        self.number.store(number, Ordering::Release);
    }

    /// Puts bytes behind the first [`DATA`] operations; the request to come must not have more of those.
    pub(crate) fn put_data(&self, bytes: &[u8]) {
        let words = self.operations.iter().skip(DATA).flatten();
        for (word, part) in words.zip(bytes.chunks(8)) {
            let mut value = [0; 8];
            value.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            word.store(u64::from_le_bytes(value), Ordering::Relaxed);
        }
    }

    /// Wakes the mapper to see the request.
    pub(crate) fn wake(&self) {
        sys::futex_wake(&self.number);
    }
}

/// The file of all request pages.
#[derive(Debug)]
pub(crate) struct Control {
    file: File,
    pages: *mut RequestPage,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    used: u32,
    returned: Vec<(u32, OwnedFd)>,
}

// SAFETY: `pages` points to shared memory that lives as long as the value and is reached through atomics only.
unsafe impl Send for Control {}
// SAFETY: as above.
unsafe impl Sync for Control {}

impl Control {
    /// Makes the file and maps it.
    pub(crate) fn new() -> Result<Arc<Self>, PlatformError> {
        let file = sys::memfd(c"stub requests", 0)?;
        let len = u64::from(SLOTS) * PAGE;
        file.set_len(len).map_err(|source| PlatformError::Host { call: "ftruncate", source })?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let pages = sys::map_shared(file.as_raw_fd(), len, libc::PROT_READ | libc::PROT_WRITE)?.cast();
        Ok(Arc::new(Self { file, pages, free: Mutex::default() }))
    }

    /// The file's descriptor, which stubs share.
    pub(crate) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Takes a free page, with an eventfd at 0.
    ///
    /// # Errors
    /// `EAGAIN` when all are taken, and those of eventfd(2).
    pub(crate) fn take(self: &Arc<Self>) -> Result<Slot, PlatformError> {
        let mut free = self.free.lock();
        let (index, event) = if let Some(returned) = free.returned.pop() {
            returned
        } else if free.used < SLOTS {
            let event = sys::eventfd()?;
            free.used += 1;
            (free.used - 1, event)
        } else {
            let source = std::io::Error::from_raw_os_error(libc::EAGAIN);
            return Err(PlatformError::Host { call: "stub slot", source });
        };
        drop(free);
        Ok(Slot { index, event: Some(event), control: Arc::clone(self) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let len = usize::try_from(u64::from(SLOTS) * PAGE).unwrap_or(0);
        // SAFETY: every slot holds the control alive, so none is left to use its page.
        unsafe { sys::unmap(self.pages.cast(), len) };
    }
}

/// A stub's page and eventfd.
#[derive(Debug)]
pub(crate) struct Slot {
    index: u32,
    event: Option<OwnedFd>,
    control: Arc<Control>,
}

impl Slot {
    /// The page.
    pub(crate) fn page(&self) -> &RequestPage {
        // SAFETY: the index is below SLOTS, so the page lies in the one mapping.
        let page = unsafe { self.control.pages.add(self.index as usize) };
        // SAFETY: the mapping lives as long as the control; any bytes are a valid page of atomics.
        unsafe { &*page }
    }

    /// Where the page lies in the control file.
    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.index) * PAGE
    }

    /// The eventfd.
    pub(crate) fn event(&self) -> i32 {
        self.event.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The file of all pages.
    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.page().publish(0, &[], 0);
        if let Some(event) = self.event.take() {
            let mut count = [0_u8; 8];
            nix::unistd::read(&event, &mut count).ok();
            self.control.free.lock().returned.push((self.index, event));
        }
    }
}
