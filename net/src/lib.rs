//! Sockets.
#![forbid(unsafe_code)]

pub mod unix;
