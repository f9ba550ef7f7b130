//! A client of 9P2000.L that many threads share.
//!
//! [`Client::connect`] agrees with the server on the version; [`Client::attach`] gives the [`Fid`] of a tree's root, whose
//! methods are the protocol's messages. A fid is clunked when it is dropped, together with others and without waiting.
//!
//! Calls block until the reply is here. When the server ends the connection, breaks the protocol or does not answer within the
//! deadline, every call fails with `EIO`, now and later; so do replies that cannot be decoded. Nothing that a server sends
//! makes the client panic, hang beyond the deadline, or keep more than one message of memory for each call.
//!
//! Without a function that receives descriptors ([`Options::receive_fds`]) plain 9P2000.L is spoken. With it, and with a
//! server that knows the extension, `walk_attr`, `make` and the like take one round trip and bring descriptors;
//! otherwise they do the same by several plain messages, without descriptors.

mod extended;
mod fid;
mod files;
mod mux;
mod near;

use abi::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use sync::{LockClass, Mutex};

use crate::host::{Frame, ReceiveFds, Socket};
use crate::proto::{NOFID, NONUNAME, NOTAG, Qid, Rmessage, Str, Tmessage, VERSION, VERSION_EXTENDED};
use mux::{Answer, Mux};

pub use extended::{MadeFid, Walked};
pub use fid::Fid;
pub use files::{Listed, ListedFile};

/// Host calls that a client makes, beyond those of any Rust program (memory, futexes): `recvmsg` by the function of
/// [`Options::receive_fds`], otherwise `recvfrom`. [`Client::connect`] needs `getsockopt` and `setsockopt` once.
pub const HOST_SYSCALLS: &[&str] = &["sendmsg", "recvmsg", "recvfrom", "shutdown", "close"];

/// How a client is to behave.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a message, at most.
    pub msize: u32,
    /// Requests at a time; further callers wait.
    pub tags: u16,
    /// How long a server may take for one request before the connection counts as dead.
    pub deadline: Option<Duration>,
    /// Receives descriptors; without it the extension is not asked for.
    pub receive_fds: Option<ReceiveFds>,
}

impl Default for Options {
    fn default() -> Self {
        Self { msize: 128 << 10, tags: 64, deadline: Some(Duration::from_secs(60)), receive_fds: None }
    }
}

/// How many dropped fids are collected before they are clunked together.
const CLUNK_BATCH: usize = 16;

#[derive(Debug, Default)]
struct FidNumbers {
    next: u32,
    free: Vec<u32>,
    /// Dropped, to be clunked.
    dropped: Vec<u32>,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    mux: Mux,
    msize: u32,
    extended: bool,
    fids: Mutex<FidNumbers>,
}

/// A reply that is not what the request asks for is a fault of the server.
macro_rules! reply {
    ($answer:expr, $variant:ident $fields:tt => $result:expr) => {
        match crate::client::decode(&$answer)? {
            crate::proto::Rmessage::$variant $fields => Ok($result),
            _ => Err(abi::Errno::EIO),
        }
    };
}
use reply;

fn decode(answer: &Answer) -> Result<Rmessage<'_>, Errno> {
    match Rmessage::decode(&answer.bytes) {
        Ok((_, Rmessage::Rlerror { errno })) => Err(server_errno(errno)),
        Ok((_, message)) => Ok(message),
        Err(_) => Err(Errno::EIO),
    }
}

/// The error that a server tells: numbers that no system call returns are its fault.
fn server_errno(errno: u32) -> Errno {
    let known = i32::try_from(errno).ok().filter(|errno| *errno < 512);
    known.and_then(Errno::from_raw).unwrap_or(Errno::EIO)
}

impl Client {
    /// Agrees with the server at the other end of `socket`, a stream or `SOCK_SEQPACKET` socket, on version and sizes.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` when the server does not speak 9P2000.L, `EIO` when it speaks no 9P or not in time, those of
    /// getsockopt(2) and setsockopt(2).
    pub fn connect(socket: OwnedFd, options: Options) -> Result<Arc<Self>, Errno> {
        let socket = Socket::new(socket, options.receive_fds, options.deadline)?;
        let asked = if options.receive_fds.is_some() { VERSION_EXTENDED } else { VERSION };
        let mut message = Vec::new();
        let version = Tmessage::Tversion { msize: options.msize, version: Str(asked) };
        version.encode(NOTAG, &mut message).map_err(|_too_long| Errno::EINVAL)?;
        let mut frame = Frame::new(options.msize);
        let failed = |_errno| Errno::EIO;
        socket.send(&message, &[]).map_err(failed)?;
        let len = socket.receive(&mut frame, &mut Vec::new()).map_err(failed)?;
        let Ok((NOTAG, Rmessage::Rversion { msize, version })) = Rmessage::decode(frame.message(len)) else {
            return Err(Errno::EIO);
        };
        let extended = version.0 == VERSION_EXTENDED && options.receive_fds.is_some();
        if !extended && version.0 != VERSION {
            return Err(Errno::EPROTONOSUPPORT);
        }
        if msize < 4096 || msize > options.msize {
            return Err(Errno::EIO);
        }
        let mux = Mux::new(socket, msize, options.tags.clamp(2, NOTAG), options.deadline);
        let fids = Mutex::new(LockClass::Client, FidNumbers::default());
        Ok(Arc::new(Self { mux, msize, extended, fids }))
    }

    /// Whether both sides speak the extension.
    #[must_use]
    pub const fn extended(&self) -> bool {
        self.extended
    }

    /// Bytes of a message, at most.
    #[must_use]
    pub const fn msize(&self) -> u32 {
        self.msize
    }

    /// Tells whether the connection has ended; it stays so.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.mux.is_dead()
    }

    /// The root of the tree `aname`.
    ///
    /// # Errors
    /// `ENOENT` when the server has no such tree, `EIO`.
    pub fn attach(self: &Arc<Self>, aname: &[u8]) -> Result<(Fid, Qid), Errno> {
        let fid = self.new_fid()?;
        let answer = self.call(&Tmessage::Tattach {
            fid: fid.number(),
            afid: NOFID,
            uname: Str(b"root"),
            aname: Str(aname),
            n_uname: NONUNAME,
        });
        let qid = answer.and_then(|answer| reply!(answer, Rattach { qid } => qid));
        match qid {
            Ok(qid) => Ok((fid, qid)),
            Err(errno) => {
                fid.never_was();
                Err(errno)
            }
        }
    }

    fn call(&self, request: &Tmessage<'_>) -> Result<Answer, Errno> {
        self.clunk_dropped(CLUNK_BATCH);
        if self.extended
            && let Some(cpu) = self.mux.came_from()
        {
            self.mux.call_and_forget(&[], |tag, out| self.encode(&Tmessage::Tnear { cpu }, tag, out));
        }
        self.mux.call(|tag, out| self.encode(request, tag, out))
    }

    fn encode(&self, request: &Tmessage<'_>, tag: u16, out: &mut Vec<u8>) -> Result<(), Errno> {
        request.encode(tag, out).map_err(|_too_long| Errno::ENAMETOOLONG)?;
        match u32::try_from(out.len()) {
            Ok(len) if len <= self.msize => Ok(()),
            _ => Err(Errno::EMSGSIZE),
        }
    }

    /// A number that the server does not know, as a fid that is clunked when it is dropped.
    fn new_fid(self: &Arc<Self>) -> Result<Fid, Errno> {
        let clunked = self.mux.take_clunked();
        let number = {
            let mut fids = self.fids.lock();
            fids.free.extend(clunked);
            match fids.free.pop() {
                Some(number) => number,
                None if fids.next == NOFID => return Err(Errno::ENFILE),
                None => {
                    fids.next += 1;
                    fids.next - 1
                }
            }
        };
        Ok(Fid::new(Arc::clone(self), number))
    }

    fn fid_is_free(&self, number: u32) {
        self.fids.lock().free.push(number);
    }

    fn fid_was_dropped(&self, number: u32) {
        self.fids.lock().dropped.push(number);
    }

    /// Clunks dropped fids if there are this many of them, without waiting for the answer.
    fn clunk_dropped(&self, at_least: usize) {
        let dropped = {
            let mut fids = self.fids.lock();
            if fids.dropped.len() < at_least.max(1) {
                return;
            }
            // So many fit into any message.
            let keep = fids.dropped.len().saturating_sub(512);
            fids.dropped.split_off(keep)
        };
        let sent = if self.extended {
            let request = Tmessage::Tclunkmany { fids: dropped.clone() };
            usize::from(self.mux.call_and_forget(&dropped, |tag, out| self.encode(&request, tag, out)))
                * dropped.len()
        } else {
            let clunk = |fid: &&u32| {
                let request = Tmessage::Tclunk { fid: **fid };
                self.mux.call_and_forget(&[**fid], |tag, out| self.encode(&request, tag, out))
            };
            dropped.iter().take_while(clunk).count()
        };
        let rest = dropped.get(sent..).unwrap_or_default();
        if !rest.is_empty() && !self.is_dead() {
            self.fids.lock().dropped.extend_from_slice(rest);
        }
    }

    /// Clunks the fids that have been dropped, without waiting for the answer. Later calls do so by and by; this is for when
    /// none may follow and the server should close files.
    pub fn flush_dropped(&self) {
        self.clunk_dropped(1);
    }
}
