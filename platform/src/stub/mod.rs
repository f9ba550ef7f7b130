//! Stub processes: where guest code lives, shared by the back ends that run it on the host's own system calls.
//!
//! A stub is a process that holds nothing but guest mappings, one small region of ours at [`layout::BASE`], and the
//! host's vDSO. All stubs are forked from one *template*, which the sentry makes while it starts and which has left the
//! sentry's memory, so a new address space costs one fork of a nearly empty process.
//!
//! The first thread of a stub is its *mapper*. It has no stack and no writable memory: it takes requests from a page that
//! only the sentry can write, keeps its state in registers, and answers by adding a constant of its code region to an
//! eventfd. Guest threads of the same process can therefore neither change what it does nor forge its answers; they
//! cannot make host system calls at all. That is also why stubs may share the sentry's table of open files
//! (`CLONE_FILES`), which lets a request name any file that the sentry has open.
//!
//! Guest threads are threads of the stub, which the mapper clones into an endless pause(2); the back end takes them from
//! there.

pub(crate) mod blob;
pub(crate) mod control;
pub(crate) mod filter;
pub(crate) mod layout;
pub(crate) mod lock;
pub(crate) mod mapper;
pub(crate) mod mapping;
pub(crate) mod process;
pub(crate) mod template;

/// What makes a stub's guest threads stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// A tracer.
    Traced,
    /// Their filter, and signals.
    Trapping,
}
