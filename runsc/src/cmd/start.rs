//! `start`: lets the program of a container run.
use anyhow::{Result, bail};
use clap::Args;
use sandbox::control::Request;

use crate::cli::Global;
use crate::container::Container;
use crate::hooks;
use crate::state::Status;

/// What `start` takes.
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// Name of the container
    pub(crate) id: String,
}

/// Starts.
///
/// # Errors
/// When the container does not wait for that, or its program cannot run.
pub(crate) fn run(global: &Global, args: &Start) -> Result<i32> {
    let mut container = Container::open(global, &args.id)?;
    let lock = container.folder.lock()?;
    container.state = container.folder.load()?;
    started(&mut container)?;
    drop(lock);
    Ok(0)
}

/// Starts a container that this process has the lock of, or that nobody else knows yet.
///
/// # Errors
/// As [`run`].
pub(crate) fn started(container: &mut Container) -> Result<()> {
    match container.state.status() {
        Status::Created => {}
        Status::Paused => bail!("cannot start a paused container"),
        Status::Running => bail!("cannot start an already running container"),
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Creating => bail!("cannot start a container that is being created"),
    }
    let hooks = container.state.hooks.clone();
    hooks::run("startContainer", &hooks.start_container, &container.state, Status::Created)?;
    container.ask(&Request::Start)?;
    container.state.started = true;
    container.folder.save(&container.state)?;
    hooks::run_all("poststart", &hooks.poststart, &container.state, Status::Running);
    Ok(())
}
