//! Touching memory that may fault, and going on after it.

use crate::signal::set_action;
use crate::sys::SysError;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

static RECOVER: AtomicUsize = AtomicUsize::new(0);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static ERROR: AtomicUsize = AtomicUsize::new(0);

/// A fault, as siginfo and the machine context tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) signal: i32,
    pub(crate) code: i32,
    pub(crate) address: usize,
}

impl Fault {
    /// SIGSEGV, nothing mapped there.
    pub(crate) fn unmapped(address: usize) -> Self {
        Self { signal: libc::SIGSEGV, code: 1, address }
    }

    /// SIGSEGV, not allowed by the mapping.
    pub(crate) fn forbidden(address: usize) -> Self {
        Self { signal: libc::SIGSEGV, code: 2, address }
    }
}

/// What is done to the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Execute,
}

extern "C" fn skip(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo and a valid ucontext, which it loads again on return.
    unsafe {
        SIGNAL.store(signal, Ordering::SeqCst);
        CODE.store((*info).si_code, Ordering::SeqCst);
        ADDRESS.store((*info).si_addr() as usize, Ordering::SeqCst);
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        ERROR.store(registers[libc::REG_ERR as usize] as usize, Ordering::SeqCst);
        registers[libc::REG_RIP as usize] = RECOVER.load(Ordering::SeqCst) as i64;
    }
}

/// The page-fault error code of the last fault: bit 1 for a write, bit 2 for user mode, bit 4 for an instruction fetch.
pub(crate) fn last_error_code() -> usize {
    ERROR.load(Ordering::SeqCst)
}

/// Touches one byte (a written byte keeps its value when it can be read); the fault, or none. An executed byte must be
/// a `ret`.
pub(crate) fn touch(address: usize, access: Access) -> Result<Option<Fault>, SysError> {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        set_action(signal, skip as *const () as usize, libc::SA_SIGINFO, &[])?;
    }
    SIGNAL.store(0, Ordering::SeqCst);
    let recover = RECOVER.as_ptr();
    // SAFETY: each block keeps registers and stack; a fault continues at label 2 with the stack pointer of the
    // faulting instruction, which `r12` restores.
    unsafe {
        match access {
            Access::Read => std::arch::asm!(
                "lea {t}, [rip + 2f]", "mov [{r}], {t}", "mov {t:l}, byte ptr [{a}]", "2:",
                t = out(reg_abcd) _, r = in(reg) recover, a = in(reg) address,
            ),
            Access::Write => std::arch::asm!(
                "lea {t}, [rip + 2f]", "mov [{r}], {t}", "lock or byte ptr [{a}], 0", "2:",
                t = out(reg_abcd) _, r = in(reg) recover, a = in(reg) address,
            ),
            Access::Execute => std::arch::asm!(
                "mov r12, rsp", "sub rsp, 256", "lea {t}, [rip + 2f]", "mov [{r}], {t}", "call {a}", "2:",
                "mov rsp, r12",
                t = out(reg) _, r = in(reg) recover, a = in(reg) address, out("r12") _,
            ),
        }
    }
    let signal = SIGNAL.load(Ordering::SeqCst);
    Ok((signal != 0).then(|| Fault {
        signal,
        code: CODE.load(Ordering::SeqCst),
        address: ADDRESS.load(Ordering::SeqCst),
    }))
}
