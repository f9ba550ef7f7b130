//! The code that stubs run, and its constants: position-independent, in a memory file that every stub maps.
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::slice;

use super::layout::{CODE, TITLE, TITLE_BYTES};
use super::{Flavor, filter};
use crate::PlatformError;
use crate::systrap::code as thread;

/// The size of the region.
pub(crate) const SIZE: u64 = 0x9000;
/// Offset of the page that the regions of trapping guest threads start with.
pub(crate) const THREAD_PAGE: u64 = 0x8000;
/// Offset of an all-ones signal set.
pub(crate) const ALL_SIGNALS: u64 = 0x3008;
/// Offset of the `struct sock_fprog` of the stubs' filter.
pub(crate) const FILTER_PROGRAM: u64 = 0x3010;
/// Offset of a `struct sigaction`, as the kernel takes it, that ignores the signal.
pub(crate) const IGNORE: u64 = 0x3020;
/// Offset of a `struct prctl_mm_map`: the arguments of the process are at [`TITLE`].
pub(crate) const MEMORY_MAP: u64 = 0x3040;
/// Its size.
pub(crate) const MEMORY_MAP_BYTES: u64 = 104;
const DIGITS: u64 = 0x1000;
/// The last two fields of a `struct prctl_mm_map`: an auxiliary vector of 0 bytes, and no descriptor.
const NO_PROGRAM: u64 = 0xffff_ffff << 32;
const ERRORS: u64 = 0x2800;
const DONE: u64 = 0x3000;
/// To the end: `xrstor` may touch all of the largest state, also of what is in its initial configuration.
const FPU: u64 = 0x4000;
/// The room there.
pub(crate) const FPU_ROOM: usize = 0x4000;
const FILTER: u64 = 0x3400;

/// What the mapper adds to its eventfd when all operations of a request succeeded.
pub(crate) const ANSWER_DONE: u64 = 1 << 48;
/// What it adds, together with the errno, when one failed.
pub(crate) const ANSWER_FAILED: u64 = 1 << 56;
/// What it adds, together with the byte in its place, for each of the three low bytes of a new process or thread id.
pub(crate) const ANSWER_DIGIT: u64 = 1 << 32;

/// Kinds of operation, the last word of each.
pub(crate) const KIND_CALL: u64 = 0;
/// clone(2) of a thread that parks; answered by its id.
pub(crate) const KIND_THREAD: u64 = 1;
/// clone(2) of a process that becomes a mapper: `rdx` the control file, `r8` its eventfd, `r9` its page's offset.
pub(crate) const KIND_PROCESS: u64 = 2;
/// No call: copies `rdx` bytes from `rsi` to `rdi`.
pub(crate) const KIND_COPY: u64 = 5;
/// clone(2) of a thread that starts at `r8`, with its region in `r9`; answered by its id.
pub(crate) const KIND_TRAPPING_THREAD: u64 = 4;
/// A jump to another copy of the code at `rax`, with the request page now at `rdi`.
pub(crate) const KIND_JUMP: u64 = 3;

// Registers of the mapper: r15 the request page, r14 its eventfd, r13d the last request's number, r12d the operations left
// of this one, rbx the next of them. A system call changes only rax, rcx and r11. No instruction touches a stack.
std::arch::global_asm!(
    r#"
    .pushsection .rodata.sentrybox_stub, "a"
    .balign 4096
    .globl sentrybox_stub_start, sentrybox_stub_resume, sentrybox_stub_exit, sentrybox_stub_end
    .hidden sentrybox_stub_start, sentrybox_stub_resume, sentrybox_stub_exit, sentrybox_stub_end
sentrybox_stub_start:
    /* The FPU as a new program finds it, but for protection keys, which the kernel set. */
    mov eax, 0xfffffdff
    mov edx, 0xffffffff
    xrstor64 [rip + sentrybox_stub_start + {fpu}]
.Lnext:
    mov eax, [r15]
    cmp eax, r13d
    jne .Lrequest
    mov r8, [r15 + 8]
    test r8, r8
    jz .Lidle
    rdtsc
    shl rdx, 32
    or rax, rdx
    add r8, rax
.Llook:
    mov eax, {sched_yield}
    syscall
    mov eax, [r15]
    cmp eax, r13d
    jne .Lrequest
    rdtsc
    shl rdx, 32
    or rax, rdx
    cmp rax, r8
    jb .Llook
.Lidle:
    mov eax, {futex}
    mov rdi, r15
    xor esi, esi
    mov edx, r13d
    xor r10d, r10d
    syscall
    jmp .Lnext
.Lrequest:
    mov r13d, eax
    mov r12d, [r15 + 4]
    lea rbx, [r15 + 64]
sentrybox_stub_resume:
    test r12d, r12d
    jz .Ldone
    dec r12d
    mov rax, [rbx]
    mov rdi, [rbx + 8]
    mov rsi, [rbx + 16]
    mov rdx, [rbx + 24]
    mov r10, [rbx + 32]
    mov r8, [rbx + 40]
    mov r9, [rbx + 48]
    mov rbp, [rbx + 56]
    add rbx, 64
    cmp ebp, {jump}
    je .Ljump
    cmp ebp, {copy}
    je .Lcopy
    syscall
    cmp rax, -4095
    jae .Lfailed
    test ebp, ebp
    jz sentrybox_stub_resume
    test rax, rax
    jnz .Lreport
    cmp ebp, {process}
    je .Lprocess
    cmp ebp, {trapping}
    je .Ltrapping
.Lpark:
    mov eax, {pause}
    syscall
    jmp .Lpark

.Ltrapping:
    jmp r8

.Lprocess:
    mov r14, r8
    mov r8, rdx
    mov rdi, r15
    mov esi, 4096
    mov edx, 1
    mov r10d, 0x11
    mov eax, {mmap}
    syscall
    cmp rax, -4095
    jae .Lfailed
    xor r13d, r13d
    jmp .Lnext

.Lcopy:
    mov ecx, edx
    rep movsb
    jmp sentrybox_stub_resume

.Ljump:
    sub rbx, r15
    add rbx, rdi
    mov r15, rdi
    jmp rax

.Ldone:
    lea rsi, [rip + sentrybox_stub_start + {done}]
.Lanswer:
    mov edi, r14d
    mov edx, 8
    mov eax, {write}
    syscall
    jmp .Lnext

.Lfailed:
    neg eax
    mov ecx, 255
    cmp eax, ecx
    cmova eax, ecx
    lea rsi, [rip + sentrybox_stub_start + {errors}]
    lea rsi, [rsi + rax * 8]
    jmp .Lanswer

.Lreport:
    mov rbp, rax
    lea rbx, [rip + sentrybox_stub_start + {digits}]
    mov r12d, 3
.Ldigit:
    movzx ecx, bpl
    shr ebp, 8
    lea rsi, [rbx + rcx * 8]
    add rbx, 2048
    mov edi, r14d
    mov edx, 8
    mov eax, {write}
    syscall
    dec r12d
    jnz .Ldigit
    jmp .Lnext

sentrybox_stub_exit:
    xor edi, edi
    mov eax, {exit}
    syscall
    ud2
sentrybox_stub_end:
    .popsection
    "#,
    fpu = const FPU,
    done = const DONE,
    errors = const ERRORS,
    digits = const DIGITS,
    jump = const KIND_JUMP,
    copy = const KIND_COPY,
    process = const KIND_PROCESS,
    trapping = const KIND_TRAPPING_THREAD,
    futex = const libc::SYS_futex,
    sched_yield = const libc::SYS_sched_yield,
    pause = const libc::SYS_pause,
    mmap = const libc::SYS_mmap,
    write = const libc::SYS_write,
    exit = const libc::SYS_exit,
);

unsafe extern "C" {
    static sentrybox_stub_start: u8;
    static sentrybox_stub_resume: u8;
    static sentrybox_stub_exit: u8;
    static sentrybox_stub_end: u8;
}

fn offset(symbol: *const u8) -> usize {
    symbol.addr() - (&raw const sentrybox_stub_start).addr()
}

/// Offset of the place at which a jump goes on with its request.
pub(crate) fn resume_offset() -> u64 {
    offset(&raw const sentrybox_stub_resume) as u64
}

/// Offset of code that ends its thread.
pub(crate) fn exit_offset() -> u64 {
    offset(&raw const sentrybox_stub_exit) as u64
}

/// Makes the memory file.
///
/// # Errors
/// Those of memfd_create(2), pwrite(2) and of sealing it against every change.
pub(crate) fn create(flavor: Flavor) -> Result<File, PlatformError> {
    let file = crate::sys::memfd(c"stub code", libc::MFD_ALLOW_SEALING)?;
    let image = image(flavor);
    file.write_all_at(&image, 0).map_err(|source| PlatformError::Host { call: "pwrite", source })?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: fcntl with F_ADD_SEALS takes a flag word and touches no memory.
    let sealed = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    crate::sys::check("fcntl", sealed.into())?;
    Ok(file)
}

fn image(flavor: Flavor) -> Vec<u8> {
    let length = offset(&raw const sentrybox_stub_end);
    assert!(length as u64 <= DIGITS, "the code fits its page");
    // SAFETY: both symbols bound one block of read-only data of this program, defined above.
    let code = unsafe { slice::from_raw_parts(&raw const sentrybox_stub_start, length) };
    let mut image = Image(vec![0; usize::try_from(SIZE).unwrap_or(0)]);
    image.put(0, code);
    for byte in 0..256_u64 {
        for place in 0..3 {
            image.put_u64(DIGITS + place * 2048 + byte * 8, ANSWER_DIGIT + (byte << (8 * place)));
        }
        image.put_u64(ERRORS + byte * 8, ANSWER_FAILED + byte);
    }
    image.put_u64(DONE, ANSWER_DONE);
    image.put_u64(ALL_SIGNALS, !0);
    let filter = filter::program(flavor);
    image.put_u64(FILTER_PROGRAM, (filter.len() / 8) as u64);
    image.put_u64(FILTER_PROGRAM + 8, CODE + FILTER);
    image.put_u64(IGNORE, libc::SIG_IGN as u64);
    let title = TITLE + TITLE_BYTES;
    // In the order of the structure: code, data, the heap, the stack, arguments, environment, no auxiliary vector, and no
    // other program. Only the arguments are looked at, by who reads the process's command line.
    let map = [CODE, CODE + SIZE, CODE, CODE, CODE, CODE, CODE, TITLE, title, title, title, 0, NO_PROGRAM];
    for (at, word) in (MEMORY_MAP..).step_by(8).zip(map) {
        image.put_u64(at, word);
    }
    image.put(FILTER, &filter);
    image.put(FPU, &0x37f_u16.to_le_bytes());
    image.put(FPU + 24, &0x1f80_u32.to_le_bytes());
    image.put(THREAD_PAGE, &thread::page(CODE + THREAD_PAGE));
    image.0
}

struct Image(Vec<u8>);

impl Image {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        self.0.get_mut(at..at + bytes.len()).expect("the layout has room").copy_from_slice(bytes);
    }

    fn put_u64(&mut self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }
}
