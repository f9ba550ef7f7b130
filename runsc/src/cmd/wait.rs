//! `wait`: waits for the end of a container.
use anyhow::Result;
use clap::Args;
use sandbox::control::{Request, Response};
use serde_json::json;

use crate::cli::Global;
use crate::container::Container;
use crate::log;
use crate::state::Status;

/// What `wait` takes.
#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// Wait for this process of the container
    #[arg(long)]
    pub(crate) pid: Option<i32>,
    /// Name of the container
    pub(crate) id: String,
}

/// Waits, and shows the exit status.
///
/// # Errors
/// When there is no such container or process.
pub(crate) fn run(global: &Global, args: &Wait) -> Result<i32> {
    let container = Container::open(global, &args.id)?;
    let code = match (container.state.status(), args.pid) {
        (Status::Stopped, None) => container.folder.exit_code(),
        _ => ask(&container, args.pid)?,
    };
    log::say(&json!({"id": args.id, "exitStatus": code}).to_string());
    Ok(0)
}

fn ask(container: &Container, pid: Option<i32>) -> Result<i32> {
    match container.ask(&Request::Wait { pid }) {
        Ok(Response::Exited { code }) => Ok(code),
        // The sentry may end before it has told everybody.
        _ if pid.is_none() && container.state.status() == Status::Stopped => Ok(container.folder.exit_code()),
        Ok(other) => anyhow::bail!("the sentry answers {other:?}"),
        Err(error) => Err(error),
    }
}
