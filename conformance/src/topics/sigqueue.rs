//! Queues of pending signals: sigqueue(3), rt_sigtimedwait(2), order, threads; kill(2) of groups.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, wait_for};
use crate::memory::{post, shared_words, wait_for_word};
use crate::signal::{
    CODE, SENDER, VALUE, block, count_signal, counted, holds, pending, record_signal, set_action, set_of, unblock,
};
use crate::sys::{SysError, monotonic_ns, raw, sys, zeroed};
use crate::util::{me, timespec};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

topic!(sigqueue: [
    realtime_signals_come_lowest_first,
    standard_come_before_realtime,
    timedwait_times_out_with_eagain,
    timedwait_of_zero_polls,
    timedwait_takes_only_its_set,
    timedwait_interrupted_by_another_is_eintr,
    timedwait_checks_arguments,
    thread_directed_before_process_directed,
    kill_of_group_reaches_each,
    kill_minus_one_spares_the_caller,
    kill_of_other_user_is_eperm,
    sigchld_tells_how_the_child_ended,
    sigchld_once_a_child_with_nocldwait,
    limit_of_queued_signals_is_eagain,
    stop_and_cont_cancel_each_other,
    pending_shows_both_thread_and_process,
    process_signal_goes_to_a_thread_that_takes_it,
]);

fn timed_wait(signals: &[i32], timeout_ns: Option<u64>) -> Result<(i64, libc::siginfo_t), SysError> {
    let set = set_of(signals);
    let mut info: libc::siginfo_t = zeroed();
    let timeout = timeout_ns.map(timespec);
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let signal = raw!(SYS_rt_sigtimedwait(&raw const set, &raw mut info, timeout, 8))?;
    Ok((signal, info))
}

static ORDER: [AtomicI32; 8] = [const { AtomicI32::new(0) }; 8];
static NEXT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(signal: i32) {
    if let Some(slot) = ORDER.get(NEXT.fetch_add(1, Ordering::SeqCst)) {
        slot.store(signal, Ordering::SeqCst);
    }
}

fn realtime_signals_come_lowest_first() -> CaseResult {
    let signals = [40, 36, 44, 36];
    block(&signals)?;
    for signal in signals {
        sys!(kill(me(), signal))?;
    }
    for signal in [36, 36, 40, 44] {
        check_eq!(timed_wait(&signals, Some(0))?.0, signal);
    }
    Ok(())
}

fn standard_come_before_realtime() -> CaseResult {
    let signals = [libc::SIGUSR2, libc::SIGUSR1, libc::SIGHUP, 50];
    block(&signals)?;
    for signal in [50, libc::SIGUSR2, libc::SIGHUP, libc::SIGUSR1] {
        sys!(kill(me(), signal))?;
    }
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, 50] {
        check_eq!(timed_wait(&signals, Some(0))?.0, i64::from(signal));
    }
    Ok(())
}

fn timedwait_times_out_with_eagain() -> CaseResult {
    block(&[libc::SIGUSR1])?;
    let start = monotonic_ns();
    expect_errno!(timed_wait(&[libc::SIGUSR1], Some(5_000_000)), libc::EAGAIN);
    check!(monotonic_ns() - start >= 5_000_000);
    Ok(())
}

fn timedwait_of_zero_polls() -> CaseResult {
    block(&[libc::SIGUSR1])?;
    expect_errno!(timed_wait(&[libc::SIGUSR1], Some(0)), libc::EAGAIN);
    sys!(kill(me(), libc::SIGUSR1))?;
    let (signal, info) = timed_wait(&[libc::SIGUSR1], Some(0))?;
    check_eq!((signal as i32, info.si_signo, info.si_code), (libc::SIGUSR1, libc::SIGUSR1, libc::SI_USER));
    expect_errno!(timed_wait(&[libc::SIGUSR1], Some(0)), libc::EAGAIN);
    Ok(())
}

fn timedwait_takes_only_its_set() -> CaseResult {
    block(&[libc::SIGUSR1, libc::SIGUSR2])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    sys!(kill(me(), libc::SIGUSR2))?;
    check_eq!(timed_wait(&[libc::SIGUSR2], None)?.0, i64::from(libc::SIGUSR2));
    check!(holds(&pending()?, libc::SIGUSR1) && !holds(&pending()?, libc::SIGUSR2));
    Ok(())
}

fn timedwait_interrupted_by_another_is_eintr() -> CaseResult {
    block(&[libc::SIGUSR1])?;
    count_signal(libc::SIGALRM, libc::SA_RESTART)?;
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 5000 },
    };
    sys!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()))?;
    expect_errno!(timed_wait(&[libc::SIGUSR1], Some(10_000_000_000)), libc::EINTR);
    check_eq!(counted(), 1);
    Ok(())
}

fn timedwait_checks_arguments() -> CaseResult {
    let set = set_of(&[libc::SIGUSR1]);
    let bad = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    expect_errno!(raw!(SYS_rt_sigtimedwait(&raw const set, 0, &raw const bad, 8)), libc::EINVAL);
    expect_errno!(raw!(SYS_rt_sigtimedwait(&raw const set, 0, 0, 16)), libc::EINVAL);
    expect_errno!(raw!(SYS_rt_sigtimedwait(8, 0, 0, 8)), libc::EFAULT);
    expect_errno!(raw!(SYS_rt_sigtimedwait(&raw const set, 0, 8, 8)), libc::EFAULT);
    Ok(())
}

fn thread_directed_before_process_directed() -> CaseResult {
    block(&[libc::SIGUSR1, 40])?;
    sys!(sigqueue(me(), 40, libc::sigval { sival_ptr: 16 as *mut libc::c_void }))?;
    raw!(SYS_tgkill(me(), me(), 40))?;
    check_eq!(timed_wait(&[40], Some(0))?.1.si_code, -6);
    check_eq!(timed_wait(&[40], Some(0))?.1.si_code, libc::SI_QUEUE);
    Ok(())
}

fn kill_of_group_reaches_each() -> CaseResult {
    let child = || fork_child(|| sys!(pause()).map_or(1, |_| 0));
    let leader = child()?;
    sys!(setpgid(leader, leader))?;
    let member = child()?;
    sys!(setpgid(member, leader))?;
    let stranger = child()?;
    sys!(kill(-leader, libc::SIGTERM))?;
    check_eq!(wait_for(leader)?, Ended::Killed(libc::SIGTERM));
    check_eq!(wait_for(member)?, Ended::Killed(libc::SIGTERM));
    sys!(kill(stranger, libc::SIGINT))?;
    check_eq!(wait_for(stranger)?, Ended::Killed(libc::SIGINT));
    expect_errno!(sys!(kill(-leader, libc::SIGTERM)), libc::ESRCH);
    Ok(())
}

fn kill_minus_one_spares_the_caller() -> CaseResult {
    // Reaches only what the caller may signal, here processes of its own user.
    in_child(|| {
        sys!(setresuid(54_321, 54_321, 54_321))?;
        count_signal(libc::SIGUSR1, 0)?;
        let words = shared_words()?;
        let child = fork_child(|| {
            let _ = set_action(libc::SIGUSR1, libc::SIG_DFL, 0, &[]);
            post(&words[0]);
            sys!(pause()).map_or(1, |_| 0)
        })?;
        wait_for_word(&words[0], 1);
        sys!(kill(-1, libc::SIGUSR1))?;
        check_eq!(wait_for(child)?, Ended::Killed(libc::SIGUSR1));
        check_eq!(counted(), 0);
        // Processes that it may not signal do not make it fail.
        sys!(kill(-1, libc::SIGUSR1))?;
        check_eq!(counted(), 0);
        Ok(())
    })
}

fn kill_of_other_user_is_eperm() -> CaseResult {
    let child = fork_child(|| sys!(pause()).map_or(1, |_| 0))?;
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(sys!(kill(child, libc::SIGTERM)), libc::EPERM);
        expect_errno!(sys!(kill(child, 0)), libc::EPERM);
        expect_errno!(sys!(kill(child, 65)), libc::EINVAL);
        Ok(())
    })?;
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    Ok(())
}

fn sigchld_tells_how_the_child_ended() -> CaseResult {
    block(&[libc::SIGCHLD])?;
    let child = fork_child(|| 7)?;
    let (_, info) = timed_wait(&[libc::SIGCHLD], None)?;
    check_eq!(info.si_code, libc::CLD_EXITED);
    // SAFETY: a SIGCHLD fills in both.
    check_eq!(unsafe { (info.si_pid(), info.si_status()) }, (child, 7));
    wait_for(child)?;
    let child = fork_child(|| sys!(pause()).map_or(1, |_| 0))?;
    sys!(kill(child, libc::SIGKILL))?;
    let (_, info) = timed_wait(&[libc::SIGCHLD], None)?;
    check_eq!(info.si_code, libc::CLD_KILLED);
    // SAFETY: as above.
    check_eq!(unsafe { (info.si_pid(), info.si_status()) }, (child, libc::SIGKILL));
    wait_for(child)?;
    Ok(())
}

fn sigchld_once_a_child_with_nocldwait() -> CaseResult {
    record_signal(libc::SIGCHLD)?;
    let child = fork_child(|| 3)?;
    wait_for(child)?;
    check_eq!(counted(), 1);
    check_eq!((CODE.load(Ordering::SeqCst), SENDER.load(Ordering::SeqCst)), (libc::CLD_EXITED, child));
    count_signal(libc::SIGCHLD, libc::SA_NOCLDWAIT)?;
    let child = fork_child(|| 3)?;
    // The child leaves no zombie: the wait ends when it is gone.
    expect_errno!(wait_for(child), libc::ECHILD);
    set_action(libc::SIGCHLD, libc::SIG_IGN, 0, &[])?;
    let child = fork_child(|| 3)?;
    expect_errno!(wait_for(child), libc::ECHILD);
    check!(VALUE.load(Ordering::SeqCst) != usize::MAX);
    Ok(())
}

fn limit_of_queued_signals_is_eagain() -> CaseResult {
    in_child(|| {
        sys!(setresuid(54_322, 54_322, 54_322))?;
        block(&[40, libc::SIGUSR1])?;
        let limit = libc::rlimit { rlim_cur: 3, rlim_max: 3 };
        sys!(setrlimit(libc::RLIMIT_SIGPENDING, &limit))?;
        let queue = || sys!(sigqueue(me(), 40, libc::sigval { sival_ptr: std::ptr::null_mut() }));
        for _ in 0..3 {
            queue()?;
        }
        expect_errno!(queue(), libc::EAGAIN);
        // kill(2) never fails for it.
        sys!(kill(me(), libc::SIGUSR1))?;
        check!(holds(&pending()?, libc::SIGUSR1));
        Ok(())
    })
}

fn stop_and_cont_cancel_each_other() -> CaseResult {
    block(&[libc::SIGTSTP, libc::SIGCONT])?;
    sys!(kill(me(), libc::SIGTSTP))?;
    check!(holds(&pending()?, libc::SIGTSTP));
    sys!(kill(me(), libc::SIGCONT))?;
    check!(!holds(&pending()?, libc::SIGTSTP), "SIGCONT leaves SIGTSTP pending");
    check!(holds(&pending()?, libc::SIGCONT));
    sys!(kill(me(), libc::SIGTSTP))?;
    check!(!holds(&pending()?, libc::SIGCONT), "SIGTSTP leaves SIGCONT pending");
    sys!(kill(me(), libc::SIGCONT))?;
    Ok(())
}

fn pending_shows_both_thread_and_process() -> CaseResult {
    block(&[libc::SIGUSR1, libc::SIGUSR2])?;
    raw!(SYS_tgkill(me(), me(), libc::SIGUSR1))?;
    sys!(kill(me(), libc::SIGUSR2))?;
    let seen = std::thread::spawn(pending).join().map_err(|_| "the thread panicked")??;
    check!(!holds(&seen, libc::SIGUSR1), "a signal of one thread is pending for another");
    check!(holds(&seen, libc::SIGUSR2));
    check!(holds(&pending()?, libc::SIGUSR1) && holds(&pending()?, libc::SIGUSR2));
    Ok(())
}

fn process_signal_goes_to_a_thread_that_takes_it() -> CaseResult {
    set_action(libc::SIGUSR1, note as *const () as usize, 0, &[])?;
    block(&[libc::SIGUSR1])?;
    let words = shared_words()?;
    let thread = std::thread::spawn(move || {
        let outcome = unblock(&[libc::SIGUSR1]);
        post(&words[0]);
        // The handler runs here, in any system call or between two instructions.
        while NEXT.load(Ordering::SeqCst) == 0 {
            let _ = sys!(sched_yield());
        }
        outcome
    });
    wait_for_word(&words[0], 1);
    sys!(kill(me(), libc::SIGUSR1))?;
    thread.join().map_err(|_| "the thread panicked")??;
    check_eq!(ORDER[0].load(Ordering::SeqCst), libc::SIGUSR1);
    check!(!holds(&pending()?, libc::SIGUSR1));
    Ok(())
}
