//! Docker with runsc as its runtime, by a dockerd of our own: what `docker run` can be asked for compared with runc, and what
//! a user does with containers.

mod build;
mod daemon;
mod files;
mod life;
mod options;
mod terminal;

use crate::bundle::Runtime;
use crate::report::Report;
use crate::{Options, apt, rootfs};
use anyhow::{Result, ensure};
use daemon::Dockerd;

/// One thing that must work.
type Case = (&'static str, fn(&Dockerd) -> Result<()>);

/// Runs every case.
///
/// # Errors
/// When docker cannot be installed or started.
pub(crate) fn run(options: &Options) -> Result<Report> {
    apt::ensure(&["docker.io", "docker-compose", "runc", "tini"])?;
    let root = rootfs::ensure(false)?;
    let runtime = Runtime::from_options(options)?;
    let daemon = Dockerd::start(&runtime)?;
    daemon.image(&root)?;
    let mut report = Report::default();
    for (name, flags, command) in options::COMPARED.iter().filter(|(name, ..)| options.selects(name)) {
        report.record(&format!("docker run: {name}"), compare(&daemon, flags, command));
    }
    for (name, case) in [life::CASES, files::CASES, terminal::CASES, options::CASES, build::CASES].concat() {
        if options.selects(name) {
            report.record(&format!("docker: {name}"), case(&daemon));
        }
    }
    Ok(report)
}

/// Runs a command by both runtimes: output and exit status must be the same.
fn compare(daemon: &Dockerd, flags: &[&str], command: &[&str]) -> Result<()> {
    let by = |runtime: &str| {
        let runtime = format!("--runtime={runtime}");
        let mut all = vec!["run", "--rm", "--network=none", &runtime];
        all.extend(flags);
        all.push(daemon::IMAGE);
        all.extend(command);
        daemon.docker(&all)
    };
    let want = by("runc")?;
    let got = by("runsc")?;
    ensure!(want == got, "prints {got:?}, by runc {want:?}");
    Ok(())
}
