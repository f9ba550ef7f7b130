//! Filters of system calls: `seccomp(2)`, and what prctl(2) has of it.
use abi::{Errno, Signal};
use kernel::ExitStatus;
use kernel::seccomp::{Instruction, MAX_INSTRUCTIONS, Program, Seccomp, action};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Cx;
use crate::decode::UserPtr;

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;

const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_NEW_LISTENER: u32 = 8;
const FLAG_TSYNC_ESRCH: u32 = 16;

/// `struct sock_fprog`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fprog {
    len: u16,
    pad: [u16; 3],
    filter: u64,
}

/// `seccomp(2)`
///
/// # Errors
/// `EINVAL` for unknown operations and flags and for programs that are not sound, `EACCES` for those who have neither
/// `no_new_privs` nor `CAP_SYS_ADMIN`, `EOPNOTSUPP` for unknown actions, `ENOMEM`, `EFAULT`; `ESRCH` for threads that
/// cannot have the filter with `SECCOMP_FILTER_FLAG_TSYNC_ESRCH`.
pub fn seccomp(cx: &mut Cx<'_>, operation: u32, flags: u32, args: u64) -> Result<usize, Errno> {
    match operation {
        SET_MODE_STRICT if flags != 0 || args != 0 => Err(Errno::EINVAL),
        SET_MODE_STRICT => cx.seccomp_strict().map(|()| 0),
        SET_MODE_FILTER => filter(cx, flags, args),
        GET_ACTION_AVAIL if flags != 0 => Err(Errno::EINVAL),
        GET_ACTION_AVAIL => {
            let wanted = UserPtr::<u32>::new(args).read(cx)?;
            if action::ALL.contains(&wanted) { Ok(0) } else { Err(Errno::EOPNOTSUPP) }
        }
        _ => Err(Errno::EINVAL),
    }
}

fn filter(cx: &mut Cx<'_>, flags: u32, args: u64) -> Result<usize, Errno> {
    if flags & FLAG_NEW_LISTENER != 0 {
        return Err(cx.unsupported("seccomp: SECCOMP_FILTER_FLAG_NEW_LISTENER", Errno::EINVAL));
    }
    if flags & !(FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_TSYNC_ESRCH) != 0 {
        return Err(Errno::EINVAL);
    }
    let fprog = UserPtr::<Fprog>::new(args).read(cx)?;
    let len = usize::from(fprog.len);
    if len == 0 || len > MAX_INSTRUCTIONS {
        return Err(Errno::EINVAL);
    }
    let start = UserPtr::<Instruction>::new(fprog.filter);
    let mut instructions = Vec::with_capacity(len);
    for index in 0..len {
        instructions.push(start.at(index)?.read(cx)?);
    }
    let refused =
        cx.seccomp_filter(Program::new(instructions)?, flags & FLAG_LOG != 0, flags & FLAG_TSYNC != 0)?;
    if refused != 0 && flags & FLAG_TSYNC_ESRCH != 0 {
        return Err(Errno::ESRCH);
    }
    usize::try_from(refused).map_err(|_negative| Errno::EINVAL)
}

/// `PR_GET_SECCOMP`: in strict mode even this is forbidden.
///
/// # Errors
/// None.
pub(crate) fn prctl_get(cx: &mut Cx<'_>) -> Result<usize, Errno> {
    let seccomp = cx.seccomp();
    if matches!(seccomp, Seccomp::Strict) {
        cx.exit_group(ExitStatus::Signaled { signal: Signal::SIGKILL, core: false });
    }
    Ok(usize::from(seccomp.mode()))
}

/// `PR_SET_SECCOMP`.
///
/// # Errors
/// Those of [`seccomp`].
pub(crate) fn prctl_set(cx: &mut Cx<'_>, mode: u64, program: u64) -> Result<usize, Errno> {
    match mode {
        1 => seccomp(cx, SET_MODE_STRICT, 0, 0),
        2 => seccomp(cx, SET_MODE_FILTER, 0, program),
        _ => Err(Errno::EINVAL),
    }
}
