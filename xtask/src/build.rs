//! The release build of runsc: one static binary of less than 10 MB.

use crate::run;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The size that design §1 allows, stripped.
const LIMIT_BYTES: u64 = 10_000_000;

/// Builds a binary of a package with the given profile flags; gives its path.
///
/// # Errors
/// When the build fails.
pub(crate) fn cargo_build(package: &str, bin: &str, release: bool) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo.args(["build", "--quiet", "--package", package, "--bin", bin]);
    if release {
        cargo.arg("--release");
    }
    run::check(&mut cargo)?;
    let profile = if release { "release" } else { "debug" };
    Ok(run::workspace().join("target/x86_64-unknown-linux-gnu").join(profile).join(bin))
}

/// Builds runsc and puts it at target/release/runsc.
///
/// # Errors
/// When it does not build, is not static, or is too large.
pub(crate) fn release() -> Result<PathBuf> {
    let built = cargo_build("runsc", "runsc", true)?;
    let path = run::target("release")?.join("runsc");
    let bytes = std::fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    if has_interpreter(&bytes) {
        bail!("runsc asks for a loader: it is not static");
    }
    // Replaced by rename, so that a copy that runs right now stays whole.
    let fresh = path.with_extension("new");
    std::fs::copy(&built, &fresh)?;
    std::fs::rename(&fresh, &path)?;
    let size = stripped_size(&path)?;
    if size > LIMIT_BYTES {
        bail!("runsc has {size} bytes stripped, more than {LIMIT_BYTES}");
    }
    println!("  {} (static, {:.1} MB stripped)", path.display(), size as f64 / 1e6);
    Ok(path)
}

/// Builds containerd's shim and puts it at target/release/containerd-shim-runsc-v1.
///
/// # Errors
/// When it does not build.
pub(crate) fn shim() -> Result<PathBuf> {
    const NAME: &str = "containerd-shim-runsc-v1";
    let built = cargo_build("shim", NAME, true)?;
    let path = run::target("release")?.join(NAME);
    let fresh = path.with_extension("new");
    std::fs::copy(&built, &fresh)?;
    std::fs::rename(&fresh, &path)?;
    println!("  {}", path.display());
    Ok(path)
}

/// Whether an ELF image has a PT_INTERP header.
fn has_interpreter(elf: &[u8]) -> bool {
    let number = |at: usize, len: usize| {
        elf.get(at..at + len)
            .map_or(0usize, |b| b.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    };
    let (table, entry, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(table.saturating_add(index * entry), 4) == 3)
}

fn stripped_size(path: &std::path::Path) -> Result<u64> {
    let copy = run::target("tmp")?.join(run::unique("stripped"));
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&copy).arg(path);
    let stripped = run::output(&mut strip, Duration::from_secs(60)).is_ok_and(|out| out.code == 0);
    let size = std::fs::metadata(if stripped { &copy } else { path })?.len();
    if stripped {
        std::fs::remove_file(&copy)?;
    }
    Ok(size)
}
