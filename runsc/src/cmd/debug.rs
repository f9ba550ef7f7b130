//! `debug`: looks into a sandbox that runs.
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use sandbox::control::{Request, Response};

use super::kill;
use crate::cli::Global;
use crate::container::Container;
use crate::log;

/// Whether system calls are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// They are.
    #[value(alias = "all", alias = "true")]
    On,
    /// They are not.
    #[value(alias = "false")]
    Off,
}

/// What `debug` takes.
#[derive(Args, Debug)]
pub(crate) struct Debug {
    /// Report system calls to the sandbox's log from now on, or no longer
    #[arg(long, value_enum)]
    pub(crate) strace: Option<Switch>,
    /// Show every thread with what it is at, and what was asked for that is not supported
    #[arg(long)]
    pub(crate) stacks: bool,
    /// List the processes
    #[arg(long)]
    pub(crate) ps: bool,
    /// Send a signal, by name or number
    #[arg(long)]
    pub(crate) signal: Option<String>,
    /// Send it to this process of the container; to the first if missing
    #[arg(long)]
    pub(crate) pid: Option<i32>,
    /// Name of the container
    pub(crate) id: String,
}

/// Does what is asked for.
///
/// # Errors
/// When there is no such container, or it does not run.
pub(crate) fn run(global: &Global, args: &Debug) -> Result<i32> {
    let container = Container::open(global, &args.id)?;
    if let Some(switch) = args.strace {
        container.ask(&Request::Strace { on: switch == Switch::On })?;
    }
    if let Some(signal) = &args.signal {
        let signal = kill::parse(signal)?;
        container.ask(&Request::Signal { pid: args.pid, signal, all: false })?;
    }
    if args.stacks {
        let Response::Text(text) = container.ask(&Request::Stacks)? else {
            bail!("the sentry answers something else");
        };
        log::say(text.trim_end());
    }
    if args.ps {
        super::ps::table(&container)?;
    }
    Ok(0)
}
