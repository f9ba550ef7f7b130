//! The ptrace(2) requests that the back end makes.
use std::ptr;

use abi::Registers;

use crate::{PlatformError, sys};

const PTRACE_SETSIGMASK: libc::c_uint = 0x420b;
const NT_PRSTATUS: usize = 1;
const NT_X86_XSTATE: usize = 0x202;
/// `AUDIT_ARCH_X86_64`.
const ARCH_64: u32 = 0xc000_003e;

/// A thread that this thread traces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracee(i32);

/// What stopped a thread with a signal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignalInfo {
    pub(crate) code: i32,
    pub(crate) addr: u64,
}

impl Tracee {
    /// Starts to trace a thread, which is killed with its process when this thread ends.
    pub(crate) fn seize(tid: i32) -> Result<Self, PlatformError> {
        let options = (libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD).cast_unsigned();
        // SAFETY: this request takes its options by value.
        let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, 0_usize, u64::from(options)) };
        sys::check("ptrace seize", result)?;
        Ok(Self(tid))
    }

    /// Stops the thread; the stop is to be waited for.
    pub(crate) fn interrupt(self) -> Result<(), PlatformError> {
        // SAFETY: this request takes no data.
        sys::check("ptrace interrupt", unsafe {
            libc::ptrace(libc::PTRACE_INTERRUPT, self.0, 0_usize, 0_usize)
        })?;
        Ok(())
    }

    /// Waits for a stop or the end, and gives the status.
    pub(crate) fn wait(self) -> Result<i32, PlatformError> {
        Ok(sys::wait(self.0, 0)?.unwrap_or(0))
    }

    /// Resumes until the next system call, which is not executed.
    pub(crate) fn resume(self) -> Result<(), PlatformError> {
        // SAFETY: this request takes a signal number by value.
        sys::check("ptrace sysemu", unsafe { libc::ptrace(libc::PTRACE_SYSEMU, self.0, 0_usize, 0_usize) })?;
        Ok(())
    }

    /// Lets the thread go.
    pub(crate) fn detach(self) -> Result<(), PlatformError> {
        // SAFETY: this request takes a signal number by value.
        sys::check("ptrace detach", unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0_usize, 0_usize) })?;
        Ok(())
    }

    /// Replaces the mask of blocked signals.
    pub(crate) fn set_signal_mask(self, mask: u64) -> Result<(), PlatformError> {
        // SAFETY: the data is 8 bytes to read, as the address argument says.
        let result = unsafe { libc::ptrace(PTRACE_SETSIGMASK, self.0, size_of_val(&mask), &raw const mask) };
        sys::check("ptrace setsigmask", result)?;
        Ok(())
    }

    /// Reads the general registers.
    pub(crate) fn registers(self, into: &mut Registers) -> Result<(), PlatformError> {
        const { assert!(size_of::<Registers>() == size_of::<libc::user_regs_struct>()) };
        // SAFETY: the data is a `user_regs_struct` to write to, of integers only.
        let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.0, 0_usize, ptr::from_mut(into)) };
        sys::check("ptrace getregs", result)?;
        Ok(())
    }

    /// Replaces the general registers.
    pub(crate) fn set_registers(self, from: &Registers) -> Result<(), PlatformError> {
        // SAFETY: the data is a `user_regs_struct` to read.
        let result = unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.0, 0_usize, ptr::from_ref(from)) };
        sys::check("ptrace setregs", result)?;
        Ok(())
    }

    /// Replaces the general registers but for the segment bases and data segments.
    pub(crate) fn set_most_registers(self, from: &Registers) -> Result<(), PlatformError> {
        let len = std::mem::offset_of!(Registers, fs_base);
        let vector = libc::iovec { iov_base: ptr::from_ref(from).cast_mut().cast(), iov_len: len };
        // SAFETY: the data is an iovec of memory that this request only reads.
        let result = unsafe { libc::ptrace(libc::PTRACE_SETREGSET, self.0, NT_PRSTATUS, &raw const vector) };
        sys::check("ptrace setregset", result)?;
        Ok(())
    }

    /// Reads 8 bytes of the thread's memory.
    pub(crate) fn peek(self, addr: u64) -> Result<[u8; 8], PlatformError> {
        let mut bytes = [0; 8];
        // SAFETY: the bare system call stores a word, for which the data argument has room.
        let result = unsafe {
            libc::syscall(libc::SYS_ptrace, libc::PTRACE_PEEKDATA, self.0, addr, bytes.as_mut_ptr())
        };
        sys::check("ptrace peekdata", result)?;
        Ok(bytes)
    }

    /// Reads about the signal that stopped the thread.
    pub(crate) fn signal_info(self) -> Result<SignalInfo, PlatformError> {
        // SAFETY: all zeroes are a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the data is a siginfo_t to write to.
        let result = unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, self.0, 0_usize, &raw mut info) };
        sys::check("ptrace getsiginfo", result)?;
        // SAFETY: every siginfo_t has bytes where faults have their address.
        let addr = unsafe { info.si_addr() };
        Ok(SignalInfo { code: info.si_code, addr: addr.addr() as u64 })
    }

    /// Tells whether the system call at which the thread stopped is a 64-bit one.
    pub(crate) fn is_64_bit_call(self) -> Result<bool, PlatformError> {
        // SAFETY: all zeroes are a valid value of this struct of integers.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: the data is as many bytes to write to as the address argument says.
        let result = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.0, size, &raw mut info) };
        sys::check("ptrace get_syscall_info", result)?;
        Ok(info.arch == ARCH_64)
    }

    /// Reads the FPU state; gives its length.
    pub(crate) fn fpu(self, into: &mut [u8]) -> Result<usize, PlatformError> {
        let mut vector = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        // SAFETY: the data is an iovec of memory to write to.
        let result = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, self.0, NT_X86_XSTATE, &raw mut vector) };
        sys::check("ptrace getregset", result)?;
        Ok(vector.iov_len)
    }

    /// Replaces the FPU state; `false` if the kernel finds it invalid.
    pub(crate) fn set_fpu(self, from: &[u8]) -> Result<bool, PlatformError> {
        let vector = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
        // SAFETY: the data is an iovec of memory that this request only reads.
        let result =
            unsafe { libc::ptrace(libc::PTRACE_SETREGSET, self.0, NT_X86_XSTATE, &raw const vector) };
        match sys::check("ptrace setregset", result) {
            Ok(_) => Ok(true),
            Err(error) if matches!(sys::errno_of(&error), libc::EINVAL | libc::EFAULT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Tells the error of a request to a thread that is gone or being killed.
pub(crate) fn is_gone(error: &PlatformError) -> bool {
    matches!(sys::errno_of(error), libc::ESRCH | libc::ECHILD)
}
