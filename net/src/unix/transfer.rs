//! Sending and receiving on local sockets, Linux `unix_stream_sendmsg`, `unix_dgram_sendmsg` and their counterparts.
use std::sync::Arc;

use abi::Errno;
use kernel::File;
use memmap::{IoDst, IoSrc};
use sync::PollEvents;

use super::address::UnixAddress;
use super::in_flight::Rights;
use super::message::{Message, Sender};
use super::socket::{MAX_DATAGRAMS, SocketType, UnixSocket};

/// What one piece of a stream holds at most; a write may make several.
const PIECE: usize = 32 << 10;

/// What is sent along with bytes.
#[derive(Debug, Default)]
pub struct SendArgs {
    /// Where to, for datagrams; the peer without.
    pub to: Option<Arc<UnixSocket>>,
    /// `SCM_RIGHTS`.
    pub rights: Vec<Arc<dyn File>>,
    /// `SCM_CREDENTIALS`, or who the sender is.
    pub sender: Sender,
}

/// How to receive.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiveArgs {
    /// `MSG_PEEK`.
    pub peek: bool,
    /// Whether ancillary data is wanted at all; without, descriptors that come along are closed.
    pub ancillary: bool,
}

/// What was received.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes stored.
    pub len: usize,
    /// The size of the whole datagram; `len` for streams.
    pub full_len: usize,
    /// Who sent.
    pub from: UnixAddress,
    /// `SCM_RIGHTS`.
    pub rights: Vec<Arc<dyn File>>,
    /// `SCM_CREDENTIALS`.
    pub sender: Option<Sender>,
    /// The end of the stream, or a datagram socket that was shut down.
    pub end: bool,
}

impl UnixSocket {
    /// Sends what `src` holds: a stream as much as there is room for, a datagram all or nothing.
    ///
    /// # Errors
    /// `EPIPE` (the caller adds `SIGPIPE`), `ENOTCONN`, `ECONNREFUSED`, `EMSGSIZE`, `EPERM` where the receiver listens to
    /// somebody else, `EISCONN`, `EAGAIN` where there is no room, `EFAULT`.
    pub fn send(self: &Arc<Self>, src: &mut IoSrc<'_>, args: SendArgs) -> Result<usize, Errno> {
        let (connected, send_shut, from, error) = {
            let mut state = self.state.lock();
            (state.connected, state.send_shut, state.address.clone(), state.error.take())
        };
        if let Some(error) = error {
            return Err(error);
        }
        let to = match (&args.to, self.socket_type().is_connected()) {
            (Some(_), true) => return Err(if connected { Errno::EISCONN } else { Errno::EOPNOTSUPP }),
            (Some(to), false) => Some(Arc::clone(to)),
            (None, _) => self.peer(),
        };
        if !connected && args.to.is_none() {
            return Err(Errno::ENOTCONN);
        }
        if send_shut {
            return Err(Errno::EPIPE);
        }
        let gone = if self.socket_type().is_connected() { Errno::EPIPE } else { Errno::ECONNREFUSED };
        let to = to.ok_or(gone)?;
        if to.socket_type() != self.socket_type() {
            return Err(Errno::EPROTOTYPE);
        }
        match self.socket_type() {
            SocketType::Stream => self.send_stream(&to, src, args, &from),
            SocketType::Datagram | SocketType::SeqPacket => self.send_datagram(&to, src, args, from),
        }
    }

    /// Room at the receiver for this sender's bytes.
    fn room_at(self: &Arc<Self>, to: &Self, limit: usize) -> Result<usize, Errno> {
        let mut state = to.state.lock();
        if state.receive_shut {
            return Err(Errno::EPIPE);
        }
        let room = limit.saturating_sub(state.queue.charged());
        let full = room == 0 || !self.socket_type().is_connected() && state.queue.len() >= MAX_DATAGRAMS;
        if !full {
            return Ok(room);
        }
        let me = Arc::downgrade(self);
        if !state.senders.iter().any(|s| s.ptr_eq(&me)) {
            state.senders.retain(|s| s.strong_count() > 0);
            state.senders.push(me);
        }
        Err(Errno::EAGAIN)
    }

    fn send_stream(
        self: &Arc<Self>,
        to: &Arc<Self>,
        src: &mut IoSrc<'_>,
        mut args: SendArgs,
        from: &UnixAddress,
    ) -> Result<usize, Errno> {
        let limit = self.send_buffer();
        let mut sent = 0;
        while src.remaining() > 0 {
            let room = match self.room_at(to, limit) {
                Ok(room) => room,
                Err(_) if sent > 0 => break,
                Err(error) => return Err(error),
            };
            let mut bytes = vec![0; src.remaining().min(room).min(PIECE)];
            let read = match src.read(&mut bytes) {
                Ok(read) => read,
                Err(_) if sent > 0 => break,
                Err(error) => return Err(error),
            };
            bytes.truncate(read);
            let rights = Rights::new(std::mem::take(&mut args.rights));
            let message = Message { bytes, read: 0, rights, sender: args.sender, from: from.clone() };
            to.deliver(message);
            sent += read;
            if read == 0 {
                break;
            }
        }
        Ok(sent)
    }

    fn send_datagram(
        self: &Arc<Self>,
        to: &Arc<Self>,
        src: &mut IoSrc<'_>,
        args: SendArgs,
        from: UnixAddress,
    ) -> Result<usize, Errno> {
        let limit = self.send_buffer();
        let len = src.remaining();
        if len > limit.saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        if !self.socket_type().is_connected() {
            let state = to.state.lock();
            if state.connected && !std::ptr::eq(state.peer.as_ptr(), Arc::as_ptr(self)) {
                return Err(Errno::EPERM);
            }
        }
        self.room_at(to, limit)?;
        let mut bytes = vec![0; len];
        if src.read(&mut bytes)? < len {
            return Err(Errno::EFAULT);
        }
        let rights = Rights::new(args.rights);
        to.deliver(Message { bytes, read: 0, rights, sender: args.sender, from });
        Ok(len)
    }

    fn deliver(&self, message: Message) {
        self.state.lock().queue.push(message);
        self.events.notify(PollEvents::READABLE);
    }

    /// Receives into `dst`: one datagram, or of a stream as much as there is up to the next descriptors or, where
    /// credentials are passed, the next sender.
    ///
    /// # Errors
    /// `EAGAIN` where nothing is there, `ENOTCONN`, `EINVAL` for a listening or unconnected stream, `ECONNRESET`, `EFAULT`.
    pub fn receive(&self, dst: &mut IoDst<'_>, args: ReceiveArgs) -> Result<Received, Errno> {
        if self.socket_type() == SocketType::Stream {
            self.receive_stream(dst, args)
        } else {
            self.receive_datagram(dst, args)
        }
    }

    /// Why there is nothing to receive.
    fn nothing(&self) -> Result<Received, Errno> {
        let mut state = self.state.lock();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        let connected = self.socket_type().is_connected();
        if connected && !state.connected {
            let stream = self.socket_type() == SocketType::Stream;
            return Err(if stream { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        if state.receive_shut || connected && state.peer.strong_count() == 0 {
            return Ok(Received { end: true, ..Received::default() });
        }
        Err(Errno::EAGAIN)
    }

    fn receive_datagram(&self, dst: &mut IoDst<'_>, args: ReceiveArgs) -> Result<Received, Errno> {
        let (taken, pass) = {
            let mut state = self.state.lock();
            let taken = match (args.peek, state.queue.front()) {
                (true, Some(front)) => Some(copy_of(front, 0)),
                (true, None) => None,
                (false, _) => state.queue.pop().map(|message| (message, Vec::new())),
            };
            (taken, state.pass_credentials)
        };
        let Some((mut message, mut rights)) = taken else { return self.nothing() };
        if !args.peek {
            rights = message.rights.take();
            self.tell_senders();
        }
        let full_len = message.bytes.len();
        let wanted = full_len.min(dst.remaining());
        let len = dst.write(message.bytes.get(..wanted).unwrap_or_default())?;
        if len < wanted {
            return Err(Errno::EFAULT);
        }
        Ok(Received {
            len,
            full_len,
            from: message.from,
            rights: if args.ancillary { rights } else { Vec::new() },
            sender: pass.then_some(message.sender),
            end: false,
        })
    }

    fn receive_stream(&self, dst: &mut IoDst<'_>, args: ReceiveArgs) -> Result<Received, Errno> {
        let mut out = Received::default();
        let mut at = 0;
        loop {
            let (taken, pass) = {
                let mut state = self.state.lock();
                let pass = state.pass_credentials;
                let next = if args.peek { state.queue.get(at) } else { state.queue.front() };
                let same = next.is_some_and(|m| {
                    out.len == 0 || m.rights.is_empty() && (!pass || out.sender == Some(m.sender))
                });
                let taken = match (same, args.peek) {
                    (false, _) => None,
                    (true, true) => next.map(|m| copy_of(m, m.read)),
                    (true, false) => state.queue.pop().map(|message| (message, Vec::new())),
                };
                (taken, pass)
            };
            let Some((mut message, peeked)) = taken else { break };
            at += 1;
            let left = message.bytes.get(message.read..).unwrap_or_default();
            let wanted = left.len().min(dst.remaining());
            let copied = dst.write(left.get(..wanted).unwrap_or_default());
            let n = *copied.as_ref().unwrap_or(&0);
            message.read += n;
            if n > 0 || wanted == 0 {
                let rights = if args.peek { peeked } else { message.rights.take() };
                out.rights.extend(rights.into_iter().filter(|_| args.ancillary));
                out.sender = pass.then_some(message.sender);
                out.from = message.from.clone();
            }
            out.len += n;
            let rest = message.len();
            if rest > 0 && !args.peek {
                self.state.lock().queue.put_back(message);
            }
            if let Err(error) = copied
                && out.len == 0
            {
                return Err(error);
            }
            if n < wanted || rest > 0 || dst.remaining() == 0 || !out.rights.is_empty() {
                break;
            }
        }
        if at == 0 {
            return self.nothing();
        }
        out.full_len = out.len;
        if !args.peek {
            self.tell_senders();
        }
        Ok(out)
    }

    /// Tells those who found no room that there is some.
    pub(super) fn tell_senders(&self) {
        let (senders, peer) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.senders), state.peer.clone())
        };
        let waiting = senders.iter().chain(self.socket_type().is_connected().then_some(&peer));
        for sender in waiting.filter_map(std::sync::Weak::upgrade) {
            sender.events.notify(PollEvents::WRITABLE);
        }
    }
}

/// A copy of a message for who peeks, and of its descriptors, which are not under way twice.
fn copy_of(message: &Message, from: usize) -> (Message, Vec<Arc<dyn File>>) {
    let copy = Message {
        bytes: message.bytes.get(from..).unwrap_or_default().to_vec(),
        read: 0,
        rights: Rights::default(),
        sender: message.sender,
        from: message.from.clone(),
    };
    (copy, message.rights.files().to_vec())
}
