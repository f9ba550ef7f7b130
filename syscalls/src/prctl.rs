//! Properties of a process or thread: `prctl(2)`, `personality(2)`.
use std::sync::Arc;

use abi::{Errno, Signal};
use kernel::{Cap, Credentials};

use crate::Cx;
use crate::decode::{Arg, UserPtr};
use crate::process::id;

const PR_SET_PDEATHSIG: i32 = 1;
const PR_GET_PDEATHSIG: i32 = 2;
const PR_GET_DUMPABLE: i32 = 3;
const PR_SET_DUMPABLE: i32 = 4;
const PR_GET_KEEPCAPS: i32 = 7;
const PR_SET_KEEPCAPS: i32 = 8;
const PR_GET_TIMING: i32 = 13;
const PR_SET_TIMING: i32 = 14;
const PR_SET_NAME: i32 = 15;
const PR_GET_NAME: i32 = 16;
const PR_GET_SECCOMP: i32 = 21;
const PR_SET_SECCOMP: i32 = 22;
const PR_CAPBSET_READ: i32 = 23;
const PR_CAPBSET_DROP: i32 = 24;
const PR_GET_SECUREBITS: i32 = 27;
const PR_SET_SECUREBITS: i32 = 28;
const PR_SET_TIMERSLACK: i32 = 29;
const PR_GET_TIMERSLACK: i32 = 30;
const PR_SET_MM: i32 = 35;
const PR_SET_CHILD_SUBREAPER: i32 = 36;
const PR_GET_CHILD_SUBREAPER: i32 = 37;
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_GET_NO_NEW_PRIVS: i32 = 39;
const PR_GET_TID_ADDRESS: i32 = 40;
const PR_GET_THP_DISABLE: i32 = 42;
const PR_CAP_AMBIENT: i32 = 47;
const PR_SET_VMA: i32 = 0x5356_4d41;
const PR_SET_PTRACER: i32 = 0x5961_6d61;

const AMBIENT_IS_SET: u64 = 1;
const AMBIENT_RAISE: u64 = 2;
const AMBIENT_LOWER: u64 = 3;
const AMBIENT_CLEAR_ALL: u64 = 4;

/// The default slack of timers.
const TIMER_SLACK_NS: u64 = 50_000;
/// The longest name of an anonymous mapping with its terminator, Linux `ANON_VMA_NAME_MAX_LEN`.
const ANON_NAME_MAX: usize = 80;

/// `prctl(2)`
///
/// # Errors
/// `EINVAL` for unknown operations and arguments, `EPERM`, `EFAULT`.
pub fn prctl(cx: &mut Cx<'_>, operation: i32, a: u64, b: u64, c: u64, d: u64) -> Result<usize, Errno> {
    let none = |used: &[u64]| if used.iter().all(|v| *v == 0) { Ok(()) } else { Err(Errno::EINVAL) };
    match operation {
        PR_SET_PDEATHSIG | PR_GET_PDEATHSIG => death_signal(cx, operation, a),
        PR_GET_DUMPABLE => Ok(usize::from(cx.group().dumpable())),
        PR_SET_DUMPABLE if a > 1 => Err(Errno::EINVAL),
        PR_SET_DUMPABLE => {
            cx.group().set_dumpable(u8::from(a == 1));
            Ok(0)
        }
        PR_SET_NAME | PR_GET_NAME => name(cx, operation, a),
        // PR_TIMING_STATISTICAL is all there is.
        PR_GET_TIMING => Ok(0),
        PR_SET_TIMING => none(&[a]).map(|()| 0),
        PR_GET_SECCOMP => crate::seccomp::prctl_get(cx),
        PR_SET_SECCOMP => crate::seccomp::prctl_set(cx, a, b),
        PR_SET_TIMERSLACK | PR_GET_TIMERSLACK => timer_slack(cx, operation, a),
        PR_SET_CHILD_SUBREAPER => {
            cx.group().set_subreaper(a != 0);
            Ok(0)
        }
        PR_GET_CHILD_SUBREAPER => {
            UserPtr::new(a).write(cx, &i32::from(cx.group().is_subreaper()))?;
            Ok(0)
        }
        PR_GET_TID_ADDRESS => {
            UserPtr::new(a).write(cx, &cx.clear_child_tid())?;
            Ok(0)
        }
        PR_GET_THP_DISABLE => none(&[a, b, c, d]).map(|()| 0),
        PR_SET_VMA => vma_name(cx, [a, b, c, d]),
        PR_SET_MM => Err(cx.unsupported("prctl: PR_SET_MM", Errno::EPERM)),
        // Without the Yama module, which asks who may trace, Linux knows no such operation.
        PR_SET_PTRACER => Err(Errno::EINVAL),
        _ => credentials(cx, operation, [a, b, c, d]),
    }
}

fn death_signal(cx: &Cx<'_>, operation: i32, arg: u64) -> Result<usize, Errno> {
    if operation == PR_GET_PDEATHSIG {
        UserPtr::new(arg).write(cx, &cx.parent_death_signal())?;
        return Ok(0);
    }
    let number =
        i32::try_from(arg).ok().filter(|n| *n == 0 || Signal::new(*n).is_some()).ok_or(Errno::EINVAL)?;
    cx.set_parent_death_signal(number);
    Ok(0)
}

fn name(cx: &Cx<'_>, operation: i32, addr: u64) -> Result<usize, Errno> {
    if operation == PR_GET_NAME {
        UserPtr::new(addr).write(cx, &cx.name())?;
        return Ok(0);
    }
    // What is longer is cut.
    let mut name = Vec::new();
    for at in 0..15 {
        match UserPtr::<u8>::new(addr).at(at)?.read(cx)? {
            0 => break,
            byte => name.push(byte),
        }
    }
    cx.set_name(&name);
    Ok(0)
}

fn timer_slack(cx: &Cx<'_>, operation: i32, arg: u64) -> Result<usize, Errno> {
    let mut scheduling = cx.scheduling();
    if operation == PR_GET_TIMERSLACK {
        return usize::try_from(scheduling.timer_slack_ns).map_err(|_wide| Errno::EINVAL);
    }
    scheduling.timer_slack_ns = if arg.cast_signed() <= 0 { TIMER_SLACK_NS } else { arg };
    cx.set_scheduling(scheduling);
    Ok(0)
}

/// `PR_SET_VMA_ANON_NAME`.
fn vma_name(cx: &Cx<'_>, [operation, addr, len, name]: [u64; 4]) -> Result<usize, Errno> {
    if operation != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = cx.memory()?;
    let name = if name == 0 {
        None
    } else {
        let name = mm.read_cstr(name, ANON_NAME_MAX).map_err(|e| match e {
            Errno::ENAMETOOLONG => Errno::EINVAL,
            other => other,
        })?;
        let printable = |b: &u8| (0x20..0x7f).contains(b) && !b"\\`$[]".contains(b);
        Some(name).filter(|n| n.iter().all(printable)).map(Some).ok_or(Errno::EINVAL)?
    };
    mm.set_anon_name(addr, len, name.as_deref()).map(|()| 0)
}

/// The operations on credentials.
fn credentials(cx: &Cx<'_>, operation: i32, [a, b, c, d]: [u64; 4]) -> Result<usize, Errno> {
    let creds = cx.credentials();
    let set = |new: Credentials| {
        cx.set_credentials(Arc::new(new));
        Ok(0)
    };
    match operation {
        PR_GET_KEEPCAPS => {
            Ok(usize::from(creds.securebits & kernel::credentials::securebits::KEEP_CAPS != 0))
        }
        PR_SET_KEEPCAPS if a > 1 => Err(Errno::EINVAL),
        PR_SET_KEEPCAPS => set(creds.set_keep_caps(a == 1)?),
        PR_CAPBSET_READ => Ok(usize::from(creds.cap_bounding.has(cap(a)?))),
        PR_CAPBSET_DROP => {
            if !creds.has_cap(Cap::SETPCAP) {
                return Err(Errno::EPERM);
            }
            set(creds.drop_bounding(cap(a)?)?)
        }
        PR_GET_SECUREBITS => Ok(creds.securebits as usize),
        PR_SET_SECUREBITS => set(creds.set_securebits(Arg(a).low())?),
        PR_SET_NO_NEW_PRIVS if a != 1 || b != 0 || c != 0 || d != 0 => Err(Errno::EINVAL),
        PR_SET_NO_NEW_PRIVS => set(Credentials { no_new_privs: true, ..Credentials::clone(&creds) }),
        PR_GET_NO_NEW_PRIVS if a != 0 || b != 0 || c != 0 || d != 0 => Err(Errno::EINVAL),
        PR_GET_NO_NEW_PRIVS => Ok(usize::from(creds.no_new_privs)),
        PR_CAP_AMBIENT => ambient(cx, &creds, [a, b, c, d]),
        _ => Err(cx.unsupported("prctl: unknown operation", Errno::EINVAL)),
    }
}

fn cap(number: u64) -> Result<Cap, Errno> {
    Cap::new(number).ok_or(Errno::EINVAL)
}

fn ambient(cx: &Cx<'_>, creds: &Credentials, [operation, number, c, d]: [u64; 4]) -> Result<usize, Errno> {
    if operation == AMBIENT_CLEAR_ALL {
        if number != 0 || c != 0 || d != 0 {
            return Err(Errno::EINVAL);
        }
        cx.set_credentials(Arc::new(Credentials { cap_ambient: kernel::CapSet::EMPTY, ..creds.clone() }));
        return Ok(0);
    }
    let cap = cap(number)?;
    if c != 0 || d != 0 {
        return Err(Errno::EINVAL);
    }
    let new = match operation {
        AMBIENT_IS_SET => return Ok(usize::from(creds.cap_ambient.has(cap))),
        AMBIENT_RAISE => creds.raise_ambient(cap)?,
        AMBIENT_LOWER => Credentials { cap_ambient: creds.cap_ambient.without(cap), ..creds.clone() },
        _ => return Err(Errno::EINVAL),
    };
    cx.set_credentials(Arc::new(new));
    Ok(0)
}

/// `personality(2)`: keeps what it is told; `ADDR_NO_RANDOMIZE` and `READ_IMPLIES_EXEC` change nothing.
///
/// # Errors
/// None.
pub fn personality(cx: &mut Cx<'_>, value: u32) -> Result<usize, Errno> {
    let old = cx.group().personality();
    if value != u32::MAX {
        cx.group().set_personality(value);
    }
    id(old.cast_signed())
}
