//! Tracing other threads: `ptrace(2)`.
mod info;
mod registers;

use abi::Errno;
use abi::ptrace::{option, request};
use abi::{SigSet, Signal};
use kernel::ptrace::{Attach, Resume, Tracee};

use crate::Cx;
use crate::decode::UserPtr;

/// `ptrace(2)`
///
/// # Errors
/// `ESRCH` for a thread that the caller does not trace or that is not stopped, `EPERM`, `EIO` for unknown requests and bad
/// addresses of the other memory, `EFAULT` for those of the own, `EINVAL`.
pub fn ptrace(cx: &mut Cx<'_>, request: u64, pid: i32, addr: u64, data: u64) -> Result<usize, Errno> {
    match request {
        request::TRACEME => cx.trace_me()?,
        request::ATTACH => cx.attach(pid, Attach::Stop)?,
        request::SEIZE => seize(cx, pid, addr, data)?,
        request::KILL => cx.trace_kill(pid)?,
        request::INTERRUPT => cx.trace_interrupt(pid)?,
        _ => {
            let tracee = cx.tracee(pid)?;
            return of_tracee(cx, &tracee, request, addr, data);
        }
    }
    Ok(0)
}

fn seize(cx: &Cx<'_>, pid: i32, addr: u64, data: u64) -> Result<(), Errno> {
    cx.kernel().task(pid).ok_or(Errno::ESRCH)?;
    let options = u32::try_from(data).ok().filter(|o| o & !option::ALL == 0);
    cx.attach(pid, Attach::Seize(options.filter(|_| addr == 0).ok_or(Errno::EIO)?))
}

/// What is asked of a stopped thread.
fn of_tracee(cx: &Cx<'_>, tracee: &Tracee, request: u64, addr: u64, data: u64) -> Result<usize, Errno> {
    match request {
        request::PEEKTEXT | request::PEEKDATA => peek(cx, tracee, addr, data)?,
        request::POKETEXT | request::POKEDATA => poke(tracee, addr, data)?,
        request::PEEKSIGINFO => return info::peek_siginfo(cx, tracee, addr, data),
        request::GET_SYSCALL_INFO => return info::get_syscall_info(cx, tracee, addr, data),
        request::SET_SYSCALL_INFO => info::set_syscall_info(cx, tracee, addr, data)?,
        request::CONT
        | request::SINGLESTEP
        | request::SYSCALL
        | request::SYSEMU
        | request::SYSEMU_SINGLESTEP
        | request::DETACH
        | request::LISTEN => go_on(tracee, request, data)?,
        request::SETOPTIONS
        | request::OLDSETOPTIONS
        | request::GETEVENTMSG..=request::SETSIGINFO
        | request::GETSIGMASK
        | request::SETSIGMASK => of_state(cx, tracee, request, addr, data)?,
        _ => of_registers(cx, tracee, request, addr, data)?,
    }
    Ok(0)
}

/// The requests that let a thread go on, or not yet.
fn go_on(tracee: &Tracee, request: u64, data: u64) -> Result<(), Errno> {
    let how = match request {
        request::LISTEN => return tracee.listen(),
        request::DETACH => return tracee.detach(signal_number(data)?),
        request::SYSCALL => Resume::Syscall,
        request::SINGLESTEP => Resume::Step,
        request::SYSEMU => Resume::Emulate,
        request::SYSEMU_SINGLESTEP => Resume::EmulateStep,
        _ => Resume::Continue,
    };
    tracee.resume(how, signal_number(data)?)
}

/// The requests about the stop, and the thread's signals.
fn of_state(cx: &Cx<'_>, tracee: &Tracee, request: u64, addr: u64, data: u64) -> Result<(), Errno> {
    match request {
        request::SETOPTIONS | request::OLDSETOPTIONS => {
            let options = u32::try_from(data).ok().filter(|o| o & !option::ALL == 0);
            tracee.set_options(options.ok_or(Errno::EINVAL)?);
            Ok(())
        }
        request::GETEVENTMSG => UserPtr::new(data).write(cx, &tracee.message()),
        request::GETSIGINFO => UserPtr::new(data).write(cx, &tracee.siginfo()?.to_wire()),
        request::SETSIGINFO => tracee.set_siginfo(&UserPtr::new(data).read(cx)?),
        _ if addr != size_of::<SigSet>() as u64 => Err(Errno::EINVAL),
        request::GETSIGMASK => UserPtr::new(data).write(cx, &tracee.signal_mask()),
        _ => tracee.set_signal_mask(UserPtr::new(data).read(cx)?),
    }
}

/// The requests about registers, and unknown ones.
fn of_registers(cx: &Cx<'_>, tracee: &Tracee, request: u64, addr: u64, data: u64) -> Result<(), Errno> {
    match request {
        request::PEEKUSER => UserPtr::new(data).write(cx, &registers::peek_user(tracee, addr)?),
        request::POKEUSER => registers::poke_user(tracee, addr, data),
        request::GETREGS => registers::get_all(cx, tracee, data),
        request::SETREGS => registers::set_all(cx, tracee, data),
        request::GETFPREGS => registers::get_fpu(cx, tracee, data),
        request::SETFPREGS => registers::set_fpu(cx, tracee, data),
        request::GETREGSET => registers::get_set(cx, tracee, addr, UserPtr::new(data)),
        request::SETREGSET => registers::set_set(cx, tracee, addr, UserPtr::new(data)),
        request::ARCH_PRCTL => registers::arch_prctl(cx, tracee, data, addr),
        _ => Err(cx.unsupported("ptrace: unknown request", Errno::EIO)),
    }
}

/// The bytes of a word of the other memory; all of them are there, or it is an error.
fn peek(cx: &Cx<'_>, tracee: &Tracee, addr: u64, data: u64) -> Result<(), Errno> {
    let mut word = [0; 8];
    match tracee.mm()?.read_bytes_force(addr, &mut word) {
        Ok(8) => UserPtr::new(data).write(cx, &word),
        Ok(_) | Err(_) => Err(Errno::EIO),
    }
}

fn poke(tracee: &Tracee, addr: u64, data: u64) -> Result<(), Errno> {
    match tracee.mm()?.write_bytes_force(addr, &data.to_le_bytes()) {
        Ok(8) => Ok(()),
        Ok(_) | Err(_) => Err(Errno::EIO),
    }
}

/// A signal to go on with; 0 for none.
fn signal_number(data: u64) -> Result<i32, Errno> {
    let number = i32::try_from(data).map_err(|_wide| Errno::EIO)?;
    if number == 0 || Signal::new(number).is_some() { Ok(number) } else { Err(Errno::EIO) }
}
