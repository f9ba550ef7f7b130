//! The frame that a signal handler finds on its stack, Linux `arch/x86/include/uapi/asm/{sigcontext,ucontext}.h`.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::SigSet;
use crate::siginfo::SigInfoWire;

/// The thread runs on its alternate stack.
pub const SS_ONSTACK: i32 = 1;
/// There is no alternate stack.
pub const SS_DISABLE: i32 = 2;
/// The alternate stack is taken away while a handler runs on it.
pub const SS_AUTODISARM: i32 = 1 << 31;
/// The least size of an alternate stack.
pub const MINSIGSTKSZ: u64 = 2048;

/// `stack_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StackT {
    /// `ss_sp`.
    pub sp: u64,
    /// `ss_flags`.
    pub flags: i32,
    /// Padding.
    pub pad: u32,
    /// `ss_size`.
    pub size: u64,
}

impl Default for StackT {
    fn default() -> Self {
        Self { sp: 0, flags: SS_DISABLE, pad: 0, size: 0 }
    }
}

/// `struct sigcontext_64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of the header")]
pub struct SigContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub di: u64,
    pub si: u64,
    pub bp: u64,
    pub bx: u64,
    pub dx: u64,
    pub ax: u64,
    pub cx: u64,
    pub sp: u64,
    pub ip: u64,
    pub flags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    pub err: u64,
    pub trapno: u64,
    pub oldmask: u64,
    pub cr2: u64,
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

/// `uc_flags`: `fpstate` is an XSAVE area.
pub const UC_FP_XSTATE: u64 = 1;
/// `uc_flags`: `ss` is saved.
pub const UC_SIGCONTEXT_SS: u64 = 2;
/// `uc_flags`: `ss` is restored as saved.
pub const UC_STRICT_RESTORE_SS: u64 = 4;

/// `struct ucontext`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UContext {
    /// `UC_*`.
    pub flags: u64,
    /// Unused.
    pub link: u64,
    /// The alternate stack as it was.
    pub stack: StackT,
    /// The registers.
    pub mcontext: SigContext,
    /// The signal mask as it was.
    pub sigmask: SigSet,
}

/// `struct rt_sigframe`; at a handler's entry the stack pointer is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RtSigFrame {
    /// Where the handler returns to.
    pub pretcode: u64,
    /// What sigreturn restores.
    pub uc: UContext,
    /// What came with the signal.
    pub info: SigInfoWire,
}

/// Offset of `struct _fpx_sw_bytes` in the legacy area of an XSAVE image.
pub const FPX_SW_OFFSET: usize = 464;
/// Marks an `fpstate` that has extended state.
pub const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// Follows the extended state.
pub const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;

/// `struct _fpx_sw_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FpxSwBytes {
    /// [`FP_XSTATE_MAGIC1`].
    pub magic1: u32,
    /// Size with [`FP_XSTATE_MAGIC2`].
    pub extended_size: u32,
    /// Which components are there.
    pub xfeatures: u64,
    /// Size without.
    pub xstate_size: u32,
    /// Unused.
    pub padding: [u32; 7],
}

const _: () = {
    assert!(size_of::<SigContext>() == 256);
    assert!(size_of::<UContext>() == 304);
    assert!(size_of::<RtSigFrame>() == 440);
    assert!(size_of::<FpxSwBytes>() == 48);
    assert!(size_of::<StackT>() == 24);
};
