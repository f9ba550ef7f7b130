//! Resource use and limits, `getrusage(2)`, `getrlimit(2)`, `sysinfo(2)`, `uname(2)`.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::Timeval;

/// `struct rusage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of getrusage(2)")]
pub struct Rusage {
    pub utime: Timeval,
    pub stime: Timeval,
    pub maxrss: i64,
    pub ixrss: i64,
    pub idrss: i64,
    pub isrss: i64,
    pub minflt: i64,
    pub majflt: i64,
    pub nswap: i64,
    pub inblock: i64,
    pub oublock: i64,
    pub msgsnd: i64,
    pub msgrcv: i64,
    pub nsignals: i64,
    pub nvcsw: i64,
    pub nivcsw: i64,
}

/// `struct rlimit64`, also `struct rlimit` of 64-bit programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rlimit {
    /// What is enforced.
    pub cur: u64,
    /// What it may be raised to.
    pub max: u64,
}

/// `struct sysinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of sysinfo(2)")]
pub struct Sysinfo {
    pub uptime: i64,
    pub loads: [u64; 3],
    pub totalram: u64,
    pub freeram: u64,
    pub sharedram: u64,
    pub bufferram: u64,
    pub totalswap: u64,
    pub freeswap: u64,
    pub procs: u16,
    pub pad: u16,
    pub pad1: u32,
    pub totalhigh: u64,
    pub freehigh: u64,
    pub mem_unit: u32,
    pub pad2: u32,
}

/// `__NEW_UTS_LEN` and its terminator: one field of [`Utsname`].
pub const UTS_FIELD: usize = 65;

/// `struct new_utsname`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of uname(2)")]
pub struct Utsname {
    pub sysname: [u8; UTS_FIELD],
    pub nodename: [u8; UTS_FIELD],
    pub release: [u8; UTS_FIELD],
    pub version: [u8; UTS_FIELD],
    pub machine: [u8; UTS_FIELD],
    pub domainname: [u8; UTS_FIELD],
}

impl Utsname {
    /// A field that holds `text`, cut to what fits before its terminator.
    #[must_use]
    pub fn field(text: &[u8]) -> [u8; UTS_FIELD] {
        let mut field = [0; UTS_FIELD];
        for (to, from) in field.iter_mut().take(UTS_FIELD - 1).zip(text) {
            *to = *from;
        }
        field
    }
}

#[expect(missing_docs, reason = "the names are those of getrusage(2) and getpriority(2)")]
mod constants {
    pub const RUSAGE_SELF: i32 = 0;
    pub const RUSAGE_CHILDREN: i32 = -1;
    pub const RUSAGE_THREAD: i32 = 1;

    pub const PRIO_PROCESS: i32 = 0;
    pub const PRIO_PGRP: i32 = 1;
    pub const PRIO_USER: i32 = 2;
}
pub use constants::*;

const _: () = {
    assert!(size_of::<Rusage>() == 144);
    assert!(size_of::<Rlimit>() == 16);
    assert!(size_of::<Sysinfo>() == 112);
    assert!(size_of::<Utsname>() == 390);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_linux_s() {
        use linux_raw_sys::{general as raw, system};
        assert_eq!(size_of::<Rusage>(), size_of::<raw::rusage>());
        assert_eq!(size_of::<Rlimit>(), size_of::<raw::rlimit64>());
        assert_eq!(size_of::<Sysinfo>(), size_of::<system::sysinfo>());
        assert_eq!(
            core::mem::offset_of!(Sysinfo, mem_unit),
            core::mem::offset_of!(system::sysinfo, mem_unit)
        );
        assert_eq!(size_of::<Utsname>(), size_of::<system::new_utsname>());
    }

    #[test]
    fn fields_keep_their_terminator() {
        assert_eq!(Utsname::field(&[b'a'; 100]).last(), Some(&0));
        assert!(Utsname::field(b"Linux").starts_with(b"Linux\0"));
    }
}
