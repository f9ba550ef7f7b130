//! `ps`: the processes of a container.
use anyhow::{Result, bail, ensure};
use clap::Args;
use sandbox::control::{Request, Response};
use serde_json::json;

use super::list::Format;
use crate::cli::Global;
use crate::container::Container;
use crate::log;
use crate::state::Status;

/// What `ps` takes.
#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// How to show them
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Name of the container
    pub(crate) id: String,
    /// Accepted for other runtimes' sake
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

/// Lists the processes.
///
/// # Errors
/// When the container does not run.
pub(crate) fn run(global: &Global, args: &Ps) -> Result<i32> {
    let container = Container::open(global, &args.id)?;
    if args.format == Format::Json {
        // What managers of containers read are processes of the host: all of the container is the sentry, for those.
        ensure!(container.state.status() != Status::Stopped, "container not running");
        log::say(&json!([container.state.pid]).to_string());
        return Ok(0);
    }
    table(&container)?;
    Ok(0)
}

/// Shows the sandbox's own processes, for people.
///
/// # Errors
/// When the container does not run.
pub(crate) fn table(container: &Container) -> Result<()> {
    let Response::Processes(list) = container.ask(&Request::Processes)? else {
        bail!("the sentry answers something else");
    };
    log::say(&format!("{:<8} {:<8} {:<8} CMD", "UID", "PID", "PPID"));
    for process in &list {
        log::say(&format!("{:<8} {:<8} {:<8} {}", process.uid, process.pid, process.ppid, process.name));
    }
    Ok(())
}
