//! Times and clocks, `time(7)` and Linux `include/uapi/linux/time.h`.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Errno;

/// Nanoseconds in a second.
pub const NSEC_PER_SEC: u64 = 1_000_000_000;
/// Microseconds in a second.
pub const USEC_PER_SEC: u64 = 1_000_000;
/// The clock ticks in a second that programs see, `sysconf(_SC_CLK_TCK)`.
pub const USER_HZ: u64 = 100;

/// `struct timespec`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds; 0 to 999,999,999 where valid.
    pub nsec: i64,
}

impl Timespec {
    /// No time.
    pub const ZERO: Self = Self { sec: 0, nsec: 0 };

    /// The time of so many nanoseconds.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self { sec: (ns / NSEC_PER_SEC).cast_signed(), nsec: (ns % NSEC_PER_SEC).cast_signed() }
    }

    /// Tells whether Linux takes this as a time span or a point in time (`timespec64_valid`).
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.sec >= 0 && self.nsec >= 0 && self.nsec < NSEC_PER_SEC.cast_signed()
    }

    /// The nanoseconds of a valid time; what does not fit is the longest time there is.
    ///
    /// # Errors
    /// `EINVAL` where it is not valid.
    pub const fn to_ns(self) -> Result<u64, Errno> {
        if !self.is_valid() {
            return Err(Errno::EINVAL);
        }
        let ns =
            self.sec.cast_unsigned().saturating_mul(NSEC_PER_SEC).saturating_add(self.nsec.cast_unsigned());
        // Linux's KTIME_MAX: times are signed in the kernel.
        Ok(if ns > i64::MAX.cast_unsigned() { i64::MAX.cast_unsigned() } else { ns })
    }
}

/// `struct timeval`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Timeval {
    /// Seconds.
    pub sec: i64,
    /// Microseconds; 0 to 999,999 where valid.
    pub usec: i64,
}

impl Timeval {
    /// The time of so many nanoseconds, rounded down.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self { sec: (ns / NSEC_PER_SEC).cast_signed(), usec: (ns % NSEC_PER_SEC / 1000).cast_signed() }
    }

    /// The nanoseconds of a valid time; what does not fit is the longest time there is.
    ///
    /// # Errors
    /// `EINVAL` where it is not valid.
    pub const fn to_ns(self) -> Result<u64, Errno> {
        if self.sec < 0 || self.usec < 0 || self.usec >= USEC_PER_SEC.cast_signed() {
            return Err(Errno::EINVAL);
        }
        Timespec { sec: self.sec, nsec: self.usec * 1000 }.to_ns()
    }
}

/// `struct itimerspec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Itimerspec {
    /// The period, zero for a timer that fires once.
    pub interval: Timespec,
    /// The time until, or of, the first expiration; zero disarms.
    pub value: Timespec,
}

/// `struct itimerval`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Itimerval {
    /// The period, zero for a timer that fires once.
    pub interval: Timeval,
    /// The time until the first expiration; zero disarms.
    pub value: Timeval,
}

/// `struct timezone`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timezone {
    /// Minutes west of Greenwich.
    pub minuteswest: i32,
    /// The kind of daylight saving.
    pub dsttime: i32,
}

/// `struct tms` of `times(2)`, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tms {
    /// User time.
    pub utime: i64,
    /// System time.
    pub stime: i64,
    /// User time of waited-for children.
    pub cutime: i64,
    /// System time of waited-for children.
    pub cstime: i64,
}

/// `struct utimbuf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Utimbuf {
    /// Access time, seconds.
    pub actime: i64,
    /// Modification time, seconds.
    pub modtime: i64,
}

/// `struct __kernel_timex` of `adjtimex(2)`, without the meaning of its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of adjtimex(2)")]
pub struct Timex {
    pub modes: u32,
    pub pad0: u32,
    pub offset: i64,
    pub freq: i64,
    pub maxerror: i64,
    pub esterror: i64,
    pub status: i32,
    pub pad1: u32,
    pub constant: i64,
    pub precision: i64,
    pub tolerance: i64,
    pub time: Timeval,
    pub tick: i64,
    pub ppsfreq: i64,
    pub jitter: i64,
    pub shift: i32,
    pub pad2: u32,
    pub stabil: i64,
    pub jitcnt: i64,
    pub calcnt: i64,
    pub errcnt: i64,
    pub stbcnt: i64,
    pub tai: i32,
    pub pad3: [u32; 11],
}

#[expect(missing_docs, reason = "the names are those of clock_gettime(2) and timer_settime(2)")]
mod constants {
    pub const CLOCK_REALTIME: i32 = 0;
    pub const CLOCK_MONOTONIC: i32 = 1;
    pub const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
    pub const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    pub const CLOCK_MONOTONIC_RAW: i32 = 4;
    pub const CLOCK_REALTIME_COARSE: i32 = 5;
    pub const CLOCK_MONOTONIC_COARSE: i32 = 6;
    pub const CLOCK_BOOTTIME: i32 = 7;
    pub const CLOCK_REALTIME_ALARM: i32 = 8;
    pub const CLOCK_BOOTTIME_ALARM: i32 = 9;
    pub const CLOCK_TAI: i32 = 11;

    pub const TIMER_ABSTIME: i32 = 1;
    pub const ITIMER_REAL: i32 = 0;
    pub const ITIMER_VIRTUAL: i32 = 1;
    pub const ITIMER_PROF: i32 = 2;

    pub const UTIME_NOW: i64 = 0x3fff_ffff;
    pub const UTIME_OMIT: i64 = 0x3fff_fffe;

    pub const TFD_TIMER_ABSTIME: i32 = 1;
    pub const TFD_TIMER_CANCEL_ON_SET: i32 = 2;
    pub const TFD_CLOEXEC: i32 = 0o2_000_000;
    pub const TFD_NONBLOCK: i32 = 0o4000;
}
pub use constants::*;

#[cfg(test)]
mod tests {
    use super::*;
    use linux_raw_sys::general as raw;

    #[test]
    fn layouts_are_linux_s() {
        assert_eq!(size_of::<Timespec>(), size_of::<raw::timespec>());
        assert_eq!(size_of::<Timeval>(), size_of::<raw::timeval>());
        assert_eq!(size_of::<Itimerspec>(), size_of::<raw::itimerspec>());
        assert_eq!(size_of::<Itimerval>(), size_of::<raw::itimerval>());
        assert_eq!(size_of::<Timezone>(), size_of::<raw::timezone>());
        // struct __kernel_timex, include/uapi/linux/timex.h.
        assert_eq!(size_of::<Timex>(), 208);
    }

    #[test]
    fn constants_are_linux_s() {
        assert_eq!(CLOCK_TAI.cast_unsigned(), raw::CLOCK_TAI);
        assert_eq!(CLOCK_BOOTTIME.cast_unsigned(), raw::CLOCK_BOOTTIME);
        assert_eq!(UTIME_NOW, i64::from(raw::UTIME_NOW));
        assert_eq!(UTIME_OMIT, i64::from(raw::UTIME_OMIT));
        assert_eq!(TFD_CLOEXEC.cast_unsigned(), raw::TFD_CLOEXEC);
        assert_eq!(TFD_NONBLOCK.cast_unsigned(), raw::TFD_NONBLOCK);
    }

    #[test]
    fn times_saturate_and_refuse() {
        assert_eq!(Timespec { sec: 1, nsec: 5 }.to_ns(), Ok(1_000_000_005));
        assert_eq!(Timespec { sec: i64::MAX, nsec: 0 }.to_ns(), Ok(i64::MAX as u64));
        assert_eq!(Timespec { sec: 0, nsec: 1_000_000_000 }.to_ns(), Err(Errno::EINVAL));
        assert_eq!(Timespec { sec: -1, nsec: 0 }.to_ns(), Err(Errno::EINVAL));
        assert_eq!(Timeval { sec: 0, usec: 1_000_000 }.to_ns(), Err(Errno::EINVAL));
        assert_eq!(Timespec::from_ns(2_000_000_007), Timespec { sec: 2, nsec: 7 });
    }
}
