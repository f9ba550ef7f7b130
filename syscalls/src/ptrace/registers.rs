//! Registers of a stopped thread, Linux `arch/x86/kernel/ptrace.c`.
use abi::ptrace::{NT_PRFPREG, NT_PRSTATUS, NT_X86_XSTATE, USER_DEBUG_REGISTERS, USER_SIZE};
use abi::{Errno, Registers};
use kernel::ptrace::Tracee;
use memmap::IoVec;
use platform::FpuState;
use zerocopy::{FromBytes, IntoBytes};

use crate::Cx;
use crate::decode::UserPtr;

/// The end of what a segment base may be set to.
const TASK_SIZE_MAX: u64 = 0x7fff_ffff_f000;
/// The flags that a program may be given: CF PF AF ZF SF TF DF OF NT RF AC.
const FLAGS: u64 = 0x5_4dd5;
/// The legacy FPU state, and the part of it that is not the processor's.
const FXSAVE_LEN: usize = 512;
const FXSAVE_USED: usize = 416;
const XSAVE_FEATURES: std::ops::Range<usize> = 512..520;
const NT_386_IOPERM: u64 = 0x201;
/// What the debug register of states has when nothing happened.
const DR6_IDLE: u64 = 0xffff_0ff0;
/// The bits of the control register that enable breakpoints.
const DR7_ENABLED: u64 = 0xff;

const WORDS: usize = size_of::<Registers>() / 8;

fn words(regs: &Registers) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    words.as_mut_bytes().copy_from_slice(regs.as_bytes());
    words
}

/// A selector that user space cannot have, Linux `invalid_selector`.
const fn is_invalid_selector(value: u64) -> bool {
    value & 0xffff != 0 && value & 3 != 3
}

/// Replaces the register at an index into `user_regs_struct`, Linux `putreg`.
fn put(regs: &mut Registers, index: usize, value: u64) -> Result<(), Errno> {
    const RIP_CS: usize = std::mem::offset_of!(Registers, cs) / 8;
    const EFLAGS: usize = std::mem::offset_of!(Registers, eflags) / 8;
    const SS: usize = std::mem::offset_of!(Registers, ss) / 8;
    const FS_BASE: usize = std::mem::offset_of!(Registers, fs_base) / 8;
    const GS_BASE: usize = std::mem::offset_of!(Registers, gs_base) / 8;
    const DS: usize = std::mem::offset_of!(Registers, ds) / 8;
    let value = match index {
        RIP_CS | SS if value & 0xffff == 0 || is_invalid_selector(value) => return Err(Errno::EIO),
        DS.. if is_invalid_selector(value) => return Err(Errno::EIO),
        RIP_CS | SS | DS.. => value & 0xffff,
        FS_BASE | GS_BASE if value >= TASK_SIZE_MAX => return Err(Errno::EIO),
        EFLAGS => regs.eflags & !FLAGS | value & FLAGS,
        _ => value,
    };
    let mut all = words(regs);
    *all.get_mut(index).ok_or(Errno::EIO)? = value;
    *regs = Registers::read_from_bytes(all.as_bytes()).map_err(|_size| Errno::EIO)?;
    Ok(())
}

/// Replaces registers from the first on; those before one that is refused have been.
fn put_all(tracee: &Tracee, values: &[u64]) -> Result<(), Errno> {
    let mut regs = tracee.registers()?;
    let result = values.iter().enumerate().try_for_each(|(index, value)| put(&mut regs, index, *value));
    tracee.set_registers(&regs)?;
    result
}

/// Where in `struct user` an address is: aligned, and inside.
fn user_offset(addr: u64) -> Result<u64, Errno> {
    if addr.is_multiple_of(8) && addr < USER_SIZE { Ok(addr) } else { Err(Errno::EIO) }
}

fn debug_register(offset: u64) -> Option<u64> {
    offset.checked_sub(USER_DEBUG_REGISTERS).map(|at| at / 8)
}

/// `PTRACE_PEEKUSER`. There are no hardware breakpoints: their registers are as nobody used them.
pub(super) fn peek_user(tracee: &Tracee, addr: u64) -> Result<u64, Errno> {
    let offset = user_offset(addr)?;
    let index = usize::try_from(offset / 8).map_err(|_wide| Errno::EIO)?;
    if let Some(value) = words(&tracee.registers()?).get(index) {
        return Ok(*value);
    }
    Ok(if debug_register(offset) == Some(6) { DR6_IDLE } else { 0 })
}

/// `PTRACE_POKEUSER`. Hardware breakpoints are all taken.
pub(super) fn poke_user(tracee: &Tracee, addr: u64, value: u64) -> Result<(), Errno> {
    let offset = user_offset(addr)?;
    let index = usize::try_from(offset / 8).map_err(|_wide| Errno::EIO)?;
    if index < WORDS {
        let mut regs = tracee.registers()?;
        put(&mut regs, index, value)?;
        return tracee.set_registers(&regs);
    }
    match debug_register(offset) {
        Some(0..=3) if value != 0 => Err(Errno::ENOSPC),
        Some(7) if value & DR7_ENABLED != 0 => Err(Errno::ENOSPC),
        Some(0..=3 | 6 | 7) => Ok(()),
        _ => Err(Errno::EIO),
    }
}

/// `PTRACE_GETREGS`.
pub(super) fn get_all(cx: &Cx<'_>, tracee: &Tracee, data: u64) -> Result<(), Errno> {
    UserPtr::new(data).write(cx, &tracee.registers()?)
}

/// `PTRACE_SETREGS`.
pub(super) fn set_all(cx: &Cx<'_>, tracee: &Tracee, data: u64) -> Result<(), Errno> {
    let regs: Registers = UserPtr::new(data).read(cx)?;
    put_all(tracee, &words(&regs))
}

fn legacy_state(tracee: &Tracee) -> Result<Vec<u8>, Errno> {
    let mut state = tracee.save_fpu()?.0.into_vec();
    state.truncate(FXSAVE_LEN);
    state.iter_mut().skip(FXSAVE_USED).for_each(|byte| *byte = 0);
    Ok(state)
}

fn set_legacy_state(tracee: &Tracee, bytes: &[u8]) -> Result<(), Errno> {
    let mut state = tracee.save_fpu()?.0;
    for (to, from) in state.iter_mut().zip(bytes).take(FXSAVE_USED) {
        *to = *from;
    }
    if let Some(features) = state.get_mut(XSAVE_FEATURES).and_then(<[u8]>::first_mut) {
        // The x87 and SSE components are there.
        *features |= 3;
    }
    load(tracee, state)
}

fn load(tracee: &Tracee, state: Box<[u8]>) -> Result<(), Errno> {
    if tracee.load_fpu(FpuState(state))? { Ok(()) } else { Err(Errno::EINVAL) }
}

/// `PTRACE_GETFPREGS`.
pub(super) fn get_fpu(cx: &Cx<'_>, tracee: &Tracee, data: u64) -> Result<(), Errno> {
    cx.memory()?.write_bytes(data, &legacy_state(tracee)?)
}

/// `PTRACE_SETFPREGS`.
pub(super) fn set_fpu(cx: &Cx<'_>, tracee: &Tracee, data: u64) -> Result<(), Errno> {
    let mut bytes = [0; FXSAVE_LEN];
    cx.memory()?.read_bytes(data, &mut bytes)?;
    set_legacy_state(tracee, &bytes)
}

/// `PTRACE_GETREGSET`: as much as there is room for; tells how much.
pub(super) fn get_set(cx: &Cx<'_>, tracee: &Tracee, kind: u64, at: UserPtr<IoVec>) -> Result<(), Errno> {
    let vector = at.read(cx)?;
    if !vector.len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let bytes = match kind {
        NT_PRSTATUS => tracee.registers()?.as_bytes().to_vec(),
        NT_PRFPREG => legacy_state(tracee)?,
        NT_X86_XSTATE => tracee.save_fpu()?.0.into_vec(),
        NT_386_IOPERM => return Err(Errno::ENXIO),
        _ => return Err(Errno::EINVAL),
    };
    let wanted = usize::try_from(vector.len).unwrap_or(usize::MAX);
    let bytes = bytes.get(..wanted).unwrap_or(&bytes);
    cx.memory()?.write_bytes(vector.addr, bytes)?;
    at.write(cx, &IoVec { addr: vector.addr, len: bytes.len() as u64 })
}

/// `PTRACE_SETREGSET`.
pub(super) fn set_set(cx: &Cx<'_>, tracee: &Tracee, kind: u64, at: UserPtr<IoVec>) -> Result<(), Errno> {
    let vector = at.read(cx)?;
    if !vector.len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let whole = match kind {
        NT_PRSTATUS => size_of::<Registers>(),
        NT_PRFPREG => FXSAVE_LEN,
        NT_X86_XSTATE => tracee.save_fpu()?.0.len(),
        NT_386_IOPERM => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    };
    let len = usize::try_from(vector.len).unwrap_or(usize::MAX).min(whole);
    let mut bytes = vec![0; len];
    cx.memory()?.read_bytes(vector.addr, &mut bytes)?;
    match kind {
        NT_PRSTATUS => {
            let chunks = bytes.chunks_exact(8);
            let values: Vec<u64> = chunks.filter_map(|b| u64::read_from_bytes(b).ok()).collect();
            put_all(tracee, &values)?;
        }
        NT_PRFPREG if len < whole => return Err(Errno::EINVAL),
        NT_PRFPREG => set_legacy_state(tracee, &bytes)?,
        _ if len < whole => return Err(Errno::EFAULT),
        _ => load(tracee, bytes.into_boxed_slice())?,
    }
    at.write(cx, &IoVec { addr: vector.addr, len: len as u64 })
}

/// `PTRACE_ARCH_PRCTL`: the segment bases.
pub(super) fn arch_prctl(cx: &Cx<'_>, tracee: &Tracee, operation: u64, addr: u64) -> Result<(), Errno> {
    const SET_GS: u64 = 0x1001;
    const SET_FS: u64 = 0x1002;
    const GET_FS: u64 = 0x1003;
    const GET_GS: u64 = 0x1004;
    let mut regs = tracee.registers()?;
    match operation {
        SET_FS | SET_GS if addr >= TASK_SIZE_MAX => return Err(Errno::EPERM),
        SET_FS => regs.fs_base = addr,
        SET_GS => regs.gs_base = addr,
        GET_FS => return UserPtr::new(addr).write(cx, &regs.fs_base),
        GET_GS => return UserPtr::new(addr).write(cx, &regs.gs_base),
        _ => return Err(Errno::EINVAL),
    }
    tracee.set_registers(&regs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(offset: usize) -> usize {
        offset / 8
    }

    #[test]
    fn what_user_space_cannot_have_is_refused() {
        let mut regs = Registers { eflags: 0x202, ..Registers::default() };
        let cs = index(std::mem::offset_of!(Registers, cs));
        let ds = index(std::mem::offset_of!(Registers, ds));
        let base = index(std::mem::offset_of!(Registers, gs_base));
        for (at, value) in [(cs, 0), (cs, 0x10), (ds, 0x18), (base, TASK_SIZE_MAX), (WORDS, 1)] {
            assert_eq!(put(&mut regs, at, value), Err(Errno::EIO), "{at} {value:#x}");
        }
        assert_eq!(put(&mut regs, cs, 0x33), Ok(()));
        assert_eq!(put(&mut regs, ds, 0), Ok(()));
        assert_eq!(put(&mut regs, base, 0x1000), Ok(()));
        assert_eq!((regs.cs, regs.ds, regs.gs_base), (0x33, 0, 0x1000));
        assert_eq!(put(&mut regs, index(std::mem::offset_of!(Registers, eflags)), u64::MAX), Ok(()));
        assert_eq!(regs.eflags, 0x5_4fd7, "neither privilege nor the interrupt flag");
    }
}
