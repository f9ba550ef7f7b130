//! What a container uses, as `runsc events --stats` tells it, in the words of containerd.
use anyhow::{Context, Result};
use containerd_shim::protos::cgroups::metrics::{
    CPUStat, CPUUsage, MemoryEntry, MemoryStat, Metrics, PidsStat,
};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::{Message, MessageField};
use serde_json::Value;

/// The name of the message for those who read it.
const KIND: &str = "io.containerd.cgroups.v1.Metrics";

/// Converts.
///
/// # Errors
/// When it is no event of runsc.
pub(crate) fn metrics(event: &str) -> Result<Any> {
    let event: Value = serde_json::from_str(event).context("runsc events")?;
    let number = |path: &str| event.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let usage = CPUUsage {
        total: number("/data/cpu/usage/total"),
        kernel: number("/data/cpu/usage/kernel"),
        user: number("/data/cpu/usage/user"),
        ..CPUUsage::default()
    };
    let memory = MemoryEntry {
        usage: number("/data/memory/usage/usage"),
        limit: number("/data/memory/usage/limit"),
        max: number("/data/memory/usage/max"),
        failcnt: number("/data/memory/usage/failcnt"),
        ..MemoryEntry::default()
    };
    let raw = |name: &str| number(&format!("/data/memory/raw/{name}"));
    let metrics = Metrics {
        pids: MessageField::some(PidsStat {
            current: number("/data/pids/current"),
            limit: number("/data/pids/limit"),
            ..PidsStat::default()
        }),
        cpu: MessageField::some(CPUStat { usage: MessageField::some(usage), ..CPUStat::default() }),
        memory: MessageField::some(MemoryStat {
            cache: number("/data/memory/cache"),
            rss: raw("rss"),
            total_rss: raw("total_rss"),
            total_inactive_file: raw("total_inactive_file"),
            usage: MessageField::some(memory),
            ..MemoryStat::default()
        }),
        ..Metrics::default()
    };
    Ok(Any { type_url: KIND.to_owned(), value: metrics.write_to_bytes()?, ..Any::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts() {
        let event = r#"{"type":"stats","id":"a","data":{"cpu":{"usage":{"total":5}},"memory":{"usage":{"usage":6}},"pids":{"current":7}}}"#;
        let any = metrics(event).expect("an event");
        let metrics = Metrics::parse_from_bytes(&any.value).expect("encoded");
        let found = (metrics.cpu.usage.total, metrics.memory.usage.usage, metrics.pids.current);
        assert_eq!(found, (5, 6, 7));
        assert!(super::metrics("no").is_err());
    }
}
