//! The frame a handler runs on, and the way back from it, Linux `arch/x86/kernel/signal_64.c`.
use abi::Errno;
use abi::sigframe::{
    FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, FPX_SW_OFFSET, FpxSwBytes, RtSigFrame, SS_AUTODISARM, SS_DISABLE,
    SigContext, StackT, UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS, UContext,
};
use abi::siginfo::{SA_ONSTACK, SA_RESTORER, SigAction};
use abi::{Registers, SigSet};
use memmap::MemoryManager;
use platform::FpuState;
use zerocopy::{FromBytes, IntoBytes};

use super::SigInfo;
use crate::CurrentTask;

/// What the ABI lets leaf functions use below the stack pointer.
const RED_ZONE: u64 = 128;
const USER_CS: u16 = 0x33;
const USER_DS: u16 = 0x2b;
/// The flags a program may have in its frame: CF PF AF ZF SF TF DF OF RF AC, Linux `FIX_EFLAGS`.
const FIX_EFLAGS: u64 = 0x0005_0dd5;
const TF_RF_DF: u64 = 0x0001_0500;
/// The legacy part of an XSAVE area.
const FXSAVE_SIZE: usize = 512;

/// Builds the frame and points the registers at the handler.
pub(super) fn push(
    cur: &mut CurrentTask,
    action: &SigAction,
    info: &SigInfo,
    mask: SigSet,
) -> Result<(), Errno> {
    if action.flags & SA_RESTORER == 0 {
        return Err(Errno::EFAULT);
    }
    let mm = cur.mm().ok_or(Errno::EFAULT)?;
    let regs = *cur.regs();
    let stack = cur.signals().alt_stack();
    let on_alt = cur.signals().is_on_alt_stack(regs.rsp);
    let mut sp = regs.rsp.wrapping_sub(RED_ZONE);
    let entering = action.flags & SA_ONSTACK != 0 && stack.size != 0 && !on_alt;
    if entering {
        sp = stack.sp.wrapping_add(stack.size);
    }
    let fpu = fpu_image(cur)?;
    let fp_at = sp.wrapping_sub(fpu.len() as u64) & !63;
    let frame_at = (fp_at.wrapping_sub(size_of::<RtSigFrame>() as u64) & !15).wrapping_sub(8);
    let overflows = (on_alt || entering) && !(frame_at > stack.sp && frame_at - stack.sp <= stack.size);
    if overflows {
        return Err(Errno::EFAULT);
    }
    let frame = RtSigFrame {
        pretcode: action.restorer,
        uc: UContext {
            flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
            link: 0,
            stack: StackT { flags: frame_stack_flags(cur, regs.rsp), ..stack },
            mcontext: SigContext { fpstate: fp_at, oldmask: mask.0, ..context_of(&regs, cur) },
            sigmask: mask,
        },
        info: info.to_wire(),
    };
    mm.write_bytes(fp_at, &fpu)?;
    mm.write_obj(frame_at, &frame)?;
    if stack.flags & SS_AUTODISARM != 0 {
        cur.signals().set_alt_stack(StackT::default());
    }
    let regs = cur.regs_mut();
    regs.rdi = u64::from(info.signal.number().cast_unsigned());
    regs.rsi = frame_at + std::mem::offset_of!(RtSigFrame, info) as u64;
    regs.rdx = frame_at + std::mem::offset_of!(RtSigFrame, uc) as u64;
    regs.rax = 0;
    regs.orig_rax = u64::MAX;
    regs.rip = action.handler;
    regs.rsp = frame_at;
    regs.eflags &= !TF_RF_DF;
    (regs.cs, regs.ss) = (u64::from(USER_CS), u64::from(USER_DS));
    Ok(())
}

fn frame_stack_flags(cur: &CurrentTask, sp: u64) -> i32 {
    let stack = cur.signals().alt_stack();
    cur.signals().alt_stack_flags(sp) | stack.flags & SS_AUTODISARM
}

fn context_of(r: &Registers, cur: &CurrentTask) -> SigContext {
    let trap = cur.last_trap;
    SigContext {
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        di: r.rdi,
        si: r.rsi,
        bp: r.rbp,
        bx: r.rbx,
        dx: r.rdx,
        ax: r.rax,
        cx: r.rcx,
        sp: r.rsp,
        ip: r.rip,
        flags: r.eflags,
        cs: USER_CS,
        ss: USER_DS,
        err: trap.error,
        trapno: trap.number,
        cr2: trap.cr2,
        ..SigContext::default()
    }
}

/// The FPU state as a frame holds it: the XSAVE area with its size within, and the second magic number behind it.
fn fpu_image(cur: &mut CurrentTask) -> Result<Vec<u8>, Errno> {
    let mut image = cur.save_fpu()?.0.into_vec();
    let size = u32::try_from(image.len()).map_err(|_too_large| Errno::EFAULT)?;
    // The regset that gives the state holds the enabled components at this place.
    let sw = image.get_mut(FPX_SW_OFFSET..FPX_SW_OFFSET + size_of::<FpxSwBytes>()).ok_or(Errno::EFAULT)?;
    let enabled = u64::read_from_prefix(sw).map(|(mask, _)| mask).unwrap_or(3);
    let bytes = FpxSwBytes {
        magic1: FP_XSTATE_MAGIC1,
        extended_size: size + 4,
        xfeatures: enabled,
        xstate_size: size,
        padding: [0; 7],
    };
    sw.copy_from_slice(bytes.as_bytes());
    image.extend(FP_XSTATE_MAGIC2.to_ne_bytes());
    Ok(image)
}

/// rt_sigreturn(2): restores what the frame at the stack pointer holds; gives the value of `rax`.
///
/// # Errors
/// `EFAULT` for a frame that cannot be read or holds a state the processor refuses: the caller forces `SIGSEGV`.
pub fn sigreturn(cur: &mut CurrentTask) -> Result<u64, Errno> {
    let mm = cur.mm().ok_or(Errno::EFAULT)?;
    let at = cur.regs().rsp;
    let uc: UContext = mm.read_obj(at)?;
    super::change_mask(cur, uc.sigmask);
    let c = uc.mcontext;
    if c.fpstate == 0 {
        let initial = cur.kernel().platform().initial_fpu();
        cur.load_fpu(&initial)?;
    } else {
        let state = read_fpu(&mm, c.fpstate, cur.save_fpu()?)?;
        if !cur.load_fpu(&state)? {
            return Err(Errno::EFAULT);
        }
    }
    let regs = cur.regs_mut();
    *regs = Registers {
        r8: c.r8,
        r9: c.r9,
        r10: c.r10,
        r11: c.r11,
        r12: c.r12,
        r13: c.r13,
        r14: c.r14,
        r15: c.r15,
        rdi: c.di,
        rsi: c.si,
        rbp: c.bp,
        rbx: c.bx,
        rdx: c.dx,
        rax: c.ax,
        rcx: c.cx,
        rsp: c.sp,
        rip: c.ip,
        eflags: regs.eflags & !FIX_EFLAGS | c.flags & FIX_EFLAGS,
        orig_rax: u64::MAX,
        cs: u64::from(USER_CS),
        ss: u64::from(USER_DS),
        ..*regs
    };
    restore_alt_stack(cur, uc.stack);
    Ok(c.ax)
}

/// Linux `restore_altstack`: as sigaltstack(2) with the restored stack pointer, whose errors are passed over.
fn restore_alt_stack(cur: &CurrentTask, mut stack: StackT) {
    let mode = stack.flags & !SS_AUTODISARM;
    if cur.signals().is_on_alt_stack(cur.regs().rsp) || !(0..=SS_DISABLE).contains(&mode) {
        return;
    }
    if mode == SS_DISABLE {
        stack = StackT { flags: stack.flags, ..StackT::default() };
    }
    stack.flags &= SS_AUTODISARM | SS_DISABLE;
    cur.signals().set_alt_stack(stack);
}

/// Reads the frame's FPU state; without both magic numbers only its legacy part counts (Linux `check_xstate_in_sigframe`).
fn read_fpu(mm: &MemoryManager, at: u64, now: FpuState) -> Result<FpuState, Errno> {
    let mut state = now.0.into_vec();
    let size = state.len();
    let sw: FpxSwBytes = mm.read_obj(at.wrapping_add(FPX_SW_OFFSET as u64))?;
    let claimed = usize::try_from(sw.xstate_size).unwrap_or(usize::MAX);
    let header = FXSAVE_SIZE + 64;
    let extended = sw.magic1 == FP_XSTATE_MAGIC1
        && (header..=size).contains(&claimed)
        && sw.xstate_size <= sw.extended_size
        && mm.read_obj::<u32>(at.wrapping_add(claimed as u64))? == FP_XSTATE_MAGIC2;
    let len = if extended { claimed } else { FXSAVE_SIZE };
    mm.read_bytes(at, state.get_mut(..len).ok_or(Errno::EFAULT)?)?;
    if let Some(rest) = state.get_mut(len..) {
        rest.fill(0);
    }
    if !extended && let Some(features) = state.get_mut(FXSAVE_SIZE..FXSAVE_SIZE + 8) {
        // The x87 and SSE components are there, all others in their initial state.
        features.copy_from_slice(&3_u64.to_ne_bytes());
    }
    Ok(FpuState(state.into_boxed_slice()))
}
