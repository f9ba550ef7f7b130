//! Sockets but for messages: `socket(2)`, `bind(2)`, `connect(2)`, `accept(2)`, `getsockopt(2)`, and their kin.
use std::sync::Arc;

use abi::Errno;
use abi::fs::{O_CLOEXEC, O_NONBLOCK, O_PATH, O_RDWR};
use abi::time::Timeval;
use kernel::{Credentials, File, Task};
use sync::PollEvents;
use vfs::socket::family;
use vfs::{FileDescription, OpCx, SocketOps, new_socket_file};
use zerocopy::FromBytes;

use crate::Cx;
use crate::blocking::Wait;
use crate::decode::{Fd, UserPtr};
use crate::observe;

/// The longest socket address, `struct sockaddr_storage`.
const ADDRESS_MAX: usize = 128;
/// The types below this are known, Linux `SOCK_MAX`.
const SOCK_MAX: u32 = 11;
/// The families below this are known, Linux `AF_MAX`.
const AF_MAX: i32 = 46;
/// `SOL_SOCKET`.
pub(crate) const SOL_SOCKET: i32 = 1;
/// `SO_RCVTIMEO`.
pub(crate) const SO_RCVTIMEO: i32 = 20;
/// `SO_SNDTIMEO`.
pub(crate) const SO_SNDTIMEO: i32 = 21;
/// The longest value of an option that is read.
const OPTION_MAX: i32 = 1 << 16;

/// An open socket.
pub(crate) struct Socket {
    file: Arc<dyn File>,
    creds: Arc<Credentials>,
}

impl Socket {
    /// The socket behind a descriptor.
    ///
    /// # Errors
    /// `EBADF`, `ENOTSOCK`.
    pub(crate) fn of(cx: &Cx<'_>, fd: Fd) -> Result<Self, Errno> {
        let file = cx.file(fd)?;
        if file.status_flags() & O_PATH != 0 {
            return Err(Errno::EBADF);
        }
        let socket = Self { file, creds: cx.credentials() };
        socket.ops()?;
        Ok(socket)
    }

    pub(crate) fn ops(&self) -> Result<&dyn SocketOps, Errno> {
        FileDescription::from_file(&self.file).and_then(|d| d.ops().socket()).ok_or(Errno::ENOTSOCK)
    }

    /// The open file.
    pub(crate) const fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// In whose name the socket is called.
    pub(crate) fn op<'a>(&'a self, task: &'a Task) -> OpCx<'a> {
        let mut op = OpCx::of_task(task, &self.creds);
        op.flags = self.file.status_flags();
        op
    }

    /// Tells a stream from messages.
    pub(crate) fn is_stream(&self) -> bool {
        self.ops().is_ok_and(|ops| ops.kind().1 == 1)
    }

    /// How long a call waits: not at all, for the time of `option`, or for ever.
    pub(crate) fn wait(&self, cx: &Cx<'_>, never: bool, option: i32) -> Result<Wait, Errno> {
        if never || self.file.status_flags() & O_NONBLOCK != 0 {
            return Ok(Wait::Never);
        }
        let value = self.ops()?.get_option(&self.op(cx), SOL_SOCKET, option, size_of::<Timeval>());
        let span = value.ok().and_then(|v| Timeval::read_from_bytes(&v).ok()).and_then(|t| t.to_ns().ok());
        Ok(match span {
            Some(ns) if ns > 0 => Wait::Until(cx.now_ns().saturating_add(ns)),
            _ => Wait::Forever,
        })
    }
}

/// A wait with an end is not started again after a signal, signal(7).
pub(crate) fn no_restart(wait: Wait, errno: Errno) -> Errno {
    match (wait, errno) {
        (Wait::Until(_), Errno::ERESTARTSYS) => Errno::EINTR,
        (_, errno) => errno,
    }
}

/// Splits a type into itself, status flags and whether execve(2) closes.
fn kind(ty: u32) -> Result<(i32, u32, bool), Errno> {
    let flags = ty & !0xf;
    if flags & !(O_NONBLOCK | O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(((ty & 0xf).cast_signed(), flags & O_NONBLOCK, flags & O_CLOEXEC != 0))
}

fn check_kind(domain: i32, ty: i32) -> Result<(), Errno> {
    if !(0..AF_MAX).contains(&domain) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if ty.cast_unsigned() >= SOCK_MAX { Err(Errno::EINVAL) } else { Ok(()) }
}

/// `socket(2)`
///
/// # Errors
/// `EINVAL`, `EAFNOSUPPORT`, `EPROTONOSUPPORT`, `ESOCKTNOSUPPORT`, `EPERM`, `EMFILE`.
pub fn socket(cx: &mut Cx<'_>, domain: i32, ty: u32, protocol: i32) -> Result<usize, Errno> {
    let (ty, status, cloexec) = kind(ty)?;
    check_kind(domain, ty)?;
    let creds = cx.credentials();
    let op = OpCx::of_task(cx, &creds);
    let family = family(domain).map_err(|e| cx.unsupported("socket: an address family", e))?;
    let ops = family.socket(&op, ty, protocol)?;
    cx.install(new_socket_file(&op, ops, O_RDWR | status), cloexec)
}

/// `socketpair(2)`
///
/// # Errors
/// As [`socket`], `EOPNOTSUPP`, `EFAULT`.
pub fn socketpair(
    cx: &mut Cx<'_>,
    domain: i32,
    ty: u32,
    protocol: i32,
    fds: UserPtr<[i32; 2]>,
) -> Result<usize, Errno> {
    let (ty, status, cloexec) = kind(ty)?;
    check_kind(domain, ty)?;
    let creds = cx.credentials();
    let op = OpCx::of_task(cx, &creds);
    let pair = family(domain)?.pair(&op, ty, protocol)?;
    let files = pair.map(|ops| new_socket_file(&op, ops, O_RDWR | status));
    crate::pipe::install_pair(cx, files, cloexec, fds)
}

/// Copies a socket address in.
///
/// # Errors
/// `EINVAL` for a bad length, `EFAULT`.
pub(crate) fn read_address(cx: &Cx<'_>, address: UserPtr<u8>, len: i32) -> Result<Vec<u8>, Errno> {
    let len = usize::try_from(len).ok().filter(|len| *len <= ADDRESS_MAX).ok_or(Errno::EINVAL)?;
    let mut bytes = vec![0; len];
    cx.memory()?.read_bytes(address.addr(), &mut bytes)?;
    Ok(bytes)
}

/// Copies a socket address out, cut to the room there is, and stores its full length.
///
/// # Errors
/// `EINVAL` for a negative room, `EFAULT`.
pub(crate) fn write_address(
    cx: &Cx<'_>,
    bytes: &[u8],
    address: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<(), Errno> {
    let room = usize::try_from(len.read(cx)?).map_err(|_negative| Errno::EINVAL)?;
    cx.memory()?.write_bytes(address.addr(), bytes.get(..room).unwrap_or(bytes))?;
    len.write(cx, &i32::try_from(bytes.len()).map_err(|_wide| Errno::EINVAL)?)
}

/// `bind(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`, and the family's.
pub fn bind(cx: &mut Cx<'_>, fd: Fd, address: UserPtr<u8>, len: i32) -> Result<usize, Errno> {
    let socket = Socket::of(cx, fd)?;
    let address = read_address(cx, address, len)?;
    socket.ops()?.bind(&socket.op(cx), &address).map(|()| 0)
}

/// `listen(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EOPNOTSUPP`, and the family's.
pub fn listen(cx: &mut Cx<'_>, fd: Fd, backlog: i32) -> Result<usize, Errno> {
    let socket = Socket::of(cx, fd)?;
    // Linux net.core.somaxconn.
    let backlog = i32::try_from(backlog.cast_unsigned().min(4096)).unwrap_or(4096);
    socket.ops()?.listen(&socket.op(cx), backlog)?;
    if let Ok(address) = socket.ops()?.local_address(&socket.op(cx)) {
        observe::listening(cx, &address);
    }
    Ok(0)
}

/// `connect(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`, `EINPROGRESS`, `EINTR`, and the family's.
pub fn connect(cx: &mut Cx<'_>, fd: Fd, address: UserPtr<u8>, len: i32) -> Result<usize, Errno> {
    let socket = Socket::of(cx, fd)?;
    let address = read_address(cx, address, len)?;
    let wait = socket.wait(cx, false, SO_SNDTIMEO)?;
    let ops = socket.ops()?;
    let first =
        cx.blocking(socket.file(), PollEvents::WRITABLE, wait, |cx| ops.connect(&socket.op(cx), &address));
    let result = match first {
        Err(Errno::EINPROGRESS) if wait != Wait::Never => {
            let done = cx
                .blocking(socket.file(), PollEvents::WRITABLE, wait, |cx| ops.finish_connect(&socket.op(cx)));
            // The time is up, yet the connect goes on.
            done.map_err(|e| if e == Errno::EAGAIN { Errno::EINPROGRESS } else { e })
        }
        result => result,
    };
    let result = result.map(|()| 0).map_err(|errno| no_restart(wait, errno));
    observe::connected(cx, &address, &result);
    result
}

/// `accept(2)`
///
/// # Errors
/// As [`accept4`].
pub fn accept(cx: &mut Cx<'_>, fd: Fd, address: UserPtr<u8>, len: UserPtr<i32>) -> Result<usize, Errno> {
    accept4(cx, fd, address, len, 0)
}

/// `accept4(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EAGAIN`, `EMFILE`, `EINTR`, `EFAULT`, and the family's.
pub fn accept4(
    cx: &mut Cx<'_>,
    fd: Fd,
    address: UserPtr<u8>,
    len: UserPtr<i32>,
    flags: u32,
) -> Result<usize, Errno> {
    if flags & !(O_NONBLOCK | O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let socket = Socket::of(cx, fd)?;
    let wait = socket.wait(cx, false, SO_RCVTIMEO)?;
    let ops = socket.ops()?;
    let accepted = cx.blocking(socket.file(), PollEvents::READABLE, wait, |cx| ops.accept(&socket.op(cx)));
    let (new, peer) = accepted.map_err(|errno| no_restart(wait, errno))?;
    let file = new_socket_file(&socket.op(cx), new, O_RDWR | flags & O_NONBLOCK);
    if !address.is_null() {
        write_address(cx, &peer, address, len)?;
    }
    cx.install(file, flags & O_CLOEXEC != 0)
}

/// `shutdown(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `ENOTCONN`.
pub fn shutdown(cx: &mut Cx<'_>, fd: Fd, how: i32) -> Result<usize, Errno> {
    let socket = Socket::of(cx, fd)?;
    if !(0..=2).contains(&how) {
        return Err(Errno::EINVAL);
    }
    socket.ops()?.shutdown(&socket.op(cx), how).map(|()| 0)
}

/// `getsockname(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`.
pub fn getsockname(cx: &mut Cx<'_>, fd: Fd, address: UserPtr<u8>, len: UserPtr<i32>) -> Result<usize, Errno> {
    let socket = Socket::of(cx, fd)?;
    let bytes = socket.ops()?.local_address(&socket.op(cx))?;
    write_address(cx, &bytes, address, len)?;
    Ok(0)
}

/// `getpeername(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `ENOTCONN`, `EINVAL`, `EFAULT`.
pub fn getpeername(cx: &mut Cx<'_>, fd: Fd, address: UserPtr<u8>, len: UserPtr<i32>) -> Result<usize, Errno> {
    let socket = Socket::of(cx, fd)?;
    let bytes = socket.ops()?.peer_address(&socket.op(cx))?;
    write_address(cx, &bytes, address, len)?;
    Ok(0)
}

/// `setsockopt(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`, `ENOPROTOOPT`, `EPERM`.
pub fn setsockopt(
    cx: &mut Cx<'_>,
    fd: Fd,
    level: i32,
    name: i32,
    value: UserPtr<u8>,
    len: i32,
) -> Result<usize, Errno> {
    let socket = Socket::of(cx, fd)?;
    let len = usize::try_from(len).ok().filter(|_| len <= OPTION_MAX).ok_or(Errno::EINVAL)?;
    let mut bytes = vec![0; len];
    cx.memory()?.read_bytes(value.addr(), &mut bytes)?;
    socket.ops()?.set_option(&socket.op(cx), level, name, &bytes).map(|()| 0)
}

/// `getsockopt(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`, `ENOPROTOOPT`.
pub fn getsockopt(
    cx: &mut Cx<'_>,
    fd: Fd,
    level: i32,
    name: i32,
    value: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<usize, Errno> {
    let socket = Socket::of(cx, fd)?;
    let room = usize::try_from(len.read(cx)?).map_err(|_negative| Errno::EINVAL)?;
    let bytes = socket.ops()?.get_option(&socket.op(cx), level, name, room)?;
    let bytes = bytes.get(..room).unwrap_or(&bytes);
    cx.memory()?.write_bytes(value.addr(), bytes)?;
    len.write(cx, &i32::try_from(bytes.len()).map_err(|_wide| Errno::EINVAL)?)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_carry_flags() {
        assert_eq!(kind(1 | O_NONBLOCK | O_CLOEXEC), Ok((1, O_NONBLOCK, true)));
        assert_eq!(kind(2), Ok((2, 0, false)));
        assert_eq!(kind(1 | 0x10), Err(Errno::EINVAL));
        assert_eq!(check_kind(46, 1), Err(Errno::EAFNOSUPPORT));
        assert_eq!(check_kind(1, 11), Err(Errno::EINVAL));
    }
}
