//! Signal actions and sets, and a handler that counts.

use crate::sys::{SysError, sys, zeroed};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// How often `count` or `record` ran.
pub(crate) static COUNT: AtomicI32 = AtomicI32::new(0);
/// What `record` saw last: the signal.
pub(crate) static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// `si_code`.
pub(crate) static CODE: AtomicI32 = AtomicI32::new(0);
/// `si_pid`.
pub(crate) static SENDER: AtomicI32 = AtomicI32::new(0);
/// `si_value`.
pub(crate) static VALUE: AtomicUsize = AtomicUsize::new(0);

/// Counts its calls.
pub(crate) extern "C" fn count(signal: i32) {
    SIGNAL.store(signal, Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
}

/// Counts, and keeps what siginfo says.
pub(crate) extern "C" fn record(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo; both accessors read bytes of it whatever the signal.
    let (code, pid, value) = unsafe { ((*info).si_code, (*info).si_pid(), (*info).si_value().sival_ptr) };
    CODE.store(code, Ordering::SeqCst);
    SENDER.store(pid, Ordering::SeqCst);
    VALUE.store(value as usize, Ordering::SeqCst);
    count(signal);
}

/// How often the counting handlers ran.
pub(crate) fn counted() -> i32 {
    COUNT.load(Ordering::SeqCst)
}

/// sigaction(2) with any handler value.
pub(crate) fn set_action(signal: i32, handler: usize, flags: i32, mask: &[i32]) -> Result<(), SysError> {
    let mut action: libc::sigaction = zeroed();
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    action.sa_mask = set_of(mask);
    sys!(sigaction(signal, &action, std::ptr::null_mut())).map(drop)
}

/// Counts the signal by `count`.
pub(crate) fn count_signal(signal: i32, flags: i32) -> Result<(), SysError> {
    set_action(signal, count as *const () as usize, flags, &[])
}

/// Records the signal by `record`.
pub(crate) fn record_signal(signal: i32) -> Result<(), SysError> {
    set_action(signal, record as *const () as usize, libc::SA_SIGINFO, &[])
}

/// A set of these signals.
pub(crate) fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set: libc::sigset_t = zeroed();
    for signal in signals {
        // SAFETY: the set is valid.
        unsafe { libc::sigaddset(&mut set, *signal) };
    }
    set
}

/// Whether a set holds a signal.
pub(crate) fn holds(set: &libc::sigset_t, signal: i32) -> bool {
    // SAFETY: the set is valid.
    unsafe { libc::sigismember(set, signal) == 1 }
}

/// Blocks signals.
pub(crate) fn block(signals: &[i32]) -> Result<(), SysError> {
    sys!(sigprocmask(libc::SIG_BLOCK, &set_of(signals), std::ptr::null_mut())).map(drop)
}

/// Unblocks signals.
pub(crate) fn unblock(signals: &[i32]) -> Result<(), SysError> {
    sys!(sigprocmask(libc::SIG_UNBLOCK, &set_of(signals), std::ptr::null_mut())).map(drop)
}

/// What is pending for this thread and its process.
pub(crate) fn pending() -> Result<libc::sigset_t, SysError> {
    let mut set: libc::sigset_t = zeroed();
    sys!(sigpending(&mut set))?;
    Ok(set)
}

/// The mask of this thread.
pub(crate) fn blocked() -> Result<libc::sigset_t, SysError> {
    let mut set: libc::sigset_t = zeroed();
    sys!(sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut set))?;
    Ok(set)
}
