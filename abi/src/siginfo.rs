//! What comes with a signal, `siginfo_t` of sigaction(2), and who handles it.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::SigSet;

/// Sent by kill(2).
pub const SI_USER: i32 = 0;
/// Sent by the kernel itself.
pub const SI_KERNEL: i32 = 0x80;
/// Sent by sigqueue(3).
pub const SI_QUEUE: i32 = -1;
/// A POSIX timer expired.
pub const SI_TIMER: i32 = -2;
/// A message queue became non-empty.
pub const SI_MESGQ: i32 = -3;
/// Sent by tkill(2) or tgkill(2).
pub const SI_TKILL: i32 = -6;

/// The address is not mapped (`SIGSEGV`).
pub const SEGV_MAPERR: i32 = 1;
/// The mapping does not allow the access (`SIGSEGV`).
pub const SEGV_ACCERR: i32 = 2;
/// A division by zero (`SIGFPE`).
pub const FPE_INTDIV: i32 = 1;
/// A misaligned address (`SIGBUS`).
pub const BUS_ADRALN: i32 = 1;
/// An address without anything behind it (`SIGBUS`).
pub const BUS_ADRERR: i32 = 2;

/// A child exited.
pub const CLD_EXITED: i32 = 1;
/// A child was killed by a signal.
pub const CLD_KILLED: i32 = 2;
/// A child was killed by a signal and left a core file.
pub const CLD_DUMPED: i32 = 3;
/// A traced child trapped.
pub const CLD_TRAPPED: i32 = 4;
/// A child stopped.
pub const CLD_STOPPED: i32 = 5;
/// A stopped child went on.
pub const CLD_CONTINUED: i32 = 6;

/// `si_code` of `SIGIO` for input.
pub const POLL_IN: i32 = 1;
/// `si_code` of `SIGSYS` from a seccomp filter.
pub const SYS_SECCOMP: i32 = 1;

/// The size of `siginfo_t`.
pub const SIGINFO_SIZE: usize = 128;

/// `siginfo_t`: signal, errno, code, and 112 bytes whose meaning follows from the code.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigInfoWire {
    /// `si_signo`.
    pub si_signo: i32,
    /// `si_errno`.
    pub si_errno: i32,
    /// `si_code`.
    pub si_code: i32,
    /// Padding before the union.
    pub pad: i32,
    /// The union, from offset 16.
    pub fields: [u64; 14],
}

/// The default action.
pub const SIG_DFL: u64 = 0;
/// The signal is ignored.
pub const SIG_IGN: u64 = 1;

/// No `SIGCHLD` when children stop.
pub const SA_NOCLDSTOP: u64 = 1;
/// Children do not become zombies.
pub const SA_NOCLDWAIT: u64 = 2;
/// The handler takes three arguments.
pub const SA_SIGINFO: u64 = 4;
/// Tells that the kernel knows this flag-probing protocol.
pub const SA_UNSUPPORTED: u64 = 0x400;
/// `si_addr` keeps its tag bits.
pub const SA_EXPOSE_TAGBITS: u64 = 0x800;
/// `sa_restorer` is set.
pub const SA_RESTORER: u64 = 0x0400_0000;
/// The handler runs on the alternate stack.
pub const SA_ONSTACK: u64 = 0x0800_0000;
/// Interrupted system calls restart.
pub const SA_RESTART: u64 = 0x1000_0000;
/// The signal is not blocked while its handler runs.
pub const SA_NODEFER: u64 = 0x4000_0000;
/// The action becomes the default as the handler starts.
pub const SA_RESETHAND: u64 = 0x8000_0000;

/// `struct kernel_sigaction`, what rt_sigaction(2) takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigAction {
    /// The handler's address, [`SIG_DFL`] or [`SIG_IGN`].
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// What is blocked while it runs.
    pub mask: SigSet,
}

/// `how` of rt_sigprocmask(2): blocks more.
pub const SIG_BLOCK: i32 = 0;
/// `how` of rt_sigprocmask(2): unblocks.
pub const SIG_UNBLOCK: i32 = 1;
/// `how` of rt_sigprocmask(2): replaces.
pub const SIG_SETMASK: i32 = 2;
