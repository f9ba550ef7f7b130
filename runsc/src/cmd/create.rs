//! `create`: everything of a container but its program's first step.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use sandbox::spec::Spec;

use crate::cli::Global;
use crate::console;
use crate::launch::{self, Streams};

/// What `create` takes.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Directory of the bundle
    #[arg(short, long, default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// File that the process id is written to
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Socket that the terminal is sent to
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// Accepted for other runtimes' sake: the sandbox has no keys of the host
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Accepted for other runtimes' sake: the sandbox pivots by itself
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// How many descriptors above 2 the program gets
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Name of the container
    pub(crate) id: String,
}

/// Reads a bundle: its absolute path, and its configuration.
///
/// # Errors
/// When it cannot be run.
pub(crate) fn load(bundle: &Path) -> Result<(PathBuf, Spec)> {
    let bundle = std::path::absolute(bundle).context("bundle")?;
    let spec = Spec::load(&bundle)?;
    Ok((bundle, spec))
}

/// Writes a process id where the caller wants to find it, in one step.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_pid(file: Option<&PathBuf>, pid: i32) -> Result<()> {
    let Some(path) = file else { return Ok(()) };
    let mut name = path.file_name().context("the pid file has no name")?.to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    std::fs::write(&fresh, pid.to_string()).with_context(|| format!("write {}", fresh.display()))?;
    std::fs::rename(&fresh, path).with_context(|| format!("write {}", path.display()))
}

/// Creates.
///
/// # Errors
/// When that is not possible; then nothing of the container is left.
pub(crate) fn run(global: &Global, args: &Create) -> Result<i32> {
    let (bundle, spec) = load(&args.bundle)?;
    let process = spec.process()?;
    let streams = match (process.terminal, &args.console_socket) {
        (true, Some(socket)) => console::for_socket(socket, process.console_size)?,
        (true, None) => anyhow::bail!("process.terminal needs --console-socket"),
        (false, _) => Streams::inherit()?,
    };
    let streams = streams.with_preserved(args.preserve_fds)?;
    let created = launch::create(global, &args.id, &bundle, &spec, streams)?;
    if let Err(error) = write_pid(args.pid_file.as_ref(), created.launched.sentry) {
        created.container.destroy()?;
        super::delete::remove(created.container)?;
        return Err(error);
    }
    Ok(0)
}
