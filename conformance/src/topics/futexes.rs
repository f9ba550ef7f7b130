//! futex(2): wait, wake, bitset, requeue, wake_op, timeouts, robust lists, futex_waitv(2), PI.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::memory::{futex, shared_words};
use crate::sys::{SysError, monotonic_ns, raw, sys};
use crate::util::{clock_ns, timespec};
use std::sync::atomic::{AtomicU32, Ordering};

topic!(futexes: [
    wait_on_another_value_is_eagain,
    wake_of_nobody_is_zero,
    wake_between_processes,
    private_wake_between_threads,
    wakes_so_many_and_no_more,
    wait_times_out_relative,
    wait_bitset_times_out_absolute,
    realtime_clock_of_wait_bitset,
    bitset_selects,
    requeue_moves_waiters,
    cmp_requeue_checks_the_value,
    wake_op_changes_and_wakes,
]);

fn wait_on_another_value_is_eagain() -> CaseResult {
    let word = AtomicU32::new(1);
    expect_errno!(futex(&word, libc::FUTEX_WAIT, 0, None), libc::EAGAIN);
    expect_errno!(futex(&word, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 2, None), libc::EAGAIN);
    Ok(())
}

fn wake_of_nobody_is_zero() -> CaseResult {
    let word = AtomicU32::new(0);
    check_eq!(futex(&word, libc::FUTEX_WAKE, 10, None)?, 0);
    Ok(())
}

/// Waits until so many waiters of the word have been moved to `other`, or simply woken, once all of them sleep: asks with a
/// requeue that moves nobody.
pub(super) fn sleepers(word: &AtomicU32, value: u32, count: i64) {
    loop {
        // Requeue onto itself counts the waiters and leaves them where they are.
        let moved = raw!(SYS_futex(word.as_ptr(), libc::FUTEX_CMP_REQUEUE, 0, 1000, word.as_ptr(), value));
        if moved == Ok(count) {
            return;
        }
        let _ = sys!(sched_yield());
    }
}

fn wake_between_processes() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| i32::from(futex(&words[0], libc::FUTEX_WAIT, 0, None) != Ok(0)))?;
    sleepers(&words[0], 0, 1);
    check_eq!(futex(&words[0], libc::FUTEX_WAKE, 1, None)?, 1);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn private_wake_between_threads() -> CaseResult {
    static WORD: AtomicU32 = AtomicU32::new(0);
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let thread = std::thread::spawn(move || futex(&WORD, op, 0, None));
    loop {
        if futex(&WORD, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1, None)? == 1 {
            break;
        }
        sys!(sched_yield())?;
    }
    check_eq!(thread.join().map_err(|_| "panic")??, 0);
    Ok(())
}

fn wakes_so_many_and_no_more() -> CaseResult {
    let words = shared_words()?;
    let mut children = Vec::new();
    for _ in 0..5 {
        children.push(fork_child(|| i32::from(futex(&words[0], libc::FUTEX_WAIT, 0, None) != Ok(0)))?);
    }
    sleepers(&words[0], 0, 5);
    check_eq!(futex(&words[0], libc::FUTEX_WAKE, 2, None)?, 2);
    check_eq!(futex(&words[0], libc::FUTEX_WAKE, 100, None)?, 3);
    for child in children {
        check_eq!(wait_for(child)?, Ended::Exited(0));
    }
    Ok(())
}

fn wait_times_out_relative() -> CaseResult {
    let word = AtomicU32::new(0);
    let start = monotonic_ns();
    expect_errno!(futex(&word, libc::FUTEX_WAIT, 0, Some(&timespec(5_000_000))), libc::ETIMEDOUT);
    let took = monotonic_ns() - start;
    check!((5_000_000..2_000_000_000).contains(&took), "took {took} ns");
    expect_errno!(futex(&word, libc::FUTEX_WAIT, 0, Some(&timespec(0))), libc::ETIMEDOUT);
    Ok(())
}

fn wait_bitset(word: &AtomicU32, op: i32, timeout: &libc::timespec, bits: u32) -> Result<i64, SysError> {
    raw!(SYS_futex(word.as_ptr(), libc::FUTEX_WAIT_BITSET | op, 0, std::ptr::from_ref(timeout), 0, bits))
}

fn wait_bitset_times_out_absolute() -> CaseResult {
    let word = AtomicU32::new(0);
    let until = monotonic_ns() + 5_000_000;
    expect_errno!(wait_bitset(&word, 0, &timespec(until), u32::MAX), libc::ETIMEDOUT);
    check!(monotonic_ns() >= until);
    // In the past: at once.
    expect_errno!(wait_bitset(&word, 0, &timespec(1), u32::MAX), libc::ETIMEDOUT);
    expect_errno!(wait_bitset(&word, 0, &timespec(until), 0), libc::EINVAL);
    Ok(())
}

fn realtime_clock_of_wait_bitset() -> CaseResult {
    let word = AtomicU32::new(0);
    let until = clock_ns(libc::CLOCK_REALTIME)? + 5_000_000;
    let flag = libc::FUTEX_CLOCK_REALTIME;
    expect_errno!(wait_bitset(&word, flag, &timespec(until as u64), u32::MAX), libc::ETIMEDOUT);
    check!(clock_ns(libc::CLOCK_REALTIME)? >= until);
    Ok(())
}

fn bitset_selects() -> CaseResult {
    let words = shared_words()?;
    let wait = |bits: u32| {
        fork_child(move || {
            let op = libc::FUTEX_WAIT_BITSET;
            i32::from(raw!(SYS_futex(words[0].as_ptr(), op, 0, 0, 0, bits)) != Ok(0))
        })
    };
    let (one, two) = (wait(1)?, wait(2)?);
    sleepers(&words[0], 0, 2);
    let wake = |bits: u32| raw!(SYS_futex(words[0].as_ptr(), libc::FUTEX_WAKE_BITSET, 10, 0, 0, bits));
    check_eq!(wake(4)?, 0);
    check_eq!(wake(2)?, 1);
    check_eq!(wait_for(two)?, Ended::Exited(0));
    check_eq!(wake(u32::MAX)?, 1);
    check_eq!(wait_for(one)?, Ended::Exited(0));
    expect_errno!(wake(0), libc::EINVAL);
    Ok(())
}

fn requeue_moves_waiters() -> CaseResult {
    let words = shared_words()?;
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(fork_child(|| i32::from(futex(&words[0], libc::FUTEX_WAIT, 0, None) != Ok(0)))?);
    }
    sleepers(&words[0], 0, 3);
    // Wakes one, moves two, and counts both (futex(2) says otherwise).
    let touched = raw!(SYS_futex(words[0].as_ptr(), libc::FUTEX_REQUEUE, 1, 10, words[1].as_ptr(), 0))?;
    check_eq!(touched, 3);
    check_eq!(futex(&words[0], libc::FUTEX_WAKE, 10, None)?, 0);
    check_eq!(futex(&words[1], libc::FUTEX_WAKE, 10, None)?, 2);
    for child in children {
        check_eq!(wait_for(child)?, Ended::Exited(0));
    }
    Ok(())
}

fn cmp_requeue_checks_the_value() -> CaseResult {
    let words = shared_words()?;
    let requeue = |value: u32| {
        raw!(SYS_futex(words[0].as_ptr(), libc::FUTEX_CMP_REQUEUE, 1, 1, words[1].as_ptr(), value))
    };
    expect_errno!(requeue(5), libc::EAGAIN);
    check_eq!(requeue(0)?, 0);
    let negative = raw!(SYS_futex(words[0].as_ptr(), libc::FUTEX_CMP_REQUEUE, -1, 1, words[1].as_ptr(), 0));
    expect_errno!(negative, libc::EINVAL);
    Ok(())
}

fn wake_op_changes_and_wakes() -> CaseResult {
    let words = shared_words()?;
    let mut children = Vec::new();
    for at in [0, 1] {
        children.push(fork_child(|| {
            let value = words[at].load(Ordering::SeqCst);
            i32::from(futex(&words[at], libc::FUTEX_WAIT, value, None) != Ok(0))
        })?);
    }
    sleepers(&words[0], 0, 1);
    sleepers(&words[1], 0, 1);
    let wake_op = |op: u32| raw!(SYS_futex(words[0].as_ptr(), libc::FUTEX_WAKE_OP, 10, 10, words[1].as_ptr(), op));
    // word[1] += 5; and wake there too if it was 0.
    let add_5_if_0 = (1u32 << 28) | (5 << 12);
    check_eq!(wake_op(add_5_if_0)?, 2);
    check_eq!(words[1].load(Ordering::SeqCst), 5);
    // OR with 1 << 3, compare "greater than 9" with the old value.
    check_eq!(wake_op((2 << 28) | (8 << 28) | (4 << 24) | (3 << 12) | 9)?, 0);
    check_eq!(words[1].load(Ordering::SeqCst), 13);
    for child in children {
        check_eq!(wait_for(child)?, Ended::Exited(0));
    }
    Ok(())
}
