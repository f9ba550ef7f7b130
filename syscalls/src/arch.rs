//! Registers that no instruction reaches: `arch_prctl(2)`.
use abi::Errno;

use crate::Cx;
use crate::decode::UserPtr;

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;
/// The end of what user space can address, Linux `TASK_SIZE_MAX`.
const TASK_SIZE_MAX: u64 = (1 << 47) - 4096;

/// `arch_prctl(2)`
///
/// # Errors
/// `EPERM` for an address beyond user space, `EFAULT`, `EINVAL` for unknown operations.
pub fn arch_prctl(cx: &mut Cx<'_>, operation: i32, addr: u64) -> Result<usize, Errno> {
    match operation {
        ARCH_SET_FS | ARCH_SET_GS if addr >= TASK_SIZE_MAX => return Err(Errno::EPERM),
        ARCH_SET_FS => cx.cur.regs_mut().fs_base = addr,
        ARCH_SET_GS => {
            // Patched calls find their way by the GS base, where the guest has no use for it.
            if addr != 0
                && let Some(mm) = cx.cur.mm()
            {
                mm.forbid_patches();
            }
            cx.cur.regs_mut().gs_base = addr;
        }
        ARCH_GET_FS => UserPtr::new(addr).write(cx, &cx.regs().fs_base)?,
        ARCH_GET_GS => UserPtr::new(addr).write(cx, &cx.regs().gs_base)?,
        // CET, CPUID faulting and AMX permissions: as a processor without them.
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}
