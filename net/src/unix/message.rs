//! What is under way between two sockets.
use std::collections::VecDeque;
use std::sync::Arc;

use kernel::File;

use super::address::UnixAddress;
use super::in_flight::Rights;

/// `struct ucred`: who sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// Process.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A datagram, or a piece of a stream.
#[derive(Debug)]
pub(super) struct Message {
    pub bytes: Vec<u8>,
    /// How much of it was read; pieces of streams only.
    pub read: usize,
    /// `SCM_RIGHTS`.
    pub rights: Rights,
    pub sender: Sender,
    pub from: UnixAddress,
}

impl Message {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.read
    }
    /// What a message takes beside its bytes, so that empty ones are not free.
    pub(super) fn charge(&self) -> usize {
        self.len() + OVERHEAD
    }
}

/// About what Linux charges for an `sk_buff`.
const OVERHEAD: usize = 256;

/// Messages received and not yet read.
#[derive(Debug, Default)]
pub(super) struct ReceiveQueue {
    messages: VecDeque<Message>,
    charged: usize,
}

impl ReceiveQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }
    /// Bytes with overhead, as buffers are accounted.
    pub(super) const fn charged(&self) -> usize {
        self.charged
    }
    /// Bytes that can be read: of all messages, or of the first.
    pub(super) fn readable(&self, stream: bool) -> usize {
        let count = if stream { usize::MAX } else { 1 };
        self.messages.iter().take(count).map(Message::len).sum()
    }
    pub(super) fn front(&self) -> Option<&Message> {
        self.messages.front()
    }
    pub(super) fn get(&self, at: usize) -> Option<&Message> {
        self.messages.get(at)
    }
    /// Descriptors that wait.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<dyn File>> {
        self.messages.iter().flat_map(|message| message.rights.files())
    }
    /// The messages, out of their queue.
    pub(super) fn into_messages(self) -> Vec<Message> {
        self.messages.into()
    }
    pub(super) fn push(&mut self, message: Message) {
        self.charged += message.charge();
        self.messages.push_back(message);
    }
    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.charged -= message.charge();
        Some(message)
    }
    /// Puts the unread rest of a message back.
    pub(super) fn put_back(&mut self, message: Message) {
        self.charged += message.charge();
        self.messages.push_front(message);
    }
}
