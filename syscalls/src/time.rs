//! Clocks: `clock_gettime(2)`, `gettimeofday(2)`, `time(2)`, `adjtimex(2)`.
use std::sync::Arc;

use abi::Errno;
use abi::time::{
    CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW,
    CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, CLOCK_REALTIME_ALARM, CLOCK_REALTIME_COARSE, CLOCK_TAI,
    CLOCK_THREAD_CPUTIME_ID, NSEC_PER_SEC, Timespec, Timeval, Timex, Timezone,
};
use kernel::{Cap, CpuTimes, Task, ThreadGroup};

use crate::Cx;
use crate::decode::UserPtr;

/// What a clock id stands for.
#[derive(Clone, Debug)]
pub(crate) enum ClockId {
    /// Time of day.
    Realtime,
    /// Time since boot.
    Monotonic,
    /// Processor time of a process.
    Process(Arc<ThreadGroup>, CpuPart),
    /// Processor time of a thread.
    Thread(Arc<Task>, CpuPart),
}

/// Which processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CpuPart {
    /// User and system time: `CPUCLOCK_PROF`.
    Both,
    /// User time: `CPUCLOCK_VIRT`.
    User,
    /// What the scheduler counted: `CPUCLOCK_SCHED`.
    Scheduled,
}

impl CpuPart {
    const fn of(self, times: CpuTimes) -> u64 {
        match self {
            Self::User => times.user_ns,
            Self::Both | Self::Scheduled => times.total_ns(),
        }
    }
}

impl ClockId {
    /// Decodes an id, also those of clock_getcpuclockid(3) and pthread_getcpuclockid(3).
    ///
    /// # Errors
    /// `EINVAL` for what is no clock, or of a process or thread that is not there.
    pub(crate) fn decode(cx: &Cx<'_>, id: i32) -> Result<Self, Errno> {
        match id {
            CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_REALTIME_ALARM | CLOCK_TAI => Ok(Self::Realtime),
            CLOCK_MONOTONIC
            | CLOCK_MONOTONIC_RAW
            | CLOCK_MONOTONIC_COARSE
            | CLOCK_BOOTTIME
            | CLOCK_BOOTTIME_ALARM => Ok(Self::Monotonic),
            CLOCK_PROCESS_CPUTIME_ID => Ok(Self::Process(Arc::clone(cx.group()), CpuPart::Scheduled)),
            CLOCK_THREAD_CPUTIME_ID => Ok(Self::Thread(Arc::clone(cx.task()), CpuPart::Scheduled)),
            0.. => Err(Errno::EINVAL),
            cpu => Self::decode_cpu(cx, cpu),
        }
    }

    /// Linux `include/linux/posix-timers_types.h`: the complement of the pid, a bit for threads, and two for the part.
    fn decode_cpu(cx: &Cx<'_>, id: i32) -> Result<Self, Errno> {
        let part = match id & 3 {
            0 => CpuPart::Both,
            1 => CpuPart::User,
            2 => CpuPart::Scheduled,
            _ => return Err(Errno::EINVAL),
        };
        let (pid, of_thread) = (!(id >> 3), id & 4 != 0);
        if of_thread {
            let task = match pid {
                0 => Arc::clone(cx.task()),
                tid => cx.kernel().task(tid).filter(|t| t.tgid() == cx.tgid()).ok_or(Errno::EINVAL)?,
            };
            return Ok(Self::Thread(task, part));
        }
        let group = match pid {
            0 => Some(Arc::clone(cx.group())),
            pid => cx.kernel().thread_group(pid),
        };
        group.map(|g| Self::Process(g, part)).ok_or(Errno::EINVAL)
    }

    /// The time it shows.
    pub(crate) fn now_ns(&self, cx: &Cx<'_>) -> u64 {
        let clock = cx.kernel().clock();
        match self {
            Self::Realtime => clock.realtime_ns(),
            Self::Monotonic => clock.monotonic_ns(),
            Self::Process(group, part) => part.of(group.cpu_times()),
            Self::Thread(task, part) => part.of(task.cpu_times()),
        }
    }
}

/// `clock_gettime(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn clock_gettime(cx: &mut Cx<'_>, id: i32, time: UserPtr<Timespec>) -> Result<usize, Errno> {
    let known = ClockId::decode(cx, id)?;
    // Coarse and raw clocks differ from those they are kin to, and a program may read them by the vDSO as well.
    let now = cx.kernel().clock().other_ns(id).unwrap_or_else(|| known.now_ns(cx));
    time.write(cx, &Timespec::from_ns(now))?;
    Ok(0)
}

/// The resolution of the coarse clocks, Linux with `HZ=250`.
const COARSE_NS: i64 = 4_000_000;

/// `clock_getres(2)`
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn clock_getres(cx: &mut Cx<'_>, id: i32, resolution: UserPtr<Timespec>) -> Result<usize, Errno> {
    ClockId::decode(cx, id)?;
    let coarse = matches!(id, CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE);
    let nsec = if coarse { COARSE_NS } else { 1 };
    resolution.write_if_some(cx, &Timespec { sec: 0, nsec })?;
    Ok(0)
}

/// `clock_settime(2)`: the sandbox's clocks are the host's, which no guest sets.
///
/// # Errors
/// `EINVAL`, `EFAULT`, else `EPERM`.
pub fn clock_settime(cx: &mut Cx<'_>, id: i32, time: UserPtr<Timespec>) -> Result<usize, Errno> {
    let settable = matches!(ClockId::decode(cx, id)?, ClockId::Realtime) && id == CLOCK_REALTIME;
    if !settable && id >= 0 && id != CLOCK_PROCESS_CPUTIME_ID && id != CLOCK_THREAD_CPUTIME_ID {
        return Err(Errno::EINVAL);
    }
    if !time.read(cx)?.is_valid() {
        return Err(Errno::EINVAL);
    }
    Err(Errno::EPERM)
}

/// `gettimeofday(2)`
///
/// # Errors
/// `EFAULT`.
pub fn gettimeofday(
    cx: &mut Cx<'_>,
    time: UserPtr<Timeval>,
    zone: UserPtr<Timezone>,
) -> Result<usize, Errno> {
    let now = cx.kernel().clock().realtime_ns();
    time.write_if_some(cx, &Timeval::from_ns(now))?;
    zone.write_if_some(cx, &Timezone::default())?;
    Ok(0)
}

/// `settimeofday(2)`
///
/// # Errors
/// `EFAULT`, `EINVAL`, else `EPERM`, as [`clock_settime`].
pub fn settimeofday(
    cx: &mut Cx<'_>,
    time: UserPtr<Timeval>,
    zone: UserPtr<Timezone>,
) -> Result<usize, Errno> {
    if let Some(time) = time.read_if_some(cx)? {
        time.to_ns()?;
    }
    zone.read_if_some(cx)?;
    Err(Errno::EPERM)
}

/// `time(2)`
///
/// # Errors
/// `EFAULT`.
pub fn time(cx: &mut Cx<'_>, to: UserPtr<u64>) -> Result<usize, Errno> {
    let seconds = cx.kernel().clock().realtime_ns() / NSEC_PER_SEC;
    to.write_if_some(cx, &seconds)?;
    usize::try_from(seconds).map_err(|_wide| Errno::EOVERFLOW)
}

/// The clock is not synchronized, as far as the sandbox knows: the state and status of adjtimex(2).
const TIME_ERROR: usize = 5;
const STA_UNSYNC: i32 = 0x40;

/// `adjtimex(2)`: tells, and sets nothing.
///
/// # Errors
/// `EFAULT`, `EPERM` for what would set something.
pub fn adjtimex(cx: &mut Cx<'_>, buf: UserPtr<Timex>) -> Result<usize, Errno> {
    let asked = buf.read(cx)?;
    // ADJ_OFFSET_SS_READ alone reads.
    if asked.modes != 0 && asked.modes != 0xa001 {
        if cx.credentials().has_cap(Cap::SYS_TIME) {
            cx.unsupported("adjtimex: setting", Errno::EPERM);
        }
        return Err(Errno::EPERM);
    }
    let value = Timex {
        status: STA_UNSYNC,
        constant: 2,
        precision: 1,
        tolerance: 32_768_000,
        maxerror: 16_000_000,
        esterror: 16_000_000,
        tick: 10_000,
        time: Timeval::from_ns(cx.kernel().clock().realtime_ns()),
        ..Timex::default()
    };
    buf.write(cx, &value)?;
    Ok(TIME_ERROR)
}

/// `clock_adjtime(2)`
///
/// # Errors
/// As [`adjtimex`], `EINVAL` for what is no clock, `EOPNOTSUPP` for a clock that cannot be adjusted.
pub fn clock_adjtime(cx: &mut Cx<'_>, id: i32, buf: UserPtr<Timex>) -> Result<usize, Errno> {
    ClockId::decode(cx, id)?;
    if id != CLOCK_REALTIME {
        return Err(Errno::EOPNOTSUPP);
    }
    adjtimex(cx, buf)
}
