//! Terminals of the host.
use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use sandbox::spec::ConsoleSize;

use crate::launch::Streams;

/// This process's own terminal, for a program that wants one.
///
/// # Errors
/// When it cannot be duplicated.
pub(crate) fn own(wanted: bool) -> Result<Option<OwnedFd>> {
    let stdin = std::io::stdin();
    Ok(if wanted && stdin.is_terminal() { Some(stdin.as_fd().try_clone_to_owned()?) } else { None })
}

/// That terminal, or the streams of this process.
///
/// # Errors
/// When one cannot be duplicated.
pub(crate) fn streams(tty: Option<&OwnedFd>) -> Result<Streams> {
    match tty {
        Some(tty) => Ok(Streams { fds: vec![tty.try_clone()?], own_terminal: false }),
        None => Streams::inherit(),
    }
}

/// Makes a terminal, whose other end goes to who listens on a socket.
///
/// # Errors
/// When there is no terminal to be had, or nobody listens.
pub(crate) fn for_socket(socket: &Path, size: Option<ConsoleSize>) -> Result<Streams> {
    let pty = nix::pty::openpty(None, None).context("make a terminal")?;
    // The line discipline is the container's own terminal's; this one only carries bytes.
    let mut settings = tcgetattr(&pty.slave).context("terminal")?;
    cfmakeraw(&mut settings);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).context("terminal")?;
    if let Some(size) = size {
        sandbox::set_terminal_size(pty.master.as_fd(), size.height, size.width).context("terminal")?;
    }
    let name = nix::unistd::ttyname(&pty.slave).context("terminal")?;
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    let fds = [pty.master.as_raw_fd()];
    let bytes = [std::io::IoSlice::new(name.as_os_str().as_encoded_bytes())];
    sendmsg::<()>(
        stream.as_raw_fd(),
        &bytes,
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .context("send the terminal")?;
    Ok(Streams { fds: vec![pty.slave], own_terminal: true })
}
