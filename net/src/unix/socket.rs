//! A local socket, unix(7), Linux `net/unix/af_unix.c`.
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use abi::Errno;
use kernel::File;
use sync::{LockClass, Mutex, PollEvents, WaitQueue};

use super::address::UnixAddress;
use super::message::{Message, ReceiveQueue, Sender};

/// What a receiver's unread messages may take, Linux `net.core.wmem_default`.
pub(super) const DEFAULT_BUFFER: usize = 212_992;
/// `net.unix.max_dgram_qlen`.
pub(super) const MAX_DATAGRAMS: usize = 10;
/// `net.core.somaxconn`.
const MAX_BACKLOG: usize = 4096;

/// `SOCK_*` of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketType {
    /// `SOCK_STREAM`.
    Stream,
    /// `SOCK_DGRAM`.
    Datagram,
    /// `SOCK_SEQPACKET`.
    SeqPacket,
}

impl SocketType {
    /// Tells whether sockets are connected to one peer.
    #[must_use]
    pub const fn is_connected(self) -> bool {
        !matches!(self, Self::Datagram)
    }
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own, as in unix(7)")]
pub(super) struct State {
    pub queue: ReceiveQueue,
    pub address: UnixAddress,
    pub peer: Weak<UnixSocket>,
    /// Was connected once, by connect(2), accept(2) or socketpair(2).
    pub connected: bool,
    /// Nobody will send here any more.
    pub receive_shut: bool,
    /// Nothing may be sent from here any more.
    pub send_shut: bool,
    /// How many connections may wait for accept(2), once listening.
    pub backlog: Option<usize>,
    pub pending: VecDeque<Arc<UnixSocket>>,
    /// Who made the socket listen or connected it, for `SO_PEERCRED` of the other end.
    pub owner: Sender,
    /// The owner of the other end as it was when connected.
    pub peer_owner: Option<Sender>,
    pub error: Option<Errno>,
    pub pass_credentials: bool,
    pub send_buffer: usize,
    /// Who found this socket's queue full.
    pub senders: Vec<Weak<UnixSocket>>,
}

/// A local socket.
#[derive(Debug)]
pub struct UnixSocket {
    ty: SocketType,
    pub(super) state: Mutex<State>,
    pub(super) events: WaitQueue,
}

impl UnixSocket {
    /// A socket that is neither bound nor connected.
    #[must_use]
    pub fn new(ty: SocketType, owner: Sender) -> Arc<Self> {
        let state = State { owner, send_buffer: DEFAULT_BUFFER, ..State::default() };
        Arc::new(Self { ty, state: Mutex::new(LockClass::Socket, state), events: WaitQueue::new() })
    }

    /// socketpair(2).
    #[must_use]
    pub fn pair(ty: SocketType, owner: Sender) -> [Arc<Self>; 2] {
        let (a, b) = (Self::new(ty, owner), Self::new(ty, owner));
        for (one, other) in [(&a, &b), (&b, &a)] {
            let mut state = one.state.lock();
            state.peer = Arc::downgrade(other);
            (state.connected, state.peer_owner) = (true, Some(owner));
        }
        [a, b]
    }

    /// The type.
    #[must_use]
    pub const fn socket_type(&self) -> SocketType {
        self.ty
    }

    /// Is notified when [`Self::poll`] changes.
    #[must_use]
    pub const fn events(&self) -> &WaitQueue {
        &self.events
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> UnixAddress {
        self.state.lock().address.clone()
    }

    /// Gives the socket a name; the caller has reserved that name.
    ///
    /// # Errors
    /// `EINVAL` where it has one.
    pub fn set_address(&self, address: UnixAddress) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.address != UnixAddress::Unnamed {
            return Err(Errno::EINVAL);
        }
        state.address = address;
        Ok(())
    }

    /// listen(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP` for datagrams, `EINVAL` where it is not bound or is connected.
    pub fn listen(&self, backlog: i32, owner: Sender) -> Result<(), Errno> {
        if !self.ty.is_connected() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if state.address == UnixAddress::Unnamed || state.connected {
            return Err(Errno::EINVAL);
        }
        let backlog = usize::try_from(backlog).unwrap_or(MAX_BACKLOG).min(MAX_BACKLOG);
        state.backlog = Some(backlog);
        state.owner = owner;
        drop(state);
        self.events.notify(PollEvents::WRITABLE);
        Ok(())
    }

    /// Whether it is connected: by connect(2), accept(2) or socketpair(2).
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state.lock().connected
    }

    /// Whether it listens.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.state.lock().backlog.is_some()
    }

    /// connect(2) to a socket; for datagrams, `None` dissolves an association.
    ///
    /// # Errors
    /// `EPROTOTYPE` for another type, `ECONNREFUSED` where nobody listens, `EISCONN`, `EINVAL` where this socket listens,
    /// `EAGAIN` where the backlog is full: the target's [`Self::events`] tell of room.
    pub fn connect(self: &Arc<Self>, target: Option<&Arc<Self>>, owner: Sender) -> Result<(), Errno> {
        let Some(target) = target else {
            let mut state = self.state.lock();
            (state.peer, state.connected) = (Weak::new(), false);
            return Ok(());
        };
        if target.ty != self.ty {
            return Err(Errno::EPROTOTYPE);
        }
        if !self.ty.is_connected() {
            let theirs = {
                let state = target.state.lock();
                state.connected.then(|| state.peer.clone())
            };
            // A datagram socket that is connected takes messages of its peer only.
            if theirs.is_some_and(|p| !std::ptr::eq(p.as_ptr(), Arc::as_ptr(self))) {
                return Err(Errno::EPERM);
            }
            let mut state = self.state.lock();
            (state.peer, state.connected) = (Arc::downgrade(target), true);
            return Ok(());
        }
        self.connect_to_listener(target, owner)
    }

    fn connect_to_listener(self: &Arc<Self>, target: &Arc<Self>, owner: Sender) -> Result<(), Errno> {
        {
            let mut state = self.state.lock();
            if state.backlog.is_some() {
                return Err(Errno::EINVAL);
            }
            if state.connected {
                return Err(Errno::EISCONN);
            }
            state.owner = owner;
        }
        let accepted = Self::new(self.ty, owner);
        let peer_owner = {
            let mut listener = target.state.lock();
            let backlog = listener.backlog.ok_or(Errno::ECONNREFUSED)?;
            if listener.receive_shut {
                return Err(Errno::ECONNREFUSED);
            }
            if listener.pending.len() > backlog {
                // accept(2) tells of room by the connecting socket's own events.
                let me = Arc::downgrade(self);
                if !listener.senders.iter().any(|s| s.ptr_eq(&me)) {
                    listener.senders.push(me);
                }
                return Err(Errno::EAGAIN);
            }
            {
                let mut state = accepted.state.lock_nested();
                (state.peer, state.connected) = (Arc::downgrade(self), true);
                (state.owner, state.peer_owner) = (listener.owner, Some(owner));
                state.address = listener.address.clone();
                state.pass_credentials = listener.pass_credentials;
            }
            listener.pending.push_back(Arc::clone(&accepted));
            listener.owner
        };
        let raced = {
            let mut state = self.state.lock();
            let raced = state.connected;
            if !raced {
                (state.peer, state.connected) = (Arc::downgrade(&accepted), true);
                state.peer_owner = Some(peer_owner);
            }
            raced
        };
        if raced {
            // Another thread connected the socket meanwhile; the listener finds a connection that is closed.
            accepted.state.lock().peer = Weak::new();
            return Err(Errno::EISCONN);
        }
        target.events.notify(PollEvents::READABLE);
        self.events.notify(PollEvents::WRITABLE);
        Ok(())
    }

    /// accept(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP` for datagrams, `EINVAL` where it does not listen, `EAGAIN` where no connection waits.
    pub fn accept(&self) -> Result<Arc<Self>, Errno> {
        if !self.ty.is_connected() {
            return Err(Errno::EOPNOTSUPP);
        }
        let next = {
            let mut state = self.state.lock();
            if state.backlog.is_none() || state.receive_shut {
                return Err(Errno::EINVAL);
            }
            state.pending.pop_front()
        };
        let next = next.ok_or(Errno::EAGAIN)?;
        self.tell_senders();
        Ok(next)
    }

    /// The other end.
    pub(super) fn peer(&self) -> Option<Arc<Self>> {
        self.state.lock().peer.upgrade()
    }

    /// The other end's address.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_address(&self) -> Result<UnixAddress, Errno> {
        self.peer().map(|p| p.address()).ok_or(Errno::ENOTCONN)
    }

    /// `SO_PEERCRED`.
    #[must_use]
    pub fn peer_owner(&self) -> Option<Sender> {
        self.state.lock().peer_owner
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// `ENOTCONN` where a stream is neither connected nor listening.
    pub fn shutdown(&self, receive: bool, send: bool) -> Result<(), Errno> {
        let peer = {
            let mut state = self.state.lock();
            state.receive_shut |= receive;
            state.send_shut |= send;
            state.peer.upgrade()
        };
        if let Some(peer) = peer.filter(|_| self.ty.is_connected()) {
            {
                let mut state = peer.state.lock();
                state.receive_shut |= send;
                state.send_shut |= receive;
            }
            peer.events.notify(PollEvents::ALL);
        }
        self.events.notify(PollEvents::ALL);
        Ok(())
    }

    /// Whether the other end of a connection is gone.
    fn is_hung_up(&self, state: &State) -> bool {
        self.ty.is_connected() && state.connected && state.peer.strong_count() == 0
    }

    /// What the socket is ready for, Linux `unix_poll`.
    #[must_use]
    pub fn poll(&self) -> PollEvents {
        let (mut events, peer) = {
            let state = self.state.lock();
            let mut events = PollEvents::NONE;
            let hung_up = self.is_hung_up(&state);
            if state.error.is_some() {
                events |= PollEvents::ERR;
            }
            if hung_up || state.receive_shut && state.send_shut {
                events |= PollEvents::HUP;
            }
            if hung_up || state.receive_shut {
                events |= PollEvents::RDHUP | PollEvents::READABLE;
            }
            if !state.queue.is_empty() || !state.pending.is_empty() {
                events |= PollEvents::READABLE;
            }
            if self.ty.is_connected() && !state.connected && state.backlog.is_none() {
                events |= PollEvents::HUP;
            }
            (events, (state.backlog.is_none()).then(|| state.peer.upgrade()))
        };
        let writable = match peer {
            None => false,
            Some(None) => true,
            Some(Some(peer)) => peer.has_room(self),
        };
        if writable {
            events |= PollEvents::WRITABLE;
        }
        events
    }

    /// Whether poll(2) is to tell a sender that there is room, Linux `unix_writable`.
    fn has_room(&self, sender: &Self) -> bool {
        let limit = sender.send_buffer();
        let state = self.state.lock();
        if self.ty.is_connected() {
            state.queue.charged() * 4 <= limit
        } else {
            state.queue.len() < MAX_DATAGRAMS && state.queue.charged() < limit
        }
    }

    pub(super) fn send_buffer(&self) -> usize {
        self.state.lock().send_buffer
    }

    /// `SO_SNDBUF`, doubled and bounded as Linux does.
    pub fn set_send_buffer(&self, bytes: u32) {
        let bytes = usize::try_from(bytes).unwrap_or(DEFAULT_BUFFER).min(DEFAULT_BUFFER) * 2;
        self.state.lock().send_buffer = bytes.max(4608);
    }
    /// `SO_SNDBUF`.
    #[must_use]
    pub fn send_buffer_size(&self) -> usize {
        self.send_buffer()
    }

    /// `SO_PASSCRED`.
    pub fn set_pass_credentials(&self, pass: bool) {
        self.state.lock().pass_credentials = pass;
    }
    /// `SO_PASSCRED`.
    #[must_use]
    pub fn passes_credentials(&self) -> bool {
        self.state.lock().pass_credentials
    }

    /// `SO_ERROR`: tells and forgets.
    #[must_use]
    pub fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    /// Bytes that the other end has not read, `SIOCOUTQ`.
    #[must_use]
    pub fn unread_by_peer(&self) -> usize {
        self.peer().map_or(0, |peer| peer.state.lock().queue.charged())
    }

    /// Bytes that can be read, `FIONREAD`.
    #[must_use]
    pub fn readable_bytes(&self) -> usize {
        self.state.lock().queue.readable(self.ty == SocketType::Stream)
    }
}

impl UnixSocket {
    /// Calls `f` on each descriptor that waits to be received: here, or by a connection that waits for accept(2). The
    /// connections go to `kept`: the caller lets go of them when it holds no lock.
    pub(super) fn each_waiting_file(&self, kept: &mut Vec<Arc<Self>>, f: &mut impl FnMut(&Arc<dyn File>)) {
        let pending: Vec<_> = {
            let state = self.state.lock();
            state.queue.files().for_each(&mut *f);
            state.pending.iter().cloned().collect()
        };
        for connection in &pending {
            connection.state.lock().queue.files().for_each(&mut *f);
        }
        kept.extend(pending);
    }

    /// Takes what waits to be received out; as in [`Self::each_waiting_file`], the caller lets go of it.
    pub(super) fn empty_queue(&self, kept: &mut Vec<Arc<Self>>) -> Vec<Message> {
        let (mut messages, pending) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.queue).into_messages(), std::mem::take(&mut state.pending))
        };
        for connection in &pending {
            messages.extend(std::mem::take(&mut connection.state.lock().queue).into_messages());
        }
        kept.extend(pending);
        messages
    }
}

impl Drop for UnixSocket {
    /// The last descriptor is gone: the other end and whoever waits for accept(2) learn of it.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let unread = !state.queue.is_empty();
        let peer = std::mem::take(&mut state.peer).upgrade();
        for sender in std::mem::take(&mut state.senders).iter().filter_map(Weak::upgrade) {
            sender.events.notify(PollEvents::WRITABLE);
        }
        let Some(peer) = peer else { return };
        if self.ty.is_connected() {
            if unread {
                peer.state.lock().error = Some(Errno::ECONNRESET);
            }
            peer.events.notify(PollEvents::ALL);
        }
    }
}
