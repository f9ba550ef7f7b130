//! Terminals: pseudo-terminals and the file system that shows them, `pty(7)`, `tty(4)`, `ioctl_tty(2)`.
//!
//! A [`Tty`] is a pair: bytes written to the master are typed input of the slave, and go through the line discipline; what
//! is written to the slave, and the echo, is read from the master.

mod devpts;
mod io;
mod ioctl;
mod job_control;
mod ldisc;
mod packet;
mod peer;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::termios::{Termios, Winsize};
use abi::{Errno, Signal};
use kernel::timer::{Expire, Timer};
use kernel::{ControllingTty, Kernel, signal};
use sync::{LockClass, Mutex, PollEvents, WaitQueue};

use self::ldisc::{Effects, LineDiscipline};

pub use devpts::{Devpts, register};
pub use io::{Master, Slave};
pub(crate) use peer::open_peer;

/// What waits to be read from the master at most, before the slave's writers wait; the echo may go beyond.
const OUTPUT_LIMIT: usize = 8192;
/// Beyond this the echo is thrown away.
const ECHO_LIMIT: usize = 4 * OUTPUT_LIMIT;
/// The major number of pseudo-terminal slaves.
pub(crate) const PTS_MAJOR: u32 = 136;

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a mode of its own that ioctl_tty(2) switches")]
struct State {
    ldisc: LineDiscipline,
    /// What the master is to read.
    output: VecDeque<u8>,
    winsize: Winsize,
    session: Option<i32>,
    foreground: Option<i32>,
    slaves: usize,
    /// Whether the slave was open once; until then the master's readers wait for it.
    opened: bool,
    /// `TIOCSPTLCK`.
    locked: bool,
    exclusive: bool,
    master_closed: bool,
    /// `TIOCPKT`, and what a packet is to tell first.
    packet_mode: bool,
    packet_status: u8,
    /// `TIOCSLCKTRMIOS`: the bits that are set stay as they are.
    termios_lock: Option<Termios>,
    /// A read with `VTIME` waits.
    timer_armed: bool,
    timed_out: bool,
}

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Tty {
    index: u32,
    kernel: Weak<Kernel>,
    state: Mutex<State>,
    hung_up: AtomicBool,
    timer: Timer,
    master_events: WaitQueue,
    slave_events: WaitQueue,
}

impl Tty {
    fn new(kernel: &Arc<Kernel>, index: u32) -> Arc<Self> {
        let state = State { locked: true, ..State::default() };
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            index,
            kernel: Arc::downgrade(kernel),
            state: Mutex::new(LockClass::Tty, state),
            hung_up: AtomicBool::new(false),
            timer: kernel.timers().timer(Weak::<Self>::clone(this)),
            master_events: WaitQueue::new(),
            slave_events: WaitQueue::new(),
        })
    }

    /// The number in `/dev/pts`.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Lets the slave be opened, `TIOCSPTLCK` with 0.
    pub fn unlock(&self) {
        self.state.lock().locked = false;
    }

    fn is_hung_up(&self) -> bool {
        self.hung_up.load(Ordering::SeqCst)
    }

    /// The window's size.
    #[must_use]
    pub fn winsize(&self) -> Winsize {
        self.state.lock().winsize
    }

    /// Changes the window's size and, if it differs, tells the foreground processes by `SIGWINCH`.
    pub fn set_winsize(&self, winsize: Winsize) {
        let foreground = {
            let mut state = self.state.lock();
            let changed = std::mem::replace(&mut state.winsize, winsize) != winsize;
            state.foreground.filter(|_| changed)
        };
        self.signal(foreground, Signal::SIGWINCH);
    }

    fn termios(&self) -> Termios {
        self.state.lock().ldisc.termios
    }

    fn set_termios(&self, termios: Termios) {
        {
            let mut state = self.state.lock();
            let old = state.ldisc.termios;
            let new = state.termios_lock.map_or(termios, |lock| termios.with_locked(&old, &lock));
            state.ldisc.set_termios(new);
            state.tell_changed(&old);
        }
        self.notify_both();
    }

    fn notify_both(&self) {
        self.master_events.notify(PollEvents::ALL);
        self.slave_events.notify(PollEvents::ALL);
    }

    /// Sends a signal to a process group; to nobody where it is gone.
    fn signal(&self, process_group: Option<i32>, signal: Signal) {
        if let (Some(kernel), Some(id)) = (self.kernel.upgrade(), process_group) {
            let _nobody = signal::send_to_process_group(&kernel, id, signal::SigInfo::kernel(signal));
        }
    }

    /// Types bytes at the terminal, as the master's writers do; tells how many were taken.
    ///
    /// # Errors
    /// `EAGAIN` where the slave's readers are behind; [`Self::master_events`] tell of room.
    pub fn type_bytes(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let (taken, effects, foreground, readable) = {
            let mut state = self.state.lock();
            let mut taken = 0;
            let mut all = Effects::default();
            // Room may come back on the way: a signal character throws input away.
            while let Some(rest) = bytes.get(taken..).filter(|r| !r.is_empty()) {
                let room = state.ldisc.room().min(rest.len());
                if room == 0 {
                    break;
                }
                let effects = state.ldisc.input(rest.get(..room).unwrap_or(rest));
                taken += room;
                if effects.flush {
                    state.output.clear();
                    state.tell(0, packet::FLUSHREAD | packet::FLUSHWRITE);
                    all.echo.clear();
                }
                if let Some(stopped) = effects.stop {
                    state.tell_stopped(stopped);
                }
                all.echo.extend(effects.echo);
                all.signals.extend(effects.signals);
            }
            if state.output.len() < ECHO_LIMIT {
                state.output.extend(&all.echo);
            }
            let readable = !all.echo.is_empty() || state.has_packet_status();
            (taken, all, state.foreground, readable)
        };
        for signal in effects.signals {
            self.signal(foreground, signal);
        }
        self.slave_events.notify(PollEvents::ALL);
        if readable {
            self.master_events.notify(PollEvents::READABLE | PollEvents::PRI);
        }
        if taken == 0 && !bytes.is_empty() { Err(Errno::EAGAIN) } else { Ok(taken) }
    }

    /// Takes what the terminal shows, as the master's readers do.
    ///
    /// # Errors
    /// `EAGAIN` where there is nothing, `EIO` where there is nothing and the slave was closed.
    pub fn take_output(&self, max: usize) -> Result<Vec<u8>, Errno> {
        let bytes: Vec<u8> = {
            let mut state = self.state.lock();
            if state.has_packet_status() {
                return Ok(vec![std::mem::take(&mut state.packet_status)]);
            }
            if state.output.is_empty() {
                let gone = state.opened && state.slaves == 0;
                return Err(if gone { Errno::EIO } else { Errno::EAGAIN });
            }
            let header = usize::from(state.packet_mode);
            let n = max.saturating_sub(header).min(state.output.len());
            std::iter::repeat_n(0, header).chain(state.output.drain(..n)).collect()
        };
        self.slave_events.notify(PollEvents::WRITABLE);
        Ok(bytes)
    }

    /// Is notified when the master's readers or writers may go on.
    #[must_use]
    pub const fn master_events(&self) -> &WaitQueue {
        &self.master_events
    }

    fn master_poll(&self) -> PollEvents {
        let state = self.state.lock();
        let mut events = PollEvents::NONE;
        if !state.output.is_empty() {
            events |= PollEvents::READABLE;
        }
        if state.has_packet_status() {
            events |= PollEvents::READABLE | PollEvents::PRI;
        }
        if state.ldisc.room() > 0 {
            events |= PollEvents::WRITABLE;
        }
        if state.opened && state.slaves == 0 {
            events |= PollEvents::HUP;
        }
        events
    }

    /// The master is gone: the slave's files see a terminal that was hung up, and the session's leader is told.
    fn close_master(&self) {
        let session = {
            let mut state = self.state.lock();
            state.master_closed = true;
            state.foreground = None;
            state.session.take()
        };
        self.hung_up.store(true, Ordering::SeqCst);
        self.notify_both();
        let Some(kernel) = self.kernel.upgrade() else { return };
        let Some(session) = session.and_then(|id| kernel.session(id)) else { return };
        drop(session.set_tty(None));
        if let Some(leader) = kernel.thread_group(session.id()) {
            for signal in [Signal::SIGHUP, Signal::SIGCONT] {
                // These are standard signals, which are never refused.
                let _sent = signal::send_to_group(&leader, signal::SigInfo::kernel(signal));
            }
        }
    }
}

impl Expire for Tty {
    fn expired(&self) {
        {
            let mut state = self.state.lock();
            state.timed_out = std::mem::take(&mut state.timer_armed);
        }
        self.slave_events.notify(PollEvents::READABLE);
    }
}

impl ControllingTty for Tty {
    fn foreground(&self) -> Option<i32> {
        self.state.lock().foreground
    }

    fn hang_up(&self) {
        let foreground = {
            let mut state = self.state.lock();
            state.session = None;
            state.foreground.take()
        };
        self.signal(foreground, Signal::SIGHUP);
    }

    fn device(&self) -> u64 {
        abi::stat::makedev(PTS_MAJOR, self.index)
    }
}
