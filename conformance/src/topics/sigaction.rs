//! sigaction(2): flags, masks, siginfo; sigprocmask(2), sigsuspend(2), sigaltstack(2), sigreturn(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, wait_for};
use crate::signal::{
    block, blocked, count, count_signal, counted, holds, pending,
    set_action, set_of, unblock,
};
use crate::sys::{raw, sys, zeroed};
use crate::util::me;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

topic!(sigaction: [
    old_action_is_given_back,
    resethand_runs_once,
    handler_blocks_its_own_signal,
    nodefer_nests,
    mask_of_the_action_holds_back_others,
    mask_is_restored_after_the_handler,
    handler_may_change_the_mask_it_returns_to,
    fork_inherits_actions_and_clears_pending,
    ignored_signal_is_not_pending,
    ignoring_discards_what_is_pending,
    sigsuspend_swaps_the_mask,
    sigsuspend_cannot_block_kill,
    kill_and_stop_cannot_be_blocked,
    default_actions_terminate,
    core_dump_flag_of_abort,
]);

fn old_action_is_given_back() -> CaseResult {
    set_action(libc::SIGUSR1, count as *const () as usize, libc::SA_RESTART, &[libc::SIGUSR2])?;
    let mut old: libc::sigaction = zeroed();
    sys!(sigaction(libc::SIGUSR1, std::ptr::null(), &mut old))?;
    check_eq!(old.sa_sigaction, count as *const () as usize);
    check!(old.sa_flags & libc::SA_RESTART != 0);
    check!(holds(&old.sa_mask, libc::SIGUSR2) && !holds(&old.sa_mask, libc::SIGUSR1));
    Ok(())
}

fn resethand_runs_once() -> CaseResult {
    let child = fork_child(|| {
        let _ = count_signal(libc::SIGUSR1, libc::SA_RESETHAND);
        let _ = sys!(kill(me(), libc::SIGUSR1));
        if counted() == 1 {
            let _ = sys!(kill(me(), libc::SIGUSR1));
        }
        0
    })?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGUSR1));
    Ok(())
}

static DEPTH: AtomicI32 = AtomicI32::new(0);
static MAX_DEPTH: AtomicI32 = AtomicI32::new(0);

extern "C" fn raise_again(signal: i32) {
    let depth = DEPTH.fetch_add(1, Ordering::SeqCst) + 1;
    MAX_DEPTH.fetch_max(depth, Ordering::SeqCst);
    if count_up() < 3 {
        let _ = sys!(kill(me(), signal));
    }
    DEPTH.fetch_sub(1, Ordering::SeqCst);
}

fn count_up() -> i32 {
    crate::signal::COUNT.fetch_add(1, Ordering::SeqCst) + 1
}

fn handler_blocks_its_own_signal() -> CaseResult {
    set_action(libc::SIGUSR1, raise_again as *const () as usize, 0, &[])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    check_eq!((counted(), MAX_DEPTH.load(Ordering::SeqCst)), (3, 1));
    Ok(())
}

fn nodefer_nests() -> CaseResult {
    set_action(libc::SIGUSR1, raise_again as *const () as usize, libc::SA_NODEFER, &[])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    check_eq!((counted(), MAX_DEPTH.load(Ordering::SeqCst)), (3, 3));
    Ok(())
}

extern "C" fn raise_other(_signal: i32) {
    let before = counted();
    let _ = sys!(kill(me(), libc::SIGUSR2));
    SEEN.store((counted() - before) as usize, Ordering::SeqCst);
}

static SEEN: AtomicUsize = AtomicUsize::new(99);

fn mask_of_the_action_holds_back_others() -> CaseResult {
    count_signal(libc::SIGUSR2, 0)?;
    for (mask, inside) in [(&[libc::SIGUSR2][..], 0), (&[], 1)] {
        set_action(libc::SIGUSR1, raise_other as *const () as usize, 0, mask)?;
        let before = counted();
        sys!(kill(me(), libc::SIGUSR1))?;
        check_eq!(SEEN.load(Ordering::SeqCst), inside);
        check_eq!(counted() - before, 1);
    }
    Ok(())
}

fn mask_is_restored_after_the_handler() -> CaseResult {
    block(&[libc::SIGWINCH])?;
    set_action(libc::SIGUSR1, count as *const () as usize, 0, &[libc::SIGUSR2, libc::SIGTERM])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    let mask = blocked()?;
    check!(holds(&mask, libc::SIGWINCH));
    for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM] {
        check!(!holds(&mask, signal), "signal {signal} is still blocked");
    }
    Ok(())
}

extern "C" fn block_in_context(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext, whose mask it loads again.
    unsafe { libc::sigaddset(&mut (*context.cast::<libc::ucontext_t>()).uc_sigmask, libc::SIGHUP) };
}

fn handler_may_change_the_mask_it_returns_to() -> CaseResult {
    set_action(libc::SIGUSR1, block_in_context as *const () as usize, libc::SA_SIGINFO, &[])?;
    check!(!holds(&blocked()?, libc::SIGHUP));
    sys!(kill(me(), libc::SIGUSR1))?;
    check!(holds(&blocked()?, libc::SIGHUP));
    Ok(())
}

fn fork_inherits_actions_and_clears_pending() -> CaseResult {
    count_signal(libc::SIGUSR1, 0)?;
    block(&[libc::SIGUSR1, libc::SIGUSR2])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    in_child(|| {
        check!(!holds(&pending()?, libc::SIGUSR1), "the child has what is pending for its parent");
        check!(holds(&blocked()?, libc::SIGUSR2));
        unblock(&[libc::SIGUSR1])?;
        check_eq!(counted(), 0);
        sys!(kill(me(), libc::SIGUSR1))?;
        check_eq!(counted(), 1);
        Ok(())
    })?;
    check!(holds(&pending()?, libc::SIGUSR1));
    Ok(())
}

fn ignored_signal_is_not_pending() -> CaseResult {
    set_action(libc::SIGUSR1, libc::SIG_IGN, 0, &[])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    sys!(kill(me(), libc::SIGCHLD))?;
    check!(!holds(&pending()?, libc::SIGUSR1));
    // A blocked signal is kept even when ignored: its action may change before it is unblocked.
    block(&[libc::SIGUSR1])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    check!(holds(&pending()?, libc::SIGUSR1));
    Ok(())
}

fn ignoring_discards_what_is_pending() -> CaseResult {
    block(&[libc::SIGUSR1])?;
    count_signal(libc::SIGUSR1, 0)?;
    sys!(kill(me(), libc::SIGUSR1))?;
    set_action(libc::SIGUSR1, libc::SIG_IGN, 0, &[])?;
    check!(!holds(&pending()?, libc::SIGUSR1));
    count_signal(libc::SIGUSR1, 0)?;
    unblock(&[libc::SIGUSR1])?;
    check_eq!(counted(), 0);
    Ok(())
}

fn sigsuspend_swaps_the_mask() -> CaseResult {
    count_signal(libc::SIGUSR1, libc::SA_RESTART)?;
    block(&[libc::SIGUSR1, libc::SIGUSR2])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    expect_errno!(sys!(sigsuspend(&set_of(&[libc::SIGUSR2]))), libc::EINTR);
    check_eq!(counted(), 1);
    check!(holds(&blocked()?, libc::SIGUSR1), "the mask is not restored");
    Ok(())
}

fn sigsuspend_cannot_block_kill() -> CaseResult {
    block(&[libc::SIGTERM])?;
    let child = fork_child(|| {
        let mut all: libc::sigset_t = zeroed();
        let _ = sys!(sigfillset(&mut all));
        let _ = sys!(sigsuspend(&all));
        0
    })?;
    sys!(kill(child, libc::SIGTERM))?;
    sys!(kill(child, libc::SIGKILL))?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
    Ok(())
}

fn kill_and_stop_cannot_be_blocked() -> CaseResult {
    block(&[libc::SIGKILL, libc::SIGSTOP, libc::SIGUSR1])?;
    let mask = blocked()?;
    check!(holds(&mask, libc::SIGUSR1));
    check!(!holds(&mask, libc::SIGKILL) && !holds(&mask, libc::SIGSTOP));
    Ok(())
}

fn default_actions_terminate() -> CaseResult {
    let deadly = [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE, libc::SIGALRM, libc::SIGUSR2, libc::SIGIO, 34, 64];
    for signal in deadly {
        let child = fork_child(|| {
            // What the runner ignores (SIGPIPE) is set back.
            let _ = set_action(signal, libc::SIG_DFL, 0, &[]);
            let _ = raw!(SYS_kill(me(), signal));
            0
        })?;
        check_eq!(wait_for(child)?, Ended::Killed(signal));
    }
    for signal in [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH] {
        sys!(kill(me(), signal))?;
    }
    Ok(())
}

fn core_dump_flag_of_abort() -> CaseResult {
    for signal in [libc::SIGQUIT, libc::SIGABRT, libc::SIGSYS, libc::SIGXCPU] {
        let child = fork_child(|| {
            // No core file: the limit is 0, or 1, which pipes take for a request not to recurse.
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            let _ = sys!(setrlimit(libc::RLIMIT_CORE, &none));
            let _ = sys!(kill(me(), signal));
            0
        })?;
        let mut status = 0;
        sys!(waitpid(child, &mut status, 0))?;
        check!(libc::WIFSIGNALED(status));
        check_eq!(libc::WTERMSIG(status), signal);
    }
    Ok(())
}
