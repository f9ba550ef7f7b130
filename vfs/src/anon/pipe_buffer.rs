//! The bytes in a pipe, Linux `fs/pipe.c`: slots of up to a page; small writes share the last slot, packets do not.
use std::collections::VecDeque;

/// The size of a slot.
pub(super) const SLOT: usize = 4096;
/// Writes of up to this many bytes are never mixed with others.
pub(super) const PIPE_BUF: usize = 4096;
/// What a pipe holds at first, in slots.
pub(super) const DEFAULT_SLOTS: usize = 16;

#[derive(Debug)]
struct Slot {
    bytes: Vec<u8>,
    /// How much of it was read.
    start: usize,
    /// Read as a whole, its rest thrown away.
    packet: bool,
}

impl Slot {
    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }
}

/// What was written and not yet read.
#[derive(Debug)]
pub(super) struct PipeBuffer {
    slots: VecDeque<Slot>,
    capacity: usize,
    /// Slots that writers were promised while they copy from user memory.
    reserved: usize,
    len: usize,
}

impl PipeBuffer {
    pub(super) const fn new() -> Self {
        Self { slots: VecDeque::new(), capacity: DEFAULT_SLOTS, reserved: 0, len: 0 }
    }

    /// How many bytes are held.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Tells whether nothing is there to read.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Tells whether a write of a byte would wait.
    pub(super) fn is_full(&self) -> bool {
        self.slots.len() + self.reserved >= self.capacity
    }

    /// The capacity in bytes.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity * SLOT
    }

    /// Changes the capacity; false where more is held.
    pub(super) fn set_capacity(&mut self, slots: usize) -> bool {
        let fits = self.slots.len() + self.reserved <= slots;
        if fits {
            self.capacity = slots;
        }
        fits
    }

    /// Room behind the last slot that small writes may share.
    fn tail_room(&self) -> usize {
        match self.slots.back() {
            Some(slot) if self.reserved == 0 && !slot.packet => SLOT.saturating_sub(slot.bytes.len()),
            _ => 0,
        }
    }

    /// How many of `len` bytes can be written now: all or nothing up to [`PIPE_BUF`]. Keeps room for them until
    /// [`Self::append`] or [`Self::cancel`].
    pub(super) fn reserve(&mut self, len: usize, packet: bool) -> Reservation {
        let tail = if packet { 0 } else { self.tail_room() };
        let free = self.capacity.saturating_sub(self.slots.len() + self.reserved);
        let room = tail + free * SLOT;
        let merges = len % SLOT <= tail;
        let accepted = if len <= PIPE_BUF && (if merges { room } else { free * SLOT }) < len {
            0
        } else {
            len.min(room)
        };
        let slots =
            accepted.saturating_sub(if accepted > 0 { tail.min(accepted % SLOT) } else { 0 }).div_ceil(SLOT);
        self.reserved += slots;
        Reservation { len: accepted, slots }
    }

    /// Gives a reservation back.
    pub(super) fn cancel(&mut self, reservation: &Reservation) {
        self.reserved -= reservation.slots;
    }

    /// Adds what was copied in for a reservation.
    pub(super) fn append(&mut self, reservation: &Reservation, mut bytes: &[u8], packet: bool) {
        self.cancel(reservation);
        self.len += bytes.len();
        let merge = bytes.len() % SLOT;
        if !packet && merge > 0 && merge <= self.tail_room() {
            let (head, rest) = bytes.split_at(merge);
            if let Some(slot) = self.slots.back_mut() {
                slot.bytes.extend_from_slice(head);
            }
            bytes = rest;
        }
        for chunk in bytes.chunks(SLOT) {
            self.slots.push_back(Slot { bytes: chunk.to_vec(), start: 0, packet });
        }
    }

    /// Takes up to `max` bytes, at most one packet.
    pub(super) fn take(&mut self, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < max {
            let Some(slot) = self.slots.front_mut() else { break };
            if slot.packet && !out.is_empty() {
                break;
            }
            let n = slot.len().min(max - out.len());
            out.extend(slot.bytes.iter().skip(slot.start).take(n));
            slot.start += n;
            self.len -= n;
            let packet = slot.packet;
            if packet {
                self.len -= slot.len();
            }
            if packet || slot.len() == 0 {
                self.slots.pop_front();
            }
            if packet {
                break;
            }
        }
        out
    }

    /// Copies up to `max` bytes without taking them, for tee(2).
    pub(super) fn peek(&self, max: usize) -> Vec<u8> {
        self.slots.iter().flat_map(|s| s.bytes.iter().skip(s.start)).take(max).copied().collect()
    }

    /// Puts bytes back that could not be handed on.
    pub(super) fn put_back(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.slots.push_front(Slot { bytes, start: 0, packet: false });
        }
    }
}

/// Room in a pipe that one writer may fill.
#[derive(Debug)]
pub(super) struct Reservation {
    /// In bytes.
    pub(super) len: usize,
    slots: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(pipe: &mut PipeBuffer, bytes: &[u8], packet: bool) -> usize {
        let room = pipe.reserve(bytes.len(), packet);
        pipe.append(&room, bytes.get(..room.len).expect("not more than asked"), packet);
        room.len
    }

    #[test]
    fn a_pipe_holds_its_capacity_and_no_more() {
        let mut pipe = PipeBuffer::new();
        assert_eq!(write(&mut pipe, &vec![7; 100_000], false), 65_536);
        assert!(pipe.is_full());
        assert_eq!(write(&mut pipe, b"x", false), 0);
        assert_eq!(pipe.take(SLOT - 1).len(), SLOT - 1);
        assert_eq!(write(&mut pipe, b"x", false), 0, "a slot is free once it is read to its end");
        assert_eq!(pipe.take(1).len(), 1);
        assert_eq!(write(&mut pipe, b"x", false), 1);
    }

    #[test]
    fn small_writes_share_a_slot() {
        let mut pipe = PipeBuffer::new();
        let written: usize = (0..70_000).map(|_| write(&mut pipe, b"y", false)).sum();
        assert_eq!(written, 65_536);
        assert_eq!(pipe.take(usize::MAX).len(), 65_536);
        assert!(pipe.is_empty());
    }

    #[test]
    fn writes_up_to_pipe_buf_are_whole() {
        let mut pipe = PipeBuffer::new();
        write(&mut pipe, &vec![0; 65_536 - 100], false);
        assert_eq!(write(&mut pipe, &[1; 101], false), 0);
        assert_eq!(write(&mut pipe, &[1; 100], false), 100);
    }

    #[test]
    fn packets_are_read_one_at_a_time() {
        let mut pipe = PipeBuffer::new();
        write(&mut pipe, b"one", true);
        write(&mut pipe, b"two", true);
        assert_eq!(pipe.take(2), b"on");
        assert_eq!(pipe.take(9), b"two");
        assert_eq!(pipe.len(), 0);
    }
}
