//! General registers of a thread, `struct user_regs_struct` of Linux `arch/x86/include/asm/user_64.h`.

/// The registers in the order of `user_regs_struct`, as `PTRACE_GETREGS` and core files give them.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the processor's")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The system call number at a system call stop, all ones otherwise.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

impl Registers {
    /// The number of the system call that the thread made.
    #[must_use]
    pub const fn syscall_number(&self) -> u64 {
        self.orig_rax
    }

    /// The six arguments of the system call, as the x86-64 ABI passes them.
    #[must_use]
    pub const fn syscall_args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    /// Sets what the system call returns.
    pub const fn set_syscall_return(&mut self, value: u64) {
        self.rax = value;
    }
}
