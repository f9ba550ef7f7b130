//! Memory managers over an address space that only keeps books.
mod calls;
mod fake;
mod faults;
mod fork;
mod model;
#[expect(unsafe_code, reason = "makes the same calls to the host")]
mod native;
mod ptrace;
mod threads;
