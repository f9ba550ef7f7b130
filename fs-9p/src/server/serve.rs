//! The loop of a connection.

use super::Limits;
use super::backend::Backend;
use super::flight::Flight;
use super::near::Near;
use super::session::{Scratch, Session};
use crate::host::{Frame, Socket};
use crate::proto::{CodecError, Rmessage, Tmessage};
use abi::Errno;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, Scope};
use sync::{LockClass, Mutex};

/// Why a connection ended before the client ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeError {
    /// The socket failed.
    Socket(Errno),
    /// The client sent what is no message.
    Message(CodecError),
    /// The client used a tag again before it had the reply.
    Tag(u16),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(_) => f.write_str("the connection's socket failed"),
            Self::Message(_) => f.write_str("the client sent what is no message"),
            Self::Tag(tag) => write!(f, "the client used tag {tag} twice at a time"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket(errno) => Some(errno),
            Self::Message(error) => Some(error),
            Self::Tag(_) => None,
        }
    }
}

struct Server<'b, B: Backend> {
    session: Session<'b, B>,
    socket: Socket,
    limits: Limits,
    flight: Flight,
    near: Near,
    threads: AtomicUsize,
    /// Threads that wait for a message.
    idle: AtomicUsize,
    failed: Mutex<Option<ServeError>>,
}

/// Serves one client until it ends the connection. Starts further threads when messages come while all are busy.
///
/// # Errors
/// When the connection did not end but broke.
pub fn serve<B: Backend>(socket: OwnedFd, backend: &B, limits: Limits) -> Result<(), ServeError> {
    let socket = Socket::new(socket, None, None).map_err(ServeError::Socket)?;
    let server = Server {
        session: Session::new(backend, limits),
        socket,
        limits,
        flight: Flight::new(),
        near: Near::new(limits.follow),
        threads: AtomicUsize::new(1),
        idle: AtomicUsize::new(0),
        failed: Mutex::new(LockClass::Leaf, None),
    };
    std::thread::scope(|scope| server.work(scope));
    server.failed.into_inner().map_or(Ok(()), Err)
}

impl<B: Backend> Server<'_, B> {
    /// What each thread does.
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        if let Err(error) = self.run(scope) {
            self.failed.lock().get_or_insert(error);
        }
        self.socket.shut_down();
    }

    fn run<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> Result<(), ServeError> {
        let mut frame = Frame::new(self.limits.msize);
        let mut out = Vec::new();
        loop {
            self.idle.fetch_add(1, Ordering::SeqCst);
            let len = self.socket.receive(&mut frame, &mut Vec::new());
            let was_last = self.idle.fetch_sub(1, Ordering::SeqCst) == 1;
            let len = match len {
                Ok(0) | Err(Errno::ECONNRESET) => return Ok(()),
                Ok(len) => len,
                Err(errno) => return Err(ServeError::Socket(errno)),
            };
            if was_last && self.socket.packets() {
                self.start_thread(scope);
            }
            let (tag, request) = match Tmessage::decode(frame.message(len)) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.refuse(frame.message(len), error, &mut out)?;
                    continue;
                }
            };
            self.flight.start(tag).map_err(|_in_use| ServeError::Tag(tag))?;
            self.answer(tag, &request, &mut out)?;
            self.near.follow();
        }
    }

    fn start_thread<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let started = self.threads.fetch_add(1, Ordering::SeqCst);
        let name = format!("9p-{started}");
        // Without a further thread the others serve on.
        if started >= self.limits.threads
            || Builder::new()
                .name(name)
                .stack_size(128 << 10)
                .spawn_scoped(scope, || self.work(scope))
                .is_err()
        {
            self.threads.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Answers a message of an unknown type, which leaves the connection whole; anything else does not.
    fn refuse(&self, message: &[u8], error: CodecError, out: &mut Vec<u8>) -> Result<(), ServeError> {
        let (CodecError::Type(_), Some(tag)) = (error, message.get(5..).and_then(|rest| rest.first_chunk()))
        else {
            return Err(ServeError::Message(error));
        };
        let reply = Rmessage::Rlerror { errno: u32::from(Errno::EOPNOTSUPP.raw()) };
        self.send(u16::from_le_bytes(*tag), &reply, out, &[])
    }

    fn answer(&self, tag: u16, request: &Tmessage<'_>, out: &mut Vec<u8>) -> Result<(), ServeError> {
        let mut scratch = Scratch::default();
        let reply = match *request {
            Tmessage::Tflush { .. } => self.flush(),
            Tmessage::Tnear { cpu } if self.session.extended() => {
                self.near.set(cpu);
                Ok(Rmessage::Rnear {})
            }
            _ => self.session.handle(request, &mut scratch),
        };
        let reply = reply.unwrap_or_else(|errno| Rmessage::Rlerror { errno: u32::from(errno.raw()) });
        out.clear();
        let fits = reply.encode(tag, out).is_ok()
            && out.len() <= usize::try_from(self.session.msize().max(4096)).unwrap_or(usize::MAX);
        let donated = scratch.donated.as_ref().filter(|_| fits);
        let fd = donated.and_then(|handle| self.session.backend.donate(handle));
        let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        self.flight.finish(tag);
        if fits {
            self.socket.send(out, &fds).map_err(ServeError::Socket)
        } else {
            self.send(tag, &Rmessage::Rlerror { errno: u32::from(Errno::EMSGSIZE.raw()) }, out, &[])
        }
    }

    /// flush(5). One thread has answered every earlier request when it reads the next, so there is nothing left to wait
    /// for. Several do not know in which order they took two messages from the socket, and an Rflush that overtakes the
    /// reply to what it flushes would give that reply to the next request with the tag.
    fn flush(&self) -> Result<Rmessage<'static>, Errno> {
        if self.limits.threads > 1 && self.socket.packets() {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(Rmessage::Rflush {})
    }

    fn send(
        &self,
        tag: u16,
        reply: &Rmessage<'_>,
        out: &mut Vec<u8>,
        fds: &[RawFd],
    ) -> Result<(), ServeError> {
        out.clear();
        reply.encode(tag, out).map_err(ServeError::Message)?;
        self.socket.send(out, fds).map_err(ServeError::Socket)
    }
}
