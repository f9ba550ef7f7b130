//! nanosleep(2), clock_nanosleep(2), setitimer(2), timer_create(2), alarm(2), clock_gettime(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::signal::{CODE, VALUE, block, count_signal, counted, record_signal, set_of};
use crate::sys::{SysError, raw, sys, zeroed};
use crate::util::{clock_ns, me, nanoseconds, timespec};
use std::sync::atomic::Ordering;

topic!(timers: [
    nanosleep_sleeps,
    nanosleep_checks,
    clock_nanosleep_absolute,
    clock_nanosleep_checks,
    clock_nanosleep_absolute_is_restarted_by_nobody,
    alarm_rings_and_reports_what_was_left,
    itimer_real_repeats,
    itimer_reports_and_disarms,
    itimer_virtual_and_prof_count_cpu_time,
    itimer_checks,
    timer_signals_with_its_value,
    timer_overrun_counts,
    timer_absolute_and_gettime,
    timer_notify_none_and_thread_id,
    timer_checks,
    timers_are_not_inherited,
]);

const NONE: *mut libc::itimerval = std::ptr::null_mut();

fn itimer(value_us: i64, interval_us: i64) -> libc::itimerval {
    let time = |us: i64| libc::timeval { tv_sec: us / 1_000_000, tv_usec: us % 1_000_000 };
    libc::itimerval { it_interval: time(interval_us), it_value: time(value_us) }
}

fn nanosleep_sleeps() -> CaseResult {
    for ns in [0, 1, 1_000_000, 5_000_000] {
        let start = clock_ns(libc::CLOCK_MONOTONIC)?;
        sys!(nanosleep(&timespec(ns), std::ptr::null_mut()))?;
        let took = clock_ns(libc::CLOCK_MONOTONIC)? - start;
        check!(took >= ns as i64 && took < 2_000_000_000, "slept {took} ns instead of {ns}");
    }
    Ok(())
}

fn nanosleep_checks() -> CaseResult {
    for (sec, nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
        let bad = libc::timespec { tv_sec: sec, tv_nsec: nsec };
        expect_errno!(sys!(nanosleep(&bad, std::ptr::null_mut())), libc::EINVAL);
    }
    expect_errno!(raw!(SYS_nanosleep(8, 0)), libc::EFAULT);
    Ok(())
}

fn clock_nanosleep_absolute() -> CaseResult {
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME] {
        let until = clock_ns(clock)? + 3_000_000;
        raw!(SYS_clock_nanosleep(clock, libc::TIMER_ABSTIME, std::ptr::from_ref(&timespec(until as u64)), 0))?;
        check!(clock_ns(clock)? >= until);
        raw!(SYS_clock_nanosleep(clock, libc::TIMER_ABSTIME, std::ptr::from_ref(&timespec(1)), 0))?;
    }
    Ok(())
}

fn clock_nanosleep_checks() -> CaseResult {
    let short = timespec(1);
    expect_errno!(raw!(SYS_clock_nanosleep(99, 0, &raw const short, 0)), libc::EINVAL);
    let thread = libc::CLOCK_THREAD_CPUTIME_ID;
    expect_errno!(raw!(SYS_clock_nanosleep(thread, 0, &raw const short, 0)), libc::EOPNOTSUPP);
    let bad = libc::timespec { tv_sec: 0, tv_nsec: -1 };
    expect_errno!(raw!(SYS_clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const bad, 0)), libc::EINVAL);
    Ok(())
}

fn clock_nanosleep_absolute_is_restarted_by_nobody() -> CaseResult {
    count_signal(libc::SIGALRM, libc::SA_RESTART)?;
    sys!(setitimer(libc::ITIMER_REAL, &itimer(3000, 0), NONE))?;
    let far = timespec(clock_ns(libc::CLOCK_MONOTONIC)? as u64 + 100_000_000_000);
    let mut left = timespec(77);
    let absolute = libc::TIMER_ABSTIME;
    let call = raw!(SYS_clock_nanosleep(libc::CLOCK_MONOTONIC, absolute, &raw const far, &raw mut left));
    expect_errno!(call, libc::EINTR);
    // What is left is not told, since the end is known.
    check_eq!((counted(), nanoseconds(left)), (1, 77));
    Ok(())
}

fn alarm_rings_and_reports_what_was_left() -> CaseResult {
    check_eq!(sys!(alarm(100))?, 0);
    let left = sys!(alarm(50))?;
    check!(left == 100 || left == 99);
    let mut now: libc::itimerval = zeroed();
    sys!(getitimer(libc::ITIMER_REAL, &mut now))?;
    check!(matches!(now.it_value.tv_sec, 49 | 50));
    check!(matches!(sys!(alarm(0))?, 49 | 50));
    check_eq!(sys!(alarm(0))?, 0);
    Ok(())
}

fn itimer_real_repeats() -> CaseResult {
    count_signal(libc::SIGALRM, 0)?;
    sys!(setitimer(libc::ITIMER_REAL, &itimer(2000, 2000), NONE))?;
    let long = timespec(10_000_000_000);
    while counted() < 3 {
        expect_errno!(sys!(nanosleep(&long, std::ptr::null_mut())), libc::EINTR);
    }
    sys!(setitimer(libc::ITIMER_REAL, &itimer(0, 0), NONE))?;
    Ok(())
}

fn itimer_reports_and_disarms() -> CaseResult {
    sys!(setitimer(libc::ITIMER_REAL, &itimer(50_000_000, 7_000_000), NONE))?;
    let mut old: libc::itimerval = zeroed();
    sys!(setitimer(libc::ITIMER_REAL, &itimer(0, 5), &mut old))?;
    check!(matches!(old.it_value.tv_sec, 49 | 50) && old.it_interval.tv_sec == 7);
    sys!(getitimer(libc::ITIMER_REAL, &mut old))?;
    check_eq!((old.it_value.tv_sec, old.it_value.tv_usec), (0, 0));
    Ok(())
}

fn itimer_virtual_and_prof_count_cpu_time() -> CaseResult {
    for (which, signal) in [(libc::ITIMER_VIRTUAL, libc::SIGVTALRM), (libc::ITIMER_PROF, libc::SIGPROF)] {
        count_signal(signal, 0)?;
        let before = counted();
        sys!(setitimer(which, &itimer(5000, 0), NONE))?;
        let deadline = clock_ns(libc::CLOCK_MONOTONIC)? + 5_000_000_000;
        while counted() == before {
            check!(clock_ns(libc::CLOCK_MONOTONIC)? < deadline, "signal {signal} does not come");
        }
    }
    Ok(())
}

fn itimer_checks() -> CaseResult {
    expect_errno!(raw!(SYS_setitimer(9, std::ptr::from_ref(&itimer(0, 0)), 0)), libc::EINVAL);
    expect_errno!(raw!(SYS_getitimer(9, 0)), libc::EINVAL);
    let mut bad = itimer(0, 0);
    bad.it_value.tv_usec = 1_000_000;
    expect_errno!(sys!(setitimer(libc::ITIMER_REAL, &bad, NONE)), libc::EINVAL);
    expect_errno!(raw!(SYS_getitimer(libc::ITIMER_REAL, 8)), libc::EFAULT);
    Ok(())
}

fn timer_create(clock: i32, notify: i32, signal: i32, value: usize) -> Result<i32, SysError> {
    let mut event: libc::sigevent = zeroed();
    event.sigev_notify = notify;
    event.sigev_signo = signal;
    event.sigev_value.sival_ptr = value as *mut libc::c_void;
    event.sigev_notify_thread_id = me();
    let mut id = -1i32;
    raw!(SYS_timer_create(clock, &raw const event, &raw mut id))?;
    Ok(id)
}

fn timer_set(id: i32, flags: i32, value_ns: u64, interval_ns: u64) -> Result<libc::itimerspec, SysError> {
    let new = libc::itimerspec { it_interval: timespec(interval_ns), it_value: timespec(value_ns) };
    let mut old: libc::itimerspec = zeroed();
    raw!(SYS_timer_settime(id, flags, &raw const new, &raw mut old))?;
    Ok(old)
}

fn wait_signal(signal: i32) -> Result<libc::siginfo_t, SysError> {
    let mut info: libc::siginfo_t = zeroed();
    sys!(sigwaitinfo(&set_of(&[signal]), &mut info))?;
    Ok(info)
}

fn timer_signals_with_its_value() -> CaseResult {
    record_signal(libc::SIGUSR1)?;
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_SIGNAL, libc::SIGUSR1, 0xabcdef)?;
    timer_set(id, 0, 2_000_000, 0)?;
    let long = timespec(10_000_000_000);
    expect_errno!(sys!(nanosleep(&long, std::ptr::null_mut())), libc::EINTR);
    check_eq!((counted(), CODE.load(Ordering::SeqCst)), (1, libc::SI_TIMER));
    check_eq!(VALUE.load(Ordering::SeqCst), 0xabcdef);
    raw!(SYS_timer_delete(id))?;
    expect_errno!(raw!(SYS_timer_delete(id)), libc::EINVAL);
    Ok(())
}

fn timer_overrun_counts() -> CaseResult {
    block(&[libc::SIGUSR1])?;
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_SIGNAL, libc::SIGUSR1, 0)?;
    timer_set(id, 0, 1_000_000, 1_000_000)?;
    let until = clock_ns(libc::CLOCK_MONOTONIC)? + 8_000_000;
    while clock_ns(libc::CLOCK_MONOTONIC)? < until {}
    wait_signal(libc::SIGUSR1)?;
    let overrun = raw!(SYS_timer_getoverrun(id))?;
    check!(overrun >= 5, "{overrun} overruns in 8 periods");
    Ok(())
}

fn timer_absolute_and_gettime() -> CaseResult {
    block(&[libc::SIGUSR1])?;
    let id = timer_create(libc::CLOCK_REALTIME, libc::SIGEV_SIGNAL, libc::SIGUSR1, 0)?;
    timer_set(id, libc::TIMER_ABSTIME, 1, 0)?;
    wait_signal(libc::SIGUSR1)?;
    timer_set(id, 0, 100_000_000_000, 9_000_000_000)?;
    let mut now: libc::itimerspec = zeroed();
    raw!(SYS_timer_gettime(id, &raw mut now))?;
    check!(matches!(now.it_value.tv_sec, 99 | 100) && now.it_interval.tv_sec == 9);
    let old = timer_set(id, 0, 0, 0)?;
    check!(matches!(old.it_value.tv_sec, 99 | 100));
    raw!(SYS_timer_gettime(id, &raw mut now))?;
    check_eq!(nanoseconds(now.it_value), 0);
    Ok(())
}

fn timer_notify_none_and_thread_id() -> CaseResult {
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_NONE, 0, 0)?;
    timer_set(id, 0, 1, 0)?;
    block(&[40])?;
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_THREAD_ID | libc::SIGEV_SIGNAL, 40, 3)?;
    timer_set(id, 0, 1_000_000, 0)?;
    let info = wait_signal(40)?;
    check_eq!(info.si_code, libc::SI_TIMER);
    Ok(())
}

fn timer_checks() -> CaseResult {
    expect_errno!(timer_create(99, libc::SIGEV_SIGNAL, libc::SIGUSR1, 0), libc::EINVAL);
    expect_errno!(timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_SIGNAL, 65, 0), libc::EINVAL);
    expect_errno!(timer_create(libc::CLOCK_MONOTONIC, 77, libc::SIGUSR1, 0), libc::EINVAL);
    expect_errno!(timer_set(9999, 0, 1, 0), libc::EINVAL);
    expect_errno!(raw!(SYS_timer_getoverrun(9999)), libc::EINVAL);
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_SIGNAL, libc::SIGUSR1, 0)?;
    let bad = libc::itimerspec {
        it_interval: timespec(0),
        it_value: libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 },
    };
    expect_errno!(raw!(SYS_timer_settime(id, 0, &raw const bad, 0)), libc::EINVAL);
    // Without an event: SIGALRM.
    let mut id = -1i32;
    raw!(SYS_timer_create(libc::CLOCK_MONOTONIC, 0, &raw mut id))?;
    block(&[libc::SIGALRM])?;
    timer_set(id, 0, 1, 0)?;
    check_eq!(wait_signal(libc::SIGALRM)?.si_code, libc::SI_TIMER);
    Ok(())
}

fn timers_are_not_inherited() -> CaseResult {
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_SIGNAL, libc::SIGUSR1, 0)?;
    sys!(alarm(100))?;
    let child = fork_child(|| {
        let timer = timer_set(id, 0, 0, 0).map(drop).map_err(|error| error.errno);
        i32::from(timer != Err(libc::EINVAL) || sys!(alarm(0)) != Ok(0))
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}
