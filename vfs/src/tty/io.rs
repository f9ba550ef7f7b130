//! The two ends of a pseudo-terminal as open files.
use std::sync::Arc;

use abi::Errno;
use abi::fs::{O_NOCTTY, O_NONBLOCK};
use memmap::{IoDst, IoSrc};
use sync::{PollEvents, WaitQueue};

use super::job_control::Access;
use super::{Devpts, OUTPUT_LIMIT, Tty};
use crate::{FileOps, OpCx};

/// How much one read or write moves at most.
const CHUNK: usize = 4096;
/// Nanoseconds in the unit of `VTIME`.
const TENTH_NS: u64 = 100_000_000;

/// The master end.
#[derive(Debug)]
pub struct Master {
    tty: Arc<Tty>,
    devpts: Arc<Devpts>,
}

impl Master {
    pub(super) const fn new(tty: Arc<Tty>, devpts: Arc<Devpts>) -> Self {
        Self { tty, devpts }
    }

    /// The terminal.
    #[must_use]
    pub const fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }
}

impl FileOps for Master {
    fn read_at(&self, _: &OpCx<'_>, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let bytes = self.tty.take_output(dst.remaining().min(CHUNK))?;
        dst.write(&bytes)
    }

    fn write_at(&self, _: &OpCx<'_>, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        let mut written = 0;
        while src.remaining() > 0 {
            let room = self.tty.state.lock().ldisc.room();
            if room == 0 {
                break;
            }
            let mut bytes = vec![0; src.remaining().min(room).min(CHUNK)];
            let n = match src.read(&mut bytes) {
                Err(_) if written > 0 => break,
                other => other?,
            };
            written += self.tty.type_bytes(bytes.get(..n).unwrap_or_default())?;
        }
        if written == 0 && src.remaining() > 0 { Err(Errno::EAGAIN) } else { Ok(written) }
    }

    fn stream(&self) -> bool {
        true
    }

    fn poll(&self, _: &OpCx<'_>) -> PollEvents {
        self.tty.master_poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.tty.master_events)
    }

    fn ioctl(&self, cx: &OpCx<'_>, cmd: u32, arg: u64) -> Result<usize, Errno> {
        self.tty.master_ioctl(cx, cmd, arg)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.tty.close_master();
        self.devpts.remove(self.tty.index());
    }
}

/// The slave end.
#[derive(Debug)]
pub struct Slave {
    tty: Arc<Tty>,
}

impl Slave {
    /// Opens the slave; a session leader without a controlling terminal gets this one, unless `O_NOCTTY`.
    ///
    /// # Errors
    /// `EIO` where it is locked or the master is gone, `EBUSY` where it is in exclusive use.
    pub fn open(tty: &Arc<Tty>, cx: &OpCx<'_>, flags: u32) -> Result<Arc<Self>, Errno> {
        {
            let mut state = tty.state.lock();
            if state.locked || state.master_closed {
                return Err(Errno::EIO);
            }
            if state.exclusive && !cx.creds.has_cap(kernel::Cap::SYS_ADMIN) {
                return Err(Errno::EBUSY);
            }
            state.slaves += 1;
            state.opened = true;
        }
        let slave = Arc::new(Self { tty: Arc::clone(tty) });
        tty.master_events.notify(PollEvents::ALL);
        if flags & O_NOCTTY == 0
            && let Some(task) = cx.task
        {
            tty.adopt_if_free(task);
        }
        Ok(slave)
    }

    /// The terminal.
    #[must_use]
    pub const fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }

    fn read_ready(&self, max: usize, nonblocking: bool) -> Result<Vec<u8>, Errno> {
        let mut state = self.tty.state.lock();
        if state.ldisc.is_readable() {
            let bytes = state.ldisc.read(max).ok_or(Errno::EAGAIN)?;
            (state.timed_out, state.timer_armed) = (false, false);
            return Ok(bytes);
        }
        let canonical = state.ldisc.termios.lflag & abi::termios::ICANON != 0;
        let (min, time) = state.ldisc.min_and_time();
        if canonical || min > 0 && (state.ldisc.available() == 0 || max >= min) {
            return Err(Errno::EAGAIN);
        }
        // A read for fewer bytes than VMIN is content with what it asked for.
        if min > 0 {
            let enough = state.ldisc.available() >= max;
            return if enough { state.ldisc.read(max).ok_or(Errno::EAGAIN) } else { Err(Errno::EAGAIN) };
        }
        if time == 0 || std::mem::take(&mut state.timed_out) {
            return Ok(Vec::new());
        }
        if !nonblocking && !std::mem::replace(&mut state.timer_armed, true) {
            let now = self.tty.kernel.upgrade().map_or(0, |k| k.clock().monotonic_ns());
            self.tty.timer.set(Some(now + u64::try_from(time).unwrap_or(0) * TENTH_NS));
        }
        Err(Errno::EAGAIN)
    }
}

impl FileOps for Slave {
    fn read_at(&self, cx: &OpCx<'_>, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if self.tty.is_hung_up() || dst.remaining() == 0 {
            return Ok(0);
        }
        self.tty.check_background(cx, Access::Read)?;
        let bytes = self.read_ready(dst.remaining(), cx.flags & O_NONBLOCK != 0)?;
        let written = dst.write(&bytes);
        self.tty.master_events.notify(PollEvents::WRITABLE);
        written
    }

    fn write_at(&self, cx: &OpCx<'_>, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        if self.tty.is_hung_up() {
            return Err(Errno::EIO);
        }
        self.tty.check_background(cx, Access::Write)?;
        let mut written = 0;
        while src.remaining() > 0 {
            let room = {
                let state = self.tty.state.lock();
                if state.ldisc.is_stopped() { 0 } else { OUTPUT_LIMIT.saturating_sub(state.output.len()) }
            };
            if room == 0 {
                break;
            }
            let mut bytes = vec![0; src.remaining().min(room).min(CHUNK)];
            let n = match src.read(&mut bytes) {
                Err(_) if written > 0 => break,
                other => other?,
            };
            {
                let mut state = self.tty.state.lock();
                let mut shown = Vec::with_capacity(n + n / 8);
                state.ldisc.output(bytes.get(..n).unwrap_or_default(), &mut shown);
                state.output.extend(shown);
            }
            written += n;
            self.tty.master_events.notify(PollEvents::READABLE);
        }
        if written == 0 && src.remaining() > 0 { Err(Errno::EAGAIN) } else { Ok(written) }
    }

    fn stream(&self) -> bool {
        true
    }

    fn poll(&self, _: &OpCx<'_>) -> PollEvents {
        if self.tty.is_hung_up() {
            return PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::HUP | PollEvents::ERR;
        }
        let state = self.tty.state.lock();
        let mut events = PollEvents::NONE;
        if state.ldisc.is_readable() {
            events |= PollEvents::READABLE;
        }
        if !state.ldisc.is_stopped() && state.output.len() < OUTPUT_LIMIT {
            events |= PollEvents::WRITABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.tty.slave_events)
    }

    fn ioctl(&self, cx: &OpCx<'_>, cmd: u32, arg: u64) -> Result<usize, Errno> {
        self.tty.slave_ioctl(cx, cmd, arg)
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        self.tty.state.lock().slaves -= 1;
        self.tty.master_events.notify(PollEvents::ALL);
    }
}
