//! `state`: shows the state of a container as JSON.
use anyhow::Result;
use clap::Args;

use crate::cli::Global;
use crate::container::{Container, oci_state};
use crate::log;

/// What `state` takes.
#[derive(Args, Debug)]
pub(crate) struct State {
    /// Name of the container
    pub(crate) id: String,
}

/// Shows.
///
/// # Errors
/// When there is no such container.
pub(crate) fn run(global: &Global, args: &State) -> Result<i32> {
    let container = Container::open(global, &args.id)?;
    let state = oci_state(&container.state, container.state.status());
    log::say(&serde_json::to_string_pretty(&state)?);
    Ok(0)
}
