//! Carries bytes between a terminal of the container and what stands for it on the host.
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use abi::termios::Winsize;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sync::{PollEvents, WaitQueue, Waiter, Wake};
use vfs::OpCx;
use vfs::tty::{Devpts, Master, Tty};

use crate::spec::ConsoleSize;

/// The stack of a thread that copies bytes.
const STACK: usize = 128 << 10;
/// How many bytes move at a time.
const CHUNK: usize = 4096;

/// A terminal of the container and the host's side of it.
#[derive(Debug)]
pub(crate) struct Relay {
    master: Arc<Master>,
    input: OwnedFd,
    output: OwnedFd,
    /// Everything that the container wrote is on the host.
    drained: AtomicBool,
    done: WaitQueue,
}

impl Relay {
    /// Makes a terminal for these descriptors: one to read from and write to, or standard streams.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn new(
        devpts: &Arc<Devpts>,
        cx: &OpCx<'_>,
        streams: Vec<OwnedFd>,
        size: Option<ConsoleSize>,
    ) -> Result<Arc<Self>, String> {
        let mut streams = streams.into_iter();
        let input = streams.next().ok_or("a terminal needs a descriptor")?;
        let output = match streams.next() {
            Some(output) => output,
            None => input.try_clone().map_err(|e| e.to_string())?,
        };
        let master = devpts.open_master(cx).map_err(|e| e.to_string())?;
        master.tty().unlock();
        let (rows, columns) = match size {
            Some(size) => (size.height, size.width),
            None => crate::terminal_size(input.as_fd()).unwrap_or((0, 0)),
        };
        let relay = Self { master, input, output, drained: AtomicBool::new(false), done: WaitQueue::new() };
        relay.resize(rows, columns);
        Ok(Arc::new(relay))
    }

    /// The terminal.
    pub(super) fn tty(&self) -> &Arc<Tty> {
        self.master.tty()
    }

    /// Tells the container a new size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        self.tty().set_winsize(Winsize { row: rows, col: columns, xpixel: 0, ypixel: 0 });
    }

    /// Tells the container the size that the host's terminal has now.
    pub(crate) fn follow_size(&self) {
        if let Ok((rows, columns)) = crate::terminal_size(self.input.as_fd()) {
            self.resize(rows, columns);
        }
    }

    /// Starts to carry.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let spawn = |name: &str, run: fn(&Self)| {
            let this = Arc::clone(self);
            std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || run(&this))
        };
        spawn("terminal-in", Self::carry_in)?;
        spawn("terminal-out", Self::carry_out)?;
        Ok(())
    }

    /// Waits until what the container wrote is on the host, as long as that makes progress.
    pub(crate) fn drain(&self, deadline: std::time::Instant) {
        let waiter = Waiter::new();
        let key = self.done.register(PollEvents::ALL, Arc::clone(&waiter) as Arc<dyn Wake>);
        while !self.drained.load(Ordering::SeqCst) {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                break;
            }
            waiter.wait(Some(left));
        }
        self.done.unregister(key);
    }

    /// From the host to the container, until the host's side is closed.
    fn carry_in(&self) {
        let mut buffer = [0; CHUNK];
        loop {
            let mut fds = [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => continue,
                Err(_) => break,
                Ok(_) => {}
            }
            match nix::unistd::read(&self.input, &mut buffer) {
                Ok(0) => break,
                Ok(n) => self.type_all(buffer.get(..n).unwrap_or_default()),
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                Err(_) => break,
            }
        }
    }

    fn type_all(&self, mut bytes: &[u8]) {
        let waiter = Waiter::new();
        let wake = Arc::clone(&waiter) as Arc<dyn Wake>;
        let key = self.tty().master_events().register(PollEvents::ALL, wake);
        while !bytes.is_empty() {
            match self.tty().type_bytes(bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(Errno::EAGAIN) => {
                    waiter.wait(None);
                }
                Err(_) => break,
            }
        }
        self.tty().master_events().unregister(key);
    }

    /// From the container to the host, until nobody has the container's side open.
    fn carry_out(&self) {
        let waiter = Waiter::new();
        let wake = Arc::clone(&waiter) as Arc<dyn Wake>;
        let key = self.tty().master_events().register(PollEvents::ALL, wake);
        loop {
            match self.tty().take_output(CHUNK) {
                Ok(bytes) => {
                    if self.write_all(&bytes).is_err() {
                        break;
                    }
                }
                Err(Errno::EAGAIN) => {
                    waiter.wait(None);
                }
                Err(_) => break,
            }
        }
        self.tty().master_events().unregister(key);
        self.drained.store(true, Ordering::SeqCst);
        self.done.notify(PollEvents::ALL);
    }

    fn write_all(&self, mut bytes: &[u8]) -> nix::Result<()> {
        while !bytes.is_empty() {
            match nix::unistd::write(&self.output, bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => {
                    let mut fds = [PollFd::new(self.output.as_fd(), PollFlags::POLLOUT)];
                    // Whatever it says, the next write tells.
                    let _ready = poll(&mut fds, PollTimeout::NONE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
