//! What client and server share about the host: errors, taking turns, sockets.

use abi::Errno;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::thread::{self, Thread};
use std::time::Duration;

use nix::sys::socket::{self, ControlMessage, MsgFlags, SockType, sockopt};
use nix::sys::time::TimeVal;
use sync::{LockClass, Mutex};

use crate::proto::{HEADER, frame_len};

/// recvmsg(2) with `MSG_CMSG_CLOEXEC`, once: fills the buffer's front and appends the descriptors that came along.
///
/// There should be room for 253 descriptors, as many as Linux lets one message have; those that are not wanted are closed.
/// Where the process may have no more descriptors, the bytes count without them.
///
/// It is given from outside because owning a received descriptor takes `unsafe`, which this crate does without. Its
/// errors are those of recvmsg(2).
pub type ReceiveFds = fn(BorrowedFd<'_>, &mut [u8], &mut Vec<OwnedFd>) -> Result<usize, Errno>;

/// Our type of the host's error.
pub(crate) fn errno(error: nix::Error) -> Errno {
    Errno::from_raw(error as i32).unwrap_or(Errno::EIO)
}

/// CLOCK_MONOTONIC in nanoseconds.
#[cfg(feature = "vfs")]
pub(crate) fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // The clock is always there, and starts at 0.
    let parts = now.map_or((0, 0), |now| (now.tv_sec(), now.tv_nsec()));
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    unsigned(parts.0).saturating_mul(1_000_000_000).saturating_add(unsigned(parts.1))
}

/// Repeats a host call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => {}
            other => return other.map_err(errno),
        }
    }
}

/// Lets one thread at a time do I/O on a stream, without a lock being held meanwhile.
#[derive(Debug)]
pub(crate) struct Turn(Mutex<TurnState>);

#[derive(Debug, Default)]
struct TurnState {
    taken: bool,
    waiting: Vec<Thread>,
}

/// The turn; the next thread gets it when this is dropped.
#[derive(Debug)]
pub(crate) struct TurnGuard<'a>(&'a Turn);

impl Turn {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LockClass::Client, TurnState::default()))
    }
    pub(crate) fn take(&self) -> TurnGuard<'_> {
        loop {
            {
                let mut state = self.0.lock();
                if !state.taken {
                    state.taken = true;
                    return TurnGuard(self);
                }
                state.waiting.push(thread::current());
            }
            thread::park();
        }
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.0.lock();
            state.taken = false;
            std::mem::take(&mut state.waiting)
        };
        // All of them: whoever comes too late puts itself on the list again.
        waiting.iter().for_each(Thread::unpark);
    }
}

/// A socket that carries messages: one a packet, or framed in a stream.
pub(crate) struct Socket {
    fd: OwnedFd,
    packets: bool,
    sending: Turn,
    receive: Option<ReceiveFds>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({}, packets: {})", self.fd.as_raw_fd(), self.packets)
    }
}

/// A message that is being received.
#[derive(Debug)]
pub(crate) struct Frame {
    buf: Vec<u8>,
    have: usize,
}

impl Frame {
    /// Room for messages of up to `msize` bytes.
    pub(crate) fn new(msize: u32) -> Self {
        Self { buf: vec![0; usize::try_from(msize).unwrap_or(usize::MAX)], have: 0 }
    }
    /// The bytes that [`Socket::receive`] received.
    pub(crate) fn message(&self, len: usize) -> &[u8] {
        self.buf.get(..len).unwrap_or_default()
    }
}

impl Socket {
    /// `deadline` bounds each single wait for the peer.
    pub(crate) fn new(
        fd: OwnedFd,
        receive: Option<ReceiveFds>,
        deadline: Option<Duration>,
    ) -> Result<Self, Errno> {
        let kind = socket::getsockopt(&fd, sockopt::SockType).map_err(errno)?;
        if let Some(limit) = deadline {
            let limit = TimeVal::new(
                i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
                i64::from(limit.subsec_micros()),
            );
            socket::setsockopt(&fd, sockopt::ReceiveTimeout, &limit).map_err(errno)?;
            socket::setsockopt(&fd, sockopt::SendTimeout, &limit).map_err(errno)?;
        }
        Ok(Self { fd, packets: kind == SockType::SeqPacket, sending: Turn::new(), receive })
    }

    #[cfg(feature = "server")]
    /// Tells whether each message is a packet, so that threads may send and receive at the same time.
    pub(crate) const fn packets(&self) -> bool {
        self.packets
    }

    /// Ends the connection for both sides; every thread in [`Self::receive`] returns.
    pub(crate) fn shut_down(&self) {
        // A peer that is gone already is what was wanted.
        socket::shutdown(self.fd.as_raw_fd(), socket::Shutdown::Both).ok();
    }

    /// Sends a whole message, the descriptors with its first byte.
    pub(crate) fn send(&self, message: &[u8], fds: &[RawFd]) -> Result<(), Errno> {
        if self.packets {
            return self.send_some(message, fds).map(drop);
        }
        let turn = self.sending.take();
        let (mut rest, mut fds) = (message, fds);
        while !rest.is_empty() {
            let sent = self.send_some(rest, fds)?;
            rest = rest.get(sent..).unwrap_or_default();
            fds = &[];
        }
        drop(turn);
        Ok(())
    }

    fn send_some(&self, bytes: &[u8], fds: &[RawFd]) -> Result<usize, Errno> {
        let iov = [std::io::IoSlice::new(bytes)];
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[] } else { &rights[..] };
        retry(|| socket::sendmsg::<()>(self.fd.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None))
    }

    /// Receives one message: its length, 0 at the end of the connection. In a stream only one thread may do so.
    ///
    /// # Errors
    /// `EAGAIN` when the deadline passed, with what has come so far kept in `frame`; `EPROTO` for a size that no message
    /// of this connection has; those of recvmsg(2).
    pub(crate) fn receive(&self, frame: &mut Frame, fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
        if self.packets {
            return self.receive_some(&mut frame.buf, fds);
        }
        loop {
            let want = match frame_len(frame.message(frame.have)) {
                None => HEADER,
                Some(len) => usize::try_from(len).unwrap_or(usize::MAX),
            };
            if want < HEADER || want > frame.buf.len() {
                return Err(Errno::EPROTO);
            }
            if frame.have >= want {
                frame.have = 0;
                return Ok(want);
            }
            let room = frame.buf.get_mut(frame.have..want).ok_or(Errno::EPROTO)?;
            match self.receive_some(room, fds)? {
                0 if frame.have == 0 => return Ok(0),
                0 => return Err(Errno::EPROTO),
                got => frame.have += got,
            }
        }
    }

    fn receive_some(&self, room: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
        let got = match self.receive {
            None => retry(|| socket::recv(self.fd.as_raw_fd(), room, MsgFlags::empty()))?,
            Some(receive) => loop {
                match receive(self.fd.as_fd(), room, fds) {
                    Err(Errno::EINTR) => {}
                    other => break other?,
                }
            },
        };
        Ok(got.min(room.len()))
    }
}
