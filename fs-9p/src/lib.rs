//! 9P2000.L: messages, client and server, each usable without the others.
//!
//! | feature | module | holds |
//! |---|---|---|
//! | always | [`proto`] | the messages, as pure functions of bytes; `no_std` with `alloc` |
//! | `client` | `client` | a client that many threads share |
//! | `server` | `server` | a server over any back end |
//! | `localfs` | `localfs` | the back end that serves folders and files of the host |
//! | `vfs` | `vfs` | the file system that shows what a gofer serves, for the sentry |
#![cfg_attr(not(any(feature = "client", feature = "server", test)), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "client")]
pub mod client;
#[cfg(any(feature = "client", feature = "server"))]
mod host;
#[cfg(feature = "localfs")]
pub mod localfs;
pub mod proto;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "vfs")]
pub mod vfs;

#[cfg(any(feature = "client", feature = "server"))]
pub use host::ReceiveFds;
