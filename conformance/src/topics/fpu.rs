//! Floating point and vector state: across system calls, signals, threads and fork.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq};
use crate::child::{Ended, fork_child, wait_for};
use crate::signal::{count, set_action};
use crate::sys::{raw, sys};
use crate::util::me;
use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_storeu_si256,
};

topic!(fpu: [
    vector_registers_survive_a_system_call,
    upper_halves_survive_a_handler,
    frame_holds_the_state_of_the_interrupted,
    changed_frame_changes_the_registers,
    control_words_are_kept_and_fresh_in_handlers,
    threads_have_their_own_state,
    fork_copies_the_state,
    preemption_keeps_the_state,
]);

fn has_avx() -> bool {
    std::is_x86_feature_detected!("avx")
}

/// Makes kill(2) of this process with all of ymm1 and ymm9 loaded; what they hold after it.
#[target_feature(enable = "avx")]
fn kill_with_ymm(signal: i32, values: [i64; 2]) -> [[i64; 4]; 2] {
    let (mut a, mut b) = (_mm256_set1_epi64x(values[0]), _mm256_set1_epi64x(values[1]));
    // SAFETY: the system call convention; the vectors are operands.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") libc::SYS_kill => _, in("rdi") i64::from(me()), in("rsi") i64::from(signal),
            lateout("rcx") _, lateout("r11") _, inout("ymm1") a, inout("ymm9") b,
        );
    }
    let mut out = [[0i64; 4]; 2];
    // SAFETY: both places hold 32 bytes.
    unsafe {
        _mm256_storeu_si256(out[0].as_mut_ptr().cast::<__m256i>(), a);
        _mm256_storeu_si256(out[1].as_mut_ptr().cast::<__m256i>(), b);
    }
    out
}

fn vector_registers_survive_a_system_call() -> CaseResult {
    if has_avx() {
        for round in 0..100i64 {
            // SAFETY: the processor has it. Signal 0 sends nothing.
            let out = unsafe { kill_with_ymm(0, [round, !round]) };
            check_eq!(out, [[round; 4], [!round; 4]]);
        }
    }
    Ok(())
}

#[target_feature(enable = "avx")]
fn clear_ymm() {
    let zero = _mm256_setzero_si256();
    // SAFETY: only overwrites what it says.
    unsafe {
        std::arch::asm!("vmovdqa ymm1, {z}", "vmovdqa ymm9, {z}", z = in(ymm_reg) zero, out("ymm1") _, out("ymm9") _);
    }
}

extern "C" fn spoil(signal: i32) {
    count(signal);
    // SAFETY: installed only where the processor has it.
    unsafe { clear_ymm() };
}

fn upper_halves_survive_a_handler() -> CaseResult {
    if has_avx() {
        set_action(libc::SIGUSR1, spoil as *const () as usize, 0, &[])?;
        for round in 1..50i64 {
            // SAFETY: the processor has it.
            let out = unsafe { kill_with_ymm(libc::SIGUSR1, [round, -round]) };
            check_eq!(out, [[round; 4], [-round; 4]]);
        }
        check_eq!(crate::signal::counted(), 49);
    }
    Ok(())
}

static SEEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// The low half of xmm1 in the frame, which is then replaced.
extern "C" fn look_into_frame(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext whose fpregs point into the frame.
    unsafe {
        let fpregs = (*context.cast::<libc::ucontext_t>()).uc_mcontext.fpregs;
        let xmm1 = &mut (*fpregs)._xmm[1].element;
        SEEN.store(u64::from(xmm1[0]) | u64::from(xmm1[1]) << 32, std::sync::atomic::Ordering::SeqCst);
        xmm1[0] = 0x77;
        xmm1[1] = 0;
    }
}

fn frame_holds_the_state_of_the_interrupted() -> CaseResult {
    if has_avx() {
        set_action(libc::SIGUSR1, look_into_frame as *const () as usize, libc::SA_SIGINFO, &[])?;
        // SAFETY: the processor has it.
        unsafe { kill_with_ymm(libc::SIGUSR1, [0x1122_3344_5566_7788, 5]) };
        check_eq!(SEEN.load(std::sync::atomic::Ordering::SeqCst), 0x1122_3344_5566_7788);
    }
    Ok(())
}

fn changed_frame_changes_the_registers() -> CaseResult {
    if has_avx() {
        set_action(libc::SIGUSR1, look_into_frame as *const () as usize, libc::SA_SIGINFO, &[])?;
        // SAFETY: the processor has it.
        let out = unsafe { kill_with_ymm(libc::SIGUSR1, [0x1122_3344_5566_7788, 5]) };
        check_eq!(out, [[0x77, 0x1122_3344_5566_7788, 0x1122_3344_5566_7788, 0x1122_3344_5566_7788], [5; 4]]);
    }
    Ok(())
}

static HANDLER_CSR: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

fn csr() -> u32 {
    let mut value = 0u32;
    // SAFETY: four writable bytes.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value) };
    value
}

fn set_csr(value: u32) {
    // SAFETY: four readable bytes, which mask all exceptions.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value) };
}

extern "C" fn note_csr(_: i32) {
    HANDLER_CSR.store(csr(), std::sync::atomic::Ordering::SeqCst);
    // Undone by the return.
    set_csr(0x1f80);
}

fn control_words_are_kept_and_fresh_in_handlers() -> CaseResult {
    const DEFAULT: u32 = 0x1f80;
    const ROUND_UP: u32 = 0x5f80;
    set_action(libc::SIGUSR1, note_csr as *const () as usize, 0, &[])?;
    set_csr(ROUND_UP);
    sys!(kill(me(), libc::SIGUSR1))?;
    let after = csr();
    set_csr(DEFAULT);
    check_eq!(after & 0xffc0, ROUND_UP);
    // Linux hands the interrupted control word on to the handler.
    let inside = HANDLER_CSR.load(std::sync::atomic::Ordering::SeqCst) & 0xffc0;
    check!(inside == ROUND_UP || inside == DEFAULT, "{inside:x}");
    Ok(())
}

/// Sums in floating point in a way that any disturbance shows.
fn work(seed: u64, rounds: u32) -> u64 {
    let mut x = seed as f64;
    for i in 0..rounds {
        x = (x * 1.000_000_1 + f64::from(i)).sqrt() + 1.0;
        if i % 64 == 0 {
            let _ = raw!(SYS_getppid());
        }
    }
    x.to_bits()
}

fn threads_have_their_own_state() -> CaseResult {
    let expected: Vec<u64> = (0..4).map(|seed| work(seed, 20_000)).collect();
    let threads: Vec<_> = (0..4).map(|seed| std::thread::spawn(move || work(seed, 20_000))).collect();
    for (thread, expected) in threads.into_iter().zip(expected) {
        check_eq!(thread.join().map_err(|_| "panic")?, expected);
    }
    Ok(())
}

#[target_feature(enable = "avx")]
fn fork_with_ymm(value: i64) -> (i64, [i64; 4]) {
    let mut a = _mm256_set1_epi64x(value);
    let mut pid = libc::SYS_fork;
    // SAFETY: the system call convention; the vector is an operand in both processes.
    unsafe {
        std::arch::asm!(
            "syscall", inlateout("rax") pid, lateout("rcx") _, lateout("r11") _, inout("ymm5") a,
        );
    }
    let mut out = [0i64; 4];
    // SAFETY: 32 bytes each.
    unsafe {
        _mm256_storeu_si256(out.as_mut_ptr().cast::<__m256i>(), a);
        a = _mm256_loadu_si256(out.as_ptr().cast::<__m256i>());
        let _ = a;
    }
    (pid, out)
}

fn fork_copies_the_state() -> CaseResult {
    if has_avx() {
        // SAFETY: the processor has it.
        let (pid, seen) = unsafe { fork_with_ymm(0x55aa) };
        if pid == 0 {
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(seen != [0x55aa; 4])) };
        }
        check_eq!(seen, [0x55aa; 4]);
        check_eq!(wait_for(pid as i32)?, Ended::Exited(0));
    }
    Ok(())
}

fn preemption_keeps_the_state() -> CaseResult {
    let expected: Vec<u64> = (0..6).map(|seed| work(seed, 100_000)).collect();
    let mut children = Vec::new();
    for (seed, expected) in expected.into_iter().enumerate() {
        children.push(fork_child(|| i32::from(work(seed as u64, 100_000) != expected))?);
    }
    for child in children {
        check_eq!(wait_for(child)?, Ended::Exited(0));
    }
    Ok(())
}
