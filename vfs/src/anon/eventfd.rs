//! Event counters, eventfd(2), Linux `fs/eventfd.c`.
use std::sync::Arc;

use abi::Errno;
use memmap::{IoDst, IoSrc};
use sync::{LockClass, Mutex, PollEvents, WaitQueue};

use crate::{FileOps, OpCx};

/// An eventfd.
#[derive(Debug)]
pub struct EventFd {
    count: Mutex<u64>,
    /// `EFD_SEMAPHORE`: a read takes one.
    semaphore: bool,
    events: WaitQueue,
}

impl EventFd {
    /// An eventfd with this count.
    #[must_use]
    pub fn new(count: u32, semaphore: bool) -> Arc<Self> {
        let count = Mutex::new(LockClass::FileState, u64::from(count));
        Arc::new(Self { count, semaphore, events: WaitQueue::new() })
    }
}

impl FileOps for EventFd {
    fn read_at(&self, _: &OpCx<'_>, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let taken = {
            let mut count = self.count.lock();
            let taken = if self.semaphore { (*count).min(1) } else { *count };
            *count -= taken;
            taken
        };
        if taken == 0 {
            return Err(Errno::EAGAIN);
        }
        self.events.notify(PollEvents::WRITABLE);
        dst.write(&taken.to_ne_bytes())
    }

    fn write_at(&self, _: &OpCx<'_>, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        if src.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        // Bytes beyond the eighth are ignored; a value that does not fit is tried again with the same bytes.
        let mut peeked = 0;
        while peeked < bytes.len() {
            let Some(rest) = bytes.get_mut(peeked..) else { break };
            match src.read(rest)? {
                0 => return Err(Errno::EFAULT),
                n => peeked += n,
            }
        }
        let add = u64::from_ne_bytes(bytes);
        if add == u64::MAX {
            return Err(Errno::EINVAL);
        }
        {
            let mut count = self.count.lock();
            if u64::MAX - 1 - *count < add {
                return Err(Errno::EAGAIN);
            }
            *count += add;
        }
        self.events.notify(PollEvents::READABLE);
        Ok(8)
    }

    fn stream(&self) -> bool {
        true
    }

    fn noop_seek(&self) -> bool {
        true
    }

    fn poll(&self, _: &OpCx<'_>) -> PollEvents {
        let count = *self.count.lock();
        let mut events = PollEvents::NONE;
        if count > 0 {
            events |= PollEvents::READABLE;
        }
        if count < u64::MAX - 1 {
            events |= PollEvents::WRITABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.events)
    }

    fn fdinfo(&self) -> Vec<u8> {
        format!("eventfd-count: {:16x}\n", *self.count.lock()).into_bytes()
    }
}
