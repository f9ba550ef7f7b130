//! wait4(2), waitid(2), exit(2), orphans, subreapers, stopped and continued children.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, wait_for, wait_options};
use crate::memory::{post, shared_words, wait_for_word};
use crate::signal::{count_signal, counted};
use crate::sys::{SysError, pipe, raw, sys, zeroed};
use crate::util::{me, read_some};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

topic!(waits: [
    any_child_is_found,
    group_is_waited_for,
    exit_code_is_the_low_byte,
    waitid_tells_in_siginfo,
    waitid_nowait_leaves_the_zombie,
    waitid_checks,
    wait4_checks,
    stopped_child_is_reported_once,
    continued_child_is_reported_once,
    stop_and_continue_tell_the_parent_by_sigchld,
    nocldstop_keeps_quiet,
    killed_while_stopped,
    sigcont_continues_even_when_ignored,
    zombie_stays_until_waited_for,
    orphan_goes_to_the_subreaper,
    subreaper_flag_is_not_inherited,
    parent_death_signal,
    rusage_of_children,
    children_of_another_thread,
    nothread_waits_for_own_children_only,
    times_of_a_waited_child,
    exit_flushes_nothing_but_closes,
    nested_forks,
    hundred_children,
]);

fn pausing() -> Result<i32, SysError> {
    fork_child(|| {
        loop {
            let _ = sys!(pause());
        }
    })
}

fn waitid(kind: libc::idtype_t, id: i32, options: i32) -> Result<libc::siginfo_t, SysError> {
    let mut info: libc::siginfo_t = zeroed();
    sys!(waitid(kind, id as u32, &mut info, options))?;
    Ok(info)
}

/// (code, pid, status) of a SIGCHLD.
fn facts(info: &libc::siginfo_t) -> (i32, i32, i32) {
    // SAFETY: waitid(2) fills them in.
    unsafe { (info.si_code, info.si_pid(), info.si_status()) }
}

fn any_child_is_found() -> CaseResult {
    let mut children = vec![fork_child(|| 0)?, fork_child(|| 0)?, fork_child(|| 0)?];
    for _ in 0..3 {
        let (pid, ended) = wait_options(-1, 0)?;
        check_eq!(ended, Ended::Exited(0));
        check!(children.contains(&pid));
        children.retain(|child| *child != pid);
    }
    expect_errno!(wait_options(-1, 0), libc::ECHILD);
    Ok(())
}

fn group_is_waited_for() -> CaseResult {
    let own = fork_child(|| 1)?;
    let (reader, writer) = pipe(0)?;
    let other = fork_child(|| {
        let _ = read_some(reader.as_raw_fd(), 1);
        2
    })?;
    sys!(setpgid(other, other))?;
    crate::sys::write(writer.as_raw_fd(), b"x")?;
    check_eq!(wait_options(-other, 0)?, (other, Ended::Exited(2)));
    expect_errno!(wait_options(-other, 0), libc::ECHILD);
    check_eq!(wait_options(0, 0)?, (own, Ended::Exited(1)));
    Ok(())
}

fn exit_code_is_the_low_byte() -> CaseResult {
    for (code, seen) in [(256, 0), (257, 1), (-1, 255), (0x1234, 0x34)] {
        let child = fork_child(|| code)?;
        check_eq!(wait_for(child)?, Ended::Exited(seen));
    }
    Ok(())
}

fn waitid_tells_in_siginfo() -> CaseResult {
    let child = fork_child(|| 300)?;
    let info = waitid(libc::P_PID, child, libc::WEXITED)?;
    // Here, too, only the low byte.
    check_eq!(facts(&info), (libc::CLD_EXITED, child, 44));
    check_eq!(info.si_signo, libc::SIGCHLD);
    let child = pausing()?;
    let nothing = waitid(libc::P_PID, child, libc::WEXITED | libc::WNOHANG)?;
    // SAFETY: all zero when there is nothing.
    check_eq!((nothing.si_signo, unsafe { nothing.si_pid() }), (0, 0));
    sys!(kill(child, libc::SIGTERM))?;
    check_eq!(facts(&waitid(libc::P_ALL, 0, libc::WEXITED)?), (libc::CLD_KILLED, child, libc::SIGTERM));
    Ok(())
}

fn waitid_nowait_leaves_the_zombie() -> CaseResult {
    let child = fork_child(|| 5)?;
    for _ in 0..3 {
        let info = waitid(libc::P_PID, child, libc::WEXITED | libc::WNOWAIT)?;
        check_eq!(facts(&info), (libc::CLD_EXITED, child, 5));
    }
    check_eq!(wait_for(child)?, Ended::Exited(5));
    expect_errno!(waitid(libc::P_PID, child, libc::WEXITED), libc::ECHILD);
    Ok(())
}

fn waitid_checks() -> CaseResult {
    let child = pausing()?;
    expect_errno!(waitid(libc::P_PID, child, 0), libc::EINVAL);
    expect_errno!(waitid(libc::P_PID, child, libc::WNOHANG), libc::EINVAL);
    expect_errno!(waitid(libc::P_PID, child, libc::WEXITED | 0x100), libc::EINVAL);
    expect_errno!(waitid(77, child, libc::WEXITED), libc::EINVAL);
    expect_errno!(waitid(libc::P_PID, 0, libc::WEXITED), libc::EINVAL);
    expect_errno!(waitid(libc::P_PIDFD, -1, libc::WEXITED), libc::EINVAL);
    expect_errno!(waitid(libc::P_PIDFD, 999, libc::WEXITED), libc::EBADF);
    sys!(kill(child, libc::SIGKILL))?;
    // No place for the answer is no error.
    raw!(SYS_waitid(libc::P_PID, child, 0, libc::WEXITED, 0))?;
    Ok(())
}

fn wait4_checks() -> CaseResult {
    expect_errno!(raw!(SYS_wait4(-1, 0, 0x100, 0)), libc::EINVAL);
    expect_errno!(raw!(SYS_wait4(i32::MIN, 0, 0, 0)), libc::ESRCH);
    let child = fork_child(|| 0)?;
    expect_errno!(raw!(SYS_wait4(child, 8, 0, 0)), libc::EFAULT);
    // It has been reaped all the same.
    expect_errno!(wait_for(child), libc::ECHILD);
    Ok(())
}

fn stopped_child_is_reported_once() -> CaseResult {
    let child = pausing()?;
    for signal in [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        // The others stop only a process whose group is not orphaned: this one's parent is in another group and session's.
        sys!(kill(child, signal))?;
        check_eq!(wait_options(child, libc::WUNTRACED)?, (child, Ended::Stopped(signal)));
        check_eq!(wait_options(child, libc::WUNTRACED | libc::WNOHANG)?.0, 0);
        sys!(kill(child, libc::SIGCONT))?;
        check_eq!(wait_options(child, libc::WCONTINUED)?, (child, Ended::Continued));
    }
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    Ok(())
}

fn continued_child_is_reported_once() -> CaseResult {
    let child = pausing()?;
    sys!(kill(child, libc::SIGSTOP))?;
    check_eq!(facts(&waitid(libc::P_PID, child, libc::WSTOPPED)?), (libc::CLD_STOPPED, child, libc::SIGSTOP));
    sys!(kill(child, libc::SIGCONT))?;
    let options = libc::WCONTINUED | libc::WNOWAIT;
    check_eq!(facts(&waitid(libc::P_PID, child, options)?), (libc::CLD_CONTINUED, child, libc::SIGCONT));
    waitid(libc::P_PID, child, libc::WCONTINUED)?;
    check_eq!(facts(&waitid(libc::P_PID, child, libc::WCONTINUED | libc::WNOHANG)?).1, 0);
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    Ok(())
}

fn stop_and_continue_tell_the_parent_by_sigchld() -> CaseResult {
    crate::signal::block(&[libc::SIGCHLD])?;
    let set = crate::signal::set_of(&[libc::SIGCHLD]);
    let child = pausing()?;
    let mut info: libc::siginfo_t = zeroed();
    sys!(kill(child, libc::SIGSTOP))?;
    sys!(sigwaitinfo(&set, &mut info))?;
    check_eq!(facts(&info), (libc::CLD_STOPPED, child, libc::SIGSTOP));
    sys!(kill(child, libc::SIGCONT))?;
    sys!(sigwaitinfo(&set, &mut info))?;
    check_eq!(facts(&info), (libc::CLD_CONTINUED, child, libc::SIGCONT));
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    Ok(())
}

fn nocldstop_keeps_quiet() -> CaseResult {
    count_signal(libc::SIGCHLD, libc::SA_NOCLDSTOP | libc::SA_RESTART)?;
    let child = pausing()?;
    sys!(kill(child, libc::SIGSTOP))?;
    check_eq!(wait_options(child, libc::WUNTRACED)?.1, Ended::Stopped(libc::SIGSTOP));
    sys!(kill(child, libc::SIGCONT))?;
    check_eq!(wait_options(child, libc::WCONTINUED)?.1, Ended::Continued);
    check_eq!(counted(), 0);
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    check_eq!(counted(), 1);
    Ok(())
}

fn killed_while_stopped() -> CaseResult {
    let child = pausing()?;
    sys!(kill(child, libc::SIGSTOP))?;
    wait_options(child, libc::WUNTRACED)?;
    // Any other signal waits until it goes on; SIGKILL does not.
    sys!(kill(child, libc::SIGTERM))?;
    check_eq!(wait_options(child, libc::WNOHANG)?.0, 0);
    sys!(kill(child, libc::SIGKILL))?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
    Ok(())
}

fn sigcont_continues_even_when_ignored() -> CaseResult {
    let child = fork_child(|| {
        let _ = crate::signal::set_action(libc::SIGCONT, libc::SIG_IGN, 0, &[]);
        let _ = sys!(kill(me(), libc::SIGSTOP));
        6
    })?;
    check_eq!(wait_options(child, libc::WUNTRACED)?.1, Ended::Stopped(libc::SIGSTOP));
    sys!(kill(child, libc::SIGCONT))?;
    check_eq!(wait_for(child)?, Ended::Exited(6));
    Ok(())
}

fn zombie_stays_until_waited_for() -> CaseResult {
    let child = fork_child(|| 0)?;
    waitid(libc::P_PID, child, libc::WEXITED | libc::WNOWAIT)?;
    sys!(kill(child, 0))?;
    sys!(kill(child, libc::SIGKILL))?;
    let stat = std::fs::read_to_string(format!("/proc/{child}/stat"))?;
    check!(stat.contains(") Z "), "{stat}");
    check_eq!(wait_for(child)?, Ended::Exited(0));
    expect_errno!(sys!(kill(child, 0)), libc::ESRCH);
    Ok(())
}

fn orphan_goes_to_the_subreaper() -> CaseResult {
    raw!(SYS_prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
    let mut on = 0i32;
    raw!(SYS_prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut on))?;
    check_eq!(on, 1);
    let words = shared_words()?;
    let middle = fork_child(|| {
        let orphan = fork_child(|| {
            wait_for_word(&words[1], 1);
            words[2].store(sys!(getppid()).unwrap_or(0) as u32, Ordering::SeqCst);
            77
        });
        words[0].store(orphan.unwrap_or(0) as u32, Ordering::SeqCst);
        0
    })?;
    check_eq!(wait_for(middle)?, Ended::Exited(0));
    post(&words[1]);
    let orphan = words[0].load(Ordering::SeqCst) as i32;
    check_eq!(wait_for(orphan)?, Ended::Exited(77));
    check_eq!(words[2].load(Ordering::SeqCst), me() as u32);
    Ok(())
}

fn subreaper_flag_is_not_inherited() -> CaseResult {
    raw!(SYS_prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
    in_child(|| {
        let mut on = 5i32;
        raw!(SYS_prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut on))?;
        check_eq!(on, 0);
        Ok(())
    })
}

fn parent_death_signal() -> CaseResult {
    raw!(SYS_prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
    let words = shared_words()?;
    let middle = fork_child(|| {
        let child = fork_child(|| {
            let _ = raw!(SYS_prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1));
            post(&words[1]);
            loop {
                let _ = sys!(pause());
            }
        });
        words[0].store(child.unwrap_or(0) as u32, Ordering::SeqCst);
        wait_for_word(&words[1], 1);
        0
    })?;
    check_eq!(wait_for(middle)?, Ended::Exited(0));
    let child = words[0].load(Ordering::SeqCst) as i32;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGUSR1));
    expect_errno!(raw!(SYS_prctl(libc::PR_SET_PDEATHSIG, 65)), libc::EINVAL);
    Ok(())
}

fn rusage_of_children() -> CaseResult {
    let mut before: libc::rusage = zeroed();
    sys!(getrusage(libc::RUSAGE_CHILDREN, &mut before))?;
    let child = fork_child(|| {
        let mut now: libc::rusage = zeroed();
        // Until it has used some time, measured by itself.
        while now.ru_utime.tv_usec + now.ru_stime.tv_usec < 10_000 {
            let _ = sys!(getrusage(libc::RUSAGE_SELF, &mut now));
        }
        0
    })?;
    let (mut status, mut usage) = (0, zeroed::<libc::rusage>());
    sys!(wait4(child, &mut status, 0, &mut usage))?;
    let total = |u: &libc::rusage| {
        (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1_000_000 + u.ru_utime.tv_usec + u.ru_stime.tv_usec
    };
    check!(total(&usage) >= 10_000, "{} us", total(&usage));
    let mut after: libc::rusage = zeroed();
    sys!(getrusage(libc::RUSAGE_CHILDREN, &mut after))?;
    check!(total(&after) - total(&before) >= 10_000);
    expect_errno!(sys!(getrusage(99, &mut after)), libc::EINVAL);
    Ok(())
}

fn children_of_another_thread() -> CaseResult {
    let child = std::thread::spawn(|| fork_child(|| 8)).join().map_err(|_| "panic")??;
    check_eq!(wait_for(child)?, Ended::Exited(8));
    Ok(())
}

fn nothread_waits_for_own_children_only() -> CaseResult {
    let child = fork_child(|| 8)?;
    let outcome = std::thread::spawn(move || wait_options(child, libc::__WNOTHREAD)).join();
    expect_errno!(outcome.map_err(|_| "panic")?, libc::ECHILD);
    check_eq!(wait_options(child, libc::__WALL)?.1, Ended::Exited(8));
    Ok(())
}

fn times_of_a_waited_child() -> CaseResult {
    let mut times: libc::tms = zeroed();
    let ticks = sys!(times(&mut times))?;
    check!(ticks > 0);
    check_eq!((times.tms_cutime, times.tms_cstime), (0, 0));
    Ok(())
}

fn exit_flushes_nothing_but_closes() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let child = fork_child(|| 0)?;
    drop(writer);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(read_some(reader.as_raw_fd(), 1)?, b"");
    Ok(())
}

fn nested_forks() -> CaseResult {
    fn nest(depth: i32) -> i32 {
        if depth == 0 {
            return 1;
        }
        match fork_child(|| nest(depth - 1)).map(wait_for) {
            Ok(Ok(Ended::Exited(code))) => code + 1,
            _ => 200,
        }
    }
    check_eq!(nest(20), 21);
    Ok(())
}

fn hundred_children() -> CaseResult {
    let words = shared_words()?;
    for _ in 0..100 {
        fork_child(|| {
            wait_for_word(&words[0], 1);
            words[1].fetch_add(1, Ordering::SeqCst);
            0
        })?;
    }
    post(&words[0]);
    for _ in 0..100 {
        check_eq!(wait_for(-1)?, Ended::Exited(0));
    }
    check_eq!(words[1].load(Ordering::SeqCst), 100);
    Ok(())
}
