//! Pipes and FIFOs, pipe(7), Linux `fs/pipe.c`.
use std::sync::Arc;

use abi::Errno;
use abi::fs::{O_ACCMODE, O_DIRECT, O_RDONLY, O_RDWR, O_WRONLY};
use memmap::{IoDst, IoSrc};
use sync::{LockClass, Mutex, PollEvents, WaitQueue};

use super::pipe_buffer::{PipeBuffer, SLOT};
use crate::{FileOps, OpCx};

/// `fs.pipe-max-size`: what a process without `CAP_SYS_RESOURCE` may ask for.
const MAX_SIZE: usize = 1 << 20;
/// What one read or write moves at most before it looks at the pipe again.
const CHUNK: usize = 64 << 10;
/// `FIONREAD`.
const FIONREAD: u32 = 0x541b;

#[derive(Debug)]
struct State {
    buffer: PipeBuffer,
    readers: usize,
    writers: usize,
    /// How often the pipe was opened for reading and writing, so that an open that waits sees one that came and went.
    read_opens: u64,
    write_opens: u64,
}

/// What the ends of a pipe share; a FIFO's inode holds one.
#[derive(Debug)]
pub struct Pipe {
    state: Mutex<State>,
    events: WaitQueue,
    /// Made by pipe(2): opening it again, through `/proc/PID/fd`, never waits for the other end.
    anonymous: bool,
}

impl Default for Pipe {
    fn default() -> Self {
        let state =
            State { buffer: PipeBuffer::new(), readers: 0, writers: 0, read_opens: 0, write_opens: 0 };
        Self { state: Mutex::new(LockClass::FileState, state), events: WaitQueue::new(), anonymous: false }
    }
}

/// An open end of a pipe; a FIFO opened `O_RDWR` is both ends.
#[derive(Debug)]
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
    /// The other side's opens when this was opened.
    seen: Option<u64>,
}

/// pipe2(2): the read end and the write end.
#[must_use]
pub fn pipe() -> [Arc<PipeEnd>; 2] {
    let pipe = Arc::new(Pipe { anonymous: true, ..Pipe::default() });
    [Pipe::end(&pipe, true, false), Pipe::end(&pipe, false, true)].map(Arc::new)
}

impl Pipe {
    /// A pipe that is not open.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn end(pipe: &Arc<Self>, reads: bool, writes: bool) -> PipeEnd {
        let seen = {
            let mut state = pipe.state.lock();
            state.readers += usize::from(reads);
            state.read_opens += u64::from(reads);
            state.writers += usize::from(writes);
            state.write_opens += u64::from(writes);
            let (others, opens) =
                if reads { (state.writers, state.write_opens) } else { (state.readers, state.read_opens) };
            // One that is there now has been met, even if it is gone before the open is looked at again.
            (others == 0).then_some(opens)
        };
        pipe.events.notify(PollEvents::ALL);
        PipeEnd { pipe: Arc::clone(pipe), reads, writes, seen }
    }

    /// Opens a FIFO, fifo(7). The open is complete once [`FileOps::finish_open`] says so.
    ///
    /// # Errors
    /// `ENXIO` for `O_WRONLY | O_NONBLOCK` without a reader, `EINVAL` for an access mode there is not.
    pub fn open(pipe: &Arc<Self>, cx: &OpCx<'_>, flags: u32) -> Result<Arc<PipeEnd>, Errno> {
        let (reads, writes) = match flags & O_ACCMODE {
            O_RDONLY => (true, false),
            O_WRONLY => (false, true),
            O_RDWR => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        let nonblocking = cx.nonblocking() || flags & abi::fs::O_NONBLOCK != 0;
        if !pipe.anonymous && writes && !reads && nonblocking && pipe.state.lock().readers == 0 {
            return Err(Errno::ENXIO);
        }
        Ok(Arc::new(Self::end(pipe, reads, writes)))
    }
}

impl PipeEnd {
    /// The pipe, to tell whether two ends are of one.
    #[must_use]
    pub const fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
    /// Tells whether it can be read.
    #[must_use]
    pub const fn reads(&self) -> bool {
        self.reads
    }
    /// Tells whether it can be written.
    #[must_use]
    pub const fn writes(&self) -> bool {
        self.writes
    }

    /// `F_GETPIPE_SZ`, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pipe.state.lock().buffer.capacity()
    }

    /// `F_SETPIPE_SZ`; gives the new size, rounded up to a power of two of pages.
    ///
    /// # Errors
    /// `EPERM` above `fs.pipe-max-size` without `CAP_SYS_RESOURCE`, `EBUSY` where more is in the pipe, `EINVAL`.
    pub fn set_capacity(&self, bytes: usize, privileged: bool) -> Result<usize, Errno> {
        if bytes > 1 << 31 || bytes > MAX_SIZE && !privileged {
            return Err(if bytes > 1 << 31 { Errno::EINVAL } else { Errno::EPERM });
        }
        // The sentry's memory is the limit for everybody.
        let slots = bytes.min(16 * MAX_SIZE).div_ceil(SLOT).next_power_of_two();
        if !self.pipe.state.lock().buffer.set_capacity(slots) {
            return Err(Errno::EBUSY);
        }
        self.pipe.events.notify(PollEvents::WRITABLE);
        Ok(slots * SLOT)
    }

    /// Takes up to `max` bytes, for splice(2).
    ///
    /// # Errors
    /// `EAGAIN` where the pipe is empty and somebody may write.
    pub fn take(&self, max: usize) -> Result<Vec<u8>, Errno> {
        let bytes = {
            let mut state = self.pipe.state.lock();
            if state.buffer.is_empty() {
                return if state.writers == 0 { Ok(Vec::new()) } else { Err(Errno::EAGAIN) };
            }
            state.buffer.take(max)
        };
        self.pipe.events.notify(PollEvents::WRITABLE);
        Ok(bytes)
    }

    /// Copies up to `max` bytes that stay, for tee(2).
    ///
    /// # Errors
    /// `EAGAIN` where the pipe is empty and somebody may write.
    pub fn peek(&self, max: usize) -> Result<Vec<u8>, Errno> {
        let state = self.pipe.state.lock();
        if state.buffer.is_empty() && state.writers > 0 {
            return Err(Errno::EAGAIN);
        }
        Ok(state.buffer.peek(max))
    }

    /// Puts bytes back that could not be handed on.
    pub fn put_back(&self, bytes: Vec<u8>) {
        self.pipe.state.lock().buffer.put_back(bytes);
        self.pipe.events.notify(PollEvents::READABLE);
    }

    fn write_once(&self, src: &mut IoSrc<'_>, packets: bool) -> Result<usize, Errno> {
        let len = if packets { src.remaining().min(SLOT) } else { src.remaining().min(CHUNK) };
        let room = {
            let mut state = self.pipe.state.lock();
            if state.readers == 0 {
                return Err(Errno::EPIPE);
            }
            state.buffer.reserve(len, packets)
        };
        if room.len == 0 {
            self.pipe.state.lock().buffer.cancel(&room);
            return Err(Errno::EAGAIN);
        }
        // User memory is read without the lock; the reservation keeps the room.
        let mut bytes = vec![0; room.len];
        let read = src.read(&mut bytes);
        {
            let mut state = self.pipe.state.lock();
            match &read {
                Ok(n) => state.buffer.append(&room, bytes.get(..*n).unwrap_or_default(), packets),
                Err(_) => state.buffer.cancel(&room),
            }
        }
        self.pipe.events.notify(PollEvents::READABLE);
        read
    }
}

impl FileOps for PipeEnd {
    fn read_at(&self, _: &OpCx<'_>, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        let max = dst.remaining();
        if max == 0 {
            return Ok(0);
        }
        let mut bytes = self.take(max)?;
        let written = dst.write(&bytes);
        let n = *written.as_ref().unwrap_or(&0);
        if n < bytes.len() {
            self.put_back(bytes.split_off(n));
        }
        written
    }

    fn write_at(&self, cx: &OpCx<'_>, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        let packets = cx.flags & O_DIRECT != 0;
        let mut written = 0;
        while src.remaining() > 0 {
            match self.write_once(src, packets) {
                Ok(0) => break,
                Ok(n) => written += n,
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn stream(&self) -> bool {
        true
    }

    fn poll(&self, _: &OpCx<'_>) -> PollEvents {
        let state = self.pipe.state.lock();
        let mut events = PollEvents::NONE;
        if self.reads {
            if !state.buffer.is_empty() {
                events |= PollEvents::READABLE;
            }
            if state.writers == 0 && state.write_opens != 0 {
                events |= PollEvents::HUP;
            }
        }
        if self.writes {
            if !state.buffer.is_full() {
                events |= PollEvents::WRITABLE;
            }
            if state.readers == 0 {
                events |= PollEvents::ERR;
            }
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.events)
    }

    fn finish_open(&self, cx: &OpCx<'_>) -> Result<(), Errno> {
        if self.pipe.anonymous || cx.nonblocking() || self.reads && self.writes {
            return Ok(());
        }
        let state = self.pipe.state.lock();
        let (others, opens) =
            if self.reads { (state.writers, state.write_opens) } else { (state.readers, state.read_opens) };
        if others > 0 || self.seen != Some(opens) { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    fn ioctl(&self, cx: &OpCx<'_>, cmd: u32, arg: u64) -> Result<usize, Errno> {
        if cmd != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let len = i32::try_from(self.pipe.state.lock().buffer.len()).unwrap_or(i32::MAX);
        cx.mm()?.write_obj(arg, &len)?;
        Ok(0)
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        {
            let mut state = self.pipe.state.lock();
            state.readers -= usize::from(self.reads);
            state.writers -= usize::from(self.writes);
            if state.readers == 0 && state.writers == 0 {
                // A FIFO that is opened again begins empty.
                drop(state.buffer.take(usize::MAX));
            }
        }
        self.pipe.events.notify(PollEvents::ALL);
    }
}
