//! Our own suite over the MUSTs of the OCI runtime specification and the command line that managers of containers use. It
//! proves itself by passing when pointed at runc: `cargo xtask oci --runtime runc`.

mod events;
mod exec;
mod files;
mod hooks;
mod inside;
mod life;
mod namespaces;
mod process;
mod security;
mod subject;
mod users;

use crate::bundle::Runtime;
use crate::report::Report;
use crate::{Options, apt, build, rootfs, run};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use subject::Subject;

/// What a container must be like inside: a configuration, a script, and what that prints.
#[derive(Debug)]
struct Inside {
    name: &'static str,
    /// Changes to the plain configuration, a JSON merge patch (RFC 7386); the list of a key that ends with `+` is added to.
    patch: &'static str,
    script: &'static str,
    want: &'static str,
}

/// What a runtime must do.
type Case = (&'static str, fn(&Subject) -> Result<()>);

/// Newer than the runc of Debian, or beyond what it does: not asked of another runtime.
const OURS: &str = "ours: ";

/// Runs every case.
///
/// # Errors
/// When the runtime cannot be built.
pub(crate) fn run(options: &Options) -> Result<Report> {
    apt::ensure(&["runc", "python3"])?;
    let root = rootfs::ensure(false)?;
    let path = match options.runtime.as_deref() {
        None | Some("runsc") => build::release()?,
        Some(path) if path.contains('/') => std::path::absolute(path)?,
        Some(name) => PathBuf::from(name),
    };
    let state = run::target("state")?.join(run::unique("oci"));
    std::fs::create_dir_all(&state)?;
    let mut runtime = Runtime { path, flags: Vec::new(), root: state };
    if runtime.is_ours() {
        runtime.flags.push("--network=none".to_owned());
        runtime.flags.extend(options.platform.iter().map(|platform| format!("--platform={platform}")));
    }
    let ours = runtime.is_ours();
    let subject = Subject { runtime, root };
    let mut report = Report::default();
    let selected = |name: &str| options.selects(name) && (ours || !name.starts_with(OURS));
    let tables = [process::INSIDE, files::INSIDE, security::INSIDE, inside::INSIDE, users::INSIDE];
    for case in tables.into_iter().flatten().filter(|case| selected(case.name)) {
        report.record(case.name, inside(&subject, case));
    }
    let lists = [
        process::CASES,
        files::CASES,
        security::CASES,
        life::CASES,
        exec::CASES,
        hooks::CASES,
        users::CASES,
        events::CASES,
        namespaces::CASES,
    ];
    for (name, case) in lists.into_iter().flatten().filter(|(name, _)| selected(name)) {
        report.record(name, case(&subject).and_then(|()| subject.left_nothing()));
    }
    Ok(report)
}

fn inside(subject: &Subject, case: &Inside) -> Result<()> {
    let out = subject.run_script(case.patch, case.script)?;
    ensure!(
        out.code == 0 && out.stdout.trim_end() == case.want,
        "prints {:?} (status {}, {:?}), not {:?}",
        out.stdout.trim_end(),
        out.code,
        out.stderr.trim_end(),
        case.want
    );
    Ok(())
}
