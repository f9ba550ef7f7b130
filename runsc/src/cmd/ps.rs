//! `ps`: the processes of a container.
use anyhow::{Context, Result, bail, ensure};
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
        ensure!(container.state.status() != Status::Stopped, "container not running");
        log::say(&json!(host_processes(&container)?).to_string());
        return Ok(0);
    }
    table(&container)?;
    Ok(0)
}

/// What managers of containers read, and look up on the host: the process that ends as the container ends, then those
/// that hold the memory of its processes.
///
/// # Errors
/// When the container does not run.
fn host_processes(container: &Container) -> Result<Vec<i32>> {
    let Response::HostProcesses(inside) = container.ask(&Request::HostProcesses)? else {
        bail!("the sentry answers something else");
    };
    let sentry = container.sentry()?;
    let known = |status: String| {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        // The last of its ids is that in the innermost namespace, which is the sentry's.
        let own = field("NSpid")?.split_whitespace().next_back()?.parse::<i32>().ok()?;
        (field("PPid")?.trim().parse() == Ok(sentry) && inside.binary_search(&own).is_ok()).then_some(())
    };
    let entries = std::fs::read_dir("/proc").context("read /proc")?.flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut found: Vec<i32> = ids
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(known).is_some())
        .collect();
    found.sort_unstable();
    found.insert(0, container.state.pid);
    Ok(found)
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
