//! Signals that arrive anywhere in code whose system calls a kernel may rewrite: what handlers see of the place, and what
//! they change, is as without.

use super::patched_calls::{AT_ANY, AT_PARENT, Text};
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq};
use crate::child::{Ended, fork_child, wait_for};
use crate::signal::{count_signal, counted, set_action};
use crate::sys::{monotonic_ns, pipe, raw, sys, write, zeroed};
use crate::util::me;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

topic!(patched_signals: [
    handlers_see_places_in_own_text,
    handlers_change_results_and_places,
    vectors_survive_calls_and_signals,
    blocking_call_is_restarted,
    blocking_call_is_interrupted,
    handler_that_jumps_away,
    old_entry_is_a_call_or_a_fault,
    old_page_of_calls,
]);

/// How many signals each storm is.
const SIGNALS: i32 = 2500;
/// And how long it takes at the most.
const STORM_NS: u64 = 4_000_000_000;

static TEXT: AtomicUsize = AtomicUsize::new(0);
/// The first place that was not in the program's text.
static STRANGE: AtomicU64 = AtomicU64::new(0);
static SIGNALED: AtomicI32 = AtomicI32::new(0);
static CHANGED: AtomicI32 = AtomicI32::new(0);
static CHANGES: AtomicBool = AtomicBool::new(false);

/// What a handler puts in place of a result.
const OTHER_RESULT: i64 = 0x5555;

/// Where instructions of the text start.
fn is_boundary(offset: usize) -> bool {
    let parent = [0, 5, 7].map(|at| AT_PARENT + at);
    let any = [0, 2, 5, 8, 11, 13, 19].map(|at| AT_ANY + at);
    parent.contains(&offset) || any.contains(&offset)
}

fn is_own_text(rip: usize) -> bool {
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    let text = TEXT.load(Ordering::SeqCst);
    // SAFETY: only the addresses of what the linker defines are taken.
    let own = (&raw const __executable_start) as usize..(&raw const etext) as usize;
    // SAFETY: getauxval only reads.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    own.contains(&rip)
        || vdso != 0 && (vdso..vdso + 0x4000).contains(&rip)
        || rip.checked_sub(text).is_some_and(is_boundary)
}

extern "C" fn look(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext, which it loads again on return.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let rip = registers[libc::REG_RIP as usize];
    let here = (&raw const rip) as usize;
    let near = (registers[libc::REG_RSP as usize] as usize).wrapping_sub(here) < 1 << 20;
    if !is_own_text(rip as usize) || !near {
        let _ = STRANGE.compare_exchange(0, rip as u64, Ordering::SeqCst, Ordering::SeqCst);
    }
    SIGNALED.fetch_add(1, Ordering::SeqCst);
    if CHANGES.load(Ordering::SeqCst) {
        let text = TEXT.load(Ordering::SeqCst);
        let offset = (rip as usize).wrapping_sub(text);
        if offset == AT_PARENT + 7 || offset == AT_ANY + 13 {
            // After the call.
            registers[libc::REG_RAX as usize] = OTHER_RESULT;
            CHANGED.fetch_add(1, Ordering::SeqCst);
        } else if offset == AT_PARENT || offset == AT_ANY {
            // Before it: past it.
            registers[libc::REG_RIP as usize] = (text + AT_ANY + 13) as i64;
            registers[libc::REG_RAX as usize] = OTHER_RESULT;
            CHANGED.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Sends SIGALRM by a timer and SIGUSR1 by a thread while `body` runs again and again.
fn storm(text: Text, mut body: impl FnMut() -> CaseResult) -> CaseResult {
    TEXT.store(text.0, Ordering::SeqCst);
    for signal in [libc::SIGALRM, libc::SIGUSR1] {
        set_action(signal, look as *const () as usize, libc::SA_SIGINFO | libc::SA_RESTART, &[])?;
    }
    let every = libc::timeval { tv_sec: 0, tv_usec: 70 };
    let mut timer = libc::itimerval { it_interval: every, it_value: every };
    sys!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()))?;
    let stop = AtomicBool::new(false);
    let (pid, tid) = (me(), raw!(SYS_gettid())?);
    let end = monotonic_ns() + STORM_NS;
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            // The signals are for the other thread.
            let _ = crate::signal::block(&[libc::SIGALRM, libc::SIGUSR1]);
            while !stop.load(Ordering::SeqCst) {
                let _ = raw!(SYS_tgkill(pid, tid, libc::SIGUSR1));
                let _ = raw!(SYS_sched_yield());
            }
        });
        let mut result = Ok(());
        while result.is_ok() && SIGNALED.load(Ordering::SeqCst) < SIGNALS && monotonic_ns() < end {
            result = (0..50).try_for_each(|_| body());
        }
        stop.store(true, Ordering::SeqCst);
        result
    });
    timer = zeroed();
    sys!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()))?;
    result?;
    let strange = STRANGE.load(Ordering::SeqCst);
    check!(strange == 0, "at {strange:x}, text at {:x}", text.0);
    check!(SIGNALED.load(Ordering::SeqCst) > 100, "{}", SIGNALED.load(Ordering::SeqCst));
    Ok(())
}

fn handlers_see_places_in_own_text() -> CaseResult {
    let text = Text::new()?;
    let parent = raw!(SYS_getppid())?;
    storm(text, || {
        check_eq!(text.parent(), parent);
        check_eq!(text.any(libc::SYS_getppid, [0; 3]), parent);
        check_eq!(text.any(libc::SYS_close, [u64::MAX, 0, 0]), -i64::from(libc::EBADF));
        Ok(())
    })
}

fn handlers_change_results_and_places() -> CaseResult {
    let text = Text::new()?;
    let parent = raw!(SYS_getppid())?;
    CHANGES.store(true, Ordering::SeqCst);
    let mut other = 0;
    storm(text, || {
        for result in [text.parent(), text.any(libc::SYS_getppid, [0; 3])] {
            check!(result == parent || result == OTHER_RESULT, "{result}");
            other += i32::from(result == OTHER_RESULT);
        }
        Ok(())
    })?;
    // How many there are is luck; each came from a handler.
    check!(CHANGED.load(Ordering::SeqCst) >= other, "{other}");
    Ok(())
}

/// A call of `at` with ymm2 and, where there is one, zmm20 loaded; how they differ afterwards.
#[target_feature(enable = "avx")]
fn call_with_vectors(at: usize, value: u64, wide: bool) -> [u64; 12] {
    let given = [value; 8];
    let mut out = [0u64; 12];
    // SAFETY: the code makes a system call and returns; all that it may change is declared. zmm20 is used where it is.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "sub rsp, 128",
            "vmovdqu ymm2, [{given}]",
            "test {wide:e}, {wide:e}", "jz 2f", "vmovdqu64 zmm20, [{given}]", "2:",
            "call {at}",
            "vmovdqu [{out}], ymm2",
            "test {wide:e}, {wide:e}", "jz 3f", "vmovdqu64 [{out} + 32], zmm20", "3:",
            "add rsp, 128",
            "pop rbx",
            "vzeroupper",
            given = in(reg) given.as_ptr(), out = in(reg) out.as_mut_ptr(), at = in(reg) at, wide = in(reg) u32::from(wide),
            out("rax") _, out("rcx") _, out("r11") _, out("xmm2") _,
        );
    }
    out
}

fn vectors_survive_calls_and_signals() -> CaseResult {
    if !std::is_x86_feature_detected!("avx") {
        return Ok(());
    }
    let wide = std::is_x86_feature_detected!("avx512f");
    let text = Text::new()?;
    let mut round = 0;
    storm(text, || {
        round += 1;
        // SAFETY: the processor has them.
        let out = unsafe { call_with_vectors(text.0 + AT_PARENT, round, wide) };
        let want = if wide { 12 } else { 4 };
        check_eq!(out[..want], vec![round; want]);
        Ok(())
    })
}

fn sleeping(tid: i64) -> CaseResult<bool> {
    Ok(std::fs::read_to_string(format!("/proc/self/task/{tid}/stat"))?.contains(") S "))
}

/// Reads a pipe by the rewritten call while another thread sends signals to it, and then a byte.
fn read_under_signals(flags: i32) -> CaseResult<(i64, i32)> {
    let text = Text::new()?;
    for _ in 0..3 {
        text.any(libc::SYS_close, [u64::MAX, 0, 0]);
    }
    count_signal(libc::SIGUSR1, flags)?;
    let (reader, writer) = pipe(0)?;
    let mut byte = [0u8];
    let (pid, tid) = (me(), raw!(SYS_gettid())?);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> CaseResult {
            let end = monotonic_ns() + STORM_NS;
            let mut sent = 0;
            while sent < 200 && monotonic_ns() < end && (sent == 0 || flags != 0) {
                if sleeping(tid)? {
                    raw!(SYS_tgkill(pid, tid, libc::SIGUSR1))?;
                    sent += 1;
                }
            }
            while counted() == 0 {
                let _ = raw!(SYS_sched_yield());
            }
            write(writer.as_raw_fd(), b"x")?;
            Ok(())
        });
        let got = text.any(libc::SYS_read, [reader.as_raw_fd() as u64, byte.as_mut_ptr() as u64, 1]);
        sender.join().map_err(|_| "panic")??;
        Ok((got, counted()))
    })
}

fn blocking_call_is_restarted() -> CaseResult {
    let (got, signals) = read_under_signals(libc::SA_RESTART)?;
    check_eq!(got, 1);
    check!(signals > 10, "{signals}");
    Ok(())
}

fn blocking_call_is_interrupted() -> CaseResult {
    let (got, signals) = read_under_signals(0)?;
    check_eq!(got, -i64::from(libc::EINTR));
    check!(signals >= 1);
    Ok(())
}

static AWAY: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

extern "C" fn jump_away(_: i32) {
    // SAFETY: goes back to `touch_nothing`, whose frame is still there.
    unsafe {
        std::arch::asm!(
            "mov rsp, {rsp}", "jmp {rip}",
            rsp = in(reg) AWAY[0].load(Ordering::SeqCst), rip = in(reg) AWAY[1].load(Ordering::SeqCst),
            options(noreturn),
        );
    }
}

/// Loads from address 8, from which the handler jumps away.
#[inline(never)]
fn touch_nothing() {
    // SAFETY: whatever the handler changed is declared or saved on the stack.
    unsafe {
        std::arch::asm!(
            "push rbx", "push rbp",
            "lea rcx, [rip + 2f]", "mov [rdx + 8], rcx", "mov [rdx], rsp",
            "mov rcx, [8]",
            "2:", "pop rbp", "pop rbx",
            in("rdx") AWAY.as_ptr(),
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("C"),
        );
    }
}

fn handler_that_jumps_away() -> CaseResult {
    let text = Text::new()?;
    let parent = raw!(SYS_getppid())?;
    set_action(libc::SIGSEGV, jump_away as *const () as usize, libc::SA_NODEFER, &[])?;
    for _ in 0..1000 {
        touch_nothing();
        check_eq!(text.parent(), parent);
    }
    Ok(())
}

/// `int $0x80` is a system call of 32-bit Linux where that is built in, and SIGSEGV where not.
fn old_entry_is_a_call_or_a_fault() -> CaseResult {
    let child = fork_child(|| {
        let value: i64;
        // SAFETY: getpid(2) of 32-bit Linux.
        unsafe { std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => value, out("r8") _, out("r9") _, out("r10") _, out("r11") _) };
        if value == i64::from(me()) { 0 } else { 1 }
    })?;
    let ended = wait_for(child)?;
    check!([Ended::Exited(0), Ended::Killed(libc::SIGSEGV)].contains(&ended), "{ended:?}");
    Ok(())
}

/// time(2) on the page at the end of memory, where that is mapped.
fn old_page_of_calls() -> CaseResult {
    if !std::fs::read_to_string("/proc/self/maps")?.contains("[vsyscall]") {
        return Ok(());
    }
    for _ in 0..100 {
        let value: i64;
        // SAFETY: the page's second entry is a function of the C convention.
        unsafe {
            std::arch::asm!(
                "call {}", in(reg) 0xffff_ffff_ff60_0400_u64, inlateout("rdi") 0_u64 => _, lateout("rax") value,
                clobber_abi("C"),
            );
        }
        let now = crate::util::clock_ns(libc::CLOCK_REALTIME)? / 1_000_000_000;
        check!((now - 2..=now).contains(&value), "{value} {now}");
    }
    Ok(())
}
