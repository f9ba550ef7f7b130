//! `pause` and `resume`: keeps the programs of a container from running, and lets them.
use anyhow::{Result, bail};
use clap::Args;
use sandbox::control::Request;

use crate::cli::Global;
use crate::container::Container;
use crate::state::Status;

/// What `pause` and `resume` take.
#[derive(Args, Debug)]
pub(crate) struct Pause {
    /// Name of the container
    pub(crate) id: String,
}

/// Pauses.
///
/// # Errors
/// When the container does not run.
pub(crate) fn pause(global: &Global, args: &Pause) -> Result<i32> {
    change(global, args, true)
}

/// Resumes.
///
/// # Errors
/// When the container is not paused.
pub(crate) fn resume(global: &Global, args: &Pause) -> Result<i32> {
    change(global, args, false)
}

fn change(global: &Global, args: &Pause, paused: bool) -> Result<i32> {
    let mut container = Container::open(global, &args.id)?;
    let _lock = container.folder.lock()?;
    container.state = container.folder.load()?;
    match (container.state.status(), paused) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {}
        (status, true) => bail!("cannot pause a container that is {}", status.name()),
        (status, false) => bail!("cannot resume a container that is {}, not paused", status.name()),
    }
    container.ask(if paused { &Request::Pause } else { &Request::Resume })?;
    container.state.paused = paused;
    container.folder.save(&container.state)?;
    Ok(0)
}
