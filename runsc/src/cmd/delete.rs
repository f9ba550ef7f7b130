//! `delete`: removes a container that has stopped.
use anyhow::{Result, bail};
use clap::Args;

use crate::cli::Global;
use crate::container::Container;
use crate::hooks;
use crate::state::{Folder, Status, check_id};

/// What `delete` takes.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Kill it first, if it runs; no error if there is none
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Name of the container
    pub(crate) id: String,
}

/// Deletes.
///
/// # Errors
/// When the container runs, or something of it cannot be removed.
pub(crate) fn run(global: &Global, args: &Delete) -> Result<i32> {
    check_id(&args.id)?;
    if args.force && !global.root.join(&args.id).exists() {
        return Ok(0);
    }
    let container = match Container::open(global, &args.id) {
        Ok(container) => container,
        // A folder without a state was never a container.
        Err(_) if args.force => {
            Folder::open(&global.root, &args.id)?.remove()?;
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    let lock = container.folder.lock()?;
    let status = container.state.status();
    if !args.force && !matches!(status, Status::Stopped | Status::Created) {
        bail!("cannot delete container {} that is not stopped: {}", args.id, status.name());
    }
    container.destroy()?;
    drop(lock);
    remove(container)?;
    Ok(0)
}

/// Removes what is left of a container without processes.
///
/// # Errors
/// When something of it cannot be removed.
pub(crate) fn remove(container: Container) -> Result<()> {
    let Container { folder, state } = container;
    state.groups.remove()?;
    folder.remove()?;
    hooks::run_all("poststop", &state.hooks.poststop, &state, Status::Stopped);
    Ok(())
}
