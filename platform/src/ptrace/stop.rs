//! What a stop of a guest thread means.
use abi::{Registers, Signal};

use super::calls::{SignalInfo, Tracee};
use crate::{FaultAccess, PlatformError, Trap, vsyscall};

/// The signal by which a guest thread is interrupted: one that does nothing to a thread that nobody traces.
pub(super) const INTERRUPT: i32 = libc::SIGURG;
/// `si_code` of signals that the kernel made without saying more.
const SI_KERNEL: i32 = 0x80;
const SYSTEM_CALL_STOP: i32 = libc::SIGTRAP | 0x80;
/// `si_code` of a signal that a seccomp filter sent.
const SYS_SECCOMP: i32 = 1;
const USER_CS: u64 = 0x33;

/// A wait status, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The thread has ended.
    Ended,
    /// At a system call.
    SystemCall,
    /// A signal is about to be delivered.
    Signal(i32),
    /// One of ptrace's own stops.
    Event,
}

impl Stop {
    pub(super) const fn from_status(status: i32) -> Self {
        if !libc::WIFSTOPPED(status) {
            return Self::Ended;
        }
        match (status >> 16, libc::WSTOPSIG(status)) {
            (0, SYSTEM_CALL_STOP) => Self::SystemCall,
            (0, signal) => Self::Signal(signal),
            _ => Self::Event,
        }
    }
}

/// The trap that a system call stop is. The 64-bit entry leaves the address of the next instruction in `rcx`; where it is
/// not there, the kernel is asked how the call was made.
pub(super) fn system_call(tracee: Tracee, regs: &mut Registers) -> Result<Trap, PlatformError> {
    if regs.cs == USER_CS && (regs.rcx == regs.rip || tracee.is_64_bit_call()?) {
        return Ok(Trap::Syscall);
    }
    // `int $0x80`, `sysenter` or 32-bit code. Both instructions have two bytes.
    regs.rax = regs.orig_rax;
    regs.orig_rax = u64::MAX;
    regs.rip = regs.rip.wrapping_sub(2);
    Ok(Trap::Exception { signal: Signal::SIGSEGV, code: SI_KERNEL, addr: 0 })
}

/// A call of the host's vsyscall page, which the stubs' filter makes a signal: the system call that the page stands for.
/// The host has returned from the page already.
pub(super) fn vsyscall(info: SignalInfo, regs: &mut Registers) -> Option<Trap> {
    regs.orig_rax = vsyscall::call(info.addr).filter(|_| info.code == SYS_SECCOMP)?;
    Some(Trap::Syscall)
}

/// The trap that a signal is; `None` if it was sent by somebody on the host, whom the guest does not see.
pub(super) fn signal(signal: i32, info: SignalInfo, regs: &Registers) -> Option<Trap> {
    let SignalInfo { code, addr } = info;
    if code <= 0 {
        return None;
    }
    match signal {
        libc::SIGSEGV if code != SI_KERNEL => {
            let access = if addr == regs.rip { FaultAccess::Execute } else { FaultAccess::Unknown };
            Some(Trap::Fault { addr, access })
        }
        libc::SIGSEGV => Some(Trap::Exception { signal: Signal::SIGSEGV, code, addr: 0 }),
        libc::SIGBUS | libc::SIGTRAP | libc::SIGFPE | libc::SIGILL => {
            Signal::new(signal).map(|signal| Trap::Exception { signal, code, addr })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;

    #[test]
    fn statuses() {
        assert_eq!(Stop::from_status(0), Stop::Ended);
        assert_eq!(Stop::from_status(libc::SIGKILL), Stop::Ended);
        assert_eq!(Stop::from_status(0x7f | SYSTEM_CALL_STOP << 8), Stop::SystemCall);
        assert_eq!(Stop::from_status(0x7f | libc::SIGTRAP << 8), Stop::Signal(libc::SIGTRAP));
        assert_eq!(Stop::from_status(0x7f | libc::SIGTRAP << 8 | 128 << 16), Stop::Event);
    }

    #[test]
    fn calls_of_the_vsyscall_page() {
        let mut regs = Registers::default();
        let mut trap =
            |addr| vsyscall(SignalInfo { code: SYS_SECCOMP, addr }, &mut regs).map(|_| regs.orig_rax);
        assert_eq!(trap(VSYSCALL), Some(96));
        assert_eq!(trap(VSYSCALL + 0x800), Some(309));
        assert_eq!(trap(VSYSCALL + 0xc00), None);
        assert_eq!(trap(0x40_0000), None);
    }

    #[test]
    fn signals() {
        let regs = Registers { rip: 0x1000, ..Registers::default() };
        let kind = |s, code, addr| signal(s, SignalInfo { code, addr }, &regs);
        let fault = |addr, access| Some(Trap::Fault { addr, access });
        assert_eq!(kind(libc::SIGSEGV, 1, 0x1000), fault(0x1000, FaultAccess::Execute));
        assert_eq!(kind(libc::SIGSEGV, 2, 0x2000), fault(0x2000, FaultAccess::Unknown));
        assert_eq!(kind(libc::SIGSEGV, 0, 0), None, "kill(1) from the host");
        assert_eq!(kind(libc::SIGTERM, 0x80, 0), None);
        let exception = Trap::Exception { signal: Signal::SIGFPE, code: 1, addr: 0x1000 };
        assert_eq!(kind(libc::SIGFPE, 1, 0x1000), Some(exception));
    }
}
