//! `events`: what a container uses, and that the host had no memory left for it.
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sandbox::control::{Request, Response};
use serde_json::{Value, json};

use crate::cgroup::{self, OomEvents};
use crate::cli::Global;
use crate::container::Container;
use crate::log;
use crate::state::Status;

/// What `events` takes.
#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Time between two reports, such as 5s or 500ms
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// Show what it uses, once
    #[arg(long)]
    pub(crate) stats: bool,
    /// Name of the container
    pub(crate) id: String,
}

/// A duration as Go programs write it.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_text| format!("{text:?} is no duration"))?;
    let scale = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} is no duration")),
    };
    let duration = Duration::try_from_secs_f64(number * scale).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("the interval must not be 0".to_owned()) } else { Ok(duration) }
}

/// Shows events.
///
/// # Errors
/// When the container does not run, or the host does not count what it uses.
pub(crate) fn run(global: &Global, args: &Events) -> Result<i32> {
    let container = Container::open(global, &args.id)?;
    let runs = || matches!(container.state.status(), Status::Created | Status::Running | Status::Paused);
    ensure!(runs(), "container with id {} is not running", args.id);
    let groups = &container.state.groups;
    let inside = container.state.sandbox.is_some();
    ensure!(
        inside || !groups.is_empty(),
        "container {} has no control groups that count what it uses",
        args.id
    );
    let show = |kind: &str, data: Option<Value>| {
        let mut event = json!({"type": kind, "id": args.id});
        if let (Some(event), Some(data)) = (event.as_object_mut(), data) {
            event.insert("data".to_owned(), data);
        }
        log::say(&event.to_string());
    };
    let stats = || match inside {
        true => used_inside(&container),
        false => Ok(cgroup::stats(groups)),
    };
    if args.stats {
        show("stats", Some(stats()?));
        return Ok(0);
    }
    let mut oom: Vec<OomEvents> = OomEvents::new(groups)?.into_iter().collect();
    oom.push(OomEvents::of_file(container.folder.oom_record(), None)?);
    let ended = match sandbox::pidfd(container.state.pid) {
        // Whether it is the process that was meant is looked at below, now that its number is not given away unseen.
        Ok(process) => process,
        Err(_) if !runs() => return Ok(0),
        Err(error) => return Err(error).context("pidfd_open"),
    };
    let tell = |oom: &mut [OomEvents]| {
        oom.iter_mut().filter_map(|oom| oom.happened().then_some(())).for_each(|()| show("oom", None));
    };
    let mut next = Instant::now() + args.interval;
    while runs() {
        let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        fds.extend(oom.iter().map(|oom| PollFd::new(oom.fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout(next.saturating_duration_since(Instant::now()))) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        drop(fds);
        tell(&mut oom);
        if Instant::now() >= next {
            // One that ends just now has nothing to show.
            if let Ok(stats) = stats() {
                show("stats", Some(stats));
            }
            next += args.interval;
        }
    }
    // What ended the container may be told of after its end.
    tell(&mut oom);
    Ok(0)
}

/// What a container in the sandbox of another uses.
fn used_inside(container: &Container) -> Result<Value> {
    match container.ask(&Request::Usage)? {
        Response::Usage(usage) => Ok(cgroup::stats_inside(&usage)),
        _ => bail!("the sentry answers something else"),
    }
}

/// In whole milliseconds, not too early.
fn timeout(wait: Duration) -> PollTimeout {
    PollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        for text in ["", "s", "5", "0s", "5x", "-1s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
