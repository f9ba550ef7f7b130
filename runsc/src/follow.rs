//! Stays with a program that runs in the foreground: passes signals on, and waits for its end.
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use sandbox::control::{Channel, Request, Response};
use sandbox::launch::killed_by;
use sandbox::proxy::{Proxy, Ready};

/// What is passed on to the program.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
];

/// A terminal in raw mode; as it was when dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    fd: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Makes it raw.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self> {
        let before = tcgetattr(&fd).context("terminal")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&fd, SetArg::TCSANOW, &raw).context("terminal")?;
        Ok(Self { fd, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _gone = tcsetattr(&self.fd, SetArg::TCSADRAIN, &self.before);
    }
}

/// The signals that concern us, from now on as events.
fn events() -> Result<SignalFd> {
    let mut set: SigSet = PASSED_ON.iter().copied().collect();
    set.add(Signal::SIGCHLD);
    set.add(Signal::SIGWINCH);
    set.thread_block().context("block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("signalfd")
}

/// Passes a signal on.
fn pass_on(signal: u32, channel: &Channel, pid: Option<i32>, terminal: Option<&OwnedFd>) {
    let Ok(signal) = i32::try_from(signal) else { return };
    let request = if signal == Signal::SIGWINCH as i32 {
        let Some(Ok((rows, columns))) = terminal.map(|tty| sandbox::terminal_size(tty.as_fd())) else {
            return;
        };
        Request::Resize { pid, rows, columns }
    } else {
        Request::Signal { pid, signal, all: false }
    };
    // A program that has ended needs no signal; the answer comes with those that nobody waits for.
    let _ended = channel.send(&request, &[]);
}

/// Whether it says that a child ended.
fn is_child(info: &nix::sys::signalfd::siginfo) -> bool {
    i32::try_from(info.ssi_signo) == Ok(Signal::SIGCHLD as i32)
}

/// Stays with the first process of a container whose sentry is our child; its exit code.
///
/// # Errors
/// When the sentry cannot be waited for.
pub(crate) fn sentry(pid: i32, channel: &Channel, terminal: Option<&OwnedFd>) -> Result<i32> {
    let signals = events()?;
    // Whoever kills this process means the container. One that has ended already cannot be told, and need not.
    let _ended = channel.send(&Request::Attach, &[]);
    loop {
        match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => bail!("the sentry was {}", killed_by(signal)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the sentry"),
        }
        if let Some(info) = signals.read_signal().context("signalfd")?
            && !is_child(&info)
        {
            pass_on(info.ssi_signo, channel, None, terminal);
        }
    }
}

/// Stays with another process of a container, or the first of one in another's sandbox, told of by its connection; its exit
/// code.
///
/// # Errors
/// When the sentry is gone.
pub(crate) fn process(pid: Option<i32>, channel: &Channel, terminal: Option<&OwnedFd>) -> Result<i32> {
    stay(&events()?, pid, channel, terminal)
}

/// The same, as a process that stays behind: tells the launcher when signals are passed on.
///
/// # Errors
/// As [`process`].
pub(crate) fn proxy(proxy: &Proxy, ready: Ready) -> Result<i32> {
    let signals = events()?;
    ready.tell()?;
    stay(&signals, proxy.pid, &proxy.channel, proxy.terminal.as_ref())
}

fn stay(signals: &SignalFd, pid: Option<i32>, channel: &Channel, terminal: Option<&OwnedFd>) -> Result<i32> {
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(channel.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let [signal, answer] = fds.map(|fd| fd.any().unwrap_or(false));
        if answer {
            match channel.receive::<Response>() {
                Ok((Response::Exited { code }, _)) => return Ok(code),
                Ok(_) => {}
                Err(_) => bail!("the container has ended"),
            }
        }
        if signal
            && let Some(info) = signals.read_signal().context("signalfd")?
            && !is_child(&info)
        {
            pass_on(info.ssi_signo, channel, pid, terminal);
        }
    }
}
