//! The control socket: how the command line talks to a sentry.
mod channel;
mod message;

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};

pub use channel::{Channel, ChannelError};
pub use message::{ProcessInfo, Request, Response, Usage};

/// The socket's name in the container's state directory.
pub const SOCKET: &str = "control.sock";

/// Runs a call with an address for the socket in `dir`, however long the path of the directory is.
fn with_address<T>(dir: &Path, call: impl FnOnce(&UnixAddr) -> nix::Result<T>) -> io::Result<T> {
    let dir = std::fs::File::open(dir)?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    Ok(call(&UnixAddr::new(short.as_str())?)?)
}

fn stream() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

/// Makes the socket that a sentry listens on.
///
/// # Errors
/// Those of socket(2), bind(2) and listen(2).
pub fn listen_in(dir: &Path) -> io::Result<OwnedFd> {
    let listener = stream()?;
    with_address(dir, |address| bind(listener.as_raw_fd(), address))?;
    listen(&listener, Backlog::new(16)?)?;
    Ok(listener)
}

/// Connects to the sentry whose socket is in this directory.
///
/// # Errors
/// Those of socket(2) and connect(2).
pub fn connect_in(dir: &Path) -> io::Result<Channel> {
    let socket = stream()?;
    with_address(dir, |address| connect(socket.as_raw_fd(), address))?;
    Ok(Channel::new(socket))
}

/// A file in memory with this content, to be sent along with a message.
///
/// # Errors
/// Those of memfd_create(2) and write(2).
pub fn file_of(content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("state", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    Ok(file.into())
}

/// Asks the sentry whose socket is in this directory one question.
///
/// # Errors
/// [`ChannelError`]; an answer that is [`Response::Error`] is an answer.
pub fn ask(dir: &Path, request: &Request) -> Result<Response, ChannelError> {
    let channel = connect_in(dir)?;
    channel.send(request, &[])?;
    Ok(channel.receive()?.0)
}
