//! Calls that belong to no family: `syslog(2)`, `reboot(2)`, and those only a real kernel can answer.
use abi::Errno;
use kernel::Cap;

use crate::Cx;
use crate::decode::{Arg, UserPtr};

/// What Linux tells of `syslog(2)` when the log is empty: nothing was ever logged.
const LOG_SIZE: usize = 1 << 18;

/// `syslog(2)`: the log of a sandbox is empty.
///
/// # Errors
/// `EPERM`, `EINVAL`.
pub fn syslog(cx: &mut Cx<'_>, kind: i32, buf: UserPtr<u8>, len: i32) -> Result<usize, Errno> {
    let privileged = cx.credentials().has_cap(Cap::SYSLOG);
    match kind {
        // Open, close.
        0 | 1 => Ok(0),
        // Reading and clearing the log.
        2..=4 if buf.is_null() || len < 0 => Err(Errno::EINVAL),
        2 if privileged => Err(cx.unsupported("syslog: waiting for messages", Errno::EINVAL)),
        3 => Ok(0),
        10 => Ok(LOG_SIZE),
        4 | 5 | 9 if privileged => Ok(0),
        6..=8 if privileged => Err(cx.unsupported("syslog: the console", Errno::EPERM)),
        2..=9 => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

const REBOOT_MAGIC1: u32 = 0xfee1_dead;
const REBOOT_MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];

/// `reboot(2)`: a sandbox does not reboot its machine.
///
/// # Errors
/// `EPERM`, `EINVAL` for wrong magic numbers.
pub fn reboot(cx: &mut Cx<'_>, magic1: u32, magic2: u32, _command: u32, _arg: u64) -> Result<usize, Errno> {
    if !cx.credentials().has_cap(Cap::SYS_BOOT) {
        return Err(Errno::EPERM);
    }
    if magic1 != REBOOT_MAGIC1 || !REBOOT_MAGIC2.contains(&magic2) {
        return Err(Errno::EINVAL);
    }
    Err(cx.unsupported("reboot", Errno::EPERM))
}

/// `vhangup(2)`
///
/// # Errors
/// `EPERM`.
pub fn vhangup(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    if !cx.credentials().has_cap(Cap::SYS_TTY_CONFIG) {
        return Err(Errno::EPERM);
    }
    Err(cx.unsupported("vhangup", Errno::EPERM))
}

/// `get_mempolicy(2)` with nothing asked for but the default policy.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn get_mempolicy(
    cx: &mut Cx<'_>,
    mode: UserPtr<i32>,
    nodes: UserPtr<u64>,
    max_node: u64,
    addr: u64,
    flags: u64,
) -> Result<usize, Errno> {
    // MPOL_F_NODE, MPOL_F_ADDR, MPOL_F_MEMS_ALLOWED.
    if flags & !7 != 0 || flags == 0 && addr != 0 {
        return Err(Errno::EINVAL);
    }
    if !nodes.is_null() {
        if max_node < 1 {
            return Err(Errno::EINVAL);
        }
        // The one node there is, or for the default policy none.
        nodes.write(cx, &u64::from(flags & 4 != 0))?;
    }
    mode.write_if_some(cx, &0)?;
    Ok(0)
}

const MODIFY_LDT_READ: i32 = 0;
const MODIFY_LDT_READ_DEFAULT: i32 = 2;

/// `modify_ldt(2)`: the table is empty and stays so.
///
/// # Errors
/// `ENOSYS`, `EINVAL`, `EFAULT`.
pub fn modify_ldt(cx: &mut Cx<'_>, function: i32, buf: u64, len: u64) -> Result<usize, Errno> {
    match function {
        MODIFY_LDT_READ => Ok(0),
        MODIFY_LDT_READ_DEFAULT => {
            let len = u64::from(Arg(len).low()).min(128);
            cx.memory()?.zero_bytes(buf, len)?;
            usize::try_from(len).map_err(|_wide| Errno::EINVAL)
        }
        1 | 0x11 => Err(cx.unsupported("modify_ldt: writing", Errno::EINVAL)),
        _ => Err(Errno::ENOSYS),
    }
}
