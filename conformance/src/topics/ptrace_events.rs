//! ptrace(2): what a tracer is told of new threads and programs, and of ends.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno, fail};
use crate::child::{Ended, exec_helper, fork_child, wait_for};
use crate::memory::{post, shared_words, wait_for_word};
use crate::sys::{raw, sys};
use crate::tracer::{EVENT_STOP, event, go, message, next, ptrace, registers, stop, traced, traced_with, wait_status};
use crate::util::me;
use std::sync::atomic::Ordering;

topic!(ptrace_events: [
    fork_is_told_and_followed,
    vfork_is_told_twice,
    a_thread_is_told_and_followed,
    untraced_children_are_not_followed,
    clone_ptrace_follows_without_an_event,
    children_of_seized_threads_stop_by_an_event,
    execve_is_told,
    execve_without_the_option_is_sigtrap,
    execve_of_a_seized_thread_is_silent,
    execve_by_a_thread_takes_over_the_id,
    exit_is_told_before_it_happens,
    a_dying_process_hears_no_sigkill,
    threads_are_waited_for_before_their_leader,
    a_thread_waits_for_its_tracees_only,
]);

/// Forks by the system call itself, as the C library's function does more.
fn bare_fork(flags: i32) -> i64 {
    raw!(SYS_clone(flags | libc::SIGCHLD, 0, 0, 0, 0)).unwrap_or(-1)
}

fn leave(code: i32) -> ! {
    // SAFETY: ends this process at once.
    unsafe { libc::_exit(code) }
}

/// A child whose child exits with 5, and which exits with that.
fn forks(flags: i32) -> i32 {
    match bare_fork(flags) {
        0 => leave(5),
        child => match wait_for(child as i32) {
            Ok(Ended::Exited(code)) => code,
            _ => 100,
        },
    }
}

fn fork_is_told_and_followed() -> CaseResult {
    let child = traced_with(libc::PTRACE_O_TRACEFORK, || forks(0))?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, event(libc::PTRACE_EVENT_FORK));
    let grandchild = message(child)? as i32;
    check_eq!(stop(grandchild)?, libc::SIGSTOP);
    check_eq!(registers(grandchild)?.rax, 0);
    // It has the same options.
    go(libc::PTRACE_CONT, grandchild, 0)?;
    check_eq!(wait_status(grandchild, 0)?, (grandchild, 5 << 8));
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGCHLD);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(5));
    Ok(())
}

fn vfork_is_told_twice() -> CaseResult {
    let options = libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACEVFORKDONE;
    let child = traced_with(options, || forks(libc::CLONE_VFORK))?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, event(libc::PTRACE_EVENT_VFORK));
    let grandchild = message(child)? as i32;
    check_eq!(stop(grandchild)?, libc::SIGSTOP);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_status(child, libc::WNOHANG)?.0, 0);
    go(libc::PTRACE_DETACH, grandchild, 0)?;
    check_eq!(stop(child)?, event(libc::PTRACE_EVENT_VFORK_DONE));
    check_eq!(message(child)?, grandchild as u64);
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGCHLD);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(5));
    Ok(())
}

fn with_thread(body: impl FnOnce() + Send + 'static) -> i32 {
    i32::from(std::thread::spawn(body).join().is_err())
}

fn a_thread_is_told_and_followed() -> CaseResult {
    let child = traced_with(libc::PTRACE_O_TRACECLONE, || with_thread(|| ()))?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, event(libc::PTRACE_EVENT_CLONE));
    let thread = message(child)? as i32;
    check_eq!(stop(thread)?, libc::SIGSTOP);
    go(libc::PTRACE_CONT, child, 0)?;
    go(libc::PTRACE_CONT, thread, 0)?;
    // The end of a thread is told as that of a child.
    check_eq!(wait_status(thread, libc::__WALL)?, (thread, 0));
    expect_errno!(wait_status(thread, libc::__WALL), libc::ECHILD);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn untraced_children_are_not_followed() -> CaseResult {
    let options = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACECLONE;
    let child = traced_with(options, || forks(libc::CLONE_UNTRACED))?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGCHLD);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(5));
    Ok(())
}

fn clone_ptrace_follows_without_an_event() -> CaseResult {
    let words = shared_words()?;
    let child = traced(|| match bare_fork(libc::CLONE_PTRACE) {
        0 => leave(5),
        grandchild => {
            words[0].store(grandchild as u32, Ordering::SeqCst);
            let _ = raw!(SYS_kill(me(), libc::SIGUSR1));
            0
        }
    })?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    let grandchild = words[0].load(Ordering::SeqCst) as i32;
    check_eq!(stop(grandchild)?, libc::SIGSTOP);
    go(libc::PTRACE_CONT, grandchild, 0)?;
    check_eq!(wait_status(grandchild, 0)?, (grandchild, 5 << 8));
    go(libc::PTRACE_DETACH, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn children_of_seized_threads_stop_by_an_event() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        wait_for_word(&words[0], 1);
        forks(0)
    })?;
    ptrace(libc::PTRACE_SEIZE, child, 0, libc::PTRACE_O_TRACEFORK as u64)?;
    post(&words[0]);
    check_eq!(stop(child)?, event(libc::PTRACE_EVENT_FORK));
    let grandchild = message(child)? as i32;
    check_eq!(stop(grandchild)?, EVENT_STOP << 8 | libc::SIGTRAP);
    go(libc::PTRACE_DETACH, grandchild, 0)?;
    go(libc::PTRACE_DETACH, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(5));
    Ok(())
}

/// Executes this program, which then exits with 0.
fn execs() -> i32 {
    exec_helper(&["exit", "0"], &[]).errno
}

fn execve_is_told() -> CaseResult {
    let child = traced_with(libc::PTRACE_O_TRACEEXEC, execs)?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, event(libc::PTRACE_EVENT_EXEC));
    check_eq!(message(child)?, child as u64);
    let regs = registers(child)?;
    let no_result = (-i64::from(libc::ENOSYS)) as u64;
    check_eq!((regs.orig_rax, regs.rax, regs.cs, regs.ss), (libc::SYS_execve as u64, no_result, 0x33, 0x2b));
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn execve_without_the_option_is_sigtrap() -> CaseResult {
    let child = traced(execs)?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGTRAP);
    check_eq!(crate::tracer::siginfo(child)?.si_code, libc::SI_USER);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn execve_of_a_seized_thread_is_silent() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        wait_for_word(&words[0], 1);
        execs()
    })?;
    ptrace(libc::PTRACE_SEIZE, child, 0, 0)?;
    post(&words[0]);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn execve_by_a_thread_takes_over_the_id() -> CaseResult {
    let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEEXEC;
    let child = traced_with(options, || with_thread(|| assert!(execs() < 0)))?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, event(libc::PTRACE_EVENT_CLONE));
    let thread = message(child)? as i32;
    check_eq!(stop(thread)?, libc::SIGSTOP);
    go(libc::PTRACE_CONT, child, 0)?;
    go(libc::PTRACE_CONT, thread, 0)?;
    check_eq!(stop(child)?, event(libc::PTRACE_EVENT_EXEC));
    check_eq!(message(child)?, thread as u64);
    expect_errno!(ptrace(libc::PTRACE_CONT, thread, 0, 0), libc::ESRCH);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn exit_is_told_before_it_happens() -> CaseResult {
    let child = traced_with(libc::PTRACE_O_TRACEEXIT, || 42)?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, event(libc::PTRACE_EVENT_EXIT));
    check_eq!(message(child)?, 42 << 8);
    // Its memory is still there.
    check!(crate::tracer::peek_word(child, registers(child)?.rsp).is_ok());
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(42));
    let child = traced_with(libc::PTRACE_O_TRACEEXIT, || 0)?;
    check_eq!(next(libc::PTRACE_CONT, child, libc::SIGTERM)?, event(libc::PTRACE_EVENT_EXIT));
    check_eq!(message(child)?, libc::SIGTERM as u64);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGTERM));
    Ok(())
}

fn a_dying_process_hears_no_sigkill() -> CaseResult {
    let child = traced_with(libc::PTRACE_O_TRACEEXIT, || 42)?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, event(libc::PTRACE_EVENT_EXIT));
    sys!(kill(child, libc::SIGKILL))?;
    check_eq!(message(child)?, 42 << 8);
    check_eq!(wait_status(child, libc::WNOHANG)?.0, 0);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(42));
    Ok(())
}

fn threads_are_waited_for_before_their_leader() -> CaseResult {
    let child = traced_with(libc::PTRACE_O_TRACECLONE, || {
        let _detached = std::thread::spawn(|| {
            loop {
                let _ = sys!(pause());
            }
        });
        let _ = raw!(SYS_kill(me(), libc::SIGUSR1));
        11
    })?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, event(libc::PTRACE_EVENT_CLONE));
    let thread = message(child)? as i32;
    check_eq!(stop(thread)?, libc::SIGSTOP);
    go(libc::PTRACE_CONT, thread, 0)?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    go(libc::PTRACE_CONT, child, 0)?;
    // Whoever is first: the process has ended for its parent once its threads were waited for.
    check_eq!(wait_status(-1, libc::__WALL)?, (thread, 11 << 8));
    check_eq!(wait_status(-1, libc::__WALL)?, (child, 11 << 8));
    Ok(())
}

fn a_thread_waits_for_its_tracees_only() -> CaseResult {
    let child = traced(|| 0)?;
    let other = std::thread::spawn(move || {
        let none = wait_status(child, libc::WNOHANG | libc::__WNOTHREAD).map_err(|error| error.errno);
        let no_tracer = ptrace(libc::PTRACE_CONT, child, 0, 0).map_err(|error| error.errno);
        (none, no_tracer)
    });
    let Ok((none, no_tracer)) = other.join() else { fail!("the thread panicked") };
    check_eq!(none, Err(libc::ECHILD));
    check_eq!(no_tracer, Err(libc::ESRCH));
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}
