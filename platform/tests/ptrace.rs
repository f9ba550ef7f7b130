//! The ptrace back end.
#![cfg(test)]

#[path = "suite/common.rs"]
mod common;
#[path = "suite/decode.rs"]
mod decode;
#[path = "suite/lifetimes.rs"]
mod lifetimes;
#[path = "suite/traps.rs"]
mod traps;
#[path = "suite/vdso.rs"]
mod vdso;

fn new() -> std::sync::Arc<dyn platform::Platform> {
    platform::ptrace::Ptrace::new().expect("it works here")
}
