//! Requests that are being worked on.

use std::collections::HashSet;
use sync::{LockClass, Mutex};

/// The tags of the requests that have no reply yet.
#[derive(Debug)]
pub(super) struct Flight(Mutex<HashSet<u16>>);

/// A tag was used again before its reply was sent.
#[derive(Debug)]
pub(super) struct TagInUse;

impl Flight {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LockClass::Client, HashSet::new()))
    }

    /// A request came.
    pub(super) fn start(&self, tag: u16) -> Result<(), TagInUse> {
        if self.0.lock().insert(tag) { Ok(()) } else { Err(TagInUse) }
    }

    /// Its reply is about to be sent: once the client has it, it may use the tag anew before the sender knows.
    pub(super) fn finish(&self, tag: u16) {
        self.0.lock().remove(&tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_may_be_used_again_once_its_reply_is_on_its_way() {
        let flight = Flight::new();
        flight.start(1).unwrap();
        assert!(flight.start(1).is_err());
        flight.finish(1);
        flight.start(1).unwrap();
    }
}
