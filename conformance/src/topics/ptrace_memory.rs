//! ptrace(2): memory and registers of a stopped thread.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, wait_for};
use crate::memory::{PAGE, RW, anonymous, map, shared_words};
use crate::sys::{open, raw, sys, zeroed};
use crate::tracer::{go, next, peek_word, poke_word, ptrace, registers, set_registers, traced};
use crate::util::{create, me, pread};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

topic!(ptrace_memory: [
    words_are_read_and_written,
    bad_addresses_are_eio,
    a_breakpoint_in_own_text,
    text_of_a_file_is_copied_on_write,
    shared_memory_that_is_read_only_is_eio,
    other_process_by_process_vm,
    registers_one_by_one_and_all,
    offsets_into_user,
    registers_change_results,
    registers_user_space_cannot_have,
    register_sets_and_their_lengths,
    legacy_fpu_state,
    extended_state,
    debug_registers_are_quiet,
    segment_bases,
    the_vdso_is_read,
]);

static WORD: AtomicU64 = AtomicU64::new(0x1122_3344_5566_7788);

/// A child that stops by SIGUSR1 after its first stop, and then exits with a value that `code` gives.
fn stopper(code: impl FnOnce() -> i32) -> CaseResult<i32> {
    traced(|| {
        let _ = raw!(SYS_kill(me(), libc::SIGUSR1));
        code()
    })
}

fn finish(child: i32, code: i32) -> CaseResult {
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(code));
    Ok(())
}

fn words_are_read_and_written() -> CaseResult {
    let child = stopper(|| WORD.load(Ordering::SeqCst) as i32)?;
    let at = WORD.as_ptr() as u64;
    check_eq!(peek_word(child, at)?, 0x1122_3344_5566_7788);
    check_eq!(peek_word(child, at + 1)? & 0xff_ffff, 0x55_6677);
    poke_word(child, at, 33)?;
    check_eq!(WORD.load(Ordering::SeqCst), 0x1122_3344_5566_7788);
    expect_errno!(ptrace(libc::PTRACE_PEEKDATA, child, at, 8), libc::EFAULT);
    finish(child, 33)
}

fn bad_addresses_are_eio() -> CaseResult {
    let pages = anonymous(2, RW)? as u64;
    sys!(munmap((pages as usize + PAGE) as *mut libc::c_void, PAGE))?;
    let child = stopper(|| 0)?;
    // The last word has no second half.
    for at in [0, 8, pages + 4092, 0x7fff_ffff_f000, 0xffff_8000_0000_0000, u64::MAX - 3] {
        expect_errno!(peek_word(child, at), libc::EIO);
        expect_errno!(poke_word(child, at, 0), libc::EIO);
    }
    check_eq!(peek_word(child, pages + 4088)?, 0);
    finish(child, 0)
}

#[inline(never)]
extern "C" fn answer(value: i32) -> i32 {
    std::hint::black_box(value) + 1
}

fn a_breakpoint_in_own_text() -> CaseResult {
    let at = answer as *const () as u64;
    let child = stopper(|| std::hint::black_box(answer as extern "C" fn(i32) -> i32)(16))?;
    let original = peek_word(child, at)?;
    poke_word(child, at, original & !0xff | 0xcc)?;
    check_eq!(peek_word(child, at)?, original & !0xff | 0xcc);
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGTRAP);
    check_eq!(crate::tracer::siginfo(child)?.si_code, 0x80);
    let mut regs = registers(child)?;
    check_eq!((regs.rip, regs.rdi as u32), (at + 1, 16));
    poke_word(child, at, original)?;
    regs.rip = at;
    set_registers(child, &regs)?;
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(17));
    // Only the child had it.
    check_eq!(std::hint::black_box(answer as extern "C" fn(i32) -> i32)(1), 2);
    Ok(())
}

fn text_of_a_file_is_copied_on_write() -> CaseResult {
    create(c"text", &[0x90; PAGE])?;
    let file = open(c"text", libc::O_RDONLY, 0)?;
    let text = map(PAGE, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE, file.as_raw_fd(), 0)? as u64;
    let child = stopper(|| 0)?;
    check_eq!(peek_word(child, text + 8)?, 0x9090_9090_9090_9090);
    poke_word(child, text + 8, 0xcc)?;
    check_eq!(peek_word(child, text + 8)?, 0xcc);
    check_eq!(pread(file.as_raw_fd(), 8, 8)?, [0x90; 8]);
    check_eq!(peek_word(child, text)?, 0x9090_9090_9090_9090);
    finish(child, 0)
}

fn shared_memory_that_is_read_only_is_eio() -> CaseResult {
    create(c"data", &[7; PAGE])?;
    let file = open(c"data", libc::O_RDONLY, 0)?;
    let shared = map(PAGE, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)? as u64;
    let none = anonymous(1, libc::PROT_NONE)? as u64;
    let child = stopper(|| 0)?;
    check_eq!(peek_word(child, shared)?, 0x0707_0707_0707_0707);
    expect_errno!(poke_word(child, shared, 1), libc::EIO);
    // A private mapping may be looked at and changed whatever it allows the program.
    check_eq!(peek_word(child, none)?, 0);
    poke_word(child, none, 5)?;
    check_eq!(peek_word(child, none)?, 5);
    finish(child, 0)
}

fn other_process_by_process_vm() -> CaseResult {
    let child = stopper(|| WORD.load(Ordering::SeqCst) as i32)?;
    let mut value = 0u64;
    let local = libc::iovec { iov_base: (&raw mut value).cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: WORD.as_ptr().cast(), iov_len: 8 };
    check_eq!(sys!(process_vm_readv(child, &local, 1, &remote, 1, 0))?, 8);
    check_eq!(std::hint::black_box(value), 0x1122_3344_5566_7788);
    std::hint::black_box(&mut value).clone_from(&44);
    check_eq!(sys!(process_vm_writev(child, &local, 1, &remote, 1, 0))?, 8);
    finish(child, 44)
}

fn peek_user(pid: i32, offset: u64) -> Result<u64, crate::sys::SysError> {
    let mut word = 0u64;
    ptrace(libc::PTRACE_PEEKUSER, pid, offset, &raw mut word as u64)?;
    Ok(word)
}

fn registers_one_by_one_and_all() -> CaseResult {
    let child = stopper(|| 0)?;
    let regs = registers(child)?;
    let all = &raw const regs;
    for index in 0..27 {
        // SAFETY: the structure has 27 words.
        let word = unsafe { all.cast::<u64>().add(index).read() };
        check_eq!(peek_user(child, 8 * index as u64)?, word);
    }
    check_eq!((regs.cs, regs.ss, regs.rax, regs.orig_rax), (0x33, 0x2b, 0, libc::SYS_kill as u64));
    check_eq!((regs.rdi, regs.rsi, regs.rcx), (child as u64, libc::SIGSTOP as u64, regs.rip));
    check_eq!(regs.eflags & 0x300, 0x200);
    finish(child, 0)
}

fn offsets_into_user() -> CaseResult {
    let child = stopper(|| 0)?;
    for offset in [1, 4, 928, 4096, u64::MAX - 7] {
        expect_errno!(peek_user(child, offset), libc::EIO);
        expect_errno!(ptrace(libc::PTRACE_POKEUSER, child, offset, 0), libc::EIO);
    }
    for offset in [216, 224, 736, 840, 912, 920] {
        check_eq!(peek_user(child, offset)?, 0);
        expect_errno!(ptrace(libc::PTRACE_POKEUSER, child, offset, 0), libc::EIO);
    }
    expect_errno!(ptrace(libc::PTRACE_PEEKUSER, child, 0, 8), libc::EFAULT);
    finish(child, 0)
}

fn registers_change_results() -> CaseResult {
    let child = traced(|| raw!(SYS_kill(me(), libc::SIGUSR1)).map_or(0, |value| value as i32))?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    // Where rax is in `struct user`.
    check_eq!(ptrace(libc::PTRACE_POKEUSER, child, 80, 55)?, 0);
    check_eq!(registers(child)?.rax, 55);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(55));
    Ok(())
}

fn registers_user_space_cannot_have() -> CaseResult {
    let child = stopper(|| 0)?;
    let regs = registers(child)?;
    let with = |change: fn(&mut libc::user_regs_struct)| {
        let mut changed = regs;
        change(&mut changed);
        set_registers(child, &changed)
    };
    expect_errno!(with(|r| r.cs = 0), libc::EIO);
    expect_errno!(with(|r| r.cs = 0x10), libc::EIO);
    expect_errno!(with(|r| r.ss = 0x18), libc::EIO);
    expect_errno!(with(|r| r.ds = 0x18), libc::EIO);
    expect_errno!(with(|r| r.fs_base = 0x8000_0000_0000), libc::EIO);
    expect_errno!(with(|r| r.gs_base = u64::MAX), libc::EIO);
    with(|r| r.eflags = u64::MAX)?;
    // Neither privilege nor the interrupt flag.
    check_eq!(registers(child)?.eflags & !0x5_4dd5, regs.eflags & !0x5_4dd5);
    with(|_| ())?;
    finish(child, 0)
}

const GETREGSET: u32 = 0x4204;
const SETREGSET: u32 = 0x4205;
const PRSTATUS: u64 = 1;
const PRFPREG: u64 = 2;
const XSTATE: u64 = 0x202;

/// A request for a register set: what the length is afterwards.
fn set(request: u32, pid: i32, kind: u64, bytes: &mut [u8]) -> Result<usize, crate::sys::SysError> {
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    ptrace(request, pid, kind, &raw mut vector as u64)?;
    Ok(vector.iov_len)
}

fn register_sets_and_their_lengths() -> CaseResult {
    let child = stopper(|| 0)?;
    let mut bytes = vec![0u8; 16384];
    check_eq!(set(GETREGSET, child, PRSTATUS, &mut bytes)?, 216);
    let rip = u64::from_le_bytes(bytes[128..136].try_into().unwrap_or_default());
    check_eq!(rip, registers(child)?.rip);
    check_eq!(set(GETREGSET, child, PRSTATUS, &mut bytes[..16])?, 16);
    expect_errno!(set(GETREGSET, child, PRSTATUS, &mut bytes[..15]), libc::EINVAL);
    expect_errno!(set(GETREGSET, child, 0x9999, &mut bytes), libc::EINVAL);
    expect_errno!(ptrace(GETREGSET, child, PRSTATUS, 8), libc::EFAULT);
    // r15 and r14 only.
    check_eq!(set(SETREGSET, child, PRSTATUS, &mut [9; 16])?, 16);
    let regs = registers(child)?;
    check_eq!((regs.r15, regs.r14, regs.rip), (0x0909_0909_0909_0909, 0x0909_0909_0909_0909, rip));
    check_eq!(set(GETREGSET, child, PRFPREG, &mut bytes)?, 512);
    expect_errno!(set(SETREGSET, child, PRFPREG, &mut bytes[..504]), libc::EINVAL);
    let len = set(GETREGSET, child, XSTATE, &mut bytes)?;
    check!(len >= 576, "{len}");
    expect_errno!(set(SETREGSET, child, XSTATE, &mut bytes[..len - 8]), libc::EFAULT);
    sys!(kill(child, libc::SIGKILL))?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
    Ok(())
}

/// Stops with a value in xmm5; what is there afterwards.
fn with_xmm5(value: u64) -> u64 {
    let after: u64;
    // SAFETY: the code makes a system call, kill(2) of the own process, and changes what is declared.
    unsafe {
        std::arch::asm!(
            "movq xmm5, {value}",
            "syscall",
            "movq {after}, xmm5",
            value = in(reg) value, after = lateout(reg) after,
            inlateout("rax") libc::SYS_kill => _, in("rdi") me(), in("rsi") libc::SIGUSR1,
            out("rcx") _, out("r11") _, out("xmm5") _,
        );
    }
    after
}

/// Where xmm5 is in the state.
const XMM5: std::ops::Range<usize> = 240..248;

fn legacy_fpu_state() -> CaseResult {
    let child = traced(|| with_xmm5(0x1234) as i32)?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    let mut state = [0u8; 512];
    ptrace(libc::PTRACE_GETFPREGS, child, 0, state.as_mut_ptr() as u64)?;
    check_eq!(state[XMM5], 0x1234_u64.to_le_bytes());
    // The control words of a fresh thread.
    check_eq!(state[..2], [0x7f, 3]);
    check_eq!(state[24..28], [0x80, 0x1f, 0, 0]);
    state[XMM5].copy_from_slice(&66_u64.to_le_bytes());
    ptrace(libc::PTRACE_SETFPREGS, child, 0, state.as_ptr() as u64)?;
    // A bit of MXCSR that there is not.
    state[27] = 0xff;
    expect_errno!(ptrace(libc::PTRACE_SETFPREGS, child, 0, state.as_ptr() as u64), libc::EINVAL);
    expect_errno!(ptrace(libc::PTRACE_GETFPREGS, child, 0, 8), libc::EFAULT);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(66));
    Ok(())
}

fn extended_state() -> CaseResult {
    let child = traced(|| with_xmm5(0x4321) as i32)?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, libc::SIGUSR1);
    let mut state = vec![0u8; 16384];
    let len = set(GETREGSET, child, XSTATE, &mut state)?;
    state.truncate(len);
    check_eq!(state[XMM5], 0x4321_u64.to_le_bytes());
    // The components that there are, where software may keep something; and those that are in use.
    let there = u64::from_le_bytes(state[464..472].try_into().unwrap_or_default());
    let used = u64::from_le_bytes(state[512..520].try_into().unwrap_or_default());
    check!(there & 3 == 3 && used & !there == 0, "{there:#x} {used:#x}");
    state[XMM5].copy_from_slice(&99_u64.to_le_bytes());
    check_eq!(set(SETREGSET, child, XSTATE, &mut state)?, len);
    // A component that there is not.
    state[519] = 0x40;
    expect_errno!(set(SETREGSET, child, XSTATE, &mut state), libc::EINVAL);
    go(libc::PTRACE_CONT, child, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(99));
    Ok(())
}

fn debug_registers_are_quiet() -> CaseResult {
    let child = stopper(|| 0)?;
    for register in [0, 1, 2, 3, 7] {
        check_eq!(peek_user(child, 848 + 8 * register)?, 0);
    }
    check_eq!(ptrace(libc::PTRACE_POKEUSER, child, 848 + 8 * 7, 0)?, 0);
    check_eq!(ptrace(libc::PTRACE_POKEUSER, child, 848 + 8 * 6, 0)?, 0);
    expect_errno!(ptrace(libc::PTRACE_POKEUSER, child, 848 + 8 * 4, 0), libc::EIO);
    finish(child, 0)
}

fn segment_bases() -> CaseResult {
    const ARCH_PRCTL: u32 = 30;
    const GET_FS: u64 = 0x1003;
    let words = shared_words()?;
    let child = stopper(|| {
        // The thread pointer is where it was.
        i32::from(sys!(getpid()) != Ok(i64::from(me())))
    })?;
    let mut base = 0u64;
    ptrace(ARCH_PRCTL, child, &raw mut base as u64, GET_FS)?;
    check_eq!(base, registers(child)?.fs_base);
    expect_errno!(ptrace(ARCH_PRCTL, child, 0x8000_0000_0000, 0x1002), libc::EPERM);
    expect_errno!(ptrace(ARCH_PRCTL, child, 0, 0x9999), libc::EINVAL);
    ptrace(ARCH_PRCTL, child, words.as_ptr() as u64, 0x1001)?;
    let mut regs: libc::user_regs_struct = zeroed();
    ptrace(libc::PTRACE_GETREGS, child, 0, &raw mut regs as u64)?;
    check_eq!(regs.gs_base, words.as_ptr() as u64);
    finish(child, 0)
}

fn the_vdso_is_read() -> CaseResult {
    // SAFETY: no pointers.
    let at = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    check!(at != 0);
    let child = stopper(|| 0)?;
    check_eq!(peek_word(child, at)?.to_le_bytes()[..4], *b"\x7fELF");
    finish(child, 0)
}
