//! The sentry's side of the connection to its gofer.
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use abi::Errno;
use fs_9p::client::{Client, Options};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::sys;

/// The most descriptors that can come with one message, Linux `SCM_MAX_FD`: with room for them all none is lost.
const MAX_FDS: usize = 253;

/// recvmsg(2), once, as [`Options::receive_fds`] wants it.
fn receive_fds(socket: BorrowedFd<'_>, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut iov = [IoSliceMut::new(into)];
    let ours = |error: nix::Error| Errno::from_raw(error as i32).unwrap_or(Errno::EIO);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags).map_err(ours)?;
    // The list is cut short only where this process may have no more descriptors: then none has come.
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(raw) = control {
            fds.extend(sys::own_received(&raw));
        }
    }
    Ok(message.bytes)
}

/// Connects to a gofer. The mounts are made from the client by `fs_9p::vfs::mount(&client, b"0", …)`, the name being the index of the tree.
///
/// # Errors
/// Those of [`Client::connect`].
pub(crate) fn connect(socket: OwnedFd) -> Result<Arc<Client>, Errno> {
    Client::connect(socket, Options { receive_fds: Some(receive_fds), ..Options::default() })
}
