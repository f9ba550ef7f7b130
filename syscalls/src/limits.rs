//! Limits and use of resources: `prlimit(2)`, `getrusage(2)`, `times(2)`, `sysinfo(2)`.
use std::sync::Arc;

use abi::Errno;
use abi::resource::{RUSAGE_CHILDREN, RUSAGE_SELF, RUSAGE_THREAD, Rlimit, Rusage, Sysinfo};
use abi::time::{Timeval, Tms};
use kernel::{Cap, Limit, RLIMIT_CPU, RLIMIT_STACK, Resource, Usage};

use crate::Cx;
use crate::decode::UserPtr;
use crate::process::group_of;

fn resource(number: u32) -> Result<Resource, Errno> {
    Resource::new(number).ok_or(Errno::EINVAL)
}

const fn to_wire((cur, max): Limit) -> Rlimit {
    Rlimit { cur, max }
}

/// Sets a limit of the process and passes it on to what keeps a copy.
fn set(
    cx: &Cx<'_>,
    group: &Arc<kernel::ThreadGroup>,
    resource: Resource,
    new: Rlimit,
) -> Result<Rlimit, Errno> {
    let old = group.limits().set(resource, (new.cur, new.max), &cx.credentials())?;
    if resource == RLIMIT_STACK
        && let Some(mm) = group.leader().and_then(|leader| leader.mm())
    {
        mm.set_stack_limit(new.cur);
    }
    if resource == RLIMIT_CPU {
        group.watch_cpu_limit();
    }
    Ok(to_wire(old))
}

/// `getrlimit(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn getrlimit(cx: &mut Cx<'_>, number: u32, limit: UserPtr<Rlimit>) -> Result<usize, Errno> {
    let now = cx.group().limits().get(resource(number)?);
    limit.write(cx, &to_wire(now))?;
    Ok(0)
}

/// `setrlimit(2)`
///
/// # Errors
/// `EFAULT`, `EINVAL`, `EPERM`.
pub fn setrlimit(cx: &mut Cx<'_>, number: u32, limit: UserPtr<Rlimit>) -> Result<usize, Errno> {
    let new = limit.read(cx)?;
    set(cx, cx.group(), resource(number)?, new)?;
    Ok(0)
}

/// `prlimit64(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`, `ESRCH`, `EPERM`.
pub fn prlimit64(
    cx: &mut Cx<'_>,
    pid: i32,
    number: u32,
    new: UserPtr<Rlimit>,
    old: UserPtr<Rlimit>,
) -> Result<usize, Errno> {
    let new = new.read_if_some(cx)?;
    let group = group_of(cx, pid)?;
    if group.tgid() != cx.tgid() {
        let (mine, theirs) = (cx.credentials(), group.credentials());
        if !theirs.ids_are_all(mine.uid, mine.gid) && !mine.has_cap(Cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
    }
    let resource = resource(number)?;
    let before = match new {
        Some(new) => set(cx, &group, resource, new)?,
        None => to_wire(group.limits().get(resource)),
    };
    old.write_if_some(cx, &before)?;
    Ok(0)
}

/// The wire form of a use of resources.
pub(crate) fn rusage(usage: Usage) -> Rusage {
    Rusage {
        utime: Timeval::from_ns(usage.cpu.user_ns),
        stime: Timeval::from_ns(usage.cpu.system_ns),
        maxrss: usage.max_rss_kb.cast_signed(),
        minflt: usage.minor_faults.cast_signed(),
        majflt: usage.major_faults.cast_signed(),
        nvcsw: usage.voluntary_switches.cast_signed(),
        nivcsw: usage.involuntary_switches.cast_signed(),
        ..Rusage::default()
    }
}

/// `getrusage(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn getrusage(cx: &mut Cx<'_>, who: i32, usage: UserPtr<Rusage>) -> Result<usize, Errno> {
    let mut value = match who {
        RUSAGE_SELF => cx.group().usage(),
        RUSAGE_CHILDREN => cx.group().children_usage(),
        RUSAGE_THREAD => cx.usage(),
        _ => return Err(Errno::EINVAL),
    };
    if who != RUSAGE_CHILDREN {
        value.max_rss_kb = value.max_rss_kb.max(cx.memory()?.status().peak_rss >> 10);
    }
    usage.write(cx, &rusage(value))?;
    Ok(0)
}

/// `times(2)`: gives the ticks since boot.
///
/// # Errors
/// `EFAULT`.
pub fn times(cx: &mut Cx<'_>, buf: UserPtr<Tms>) -> Result<usize, Errno> {
    if !buf.is_null() {
        let (utime, stime) = cx.group().cpu_times().ticks();
        let (cutime, cstime) = cx.group().children_usage().cpu.ticks();
        buf.write(cx, &Tms { utime, stime, cutime, cstime })?;
    }
    usize::try_from(cx.now_ns() / 10_000_000).map_err(|_wide| Errno::EOVERFLOW)
}

/// `sysinfo(2)`
///
/// # Errors
/// `EFAULT`.
pub fn sysinfo(cx: &mut Cx<'_>, info: UserPtr<Sysinfo>) -> Result<usize, Errno> {
    let kernel = cx.kernel();
    let (total, used) = kernel.memory();
    let procs = u16::try_from(kernel.tasks().len()).unwrap_or(u16::MAX);
    let value = Sysinfo {
        uptime: (cx.now_ns() / abi::time::NSEC_PER_SEC).cast_signed(),
        totalram: total,
        freeram: total.saturating_sub(used),
        procs,
        mem_unit: 1,
        ..Sysinfo::default()
    };
    info.write(cx, &value)?;
    Ok(0)
}
