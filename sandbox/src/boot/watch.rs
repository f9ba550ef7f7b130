//! What the sentry watches on the host beside the containers' streams: that gofers and stubs live, and the size of
//! a terminal that is its own.
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

use nix::sys::signalfd::{SfdFlags, SignalFd};
use sync::{LockClass, Mutex, PollEvents, Wake};

use super::container::Container;
use super::notifier::Notifier;
use super::report;
use crate::sys;

/// What is watched; it ends with this value.
#[derive(Debug)]
pub(super) struct Watch {
    _gofer: Arc<Gofer>,
    signals: Arc<Signals>,
}

/// Ends the sandbox when the gofer of its first container is gone.
struct Gofer {
    socket: OwnedFd,
}

/// Ends another container when its gofer is gone, and lets the gofer go when the container has ended.
pub(super) struct OtherGofer {
    socket: OwnedFd,
    container: Weak<Container>,
}

impl std::fmt::Debug for OtherGofer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OtherGofer")
    }
}

impl Wake for OtherGofer {
    fn wake(&self, events: PollEvents) {
        if events.intersects(PollEvents::HUP | PollEvents::ERR | PollEvents::RDHUP)
            && let Some(container) = self.container.upgrade()
        {
            container.abandon();
        }
    }
}

impl OtherGofer {
    /// Watches its socket.
    pub(super) fn watch(
        notifier: &Notifier,
        socket: OwnedFd,
        container: &Arc<Container>,
    ) -> nix::Result<Arc<Self>> {
        let this = Arc::new(Self { socket, container: Arc::downgrade(container) });
        let wake: Arc<dyn Wake> = this.clone();
        notifier.watch_end(this.socket.as_fd(), &wake)?;
        Ok(this)
    }
}

impl Drop for OtherGofer {
    fn drop(&mut self) {
        // One that is gone already needs no word.
        let _gone = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

impl Wake for Gofer {
    fn wake(&self, events: PollEvents) {
        if events.intersects(PollEvents::HUP | PollEvents::ERR | PollEvents::RDHUP) {
            report::killed("the gofer is gone");
        }
    }
}

/// What signals tell: that a stub ended, that a terminal has a new size.
struct Signals {
    signals: SignalFd,
    container: Mutex<Weak<Container>>,
}

impl Wake for Signals {
    fn wake(&self, _: PollEvents) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let Some(container) = self.container.lock().upgrade() else { continue };
            let platform = container.kernel.platform();
            let number = signal.ssi_signo.cast_signed();
            if number == platform::DEATH_SIGNAL {
                // For a signal other than SIGCHLD, Linux takes the codes of a child's end for those of SIGPOLL, whose
                // band lies where the process id does (`siginfo_layout`, kernel/signal.c).
                platform.child_ended(signal.ssi_band.cast_signed(), number);
            } else if number == libc::SIGCHLD {
                platform.child_ended(signal.ssi_pid.cast_signed(), number);
            } else if let Some(relay) = container.terminal(None) {
                relay.follow_size();
            }
        }
    }
}

/// What is watched.
const SIGNALS: [i32; 3] = [platform::DEATH_SIGNAL, libc::SIGCHLD, libc::SIGWINCH];

/// Blocks the signals that are watched; before the platform makes the first process, and the first thread is made.
pub(super) fn block_signals() -> nix::Result<()> {
    sys::no_stop_notices()?;
    sys::signal_set(&SIGNALS).thread_block()
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

impl std::fmt::Debug for Gofer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gofer")
    }
}

impl Watch {
    /// Watches the gofer's socket and the signals; before the filter.
    pub(super) fn new(notifier: &Notifier, gofer: OwnedFd) -> nix::Result<Self> {
        let gofer = Arc::new(Gofer { socket: gofer });
        let wake: Arc<dyn Wake> = gofer.clone();
        notifier.watch_end(gofer.socket.as_fd(), &wake)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&sys::signal_set(&SIGNALS), flags)?;
        let container = Mutex::new(LockClass::Leaf, Weak::new());
        let signals = Arc::new(Signals { signals, container });
        let wake: Arc<dyn Wake> = signals.clone();
        notifier.watch(signals.signals.as_fd(), &wake)?;
        Ok(Self { _gofer: gofer, signals })
    }

    /// Tells whose stubs and terminal the signals are about.
    pub(super) fn tell(&self, container: &Arc<Container>) {
        *self.signals.container.lock() = Arc::downgrade(container);
    }
}
