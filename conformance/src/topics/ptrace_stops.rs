//! ptrace(2): how tracing begins and ends, signals on their way, stops of the whole process, and what wait4(2) tells of them.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for, wait_options};
use crate::memory::{post, shared_words, wait_for_word};
use crate::signal::{COUNT, VALUE, counted, record_signal, set_action, set_of};
use crate::sys::{pipe, raw, sys, write, zeroed};
use crate::tracer::{
    EVENT_STOP, end, go, idle, next, ptrace, siginfo, status_line, stop, traced, traced_with, wait_status,
};
use crate::util::{me, read_some, until};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

topic!(ptrace_stops: [
    ignored_signals_stop_too,
    a_signal_is_dropped_or_replaced,
    siginfo_is_read_and_changed,
    attach_stops_by_sigstop,
    attach_to_a_stopped_process,
    seize_does_not_stop,
    interrupt_restarts_a_call,
    interrupt_and_listen_need_seize,
    stop_of_the_process_told_twice,
    stop_of_a_seized_process,
    listening_until_sigcont,
    sigcont_makes_a_seized_thread_tell,
    detach_with_a_signal,
    detach_leaves_a_stopped_process_stopped,
    sigkill_ends_a_stop,
    ptrace_kill_kills,
    a_running_thread_is_esrch,
    waitid_tells_of_traps,
    sigchld_tells_of_traps,
    the_parent_hears_after_the_tracer,
    the_end_of_a_tracer_frees,
    the_end_of_a_tracer_kills,
    masks_of_a_stopped_thread,
    pending_signals_are_listed,
    proc_shows_the_tracer,
    bad_signal_numbers_are_eio,
]);

fn seize(child: i32) -> CaseResult {
    check_eq!(ptrace(libc::PTRACE_SEIZE, child, 0, 0)?, 0);
    Ok(())
}

fn ignored_signals_stop_too() -> CaseResult {
    let child = traced(|| {
        let _ = set_action(libc::SIGUSR1, libc::SIG_IGN, 0, &[]);
        let _ = raw!(SYS_kill(me(), libc::SIGUSR1));
        let _ = raw!(SYS_kill(me(), libc::SIGWINCH));
        7
    })?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    check_eq!(next(libc::PTRACE_CONT, child, libc::SIGUSR1)?, libc::SIGWINCH);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(7));
    Ok(())
}

fn a_signal_is_dropped_or_replaced() -> CaseResult {
    let child = traced(|| {
        let _ = raw!(SYS_kill(me(), libc::SIGTERM));
        let _ = raw!(SYS_kill(me(), libc::SIGHUP));
        3
    })?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGTERM);
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGHUP);
    go(libc::PTRACE_CONT, child, libc::SIGUSR2)?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGUSR2));
    Ok(())
}

fn siginfo_is_read_and_changed() -> CaseResult {
    let child = traced(|| {
        let _ = record_signal(libc::SIGUSR1);
        let _ = raw!(SYS_kill(me(), libc::SIGUSR1));
        VALUE.load(Ordering::SeqCst) as i32
    })?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    let mut info = siginfo(child)?;
    check_eq!((info.si_signo, info.si_code), (libc::SIGUSR1, libc::SI_USER));
    // SAFETY: a signal of kill(2) has a sender.
    check_eq!(unsafe { info.si_pid() }, child);
    // SAFETY: si_value lies 24 bytes into the structure.
    unsafe { (&raw mut info).cast::<u64>().add(3).write(77) };
    ptrace(libc::PTRACE_SETSIGINFO, child, 0, &raw const info as u64)?;
    go(libc::PTRACE_CONT, child, libc::SIGUSR1)?;
    check_eq!(wait_for(child)?, Ended::Exited(77));
    Ok(())
}

fn attach_stops_by_sigstop() -> CaseResult {
    let child = idle()?;
    check_eq!(ptrace(libc::PTRACE_ATTACH, child, 0, 0)?, 0);
    check_eq!(stop(child)?, libc::SIGSTOP);
    let info = siginfo(child)?;
    check_eq!((info.si_signo, info.si_code), (libc::SIGSTOP, 0x80));
    expect_errno!(ptrace(libc::PTRACE_ATTACH, child, 0, 0), libc::EPERM);
    go(libc::PTRACE_DETACH, child, 0)?;
    expect_errno!(ptrace(libc::PTRACE_DETACH, child, 0, 0), libc::ESRCH);
    end(child)
}

fn attach_to_a_stopped_process() -> CaseResult {
    let child = idle()?;
    sys!(kill(child, libc::SIGSTOP))?;
    check_eq!(wait_options(child, libc::WUNTRACED)?.1, Ended::Stopped(libc::SIGSTOP));
    check_eq!(ptrace(libc::PTRACE_ATTACH, child, 0, 0)?, 0);
    check_eq!(stop(child)?, libc::SIGSTOP);
    end(child)
}

fn seize_does_not_stop() -> CaseResult {
    let child = idle()?;
    expect_errno!(ptrace(libc::PTRACE_SEIZE, child, 1, 0), libc::EIO);
    expect_errno!(ptrace(libc::PTRACE_SEIZE, child, 0, 1 << 30), libc::EIO);
    seize(child)?;
    check_eq!(wait_status(child, libc::WNOHANG | libc::__WALL)?.0, 0);
    check_eq!(ptrace(libc::PTRACE_INTERRUPT, child, 0, 0)?, 0);
    check_eq!(stop(child)?, EVENT_STOP << 8 | libc::SIGTRAP);
    check_eq!(siginfo(child)?.si_code, EVENT_STOP << 8 | libc::SIGTRAP);
    // A second request while it is stopped makes one more stop.
    ptrace(libc::PTRACE_INTERRUPT, child, 0, 0)?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, EVENT_STOP << 8 | libc::SIGTRAP);
    end(child)
}

fn interrupt_restarts_a_call() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let child = fork_child(|| match read_some(reader.as_raw_fd(), 1) {
        Ok(bytes) if bytes == b"x" => 5,
        Ok(_) => 6,
        Err(error) => error.errno,
    })?;
    seize(child)?;
    for _ in 0..3 {
        ptrace(libc::PTRACE_INTERRUPT, child, 0, 0)?;
        check_eq!(stop(child)?, EVENT_STOP << 8 | libc::SIGTRAP);
        go(libc::PTRACE_CONT, child, 0)?;
    }
    write(writer.as_raw_fd(), b"x")?;
    check_eq!(wait_for(child)?, Ended::Exited(5));
    Ok(())
}

fn interrupt_and_listen_need_seize() -> CaseResult {
    let child = traced(|| 0)?;
    expect_errno!(ptrace(libc::PTRACE_INTERRUPT, child, 0, 0), libc::EIO);
    expect_errno!(ptrace(libc::PTRACE_LISTEN, child, 0, 0), libc::EIO);
    go(libc::PTRACE_DETACH, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    let child = idle()?;
    seize(child)?;
    sys!(kill(child, libc::SIGUSR1))?;
    check_eq!(stop(child)?, libc::SIGUSR1);
    // Not a stop of that kind.
    expect_errno!(ptrace(libc::PTRACE_LISTEN, child, 0, 0), libc::EIO);
    end(child)
}

fn stop_of_the_process_told_twice() -> CaseResult {
    let child = traced(|| {
        let _ = raw!(SYS_kill(me(), libc::SIGTSTP));
        4
    })?;
    // The first stop goes on as one of the whole process, of which there is no siginfo.
    check_eq!(next(libc::PTRACE_CONT, child, libc::SIGSTOP)?, libc::SIGSTOP);
    expect_errno!(siginfo(child), libc::EINVAL);
    // It may run though its process is stopped.
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGTSTP);
    check_eq!(siginfo(child)?.si_signo, libc::SIGTSTP);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(4));
    Ok(())
}

fn stop_of_a_seized_process() -> CaseResult {
    let child = idle()?;
    seize(child)?;
    sys!(kill(child, libc::SIGSTOP))?;
    check_eq!(stop(child)?, libc::SIGSTOP);
    check_eq!(next(libc::PTRACE_CONT, child, libc::SIGSTOP)?, EVENT_STOP << 8 | libc::SIGSTOP);
    let info = siginfo(child)?;
    check_eq!((info.si_signo, info.si_code), (libc::SIGSTOP, EVENT_STOP << 8 | libc::SIGSTOP));
    end(child)
}

fn listening_until_sigcont() -> CaseResult {
    let child = idle()?;
    seize(child)?;
    sys!(kill(child, libc::SIGSTOP))?;
    check_eq!(stop(child)?, libc::SIGSTOP);
    check_eq!(next(libc::PTRACE_CONT, child, libc::SIGSTOP)?, EVENT_STOP << 8 | libc::SIGSTOP);
    check_eq!(ptrace(libc::PTRACE_LISTEN, child, 0, 0)?, 0);
    expect_errno!(siginfo(child), libc::ESRCH);
    check_eq!(wait_status(child, libc::WNOHANG | libc::__WALL)?.0, 0);
    sys!(kill(child, libc::SIGCONT))?;
    check_eq!(stop(child)?, EVENT_STOP << 8 | libc::SIGTRAP);
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGCONT);
    end(child)
}

fn sigcont_makes_a_seized_thread_tell() -> CaseResult {
    let child = idle()?;
    seize(child)?;
    sys!(kill(child, libc::SIGCONT))?;
    check_eq!(stop(child)?, EVENT_STOP << 8 | libc::SIGTRAP);
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGCONT);
    end(child)
}

fn detach_with_a_signal() -> CaseResult {
    let child = traced(|| 0)?;
    expect_errno!(ptrace(libc::PTRACE_DETACH, child, 0, 65), libc::EIO);
    go(libc::PTRACE_DETACH, child, libc::SIGTERM)?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGTERM));
    Ok(())
}

fn detach_leaves_a_stopped_process_stopped() -> CaseResult {
    let child = traced(|| 9)?;
    check_eq!(next(libc::PTRACE_CONT, child, libc::SIGSTOP)?, libc::SIGSTOP);
    go(libc::PTRACE_DETACH, child, 0)?;
    until("it is stopped as without a tracer", || {
        status_line(child, "State").is_ok_and(|state| state.starts_with('T'))
    })?;
    sys!(kill(child, libc::SIGCONT))?;
    check_eq!(wait_for(child)?, Ended::Exited(9));
    Ok(())
}

fn sigkill_ends_a_stop() -> CaseResult {
    let child = traced(|| 0)?;
    end(child)?;
    let child = traced(|| 0)?;
    go(libc::PTRACE_CONT, child, libc::SIGKILL)?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
    Ok(())
}

fn ptrace_kill_kills() -> CaseResult {
    let child = traced(|| 0)?;
    ptrace(libc::PTRACE_KILL, child, 0, 0)?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
    expect_errno!(ptrace(libc::PTRACE_KILL, child, 0, 0), libc::ESRCH);
    Ok(())
}

fn a_running_thread_is_esrch() -> CaseResult {
    let child = idle()?;
    expect_errno!(ptrace(libc::PTRACE_CONT, child, 0, 0), libc::ESRCH);
    seize(child)?;
    for request in [libc::PTRACE_CONT, libc::PTRACE_PEEKDATA, libc::PTRACE_DETACH, 0x7777] {
        expect_errno!(ptrace(request, child, 0, 0), libc::ESRCH);
    }
    expect_errno!(ptrace(libc::PTRACE_ATTACH, 32_000, 0, 0), libc::ESRCH);
    expect_errno!(ptrace(libc::PTRACE_ATTACH, -1, 0, 0), libc::ESRCH);
    end(child)
}

fn waitid_tells_of_traps() -> CaseResult {
    let child = traced(|| 0)?;
    ptrace(libc::PTRACE_SETOPTIONS, child, 0, libc::PTRACE_O_TRACEEXIT as u64)?;
    go(libc::PTRACE_CONT, child, 0)?;
    let options = [libc::WEXITED | libc::WNOWAIT, libc::WEXITED, libc::WEXITED | libc::WNOHANG];
    for (round, options) in options.into_iter().enumerate() {
        let mut info: libc::siginfo_t = zeroed();
        sys!(waitid(libc::P_PID, child as u32, &mut info, options))?;
        // SAFETY: these fields are there, or zero.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if round == 2 {
            check_eq!(pid, 0);
        } else {
            let event = libc::PTRACE_EVENT_EXIT << 8 | libc::SIGTRAP;
            check_eq!((info.si_signo, info.si_code, pid, status), (libc::SIGCHLD, 4, child, event));
        }
    }
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn sigchld_tells_of_traps() -> CaseResult {
    record_signal(libc::SIGCHLD)?;
    let child = traced(|| {
        let _ = raw!(SYS_kill(me(), libc::SIGUSR1));
        0
    })?;
    check_eq!(counted(), 1);
    check_eq!(crate::signal::CODE.load(Ordering::SeqCst), libc::CLD_TRAPPED);
    check_eq!(crate::signal::SENDER.load(Ordering::SeqCst), child);
    COUNT.store(0, Ordering::SeqCst);
    set_action(libc::SIGCHLD, libc::SIG_DFL, libc::SA_NOCLDSTOP, &[])?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    check_eq!(counted(), 0);
    end(child)
}

fn the_parent_hears_after_the_tracer() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        wait_for_word(&words[0], 1);
        21
    })?;
    let tracer = fork_child(|| {
        let good = seize(child).is_ok();
        post(&words[1]);
        wait_for_word(&words[2], 1);
        let ended = wait_status(child, 0);
        // A tracer that is not the parent gets the status, and the parent then as well.
        i32::from(!(good && ended == Ok((child, 21 << 8))))
    })?;
    wait_for_word(&words[1], 1);
    post(&words[0]);
    let mut info: libc::siginfo_t = zeroed();
    until("it is a zombie", || status_line(child, "State").is_ok_and(|state| state.starts_with('Z')))?;
    sys!(waitid(libc::P_PID, child as u32, &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT))?;
    // SAFETY: the field is there, or zero.
    check_eq!(unsafe { info.si_pid() }, 0);
    post(&words[2]);
    check_eq!(wait_for(tracer)?, Ended::Exited(0));
    check_eq!(wait_for(child)?, Ended::Exited(21));
    Ok(())
}

/// A tracer that stops a child and goes, once it was told.
fn short_tracer(child: i32, options: i32) -> CaseResult<i32> {
    Ok(fork_child(|| {
        let good = ptrace(libc::PTRACE_SEIZE, child, 0, options as u64).is_ok()
            && ptrace(libc::PTRACE_INTERRUPT, child, 0, 0).is_ok()
            && stop(child).is_ok();
        i32::from(!good)
    })?)
}

fn the_end_of_a_tracer_frees() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        wait_for_word(&words[0], 1);
        8
    })?;
    check_eq!(wait_for(short_tracer(child, 0)?)?, Ended::Exited(0));
    check_eq!(status_line(child, "TracerPid")?, "0");
    post(&words[0]);
    check_eq!(wait_for(child)?, Ended::Exited(8));
    Ok(())
}

fn the_end_of_a_tracer_kills() -> CaseResult {
    let child = idle()?;
    check_eq!(wait_for(short_tracer(child, libc::PTRACE_O_EXITKILL)?)?, Ended::Exited(0));
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
    Ok(())
}

fn masks_of_a_stopped_thread() -> CaseResult {
    const GETSIGMASK: u32 = 0x420a;
    const SETSIGMASK: u32 = 0x420b;
    let child = traced(|| {
        let mut set: libc::sigset_t = zeroed();
        let _ = sys!(sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut set));
        i32::from(crate::signal::holds(&set, libc::SIGUSR2) && !crate::signal::holds(&set, libc::SIGKILL))
    })?;
    let mut mask = 1u64;
    expect_errno!(ptrace(GETSIGMASK, child, 4, &raw mut mask as u64), libc::EINVAL);
    ptrace(GETSIGMASK, child, 8, &raw mut mask as u64)?;
    check_eq!(mask, 0);
    mask = 1 << (libc::SIGUSR2 - 1) | 1 << (libc::SIGKILL - 1);
    expect_errno!(ptrace(SETSIGMASK, child, 8, 8), libc::EFAULT);
    ptrace(SETSIGMASK, child, 8, &raw const mask as u64)?;
    ptrace(GETSIGMASK, child, 8, &raw mut mask as u64)?;
    check_eq!(mask, 1 << (libc::SIGUSR2 - 1));
    go(libc::PTRACE_DETACH, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(1));
    Ok(())
}

fn pending_signals_are_listed() -> CaseResult {
    const PEEKSIGINFO: u32 = 0x4209;
    let child = traced(|| {
        let set = set_of(&[libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP]);
        let _ = sys!(sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()));
        let _ = raw!(SYS_kill(me(), libc::SIGUSR1));
        let _ = raw!(SYS_kill(me(), libc::SIGHUP));
        let _ = raw!(SYS_tgkill(me(), me(), libc::SIGUSR2));
        let _ = raw!(SYS_kill(me(), libc::SIGSTOP));
        0
    })?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGSTOP);
    let mut infos: [libc::siginfo_t; 4] = zeroed();
    let mut peek = |off: u64, flags: u32, nr: i32| {
        let args = (off, u64::from(flags) | (nr as u64) << 32);
        let args = [args.0, args.1];
        ptrace(PEEKSIGINFO, child, args.as_ptr() as u64, infos.as_mut_ptr() as u64)
            .map(|n| (n, infos[0].si_signo))
    };
    check_eq!(peek(0, 1, 4)?, (2, libc::SIGUSR1));
    check_eq!(peek(1, 1, 4)?, (1, libc::SIGHUP));
    check_eq!(peek(0, 0, 4)?, (1, libc::SIGUSR2));
    check_eq!(peek(5, 1, 4)?.0, 0);
    check_eq!(peek(0, 1, 0)?.0, 0);
    expect_errno!(peek(0, 2, 1), libc::EINVAL);
    expect_errno!(peek(0, 0, -1), libc::EINVAL);
    end(child)
}

fn proc_shows_the_tracer() -> CaseResult {
    let child = traced_with(0, || 0)?;
    check_eq!(status_line(child, "TracerPid")?, me().to_string());
    check!(status_line(child, "State")?.starts_with('t'), "{}", status_line(child, "State")?);
    check_eq!(status_line(me(), "TracerPid")?, "0");
    end(child)
}

fn bad_signal_numbers_are_eio() -> CaseResult {
    let child = traced(|| 0)?;
    for request in [libc::PTRACE_CONT, libc::PTRACE_SYSCALL, libc::PTRACE_SINGLESTEP] {
        expect_errno!(ptrace(request, child, 0, 65), libc::EIO);
        expect_errno!(ptrace(request, child, 0, u64::MAX), libc::EIO);
    }
    expect_errno!(ptrace(libc::PTRACE_SETOPTIONS, child, 0, 1 << 30), libc::EINVAL);
    expect_errno!(ptrace(0x7777, child, 0, 0), libc::EIO);
    end(child)
}
