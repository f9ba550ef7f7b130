//! clock_gettime(2) and the vDSO.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{fork_child, wait_for};
use crate::sys::{raw, sys, zeroed};
use crate::util::{clock_ns, nanoseconds, timespec};
use std::sync::atomic::Ordering;

topic!(clocks: [
    clocks_advance_and_agree,
    clock_by_vdso_and_by_syscall_agree,
    monotonic_never_goes_back,
    monotonic_never_goes_back_between_threads,
    cpu_clocks_count_work,
    clock_checks,
    clock_resolution,
    cpu_clock_of_another_process,
    gettimeofday_and_time,
    setting_clocks_is_eperm,
    many_short_sleeps,
]);

fn clocks_advance_and_agree() -> CaseResult {
    let clocks = [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME, libc::CLOCK_MONOTONIC_RAW];
    let mut before = [0; 4];
    for (slot, clock) in before.iter_mut().zip(clocks) {
        *slot = clock_ns(clock)?;
    }
    sys!(nanosleep(&timespec(10_000_000), std::ptr::null_mut()))?;
    for (before, clock) in before.iter().zip(clocks) {
        let passed = clock_ns(clock)? - before;
        check!((9_900_000..2_000_000_000).contains(&passed), "clock {clock}: {passed} ns in 10 ms");
    }
    // After 2020, and up for some time.
    check!(before[1] > 1_577_836_800_000_000_000);
    check!(before[2] >= before[0] && before[0] > 0);
    Ok(())
}

fn clock_by_vdso_and_by_syscall_agree() -> CaseResult {
    for clock in [
        libc::CLOCK_REALTIME,
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_REALTIME_COARSE,
        libc::CLOCK_MONOTONIC_COARSE,
        libc::CLOCK_BOOTTIME,
    ] {
        let by_call = || -> CaseResult<i64> {
            let mut ts = timespec(0);
            raw!(SYS_clock_gettime(clock, &raw mut ts))?;
            Ok(nanoseconds(ts))
        };
        let (a, b, c) = (by_call()?, clock_ns(clock)?, by_call()?);
        check!(a <= b && b <= c, "clock {clock}: {a}, {b}, {c}");
    }
    Ok(())
}

fn monotonic_never_goes_back() -> CaseResult {
    let mut last = 0;
    for _ in 0..100_000 {
        let now = clock_ns(libc::CLOCK_MONOTONIC)?;
        check!(now >= last);
        last = now;
    }
    Ok(())
}

fn monotonic_never_goes_back_between_threads() -> CaseResult {
    static LAST: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                (0..20_000).all(|_| {
                    let seen = LAST.load(Ordering::SeqCst);
                    let now = clock_ns(libc::CLOCK_MONOTONIC).unwrap_or(0);
                    LAST.fetch_max(now, Ordering::SeqCst);
                    now >= seen
                })
            })
        })
        .collect();
    for thread in threads {
        check!(thread.join().map_err(|_| "panic")?);
    }
    Ok(())
}

fn cpu_clocks_count_work() -> CaseResult {
    for clock in [libc::CLOCK_PROCESS_CPUTIME_ID, libc::CLOCK_THREAD_CPUTIME_ID] {
        let before = clock_ns(clock)?;
        let deadline = clock_ns(libc::CLOCK_MONOTONIC)? + 5_000_000_000;
        while clock_ns(clock)? < before + 5_000_000 {
            check!(clock_ns(libc::CLOCK_MONOTONIC)? < deadline, "clock {clock} stands still");
        }
        // Asleep, it hardly moves.
        let before = clock_ns(clock)?;
        sys!(nanosleep(&timespec(30_000_000), std::ptr::null_mut()))?;
        let moved = clock_ns(clock)? - before;
        check!(moved < 25_000_000, "clock {clock} moved by {moved} ns in a sleep");
    }
    Ok(())
}

fn clock_checks() -> CaseResult {
    expect_errno!(clock_ns(99), libc::EINVAL);
    expect_errno!(raw!(SYS_clock_gettime(libc::CLOCK_MONOTONIC, 8)), libc::EFAULT);
    expect_errno!(raw!(SYS_clock_getres(99, 0)), libc::EINVAL);
    Ok(())
}

fn clock_resolution() -> CaseResult {
    let mut resolution = timespec(0);
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_PROCESS_CPUTIME_ID] {
        raw!(SYS_clock_getres(clock, &raw mut resolution))?;
        check_eq!(nanoseconds(resolution), 1);
    }
    raw!(SYS_clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution))?;
    check!((1_000_000..=10_000_000).contains(&nanoseconds(resolution)));
    raw!(SYS_clock_getres(libc::CLOCK_MONOTONIC, 0))?;
    Ok(())
}

fn cpu_clock_of_another_process() -> CaseResult {
    let child = fork_child(|| sys!(pause()).map_or(1, |_| 0))?;
    let mut clock = 0i32;
    check_eq!(sys!(clock_getcpuclockid(child, &mut clock))?, 0);
    check!(clock_ns(clock)? < 5_000_000_000);
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    expect_errno!(clock_ns(clock), libc::EINVAL);
    Ok(())
}

fn gettimeofday_and_time() -> CaseResult {
    let mut tv: libc::timeval = zeroed();
    sys!(gettimeofday(&mut tv, std::ptr::null_mut()))?;
    let now = clock_ns(libc::CLOCK_REALTIME)? / 1_000_000_000;
    check!((now - 1..=now).contains(&tv.tv_sec) && (0..1_000_000).contains(&tv.tv_usec));
    let mut stored = 0i64;
    let seconds = raw!(SYS_time(&raw mut stored))?;
    check_eq!(seconds, stored);
    check!((now - 1..=now + 1).contains(&seconds));
    raw!(SYS_gettimeofday(&raw mut tv, 0))?;
    Ok(())
}

fn setting_clocks_is_eperm() -> CaseResult {
    crate::child::in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        let now = timespec(clock_ns(libc::CLOCK_REALTIME)? as u64);
        expect_errno!(raw!(SYS_clock_settime(libc::CLOCK_REALTIME, &raw const now)), libc::EPERM);
        expect_errno!(raw!(SYS_clock_settime(libc::CLOCK_MONOTONIC, &raw const now)), libc::EINVAL);
        Ok(())
    })
}

fn many_short_sleeps() -> CaseResult {
    let threads: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(|| (0..20).all(|_| sys!(usleep(200)).is_ok())))
        .collect();
    for thread in threads {
        check!(thread.join().map_err(|_| "panic")?);
    }
    Ok(())
}
