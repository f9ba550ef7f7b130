//! Messages through sockets: `sendmsg(2)`, `recvmsg(2)`, and their kin.
use std::sync::Arc;

use abi::time::Timespec;
use abi::uio::{Mmsghdr, Msghdr, UIO_MAXIOV};
use abi::{Errno, Signal};
use kernel::signal::{SigInfo, send_to_task};
use memmap::{IoDst, IoSrc, IoVec};
use smallvec::SmallVec;
use sync::PollEvents;
use vfs::{Ancillary, Received, SendArgs};

use crate::Cx;
use crate::blocking::Wait;
use crate::cmsg::{self, CONTROL_MAX, Encoder, MSG_CTRUNC};
use crate::cx::rest;
use crate::decode::{Fd, UserPtr};
use crate::socket::{SO_RCVTIMEO, SO_SNDTIMEO, Socket, no_restart, read_address, write_address};

const MSG_OOB: u32 = 1;
const MSG_PEEK: u32 = 2;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_WAITALL: u32 = 0x100;
const MSG_NOSIGNAL: u32 = 0x4000;
const MSG_WAITFORONE: u32 = 0x1_0000;
const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
/// Set by Linux for 32-bit programs only.
const MSG_CMSG_COMPAT: u32 = 0x8000_0000;
const MSG_ERRQUEUE: u32 = 0x2000;

type Pieces = SmallVec<[IoVec; 4]>;

/// What a call is to send.
struct Outgoing {
    pieces: Pieces,
    address: Option<Vec<u8>>,
    ancillary: Vec<Ancillary>,
}

/// Sends, waiting until a stream has taken everything.
fn send(cx: &mut Cx<'_>, socket: &Socket, out: Outgoing, flags: u32) -> Result<usize, Errno> {
    let mm = Arc::clone(cx.memory()?);
    let wait = socket.wait(cx, flags & MSG_DONTWAIT != 0, SO_SNDTIMEO)?;
    let (ops, stream) = (socket.ops()?, socket.is_stream());
    let mut ancillary = out.ancillary;
    let mut done = 0;
    let result = cx.blocking(socket.file(), PollEvents::WRITABLE, wait, |cx| {
        loop {
            // A socket may have looked at bytes that it then did not take.
            let mut src = IoSrc::user_iovec(&mm, rest(&out.pieces, done));
            let args = SendArgs { address: out.address.as_deref(), ancillary: ancillary.clone(), flags };
            done += ops.send(&socket.op(cx), &mut src, args)?;
            // It goes with the first byte.
            ancillary.clear();
            if !stream || src.remaining() == 0 {
                return Ok(());
            }
        }
    });
    match result {
        Ok(()) => Ok(done),
        Err(_) if done > 0 => Ok(done),
        Err(errno) => {
            if errno == Errno::EPIPE && stream && flags & MSG_NOSIGNAL == 0 {
                // Only a real-time signal could find no room.
                let _never_full =
                    send_to_task(cx, SigInfo::kill(Signal::SIGPIPE, cx.tgid(), cx.credentials().uid));
            }
            Err(no_restart(wait, errno))
        }
    }
}

fn one_piece(buf: u64, len: usize) -> Pieces {
    let len = len.min(abi::uio::MAX_RW_COUNT) as u64;
    SmallVec::from_slice(&[IoVec { addr: buf, len }])
}

/// `sendto(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`, `EAGAIN`, `EPIPE`, `EINTR`, and the family's.
pub fn sendto(
    cx: &mut Cx<'_>,
    fd: Fd,
    buf: u64,
    len: usize,
    flags: u32,
    address: UserPtr<u8>,
    address_len: i32,
) -> Result<usize, Errno> {
    let socket = Socket::of(cx, fd)?;
    let address = address.some().map(|a| read_address(cx, a, address_len)).transpose()?;
    let out = Outgoing { pieces: one_piece(buf, len), address, ancillary: Vec::new() };
    send(cx, &socket, out, flags & !MSG_CMSG_COMPAT)
}

fn send_message(cx: &mut Cx<'_>, socket: &Socket, header: Msghdr, flags: u32) -> Result<usize, Errno> {
    let address = if header.name == 0 || header.namelen == 0 {
        None
    } else {
        // Linux cuts a longer address rather than refusing it.
        Some(read_address(cx, UserPtr::new(header.name), header.namelen.min(128))?)
    };
    let count = usize::try_from(header.iovlen).unwrap_or(usize::MAX);
    if count > UIO_MAXIOV {
        return Err(Errno::EMSGSIZE);
    }
    let pieces = cx.iovec(UserPtr::new(header.iov), count)?;
    let ancillary = if header.control == 0 || header.controllen == 0 {
        Vec::new()
    } else {
        if header.controllen > CONTROL_MAX {
            return Err(Errno::ENOBUFS);
        }
        let mut bytes = vec![0; usize::try_from(header.controllen).unwrap_or(0)];
        cx.memory()?.read_bytes(header.control, &mut bytes)?;
        cmsg::decode(cx, &bytes)?
    };
    send(cx, socket, Outgoing { pieces, address, ancillary }, flags)
}

/// `sendmsg(2)`
///
/// # Errors
/// As [`sendto`], `EMSGSIZE` for too many buffers, `ENOBUFS` for too much ancillary data.
pub fn sendmsg(cx: &mut Cx<'_>, fd: Fd, message: UserPtr<Msghdr>, flags: u32) -> Result<usize, Errno> {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL);
    }
    let socket = Socket::of(cx, fd)?;
    let header = message.read(cx)?;
    send_message(cx, &socket, header, flags)
}

/// `sendmmsg(2)`: gives how many messages were sent.
///
/// # Errors
/// As [`sendmsg`], when none was sent.
pub fn sendmmsg(
    cx: &mut Cx<'_>,
    fd: Fd,
    messages: UserPtr<Mmsghdr>,
    count: u32,
    flags: u32,
) -> Result<usize, Errno> {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL);
    }
    let socket = Socket::of(cx, fd)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(UIO_MAXIOV);
    for i in 0..count {
        let sent = one_of_many(cx, messages, i, |cx, header| send_message(cx, &socket, header, flags));
        match sent {
            Ok(()) => {}
            Err(_) if i > 0 => return Ok(i),
            Err(errno) => return Err(errno),
        }
    }
    Ok(count)
}

fn one_of_many(
    cx: &mut Cx<'_>,
    messages: UserPtr<Mmsghdr>,
    index: usize,
    transfer: impl FnOnce(&mut Cx<'_>, Msghdr) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    let at = messages.at(index)?;
    let header = at.read(cx)?.hdr;
    let len = transfer(cx, header)?;
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    UserPtr::<u32>::new(at.addr() + size_of::<Msghdr>() as u64).write(cx, &len)
}

/// Receives, with `MSG_WAITALL` until a stream has filled the room.
fn receive(
    cx: &mut Cx<'_>,
    socket: &Socket,
    pieces: Pieces,
    flags: u32,
    wait: Wait,
) -> Result<Received, Errno> {
    let mm = Arc::clone(cx.memory()?);
    let mut dst = IoDst::user_iovec(&mm, pieces);
    let ops = socket.ops()?;
    let all = flags & MSG_WAITALL != 0 && flags & (MSG_PEEK | MSG_OOB) == 0 && socket.is_stream();
    let mut got: Option<Received> = None;
    let result = cx.blocking(socket.file(), PollEvents::READABLE | PollEvents::PRI, wait, |cx| {
        loop {
            let mut now = ops.recv(&socket.op(cx), &mut dst, flags)?;
            let ended = now.len == 0 || !all || dst.remaining() == 0;
            match &mut got {
                None => got = Some(now),
                Some(before) => {
                    before.len += now.len;
                    before.ancillary.append(&mut now.ancillary);
                }
            }
            if ended {
                return Ok(());
            }
        }
    });
    match (result, got) {
        (_, Some(received)) => Ok(received),
        (Err(errno), None) => Err(no_restart(wait, errno)),
        // The attempt always leaves something when it succeeds.
        (Ok(()), None) => Err(Errno::EIO),
    }
}

/// `recvfrom(2)`
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`, `EAGAIN`, `EINTR`, and the family's.
pub fn recvfrom(
    cx: &mut Cx<'_>,
    fd: Fd,
    buf: u64,
    len: usize,
    flags: u32,
    address: UserPtr<u8>,
    address_len: UserPtr<i32>,
) -> Result<usize, Errno> {
    let socket = Socket::of(cx, fd)?;
    let wait = socket.wait(cx, flags & (MSG_DONTWAIT | MSG_ERRQUEUE) != 0, SO_RCVTIMEO)?;
    let received = receive(cx, &socket, one_piece(buf, len), flags, wait)?;
    if !address.is_null() {
        write_address(cx, &received.address, address, address_len)?;
    }
    Ok(received.len)
}

/// Offsets in [`Msghdr`] of what receiving stores.
const NAMELEN: u64 = 8;
const CONTROLLEN: u64 = 40;
const FLAGS: u64 = 48;

fn receive_message(
    cx: &mut Cx<'_>,
    socket: &Socket,
    at: UserPtr<Msghdr>,
    header: Msghdr,
    flags: u32,
    wait: Wait,
) -> Result<usize, Errno> {
    let count = usize::try_from(header.iovlen).unwrap_or(usize::MAX);
    if count > UIO_MAXIOV {
        return Err(Errno::EMSGSIZE);
    }
    if header.name != 0 && header.namelen < 0 {
        return Err(Errno::EINVAL);
    }
    let pieces = cx.iovec(UserPtr::new(header.iov), count)?;
    let received = receive(cx, socket, pieces, flags, wait)?;
    if header.name != 0 {
        write_address(cx, &received.address, UserPtr::new(header.name), UserPtr::new(at.addr() + NAMELEN))?;
    }
    let room = if header.control == 0 { 0 } else { usize::try_from(header.controllen).unwrap_or(usize::MAX) };
    let mut control = Encoder::new(room);
    control.encode(cx, received.ancillary, flags & MSG_CMSG_CLOEXEC != 0);
    let mut told = received.flags | flags & MSG_CMSG_CLOEXEC;
    if control.truncated {
        told |= MSG_CTRUNC;
    }
    cx.memory()?.write_bytes(header.control, &control.bytes)?;
    UserPtr::<u32>::new(at.addr() + FLAGS).write(cx, &told)?;
    UserPtr::<u64>::new(at.addr() + CONTROLLEN).write(cx, &(control.bytes.len() as u64))?;
    Ok(received.len)
}

/// `recvmsg(2)`
///
/// # Errors
/// As [`recvfrom`], `EMSGSIZE` for too many buffers.
pub fn recvmsg(cx: &mut Cx<'_>, fd: Fd, message: UserPtr<Msghdr>, flags: u32) -> Result<usize, Errno> {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL);
    }
    let socket = Socket::of(cx, fd)?;
    let header = message.read(cx)?;
    let wait = socket.wait(cx, flags & (MSG_DONTWAIT | MSG_ERRQUEUE) != 0, SO_RCVTIMEO)?;
    receive_message(cx, &socket, message, header, flags, wait)
}

/// `recvmmsg(2)`: gives how many messages were received. The time is looked at after each message.
///
/// # Errors
/// As [`recvmsg`], when none was received.
pub fn recvmmsg(
    cx: &mut Cx<'_>,
    fd: Fd,
    messages: UserPtr<Mmsghdr>,
    count: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
) -> Result<usize, Errno> {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL);
    }
    let span = timeout.read_if_some(cx)?.map(Timespec::to_ns).transpose()?;
    let end = span.map(|span| cx.now_ns().saturating_add(span));
    let socket = Socket::of(cx, fd)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(UIO_MAXIOV);
    let mut done = 0;
    while done < count {
        let never = flags & (MSG_DONTWAIT | MSG_ERRQUEUE) != 0 || flags & MSG_WAITFORONE != 0 && done > 0;
        let wait = socket.wait(cx, never, SO_RCVTIMEO)?;
        let at = messages.at(done)?.cast::<Msghdr>();
        let flags = flags & !MSG_WAITFORONE;
        let received = one_of_many(cx, messages, done, |cx, header| {
            receive_message(cx, &socket, at, header, flags, wait)
        });
        match received {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
        if end.is_some_and(|end| cx.now_ns() >= end) {
            break;
        }
    }
    if let Some(end) = end {
        timeout.write(cx, &Timespec::from_ns(end.saturating_sub(cx.now_ns())))?;
    }
    Ok(done)
}
