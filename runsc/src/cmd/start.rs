//! `start`: lets the program of a container run.
use std::fs::File;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use clap::Args;
use sandbox::control::{self, Request};
use sandbox::spec::Hook;

use crate::cli::Global;
use crate::container::{Container, oci_state};
use crate::hooks;
use crate::state::{State, Status};

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
    let_run(container, &hooks.start_container)?;
    container.state.started = true;
    container.folder.save(&container.state)?;
    hooks::run_all("poststart", &hooks.poststart, &container.state, Status::Running);
    Ok(())
}

/// Lets the program run, after programs of the container's own files that get its state on standard input.
fn let_run(container: &Container, hooks: &[Hook]) -> Result<()> {
    let request = Request::Start { hooks: hooks.to_vec() };
    if hooks.is_empty() {
        return container.ask(&request).map(drop);
    }
    // They see process ids as the container does.
    let inside = State { pid: 1, ..container.state.clone() };
    let state = control::file_of(oci_state(&inside, Status::Created).to_string().as_bytes())?;
    let null = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    container.ask_with(&request, &[state.as_fd(), null.as_fd()]).map(drop)
}
