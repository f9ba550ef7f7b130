//! Registers that a guest may have.
use abi::Registers;

/// The selector of 64-bit code.
pub(crate) const USER_CS: u64 = 0x33;
const USER32_CS: u64 = 0x23;
/// The selector of data.
pub(crate) const USER_DS: u64 = 0x2b;
/// The flag by which the processor traps after an instruction.
pub(crate) const TRAP_FLAG: u64 = 0x100;
/// The end of what a segment base may be set to, `TASK_SIZE_MAX`.
const TASK_SIZE_MAX: u64 = 0x7fff_ffff_f000;
/// The flags that a program may set, as in `arch/x86/kernel/ptrace.c` `FLAG_MASK`: CF PF AF ZF SF TF DF OF RF AC.
const FLAGS: u64 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
/// Bit 1, which is always set, and the interrupt flag, which is in user space.
const FIXED_FLAGS: u64 = 0x202;

/// Makes `wanted` registers that the host accepts for a thread that now has those of `current`. Segment bases in the
/// upper half, which a program can load by `wrfsbase` but the host does not let anybody set, stay only where they are
/// there already; `true` tells that there are some.
pub(crate) fn sanitize(wanted: &mut Registers, current: &Registers) -> bool {
    wanted.orig_rax = u64::MAX;
    wanted.cs = if wanted.cs == USER32_CS { USER32_CS } else { USER_CS };
    wanted.ss = USER_DS;
    for selector in [&mut wanted.ds, &mut wanted.es, &mut wanted.fs, &mut wanted.gs] {
        if *selector != USER_DS {
            *selector = 0;
        }
    }
    wanted.eflags = (wanted.eflags & FLAGS) | FIXED_FLAGS;
    let mut high = false;
    for (base, now) in [(&mut wanted.fs_base, current.fs_base), (&mut wanted.gs_base, current.gs_base)] {
        if *base >= TASK_SIZE_MAX {
            if *base == now {
                high = true;
            } else {
                *base = 0;
            }
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_state_is_not_taken_over() {
        let mut regs = Registers { cs: 0x10, ss: 0x18, eflags: !0, ds: 0x13, fs: 7, ..Registers::default() };
        regs.gs_base = 0xffff_8000_0000_0000;
        assert!(!sanitize(&mut regs, &Registers::default()));
        assert_eq!((regs.cs, regs.ss, regs.ds, regs.fs, regs.gs_base), (USER_CS, USER_DS, 0, 0, 0));
        assert_eq!(regs.eflags & 0x3000, 0, "no I/O privilege");
        assert_eq!(regs.orig_rax, u64::MAX);
    }

    #[test]
    fn what_the_guest_loaded_by_itself_stays() {
        let high = Registers { fs_base: 0xffff_8000_0000_0000, ..Registers::default() };
        let mut regs = high;
        assert!(sanitize(&mut regs, &high));
        assert_eq!(regs.fs_base, high.fs_base);
    }
}
