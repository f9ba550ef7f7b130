//! System calls that a kernel may rewrite where they are made: code in a file of this case's own, mapped again and again,
//! must behave as it is written, whatever was done to its `syscall` instructions.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq};
use crate::child::{Ended, fork_child, wait_for};
use crate::memory::{PAGE, RW, anonymous, map_at, protect, unmap};
use crate::sys::{SysError, open, pipe, raw, sys, write};
use crate::util::{create, me, pread};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

topic!(patched_calls: [
    jump_to_the_instruction_itself,
    jump_behind_the_instruction,
    mov_of_another_register_is_no_number,
    registers_flags_and_red_zone,
    own_memory_shows_the_original_bytes,
    own_text_seen_by_calls_and_loads,
    threads_at_a_fresh_site,
    text_made_writable_and_back,
    text_written_by_proc_mem,
    text_dropped_by_madvise,
    code_in_anonymous_memory,
    code_moved_by_mremap,
    file_mapped_hundreds_of_times,
    text_replaced_under_a_blocked_call,
    mappings_around_text,
    gs_of_its_own,
    gs_before_fork,
    gs_loaded_by_selector,
    fork_in_the_middle,
    vfork_from_mapped_code,
    ids_in_children_and_threads,
]);

const RX: i32 = libc::PROT_READ | libc::PROT_EXEC;

/// `mov %edi,%eax; mov %rsi,%rdi; mov %rdx,%rsi; mov %rcx,%rdx; syscall; cmp $-4095,%rax; ret`: any call.
const ANY: &[u8] = b"\x89\xf8\x48\x89\xf7\x48\x89\xd6\x48\x89\xca\x0f\x05\x48\x3d\x01\xf0\xff\xff\xc3";
/// Where the `cmp` is.
const ANY_CMP: usize = 13;
/// `mov $110,%eax; syscall; ret`: getppid.
const PARENT: &[u8] = b"\xb8\x6e\0\0\0\x0f\x05\xc3";
/// `mov $39,%eax; syscall; ret`.
const GETPID: &[u8] = b"\xb8\x27\0\0\0\x0f\x05\xc3";
/// `mov $186,%eax; syscall; ret`.
const GETTID: &[u8] = b"\xb8\xba\0\0\0\x0f\x05\xc3";
pub(super) const AT_PARENT: usize = 0;
pub(super) const AT_ANY: usize = 64;
const AT_GETPID: usize = 128;
const AT_GETTID: usize = 192;
const AT_R8: usize = 256;

/// Text in a private mapping of a file.
#[derive(Clone, Copy)]
pub(super) struct Text(pub(super) usize);

fn image() -> Vec<u8> {
    let mut bytes = vec![0xcc_u8; 2 * PAGE];
    for (at, code) in [(AT_PARENT, PARENT), (AT_ANY, ANY), (AT_GETPID, GETPID), (AT_GETTID, GETTID)] {
        bytes[at..at + code.len()].copy_from_slice(code);
    }
    // mov %edi,%eax; mov $110,%r8d; syscall; mov %r8d,%eax (behind the call's result in edx); ret
    let code = b"\x89\xf8\x41\xb8\x6e\0\0\0\x0f\x05\x89\xc2\x44\x89\xc0\x48\xc1\xe0\x20\x48\x09\xd0\xc3";
    bytes[AT_R8..AT_R8 + code.len()].copy_from_slice(code);
    bytes
}

impl Text {
    pub(super) fn new() -> Result<Self, SysError> {
        Self::at(0, 0)
    }

    /// Maps the file, made if it is not there.
    fn at(address: usize, flags: i32) -> Result<Self, SysError> {
        let file = match open(c"text", libc::O_RDONLY, 0) {
            Ok(file) => file,
            Err(_) => create(c"text", &image())?,
        };
        map_at(address, 2 * PAGE, RX, libc::MAP_PRIVATE | flags, file.as_raw_fd(), 0).map(|at| Self(at as usize))
    }

    fn start(self) -> *mut u8 {
        self.0 as *mut u8
    }

    /// `call(address, eax = rdi = number, args..)`.
    fn call_at(self, at: usize, args: [u64; 4]) -> i64 {
        let value: i64;
        // SAFETY: the code there makes one system call, or none, and returns; nothing on the stack is used by it.
        unsafe {
            std::arch::asm!(
                "sub rsp, 128", "call {at}", "add rsp, 128",
                at = in(reg) self.0 + at,
                inout("rax") args[0] => value, inout("rdi") args[0] => _, inout("rsi") args[1] => _,
                inout("rdx") args[2] => _, inout("rcx") args[3] => _, out("r8") _, out("r9") _, out("r10") _,
                out("r11") _,
            );
        }
        value
    }

    /// Any call, by the shape with a comparison behind it.
    pub(super) fn any(self, number: i64, args: [u64; 3]) -> i64 {
        self.call_at(AT_ANY, [number as u64, args[0], args[1], args[2]])
    }

    pub(super) fn parent(self) -> i64 {
        self.call_at(AT_PARENT, [0; 4])
    }

    fn pid(self) -> i64 {
        self.call_at(AT_GETPID, [0; 4])
    }

    fn tid(self) -> i64 {
        self.call_at(AT_GETTID, [0; 4])
    }

    /// Makes each call often enough that whatever rewrites them has done so, and checks the answers.
    fn warm(self) -> CaseResult {
        let parent = raw!(SYS_getppid())?;
        for _ in 0..3 {
            check_eq!(self.parent(), parent);
            check_eq!(self.any(libc::SYS_getppid, [0; 3]), parent);
            check_eq!(self.any(libc::SYS_close, [u64::MAX, 0, 0]), -i64::from(libc::EBADF));
            check_eq!(self.pid(), i64::from(me()));
            check_eq!(self.tid(), raw!(SYS_gettid())?);
        }
        Ok(())
    }

    fn bytes(self, at: usize, len: usize) -> Vec<u8> {
        (at..at + len).map(|offset| crate::memory::peek(self.start(), offset)).collect()
    }
}

fn jump_to_the_instruction_itself() -> CaseResult {
    let text = Text::new()?;
    text.warm()?;
    for _ in 0..100 {
        check_eq!(text.call_at(AT_PARENT + 5, [libc::SYS_getuid as u64, 0, 0, 0]), 0);
        check_eq!(text.call_at(AT_PARENT + 5, [libc::SYS_getpid as u64, 0, 0, 0]), i64::from(me()));
        check_eq!(text.parent(), raw!(SYS_getppid())?);
    }
    Ok(())
}

fn jump_behind_the_instruction() -> CaseResult {
    let text = Text::new()?;
    text.warm()?;
    for round in 0..1000_u64 {
        check_eq!(text.call_at(AT_ANY + ANY_CMP, [round, 0, 0, 0]), round as i64);
    }
    check_eq!(text.any(libc::SYS_getuid, [0; 3]), 0);
    Ok(())
}

fn mov_of_another_register_is_no_number() -> CaseResult {
    let text = Text::new()?;
    let parent = raw!(SYS_getppid())?;
    for _ in 0..3 {
        // The first call has the number that the bytes before it seem to load.
        check_eq!(text.call_at(AT_R8, [libc::SYS_getppid as u64, 0, 0, 0]), 110 << 32 | parent);
    }
    check_eq!(text.call_at(AT_R8, [libc::SYS_getuid as u64, 0, 0, 0]), 110 << 32);
    Ok(())
}

/// Calls `at` with known registers and red zone; those afterwards, the flags last.
fn call_with_known(at: usize, number: u64, flags: u64) -> [u64; 16] {
    let mut image = [0u64; 16];
    for (index, word) in image.iter_mut().enumerate() {
        *word = 0x0101_0101_0101_0101 * (index as u64 + 1);
    }
    // rdi is the number, rsi..rcx are the arguments of a call that fails or ignores them.
    (image[5], image[15]) = (number, flags);
    // SAFETY: all registers but the stack's are saved; the code at `at` is jumped to with its return address in the red
    // zone's stead, so that its `ret` uses the stack as a call does.
    unsafe {
        std::arch::asm!(
            "push rbx", "push rbp", "push rax", "push {at}",
            "mov r15, [rax + 112]", "mov r14, [rax + 104]", "mov r13, [rax + 96]", "mov r12, [rax + 88]",
            "mov r10, [rax + 72]", "mov r9, [rax + 64]", "mov r8, [rax + 56]",
            "mov rbp, [rax + 8]", "mov rbx, [rax]", "mov rsi, [rax + 48]", "mov rdi, [rax + 40]",
            "mov rdx, [rax + 24]", "mov rcx, [rax + 16]",
            "push [rax + 120]", "popfq",
            // The red zone of the code that runs: below its return address.
            "mov qword ptr [rsp - 16], 0x1234567", "mov qword ptr [rsp - 136], 0x7654321",
            "call [rsp]",
            "pushfq", "pop r11",
            "mov rax, [rsp + 8]",
            "mov [rax + 120], r11",
            "mov [rax + 112], r15", "mov [rax + 104], r14", "mov [rax + 96], r13", "mov [rax + 88], r12",
            "mov [rax + 72], r10", "mov [rax + 64], r9", "mov [rax + 56], r8",
            "mov [rax + 8], rbp", "mov [rax], rbx", "mov [rax + 48], rsi", "mov [rax + 40], rdi",
            "mov [rax + 24], rdx",
            "mov rcx, [rsp - 16]", "mov [rax + 16], rcx", "mov rcx, [rsp - 136]", "mov [rax + 32], rcx",
            "cld",
            "add rsp, 16", "pop rbp", "pop rbx",
            at = inout(reg) at => _,
            inout("rax") image.as_mut_ptr() => _,
            out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _,
            out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    image
}

fn registers_flags_and_red_zone() -> CaseResult {
    let text = Text::new()?;
    // CF PF AF ZF SF DF OF, in two patterns.
    for flags in [0x202_u64, 0xed7, 0x202 | 0x400, 0x202 | 0x801] {
        let mut seen = Vec::new();
        for _ in 0..4 {
            // The call itself, without the comparison behind it; its number is not a call's.
            seen.push(call_with_known(text.0 + AT_PARENT, 0, flags));
            seen.push(call_with_known(text.0 + AT_GETPID, 0, flags));
        }
        for image in seen {
            for (index, word) in image.iter().enumerate() {
                let want = match index {
                    2 => 0x1234567,
                    4 => 0x7654321,
                    5 => 0,
                    15 => flags,
                    _ => 0x0101_0101_0101_0101 * (index as u64 + 1),
                };
                check_eq!((index, *word), (index, want));
            }
        }
    }
    Ok(())
}

fn own_memory_shows_the_original_bytes() -> CaseResult {
    let text = Text::new()?;
    text.warm()?;
    let memory = open(c"/proc/self/mem", libc::O_RDONLY, 0)?;
    check_eq!(pread(memory.as_raw_fd(), text.0 as i64, 2 * PAGE)?, image());
    // Across the middle of each.
    for at in AT_PARENT..AT_ANY + ANY.len() {
        check_eq!(pread(memory.as_raw_fd(), (text.0 + at) as i64, 3)?, image()[at..at + 3]);
    }
    Ok(())
}

fn own_text_seen_by_calls_and_loads() -> CaseResult {
    let text = Text::new()?;
    text.warm()?;
    check_eq!(text.bytes(0, 2 * PAGE), image());
    let (reader, writer) = pipe(0)?;
    let part = (text.0 + AT_ANY) as *const libc::c_void;
    check_eq!(sys!(write(writer.as_raw_fd(), part, ANY.len()))?, ANY.len() as i64);
    let mut seen = vec![0; ANY.len()];
    crate::sys::read(reader.as_raw_fd(), &mut seen)?;
    check_eq!(seen, ANY);
    Ok(())
}

fn threads_at_a_fresh_site() -> CaseResult {
    let parent = raw!(SYS_getppid())?;
    for _ in 0..100 {
        let text = Text::new()?;
        let start = AtomicU32::new(0);
        let wrong = std::thread::scope(|scope| {
            let run = || {
                start.fetch_add(1, Ordering::SeqCst);
                while start.load(Ordering::SeqCst) < 4 {
                    let _ = raw!(SYS_sched_yield());
                }
                (0..20).any(|_| text.parent() != parent || text.any(libc::SYS_getppid, [0; 3]) != parent)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().any(|thread| thread.join().unwrap_or(true))
        });
        check!(!wrong);
        unmap(text.start(), 2 * PAGE)?;
    }
    Ok(())
}

fn text_made_writable_and_back() -> CaseResult {
    let text = Text::new()?;
    for round in 0..50 {
        text.warm()?;
        protect(text.start(), 2 * PAGE, RW)?;
        check_eq!(text.bytes(0, 2 * PAGE), image());
        // getppid becomes getuid, and back.
        for number in [102_u8, 110] {
            crate::memory::poke(text.start(), AT_PARENT + 1, number);
            protect(text.start(), 2 * PAGE, RX)?;
            let want = if number == 110 { raw!(SYS_getppid())? } else { 0 };
            for _ in 0..3 {
                check_eq!((round, text.parent()), (round, want));
            }
            protect(text.start(), 2 * PAGE, RW | libc::PROT_EXEC)?;
            check_eq!(text.bytes(AT_PARENT + 1, 1), [number]);
        }
        protect(text.start(), 2 * PAGE, RX)?;
    }
    Ok(())
}

fn text_written_by_proc_mem() -> CaseResult {
    let text = Text::new()?;
    text.warm()?;
    let memory = open(c"/proc/self/mem", libc::O_RDWR, 0)?;
    for number in [102_u8, 110, 102] {
        sys!(pwrite(memory.as_raw_fd(), [number].as_ptr().cast(), 1, (text.0 + AT_PARENT + 1) as i64))?;
        let want = if number == 110 { raw!(SYS_getppid())? } else { 0 };
        for _ in 0..3 {
            check_eq!(text.parent(), want);
        }
        check_eq!(text.any(libc::SYS_getuid, [0; 3]), 0);
    }
    Ok(())
}

fn text_dropped_by_madvise() -> CaseResult {
    let text = Text::new()?;
    for _ in 0..50 {
        text.warm()?;
        sys!(madvise(text.start().cast(), 2 * PAGE, libc::MADV_DONTNEED))?;
        check_eq!(text.bytes(0, 2 * PAGE), image());
    }
    Ok(())
}

fn code_in_anonymous_memory() -> CaseResult {
    let text = Text(anonymous(2, RW | libc::PROT_EXEC)? as usize);
    let fill = |bytes: &[u8]| {
        for (at, byte) in bytes.iter().enumerate() {
            crate::memory::poke(text.start(), at, *byte);
        }
    };
    for _ in 0..20 {
        fill(&image());
        text.warm()?;
        check_eq!(text.bytes(0, 2 * PAGE), image());
        // A generator overwrites its code in place.
        crate::memory::poke(text.start(), AT_PARENT + 1, 102);
        check_eq!(text.parent(), 0);
        crate::memory::poke(text.start(), AT_ANY + 11, 0x90);
        crate::memory::poke(text.start(), AT_ANY + 12, 0x90);
        check_eq!(text.any(4711, [0; 3]), 4711);
    }
    Ok(())
}

fn code_moved_by_mremap() -> CaseResult {
    let mut text = Text::new()?;
    for _ in 0..50 {
        text.warm()?;
        let target = anonymous(2, libc::PROT_NONE)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let moved = sys!(mremap(text.start().cast(), 2 * PAGE, 2 * PAGE, flags, target.cast::<libc::c_void>()))?;
        check_eq!(moved as usize, target as usize);
        text = Text(moved as usize);
        check_eq!(text.bytes(0, 2 * PAGE), image());
    }
    text.warm()
}

fn file_mapped_hundreds_of_times() -> CaseResult {
    let fixed = Text::new()?;
    for round in 0..400 {
        // At new places, and again and again at the same.
        let text = if round % 2 == 0 { Text::new()? } else { Text::at(fixed.0, libc::MAP_FIXED)? };
        text.warm()?;
        check!(round < 200 || text.bytes(AT_GETPID + 5, 3) == [0x0f, 0x05, 0xc3]);
        if text.0 != fixed.0 && round % 8 != 0 {
            unmap(text.start(), 2 * PAGE)?;
        }
    }
    Ok(())
}

fn text_replaced_under_a_blocked_call() -> CaseResult {
    let text = Text::new()?;
    let (reader, writer) = pipe(0)?;
    let input = reader.as_raw_fd();
    for round in 0..40 {
        text.warm()?;
        let mut byte = [0u8];
        let at = byte.as_mut_ptr() as u64;
        let tid = AtomicU32::new(0);
        let got = std::thread::scope(|scope| -> CaseResult<i64> {
            let thread = scope.spawn(|| {
                tid.store(raw!(SYS_gettid()).unwrap_or(1) as u32, Ordering::SeqCst);
                text.any(libc::SYS_read, [input as u64, at, 1])
            });
            while tid.load(Ordering::SeqCst) == 0 {
                let _ = raw!(SYS_sched_yield());
            }
            let stat = format!("/proc/self/task/{}/stat", tid.load(Ordering::SeqCst));
            while !std::fs::read_to_string(&stat)?.contains(") S ") {
                let _ = raw!(SYS_sched_yield());
            }
            match round % 3 {
                0 => {
                    protect(text.start(), 2 * PAGE, RW)?;
                    protect(text.start(), 2 * PAGE, RX)?;
                }
                1 => drop(Text::at(text.0, libc::MAP_FIXED)?),
                _ => sys!(madvise(text.start().cast(), 2 * PAGE, libc::MADV_DONTNEED)).map(drop)?,
            }
            // Others may now get what the first had.
            let other = Text::new()?;
            other.warm()?;
            unmap(other.start(), 2 * PAGE)?;
            write(writer.as_raw_fd(), b"x")?;
            thread.join().map_err(|_| "panic".into())
        })?;
        check_eq!((round, got, byte), (round, 1, *b"x"));
    }
    Ok(())
}

/// Takes every free 64 KiB of the 2 GiB on each side of text, where code near it could have been put.
fn mappings_around_text() -> CaseResult {
    const STEP: usize = 0x1_0000;
    let text = Text::new()?;
    text.warm()?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
    let base = text.0 & !(STEP - 1);
    let mut taken = 0;
    // In blocks where nothing is mapped; 64 KiB at a time where something is.
    for block in (base - (1 << 31)..base + (1 << 31)).step_by(1 << 24) {
        if map_at(block, 1 << 24, RW, flags, -1, 0).is_ok() {
            taken += 1;
            text.warm()?;
            continue;
        }
        for at in (block..block + (1 << 24)).step_by(STEP) {
            taken += i32::from(map_at(at, STEP, RW, flags, -1, 0).is_ok());
        }
        text.warm()?;
    }
    check!(taken > 100, "{taken}");
    let other = Text::new()?;
    other.warm()?;
    Ok(())
}

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_GET_GS: u64 = 0x1004;

fn gs_word() -> u64 {
    let value: u64;
    // SAFETY: the case has set the base to readable memory.
    unsafe { std::arch::asm!("mov {}, gs:[0]", out(reg) value) };
    value
}

fn gs_of_its_own() -> CaseResult {
    let text = Text::new()?;
    text.warm()?;
    let words = [0x1122_3344_5566_7788_u64; 256];
    raw!(SYS_arch_prctl(ARCH_SET_GS, words.as_ptr()))?;
    check_eq!(gs_word(), words[0]);
    text.warm()?;
    let fresh = Text::new()?;
    fresh.warm()?;
    check_eq!(gs_word(), words[0]);
    let mut base = 0_u64;
    raw!(SYS_arch_prctl(ARCH_GET_GS, &raw mut base))?;
    check_eq!(base, words.as_ptr() as u64);
    // A thread's is its own; it starts with the maker's.
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| (gs_word(), fresh.warm().is_ok(), Text::new().is_ok_and(|t| t.warm().is_ok()))).join()
    });
    check_eq!(seen.map_err(|_| "panic")?, (words[0], true, true));
    raw!(SYS_arch_prctl(ARCH_SET_GS, 0))?;
    fresh.warm()
}

fn gs_before_fork() -> CaseResult {
    let words = [0x55_u64; 256];
    raw!(SYS_arch_prctl(ARCH_SET_GS, words.as_ptr()))?;
    let child = fork_child(|| {
        let fine = Text::new().is_ok_and(|text| text.warm().is_ok());
        i32::from(!(fine && gs_word() == 0x55))
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn gs_loaded_by_selector() -> CaseResult {
    let text = Text::new()?;
    text.warm()?;
    for _ in 0..50 {
        // SAFETY: nothing here uses the segment; a null selector makes its base 0.
        unsafe { std::arch::asm!("mov gs, {0:e}", in(reg) 0_u32) };
        check_eq!(text.parent(), raw!(SYS_getppid())?);
        text.warm()?;
        // SAFETY: as above.
        unsafe { std::arch::asm!("mov gs, {0:e}", in(reg) 0_u32) };
        check_eq!(text.any(libc::SYS_close, [u64::MAX, 0, 0]), -i64::from(libc::EBADF));
    }
    Ok(())
}

fn fork_in_the_middle() -> CaseResult {
    let text = Text::new()?;
    let stop = AtomicU32::new(0);
    let parent = raw!(SYS_getppid())?;
    std::thread::scope(|scope| -> CaseResult {
        let busy = || {
            let mut wrong = 0;
            while stop.load(Ordering::Relaxed) == 0 {
                wrong += i32::from(text.parent() != parent || text.any(libc::SYS_getppid, [0; 3]) != parent);
            }
            wrong
        };
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(busy)).collect();
        let result = (0..60).try_for_each(|_| -> CaseResult {
            let this = i64::from(me());
            let pid = text.any(libc::SYS_fork, [0; 3]);
            if pid == 0 {
                let fine = text.parent() == this
                    && text.any(libc::SYS_getppid, [0; 3]) == this
                    && text.pid() == text.any(libc::SYS_getpid, [0; 3])
                    && text.pid() == text.tid()
                    && text.pid() != this;
                text.any(libc::SYS_exit_group, [u64::from(!fine), 0, 0]);
            }
            check_eq!(wait_for(pid as i32)?, Ended::Exited(0));
            Ok(())
        });
        stop.store(1, Ordering::Relaxed);
        for thread in threads {
            check_eq!(thread.join().map_err(|_| "panic")?, 0);
        }
        result
    })
}

fn vfork_from_mapped_code() -> CaseResult {
    let text = Text::new()?;
    text.warm()?;
    for _ in 0..100 {
        let stack = vec![0u8; 1 << 14];
        let top = (stack.as_ptr() as u64 + (1 << 14)) & !15;
        extern "C" fn child(text: *mut libc::c_void) -> i32 {
            let text = Text(text as usize);
            let fine = text.pid() == text.tid() && text.pid() == text.any(libc::SYS_getpid, [0; 3]);
            i32::from(!fine || text.pid() == text.parent())
        }
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let pid = sys!(clone(child, top as *mut libc::c_void, flags, text.0 as *mut libc::c_void))?;
        check_eq!(wait_for(pid as i32)?, Ended::Exited(0));
        check_eq!(text.pid(), i64::from(me()));
    }
    Ok(())
}

fn ids_in_children_and_threads() -> CaseResult {
    let text = Text::new()?;
    text.warm()?;
    for _ in 0..20 {
        let this = i64::from(me());
        let thread = std::thread::scope(|scope| scope.spawn(|| (text.pid(), text.tid(), raw!(SYS_gettid()))).join());
        let (pid, tid, known) = thread.map_err(|_| "panic")?;
        check_eq!((pid, tid), (this, known?));
        check!(tid != this);
        let child = fork_child(|| {
            let own = std::thread::scope(|scope| scope.spawn(|| (text.pid(), text.tid())).join());
            i32::from(text.pid() == this || own.is_ok_and(|(pid, tid)| pid != text.pid() || tid == pid))
        })?;
        check_eq!(wait_for(child)?, Ended::Exited(0));
        check_eq!((text.pid(), text.tid()), (this, this));
    }
    Ok(())
}
