//! What a stopped thread was about to do: `PTRACE_PEEKSIGINFO`, `PTRACE_GET_SYSCALL_INFO`.
use abi::ptrace::{
    EVENTMSG_SYSCALL_ENTRY, EVENTMSG_SYSCALL_EXIT, PEEKSIGINFO_SHARED, PeekSiginfoArgs, SYSCALL_INFO_ENTRY,
    SYSCALL_INFO_EXIT, SYSCALL_INFO_NONE, SYSCALL_INFO_SECCOMP, SyscallInfo, event,
};
use abi::siginfo::SigInfoWire;
use abi::{Errno, Registers, Signal};
use kernel::ptrace::Tracee;
use kernel::seccomp::ARCH_X86_64;
use zerocopy::IntoBytes;

use crate::Cx;
use crate::decode::{Arg, UserPtr};

/// The most that is an errno as a result.
const MAX_ERRNO: i64 = 4095;

/// `PTRACE_PEEKSIGINFO`: copies pending signals out; tells how many.
pub(super) fn peek_siginfo(cx: &Cx<'_>, tracee: &Tracee, addr: u64, data: u64) -> Result<usize, Errno> {
    let args: PeekSiginfoArgs = UserPtr::new(addr).read(cx)?;
    let wanted = usize::try_from(args.nr).map_err(|_negative| Errno::EINVAL)?;
    if args.flags & !PEEKSIGINFO_SHARED != 0 {
        return Err(Errno::EINVAL);
    }
    let Ok(skipped) = usize::try_from(args.off) else { return Ok(0) };
    let pending = tracee.pending(args.flags & PEEKSIGINFO_SHARED != 0);
    let into = UserPtr::<SigInfoWire>::new(data);
    let mut done = 0;
    for info in pending.iter().skip(skipped).take(wanted) {
        match into.at(done).and_then(|at| at.write(cx, &info.to_wire())) {
            Ok(()) => done += 1,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Which kind of system call stop it is, Linux `ptrace_get_syscall_info_op`.
fn operation(tracee: &Tracee) -> u8 {
    const CALL: i32 = Signal::SIGTRAP.number() | 0x80;
    const SECCOMP: i32 = Signal::SIGTRAP.number() | event::SECCOMP << 8;
    match (tracee.siginfo().map_or(0, |info| info.code), tracee.message()) {
        (CALL, EVENTMSG_SYSCALL_ENTRY) => SYSCALL_INFO_ENTRY,
        (CALL, EVENTMSG_SYSCALL_EXIT) => SYSCALL_INFO_EXIT,
        (SECCOMP, _) => SYSCALL_INFO_SECCOMP,
        _ => SYSCALL_INFO_NONE,
    }
}

fn call_words(regs: &Registers) -> [u64; 8] {
    let [a, b, c, d, e, f] = regs.syscall_args();
    [regs.syscall_number(), a, b, c, d, e, f, 0]
}

/// `PTRACE_GET_SYSCALL_INFO`: copies up to `size` bytes out; tells how many there are.
pub(super) fn get_syscall_info(cx: &Cx<'_>, tracee: &Tracee, size: u64, data: u64) -> Result<usize, Errno> {
    let regs = tracee.registers()?;
    let op = operation(tracee);
    let (words, len) = match op {
        SYSCALL_INFO_ENTRY => (call_words(&regs), 80),
        SYSCALL_INFO_SECCOMP => {
            let mut words = call_words(&regs);
            if let Some(last) = words.last_mut() {
                *last = Arg(tracee.message()).low().into();
            }
            (words, 84)
        }
        SYSCALL_INFO_EXIT => {
            let failed = (-MAX_ERRNO..0).contains(&regs.rax.cast_signed());
            ([regs.rax, failed.into(), 0, 0, 0, 0, 0, 0], 33)
        }
        _ => ([0; 8], 24),
    };
    let info = SyscallInfo {
        op,
        reserved: 0,
        flags: 0,
        arch: ARCH_X86_64,
        instruction_pointer: regs.rip,
        stack_pointer: regs.rsp,
        words,
    };
    let wanted = usize::try_from(size).unwrap_or(usize::MAX).min(len);
    cx.memory()?.write_bytes(data, info.as_bytes().get(..wanted).unwrap_or_default())?;
    Ok(len)
}

/// `PTRACE_SET_SYSCALL_INFO`, of Linux 6.16.
pub(super) fn set_syscall_info(cx: &Cx<'_>, tracee: &Tracee, size: u64, data: u64) -> Result<(), Errno> {
    if size < size_of::<SyscallInfo>() as u64 {
        return Err(Errno::EINVAL);
    }
    let info: SyscallInfo = UserPtr::new(data).read(cx)?;
    if info.reserved != 0 || info.flags != 0 || info.op != operation(tracee) {
        return Err(Errno::EINVAL);
    }
    let mut regs = tracee.registers()?;
    let [first, a, b, c, d, e, f, last] = info.words;
    match info.op {
        SYSCALL_INFO_SECCOMP if last >> 32 != 0 => return Err(Errno::EINVAL),
        SYSCALL_INFO_ENTRY | SYSCALL_INFO_SECCOMP => {
            let number = i32::try_from(first.cast_signed()).map_err(|_wide| Errno::ERANGE)?;
            regs.orig_rax = i64::from(number).cast_unsigned();
            if number != -1 {
                (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9) = (a, b, c, d, e, f);
            }
        }
        SYSCALL_INFO_EXIT => regs.rax = first,
        _ => return Err(Errno::EINVAL),
    }
    tracee.set_registers(&regs)
}
