//! The one loop that waits.
use std::sync::Arc;

use abi::Errno;
use abi::stat::{S_IFCHR, S_IFIFO, S_IFSOCK};
use kernel::{BlockResult, File};
use sync::{PollEvents, WaitKey, WaitQueue};
use vfs::FileDescription;

use crate::Cx;

/// Whether a call may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: `O_NONBLOCK`, `MSG_DONTWAIT`, `RWF_NOWAIT`.
    Never,
    /// Until something happens.
    Forever,
    /// Until this time of the monotonic clock; then `EAGAIN`.
    Until(u64),
}

impl Wait {
    /// As the description's `O_NONBLOCK` says.
    pub fn of(file: &dyn File) -> Self {
        Self::unless(file.status_flags() & O_NONBLOCK != 0)
    }
    /// Not at all if `nonblock`.
    #[must_use]
    pub const fn unless(nonblock: bool) -> Self {
        if nonblock { Self::Never } else { Self::Forever }
    }
    const fn deadline(self) -> Option<u64> {
        match self {
            Self::Until(at) => Some(at),
            Self::Never | Self::Forever => None,
        }
    }
}

/// `O_NONBLOCK`.
pub const O_NONBLOCK: u32 = 0o4000;

/// Takes a registration back when it is dropped.
struct Registration<'a>(&'a WaitQueue, WaitKey);

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.0.unregister(self.1);
    }
}

impl Cx<'_> {
    /// Tries until it gives something else than `EAGAIN`, waiting in between for any of `events` on `queue`.
    ///
    /// # Errors
    /// What `attempt` gives; `EAGAIN` when the time is up; `ERESTARTSYS` for a signal.
    pub fn wait_on<T>(
        &mut self,
        queue: &WaitQueue,
        events: PollEvents,
        wait: Wait,
        mut attempt: impl FnMut(&mut Self) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match attempt(self) {
            Err(Errno::EAGAIN) if wait != Wait::Never => {}
            result => return result,
        }
        let _registration = Registration(queue, queue.register(events, self.cur.waiter().clone()));
        loop {
            match attempt(self) {
                Err(Errno::EAGAIN) => {}
                result => return result,
            }
            match self.cur.block(wait.deadline()) {
                BlockResult::Woken => {}
                BlockResult::TimedOut => return Err(Errno::EAGAIN),
                BlockResult::Interrupted => return Err(Errno::ERESTARTSYS),
            }
        }
    }

    /// Tries an operation of a file until it gives something else than `EAGAIN`, waiting for `events` in between.
    ///
    /// # Errors
    /// As [`Self::wait_on`].
    pub fn blocking<T>(
        &mut self,
        file: &Arc<dyn File>,
        events: PollEvents,
        wait: Wait,
        mut attempt: impl FnMut(&mut Self) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match file.wait_queue() {
            Some(queue) => self.wait_on(queue, events, wait, attempt),
            None => attempt(self),
        }
    }

    /// As [`Self::blocking`], for writes: `attempt` is told how many bytes were taken before. A pipe, socket or terminal
    /// that took a part is offered the rest until it has taken `len` bytes. What was taken counts even if an error or a
    /// signal follows.
    ///
    /// # Errors
    /// As [`Self::wait_on`], when nothing was taken.
    pub fn blocking_all(
        &mut self,
        file: &Arc<dyn File>,
        wait: Wait,
        len: usize,
        mut attempt: impl FnMut(&mut Self, usize) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let Some(queue) = file.wait_queue() else { return attempt(self, 0) };
        let all = FileDescription::from_file(file)
            .is_some_and(|d| matches!(d.file_type(), S_IFIFO | S_IFSOCK | S_IFCHR));
        let mut done = 0;
        let result = self.wait_on(queue, PollEvents::WRITABLE, wait, |cx| {
            loop {
                match attempt(cx, done)? {
                    0 => return Ok(()),
                    n => done += n,
                }
                if !all || done >= len {
                    return Ok(());
                }
            }
        });
        match result {
            Err(error) if done == 0 => Err(error),
            _ => Ok(done),
        }
    }

    /// Sleeps until woken, whoever registered the thread's waiter and wherever.
    ///
    /// # Errors
    /// `ETIMEDOUT` at the deadline, `ERESTARTNOHAND` for a signal.
    pub fn sleep(&mut self, deadline_ns: Option<u64>) -> Result<(), Errno> {
        match self.cur.block(deadline_ns) {
            BlockResult::Woken => Ok(()),
            BlockResult::TimedOut => Err(Errno::ETIMEDOUT),
            BlockResult::Interrupted => Err(Errno::ERESTARTNOHAND),
        }
    }

    /// The monotonic time.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.cur.kernel().clock().monotonic_ns()
    }
}
