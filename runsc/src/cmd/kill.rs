//! `kill`: sends a signal.
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::signal::Signal;
use sandbox::control::Request;

use crate::cli::Global;
use crate::container::Container;
use crate::state::Status;

/// The first and the last real-time signal.
const REAL_TIME: (i32, i32) = (34, 64);

/// What `kill` takes.
#[derive(Args, Debug)]
pub(crate) struct Kill {
    /// Send it to every process
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Send it to this process of the container
    #[arg(long)]
    pub(crate) pid: Option<i32>,
    /// Name of the container
    pub(crate) id: String,
    /// The signal, by name or number
    #[arg(default_value = "TERM")]
    pub(crate) signal: String,
}

/// The number of a signal.
///
/// # Errors
/// When there is none of that name.
pub(crate) fn parse(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        ensure!((1..=REAL_TIME.1).contains(&number), "unknown signal {text:?}");
        return Ok(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    let real_time = name
        .strip_prefix("RTMIN")
        .and_then(offset)
        .map(|n| REAL_TIME.0 + n)
        .or_else(|| name.strip_prefix("RTMAX").and_then(offset).map(|n| REAL_TIME.1 + n));
    if let Some(number) = real_time.filter(|n| (REAL_TIME.0..=REAL_TIME.1).contains(n)) {
        return Ok(number);
    }
    let signal = Signal::from_str(&format!("SIG{name}"));
    signal.map(|signal| signal as i32).ok().with_context(|| format!("unknown signal {text:?}"))
}

/// Kills.
///
/// # Errors
/// When the container does not run.
pub(crate) fn run(global: &Global, args: &Kill) -> Result<i32> {
    let signal = parse(&args.signal)?;
    let container = Container::open(global, &args.id)?;
    let kills = signal == Signal::SIGKILL as i32 && args.pid.is_none();
    match container.state.status() {
        Status::Running | Status::Paused => {
            let asked = container.ask(&Request::Signal { pid: args.pid, signal, all: args.all });
            if kills && asked.is_err() {
                container.destroy()?;
            } else {
                asked?;
            }
        }
        Status::Created if kills => container.destroy()?,
        Status::Created => {
            container.ask(&Request::Signal { pid: args.pid, signal, all: args.all })?;
        }
        Status::Creating | Status::Stopped if args.all => {}
        Status::Creating | Status::Stopped => bail!("container not running"),
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn knows_signals() {
        for (text, number) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+2", 36), ("RTMAX-1", 63)] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "SIGFOO", "RTMIN+99"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
