//! The memory file: one memfd that backs all guest memory that is not a host file.
mod pages;
mod presence;
#[expect(unsafe_code, reason = "turns offsets of the memory file into accesses to its mapping")]
mod window;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag};
use nix::sys::memfd::MFdFlags;
use sync::{LockClass, Mutex};

use crate::{FileRange, PAGE};
use pages::{Account, Pages};
pub(crate) use presence::Presence;
use window::Window;

/// The sizes tried for the file, largest first. It takes memory only page by page.
const SIZES: [u64; 4] = [1 << 40, 1 << 38, 1 << 36, 1 << 34];
/// The unit of `st_blocks`.
const BLOCK: u64 = 512;
/// Freed bytes that are kept to be overwritten and used again, before they go back to the host.
const KEEP_DIRTY: u64 = 1 << 20;
/// How much may be taken on an account with a limit before it is counted again.
const MOST_UNCOUNTED: u64 = 64 << 20;
/// Up to this size an allocation may overwrite freed pages; a larger one may never be touched in full.
const SMALL: u64 = 64 << 10;

/// The memory of a sandbox, as one of its containers takes it.
pub struct MemoryFile {
    shared: Arc<Shared>,
    /// What is taken by this value is on this account.
    account: Account,
    /// How many bytes may be on it; `u64::MAX` where only the sandbox has a limit.
    own_limit: AtomicU64,
    /// Up to so many bytes on it nothing has to be counted.
    trusted: AtomicU64,
}

/// What all containers of a sandbox share.
struct Shared {
    fd: OwnedFd,
    window: Window,
    size: u64,
    /// How many bytes it may take of the host.
    limit: AtomicU64,
    pages: Mutex<Pages>,
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { fd, size, .. } = &*self.shared;
        f.debug_struct("MemoryFile").field("fd", fd).field("size", size).finish_non_exhaustive()
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if self.account != 0 {
            self.shared.pages.lock().close_account(self.account);
        }
    }
}

impl MemoryFile {
    /// Makes an empty memory file. Processes that this one forks do not get to see its contents by inheritance. The first
    /// call also takes over the process's `SIGBUS`, which mapped files of the host may raise; what else raises it ends
    /// the process as before.
    ///
    /// # Errors
    /// Those of memfd_create(2), ftruncate(2), fcntl(2), mmap(2) and sigaction(2).
    pub fn new() -> io::Result<Arc<Self>> {
        crate::host_word::install()?;
        let fd =
            nix::sys::memfd::memfd_create("memory", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let mut last = io::Error::from(io::ErrorKind::OutOfMemory);
        for size in SIZES {
            match Self::show(&fd, size) {
                Ok(window) => {
                    // Nobody who gets to hold the file may make the window's pages vanish.
                    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
                    nix::fcntl::fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
                    let pages = Mutex::new(LockClass::MemoryFile, Pages::default());
                    let shared = Shared { fd, window, size, limit: AtomicU64::new(size), pages };
                    return Ok(Arc::new(Self::on(Arc::new(shared), 0)));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    const fn on(shared: Arc<Shared>, account: Account) -> Self {
        Self { shared, account, own_limit: AtomicU64::new(u64::MAX), trusted: AtomicU64::new(u64::MAX) }
    }

    /// The same memory, with an account of its own. Pages stay on the account of who took them first, whoever uses them. Where
    /// there are too many accounts it is that of the sandbox's first container.
    #[must_use]
    pub fn new_account(&self) -> Arc<Self> {
        let account = self.shared.pages.lock().open_account().unwrap_or(0);
        Arc::new(Self::on(Arc::clone(&self.shared), account))
    }

    /// Bounds how many bytes may be on this account; what is there already stays.
    pub fn set_own_limit(&self, bytes: u64) {
        self.own_limit.store(bytes, Ordering::Relaxed);
        self.trusted.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes may be on this account; `u64::MAX` where only the sandbox has a limit.
    #[must_use]
    pub fn own_limit(&self) -> u64 {
        self.own_limit.load(Ordering::Relaxed)
    }

    /// Tells whether `len` bytes more are too many for this account. As with the limit of all, pages count that were touched; how
    /// many those are is counted the more often the closer it gets.
    fn is_beyond_own_limit(&self, len: u64) -> bool {
        let limit = self.own_limit.load(Ordering::Relaxed);
        if limit == u64::MAX {
            return false;
        }
        let taken = self.own_bytes().saturating_add(len);
        if taken <= self.trusted.load(Ordering::Relaxed) {
            return false;
        }
        let present = self.own_present_bytes();
        let Some(room) = limit.checked_sub(present.saturating_add(len)) else { return true };
        self.trusted.store(taken.saturating_add((room / 2).min(MOST_UNCOUNTED)), Ordering::Relaxed);
        false
    }

    /// How many bytes on this account have references.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        self.shared.pages.lock().taken_by(self.account)
    }

    /// How many bytes on this account take memory of the host.
    #[must_use]
    pub fn own_present_bytes(&self) -> u64 {
        let runs = self.shared.pages.lock().runs_of(self.account);
        let (mut presence, mut present) = (Presence::new(self), 0);
        for run in runs {
            presence.for_each(run, &mut |part| present += part.len());
        }
        present
    }

    /// Tells whether more than half of what there may be is in use.
    pub(crate) fn is_scarce(&self) -> bool {
        let own = self.own_limit.load(Ordering::Relaxed);
        self.usage_bytes() > self.total() / 2 || own != u64::MAX && self.own_bytes() > own / 2
    }

    fn show(fd: &OwnedFd, size: u64) -> io::Result<Window> {
        let wide = |_| io::Error::from(io::ErrorKind::InvalidInput);
        nix::unistd::ftruncate(fd, i64::try_from(size).map_err(wide)?)?;
        Window::new(fd.as_fd(), usize::try_from(size).map_err(wide)?)
    }

    /// The file, for mapping parts of it into guests.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }

    /// The most bytes there can be.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.shared.limit.load(Ordering::Relaxed)
    }

    /// Bounds how many bytes it may take of the host. What is there already stays.
    pub fn set_limit(&self, bytes: u64) {
        self.shared.limit.store(bytes.min(self.shared.size), Ordering::Relaxed);
    }

    /// Tells whether `len` more bytes are too many. Pages that were taken ahead of need count only once they are touched,
    /// which the host is asked about when it matters.
    fn is_beyond_limit(&self, len: u64) -> bool {
        let limit = self.total();
        let fits = |bytes: u64| bytes.saturating_add(len) <= limit;
        if fits(self.usage_bytes()) {
            return false;
        }
        let blocks = nix::sys::stat::fstat(&self.shared.fd).map_or(i64::MAX, |stat| stat.st_blocks);
        !fits(u64::try_from(blocks).unwrap_or(0).saturating_mul(BLOCK))
    }

    /// How many bytes have references.
    #[must_use]
    pub fn usage_bytes(&self) -> u64 {
        self.shared.pages.lock().used()
    }

    /// How much to take ahead of need: less when much of the file's offsets, or of the account's limit, went
    /// to what may never be touched.
    pub(crate) fn step(&self) -> u64 {
        let limit = self.own_limit.load(Ordering::Relaxed);
        let pages = self.shared.pages.lock();
        let scarce = pages.extent() > self.shared.size / 16
            || limit != u64::MAX && pages.taken_by(self.account) > limit / 2;
        if scarce { SMALL } else { 2 << 20 }
    }

    /// Takes `len` bytes (rounded up to pages) that are zero, in one run, with one reference to each page.
    ///
    /// # Errors
    /// `ENOMEM` when there is no such run, `EINVAL` for a length of 0.
    pub fn allocate(&self, len: u64) -> Result<FileRange, Errno> {
        let len = len.checked_next_multiple_of(PAGE).filter(|l| *l > 0).ok_or(Errno::EINVAL)?;
        if self.is_beyond_own_limit(len) {
            return Err(Errno::ENOMEM);
        }
        if len > SMALL {
            return self.allocate_clean(len);
        }
        let dirty = self.shared.pages.lock().take_dirty(len, self.account);
        match dirty {
            Some(range) => {
                self.zero(range.start, range.len());
                Ok(range)
            }
            None => self.allocate_clean(len),
        }
    }

    /// Takes pages whose old contents the caller overwrites in full before anybody else sees them.
    pub(crate) fn allocate_to_fill(&self, len: u64) -> Result<FileRange, Errno> {
        if self.is_beyond_own_limit(len) {
            return Err(Errno::ENOMEM);
        }
        let mut pages = self.shared.pages.lock();
        if let Some(range) = pages.take_dirty(len, self.account) {
            return Ok(range);
        }
        drop(pages);
        self.allocate_clean(len)
    }

    fn allocate_clean(&self, len: u64) -> Result<FileRange, Errno> {
        if self.is_beyond_limit(len) {
            self.give_back(0);
            if self.is_beyond_limit(len) {
                return Err(Errno::ENOMEM);
            }
        }
        let first = self.shared.pages.lock().take_clean(len, self.shared.size, self.account);
        if first.is_err() {
            self.give_back(0);
            return self.shared.pages.lock().take_clean(len, self.shared.size, self.account);
        }
        first
    }

    /// Adds one reference to each page. The caller must hold one to each.
    pub fn inc_ref(&self, range: FileRange) {
        let sound = self.shared.pages.lock().inc(range);
        assert!(sound, "a reference is taken to pages in use only");
    }

    /// Drops one reference to each page; what has none left is free.
    pub fn dec_ref(&self, range: FileRange) {
        let (sound, dirty) = {
            let mut pages = self.shared.pages.lock();
            (pages.dec(range), pages.dirty_bytes())
        };
        debug_assert!(sound, "a reference is dropped that was held");
        if dirty > KEEP_DIRTY {
            self.give_back(KEEP_DIRTY);
        }
    }

    /// Returns freed pages to the host, if there are more than `keep` bytes of them.
    fn give_back(&self, keep: u64) {
        let runs = {
            let mut pages = self.shared.pages.lock();
            if pages.dirty_bytes() <= keep { Vec::new() } else { pages.take_all_dirty() }
        };
        for run in runs {
            let punched = self.punch(run);
            let mut pages = self.shared.pages.lock();
            if punched { pages.add_clean(run) } else { pages.add_dirty(run) }
        }
    }

    fn punch(&self, range: FileRange) -> bool {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match (i64::try_from(range.start), i64::try_from(range.len())) {
            (Ok(start), Ok(len)) => nix::fcntl::fallocate(&self.shared.fd, mode, start, len).is_ok(),
            _ => false,
        }
    }

    /// Makes a range take memory now, so that it need not be found at the first touch.
    ///
    /// # Errors
    /// `ENOMEM` when the host has none.
    pub(crate) fn commit(&self, range: FileRange) -> Result<(), Errno> {
        let wide = |_| Errno::ENOMEM;
        let (start, len) =
            (i64::try_from(range.start).map_err(wide)?, i64::try_from(range.len()).map_err(wide)?);
        let done = nix::fcntl::fallocate(&self.shared.fd, FallocateFlags::FALLOC_FL_KEEP_SIZE, start, len);
        done.map_err(|_host| Errno::ENOMEM)?;
        if self.own_limit() != u64::MAX {
            // What was never touched the host calls a hole, wherever there is memory for it, and holes are not counted.
            for at in (range.start..range.end).step_by(usize::try_from(PAGE).unwrap_or(4096)) {
                self.read_at(at, &mut [0]);
            }
        }
        Ok(())
    }

    /// How many of the pages from the range's start have no reference but the caller's, in bytes.
    pub(crate) fn sole_run(&self, range: FileRange) -> u64 {
        self.shared.pages.lock().sole_run(range)
    }

    /// Copies bytes out. The caller holds references to the pages.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) {
        let done = self.shared.window.read(offset, into);
        debug_assert!(done, "pages with references are within the window");
    }

    /// Copies bytes in. The caller holds references to the pages.
    pub fn write_at(&self, offset: u64, from: &[u8]) {
        let done = self.shared.window.write(offset, from);
        debug_assert!(done, "pages with references are within the window");
    }

    /// Stores zeros. The caller holds references to the pages.
    pub fn zero(&self, offset: u64, len: u64) {
        let done = usize::try_from(len).is_ok_and(|len| self.shared.window.zero(offset, len));
        debug_assert!(done, "pages with references are within the window");
    }

    /// Copies bytes from one place to another that does not overlap it. The caller holds references to the pages.
    pub fn copy(&self, from: u64, into: u64, len: u64) {
        let window = &self.shared.window;
        let by_host = |len| window.copy_by_host(self.fd(), from, into, len) as u64;
        let done = if len < PAGE { 0 } else { usize::try_from(len).map_or(0, by_host) };
        let rest = usize::try_from(len.saturating_sub(done));
        let done = rest.is_ok_and(|rest| window.copy(from + done, into + done, rest));
        debug_assert!(done, "pages with references are within the window");
    }

    /// As [`Self::write_at`], of pages that may not be there yet.
    pub(crate) fn fill_at(&self, offset: u64, from: &[u8]) {
        let at = i64::try_from(offset).unwrap_or(i64::MAX);
        let done = nix::sys::uio::pwrite(self.fd(), from, at).unwrap_or(0);
        if let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
            self.write_at(offset + done as u64, rest);
        }
    }

    /// Does something atomic to the word at `offset`.
    pub(crate) fn with_word<R>(&self, offset: u64, f: impl FnOnce(&AtomicU32) -> R) -> Result<R, Errno> {
        self.shared.window.with_word(offset, f).ok_or(Errno::EFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_pages_come_back_as_zeros() {
        let file = MemoryFile::new().expect("memfd");
        let a = file.allocate(1).expect("room");
        file.write_at(a.start + 5, b"secret");
        file.dec_ref(a);
        let b = file.allocate(PAGE).expect("room");
        assert_eq!(b, a);
        let mut seen = [1; 16];
        file.read_at(b.start, &mut seen);
        assert_eq!(seen, [0; 16]);
        let large = file.allocate(4 << 20).expect("room");
        file.write_at(large.start, b"more");
        file.dec_ref(large);
        assert_eq!(file.usage_bytes(), PAGE);
        let again = file.allocate(4 << 20).expect("room");
        assert_eq!(again, large);
        file.read_at(again.start, &mut seen);
        assert_eq!(seen, [0; 16]);
    }

    #[test]
    fn what_is_touched_stays_below_the_limit() {
        let file = MemoryFile::new().expect("memfd");
        file.set_limit(1 << 20);
        assert_eq!(file.allocate(2 << 20).map(drop), Err(Errno::ENOMEM));
        let first = file.allocate(768 << 10).expect("room");
        // What was never touched takes nothing.
        let second = file.allocate(768 << 10).expect("room");
        for range in [first, second] {
            let half = FileRange { end: range.start + (512 << 10), ..range };
            file.commit(half).expect("memory");
        }
        assert_eq!(file.allocate(PAGE).map(drop), Err(Errno::ENOMEM));
        file.dec_ref(first);
        assert!(file.allocate(PAGE).is_ok());
    }

    #[test]
    fn what_is_touched_on_an_account_stays_below_its_limit() {
        let file = MemoryFile::new().expect("memfd");
        let (own, other) = (file.new_account(), file.new_account());
        own.set_own_limit(1 << 20);
        let untouched = own.allocate(768 << 10).expect("room");
        let second = own.allocate(768 << 10).expect("what was never touched takes nothing");
        own.commit(second).expect("memory");
        assert_eq!((own.own_present_bytes(), own.own_bytes()), (768 << 10, 1536 << 10));
        assert_eq!(own.allocate(512 << 10).map(drop), Err(Errno::ENOMEM));
        assert_eq!(own.allocate_to_fill(512 << 10).map(drop), Err(Errno::ENOMEM));
        let elsewhere = other.allocate(4 << 20).expect("no limit");
        // Whoever drops the last reference, the account has it back.
        file.dec_ref(second);
        assert_eq!((own.own_present_bytes(), own.own_bytes()), (0, 768 << 10));
        assert!(own.allocate(512 << 10).is_ok());
        other.dec_ref(untouched);
        other.dec_ref(elsewhere);
        assert_eq!(other.own_bytes(), 0);
    }

    #[test]
    fn words_and_copies() {
        let file = MemoryFile::new().expect("memfd");
        let a = file.allocate(2 * PAGE).expect("room");
        file.write_at(a.start, &7u32.to_ne_bytes());
        file.copy(a.start, a.start + PAGE, PAGE);
        let add = |w: &AtomicU32| w.fetch_add(1, Ordering::SeqCst);
        assert_eq!(file.with_word(a.start + PAGE, add), Ok(7));
        assert_eq!(file.with_word(a.start + PAGE, add), Ok(8));
        assert_eq!(file.with_word(a.start + 1, add), Err(Errno::EFAULT));
    }
}
