//! Vectors of buffers, messages and readiness: `readv(2)`, `sendmsg(2)`, `poll(2)`, `epoll_ctl(2)`.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct iovec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iovec {
    /// Address of the first byte.
    pub base: u64,
    /// How many bytes.
    pub len: u64,
}

/// `struct msghdr` of 64-bit programs, `struct user_msghdr` in Linux.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Msghdr {
    /// Address of the socket address.
    pub name: u64,
    /// Its length, in and out.
    pub namelen: i32,
    /// Padding.
    pub pad: u32,
    /// Address of the vector of buffers.
    pub iov: u64,
    /// How many buffers.
    pub iovlen: u64,
    /// Address of the ancillary data.
    pub control: u64,
    /// Its length, in and out.
    pub controllen: u64,
    /// What was received, `MSG_*`.
    pub flags: u32,
    /// Padding.
    pub pad2: u32,
}

/// `struct mmsghdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mmsghdr {
    /// The message.
    pub hdr: Msghdr,
    /// How many bytes it had.
    pub len: u32,
    /// Padding.
    pub pad: u32,
}

/// `struct cmsghdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cmsghdr {
    /// Length with this header, without padding after the data.
    pub len: u64,
    /// `SOL_*`.
    pub level: i32,
    /// `SCM_*`, by level.
    pub ty: i32,
}

/// `struct pollfd`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Pollfd {
    /// The descriptor; a negative one is passed over.
    pub fd: i32,
    /// What is asked for, `POLL*`.
    pub events: u16,
    /// What is there.
    pub revents: u16,
}

/// `struct epoll_event`, which x86-64 packs. Bytes rather than fields, so that its alignment is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EpollEvent {
    events: [u8; 4],
    data: [u8; 8],
}

impl EpollEvent {
    /// An event.
    #[must_use]
    pub const fn new(events: u32, data: u64) -> Self {
        Self { events: events.to_le_bytes(), data: data.to_le_bytes() }
    }
    /// What happened or is asked for, `EPOLL*`.
    #[must_use]
    pub const fn events(self) -> u32 {
        u32::from_le_bytes(self.events)
    }
    /// What the program wants back.
    #[must_use]
    pub const fn data(self) -> u64 {
        u64::from_le_bytes(self.data)
    }
}

#[expect(missing_docs, reason = "the names are those of readv(2), send(2), recv(2) and epoll_ctl(2)")]
mod constants {
    pub const UIO_MAXIOV: usize = 1024;
    /// The most bytes one call moves, Linux `MAX_RW_COUNT`.
    pub const MAX_RW_COUNT: usize = 0x7fff_f000;

    pub const RWF_HIPRI: u32 = 1;
    pub const RWF_DSYNC: u32 = 2;
    pub const RWF_SYNC: u32 = 4;
    pub const RWF_NOWAIT: u32 = 8;
    pub const RWF_APPEND: u32 = 16;
    pub const RWF_NOAPPEND: u32 = 32;
    pub const RWF_ATOMIC: u32 = 64;
    pub const RWF_DONTCACHE: u32 = 128;

    pub const SPLICE_F_MOVE: u32 = 1;
    pub const SPLICE_F_NONBLOCK: u32 = 2;
    pub const SPLICE_F_MORE: u32 = 4;
    pub const SPLICE_F_GIFT: u32 = 8;

    pub const EPOLL_CTL_ADD: i32 = 1;
    pub const EPOLL_CTL_DEL: i32 = 2;
    pub const EPOLL_CTL_MOD: i32 = 3;
    pub const EPOLL_CLOEXEC: i32 = 0o2_000_000;
    pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
    pub const EPOLLWAKEUP: u32 = 1 << 29;
    pub const EPOLLONESHOT: u32 = 1 << 30;
    pub const EPOLLET: u32 = 1 << 31;
}
pub use constants::*;

const _: () = {
    assert!(size_of::<Iovec>() == 16);
    assert!(size_of::<Msghdr>() == 56);
    assert!(size_of::<Mmsghdr>() == 64);
    assert!(size_of::<Cmsghdr>() == 16);
    assert!(size_of::<Pollfd>() == 8);
    assert!(size_of::<EpollEvent>() == 12);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_linux_s() {
        use linux_raw_sys::{general as raw, net};
        assert_eq!(size_of::<Iovec>(), size_of::<raw::iovec>());
        assert_eq!(size_of::<Msghdr>(), size_of::<net::msghdr>());
        assert_eq!(core::mem::offset_of!(Msghdr, flags), core::mem::offset_of!(net::msghdr, msg_flags));
        assert_eq!(size_of::<Mmsghdr>(), size_of::<net::mmsghdr>());
        assert_eq!(size_of::<Cmsghdr>(), size_of::<net::cmsghdr>());
        assert_eq!(size_of::<Pollfd>(), size_of::<raw::pollfd>());
        assert_eq!(size_of::<EpollEvent>(), size_of::<raw::epoll_event>());
        assert_eq!(EPOLLEXCLUSIVE, raw::EPOLLEXCLUSIVE);
        assert_eq!(EPOLL_CLOEXEC.cast_unsigned(), raw::EPOLL_CLOEXEC);
    }
}
