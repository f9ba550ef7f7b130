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
        request::PEEKUSER => UserPtr::new(data).write(cx, &registers::peek_user(tracee, addr)?)?,
        request::POKEUSER => registers::poke_user(tracee, addr, data)?,
        request::GETREGS => registers::get_all(cx, tracee, data)?,
        request::SETREGS => registers::set_all(cx, tracee, data)?,
        request::GETFPREGS => registers::get_fpu(cx, tracee, data)?,
        request::SETFPREGS => registers::set_fpu(cx, tracee, data)?,
        request::GETREGSET => registers::get_set(cx, tracee, addr, UserPtr::new(data))?,
        request::SETREGSET => registers::set_set(cx, tracee, addr, UserPtr::new(data))?,
        request::ARCH_PRCTL => registers::arch_prctl(cx, tracee, data, addr)?,
        request::CONT => resume(tracee, Resume::Continue, data)?,
        request::SYSCALL => resume(tracee, Resume::Syscall, data)?,
        request::SINGLESTEP => resume(tracee, Resume::Step, data)?,
        request::SYSEMU => resume(tracee, Resume::Emulate, data)?,
        request::SYSEMU_SINGLESTEP => resume(tracee, Resume::EmulateStep, data)?,
        request::DETACH => tracee.detach(signal_number(data)?)?,
        request::LISTEN => tracee.listen()?,
        request::SETOPTIONS | request::OLDSETOPTIONS => {
            let options = u32::try_from(data).ok().filter(|o| o & !option::ALL == 0);
            tracee.set_options(options.ok_or(Errno::EINVAL)?);
        }
        request::GETEVENTMSG => UserPtr::new(data).write(cx, &tracee.message())?,
        request::GETSIGINFO => UserPtr::new(data).write(cx, &tracee.siginfo()?.to_wire())?,
        request::SETSIGINFO => tracee.set_siginfo(&UserPtr::new(data).read(cx)?)?,
        request::PEEKSIGINFO => return info::peek_siginfo(cx, tracee, addr, data),
        request::GETSIGMASK | request::SETSIGMASK if addr != size_of::<SigSet>() as u64 => {
            return Err(Errno::EINVAL);
        }
        request::GETSIGMASK => UserPtr::new(data).write(cx, &tracee.signal_mask())?,
        request::SETSIGMASK => tracee.set_signal_mask(UserPtr::new(data).read(cx)?)?,
        request::GET_SYSCALL_INFO => return info::get_syscall_info(cx, tracee, addr, data),
        request::SET_SYSCALL_INFO => info::set_syscall_info(cx, tracee, addr, data)?,
        _ => return Err(cx.unsupported("ptrace: unknown request", Errno::EIO)),
    }
    Ok(0)
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

fn resume(tracee: &Tracee, how: Resume, data: u64) -> Result<(), Errno> {
    tracee.resume(how, signal_number(data)?)
}
