//! Requests of many threads over one socket, without a thread of its own: one of those that wait reads for all.

use super::near::Near;
use crate::host::{Frame, Socket};
use crate::proto::{HEADER, NOTAG};
use abi::Errno;
use std::os::fd::OwnedFd;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use sync::{LockClass, Mutex};

/// A reply, still encoded.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

#[derive(Debug)]
enum Slot {
    Free,
    /// The request is being sent.
    Sending,
    /// Its thread waits for the reply, or for being the reader.
    Waiting(Thread),
    /// Nobody waits; the fids are free again once the reply is here.
    Forgotten(Vec<u32>),
    Done(Answer),
}

#[derive(Debug)]
struct State {
    /// By tag.
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// How many calls are on their way.
    calls: usize,
    near: Near,
    /// Threads that wait for a free tag.
    crowd: Vec<Thread>,
    /// What the reader reads into; away while some thread is the reader.
    frame: Option<Frame>,
    dead: bool,
}

impl State {
    fn take_tag(&mut self, value: Slot) -> Option<u16> {
        let tag = self.free.pop()?;
        *self.slots.get_mut(usize::from(tag))? = value;
        Some(tag)
    }
}

#[derive(Debug)]
pub(super) struct Mux {
    socket: Socket,
    deadline: Option<Duration>,
    state: Mutex<State>,
    clunked: Mutex<Vec<u32>>,
}

impl Mux {
    pub(super) fn new(socket: Socket, msize: u32, tags: u16, deadline: Option<Duration>) -> Self {
        let slots = (0..tags).map(|_| Slot::Free).collect();
        let state = State {
            slots,
            free: (0..tags).rev().collect(),
            calls: 0,
            near: Near::new(),
            crowd: Vec::new(),
            frame: Some(Frame::new(msize)),
            dead: false,
        };
        let clunked = Mutex::new(LockClass::Leaf, Vec::new());
        Self { socket, deadline, state: Mutex::new(LockClass::Client, state), clunked }
    }

    /// Takes a tag, waiting for one while all are in use.
    fn take_tag(&self) -> Result<u16, Errno> {
        loop {
            {
                let mut state = self.state.lock();
                if state.dead {
                    return Err(Errno::EIO);
                }
                if let Some(tag) = state.take_tag(Slot::Sending) {
                    state.calls += 1;
                    return Ok(tag);
                }
                state.crowd.push(thread::current());
            }
            thread::park();
        }
    }

    /// A call is about to be made by this thread; gives the CPU that the server is to be told of, if any.
    pub(super) fn came_from(&self) -> Option<u32> {
        let here = Near::here();
        let mut state = self.state.lock();
        let alone = state.calls == 0;
        state.near.note(here, alone)
    }

    /// Sends a request and waits for its reply. `encode` appends the message with the tag that it is given.
    pub(super) fn call(
        &self,
        encode: impl FnOnce(u16, &mut Vec<u8>) -> Result<(), Errno>,
    ) -> Result<Answer, Errno> {
        let tag = self.take_tag()?;
        let mut message = Vec::new();
        if let Err(errno) = encode(tag, &mut message) {
            self.end_call(tag);
            return Err(errno);
        }
        if self.socket.send(&message, &[]).is_err() {
            self.die();
            return Err(Errno::EIO);
        }
        self.wait(tag)
    }

    /// Sends a request without waiting for the reply, after which these fids are in [`Self::clunked`]. Tells whether it
    /// did; it does not when tags are scarce, as those who wait for a tag may be the only ones who could read the reply.
    pub(super) fn call_and_forget(
        &self,
        fids: &[u32],
        encode: impl FnOnce(u16, &mut Vec<u8>) -> Result<(), Errno>,
    ) -> bool {
        let tag = {
            let mut state = self.state.lock();
            if state.dead || state.free.len() <= state.slots.len() / 2 {
                return false;
            }
            state.take_tag(Slot::Forgotten(fids.to_vec()))
        };
        let Some(tag) = tag else { return false };
        let mut message = Vec::new();
        if encode(tag, &mut message).is_err() || self.socket.send(&message, &[]).is_err() {
            self.die();
        }
        true
    }

    /// Fids that the server has forgotten since the last call of this.
    pub(super) fn take_clunked(&self) -> Vec<u32> {
        std::mem::take(&mut *self.clunked.lock())
    }

    fn end_call(&self, tag: u16) {
        self.release(tag, 1);
    }

    fn release(&self, tag: u16, calls: usize) {
        let crowd = {
            let mut state = self.state.lock();
            state.calls = state.calls.saturating_sub(calls);
            if let Some(slot) = state.slots.get_mut(usize::from(tag)) {
                *slot = Slot::Free;
                state.free.push(tag);
            }
            std::mem::take(&mut state.crowd)
        };
        crowd.iter().for_each(Thread::unpark);
    }

    fn wait(&self, tag: u16) -> Result<Answer, Errno> {
        let limit = self.deadline.map(|deadline| Instant::now() + deadline);
        loop {
            match self.look(tag)? {
                Turn::Done(answer) => return Ok(answer),
                Turn::Read(frame) => self.read(tag, frame, limit),
                Turn::Wait => match limit.map(|limit| limit.saturating_duration_since(Instant::now())) {
                    None => thread::park(),
                    Some(Duration::ZERO) => self.die(),
                    Some(left) => thread::park_timeout(left),
                },
            }
        }
    }

    /// What a thread that waits for a tag is to do now.
    fn look(&self, tag: u16) -> Result<Turn, Errno> {
        let answer = {
            let mut state = self.state.lock();
            let dead = state.dead;
            match state.slots.get_mut(usize::from(tag)) {
                Some(Slot::Done(answer)) => std::mem::take(answer),
                _ if dead => return Err(Errno::EIO),
                Some(slot) => {
                    *slot = Slot::Waiting(thread::current());
                    return Ok(state.frame.take().map_or(Turn::Wait, Turn::Read));
                }
                None => return Err(Errno::EIO),
            }
        };
        self.end_call(tag);
        Ok(Turn::Done(answer))
    }

    /// Reads until the reply for `tag` is here, then lets another thread read.
    fn read(&self, tag: u16, mut frame: Frame, limit: Option<Instant>) {
        loop {
            let mut fds = Vec::new();
            match self.socket.receive(&mut frame, &mut fds) {
                // The host's timeout is the deadline of one wait; replies to others may have come in between.
                Err(Errno::EAGAIN) if limit.is_none_or(|limit| Instant::now() < limit) => {}
                Ok(len) if len > 0 => match self.deliver(tag, frame.message(len), fds) {
                    Ok(true) => return self.hand_over(frame),
                    Ok(false) if limit.is_some_and(|limit| Instant::now() > limit) => return self.die(),
                    Ok(false) => {}
                    Err(Unexpected) => return self.die(),
                },
                _ => return self.die(),
            }
        }
    }

    /// Gives a reply to whom it belongs; tells whether it is the reader's own.
    fn deliver(&self, own: u16, message: &[u8], fds: Vec<OwnedFd>) -> Result<bool, Unexpected> {
        let header = message.first_chunk::<HEADER>().ok_or(Unexpected)?;
        let [_, _, _, _, _, low, high] = *header;
        let tag = u16::from_le_bytes([low, high]);
        let answer = Answer { bytes: message.to_vec(), fds };
        let (old, wake) = {
            let mut state = self.state.lock();
            let slot = state.slots.get_mut(usize::from(tag)).filter(|_| tag != NOTAG).ok_or(Unexpected)?;
            match slot {
                // A reply may overtake the end of the call that sent the request.
                Slot::Sending | Slot::Waiting(_) => {
                    let old = std::mem::replace(slot, Slot::Done(answer));
                    match old {
                        Slot::Waiting(thread) => (None, Some(thread)),
                        _ => (None, None),
                    }
                }
                Slot::Forgotten(fids) => (Some(std::mem::take(fids)), None),
                Slot::Free | Slot::Done(_) => return Err(Unexpected),
            }
        };
        if let Some(thread) = wake.filter(|_| tag != own) {
            thread.unpark();
        }
        if let Some(fids) = old {
            self.release(tag, 0);
            self.clunked.lock().extend(fids);
        }
        Ok(tag == own)
    }

    /// Ends being the reader.
    fn hand_over(&self, frame: Frame) {
        let next = {
            let mut state = self.state.lock();
            state.frame = Some(frame);
            state.slots.iter().find_map(|slot| match slot {
                Slot::Waiting(thread) => Some(thread.clone()),
                _ => None,
            })
        };
        if let Some(thread) = next {
            thread.unpark();
        }
    }

    /// Ends the connection: every request that waits, and every later one, fails with `EIO`.
    pub(super) fn die(&self) {
        self.socket.shut_down();
        let wake: Vec<Thread> = {
            let mut state = self.state.lock();
            state.dead = true;
            let waiting = state.slots.iter().filter_map(|slot| match slot {
                Slot::Waiting(thread) => Some(thread.clone()),
                _ => None,
            });
            let mut wake: Vec<Thread> = waiting.collect();
            wake.append(&mut state.crowd);
            wake
        };
        wake.iter().for_each(Thread::unpark);
    }

    /// Tells whether the connection has ended.
    pub(super) fn is_dead(&self) -> bool {
        self.state.lock().dead
    }
}

/// What a waiting thread is to do.
#[derive(Debug)]
enum Turn {
    Done(Answer),
    Read(Frame),
    Wait,
}

/// The server sent what answers no request.
#[derive(Debug)]
struct Unexpected;
