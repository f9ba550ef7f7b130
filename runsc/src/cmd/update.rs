//! `update`: other limits for a container that exists.
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use sandbox::control::Request;
use sandbox::spec::{BlockIo, Cpu, Memory, Pids, Resources};

use crate::cli::Global;
use crate::container::Container;
use crate::state::Status;

/// The longest description of limits.
const MAX_TEXT: u64 = 1 << 20;

/// What `update` takes.
#[derive(Args, Debug)]
pub(crate) struct Update {
    /// File with the limits, as `linux.resources` of a configuration has them; - for standard input
    #[arg(short, long)]
    pub(crate) resources: Option<PathBuf>,
    /// Weight for block devices, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u16>,
    /// Length of a period of processor time, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_period: Option<u64>,
    /// Processor time in a period, in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Processor time that may be saved up, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_burst: Option<u64>,
    /// Weight for processors
    #[arg(long, visible_alias = "cpu-shares", value_name = "SHARES")]
    pub(crate) cpu_share: Option<u64>,
    /// Length of a real-time period, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// Real-time processor time in it, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// Run only when nobody else does
    #[arg(long)]
    pub(crate) cpu_idle: Option<i64>,
    /// Processors, as a list
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes, as a list
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Memory, in bytes
    #[arg(short = 'm', long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Memory that is left to it, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    /// Memory and swap, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Accepted for other runtimes' sake: Linux does not limit it any more
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) kernel_memory: Option<String>,
    /// Likewise
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) kernel_memory_tcp: Option<String>,
    /// Threads of the container
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Name of the container
    pub(crate) id: String,
}

/// A number of bytes: with k, m, g or t for powers of 1024.
fn bytes(text: &str) -> Result<i64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.char_indices().last() {
        Some((at, 'k')) => (lower.get(..at).unwrap_or_default(), 10),
        Some((at, 'm')) => (lower.get(..at).unwrap_or_default(), 20),
        Some((at, 'g')) => (lower.get(..at).unwrap_or_default(), 30),
        Some((at, 't')) => (lower.get(..at).unwrap_or_default(), 40),
        _ => (lower, 0),
    };
    let number: i64 = digits.trim().parse().with_context(|| format!("{text:?} is no size"))?;
    number.checked_mul(1 << shift).with_context(|| format!("{text:?} is too large"))
}

impl Update {
    fn wanted(&self) -> Result<Resources> {
        if let Some(path) = &self.resources {
            let mut text = String::new();
            if path.as_os_str() == "-" {
                std::io::stdin().take(MAX_TEXT).read_to_string(&mut text).context("standard input")?;
            } else {
                let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
                file.take(MAX_TEXT)
                    .read_to_string(&mut text)
                    .with_context(|| format!("read {}", path.display()))?;
            }
            return serde_json::from_str(&text).with_context(|| format!("read {}", path.display()));
        }
        let size = |text: &Option<String>| text.as_deref().map(bytes).transpose();
        Ok(Resources {
            memory: Some(Memory {
                limit: size(&self.memory)?,
                reservation: size(&self.memory_reservation)?,
                swap: size(&self.memory_swap)?,
                ..Memory::default()
            }),
            cpu: Some(Cpu {
                shares: self.cpu_share,
                quota: self.cpu_quota,
                burst: self.cpu_burst,
                period: self.cpu_period,
                realtime_runtime: self.cpu_rt_runtime,
                realtime_period: self.cpu_rt_period,
                cpus: self.cpuset_cpus.clone(),
                mems: self.cpuset_mems.clone(),
                idle: self.cpu_idle,
            }),
            pids: self.pids_limit.map(|limit| Pids { limit }),
            block_io: self.blkio_weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
            ..Resources::default()
        })
    }
}

/// Updates.
///
/// # Errors
/// When there is no such container, or the host refuses a limit.
pub(crate) fn run(global: &Global, args: &Update) -> Result<i32> {
    let container = Container::open(global, &args.id)?;
    let wanted = args.wanted()?;
    let _lock = container.folder.lock()?;
    match container.state.status() {
        Status::Created | Status::Running | Status::Paused => {}
        status => bail!("cannot update a container that is {}", status.name()),
    }
    ensure!(
        !container.state.groups.is_empty() || global.ignore_cgroups,
        "container {} has no control groups to update",
        args.id
    );
    if !global.ignore_cgroups {
        container.state.groups.apply(&wanted)?;
    }
    // No limit is 0 there, and what is not named stays.
    let tasks = wanted.pids.as_ref().filter(|pids| pids.limit != 0).map(|_| wanted.task_limit().unwrap_or(0));
    let limit = wanted.memory.as_ref().and_then(|memory| memory.limit).filter(|limit| *limit != 0);
    let memory = limit.map(|_| wanted.memory_limit().unwrap_or(0));
    let quota = wanted.cpu.as_ref().and_then(|cpu| cpu.quota).filter(|quota| *quota != 0);
    let cpu = quota.map(|_| wanted.cpu_limit().unwrap_or((0, 0)));
    container.ask(&Request::Limit { tasks, memory, cpu })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn reads_sizes() {
        for (text, number) in
            [("0", 0), ("-1", -1), ("10k", 10_240), ("2M", 2 << 20), ("1GiB", 1 << 30), ("3mb", 3 << 20)]
        {
            assert_eq!(bytes(text).unwrap(), number, "{text}");
        }
        for text in ["", "k", "1x", "99999999999t"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
