//! ptrace(2): system calls and single steps of a traced thread, and filters that ask its tracer.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::memory::{PAGE, anonymous, RW, protect};
use crate::signal::{count_signal, counted};
use crate::sys::{pipe, raw, sys, write};
use crate::tracer::{
    CALL, event, go, message, next, ptrace, registers, set_registers, siginfo, stop, traced, traced_with,
};
use crate::util::{me, read_some};
use std::os::fd::AsRawFd;

topic!(ptrace_calls: [
    entries_and_exits_alternate,
    without_sysgood_it_is_sigtrap,
    the_number_is_changed,
    a_call_is_skipped,
    a_result_is_changed,
    own_ids_are_seen_being_asked,
    calls_are_emulated,
    a_syscall_stop_ends_with_a_signal,
    interrupted_calls_are_seen_to_restart,
    syscall_info_at_each_stop,
    syscall_info_is_set,
    steps_go_one_instruction,
    a_step_over_a_call,
    a_step_into_a_handler,
    a_step_onto_a_breakpoint,
    a_step_over_a_fault,
    a_program_steps_through_itself,
    filters_ask_the_tracer,
    filters_without_a_tracer_are_enosys,
]);

const GET_SYSCALL_INFO: u32 = 0x420e;
const SET_SYSCALL_INFO: u32 = 0x4212;

/// A child that makes getppid(2) again and again, stopped before the first: its number of calls, then its exit code is the
/// last result.
fn asks(times: usize) -> CaseResult<i32> {
    traced_with(libc::PTRACE_O_TRACESYSGOOD, || {
        let mut last = 0;
        for _ in 0..times {
            last = raw!(SYS_getppid()).map_or_else(|error| error.errno, |value| value as i32);
        }
        last & 0x7f
    })
}

/// Goes on to the next entry of a call of this number.
fn to_call(child: i32, number: i64) -> CaseResult {
    loop {
        check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, CALL);
        if registers(child)?.orig_rax == number as u64 {
            return Ok(());
        }
        check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, CALL);
    }
}

fn ends(child: i32, code: i32) -> CaseResult {
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(code));
    Ok(())
}

fn entries_and_exits_alternate() -> CaseResult {
    let child = asks(2)?;
    for _ in 0..2 {
        to_call(child, libc::SYS_getppid)?;
        let regs = registers(child)?;
        check_eq!(regs.rax as i64, -i64::from(libc::ENOSYS));
        check_eq!((message(child)?, siginfo(child)?.si_code), (1, CALL));
        check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, CALL);
        let after = registers(child)?;
        check_eq!((after.rax, after.orig_rax, after.rip), (me() as u64, regs.orig_rax, regs.rip));
        check_eq!(message(child)?, 2);
    }
    ends(child, me() & 0x7f)
}

fn without_sysgood_it_is_sigtrap() -> CaseResult {
    let child = asks(1)?;
    ptrace(libc::PTRACE_SETOPTIONS, child, 0, 0)?;
    check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, libc::SIGTRAP);
    check_eq!(siginfo(child)?.si_code, libc::SIGTRAP);
    ends(child, me() & 0x7f)
}

fn the_number_is_changed() -> CaseResult {
    let child = asks(1)?;
    to_call(child, libc::SYS_getppid)?;
    let mut regs = registers(child)?;
    regs.orig_rax = libc::SYS_getpid as u64;
    set_registers(child, &regs)?;
    ends(child, child & 0x7f)
}

fn a_call_is_skipped() -> CaseResult {
    let child = asks(1)?;
    to_call(child, libc::SYS_getppid)?;
    let mut regs = registers(child)?;
    (regs.orig_rax, regs.rax) = (u64::MAX, 19);
    set_registers(child, &regs)?;
    check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, CALL);
    check_eq!(registers(child)?.rax, 19);
    ends(child, 19)
}

fn a_result_is_changed() -> CaseResult {
    let child = asks(1)?;
    to_call(child, libc::SYS_getppid)?;
    check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, CALL);
    let mut regs = registers(child)?;
    regs.rax = 23;
    set_registers(child, &regs)?;
    ends(child, 23)
}

/// getpid(2) in a loop, so that whoever answers it knows it well.
fn own_ids_are_seen_being_asked() -> CaseResult {
    let child = fork_child(|| {
        let asked = || (0..50).all(|_| sys!(getpid()) == Ok(i64::from(me())));
        if !asked() || ptrace(libc::PTRACE_TRACEME, 0, 0, 0).is_err() {
            return 1;
        }
        let _ = sys!(kill(me(), libc::SIGSTOP));
        i32::from(!asked())
    })?;
    check_eq!(stop(child)?, libc::SIGSTOP);
    ptrace(libc::PTRACE_SETOPTIONS, child, 0, libc::PTRACE_O_TRACESYSGOOD as u64)?;
    for _ in 0..50 {
        to_call(child, libc::SYS_getpid)?;
        check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, CALL);
        check_eq!(registers(child)?.rax, child as u64);
    }
    ends(child, 0)
}

fn calls_are_emulated() -> CaseResult {
    let child = asks(2)?;
    for result in [71, 72] {
        loop {
            check_eq!(next(libc::PTRACE_SYSEMU, child, 0)?, CALL);
            let mut regs = registers(child)?;
            if regs.orig_rax == libc::SYS_getppid as u64 {
                regs.rax = result;
                set_registers(child, &regs)?;
                break;
            }
            // What the library does beside, fails.
        }
    }
    ends(child, 72)
}

fn a_syscall_stop_ends_with_a_signal() -> CaseResult {
    let child = asks(1)?;
    to_call(child, libc::SYS_getppid)?;
    check_eq!(next(libc::PTRACE_CONT, child, libc::SIGUSR1)?, libc::SIGUSR1);
    check_eq!(siginfo(child)?.si_code, 0x80);
    ends(child, me() & 0x7f)
}

fn interrupted_calls_are_seen_to_restart() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let child = traced_with(libc::PTRACE_O_TRACESYSGOOD, || {
        let _ = crate::signal::set_action(
            libc::SIGUSR1,
            crate::signal::count as *const () as usize,
            libc::SA_RESTART,
            &[],
        );
        match read_some(reader.as_raw_fd(), 1) {
            Ok(bytes) if bytes == b"x" => counted(),
            _ => 50,
        }
    })?;
    to_call(child, libc::SYS_read)?;
    go(libc::PTRACE_SYSCALL, child, 0)?;
    sys!(kill(child, libc::SIGUSR1))?;
    check_eq!(stop(child)?, CALL);
    // ERESTARTSYS, which no program sees.
    check_eq!(registers(child)?.rax as i64, -512);
    check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, libc::SIGUSR1);
    check_eq!(next(libc::PTRACE_SYSCALL, child, libc::SIGUSR1)?, CALL);
    check_eq!(registers(child)?.orig_rax, libc::SYS_rt_sigreturn as u64);
    check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, CALL);
    check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, CALL);
    check_eq!(registers(child)?.orig_rax, libc::SYS_read as u64);
    write(writer.as_raw_fd(), b"x")?;
    ends(child, 1)
}

/// What `PTRACE_GET_SYSCALL_INFO` gives: how many bytes there are, and its words.
fn syscall_info(child: i32) -> CaseResult<(i64, [u64; 11])> {
    let mut words = [0u64; 11];
    let len = ptrace(GET_SYSCALL_INFO, child, 88, words.as_mut_ptr() as u64)?;
    Ok((len, words))
}

const ARCH: u64 = 0xc000_003e << 32;

fn syscall_info_at_each_stop() -> CaseResult {
    let child = traced_with(libc::PTRACE_O_TRACESYSGOOD, || {
        let _ = raw!(SYS_close(0x5555, 2, 3, 4, 5, 6));
        0
    })?;
    let (len, words) = syscall_info(child)?;
    let regs = registers(child)?;
    check_eq!((len, words[0], words[1], words[2]), (24, ARCH, regs.rip, regs.rsp));
    to_call(child, libc::SYS_close)?;
    let (len, words) = syscall_info(child)?;
    check_eq!((len, words[0]), (80, ARCH | 1));
    check_eq!(words[3..10], [libc::SYS_close as u64, 0x5555, 2, 3, 4, 5, 6]);
    // No more than there is room for.
    let mut short = [u64::MAX; 2];
    check_eq!(ptrace(GET_SYSCALL_INFO, child, 8, short.as_mut_ptr() as u64)?, 80);
    check_eq!(short, [ARCH | 1, u64::MAX]);
    check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, CALL);
    let (len, words) = syscall_info(child)?;
    check_eq!((len, words[0]), (33, ARCH | 2));
    check_eq!((words[3] as i64, words[4] & 0xff), (-i64::from(libc::EBADF), 1));
    expect_errno!(ptrace(GET_SYSCALL_INFO, child, 88, 8), libc::EFAULT);
    ends(child, 0)
}

fn syscall_info_is_set() -> CaseResult {
    let child = asks(2)?;
    to_call(child, libc::SYS_getppid)?;
    let (_, mut words) = syscall_info(child)?;
    words[3] = libc::SYS_getpid as u64;
    let set = |words: &[u64; 11]| ptrace(SET_SYSCALL_INFO, child, 88, words.as_ptr() as u64);
    match set(&words) {
        // A kernel before 6.16.
        Err(error) if error.errno == libc::EIO => return ends(child, me() & 0x7f),
        other => other?,
    };
    check_eq!(next(libc::PTRACE_SYSCALL, child, 0)?, CALL);
    check_eq!(registers(child)?.rax, child as u64);
    expect_errno!(set(&words), libc::EINVAL);
    expect_errno!(ptrace(SET_SYSCALL_INFO, child, 80, words.as_ptr() as u64), libc::EINVAL);
    let (_, mut words) = syscall_info(child)?;
    words[3] = 29;
    set(&words)?;
    check_eq!(registers(child)?.rax, 29);
    to_call(child, libc::SYS_getppid)?;
    let (_, mut words) = syscall_info(child)?;
    words[3] = 1 << 40;
    expect_errno!(set(&words), libc::ERANGE);
    ends(child, me() & 0x7f)
}

/// A page of code.
fn code(bytes: &[u8]) -> CaseResult<u64> {
    let page = anonymous(1, RW)?;
    // SAFETY: the page is mapped, and longer than any of the codes.
    unsafe { page.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    protect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC)?;
    Ok(page as u64)
}

/// A stopped child about to run this code, with its registers.
fn about_to_run(bytes: &[u8]) -> CaseResult<(i32, u64)> {
    let at = code(bytes)?;
    let child = traced_with(libc::PTRACE_O_TRACESYSGOOD, || 0)?;
    let mut regs = registers(child)?;
    (regs.rip, regs.orig_rax) = (at, u64::MAX);
    set_registers(child, &regs)?;
    Ok((child, at))
}

fn kill(child: i32) -> CaseResult {
    sys!(kill(child, libc::SIGKILL))?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
    Ok(())
}

/// Steps, and tells where the thread is.
fn step(child: i32) -> CaseResult<u64> {
    check_eq!(next(libc::PTRACE_SINGLESTEP, child, 0)?, libc::SIGTRAP);
    Ok(registers(child)?.rip)
}

fn steps_go_one_instruction() -> CaseResult {
    // nop; nop; jmp over two bytes; ud2; xor %eax,%eax; pushf
    let (child, at) = about_to_run(b"\x90\x90\xeb\x02\x0f\x0b\x31\xc0\x9c\x90")?;
    for offset in [1, 2, 6, 8, 9] {
        check_eq!(step(child)?, at + offset);
        let info = siginfo(child)?;
        check_eq!((info.si_signo, info.si_code), (libc::SIGTRAP, 2));
        // The flag by which it is done is not the program's.
        check_eq!(registers(child)?.eflags & 0x100, 0);
    }
    kill(child)
}

fn a_step_over_a_call() -> CaseResult {
    // mov $110,%eax; syscall; nop
    let (child, at) = about_to_run(b"\xb8\x6e\0\0\0\x0f\x05\x90")?;
    check_eq!(step(child)?, at + 5);
    check_eq!(step(child)?, at + 7);
    check_eq!(registers(child)?.rax, me() as u64);
    check_eq!(siginfo(child)?.si_code, 1);
    check_eq!(step(child)?, at + 8);
    kill(child)
}

fn a_step_into_a_handler() -> CaseResult {
    let child = traced(|| {
        let _ = count_signal(libc::SIGUSR1, 0);
        let _ = raw!(SYS_kill(me(), libc::SIGUSR1));
        counted()
    })?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    check_eq!(next(libc::PTRACE_SINGLESTEP, child, libc::SIGUSR1)?, libc::SIGTRAP);
    let regs = registers(child)?;
    check_eq!((regs.rip, regs.rdi), (crate::signal::count as *const () as u64, libc::SIGUSR1 as u64));
    ends(child, 1)
}

fn a_step_onto_a_breakpoint() -> CaseResult {
    // nop; int3; nop
    let (child, at) = about_to_run(b"\x90\xcc\x90")?;
    check_eq!(step(child)?, at + 1);
    check_eq!(step(child)?, at + 2);
    check_eq!(siginfo(child)?.si_code, 0x80);
    check_eq!(step(child)?, at + 3);
    kill(child)
}

fn a_step_over_a_fault() -> CaseResult {
    // mov (%rax),%rax with rax = 0; then in memory that was not touched yet.
    let (child, at) = about_to_run(b"\x48\x8b\x00\x48\x8b\x00\x90")?;
    let fresh = anonymous(1, RW)? as u64;
    let mut regs = registers(child)?;
    regs.rax = 0;
    set_registers(child, &regs)?;
    check_eq!(next(libc::PTRACE_SINGLESTEP, child, 0)?, libc::SIGSEGV);
    regs = registers(child)?;
    check_eq!((regs.rip, siginfo(child)?.si_code), (at, 1));
    // Its own stack is there; the parent's fresh page is not the child's.
    check!(fresh != 0);
    regs.rax = regs.rsp & !0xfff;
    set_registers(child, &regs)?;
    check_eq!(step(child)?, at + 3);
    kill(child)
}

/// Addresses at which a program found itself that set its own trap flag.
static STEPS: [std::sync::atomic::AtomicU64; 8] = [const { std::sync::atomic::AtomicU64::new(0) }; 8];

extern "C" fn note_step(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let at = crate::signal::COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst) as usize;
    // SAFETY: the kernel passes a valid context and siginfo.
    let (rip, code) = unsafe {
        ((*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize], (*info).si_code)
    };
    if let Some(place) = STEPS.get(at) {
        place.store(rip as u64 | (code as u64) << 60, std::sync::atomic::Ordering::SeqCst);
    }
}

fn a_program_steps_through_itself() -> CaseResult {
    crate::signal::set_action(libc::SIGTRAP, note_step as *const () as usize, libc::SA_SIGINFO, &[])?;
    // pushf; orl $0x100,(%rsp); popf; nop; nop; pushf; andl $~0x100,(%rsp); popf; ret
    let at = code(b"\x9c\x81\x0c\x24\0\x01\0\0\x9d\x90\x90\x9c\x81\x24\x24\xff\xfe\xff\xff\x9d\xc3")?;
    // SAFETY: the code changes flags only, and returns.
    unsafe { std::arch::asm!("call {at}", at = in(reg) at, clobber_abi("C")) };
    // The instruction behind the first popf is the first to trap, the second popf the last.
    let seen: Vec<u64> = STEPS.iter().map(|s| s.load(std::sync::atomic::Ordering::SeqCst)).collect();
    check_eq!(counted(), 5);
    let expected = [10, 11, 12, 19, 20].map(|offset| (at + offset) | (2 << 60));
    check_eq!(seen[..5], expected);
    Ok(())
}

/// A filter that asks the tracer, with a word for it, about getppid(2).
fn ask_about_getppid() -> Result<i64, crate::sys::SysError> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_getppid as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, 0x7ff0_0000 | 0x77),
        statement(libc::BPF_RET | libc::BPF_K, 0x7fff_0000),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    sys!(prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    sys!(prctl(libc::PR_SET_SECCOMP, 2, &raw const program))
}

fn filters_ask_the_tracer() -> CaseResult {
    let child = traced_with(libc::PTRACE_O_TRACESECCOMP, || {
        if ask_about_getppid().is_err() {
            return 90;
        }
        let ask = || raw!(SYS_getppid()).map_or_else(|error| error.errno, |value| value as i32);
        let (first, second, third) = (ask(), ask(), ask());
        i32::from(first != sys!(getppid()).unwrap_or(0) as i32) + 2 * i32::from(second != me()) + 4 * (third - 33)
    })?;
    let asked = event(libc::PTRACE_EVENT_SECCOMP);
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, asked);
    check_eq!(message(child)?, 0x77);
    let (len, words) = syscall_info(child)?;
    check_eq!((len, words[0], words[3], words[10]), (84, ARCH | 3, libc::SYS_getppid as u64, 0x77));
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, asked);
    let mut regs = registers(child)?;
    regs.orig_rax = libc::SYS_getpid as u64;
    set_registers(child, &regs)?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, asked);
    regs = registers(child)?;
    (regs.orig_rax, regs.rax) = (u64::MAX, 33);
    set_registers(child, &regs)?;
    // The one by which the child compares.
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, asked);
    ends(child, 0)
}

fn filters_without_a_tracer_are_enosys() -> CaseResult {
    let child = fork_child(|| {
        if ask_about_getppid().is_err() {
            return 90;
        }
        raw!(SYS_getppid()).map_or_else(|error| error.errno, |_| 91)
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(libc::ENOSYS));
    // SECCOMP_GET_ACTION_AVAIL.
    let action = 0x7ff0_0000_u32;
    check_eq!(raw!(SYS_seccomp(2, 0, &raw const action))?, 0);
    Ok(())
}
