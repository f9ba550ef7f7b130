//! Making and scheduling tasks: `clone3(2)`, `sched_setattr(2)`, `waitid(2)`, `capget(2)`.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct clone_args`, version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of clone3(2)")]
pub struct CloneArgsWire {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// The size of the first published [`CloneArgsWire`].
pub const CLONE_ARGS_SIZE_VER0: u64 = 64;

/// `struct sched_attr`, version 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of sched_setattr(2)")]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// The size of the first published [`SchedAttr`].
pub const SCHED_ATTR_SIZE_VER0: u32 = 48;

/// `struct __user_cap_header_struct`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CapHeader {
    /// `_LINUX_CAPABILITY_VERSION_*`.
    pub version: u32,
    /// Whose capabilities.
    pub pid: i32,
}

/// `struct __user_cap_data_struct`: 32 capabilities of each set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of capget(2)")]
pub struct CapData {
    pub effective: u32,
    pub permitted: u32,
    pub inheritable: u32,
}

#[expect(missing_docs, reason = "the names are those of capget(2), wait(2) and sched(7)")]
mod constants {
    pub const LINUX_CAPABILITY_VERSION_1: u32 = 0x1998_0330;
    pub const LINUX_CAPABILITY_VERSION_2: u32 = 0x2007_1026;
    pub const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

    pub const WNOHANG: u32 = 1;
    pub const WUNTRACED: u32 = 2;
    pub const WSTOPPED: u32 = 2;
    pub const WEXITED: u32 = 4;
    pub const WCONTINUED: u32 = 8;
    pub const WNOWAIT: u32 = 0x0100_0000;
    pub const WNOTHREAD: u32 = 0x2000_0000;
    pub const WALL: u32 = 0x4000_0000;
    pub const WCLONE: u32 = 0x8000_0000;

    pub const P_ALL: i32 = 0;
    pub const P_PID: i32 = 1;
    pub const P_PGID: i32 = 2;
    pub const P_PIDFD: i32 = 3;

    pub const SCHED_NORMAL: i32 = 0;
    pub const SCHED_FIFO: i32 = 1;
    pub const SCHED_RR: i32 = 2;
    pub const SCHED_BATCH: i32 = 3;
    pub const SCHED_IDLE: i32 = 5;
    pub const SCHED_DEADLINE: i32 = 6;
    pub const SCHED_RESET_ON_FORK: i32 = 0x4000_0000;
}
pub use constants::*;

const _: () = {
    assert!(size_of::<CloneArgsWire>() == 88);
    assert!(size_of::<SchedAttr>() == 56);
    assert!(size_of::<CapHeader>() == 8);
    assert!(size_of::<CapData>() == 12);
};

#[cfg(test)]
mod tests {
    use super::*;
    use linux_raw_sys::general as raw;

    #[test]
    fn layouts_are_linux_s() {
        assert_eq!(size_of::<CloneArgsWire>(), size_of::<raw::clone_args>());
        assert_eq!(CLONE_ARGS_SIZE_VER0, u64::from(raw::CLONE_ARGS_SIZE_VER0));
        assert_eq!(size_of::<CapHeader>(), size_of::<raw::__user_cap_header_struct>());
        assert_eq!(size_of::<CapData>(), size_of::<raw::__user_cap_data_struct>());
        assert_eq!(LINUX_CAPABILITY_VERSION_3, raw::_LINUX_CAPABILITY_VERSION_3);
        assert_eq!(WNOWAIT, raw::WNOWAIT);
        assert_eq!(WCLONE, raw::__WCLONE);
    }
}
