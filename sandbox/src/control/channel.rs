//! Messages over a stream socket: four bytes of length, JSON, and descriptors with the first byte.
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys;

/// The longest message.
const MAX_MESSAGE: usize = 32 << 20;
/// The most descriptors with one message.
const MAX_FDS: usize = 128;

/// Why a message did not pass.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side is gone.
    #[error("the other side of the control channel is gone")]
    Closed,
    /// The host refuses.
    #[error("control channel: {0}")]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error("control channel: {0}")]
    Format(#[from] serde_json::Error),
    /// What came, or should be sent, is too long.
    #[error("control channel: a message of {0} bytes")]
    TooLong(usize),
}

/// One end of a stream socket.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Speaks over a stream socket.
    #[must_use]
    pub const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// A pair of ends, closed on exec.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (a, b) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), b))
    }

    /// Another handle on the same end.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] when nobody listens, [`ChannelError::Io`].
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let body = serde_json::to_vec(message)?;
        if body.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
            return Err(ChannelError::TooLong(body.len()));
        }
        let length = u32::try_from(body.len()).map_err(|_wide| ChannelError::TooLong(body.len()))?;
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(body);
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let mut control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let iov = [IoSlice::new(rest)];
            match sendmsg::<()>(self.0.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(n) => {
                    rest = rest.get(n..).unwrap_or_default();
                    control = &[];
                }
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EPIPE | nix::Error::ECONNRESET) => return Err(ChannelError::Closed),
                Err(error) => return Err(ChannelError::Io(error.into())),
            }
        }
        Ok(())
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] at the end of the stream, [`ChannelError::Format`] for one that means nothing.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        let mut fds = Vec::new();
        let mut header = [0; 4];
        self.fill(&mut header, &mut fds)?;
        let length = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(ChannelError::TooLong(length));
        }
        let mut body = vec![0; length];
        self.fill(&mut body, &mut fds)?;
        Ok((serde_json::from_slice(&body)?, fds))
    }

    fn fill(&self, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<(), ChannelError> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
            let mut iov = [IoSliceMut::new(rest)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut space), flags) {
                Ok(message) => {
                    for control in message.cmsgs().map_err(io::Error::from)? {
                        if let ControlMessageOwned::ScmRights(raw) = control {
                            fds.extend(sys::own_received(&raw));
                        }
                    }
                    match message.bytes {
                        0 => return Err(ChannelError::Closed),
                        n => done += n,
                    }
                }
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::ECONNRESET) => return Err(ChannelError::Closed),
                Err(error) => return Err(ChannelError::Io(error.into())),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_messages_and_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let b = Channel::new(b);
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(&vec!["x", "y"], &[file.as_fd(), file.as_fd()]).unwrap();
        a.send(&vec!["z"], &[]).unwrap();
        let (first, fds): (Vec<String>, _) = b.receive().unwrap();
        assert_eq!((first.len(), fds.len()), (2, 2));
        let (second, fds): (Vec<String>, _) = b.receive().unwrap();
        assert_eq!((second, fds.len()), (vec!["z".to_owned()], 0));
        drop(a);
        assert!(matches!(b.receive::<String>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn refuses_what_is_no_message() {
        let (a, b) = Channel::pair().unwrap();
        nix::unistd::write(&b, &[255; 8]).unwrap();
        assert!(matches!(a.receive::<String>(), Err(ChannelError::TooLong(_))));
    }
}
