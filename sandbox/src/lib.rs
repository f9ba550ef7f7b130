//! Boots the sentry and the gofer in their namespaces and filters; the control socket.
//!
//! [`launch::launch`] is called by the command line; [`boot::main`] and [`gofer::main`] are the two programs that it
//! starts. [`control`] is what the command line and a sentry say to each other.

pub mod boot;
pub mod control;
pub mod gofer;
pub mod launch;
mod seccomp;
pub mod spec;
mod sys;
mod timestamp;

pub use sys::{become_proxy, duplicate, exit_now, fork, pidfd, set_terminal_size, terminal_size};
pub use timestamp::timestamp;
