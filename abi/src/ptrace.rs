//! Tracing, `ptrace(2)`: requests, options, events and wire structs, for x86-64.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What `ptrace(2)` is asked for.
#[expect(missing_docs, reason = "the names are those of ptrace(2)")]
pub mod request {
    pub const TRACEME: u64 = 0;
    pub const PEEKTEXT: u64 = 1;
    pub const PEEKDATA: u64 = 2;
    pub const PEEKUSER: u64 = 3;
    pub const POKETEXT: u64 = 4;
    pub const POKEDATA: u64 = 5;
    pub const POKEUSER: u64 = 6;
    pub const CONT: u64 = 7;
    pub const KILL: u64 = 8;
    pub const SINGLESTEP: u64 = 9;
    pub const GETREGS: u64 = 12;
    pub const SETREGS: u64 = 13;
    pub const GETFPREGS: u64 = 14;
    pub const SETFPREGS: u64 = 15;
    pub const ATTACH: u64 = 16;
    pub const DETACH: u64 = 17;
    pub const OLDSETOPTIONS: u64 = 21;
    pub const SYSCALL: u64 = 24;
    pub const ARCH_PRCTL: u64 = 30;
    pub const SYSEMU: u64 = 31;
    pub const SYSEMU_SINGLESTEP: u64 = 32;
    pub const SETOPTIONS: u64 = 0x4200;
    pub const GETEVENTMSG: u64 = 0x4201;
    pub const GETSIGINFO: u64 = 0x4202;
    pub const SETSIGINFO: u64 = 0x4203;
    pub const GETREGSET: u64 = 0x4204;
    pub const SETREGSET: u64 = 0x4205;
    pub const SEIZE: u64 = 0x4206;
    pub const INTERRUPT: u64 = 0x4207;
    pub const LISTEN: u64 = 0x4208;
    pub const PEEKSIGINFO: u64 = 0x4209;
    pub const GETSIGMASK: u64 = 0x420a;
    pub const SETSIGMASK: u64 = 0x420b;
    pub const GET_SYSCALL_INFO: u64 = 0x420e;
    pub const SET_SYSCALL_INFO: u64 = 0x4212;
}

/// `PTRACE_O_*`.
#[expect(missing_docs, reason = "the names are those of ptrace(2)")]
pub mod option {
    pub const TRACESYSGOOD: u32 = 1;
    pub const TRACEFORK: u32 = 1 << 1;
    pub const TRACEVFORK: u32 = 1 << 2;
    pub const TRACECLONE: u32 = 1 << 3;
    pub const TRACEEXEC: u32 = 1 << 4;
    pub const TRACEVFORKDONE: u32 = 1 << 5;
    pub const TRACEEXIT: u32 = 1 << 6;
    pub const TRACESECCOMP: u32 = 1 << 7;
    pub const EXITKILL: u32 = 1 << 20;
    /// Every one there is, but for `SUSPEND_SECCOMP`, which a kernel without checkpoints does not know.
    pub const ALL: u32 = 0xff | EXITKILL;
}

/// `PTRACE_EVENT_*`; option bit n turns on event n.
#[expect(missing_docs, reason = "the names are those of ptrace(2)")]
pub mod event {
    pub const FORK: i32 = 1;
    pub const VFORK: i32 = 2;
    pub const CLONE: i32 = 3;
    pub const EXEC: i32 = 4;
    pub const VFORK_DONE: i32 = 5;
    pub const EXIT: i32 = 6;
    pub const SECCOMP: i32 = 7;
    /// Of seized threads only.
    pub const STOP: i32 = 128;
}

/// The message of a stop before a system call, and of one after it.
pub const EVENTMSG_SYSCALL_ENTRY: u64 = 1;
/// See [`EVENTMSG_SYSCALL_ENTRY`].
pub const EVENTMSG_SYSCALL_EXIT: u64 = 2;

/// Register sets: general registers.
pub const NT_PRSTATUS: u64 = 1;
/// Register sets: the legacy FPU state.
pub const NT_PRFPREG: u64 = 2;
/// Register sets: the XSAVE area.
pub const NT_X86_XSTATE: u64 = 0x202;

/// The size of `struct user`.
pub const USER_SIZE: u64 = 928;
/// Where the debug registers are in it.
pub const USER_DEBUG_REGISTERS: u64 = 848;

/// `struct ptrace_peeksiginfo_args`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PeekSiginfoArgs {
    /// The first signal that is wanted.
    pub off: u64,
    /// [`PEEKSIGINFO_SHARED`].
    pub flags: u32,
    /// How many are wanted.
    pub nr: i32,
}

/// Looks at the signals of the process.
pub const PEEKSIGINFO_SHARED: u32 = 1;

/// `struct ptrace_syscall_info`, of which what `op` says counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SyscallInfo {
    /// `SYSCALL_INFO_*`.
    pub op: u8,
    /// Zero.
    pub reserved: u8,
    /// Zero.
    pub flags: u16,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The address behind the instruction.
    pub instruction_pointer: u64,
    /// The stack pointer.
    pub stack_pointer: u64,
    /// Number and arguments; or the result, and whether it is an error in the lowest byte of the second word; of a stop by a
    /// filter also, last, its data.
    pub words: [u64; 8],
}

/// No system call.
pub const SYSCALL_INFO_NONE: u8 = 0;
/// About to be made.
pub const SYSCALL_INFO_ENTRY: u8 = 1;
/// Made.
pub const SYSCALL_INFO_EXIT: u8 = 2;
/// A filter asks.
pub const SYSCALL_INFO_SECCOMP: u8 = 3;
