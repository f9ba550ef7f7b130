//! Boots the sentry and the gofer in their namespaces and filters; the control socket.
//!
//! [`launch::launch`] is called by the command line; [`boot::main`], [`gofer::main`] and [`proxy::main`] are the
//! programs that it starts. [`control`] is what the command line and a sentry say to each other.

pub mod boot;
pub mod control;
pub mod gofer;
pub mod hook;
pub mod launch;
pub mod proxy;
mod seccomp;
pub mod spec;
mod sys;
mod timestamp;

pub(crate) use sys::exit_now;
pub use sys::{duplicate, pidfd, set_terminal_size, terminal_size};
pub use timestamp::timestamp;
