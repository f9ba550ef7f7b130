//! A server over a scratch folder, and clients of it.

use abi::Errno;
use fs_9p::client::{Client, Options};
use fs_9p::localfs::{Export, LocalFs};
use fs_9p::server::{self, Limits, ServeError};
use nix::cmsg_space;
use nix::fcntl::{self, OFlag};
use nix::sys::socket::{self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType};
use nix::sys::stat::Mode;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

/// A folder that goes away with the value.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fs-9p-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a scratch folder");
        Self(path)
    }
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[expect(unsafe_code, reason = "owning a received descriptor takes it")]
fn own(fd: i32) -> OwnedFd {
    // SAFETY: the host has just made this descriptor for us, and nothing else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(crate) fn receive_fds(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<usize, Errno> {
    let mut control = cmsg_space!([i32; 253]);
    let mut iov = [IoSliceMut::new(buf)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let got = socket::recvmsg::<()>(fd.as_raw_fd(), &mut iov, Some(&mut control), flags)
        .map_err(|error| Errno::from_raw(error as i32).unwrap())?;
    for message in got.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(received) = message {
            fds.extend(received.into_iter().map(own));
        }
    }
    Ok(got.bytes)
}

pub(crate) fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    socket::socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).expect("a socketpair")
}

pub(crate) fn export(name: &str, path: &Path, writable: bool) -> Export {
    let root = fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).expect("the root");
    Export { name: name.into(), root, writable }
}

/// Serves exports from a thread; it ends with the connection.
pub(crate) fn serve(kind: SockType, exports: Vec<Export>, limits: Limits) -> OwnedFd {
    serve_until(kind, exports, limits).0
}

/// The same, with the thread, to see how it ends.
pub(crate) fn serve_until(
    kind: SockType,
    exports: Vec<Export>,
    limits: Limits,
) -> (OwnedFd, JoinHandle<Result<(), ServeError>>) {
    let (ours, theirs) = pair(kind);
    let fs = LocalFs::new(exports, LocalFs::open_proc_self_fd().unwrap()).unwrap();
    (ours, std::thread::spawn(move || server::serve(theirs, &fs, limits)))
}

pub(crate) fn extended() -> Options {
    Options { receive_fds: Some(receive_fds), ..Options::default() }
}

/// A client with the extension of a writable export of a folder.
pub(crate) fn connect(path: &Path) -> Arc<Client> {
    connect_with(path, Options::default().msize)
}

/// The same, with messages of a size.
pub(crate) fn connect_with(path: &Path, msize: u32) -> Arc<Client> {
    let socket = serve(SockType::SeqPacket, vec![export("0", path, true)], Limits::default());
    Client::connect(socket, Options { msize, ..extended() }).expect("a connection")
}

/// A client without the extension, over a stream.
pub(crate) fn connect_plain(path: &Path) -> Arc<Client> {
    let socket = serve(SockType::Stream, vec![export("0", path, true)], Limits::default());
    Client::connect(socket, Options::default()).expect("a connection")
}
