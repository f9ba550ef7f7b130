//! sigaction(2), kill(2), sigprocmask(2), sigaltstack(2), sigwaitinfo(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, exec_helper, fork_child, wait_for};
use crate::sys::{pipe, read, sys};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

topic!(signals: [
    handler_runs_on_kill,
    blocked_signal_stays_pending,
    standard_signals_do_not_queue,
    realtime_signals_queue_with_values,
    handler_interrupts_read_with_eintr,
    sa_restart_restarts_read,
    handler_runs_on_alternate_stack,
    siginfo_names_the_sender,
    kill_of_nobody_is_esrch,
    sigkill_cannot_be_caught,
    exec_resets_handlers_and_keeps_ignored,
    segv_has_the_address,
]);

static COUNT: AtomicI32 = AtomicI32::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);
static SENDER: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_signal: i32) {
    let here = 0u8;
    SEEN.store(&raw const here as usize, Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn record(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler.
    let info = unsafe { &*info };
    CODE.store(info.si_code, Ordering::SeqCst);
    // SAFETY: kill(2) fills in these fields.
    SENDER.store(unsafe { info.si_pid() }, Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn exit_with_fault_address(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler, and SIGSEGV fills in si_addr.
    let (address, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
    let right = address == 0x1238 && code == 1;
    // SAFETY: ends this process.
    unsafe { libc::_exit(if right { 7 } else { 8 }) }
}

fn set_action(signal: i32, handler: usize, flags: i32) -> CaseResult {
    // SAFETY: sigaction is plain data, all zero is a value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    sys!(sigaction(signal, &action, std::ptr::null_mut()))?;
    Ok(())
}

fn mask(how: i32, signal: i32) -> CaseResult {
    sys!(sigprocmask(how, &set_of(signal), std::ptr::null_mut()))?;
    Ok(())
}

fn set_of(signal: i32) -> libc::sigset_t {
    // SAFETY: sigset_t is plain data, and both calls get a valid pointer.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        set
    }
}

fn me() -> i32 {
    std::process::id() as i32
}

fn handler_runs_on_kill() -> CaseResult {
    set_action(libc::SIGUSR1, count as *const () as usize, 0)?;
    sys!(kill(me(), libc::SIGUSR1))?;
    check_eq!(COUNT.load(Ordering::SeqCst), 1);
    Ok(())
}

fn blocked_signal_stays_pending() -> CaseResult {
    set_action(libc::SIGUSR1, count as *const () as usize, 0)?;
    mask(libc::SIG_BLOCK, libc::SIGUSR1)?;
    sys!(kill(me(), libc::SIGUSR1))?;
    check_eq!(COUNT.load(Ordering::SeqCst), 0);
    let mut pending = set_of(libc::SIGUSR2);
    sys!(sigpending(&mut pending))?;
    check_eq!(sys!(sigismember(&pending, libc::SIGUSR1))?, 1);
    check_eq!(sys!(sigismember(&pending, libc::SIGUSR2))?, 0);
    mask(libc::SIG_UNBLOCK, libc::SIGUSR1)?;
    check_eq!(COUNT.load(Ordering::SeqCst), 1);
    Ok(())
}

fn standard_signals_do_not_queue() -> CaseResult {
    set_action(libc::SIGUSR1, count as *const () as usize, 0)?;
    mask(libc::SIG_BLOCK, libc::SIGUSR1)?;
    for _ in 0..3 {
        sys!(kill(me(), libc::SIGUSR1))?;
    }
    mask(libc::SIG_UNBLOCK, libc::SIGUSR1)?;
    check_eq!(COUNT.load(Ordering::SeqCst), 1);
    Ok(())
}

fn realtime_signals_queue_with_values() -> CaseResult {
    let signal = libc::SIGRTMIN();
    mask(libc::SIG_BLOCK, signal)?;
    for value in 1..=3usize {
        sys!(sigqueue(me(), signal, libc::sigval { sival_ptr: value as *mut libc::c_void }))?;
    }
    for value in 1..=3usize {
        // SAFETY: siginfo_t is plain data, all zero is a value of it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        check_eq!(sys!(sigwaitinfo(&set_of(signal), &mut info))?, i64::from(signal));
        // SAFETY: sigqueue(3) fills in si_value.
        check_eq!(unsafe { info.si_value() }.sival_ptr as usize, value);
        check_eq!(info.si_code, libc::SI_QUEUE);
    }
    Ok(())
}

/// A child that sends SIGUSR1 to this process until it is killed.
fn pester() -> CaseResult<i32> {
    let parent = me();
    Ok(fork_child(|| {
        loop {
            let _ = sys!(usleep(20_000));
            let _ = sys!(kill(parent, libc::SIGUSR1));
        }
    })?)
}

fn handler_interrupts_read_with_eintr() -> CaseResult {
    set_action(libc::SIGUSR1, count as *const () as usize, 0)?;
    let (reader, _writer) = pipe(0)?;
    let child = pester()?;
    let outcome = read(reader.as_raw_fd(), &mut [0; 1]);
    sys!(kill(child, libc::SIGKILL))?;
    expect_errno!(outcome, libc::EINTR);
    check!(COUNT.load(Ordering::SeqCst) >= 1);
    Ok(())
}

fn sa_restart_restarts_read() -> CaseResult {
    set_action(libc::SIGUSR1, count as *const () as usize, libc::SA_RESTART)?;
    let (reader, writer) = pipe(0)?;
    let parent = me();
    let child = fork_child(|| {
        for _ in 0..3 {
            let _ = sys!(usleep(20_000));
            let _ = sys!(kill(parent, libc::SIGUSR1));
        }
        let _ = sys!(usleep(20_000));
        i32::from(crate::sys::write(writer.as_raw_fd(), b"x").is_err())
    })?;
    check_eq!(read(reader.as_raw_fd(), &mut [0; 1])?, 1);
    check!(COUNT.load(Ordering::SeqCst) >= 1);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn handler_runs_on_alternate_stack() -> CaseResult {
    let mut stack = vec![0u8; 65_536];
    let base = stack.as_mut_ptr();
    let alt = libc::stack_t { ss_sp: base.cast(), ss_flags: 0, ss_size: stack.len() };
    sys!(sigaltstack(&alt, std::ptr::null_mut()))?;
    set_action(libc::SIGUSR1, count as *const () as usize, libc::SA_ONSTACK)?;
    sys!(kill(me(), libc::SIGUSR1))?;
    let seen = SEEN.load(Ordering::SeqCst);
    check!((base as usize..base as usize + stack.len()).contains(&seen), "the handler ran on another stack");
    let small = libc::stack_t { ss_sp: base.cast(), ss_flags: 0, ss_size: 100 };
    expect_errno!(sys!(sigaltstack(&small, std::ptr::null_mut())), libc::ENOMEM);
    Ok(())
}

fn siginfo_names_the_sender() -> CaseResult {
    set_action(libc::SIGUSR1, record as *const () as usize, libc::SA_SIGINFO)?;
    sys!(kill(me(), libc::SIGUSR1))?;
    check_eq!(COUNT.load(Ordering::SeqCst), 1);
    check_eq!(SENDER.load(Ordering::SeqCst), me());
    check_eq!(CODE.load(Ordering::SeqCst), libc::SI_USER);
    Ok(())
}

fn kill_of_nobody_is_esrch() -> CaseResult {
    let pid = fork_child(|| 0)?;
    wait_for(pid)?;
    expect_errno!(sys!(kill(pid, 0)), libc::ESRCH);
    expect_errno!(sys!(kill(me(), 65)), libc::EINVAL);
    check_eq!(sys!(kill(me(), 0))?, 0);
    Ok(())
}

fn sigkill_cannot_be_caught() -> CaseResult {
    // SAFETY: sigaction is plain data, all zero is a value of it.
    let action: libc::sigaction = unsafe { std::mem::zeroed() };
    for signal in [libc::SIGKILL, libc::SIGSTOP] {
        expect_errno!(sys!(sigaction(signal, &action, std::ptr::null_mut())), libc::EINVAL);
    }
    mask(libc::SIG_BLOCK, libc::SIGKILL)?;
    let child = fork_child(|| {
        let _ = sys!(pause());
        0
    })?;
    sys!(kill(child, libc::SIGKILL))?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
    Ok(())
}

fn exec_resets_handlers_and_keeps_ignored() -> CaseResult {
    for (handler, status) in [(count as *const () as usize, 1), (libc::SIG_IGN, 0), (libc::SIG_DFL, 1)] {
        set_action(libc::SIGUSR1, handler, 0)?;
        let signal = libc::SIGUSR1.to_string();
        let child = fork_child(|| exec_helper(&["sig-ignored", &signal], &[]).errno)?;
        check_eq!(wait_for(child)?, Ended::Exited(status));
    }
    Ok(())
}

fn segv_has_the_address() -> CaseResult {
    let child = fork_child(|| {
        if set_action(libc::SIGSEGV, exit_with_fault_address as *const () as usize, libc::SA_SIGINFO).is_err() {
            return 9;
        }
        // SAFETY: meant to fault; the handler ends the process.
        unsafe { std::ptr::write_volatile(std::ptr::without_provenance_mut::<u32>(0x1238), 1) };
        10
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(7));
    Ok(())
}
