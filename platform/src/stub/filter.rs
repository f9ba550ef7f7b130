//! The stubs' seccomp filter: what a mapper and a parked thread do, from our code only.
//!
//! Guest threads make no host system calls as long as their tracer holds them; the filter is the second wall. The one way
//! past the tracer is the host's vsyscall page, which the kernel emulates without telling it: there the filter makes the
//! call a SIGSYS.
use super::{blob, layout};

/// The calls, with the reason for each.
const ALLOWED: &[(i64, &str)] = &[
    (libc::SYS_futex, "the mapper waits for a request"),
    (libc::SYS_write, "it answers by its eventfd"),
    (libc::SYS_mmap, "requests"),
    (libc::SYS_munmap, "requests"),
    (libc::SYS_mprotect, "requests"),
    (libc::SYS_clone, "the template makes stubs, the mapper makes guest threads"),
    (libc::SYS_pause, "a guest thread waits for its tracer"),
    (libc::SYS_exit, "a guest thread ends"),
    (libc::SYS_restart_syscall, "a stopped futex wait goes on"),
];

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Words of `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;

const fn instruction(code: u16, yes: u8, no: u8, k: u32) -> [u8; 8] {
    let (c, k) = (code.to_le_bytes(), k.to_le_bytes());
    [c[0], c[1], yes, no, k[0], k[1], k[2], k[3]]
}

/// The program, as an array of `struct sock_filter`.
pub(crate) fn program() -> Vec<u8> {
    let [low, high] = halves(layout::CODE);
    let [end, _] = halves(layout::CODE + blob::SIZE);
    let mut out = vec![
        instruction(LOAD, 0, 0, IP_HIGH),
        instruction(JUMP_EQUAL, 0, 3, high),
        instruction(LOAD, 0, 0, IP_LOW),
        instruction(JUMP_GREATER_OR_EQUAL, 0, 1, low),
        instruction(JUMP_GREATER_OR_EQUAL, 0, 1, end),
        instruction(RETURN, 0, 0, RET_TRAP),
        instruction(LOAD, 0, 0, ARCH),
        instruction(JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        instruction(RETURN, 0, 0, RET_KILL_PROCESS),
        instruction(LOAD, 0, 0, NR),
    ];
    for (nr, _) in ALLOWED {
        out.push(instruction(JUMP_EQUAL, 0, 1, u32::try_from(*nr).unwrap_or(u32::MAX)));
        out.push(instruction(RETURN, 0, 0, RET_ALLOW));
    }
    out.push(instruction(RETURN, 0, 0, RET_KILL_PROCESS));
    out.concat()
}

fn halves(address: u64) -> [u32; 2] {
    let bytes = address.to_le_bytes();
    let half = |at: usize| {
        u32::from_le_bytes(bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or_default())
    };
    [half(0), half(4)]
}
