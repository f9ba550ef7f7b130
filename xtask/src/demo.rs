//! `cargo xtask demo`: a program of this machine, in a sandbox.

use crate::{build, run};
use anyhow::Result;
use std::process::Command;

/// What the program is.
const SCRIPT: &str = "id; uname -a; ps; mount; cat /proc/self/maps";

/// Builds, and shows.
///
/// # Errors
/// When the build or the sandbox fails.
pub(crate) fn run() -> Result<()> {
    let runsc = build::release()?;
    println!("This machine:");
    run::check(Command::new("uname").arg("-a"))?;
    println!("\nA shell of this machine in a sandbox, its system calls answered by Sentrybox's kernel:");
    println!("$ runsc do -- sh -c '{SCRIPT}'");
    run::check(Command::new(runsc).args(["do", "--", "sh", "-c", SCRIPT]))
}
