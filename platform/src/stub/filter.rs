//! The stubs' seccomp filters.
//!
//! One is the process's: what a mapper and a thread that is no guest yet do, from our code only. Under ptrace guest threads
//! make no host system calls as long as their tracer holds them, and the filter is the second wall; the one way past the
//! tracer is the host's vsyscall page, which the kernel emulates without telling it: there the filter makes the call a
//! SIGSYS. Of threads that trap, each adds a second filter before it runs guest code. A guest can jump to any instruction
//! of the stub with registers of its choice, so what this one looks at are the arguments: a thread may wait for and wake
//! a word of its process's own areas, block the signals that it has blocked, let others have the CPU, and everything else
//! is a SIGSYS.
use super::{Flavor, blob, layout};

/// The calls, with the reason for each.
const ALLOWED: &[(i64, &str)] = &[
    (libc::SYS_futex, "the mapper waits for a request"),
    (libc::SYS_sched_yield, "it lets others run while it looks for one"),
    (libc::SYS_write, "it answers by its eventfd"),
    (libc::SYS_mmap, "requests"),
    (libc::SYS_munmap, "requests"),
    (libc::SYS_mprotect, "requests"),
    (libc::SYS_clone, "the template makes stubs, the mapper makes guest threads"),
    (libc::SYS_pause, "a guest thread waits for its tracer"),
    (libc::SYS_exit, "a guest thread ends"),
    (libc::SYS_restart_syscall, "a stopped futex wait goes on"),
];

/// What threads that trap need beside those.
const BEFORE_TRAPPING: &[(i64, &str)] = &[
    (libc::SYS_sigaltstack, "a new guest thread has a stack for its signals"),
    (libc::SYS_rt_sigprocmask, "and takes those that tell of traps"),
    (libc::SYS_seccomp, "and adds its filter"),
    (libc::SYS_exit_group, "or ends all if it cannot"),
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

/// The word of the low half of an argument; the high half is behind it.
const fn argument(number: u32) -> u32 {
    16 + 8 * number
}

const fn instruction(code: u16, yes: u8, no: u8, k: u32) -> [u8; 8] {
    let (c, k) = (code.to_le_bytes(), k.to_le_bytes());
    [c[0], c[1], yes, no, k[0], k[1], k[2], k[3]]
}

/// The process's program, as an array of `struct sock_filter`.
pub(crate) fn program(flavor: Flavor) -> Vec<u8> {
    let (end, more, refuse) = match flavor {
        Flavor::Traced => (layout::CODE + blob::SIZE, &[][..], RET_KILL_PROCESS),
        // Guest threads run in the middle of our code when they jump there: that is for them, and not for the process.
        Flavor::Trapping => (layout::REGIONS_END, BEFORE_TRAPPING, RET_TRAP),
    };
    let mut out = from_our_code(end);
    out.push(instruction(LOAD, 0, 0, NR));
    for (nr, _) in ALLOWED.iter().chain(more) {
        out.push(instruction(JUMP_EQUAL, 0, 1, u32::try_from(*nr).unwrap_or(u32::MAX)));
        out.push(instruction(RETURN, 0, 0, RET_ALLOW));
    }
    out.push(instruction(RETURN, 0, 0, refuse));
    out.concat()
}

/// The program of a guest thread that traps. `signals` is where the set of the signals is that it has blocked: the one
/// call that it needs behind this filter, because no signal may come before it.
pub(crate) fn thread_program(signals: u64) -> Vec<u8> {
    let [low, high] = halves(layout::REGIONS);
    let [end, _] = halves(layout::REGIONS_END);
    let mut out = from_our_code(layout::REGIONS_END);
    let nr = |nr: i64| u32::try_from(nr).unwrap_or(u32::MAX);
    let mask = mask_program(signals);
    let over_mask = u8::try_from(mask.len()).unwrap_or(u8::MAX);
    out.extend([
        instruction(LOAD, 0, 0, NR),
        instruction(JUMP_EQUAL, 0, 1, nr(libc::SYS_sched_yield)),
        instruction(RETURN, 0, 0, RET_ALLOW),
        instruction(JUMP_EQUAL, over_mask + 2, 0, nr(libc::SYS_futex)),
        instruction(JUMP_EQUAL, 1, 0, nr(libc::SYS_rt_sigprocmask)),
        instruction(RETURN, 0, 0, RET_TRAP),
    ]);
    out.extend(mask);
    let mut want = |word: u32, value: u32| out.extend(wanted(word, value));
    want(argument(0) + 4, high);
    want(argument(3), 0);
    want(argument(3) + 4, 0);
    let operation = |operation: i32| operation.cast_unsigned();
    out.extend([
        instruction(LOAD, 0, 0, argument(0)),
        instruction(JUMP_GREATER_OR_EQUAL, 0, 4, low),
        instruction(JUMP_GREATER_OR_EQUAL, 3, 0, end),
        instruction(LOAD, 0, 0, argument(1)),
        instruction(JUMP_EQUAL, 2, 0, operation(libc::FUTEX_WAIT)),
        instruction(JUMP_EQUAL, 1, 0, operation(libc::FUTEX_WAKE)),
        instruction(RETURN, 0, 0, RET_TRAP),
        instruction(RETURN, 0, 0, RET_ALLOW),
    ]);
    out.concat()
}

/// Allows to block exactly the set at `signals`, and to learn nothing by it: a guest that makes the call changes nothing.
fn mask_program(signals: u64) -> Vec<[u8; 8]> {
    let [low, high] = halves(signals);
    let words = [
        (argument(0), libc::SIG_SETMASK.cast_unsigned()),
        (argument(1), low),
        (argument(1) + 4, high),
        (argument(2), 0),
        (argument(2) + 4, 0),
    ];
    let mut out: Vec<_> = words.into_iter().flat_map(|(word, value)| wanted(word, value)).collect();
    out.push(instruction(RETURN, 0, 0, RET_ALLOW));
    out
}

/// Traps calls whose `word` has another value.
fn wanted(word: u32, value: u32) -> [[u8; 8]; 3] {
    [instruction(LOAD, 0, 0, word), instruction(JUMP_EQUAL, 1, 0, value), instruction(RETURN, 0, 0, RET_TRAP)]
}

/// Traps what does not come from [`layout::CODE`] to `end`, nor by the 64-bit entry.
fn from_our_code(end: u64) -> Vec<[u8; 8]> {
    let [low, high] = halves(layout::CODE);
    let [end, _] = halves(end);
    vec![
        instruction(LOAD, 0, 0, IP_HIGH),
        instruction(JUMP_EQUAL, 0, 3, high),
        instruction(LOAD, 0, 0, IP_LOW),
        instruction(JUMP_GREATER_OR_EQUAL, 0, 1, low),
        instruction(JUMP_GREATER_OR_EQUAL, 0, 1, end),
        instruction(RETURN, 0, 0, RET_TRAP),
        instruction(LOAD, 0, 0, ARCH),
        instruction(JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        instruction(RETURN, 0, 0, RET_TRAP),
    ]
}

fn halves(address: u64) -> [u32; 2] {
    let bytes = address.to_le_bytes();
    let half = |at: usize| {
        u32::from_le_bytes(bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or_default())
    };
    [half(0), half(4)]
}
