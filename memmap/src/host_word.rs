//! Words of host files that guests share: changed in a mapping made for the purpose.
//!
//! Whoever else has such a file open may truncate it at any time, and an access to the mapping then raises `SIGBUS` here. The
//! one instruction that may do so is known to the handler, which makes the function it is in report a failure.
use std::ffi::{c_int, c_void};
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::OnceLock;

use abi::Errno;
use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};

use crate::{HostMemory, PAGE};

std::arch::global_asm!(
    ".pushsection .text.memmap_guarded, \"ax\", @progbits",
    // fn(word: *mut u32, expected: u32, new: u32, old: *mut u32) -> u32: 0, or 1 if the word is not there.
    ".hidden memmap_compare_exchange",
    ".globl memmap_compare_exchange",
    "memmap_compare_exchange:",
    "mov eax, esi",
    ".hidden memmap_may_fault",
    ".globl memmap_may_fault",
    "memmap_may_fault:",
    "lock cmpxchg dword ptr [rdi], edx",
    "mov dword ptr [rcx], eax",
    "xor eax, eax",
    "ret",
    ".hidden memmap_has_faulted",
    ".globl memmap_has_faulted",
    "memmap_has_faulted:",
    "mov eax, 1",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn memmap_compare_exchange(word: *mut u32, expected: u32, new: u32, old: *mut u32) -> u32;
    fn memmap_may_fault();
    fn memmap_has_faulted();
}

/// The handler of `SIGBUS`.
extern "C" fn on_sigbus(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    let may_fault = memmap_may_fault as *const () as i64;
    let has_faulted = memmap_has_faulted as *const () as i64;
    // SAFETY: the kernel passes a handler with SA_SIGINFO the interrupted context, which nothing else refers to.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    match context.uc_mcontext.gregs.get_mut(libc::REG_RIP.unsigned_abs() as usize) {
        // The function has changed no register that its caller keeps, nor the stack.
        Some(rip) if *rip == may_fault => *rip = has_faulted,
        _ => {
            // SAFETY: the default action involves no code of ours. The instruction raises the signal again and ends
            // the process, as it would without this handler.
            let _previous = unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
        }
    }
}

/// Makes `SIGBUS` recoverable where this module needs it. To be called before a filter forbids sigaction(2).
pub(crate) fn install() -> std::io::Result<()> {
    static DONE: OnceLock<nix::Result<()>> = OnceLock::new();
    let handler = SigHandler::SigAction(on_sigbus);
    let action = SigAction::new(handler, SaFlags::SA_ONSTACK | SaFlags::SA_RESTART, SigSet::empty());
    let done = DONE.get_or_init(|| {
        // SAFETY: the handler calls nothing but signal(2), which may be called in handlers.
        unsafe { nix::sys::signal::sigaction(Signal::SIGBUS, &action) }.map(|_previous| ())
    });
    Ok((*done)?)
}

/// A page of a host file, mapped for a moment.
struct Page(NonNull<c_void>);

const PAGE_SIZE: NonZeroUsize = NonZeroUsize::new(4096).expect("not 0");

impl Page {
    fn new(file: &HostMemory, offset: u64) -> Result<Self, Errno> {
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let offset = i64::try_from(offset).map_err(|_far| Errno::EFAULT)?;
        // SAFETY: a fresh mapping at an address of the host's choice touches no memory of this program.
        let page =
            unsafe { nix::sys::mman::mmap(None, PAGE_SIZE, prot, MapFlags::MAP_SHARED, &file.fd, offset) };
        page.map(Self).map_err(|_host| Errno::EFAULT)
    }

    /// The word at `offset` in the page, a multiple of 4.
    fn compare_exchange(&self, offset: u64, expected: u32, new: u32) -> Result<Result<u32, u32>, Errno> {
        let offset = usize::try_from(offset & (PAGE - 4)).map_err(|_far| Errno::EFAULT)?;
        // SAFETY: the offset is less than the size of the mapping.
        let word = unsafe { self.0.cast::<u8>().add(offset) }.cast::<u32>();
        let mut old = 0;
        // SAFETY: the word is aligned, within a mapping that lives as long as `self`, and accessed by atomic instructions
        // only; if the file ends before it, the function returns 1. `old` is valid for writes.
        let failed = unsafe { memmap_compare_exchange(word.as_ptr(), expected, new, &raw mut old) };
        match (failed, old == expected) {
            (0, true) => Ok(Ok(old)),
            (0, false) => Ok(Err(old)),
            _ => Err(Errno::EFAULT),
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and nothing borrowed from it is left.
        let unmapped = unsafe { nix::sys::mman::munmap(self.0, PAGE_SIZE.get()) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own can be unmapped");
    }
}

/// Changes the word at `offset` (a multiple of 4) of a host file at once, to what `change` makes of it if that is
/// something; gives the old value, as `Ok` if it was changed.
///
/// # Errors
/// `EFAULT` when the file ends before or cannot be written, `EAGAIN` when others change the word all the time (as Linux's own
/// futexes do).
pub(crate) fn update(
    file: &HostMemory,
    offset: u64,
    change: impl Fn(u32) -> Option<u32>,
) -> Result<Result<u32, u32>, Errno> {
    /// Linux `FUTEX_MAX_LOOPS`.
    const TRIES: u32 = 128;
    let page = Page::new(file, offset & !(PAGE - 1))?;
    let in_page = offset % PAGE;
    let mut seen = 0;
    for _ in 0..TRIES {
        // Where nothing is to be changed, exchanging what was seen for itself tells whether it is still so.
        let new = change(seen);
        match page.compare_exchange(in_page, seen, new.unwrap_or(seen))? {
            Ok(old) if new.is_some() => return Ok(Ok(old)),
            Ok(old) => return Ok(Err(old)),
            Err(now) => seen = now,
        }
    }
    Err(Errno::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn file(len: i64) -> HostMemory {
        let fd =
            nix::sys::memfd::memfd_create("host", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("memfd");
        nix::unistd::ftruncate(&fd, len).expect("truncated");
        HostMemory { fd, writable: true }
    }

    #[test]
    fn words_of_files_change_and_go() {
        install().expect("installed");
        let file = file(8192);
        assert_eq!(update(&file, 4100, |old| Some(old + 5)), Ok(Ok(0)));
        assert_eq!(update(&file, 4100, |old| (old == 5).then_some(7)), Ok(Ok(5)));
        assert_eq!(update(&file, 4100, |old| (old == 5).then_some(8)), Ok(Err(7)));
        let mut word = [0; 4];
        nix::sys::uio::pread(file.fd.as_fd(), &mut word, 4100).expect("read");
        assert_eq!(u32::from_ne_bytes(word), 7);
        let page = Page::new(&file, 4096).expect("mapped");
        nix::unistd::ftruncate(&file.fd, 4096).expect("truncated");
        assert_eq!(page.compare_exchange(4, 7, 8), Err(Errno::EFAULT));
        assert_eq!(update(&file, 4100, Some), Err(Errno::EFAULT));
    }
}
