//! What sockets add to open files; the families are in the crate `net`.
use std::fmt::Debug;
use std::sync::Arc;

use abi::Errno;
use kernel::File;
use memmap::{IoDst, IoSrc};
use sync::{LockClass, RwLock};

use crate::{FileOps, OpCx};

/// Ancillary data, `cmsg(3)`.
#[derive(Clone, Debug)]
pub enum Ancillary {
    /// `SCM_RIGHTS`.
    Rights(Vec<Arc<dyn File>>),
    /// `SCM_CREDENTIALS`.
    Credentials {
        /// Process.
        pid: i32,
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Any other; the bytes as they are in memory.
    Other {
        /// `SOL_*`.
        level: i32,
        /// Type, by level.
        ty: i32,
        /// The data after the header.
        data: Vec<u8>,
    },
}

/// What sendmsg(2) is told beside the bytes.
#[derive(Debug, Default)]
pub struct SendArgs<'a> {
    /// To whom, a `sockaddr`.
    pub address: Option<&'a [u8]>,
    /// Ancillary data.
    pub ancillary: Vec<Ancillary>,
    /// `MSG_*`.
    pub flags: u32,
}

/// What recvmsg(2) tells beside the bytes.
#[derive(Debug, Default)]
pub struct Received {
    /// What the call returns: the bytes stored, or with `MSG_TRUNC` asked for the message's full length.
    pub len: usize,
    /// From whom, a `sockaddr`; empty where there is none to tell.
    pub address: Vec<u8>,
    /// Ancillary data.
    pub ancillary: Vec<Ancillary>,
    /// `MSG_*` for `msg_flags`.
    pub flags: u32,
}

/// The socket calls. Addresses are raw `sockaddr` bytes of the guest, not yet validated beyond their length.
///
/// Nothing blocks: `EAGAIN`, and the file's wait queue. `MSG_DONTWAIT` and `O_NONBLOCK` are the caller's to obey.
pub trait SocketOps: Send + Sync + Debug {
    /// Domain, type and protocol, for `SO_DOMAIN`, `SO_TYPE`, `SO_PROTOCOL`.
    fn kind(&self) -> (i32, i32, i32);
    /// bind(2).
    ///
    /// # Errors
    /// Those of bind(2).
    fn bind(&self, cx: &OpCx<'_>, address: &[u8]) -> Result<(), Errno>;
    /// connect(2). `EAGAIN`: try again when the socket is writable. `EINPROGRESS`: under way; when the socket is writable
    /// [`Self::finish_connect`] tells how it went.
    ///
    /// # Errors
    /// Those of connect(2).
    fn connect(&self, cx: &OpCx<'_>, address: &[u8]) -> Result<(), Errno>;
    /// How a connect that was under way went.
    ///
    /// # Errors
    /// `EAGAIN` while it is still under way; those of connect(2).
    fn finish_connect(&self, cx: &OpCx<'_>) -> Result<(), Errno> {
        let _ = cx;
        Ok(())
    }
    /// listen(2).
    ///
    /// # Errors
    /// Those of listen(2).
    fn listen(&self, cx: &OpCx<'_>, backlog: i32) -> Result<(), Errno> {
        let _ = (cx, backlog);
        Err(Errno::EOPNOTSUPP)
    }
    /// accept(2): the new socket and its peer's address.
    ///
    /// # Errors
    /// `EAGAIN`; those of accept(2).
    fn accept(&self, cx: &OpCx<'_>) -> Result<(Arc<dyn FileOps>, Vec<u8>), Errno> {
        let _ = cx;
        Err(Errno::EOPNOTSUPP)
    }
    /// sendmsg(2). `EPIPE` is returned as such: the caller sends `SIGPIPE` unless `MSG_NOSIGNAL`.
    ///
    /// # Errors
    /// Those of sendmsg(2).
    fn send(&self, cx: &OpCx<'_>, src: &mut IoSrc<'_>, args: SendArgs<'_>) -> Result<usize, Errno>;
    /// recvmsg(2).
    ///
    /// # Errors
    /// Those of recvmsg(2).
    fn recv(&self, cx: &OpCx<'_>, dst: &mut IoDst<'_>, flags: u32) -> Result<Received, Errno>;
    /// shutdown(2), `how` as given.
    ///
    /// # Errors
    /// Those of shutdown(2).
    fn shutdown(&self, cx: &OpCx<'_>, how: i32) -> Result<(), Errno>;
    /// getsockname(2).
    ///
    /// # Errors
    /// Those of getsockname(2).
    fn local_address(&self, cx: &OpCx<'_>) -> Result<Vec<u8>, Errno>;
    /// getpeername(2).
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn peer_address(&self, cx: &OpCx<'_>) -> Result<Vec<u8>, Errno>;
    /// getsockopt(2): the value, cut by the caller to the guest's room, `room` bytes.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EINVAL`.
    fn get_option(&self, cx: &OpCx<'_>, level: i32, name: i32, room: usize) -> Result<Vec<u8>, Errno>;
    /// setsockopt(2).
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EINVAL`, `EPERM`.
    fn set_option(&self, cx: &OpCx<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno>;
}

/// An address family, `AF_*`.
pub trait SocketFamily: Send + Sync + Debug {
    /// Makes a socket, socket(2); `ty` without `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT`, `ESOCKTNOSUPPORT`, `EPERM`, `EACCES`, `ENOBUFS`.
    fn socket(&self, cx: &OpCx<'_>, ty: i32, protocol: i32) -> Result<Arc<dyn FileOps>, Errno>;
    /// Makes two that are connected, socketpair(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP` and those of [`Self::socket`].
    fn pair(&self, cx: &OpCx<'_>, ty: i32, protocol: i32) -> Result<[Arc<dyn FileOps>; 2], Errno> {
        let _ = (cx, ty, protocol);
        Err(Errno::EOPNOTSUPP)
    }
}

type Families = Vec<(i32, Arc<dyn SocketFamily>)>;
static FAMILIES: RwLock<Families> = RwLock::new(LockClass::Leaf, Vec::new());

/// Registers an address family; a later registration replaces an earlier one.
pub fn register_family(domain: i32, family: Arc<dyn SocketFamily>) {
    let old = {
        let mut families = FAMILIES.write();
        match families.iter_mut().find(|(known, _)| *known == domain) {
            Some((_, place)) => Some(std::mem::replace(place, family)),
            None => {
                families.push((domain, family));
                None
            }
        }
    };
    drop(old);
}

/// The family of a domain.
///
/// # Errors
/// `EAFNOSUPPORT`.
pub fn family(domain: i32) -> Result<Arc<dyn SocketFamily>, Errno> {
    let families = FAMILIES.read();
    let found = families.iter().find(|(known, _)| *known == domain);
    found.map(|(_, family)| Arc::clone(family)).ok_or(Errno::EAFNOSUPPORT)
}
