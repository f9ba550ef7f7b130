//! Tracing, ptrace(2): a thread whose stops, system calls and signals another thread decides over.
//!
//! Who traces whom is part of the task tree ([`Link`]), under its lock. What the two threads have in common is in the traced
//! thread's [`Tracing`]: while it is stopped, its registers lie there, and its host thread waits for the tracer.

mod link;
mod state;
mod stop;
mod tracee;

pub use link::{Attach, may_access};
pub(crate) use link::{follow, foreign_tracer, has_zombie_threads, rename};
pub use state::Resume;
pub use stop::Syscall;
pub use tracee::Tracee;

pub(crate) use link::Link;
pub(crate) use state::{Tracing, watch};
