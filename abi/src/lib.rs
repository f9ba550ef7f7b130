//! Linux constants, wire structs, errors and system call numbers, for x86-64.
//!
//! Layouts and values are those of Linux's user-space headers; tests hold them against `linux-raw-sys`. No I/O.
#![no_std]
#![forbid(unsafe_code)]

pub mod elf;
pub mod errno;
pub mod fs;
pub mod ipc;
pub mod mman;
pub mod ptrace;
pub mod regs;
pub mod resource;
pub mod sched;
pub mod sigframe;
pub mod siginfo;
pub mod signal;
pub mod stat;
pub mod sysno;
pub mod termios;
pub mod time;
pub mod uio;

pub use errno::Errno;
pub use regs::Registers;
pub use signal::{SigSet, Signal};
