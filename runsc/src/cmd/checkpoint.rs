//! `checkpoint` and `restore`: not there yet.
use anyhow::{Result, bail};
use clap::Args;

use crate::cli::Global;
use crate::container::Container;

/// What `checkpoint` and `restore` take.
#[derive(Args, Debug)]
pub(crate) struct Checkpoint {
    /// Options of other runtimes, and the name of the container
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Says that it cannot.
///
/// # Errors
/// Always: that there is no such container, or that it cannot be done.
pub(crate) fn checkpoint(global: &Global, args: &Checkpoint) -> Result<i32> {
    if let Some(id) = args.args.last().filter(|arg| !arg.starts_with('-')) {
        Container::open(global, id)?;
    }
    bail!("checkpoint is not supported yet")
}

/// Says that it cannot.
///
/// # Errors
/// Always.
pub(crate) fn restore() -> Result<i32> {
    bail!("restore is not supported yet")
}
