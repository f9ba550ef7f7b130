//! The systrap back end.
#![cfg(test)]

#[path = "suite/common.rs"]
mod common;
#[path = "suite/hostile.rs"]
mod hostile;
#[path = "suite/lifetimes.rs"]
mod lifetimes;
#[path = "suite/traps.rs"]
mod traps;
#[path = "suite/vdso.rs"]
mod vdso;

fn new() -> std::sync::Arc<dyn platform::Platform> {
    platform::systrap::Systrap::new(platform::systrap::Options::default()).expect("it works here")
}
