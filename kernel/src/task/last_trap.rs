//! What the processor told of a task's last exception that became a signal, as signal frames show it, Linux `thread_struct`.
use abi::Signal;
use abi::siginfo::{FPE_INTDIV, SEGV_ACCERR, SI_KERNEL};
use platform::FaultAccess;

const DIVIDE_ERROR: u64 = 0;
const DEBUG: u64 = 1;
const BREAKPOINT: u64 = 3;
const INVALID_OPCODE: u64 = 6;
const GENERAL_PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;
const ALIGNMENT_CHECK: u64 = 17;
const SIMD_EXCEPTION: u64 = 19;

/// Bits of a page fault's error code.
const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 16;

/// The first address that is never the program's, whose faults Linux shows as those of a page that is there.
const KERNEL: u64 = 0x7fff_ffff_f000;

/// The exception. It stays for signals that come later, as in Linux.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastTrap {
    /// The processor's number.
    pub number: u64,
    /// Its error code.
    pub error: u64,
    /// The address of the last page fault.
    pub cr2: u64,
}

impl LastTrap {
    /// A page fault that became a signal with this `si_code`. What the processor saw in the page tables is not kept: a page
    /// counts as there if it may be accessed in another way.
    pub(super) const fn fault(addr: u64, access: FaultAccess, code: i32) -> Self {
        let kind = match access {
            FaultAccess::Read | FaultAccess::Unknown => 0,
            FaultAccess::Write => WRITE,
            FaultAccess::Execute => FETCH,
        };
        let present = if addr >= KERNEL || code == SEGV_ACCERR && kind != 0 { PRESENT } else { 0 };
        Self { number: PAGE_FAULT, error: USER | kind | present, cr2: addr }
    }

    /// Another exception, told by the signal that Linux makes of it; the page fault before it stays known. None of those
    /// that a program can cause has an error code but those that name a descriptor, which is not kept.
    pub(super) fn exception(self, signal: Signal, code: i32) -> Self {
        let number = match signal {
            Signal::SIGFPE if code == FPE_INTDIV => DIVIDE_ERROR,
            Signal::SIGFPE => SIMD_EXCEPTION,
            Signal::SIGTRAP if code == SI_KERNEL => BREAKPOINT,
            Signal::SIGTRAP => DEBUG,
            Signal::SIGILL => INVALID_OPCODE,
            Signal::SIGBUS => ALIGNMENT_CHECK,
            _ => GENERAL_PROTECTION,
        };
        Self { number, error: 0, cr2: self.cr2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_and_exceptions() {
        let fault = LastTrap::fault(0x1000, FaultAccess::Write, SEGV_ACCERR);
        assert_eq!(fault, LastTrap { number: 14, error: 7, cr2: 0x1000 });
        assert_eq!(LastTrap::fault(8, FaultAccess::Read, SEGV_ACCERR).error, 4);
        assert_eq!(LastTrap::fault(8, FaultAccess::Execute, 1).error, 0x14);
        assert_eq!(LastTrap::fault(KERNEL, FaultAccess::Read, 1).error, 5);
        let next = fault.exception(Signal::SIGFPE, FPE_INTDIV);
        assert_eq!(next, LastTrap { number: 0, error: 0, cr2: 0x1000 });
        assert_eq!(next.exception(Signal::SIGSEGV, SI_KERNEL).number, 13);
    }
}
