//! Installs what the tests need, by apt, or names what is missing.

use crate::run;
use anyhow::{Result, bail};
use std::process::Command;
use std::time::Duration;

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status}", package]);
    run::output(&mut query, Duration::from_secs(20))
        .is_ok_and(|out| out.code == 0 && out.stdout == "installed")
}

/// Makes sure of these Debian packages.
///
/// # Errors
/// Names the packages that are missing and could not be installed.
pub(crate) fn ensure(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("  installing {}", missing.join(" "));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-o", "DPkg::Lock::Timeout=120", "-qq"])
            .args(args);
        run::output(&mut command, Duration::from_secs(400))
    };
    let failed = |out: &Result<run::Output>| !matches!(out, Ok(out) if out.code == 0);
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&missing);
    if failed(&apt(&install)) {
        let update = apt(&["update"]);
        let out = apt(&install);
        if failed(&update) && failed(&out) || failed(&out) {
            let why = out.map_or_else(|error| error.to_string(), |out| out.stderr);
            bail!("missing Debian packages, which apt-get could not install: {}\n{why}", missing.join(" "));
        }
    }
    Ok(())
}
