//! The system call table, its handlers, the one blocking loop, and strace.
//!
//! A handler is an ordinary function with typed arguments; [`table`] turns it into an entry. Files never block: they give
//! `EAGAIN`, and [`blocking`] waits.
#![forbid(unsafe_code)]

pub mod blocking;
pub mod cx;
pub mod decode;
mod dispatch;
mod entries;
pub mod strace;
pub mod table;

pub mod arch;
pub mod attr;
pub mod caps;
pub mod clone;
mod cmsg;
pub mod copy;
pub mod dir;
pub mod epoll;
pub mod eventfd;
pub mod exec;
pub mod exit;
pub mod fcntl;
pub mod fd;
pub mod futex;
pub mod ids;
pub mod inotify;
pub mod limits;
pub mod link;
pub mod lock;
pub mod memfd;
pub mod message;
pub mod misc;
pub mod mm;
pub mod mount;
pub mod mqueue;
mod observe;
pub mod open;
mod path;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod prctl;
pub mod process;
pub mod process_vm;
pub mod ptrace;
pub mod random;
pub mod read_write;
pub mod sched;
pub mod seccomp;
pub mod select;
pub mod signal;
pub mod sleep;
pub mod socket;
pub mod stat;
pub mod sync;
pub mod sysv;
pub mod time;
pub mod timer;
pub mod uname;
pub mod wait;
pub mod xattr;

pub use cx::Cx;
pub use dispatch::{Options, entry, install, support_table};
pub use entries::TABLE;
