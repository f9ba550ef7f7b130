//! Traps: runs guest code and hands its system calls, faults and exceptions to the sentry.
//!
//! The seam between the sentry and the mechanism that confines guest code. A [`Platform`] makes address spaces; an
//! [`AddressSpace`] shows the guest parts of files that the sentry holds open; a [`Context`] is one guest thread's place
//! in one address space, owned by the host thread that serves that guest thread.
#![expect(unsafe_code, reason = "it makes and drives processes that run guest code")]

mod cpu;
mod fpu;
mod host;
pub mod patch;
pub mod ptrace;
mod registers;
mod stub;
mod sys;
pub mod systrap;
mod traits;
mod vsyscall;

pub use host::{HostAuxv, host_auxv};
pub use stub::template::DEATH_SIGNAL;
pub use traits::{
    Access, AddressSpace, Change, Context, FaultAccess, FpuState, Interrupt, Platform, PlatformError,
    StubDeathHook, Trap,
};
