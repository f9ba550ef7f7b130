//! Local sockets, unix(7). They live in the sandbox only.

mod address;
mod file;
mod in_flight;
mod message;
mod options;
mod socket;
mod table;
mod transfer;

pub use address::{AF_UNIX, UnixAddress};
pub use file::{UnixFile, register};
pub use message::Sender;
pub use socket::{SocketType, UnixSocket};
pub use transfer::{ReceiveArgs, Received, SendArgs};

#[cfg(test)]
mod tests;
