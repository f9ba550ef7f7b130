//! Requests that are being worked on, and Tflush, flush(5).

use std::collections::HashMap;
use sync::{LockClass, Mutex};

/// The requests that have no reply yet, by tag.
#[derive(Debug)]
pub(super) struct Flight(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    serial: u64,
    requests: HashMap<u16, Request>,
}

#[derive(Debug)]
struct Request {
    serial: u64,
    /// The reply is on its way: the client may have it, and use the tag anew, before the sender knows.
    replying: bool,
    /// The Tflush to answer after the reply.
    flushes: Vec<u16>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) tag: u16,
    serial: u64,
}

/// A tag was used again before its reply was sent.
#[derive(Debug)]
pub(super) struct TagInUse;

impl Flight {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LockClass::Client, State::default()))
    }

    /// A request came. Tells which Tflush of the tag's last use are still to be answered.
    pub(super) fn start(&self, tag: u16) -> Result<(Ticket, Vec<u16>), TagInUse> {
        let mut state = self.0.lock();
        state.serial += 1;
        let serial = state.serial;
        let request = Request { serial, replying: false, flushes: Vec::new() };
        match state.requests.insert(tag, request) {
            None => Ok((Ticket { tag, serial }, Vec::new())),
            Some(old) if old.replying => Ok((Ticket { tag, serial }, old.flushes)),
            Some(_) => Err(TagInUse),
        }
    }

    /// Its reply is about to be sent.
    pub(super) fn replying(&self, ticket: Ticket) {
        if let Some(request) = self.0.lock().requests.get_mut(&ticket.tag)
            && request.serial == ticket.serial
        {
            request.replying = true;
        }
    }

    /// Its reply has been sent: gives the tags of the flushes to answer now.
    pub(super) fn finish(&self, ticket: Ticket) -> Vec<u16> {
        let mut state = self.0.lock();
        match state.requests.get(&ticket.tag) {
            Some(request) if request.serial == ticket.serial => {
                state.requests.remove(&ticket.tag).map(|request| request.flushes).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// A Tflush of `old` came, itself started as `tag`: tells whether it is to be answered at once. Otherwise it is
    /// answered when `old` is, which keeps the order that flush(5) wants.
    pub(super) fn flush(&self, old: u16, tag: u16) -> bool {
        match self.0.lock().requests.get_mut(&old) {
            Some(request) if old != tag => {
                request.flushes.push(tag);
                false
            }
            _ => true,
        }
    }

    /// A flush that was kept waiting has been answered: gives the flushes of that flush.
    pub(super) fn finish_flush(&self, tag: u16) -> Vec<u16> {
        self.0.lock().requests.remove(&tag).map(|request| request.flushes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_waits_for_what_it_flushes() {
        let flight = Flight::new();
        let (first, _) = flight.start(1).unwrap();
        flight.start(2).unwrap();
        assert!(!flight.flush(1, 2));
        flight.replying(first);
        assert_eq!(flight.finish(first), [2]);
        assert!(flight.flush(1, 2));
        assert!(flight.flush(2, 2));
    }

    #[test]
    fn a_tag_may_be_used_again_once_its_reply_is_on_its_way() {
        let flight = Flight::new();
        let (first, _) = flight.start(1).unwrap();
        flight.replying(first);
        let (second, flushes) = flight.start(1).unwrap();
        assert!(flushes.is_empty());
        assert!(flight.finish(first).is_empty());
        assert!(flight.start(1).is_err());
        assert!(flight.finish(second).is_empty());
    }
}
