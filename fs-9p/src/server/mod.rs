//! A server of 9P2000.L over any [`Backend`].
//!
//! [`serve`] serves one connection until its end. Over a `SOCK_SEQPACKET` socket each message is a packet, several threads
//! receive and answer, and the extension is offered; over a stream socket one thread serves plain 9P2000.L or, when
//! it is a unix socket, the extension too. Where several threads serve, Tflush gets `EOPNOTSUPP`.

mod backend;
mod extension;
mod fids;
mod flight;
mod near;
mod serve;
mod session;

pub use backend::{Backend, Entry, Lock, MadeFile};
pub use serve::{ServeError, serve};

/// What one client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fids at a time; each may hold two descriptors of the host.
    pub fids: usize,
    /// Bytes of a message.
    pub msize: u32,
    /// Threads, the calling one included.
    pub threads: usize,
    /// Whether to offer the extension; only where descriptors can be sent, on unix sockets.
    pub extension: bool,
    /// Whether threads may bind themselves to the CPU that a client of the extension names.
    pub follow: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fids: 65536, msize: 128 << 10, threads: 4, extension: true, follow: false }
    }
}
