//! Waiting for children: `wait4(2)`, `waitid(2)`.
use std::sync::Arc;

use abi::resource::Rusage;
use abi::sched::{
    P_ALL, P_PGID, P_PID, P_PIDFD, WALL, WCLONE, WCONTINUED, WEXITED, WNOHANG, WNOTHREAD, WNOWAIT, WSTOPPED,
    WUNTRACED,
};
use abi::siginfo::SigInfoWire;
use abi::{Errno, Signal};
use kernel::signal::{SigFields, SigInfo};
use kernel::{WaitArgs, WaitResult, WaitTarget};
use sync::PollEvents;

use crate::Cx;
use crate::blocking::Wait;
use crate::decode::{Fd, UserPtr};
use crate::limits::rusage;

fn wait(cx: &mut Cx<'_>, args: &WaitArgs, nohang: bool) -> Result<Option<WaitResult>, Errno> {
    let group = Arc::clone(cx.group());
    let result = cx.wait_on(group.child_events(), PollEvents::IN, Wait::unless(nohang), |cx| {
        cx.cur.wait(args)?.ok_or(Errno::EAGAIN)
    });
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// `wait4(2)`
///
/// # Errors
/// `EINVAL`, `ESRCH`, `ECHILD`, `EINTR`, `EFAULT`.
pub fn wait4(
    cx: &mut Cx<'_>,
    pid: i32,
    status: UserPtr<i32>,
    options: u32,
    usage: UserPtr<Rusage>,
) -> Result<usize, Errno> {
    if options & !(WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WCLONE | WALL) != 0 {
        return Err(Errno::EINVAL);
    }
    let target = match pid {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => WaitTarget::Any,
        0 => WaitTarget::ProcessGroup(cx.group().process_group_id()),
        1.. => WaitTarget::Pid(pid),
        _ => WaitTarget::ProcessGroup(-pid),
    };
    let args = WaitArgs { target, options: options & !WNOHANG | WEXITED };
    let Some(found) = wait(cx, &args, options & WNOHANG != 0)? else { return Ok(0) };
    usage.write_if_some(cx, &rusage(found.usage))?;
    status.write_if_some(cx, &found.raw)?;
    crate::process::id(found.pid)
}

fn target(cx: &Cx<'_>, which: i32, id: i32) -> Result<WaitTarget, Errno> {
    match which {
        P_ALL => Ok(WaitTarget::Any),
        P_PID if id <= 0 => Err(Errno::EINVAL),
        P_PID => Ok(WaitTarget::Pid(id)),
        P_PGID if id < 0 => Err(Errno::EINVAL),
        P_PGID if id == 0 => Ok(WaitTarget::ProcessGroup(cx.group().process_group_id())),
        P_PGID => Ok(WaitTarget::ProcessGroup(id)),
        P_PIDFD if id < 0 => Err(Errno::EINVAL),
        P_PIDFD => crate::pidfd::group_of(&cx.file(Fd(id))?).map(WaitTarget::Group),
        _ => Err(Errno::EINVAL),
    }
}

/// `waitid(2)`
///
/// # Errors
/// `EINVAL`, `EBADF`, `ECHILD`, `EINTR`, `EFAULT`.
pub fn waitid(
    cx: &mut Cx<'_>,
    which: i32,
    id: i32,
    info: UserPtr<SigInfoWire>,
    options: u32,
    usage: UserPtr<Rusage>,
) -> Result<usize, Errno> {
    let known = WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | WNOTHREAD | WCLONE | WALL;
    if options & !known != 0 || options & (WEXITED | WSTOPPED | WCONTINUED) == 0 {
        return Err(Errno::EINVAL);
    }
    let args = WaitArgs { target: target(cx, which, id)?, options: options & !WNOHANG };
    let found = wait(cx, &args, options & WNOHANG != 0)?;
    if let Some(found) = found {
        usage.write_if_some(cx, &rusage(found.usage))?;
    }
    if !info.is_null() {
        store_info(cx, info, found)?;
    }
    Ok(0)
}

/// Stores what waitid(2) found. Linux writes the first fields only, and zeros where there is nothing yet.
fn store_info(cx: &Cx<'_>, info: UserPtr<SigInfoWire>, found: Option<WaitResult>) -> Result<(), Errno> {
    let wire = match found {
        None => SigInfoWire::default(),
        Some(WaitResult { pid, uid, code, status, .. }) => {
            let fields = SigFields::Child { pid, uid, status, utime: 0, stime: 0 };
            SigInfo { signal: Signal::SIGCHLD, code, errno: 0, fields }.to_wire()
        }
    };
    // si_signo to si_status: 28 bytes.
    let bytes = zerocopy::IntoBytes::as_bytes(&wire);
    cx.memory()?.write_bytes(info.addr(), bytes.get(..28).unwrap_or(bytes))
}
