//! The code of guest threads in a stub: what takes their signals, waits for the sentry, and goes back to the guest.
//!
//! One page, which each thread's region starts with, so that the code finds the thread's [`Area`](super::area::Area) at a
//! fixed distance and needs no register for it. The signals' entry runs in the copy of the page that all threads share, and
//! finds the region by the stack that it is on.
//!
//! A signal may come at any instruction. What it finds, by where the thread was:
//!
//! | place | what the entry does |
//! |---|---|
//! | guest code | stores the registers and tells the sentry |
//! | `saved` to the exchange of `event` | starts the telling again |
//! | the end of a thread's start, the wait | wakes the sentry once more and waits again; a fault is told as a failure |
//! | the way out | the registers in the area are the guest's: tells the sentry so |
//! | the entry itself | starts again with the first signal, which the sentry learns first |
use std::slice;

use super::area::{AREA, STACK_TOP};
use crate::cpu::HOG_TICKS;
use crate::registers::{TRAP_FLAG, USER_CS, USER_DS};
use crate::stub::filter;

/// The size of the page.
pub(crate) const SIZE: usize = 4096;
/// The signal by which a guest thread is interrupted.
pub(super) const INTERRUPT: i32 = libc::SIGURG;

/// What a thread tells, [`Area::kind`](super::area::Area).
pub(super) mod kind {
    /// A system call from a patched place.
    pub(in super::super) const SYSCALL: u32 = 1;
    /// A signal.
    pub(in super::super) const SIGNAL: u32 = 2;
    /// On the way to the guest, whose registers the area still has: a signal, or an interrupt (signal 0).
    pub(in super::super) const LEAVING: u32 = 3;
    /// A command is done.
    pub(in super::super) const DONE: u32 = 4;
    /// A fault in the code here.
    pub(in super::super) const FAILED: u32 = 5;
}

/// The low bits of a command.
pub(super) mod command {
    /// Load the FPU state, and run the guest.
    pub(in super::super) const RESUME_LOADED: u32 = 0;
    /// Run the guest.
    pub(in super::super) const RESUME: u32 = 1;
    /// Store the FPU state.
    pub(in super::super) const SAVE_FPU: u32 = 2;
    /// Load the FPU state.
    pub(in super::super) const LOAD_FPU: u32 = 3;
    /// Run the guest from where it made a patched call, with the registers that it had but for the result.
    pub(in super::super) const RETURN: u32 = 4;
    /// The bits.
    pub(in super::super) const MASK: u32 = 7;
}

// Registers in the entry: rbx the region, r13 the ucontext, r15 the siginfo, r14d the signal, rbp the place.
// `E` is the area's offset from the page.
std::arch::global_asm!(
    r#"
    .pushsection .rodata.sentrybox_thread, "a"
    .balign 4096
    .globl sentrybox_thread_page, sentrybox_thread_start, sentrybox_thread_signal, sentrybox_thread_end
    .globl sentrybox_thread_fast, sentrybox_thread_saved
    .globl sentrybox_thread_getpid, sentrybox_thread_gettid, sentrybox_thread_got_pid, sentrybox_thread_got_tid
    .hidden sentrybox_thread_getpid, sentrybox_thread_gettid, sentrybox_thread_got_pid, sentrybox_thread_got_tid
    .hidden sentrybox_thread_page, sentrybox_thread_start, sentrybox_thread_signal, sentrybox_thread_end
    .hidden sentrybox_thread_fast, sentrybox_thread_saved
    .set E, sentrybox_thread_page + {area}
    .set TOP, sentrybox_thread_page + {top}
sentrybox_thread_page:

    /* A patched system call: rcx is where it goes on for the guest's eyes, r11 where it does. A thread that is stopped
       before `saved` is sent back to before the call, but for one that has an answer already. */
sentrybox_thread_fast:
    mov [rip + E + {entry_rsp}], rsp
    lea rsp, [rip + TOP]
    pushfq
    cmp dword ptr [rip + E + {answers}], 0
    je .Lfast_store
    cmp eax, {getpid}
    je .Lfast_pid
    cmp eax, {gettid}
    je .Lfast_tid
.Lfast_store:
    mov [rip + E + {tail}], r11
    mov [rip + E + {rax}], rax
    mov [rip + E + {rdi}], rdi
    mov [rip + E + {rsi}], rsi
    mov [rip + E + {rdx}], rdx
    mov [rip + E + {r10}], r10
    mov [rip + E + {r8}], r8
    mov [rip + E + {r9}], r9
    mov [rip + E + {rbx}], rbx
    mov [rip + E + {rbp}], rbp
    mov [rip + E + {r12}], r12
    mov [rip + E + {r13}], r13
    mov [rip + E + {r14}], r14
    mov [rip + E + {r15}], r15
    mov [rip + E + {rip_}], rcx
    mov [rip + E + {rcx}], rcx
    mov r11, [rip + TOP - 8]
    mov [rip + E + {eflags}], r11
    mov [rip + E + {r11}], r11
    rdfsbase r11
    mov [rip + E + {fs_base}], r11
    mov r11, [rip + E + {entry_rsp}]
    mov [rip + E + {rsp}], r11
    jmp sentrybox_thread_saved
.Lfast_pid:
    popfq
    mov rsp, [rip + E + {entry_rsp}]
sentrybox_thread_getpid:
    mov rax, [rip + E + {pid}]
sentrybox_thread_got_pid:
    jmp r11
.Lfast_tid:
    popfq
    mov rsp, [rip + E + {entry_rsp}]
sentrybox_thread_gettid:
    mov rax, [rip + E + {tid}]
sentrybox_thread_got_tid:
    jmp r11
sentrybox_thread_saved:
    mov dword ptr [rip + E + {kind}], {syscall}
.Lthread_post:
    mov eax, [rip + E + {command}]
    xchg [rip + E + {event}], eax
.Lthread_notify:
    cmp dword ptr [rip + E + {sentry_asleep}], 0
    je .Lthread_wait
    mov eax, {futex}
    lea rdi, [rip + E + {event}]
    mov esi, 1
    mov edx, 1
    xor r10d, r10d
    syscall
.Lthread_wait:
    lea rsp, [rip + TOP]
    mov r9d, [rip + E + {event}]
    cmp [rip + E + {command}], r9d
    jne .Lthread_command
    mov r8, [rip + E + {spin_ticks}]
    test r8, r8
    jz .Lthread_sleep
    rdtsc
    shl rdx, 32
    or rax, rdx
    add r8, rax
    mov r10, [rip + E + {polite_ticks}]
    add r10, rax
    mov rsi, rax
.Lthread_spin:
    pause
    cmp [rip + E + {command}], r9d
    jne .Lthread_command
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov rdi, rax
    sub rdi, rsi
    mov rsi, rax
    cmp rdi, {hog}
    jae .Lthread_hogged
    cmp rax, r8
    jae .Lthread_sleep
    cmp rax, r10
    jb .Lthread_spin
    mov eax, {sched_yield}
    syscall
    jmp .Lthread_spin
.Lthread_hogged:
    mov dword ptr [rip + E + {hogged}], 1
.Lthread_sleep:
    mov eax, 1
    xchg [rip + E + {stub_asleep}], eax
    cmp [rip + E + {command}], r9d
    jne .Lthread_awake
    mov eax, {futex}
    lea rdi, [rip + E + {command}]
    xor esi, esi
    mov edx, r9d
    xor r10d, r10d
    syscall
.Lthread_awake:
    mov dword ptr [rip + E + {stub_asleep}], 0
    jmp .Lthread_wait
.Lthread_command:
    mov eax, [rip + E + {command}]
    and eax, {mask}
    cmp eax, {resume}
    je .Lthread_resume
    cmp eax, {return_}
    je .Lthread_return
    mov ecx, eax
    mov eax, -1
    mov edx, -1
    cmp ecx, {resume_loaded}
    je .Lthread_load
    mov dword ptr [rip + E + {kind}], {done}
    cmp ecx, {save_fpu}
    je .Lthread_save
    xrstor64 [rip + E + {fpu}]
    jmp .Lthread_post
.Lthread_load:
    xrstor64 [rip + E + {fpu}]
    jmp .Lthread_resume
.Lthread_save:
    xsave64 [rip + E + {fpu}]
    jmp .Lthread_post

    /* A new thread; r9 the region, all signals blocked. Its area is there for other threads to write to, so nothing may
       be taken from it, and no signal may come, before the filter holds: the stack that the area names may be anywhere.
       An interrupt that comes as soon as it may finds a thread that waits. */
sentrybox_thread_start:
    mov rbx, r9
    lea rdi, [rbx + {area} + {stack}]
    xor esi, esi
    mov eax, {sigaltstack}
    syscall
    mov edi, 1
    xor esi, esi
    lea rdx, [rip + sentrybox_thread_page + {filter}]
    mov eax, {seccomp}
    syscall
    test eax, eax
    jnz .Lstart_failed
    mov edi, 2
    mov rsi, [rip + sentrybox_thread_page + {signals_at}]
    xor edx, edx
    mov r10d, 8
    mov eax, {rt_sigprocmask}
    syscall
    jmp .Lthread_wait
.Lstart_failed:
    mov edi, 1
    mov eax, {exit_group}
    syscall
    jmp .Lstart_failed

.Lthread_resume:
    cmp dword ptr [rip + E + {interrupt}], 0
    jne .Lthread_stay
    mov rax, [rip + E + {fs_base}]
    rdfsbase rcx
    cmp rax, rcx
    je 1f
    wrfsbase rax
1:
    mov rax, [rip + E + {gs_base}]
    rdgsbase rcx
    cmp rax, rcx
    je 1f
    wrgsbase rax
1:
    test dword ptr [rip + E + {eflags}], {trap_flag}
    jnz .Lthread_step
    lea rsp, [rip + TOP]
    push qword ptr [rip + E + {eflags}]
    mov rdi, [rip + E + {rdi}]
    mov rsi, [rip + E + {rsi}]
    mov rdx, [rip + E + {rdx}]
    mov r8, [rip + E + {r8}]
    mov r9, [rip + E + {r9}]
    mov r10, [rip + E + {r10}]
    mov r11, [rip + E + {r11}]
    mov r12, [rip + E + {r12}]
    mov r13, [rip + E + {r13}]
    mov r14, [rip + E + {r14}]
    mov r15, [rip + E + {r15}]
    mov rbx, [rip + E + {rbx}]
    mov rbp, [rip + E + {rbp}]
    mov rax, [rip + E + {rax}]
    mov rcx, [rip + E + {rcx}]
    popfq
    mov rsp, [rip + E + {rsp}]
    jmp qword ptr [rip + E + {rip_}]
.Lthread_return:
    cmp dword ptr [rip + E + {interrupt}], 0
    jne .Lthread_stay
    lea rsp, [rip + TOP]
    push qword ptr [rip + E + {eflags}]
    mov rdi, [rip + E + {rdi}]
    mov rsi, [rip + E + {rsi}]
    mov rdx, [rip + E + {rdx}]
    mov r8, [rip + E + {r8}]
    mov r9, [rip + E + {r9}]
    mov r10, [rip + E + {r10}]
    mov r11, [rip + E + {r11}]
    mov r12, [rip + E + {r12}]
    mov r13, [rip + E + {r13}]
    mov r14, [rip + E + {r14}]
    mov r15, [rip + E + {r15}]
    mov rbx, [rip + E + {rbx}]
    mov rbp, [rip + E + {rbp}]
    mov rax, [rip + E + {result}]
    mov rcx, [rip + E + {rcx}]
    popfq
    mov rsp, [rip + E + {rsp}]
    jmp qword ptr [rip + E + {tail}]
.Lthread_stay:
    mov dword ptr [rip + E + {signal}], 0
    mov dword ptr [rip + E + {kind}], {leaving}
    jmp .Lthread_post
    /* The guest is to trap after one instruction: only `iretq` sets the flag and is not itself the instruction. */
.Lthread_step:
    lea rsp, [rip + TOP]
    push {user_ds}
    push qword ptr [rip + E + {rsp}]
    push qword ptr [rip + E + {eflags}]
    push {user_cs}
    push qword ptr [rip + E + {rip_}]
    mov rdi, [rip + E + {rdi}]
    mov rsi, [rip + E + {rsi}]
    mov rdx, [rip + E + {rdx}]
    mov r8, [rip + E + {r8}]
    mov r9, [rip + E + {r9}]
    mov r10, [rip + E + {r10}]
    mov r11, [rip + E + {r11}]
    mov r12, [rip + E + {r12}]
    mov r13, [rip + E + {r13}]
    mov r14, [rip + E + {r14}]
    mov r15, [rip + E + {r15}]
    mov rbx, [rip + E + {rbx}]
    mov rbp, [rip + E + {rbp}]
    mov rax, [rip + E + {rax}]
    mov rcx, [rip + E + {rcx}]
    iretq
.Lthread_left:

    /* rdi the signal, rsi the siginfo, rdx the ucontext; the stack is the region's. */
sentrybox_thread_signal:
    cld
.Lsignal_again:
    mov rbx, rsp
    and rbx, -{stride}
    mov r14d, edi
    mov r15, rsi
    mov r13, rdx
    mov r12, [r13 + 224]
    test r12, r12
    jz 1f
    mov eax, [r12 + 472]
    mov edx, [r12 + 476]
    xrstor64 [r12]
1:
    mov rbp, [r13 + 168]
    lea rax, [rip + sentrybox_thread_page]
    mov rcx, rbp
    sub rcx, rax
    cmp rcx, {size}
    jae .Lsignal_outside
    /* In this entry: the signal before is the one to tell. Only on the region's own stack can there be one. */
    mov rcx, [r13 + 160]
    mov rax, rcx
    and rax, -{stride}
    cmp rax, rbx
    jne .Lsignal_guest
    lea rax, [rsp + 1024]
    cmp rcx, rax
    jb .Lsignal_guest
    mov rsp, rcx
    lea rdx, [rsp + 8]
    lea rsi, [rsp + 312]
    mov edi, [rsi]
    jmp .Lsignal_again
.Lsignal_outside:
    /* rcx: the same place in this copy of the page. */
    lea rax, [rip + sentrybox_thread_page]
    mov rcx, rbp
    sub rcx, rbx
    add rcx, rax
    cmp rcx, rax
    jb .Lsignal_guest
    lea rdx, [rip + .Lthread_left]
    cmp rcx, rdx
    jae .Lsignal_guest
    lea rdx, [rip + sentrybox_thread_saved]
    cmp rcx, rdx
    jb .Lsignal_guest
    lea rsi, [rip + .Lthread_post]
    cmp rcx, rsi
    jb .Lsignal_jump
    mov rdx, rsi
    lea rsi, [rip + .Lthread_notify]
    cmp rcx, rsi
    jb .Lsignal_jump
    lea rdi, [rip + .Lthread_resume]
    cmp rcx, rdi
    jae .Lsignal_leaving
    cmp r14d, {sigurg}
    jne .Lsignal_failed
    mov rdx, rsi
.Lsignal_jump:
    /* rdx: where to go on, in the region's copy. */
    sub rdx, rax
    add rdx, rbx
    jmp rdx
.Lsignal_failed:
    mov dword ptr [rbx + {area} + {kind}], {failed}
    jmp .Lsignal_jump
.Lsignal_leaving:
    mov dword ptr [rbx + {area} + {kind}], {leaving}
    jmp .Lsignal_information
.Lsignal_guest:
    lea rsi, [r13 + 40]
    lea rdi, [rbx + {area} + {r8}]
    mov ecx, 19
    rep movsq
    rdfsbase rax
    mov [rbx + {area} + {fs_base}], rax
    rdgsbase rax
    mov [rbx + {area} + {gs_base}], rax
    mov dword ptr [rbx + {area} + {kind}], {from_signal}
.Lsignal_information:
    mov [rbx + {area} + {signal}], r14d
    mov eax, [r15 + 8]
    mov [rbx + {area} + {code}], eax
    mov rax, [r15 + 16]
    mov [rbx + {area} + {addr}], rax
    mov rax, [r15 + 24]
    mov [rbx + {area} + {call}], rax
    mov rax, [r13 + 192]
    mov [rbx + {area} + {error}], eax
    mov rax, [r13 + 200]
    mov [rbx + {area} + {trap}], eax
    mov rax, [r13 + 216]
    mov [rbx + {area} + {cr2}], rax
    lea rax, [rip + sentrybox_thread_page]
    lea rdx, [rip + .Lthread_post]
    jmp .Lsignal_jump

sentrybox_thread_end:
    .popsection
    "#,
    area = const AREA,
    top = const STACK_TOP,
    stride = const super::area::STRIDE,
    size = const SIZE,
    syscall = const kind::SYSCALL,
    from_signal = const kind::SIGNAL,
    leaving = const kind::LEAVING,
    done = const kind::DONE,
    failed = const kind::FAILED,
    mask = const command::MASK,
    resume = const command::RESUME,
    return_ = const command::RETURN,
    resume_loaded = const command::RESUME_LOADED,
    save_fpu = const command::SAVE_FPU,
    polite_ticks = const super::area::offset::POLITE_TICKS,
    hog = const HOG_TICKS,
    hogged = const super::area::offset::HOGGED,
    sigurg = const INTERRUPT,
    trap_flag = const TRAP_FLAG,
    user_cs = const USER_CS,
    user_ds = const USER_DS,
    signals_at = const SIGNALS_AT,
    filter = const FILTER_PROGRAM,
    futex = const libc::SYS_futex,
    sched_yield = const libc::SYS_sched_yield,
    sigaltstack = const libc::SYS_sigaltstack,
    rt_sigprocmask = const libc::SYS_rt_sigprocmask,
    seccomp = const libc::SYS_seccomp,
    exit_group = const libc::SYS_exit_group,
    command = const super::area::offset::COMMAND,
    interrupt = const super::area::offset::INTERRUPT,
    spin_ticks = const super::area::offset::SPIN_TICKS,
    sentry_asleep = const super::area::offset::SENTRY_ASLEEP,
    result = const super::area::offset::RESULT,
    event = const super::area::offset::EVENT,
    stub_asleep = const super::area::offset::STUB_ASLEEP,
    kind = const super::area::offset::KIND,
    signal = const super::area::offset::SIGNAL,
    code = const super::area::offset::CODE,
    error = const super::area::offset::ERROR,
    trap = const super::area::offset::TRAP,
    addr = const super::area::offset::ADDR,
    cr2 = const super::area::offset::CR2,
    call = const super::area::offset::CALL,
    r8 = const super::area::offset::REGISTERS,
    r9 = const super::area::offset::REGISTERS + 8,
    r10 = const super::area::offset::REGISTERS + 16,
    r11 = const super::area::offset::REGISTERS + 24,
    r12 = const super::area::offset::REGISTERS + 32,
    r13 = const super::area::offset::REGISTERS + 40,
    r14 = const super::area::offset::REGISTERS + 48,
    r15 = const super::area::offset::REGISTERS + 56,
    rdi = const super::area::offset::REGISTERS + 64,
    rsi = const super::area::offset::REGISTERS + 72,
    rbp = const super::area::offset::REGISTERS + 80,
    rbx = const super::area::offset::REGISTERS + 88,
    rdx = const super::area::offset::REGISTERS + 96,
    rax = const super::area::offset::REGISTERS + 104,
    rcx = const super::area::offset::REGISTERS + 112,
    rsp = const super::area::offset::REGISTERS + 120,
    rip_ = const super::area::offset::REGISTERS + 128,
    eflags = const super::area::offset::REGISTERS + 136,
    fs_base = const super::area::offset::FS_BASE,
    gs_base = const super::area::offset::GS_BASE,
    entry_rsp = const super::area::offset::ENTRY_RSP,
    tail = const super::area::offset::TAIL,
    answers = const super::area::offset::ANSWERS,
    pid = const super::area::offset::PID,
    tid = const super::area::offset::TID,
    getpid = const libc::SYS_getpid,
    gettid = const libc::SYS_gettid,
    stack = const super::area::offset::STACK,
    fpu = const super::area::FPU - AREA,
);

/// Offset of the set of signals that threads have blocked.
const SIGNALS: usize = 0xd00;
/// Offset of the address of that set in the shared copy, the only one that the threads' filter allows.
const SIGNALS_AT: usize = 0xd08;
/// Offset of the `struct sock_fprog` of the threads' filter.
const FILTER_PROGRAM: usize = 0xd10;
/// Offset of the filter.
const FILTER: usize = 0xd20;
/// Offset of a `struct sigaction`, as the kernel takes it, with the entry.
const ACTION: usize = 0xf80;

unsafe extern "C" {
    static sentrybox_thread_page: u8;
    static sentrybox_thread_fast: u8;
    static sentrybox_thread_saved: u8;
    static sentrybox_thread_getpid: u8;
    static sentrybox_thread_gettid: u8;
    static sentrybox_thread_got_pid: u8;
    static sentrybox_thread_got_tid: u8;
    static sentrybox_thread_start: u8;
    static sentrybox_thread_signal: u8;
    static sentrybox_thread_end: u8;
}

fn offset(symbol: *const u8) -> u64 {
    (symbol.addr() - (&raw const sentrybox_thread_page).addr()) as u64
}

/// Offset of the code that a new thread starts at, its region in `r9`.
pub(super) fn start_offset() -> u64 {
    offset(&raw const sentrybox_thread_start)
}

/// Offset of the entry for patched system calls.
pub(super) fn fast_offset() -> u64 {
    offset(&raw const sentrybox_thread_fast)
}

/// Offsets of the entries for getpid and gettid.
pub(super) fn answer_offsets() -> [u64; 2] {
    [offset(&raw const sentrybox_thread_getpid), offset(&raw const sentrybox_thread_gettid)]
}

/// Tells whether a thread at this offset has the answer in `rax`, and nothing else to do than to go on.
pub(super) fn has_answer(at: u64) -> bool {
    [&raw const sentrybox_thread_got_pid, &raw const sentrybox_thread_got_tid].map(offset).contains(&at)
}

/// Offset up to which a thread that entered there can be sent back.
pub(super) fn saved_offset() -> u64 {
    offset(&raw const sentrybox_thread_saved)
}

/// Offset of the `struct sigaction`.
pub(crate) const ACTION_OFFSET: u64 = ACTION as u64;

/// Makes the page, for a copy at `shared` that every thread of the process sees.
pub(crate) fn page(shared: u64) -> [u8; SIZE] {
    const SA_RESTORER: u64 = 0x0400_0000;
    let length = usize::try_from(offset(&raw const sentrybox_thread_end)).unwrap_or(usize::MAX);
    assert!(length <= SIGNALS, "the code fits below its constants");
    // SAFETY: both symbols bound one block of read-only data of this program, defined above.
    let code = unsafe { slice::from_raw_parts(&raw const sentrybox_thread_page, length) };
    let mut page = [0; SIZE];
    let mut put = |at: usize, bytes: &[u8]| {
        page.get_mut(at..at + bytes.len()).expect("the layout has room").copy_from_slice(bytes);
    };
    put(0, code);
    let signals = shared + SIGNALS as u64;
    put(SIGNALS, &(!taken_signals()).to_le_bytes());
    put(SIGNALS_AT, &signals.to_le_bytes());
    let filter = filter::thread_program(signals);
    assert!(FILTER + filter.len() <= ACTION, "the filter fits below the action");
    put(FILTER_PROGRAM, &((filter.len() / 8) as u64).to_le_bytes());
    put(FILTER_PROGRAM + 8, &(shared + FILTER as u64).to_le_bytes());
    put(FILTER, &filter);
    let entry = shared + offset(&raw const sentrybox_thread_signal);
    let flags = (libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER).cast_unsigned();
    // No restorer is ever returned to, but the kernel wants one.
    for (place, word) in [entry, u64::from(flags) | SA_RESTORER, entry, 0].into_iter().enumerate() {
        put(ACTION + 8 * place, &word.to_le_bytes());
    }
    page
}

/// The signals that threads take, by number.
pub(crate) const TAKEN: [i32; 7] =
    [libc::SIGILL, libc::SIGTRAP, libc::SIGBUS, libc::SIGFPE, libc::SIGSEGV, libc::SIGSYS, INTERRUPT];

fn taken_signals() -> u64 {
    TAKEN.iter().fold(0, |set, signal| set | 1 << (signal - 1))
}
