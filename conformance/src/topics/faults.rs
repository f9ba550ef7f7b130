//! Faults and exceptions as signals: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, and recovery from them.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq};
use crate::child::{Ended, fork_child, wait_for};
use crate::fault::{Access, Fault, last_error_code, touch};
use crate::memory::{PAGE, RW, anonymous, map, peek, poke, protect, unmap};
use crate::signal::set_action;
use crate::sys::{raw, sys};
use crate::util::create;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

topic!(faults: [
    null_is_maperr,
    unmapped_after_munmap_is_maperr,
    write_to_read_only_is_accerr,
    read_of_prot_none_is_accerr,
    execute_of_data_is_accerr,
    page_fault_error_code_tells_the_access,
    bus_error_past_the_end_of_file,
    handler_maps_the_page_and_the_access_goes_on,
    handler_of_another_stack_survives_stack_overflow,
    fault_with_the_signal_blocked_kills,
    fault_with_the_signal_ignored_kills,
    division_by_zero_is_fpe_intdiv,
    invalid_instruction_is_ill,
    breakpoint_is_trap,
    single_step_flag_is_trap,
    privileged_instruction_is_segv,
    non_canonical_address_is_segv_of_the_kernel,
    kernel_copies_give_efault_and_no_signal,
    load_by_an_instruction_that_crosses_a_page,
]);

fn null_is_maperr() -> CaseResult {
    check_eq!(touch(0, Access::Read)?, Some(Fault::unmapped(0)));
    check_eq!(touch(8, Access::Write)?, Some(Fault::unmapped(8)));
    Ok(())
}

fn unmapped_after_munmap_is_maperr() -> CaseResult {
    let page = anonymous(1, RW)?;
    check_eq!(touch(page as usize + 5, Access::Write)?, None);
    unmap(page, PAGE)?;
    check_eq!(touch(page as usize + 5, Access::Read)?, Some(Fault::unmapped(page as usize + 5)));
    Ok(())
}

fn write_to_read_only_is_accerr() -> CaseResult {
    let page = anonymous(1, RW)?;
    poke(page, 0, 3);
    protect(page, PAGE, libc::PROT_READ)?;
    check_eq!(touch(page as usize, Access::Read)?, None);
    check_eq!(touch(page as usize + 1, Access::Write)?, Some(Fault::forbidden(page as usize + 1)));
    check_eq!(peek(page, 0), 3);
    protect(page, PAGE, RW)?;
    check_eq!(touch(page as usize + 1, Access::Write)?, None);
    Ok(())
}

fn read_of_prot_none_is_accerr() -> CaseResult {
    let page = anonymous(1, libc::PROT_NONE)?;
    check_eq!(touch(page as usize, Access::Read)?, Some(Fault::forbidden(page as usize)));
    check_eq!(touch(page as usize, Access::Write)?, Some(Fault::forbidden(page as usize)));
    Ok(())
}

fn execute_of_data_is_accerr() -> CaseResult {
    const RET: u8 = 0xc3;
    let page = anonymous(1, RW)?;
    poke(page, 0, RET);
    check_eq!(touch(page as usize, Access::Execute)?, Some(Fault::forbidden(page as usize)));
    protect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC)?;
    check_eq!(touch(page as usize, Access::Execute)?, None);
    Ok(())
}

fn page_fault_error_code_tells_the_access() -> CaseResult {
    let page = anonymous(1, libc::PROT_NONE)?;
    touch(page as usize, Access::Read)?;
    check_eq!(last_error_code() & 0x16, 4);
    touch(page as usize, Access::Write)?;
    check_eq!(last_error_code() & 0x16, 6);
    touch(page as usize, Access::Execute)?;
    check_eq!(last_error_code() & 0x16, 0x14);
    Ok(())
}

fn bus_error_past_the_end_of_file() -> CaseResult {
    let file = create(c"f", &[1; 100])?;
    let memory = map(2 * PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), 0)?;
    check_eq!(touch(memory as usize + PAGE - 1, Access::Read)?, None);
    let beyond = memory as usize + PAGE + 7;
    let bus = Fault { signal: libc::SIGBUS, code: 2, address: beyond };
    check_eq!(touch(beyond, Access::Read)?, Some(bus));
    sys!(ftruncate(file.as_raw_fd(), 2 * PAGE as i64))?;
    check_eq!(touch(beyond, Access::Write)?, None);
    sys!(ftruncate(file.as_raw_fd(), 10))?;
    check_eq!(touch(beyond, Access::Read)?, Some(bus));
    check_eq!(peek(memory, 9), 1);
    check_eq!(peek(memory, 10), 0);
    Ok(())
}

static GUARD: AtomicUsize = AtomicUsize::new(0);
static OPENED: AtomicI32 = AtomicI32::new(0);

extern "C" fn open_guard(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo; a SIGSEGV has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let page = GUARD.load(Ordering::SeqCst);
    if !(page..page + PAGE).contains(&address) {
        // SAFETY: ends this process.
        unsafe { libc::_exit(9) };
    }
    OPENED.fetch_add(1, Ordering::SeqCst);
    let _ = protect(page as *mut u8, PAGE, RW);
}

fn handler_maps_the_page_and_the_access_goes_on() -> CaseResult {
    set_action(libc::SIGSEGV, open_guard as *const () as usize, libc::SA_SIGINFO, &[])?;
    let page = anonymous(1, libc::PROT_NONE)?;
    GUARD.store(page as usize, Ordering::SeqCst);
    poke(page, 17, 99);
    check_eq!(peek(page, 17), 99);
    check_eq!(OPENED.load(Ordering::SeqCst), 1);
    Ok(())
}

extern "C" fn exit_7(_: i32) {
    // SAFETY: ends this process.
    unsafe { libc::_exit(7) };
}

#[expect(unconditional_recursion, reason = "meant to run out of stack")]
fn recurse(depth: usize) -> usize {
    let mut frame = [depth; 64];
    std::hint::black_box(&mut frame);
    recurse(depth + 1) + frame[depth % 64]
}

fn handler_of_another_stack_survives_stack_overflow() -> CaseResult {
    let child = fork_child(|| {
        let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        let _ = sys!(setrlimit(libc::RLIMIT_STACK, &limit));
        let stack = vec![0u8; 65_536];
        let stack = libc::stack_t { ss_sp: stack.leak().as_mut_ptr().cast(), ss_flags: 0, ss_size: 65_536 };
        let _ = sys!(sigaltstack(&stack, std::ptr::null_mut()));
        let _ = set_action(libc::SIGSEGV, exit_7 as *const () as usize, libc::SA_ONSTACK, &[]);
        i32::from(recurse(1) == 0)
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(7));
    let child = fork_child(|| {
        // Without it there is no place for the frame.
        let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        let _ = sys!(setrlimit(libc::RLIMIT_STACK, &limit));
        let _ = set_action(libc::SIGSEGV, exit_7 as *const () as usize, 0, &[]);
        i32::from(recurse(1) == 0)
    })?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGSEGV));
    Ok(())
}

fn fault_with_the_signal_blocked_kills() -> CaseResult {
    let child = fork_child(|| {
        let _ = set_action(libc::SIGSEGV, exit_7 as *const () as usize, 0, &[]);
        let _ = crate::signal::block(&[libc::SIGSEGV]);
        poke(std::ptr::without_provenance_mut(16), 0, 1);
        0
    })?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGSEGV));
    Ok(())
}

fn fault_with_the_signal_ignored_kills() -> CaseResult {
    let child = fork_child(|| {
        let _ = set_action(libc::SIGSEGV, libc::SIG_IGN, 0, &[]);
        let _ = sys!(kill(std::process::id() as i32, libc::SIGSEGV));
        poke(std::ptr::without_provenance_mut(16), 0, 1);
        0
    })?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGSEGV));
    Ok(())
}

static TRAP_CODE: AtomicI32 = AtomicI32::new(i32::MIN);
static TRAP_AT_RIP: AtomicI32 = AtomicI32::new(-1);
static SKIP: AtomicUsize = AtomicUsize::new(0);

/// Notes si_code and whether si_addr is the instruction pointer, skips so many bytes and clears the trap flag.
extern "C" fn note_and_skip(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo and ucontext.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let rip = &mut registers[libc::REG_RIP as usize];
        TRAP_CODE.store((*info).si_code, Ordering::SeqCst);
        TRAP_AT_RIP.store(i32::from((*info).si_addr() as i64 == *rip), Ordering::SeqCst);
        *rip += SKIP.load(Ordering::SeqCst) as i64;
        registers[libc::REG_EFL as usize] &= !0x100;
    }
}

fn trap(signal: i32, skip: usize, body: fn()) -> CaseResult<(i32, bool)> {
    SKIP.store(skip, Ordering::SeqCst);
    set_action(signal, note_and_skip as *const () as usize, libc::SA_SIGINFO, &[])?;
    body();
    Ok((TRAP_CODE.load(Ordering::SeqCst), TRAP_AT_RIP.load(Ordering::SeqCst) == 1))
}

fn division_by_zero_is_fpe_intdiv() -> CaseResult {
    // SAFETY: the handler skips the two bytes of `div ecx`.
    let divide = || unsafe {
        std::arch::asm!("xor edx, edx", "div ecx", in("ecx") 0, inout("eax") 1 => _, out("edx") _);
    };
    check_eq!(trap(libc::SIGFPE, 2, divide)?, (1, true));
    Ok(())
}

fn invalid_instruction_is_ill() -> CaseResult {
    // SAFETY: the handler skips the two bytes of `ud2`.
    check_eq!(trap(libc::SIGILL, 2, || unsafe { std::arch::asm!("ud2") })?, (2, true));
    Ok(())
}

fn breakpoint_is_trap() -> CaseResult {
    // SAFETY: int3 goes on behind itself.
    let (code, _) = trap(libc::SIGTRAP, 0, || unsafe { std::arch::asm!("int3") })?;
    check_eq!(code, 0x80);
    Ok(())
}

fn single_step_flag_is_trap() -> CaseResult {
    // SAFETY: sets the trap flag; the handler clears it in the context it returns to.
    let step = || unsafe {
        std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop");
    };
    let (code, _) = trap(libc::SIGTRAP, 0, step)?;
    check_eq!(code, 2);
    Ok(())
}

fn privileged_instruction_is_segv() -> CaseResult {
    // SAFETY: the handler skips the byte of `hlt`.
    let (code, _) = trap(libc::SIGSEGV, 1, || unsafe { std::arch::asm!("hlt") })?;
    check_eq!(code, 0x80);
    Ok(())
}

fn non_canonical_address_is_segv_of_the_kernel() -> CaseResult {
    let fault = touch(0x8000_0000_0000_0000, Access::Read)?;
    check_eq!(fault, Some(Fault { signal: libc::SIGSEGV, code: 0x80, address: 0 }));
    // Where only the kernel may look: the address is told, and no more than that nothing is mapped.
    let fault = touch(0xffff_8000_0000_0000, Access::Read)?;
    check_eq!(fault, Some(Fault::unmapped(0xffff_8000_0000_0000)));
    Ok(())
}

fn kernel_copies_give_efault_and_no_signal() -> CaseResult {
    let page = anonymous(2, RW)?;
    protect(page.wrapping_add(PAGE), PAGE, libc::PROT_NONE)?;
    let file = create(c"f", &[b'x'; 100])?;
    let fd = file.as_raw_fd();
    for address in [0usize, 8, page as usize + PAGE, usize::MAX - 5, 0xffff_8000_0000_0000] {
        let outcome = raw!(SYS_pread64(fd, address, 10, 0));
        check_eq!(outcome.map_err(|error| error.errno), Err(libc::EFAULT));
        let outcome = raw!(SYS_pwrite64(fd, address, 10, 0));
        check_eq!(outcome.map_err(|error| error.errno), Err(libc::EFAULT));
    }
    // What lies before the bad page is copied.
    let edge = page as usize + PAGE - 4;
    let outcome = raw!(SYS_pread64(fd, edge, 10, 0));
    check!(matches!(outcome, Ok(4)) || outcome.is_err_and(|error| error.errno == libc::EFAULT));
    check_eq!(raw!(SYS_pread64(fd, edge, 4, 0))?, 4);
    check_eq!(peek(page, PAGE - 1), b'x');
    Ok(())
}

fn load_by_an_instruction_that_crosses_a_page() -> CaseResult {
    // mov (%rdi),%rax; ret
    let code = [0x48u8, 0x8b, 0x07, 0xc3];
    let memory = anonymous(2, RW)?;
    for at in PAGE - 3..=PAGE {
        code.iter().enumerate().for_each(|(i, byte)| poke(memory, at + i, *byte));
        protect(memory, 2 * PAGE, libc::PROT_READ | libc::PROT_EXEC)?;
        // SAFETY: a function of this signature lies there.
        #[expect(clippy::disallowed_methods, reason = "a function made of bytes")]
        let load: extern "C" fn(*const u64) -> u64 =
            unsafe { std::mem::transmute(memory.wrapping_add(at)) };
        // A page that may only be read and was not touched yet.
        let data = anonymous(1, libc::PROT_READ)?;
        check_eq!(load(data.cast_const().cast()), 0);
        protect(memory, 2 * PAGE, RW)?;
    }
    Ok(())
}
