//! futex(2): several waiters and processes, robust lists, futex_waitv(2), PI.

use super::futexes::{sleepers};
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::memory::{PAGE, RW, anonymous, futex, map, post, shared_words, unmap, wait_for_word};
use crate::signal::{count_signal, counted};
use crate::sys::{raw, sys};
use crate::util::{create, timespec};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

topic!(futexes_more: [
    file_mapping_is_one_futex_in_all_mappings,
    private_and_shared_memory_of_a_fork_differ,
    signal_is_eintr,
    bad_arguments,
    clear_child_tid_wakes_a_joiner,
    robust_list_marks_the_owner_dead,
    robust_list_calls,
    pi_lock_and_unlock,
    pi_waits_until_a_time,
    pi_knows_a_circle,
    pi_owner_that_dies_hands_on,
    pi_owner_that_is_not_there,
    waitv_wakes_by_any,
    ping_pong,
]);

fn file_mapping_is_one_futex_in_all_mappings() -> CaseResult {
    let file = create(c"f", &[0; 2 * PAGE])?;
    let mapping = || map(PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), PAGE as i64);
    let (a, b) = (mapping()?, mapping()?);
    check!(a != b);
    // SAFETY: mapped, aligned, never unmapped.
    let (a, b) = unsafe { (&*a.cast::<AtomicU32>(), &*b.cast::<AtomicU32>()) };
    let child = fork_child(|| i32::from(futex(a, libc::FUTEX_WAIT, 0, None) != Ok(0)))?;
    sleepers(b, 0, 1);
    check_eq!(futex(b, libc::FUTEX_WAKE, 1, None)?, 1);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn private_and_shared_memory_of_a_fork_differ() -> CaseResult {
    let words = shared_words()?;
    let memory = anonymous(1, RW)?;
    // SAFETY: mapped, aligned, never unmapped.
    let private = unsafe { &*memory.cast::<AtomicU32>() };
    let child = fork_child(|| {
        post(&words[0]);
        let outcome = futex(private, libc::FUTEX_WAIT, 0, Some(&timespec(30_000_000)));
        i32::from(outcome.map_err(|error| error.errno) != Err(libc::ETIMEDOUT))
    })?;
    wait_for_word(&words[0], 1);
    let mut ended = Ok(0);
    while ended == Ok(0) {
        // The copies of a private page are two futexes.
        check_eq!(futex(private, libc::FUTEX_WAKE, 1, None)?, 0);
        let mut status = 0;
        ended = sys!(waitpid(child, &mut status, libc::WNOHANG));
        if ended != Ok(0) {
            check_eq!(Ended::from_status(status), Ended::Exited(0));
        }
    }
    Ok(())
}

fn signal_is_eintr() -> CaseResult {
    count_signal(libc::SIGALRM, 0)?;
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 5000 },
    };
    sys!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()))?;
    let word = AtomicU32::new(0);
    expect_errno!(futex(&word, libc::FUTEX_WAIT, 0, None), libc::EINTR);
    check_eq!(counted(), 1);
    Ok(())
}

fn bad_arguments() -> CaseResult {
    let word = AtomicU32::new(0);
    let address = word.as_ptr() as usize;
    expect_errno!(raw!(SYS_futex(address + 1, libc::FUTEX_WAIT, 0, 0, 0, 0)), libc::EINVAL);
    expect_errno!(raw!(SYS_futex(address + 1, libc::FUTEX_WAKE, 1, 0, 0, 0)), libc::EINVAL);
    expect_errno!(raw!(SYS_futex(8, libc::FUTEX_WAIT, 0, 0, 0, 0)), libc::EFAULT);
    expect_errno!(raw!(SYS_futex(address, 99, 0, 0, 0, 0)), libc::ENOSYS);
    let bad = libc::timespec { tv_sec: 0, tv_nsec: -1 };
    expect_errno!(futex(&word, libc::FUTEX_WAIT, 0, Some(&bad)), libc::EINVAL);
    let realtime = libc::FUTEX_WAKE | libc::FUTEX_CLOCK_REALTIME;
    expect_errno!(futex(&word, realtime, 1, None), libc::ENOSYS);
    let gone = anonymous(1, RW)?;
    unmap(gone, PAGE)?;
    expect_errno!(raw!(SYS_futex(gone, libc::FUTEX_WAIT, 0, 0, 0, 0)), libc::EFAULT);
    Ok(())
}

fn clear_child_tid_wakes_a_joiner() -> CaseResult {
    let words = shared_words()?;
    words[0].store(77, Ordering::SeqCst);
    let child = fork_child(|| {
        let tid = raw!(SYS_set_tid_address(words[0].as_ptr()));
        i32::from(tid != Ok(i64::from(std::process::id())))
    })?;
    // Linux clears the word of a process that shares its memory only.
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(words[0].load(Ordering::SeqCst), 77);
    let thread = std::thread::spawn(|| 5);
    check_eq!(thread.join().map_err(|_| "panic")?, 5);
    Ok(())
}

/// `struct robust_list_head` and one lock behind it.
#[repr(C)]
struct Robust {
    list: *mut u64,
    futex_offset: i64,
    pending: *mut u64,
    entry: u64,
    word: AtomicU32,
}

fn robust_list_marks_the_owner_dead() -> CaseResult {
    const OWNER_DIED: u32 = 0x4000_0000;
    const WAITERS: u32 = 0x8000_0000;
    let words = shared_words()?;
    let child = fork_child(|| {
        // SAFETY: the shared page is large enough and used for nothing else.
        let robust = unsafe { &mut *words[16].as_ptr().cast::<Robust>() };
        let head = (&raw mut robust.list).cast::<u64>();
        robust.entry = head as u64;
        robust.list = &raw mut robust.entry;
        robust.futex_offset = 8;
        robust.pending = std::ptr::null_mut();
        robust.word.store(std::process::id() | WAITERS, Ordering::SeqCst);
        i32::from(raw!(SYS_set_robust_list(head, 24)).is_err())
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    // SAFETY: as above.
    let robust = unsafe { &*words[16].as_ptr().cast::<Robust>() };
    check_eq!(robust.word.load(Ordering::SeqCst), OWNER_DIED | WAITERS);
    Ok(())
}

fn robust_list_calls() -> CaseResult {
    let head = [0u64; 3];
    expect_errno!(raw!(SYS_set_robust_list(head.as_ptr(), 25)), libc::EINVAL);
    raw!(SYS_set_robust_list(head.as_ptr(), 24))?;
    let (mut got, mut size) = (0u64, 0u64);
    raw!(SYS_get_robust_list(0, &raw mut got, &raw mut size))?;
    check_eq!((got, size), (head.as_ptr() as u64, 24));
    expect_errno!(raw!(SYS_get_robust_list(-5, &raw mut got, &raw mut size)), libc::ESRCH);
    raw!(SYS_set_robust_list(0, 24))?;
    Ok(())
}

fn pi_lock_and_unlock() -> CaseResult {
    let words = shared_words()?;
    let me = std::process::id();
    futex(&words[0], libc::FUTEX_LOCK_PI, 0, None)?;
    check_eq!(words[0].load(Ordering::SeqCst), me);
    expect_errno!(futex(&words[0], libc::FUTEX_LOCK_PI, 0, None), libc::EDEADLK);
    let child = fork_child(|| {
        let busy = futex(&words[0], libc::FUTEX_TRYLOCK_PI, 0, None).map_err(|error| error.errno);
        let foreign = futex(&words[0], libc::FUTEX_UNLOCK_PI, 0, None).map_err(|error| error.errno);
        if (busy, foreign) != (Err(libc::EAGAIN), Err(libc::EPERM)) {
            return 1;
        }
        post(&words[1]);
        if futex(&words[0], libc::FUTEX_LOCK_PI, 0, None) != Ok(0) {
            return 2;
        }
        if words[0].load(Ordering::SeqCst) & 0x3fff_ffff != std::process::id() {
            return 3;
        }
        i32::from(futex(&words[0], libc::FUTEX_UNLOCK_PI, 0, None) != Ok(0)) * 4
    })?;
    wait_for_word(&words[1], 1);
    futex(&words[0], libc::FUTEX_UNLOCK_PI, 0, None)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(words[0].load(Ordering::SeqCst), 0);
    Ok(())
}

const FUTEX_WAITERS: u32 = 0x8000_0000;
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;

/// Lets others run until somebody waits for the lock.
fn until_contended(word: &AtomicU32) {
    while word.load(Ordering::SeqCst) & FUTEX_WAITERS == 0 {
        std::thread::yield_now();
    }
}

fn pi_waits_until_a_time() -> CaseResult {
    const FUTEX_LOCK_PI2: i32 = 13;
    let words = shared_words()?;
    futex(&words[0], libc::FUTEX_LOCK_PI, 0, None)?;
    let child = fork_child(|| {
        // Both are points of a clock, and gone: of the wall clock and of the monotonic one.
        let outcomes = [libc::FUTEX_LOCK_PI, FUTEX_LOCK_PI2]
            .map(|op| futex(&words[0], op, 0, Some(&timespec(1))).map_err(|error| error.errno));
        i32::from(outcomes != [Err(libc::ETIMEDOUT); 2])
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(words[0].load(Ordering::SeqCst), std::process::id() | FUTEX_WAITERS);
    futex(&words[0], libc::FUTEX_UNLOCK_PI, 0, None)?;
    check_eq!(words[0].load(Ordering::SeqCst), 0);
    expect_errno!(futex(&words[0], libc::FUTEX_UNLOCK_PI, 0, None), libc::EPERM);
    Ok(())
}

fn pi_knows_a_circle() -> CaseResult {
    let words = shared_words()?;
    futex(&words[0], libc::FUTEX_LOCK_PI, 0, None)?;
    let child = fork_child(|| {
        if futex(&words[1], libc::FUTEX_LOCK_PI, 0, None) != Ok(0) {
            return 1;
        }
        if futex(&words[0], libc::FUTEX_LOCK_PI, 0, None) != Ok(0) {
            return 2;
        }
        i32::from(futex(&words[0], libc::FUTEX_UNLOCK_PI, 0, None) != Ok(0)) * 3
    })?;
    until_contended(&words[0]);
    expect_errno!(futex(&words[1], libc::FUTEX_LOCK_PI, 0, None), libc::EDEADLK);
    futex(&words[0], libc::FUTEX_UNLOCK_PI, 0, None)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn pi_owner_that_dies_hands_on() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        if futex(&words[0], libc::FUTEX_LOCK_PI, 0, None) != Ok(0) {
            return 1;
        }
        post(&words[1]);
        until_contended(&words[0]);
        0
    })?;
    wait_for_word(&words[1], 1);
    futex(&words[0], libc::FUTEX_LOCK_PI, 0, None)?;
    let word = words[0].load(Ordering::SeqCst);
    check_eq!(word & !FUTEX_WAITERS, std::process::id() | FUTEX_OWNER_DIED);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    futex(&words[0], libc::FUTEX_UNLOCK_PI, 0, None)?;
    check_eq!(words[0].load(Ordering::SeqCst), 0);
    Ok(())
}

fn pi_owner_that_is_not_there() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    words[0].store(child.cast_unsigned(), Ordering::SeqCst);
    expect_errno!(futex(&words[0], libc::FUTEX_LOCK_PI, 0, None), libc::ESRCH);
    // What a dead owner left is taken, and tells so.
    words[0].store(FUTEX_OWNER_DIED, Ordering::SeqCst);
    futex(&words[0], libc::FUTEX_LOCK_PI, 0, None)?;
    check_eq!(words[0].load(Ordering::SeqCst), std::process::id() | FUTEX_OWNER_DIED);
    Ok(())
}

/// `struct futex_waitv`.
#[repr(C)]
struct WaitV {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

fn waitv_wakes_by_any() -> CaseResult {
    const U32: u32 = 2;
    let words = shared_words()?;
    let list = [0, 1, 2].map(|at| WaitV {
        value: 0,
        address: words[at].as_ptr() as u64,
        flags: U32,
        reserved: 0,
    });
    let waitv = |count: usize, timeout: *const libc::timespec| {
        raw!(SYS_futex_waitv(list.as_ptr(), count, 0, timeout, libc::CLOCK_MONOTONIC))
    };
    let past = timespec(1);
    expect_errno!(waitv(3, &raw const past), libc::ETIMEDOUT);
    expect_errno!(waitv(0, std::ptr::null()), libc::EINVAL);
    expect_errno!(waitv(129, std::ptr::null()), libc::EINVAL);
    let child = fork_child(|| i32::from(waitv(3, std::ptr::null()) != Ok(2)))?;
    sleepers(&words[2], 0, 1);
    check_eq!(futex(&words[2], libc::FUTEX_WAKE, 1, None)?, 1);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    words[1].store(1, Ordering::SeqCst);
    expect_errno!(waitv(3, std::ptr::null()), libc::EAGAIN);
    Ok(())
}

fn ping_pong() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        for turn in 0..500 {
            wait_for_word(&words[0], turn + 1);
            post(&words[1]);
        }
        0
    })?;
    for turn in 0..500 {
        post(&words[0]);
        wait_for_word(&words[1], turn + 1);
    }
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}
