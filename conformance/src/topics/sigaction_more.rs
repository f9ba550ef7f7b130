//! sigaltstack(2), tgkill(2), restart of interrupted calls, and what a handler leaves intact.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::signal::{
    CODE, SENDER, SIGNAL, VALUE, count, count_signal, counted, record_signal,
    set_action,
};
use crate::sys::{pipe, raw, read, sys, write, zeroed};
use crate::util::me;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, Ordering};

topic!(sigaction_more: [
    altstack_is_reported_and_busy_inside,
    altstack_disable_and_bad_flags,
    tgkill_checks_the_group,
    raise_reaches_this_thread_with_si_tkill,
    sigqueue_of_user_codes,
    restart_of_wait4,
    without_restart_wait4_is_eintr,
    nanosleep_is_not_restarted,
    bad_arguments,
    handler_sees_the_red_zone_intact,
    registers_survive_a_handler,
]);

static INSIDE_FLAGS: AtomicI32 = AtomicI32::new(-1);
static INSIDE_SET: AtomicI32 = AtomicI32::new(-1);

extern "C" fn look_at_altstack(_: i32) {
    let mut stack: libc::stack_t = zeroed();
    let _ = sys!(sigaltstack(std::ptr::null(), &mut stack));
    INSIDE_FLAGS.store(stack.ss_flags, Ordering::SeqCst);
    let outcome = sys!(sigaltstack(&stack, std::ptr::null_mut()));
    INSIDE_SET.store(outcome.map_or_else(|error| error.errno, |_| 0), Ordering::SeqCst);
}

fn altstack_is_reported_and_busy_inside() -> CaseResult {
    let mut memory = vec![0u8; 65_536];
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    sys!(sigaltstack(&stack, std::ptr::null_mut()))?;
    let mut got: libc::stack_t = zeroed();
    sys!(sigaltstack(std::ptr::null(), &mut got))?;
    check_eq!((got.ss_sp, got.ss_size, got.ss_flags), (stack.ss_sp, stack.ss_size, 0));
    set_action(libc::SIGUSR1, look_at_altstack as *const () as usize, libc::SA_ONSTACK, &[])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    check_eq!(INSIDE_FLAGS.load(Ordering::SeqCst), libc::SS_ONSTACK);
    check_eq!(INSIDE_SET.load(Ordering::SeqCst), libc::EPERM);
    Ok(())
}

fn altstack_disable_and_bad_flags() -> CaseResult {
    let mut memory = vec![0u8; 65_536];
    let base = memory.as_mut_ptr().cast();
    let bad = libc::stack_t { ss_sp: base, ss_flags: 0x40, ss_size: memory.len() };
    expect_errno!(sys!(sigaltstack(&bad, std::ptr::null_mut())), libc::EINVAL);
    let good = libc::stack_t { ss_sp: base, ss_flags: 0, ss_size: memory.len() };
    sys!(sigaltstack(&good, std::ptr::null_mut()))?;
    let off = libc::stack_t { ss_sp: base, ss_flags: libc::SS_DISABLE, ss_size: 1 };
    let mut old: libc::stack_t = zeroed();
    sys!(sigaltstack(&off, &mut old))?;
    check_eq!((old.ss_sp, old.ss_flags), (base, 0));
    sys!(sigaltstack(std::ptr::null(), &mut old))?;
    check_eq!(old.ss_flags, libc::SS_DISABLE);
    Ok(())
}

fn tgkill_checks_the_group() -> CaseResult {
    count_signal(libc::SIGUSR1, 0)?;
    raw!(SYS_tgkill(me(), me(), libc::SIGUSR1))?;
    check_eq!(counted(), 1);
    expect_errno!(raw!(SYS_tgkill(me() + 1, me(), libc::SIGUSR1)), libc::ESRCH);
    expect_errno!(raw!(SYS_tgkill(-1, me(), libc::SIGUSR1)), libc::EINVAL);
    expect_errno!(raw!(SYS_tgkill(me(), 0, libc::SIGUSR1)), libc::EINVAL);
    expect_errno!(raw!(SYS_tkill(0, libc::SIGUSR1)), libc::EINVAL);
    expect_errno!(raw!(SYS_tgkill(me(), me(), 65)), libc::EINVAL);
    raw!(SYS_tgkill(me(), me(), 0))?;
    Ok(())
}

fn raise_reaches_this_thread_with_si_tkill() -> CaseResult {
    record_signal(libc::SIGUSR1)?;
    raw!(SYS_tkill(me(), libc::SIGUSR1))?;
    check_eq!(SIGNAL.load(Ordering::SeqCst), libc::SIGUSR1);
    check_eq!(CODE.load(Ordering::SeqCst), -6);
    check_eq!(SENDER.load(Ordering::SeqCst), me());
    Ok(())
}

fn sigqueue_of_user_codes() -> CaseResult {
    record_signal(libc::SIGUSR1)?;
    sys!(sigqueue(me(), libc::SIGUSR1, libc::sigval { sival_ptr: 0x1234_5678 as *mut libc::c_void }))?;
    check_eq!((CODE.load(Ordering::SeqCst), VALUE.load(Ordering::SeqCst)), (libc::SI_QUEUE, 0x1234_5678));
    // A process may give itself any code, and others only those that cannot be taken for the kernel's.
    let mut info: libc::siginfo_t = zeroed();
    info.si_code = 7;
    raw!(SYS_rt_sigqueueinfo(me(), libc::SIGUSR1, &raw const info))?;
    check_eq!(CODE.load(Ordering::SeqCst), 7);
    let child = fork_child(|| {
        let _ = sys!(pause());
        0
    })?;
    expect_errno!(raw!(SYS_rt_sigqueueinfo(child, libc::SIGTERM, &raw const info)), libc::EPERM);
    info.si_code = -60;
    raw!(SYS_rt_sigqueueinfo(child, libc::SIGTERM, &raw const info))?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGTERM));
    Ok(())
}

/// A child that exits only when told by the pipe, and another that signals this process first.
fn signalled_wait() -> CaseResult<Result<i64, crate::sys::SysError>> {
    let (reader, writer) = pipe(0)?;
    let (blocked_reader, blocked_writer) = pipe(0)?;
    let writer_fd = writer.as_raw_fd();
    let waited = fork_child(|| {
        let _ = sys!(close(writer_fd));
        let _ = read(reader.as_raw_fd(), &mut [0; 1]);
        5
    })?;
    let parent = me();
    let child = fork_child(|| {
        // Until the parent sleeps in wait4.
        let path = format!("/proc/{parent}/stat");
        while !std::fs::read_to_string(&path).is_ok_and(|stat| stat.contains(") S ")) {
            let _ = sys!(sched_yield());
        }
        let _ = sys!(kill(parent, libc::SIGUSR1));
        let _ = read(blocked_reader.as_raw_fd(), &mut [0; 1]);
        let _ = write(writer_fd, b"x");
        0
    })?;
    AFTER.store(blocked_writer.as_raw_fd(), Ordering::SeqCst);
    let mut status = 0;
    let outcome = sys!(waitpid(waited, &mut status, 0));
    if outcome.is_err() {
        wait_for(waited)?;
    }
    wait_for(child)?;
    Ok(outcome.map(|_| i64::from(libc::WEXITSTATUS(status))))
}

static AFTER: AtomicI32 = AtomicI32::new(-1);

extern "C" fn let_go(signal: i32) {
    count(signal);
    let _ = write(AFTER.load(Ordering::SeqCst), b"x");
}

fn restart_of_wait4() -> CaseResult {
    set_action(libc::SIGUSR1, let_go as *const () as usize, libc::SA_RESTART, &[])?;
    check_eq!(signalled_wait()?, Ok(5));
    check_eq!(counted(), 1);
    Ok(())
}

fn without_restart_wait4_is_eintr() -> CaseResult {
    set_action(libc::SIGUSR1, let_go as *const () as usize, 0, &[])?;
    expect_errno!(signalled_wait()?, libc::EINTR);
    check_eq!(counted(), 1);
    Ok(())
}

fn nanosleep_is_not_restarted() -> CaseResult {
    count_signal(libc::SIGALRM, libc::SA_RESTART)?;
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 5000 },
    };
    sys!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()))?;
    let long = libc::timespec { tv_sec: 100, tv_nsec: 0 };
    let mut left: libc::timespec = zeroed();
    expect_errno!(sys!(nanosleep(&long, &mut left)), libc::EINTR);
    check!(left.tv_sec == 99 && counted() == 1, "left: {} s", left.tv_sec);
    Ok(())
}

fn bad_arguments() -> CaseResult {
    let action: libc::sigaction = zeroed();
    for signal in [0, -1, 65, 1000] {
        expect_errno!(raw!(SYS_rt_sigaction(signal, &raw const action, 0, 8)), libc::EINVAL);
    }
    expect_errno!(raw!(SYS_rt_sigaction(libc::SIGUSR1, &raw const action, 0, 16)), libc::EINVAL);
    expect_errno!(raw!(SYS_rt_sigaction(libc::SIGUSR1, 8, 0, 8)), libc::EFAULT);
    raw!(SYS_rt_sigaction(libc::SIGKILL, 0, &raw const action, 8))?;
    let set = 0u64;
    expect_errno!(raw!(SYS_rt_sigprocmask(77, &raw const set, 0, 8)), libc::EINVAL);
    expect_errno!(raw!(SYS_rt_sigprocmask(0, &raw const set, 0, 4)), libc::EINVAL);
    expect_errno!(raw!(SYS_rt_sigprocmask(0, 8, 0, 8)), libc::EFAULT);
    // The operation does not matter when there is no set.
    raw!(SYS_rt_sigprocmask(77, 0, &raw const set, 8))?;
    expect_errno!(raw!(SYS_rt_sigsuspend(&raw const set, 4)), libc::EINVAL);
    expect_errno!(raw!(SYS_rt_sigpending(&raw const set, 9)), libc::EINVAL);
    Ok(())
}

fn handler_sees_the_red_zone_intact() -> CaseResult {
    count_signal(libc::SIGUSR1, 0)?;
    let pid = i64::from(me());
    let (mut a, mut b): (u64, u64) = (0x1111_2222, 0x3333_4444);
    // SAFETY: stays within the 128 bytes below the stack pointer that the ABI keeps from handlers.
    unsafe {
        std::arch::asm!(
            "mov [rsp - 8], {a}", "mov [rsp - 128], {b}",
            "syscall",
            "mov {a}, [rsp - 8]", "mov {b}, [rsp - 128]",
            a = inout(reg) a, b = inout(reg) b,
            inlateout("rax") libc::SYS_kill => _, in("rdi") pid, in("rsi") i64::from(libc::SIGUSR1),
            lateout("rcx") _, lateout("r11") _,
        );
    }
    check_eq!((a, b, counted()), (0x1111_2222, 0x3333_4444, 1));
    Ok(())
}

extern "C" fn spoil_registers(signal: i32) {
    count(signal);
    // SAFETY: declares every register that it overwrites.
    unsafe {
        std::arch::asm!(
            "xor r8, r8", "xor r9, r9", "xor r10, r10", "xor r12, r12", "xor r13, r13", "xor r14, r14", "xor r15, r15",
            "pxor xmm0, xmm0", "pxor xmm7, xmm7", "pxor xmm15, xmm15",
            out("r8") _, out("r9") _, out("r10") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            out("xmm0") _, out("xmm7") _, out("xmm15") _,
        );
    }
}

fn registers_survive_a_handler() -> CaseResult {
    set_action(libc::SIGUSR1, spoil_registers as *const () as usize, 0, &[])?;
    let pid = i64::from(me());
    let (mut r8, mut r9, mut r10, mut r12, mut r13, mut r14, mut r15) = (8u64, 9u64, 10u64, 12u64, 13u64, 14u64, 15u64);
    let (mut x0, mut x7, mut x15) = (0.5f64, 7.5f64, 15.5f64);
    // SAFETY: the system call convention, with what must survive as operands.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") libc::SYS_kill => _, in("rdi") pid, in("rsi") i64::from(libc::SIGUSR1),
            lateout("rcx") _, lateout("r11") _,
            inout("r8") r8, inout("r9") r9, inout("r10") r10, inout("r12") r12, inout("r13") r13, inout("r14") r14,
            inout("r15") r15, inout("xmm0") x0, inout("xmm7") x7, inout("xmm15") x15,
        );
    }
    check_eq!(counted(), 1);
    check_eq!([r8, r9, r10, r12, r13, r14, r15], [8, 9, 10, 12, 13, 14, 15]);
    check_eq!([x0, x7, x15], [0.5, 7.5, 15.5]);
    Ok(())
}
