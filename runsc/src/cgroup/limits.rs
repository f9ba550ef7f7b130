//! Limits as the files of control groups have them.
use std::path::Path;

use anyhow::{Context, Result, bail};
use sandbox::spec::{BlockIo, Cpu, Memory, Resources, Throttle};

use super::Groups;

/// Each thread of a program is a thread of the sentry and one of a stub process, which has a thread more of its own; the
/// sandbox has some beside. The limit of the host lies so high that the sandbox's own, which is exact, is met first.
const HOST_TASKS_A_TASK: u64 = 3;
const HOST_TASKS: u64 = 64;

/// Writes one limit.
fn set(dir: Option<&Path>, file: &str, value: &str) -> Result<()> {
    let Some(dir) = dir else { bail!("{file}: the host has no such controller") };
    let path = dir.join(file);
    std::fs::write(&path, value).with_context(|| format!("write {value:?} to {}", path.display()))
}

/// Sets limits.
///
/// # Errors
/// When the host refuses one.
pub(super) fn apply(groups: &Groups, resources: &Resources) -> Result<()> {
    if let Some(memory) = &resources.memory {
        if groups.unified() { memory_v2(groups, memory)? } else { memory_v1(groups, memory)? }
    }
    if let Some(cpu) = &resources.cpu {
        if groups.unified() { cpu_v2(groups, cpu)? } else { cpu_v1(groups, cpu)? }
    }
    if let Some(pids) = &resources.pids {
        match resources.task_limit() {
            Some(limit) => {
                let host = limit.saturating_mul(HOST_TASKS_A_TASK).saturating_add(HOST_TASKS);
                set(groups.with("pids"), "pids.max", &host.to_string())?;
            }
            None if pids.limit < 0 => set(groups.with("pids"), "pids.max", "max")?,
            None => {}
        }
    }
    if let Some(block_io) = &resources.block_io {
        if groups.unified() { block_io_v2(groups, block_io)? } else { block_io_v1(groups, block_io)? }
    }
    for page in &resources.hugepage_limits {
        let file = if groups.unified() { "max" } else { "limit_in_bytes" };
        set(groups.with("hugetlb"), &format!("hugetlb.{}.{file}", page.page_size), &page.limit.to_string())?;
    }
    for (file, value) in &resources.unified {
        if !groups.unified() {
            bail!("linux.resources.unified: {file}: the host has control groups of version 1");
        }
        if file.contains('/') {
            bail!("linux.resources.unified: {file:?} is no file of a control group");
        }
        set(groups.with(""), file, value)?;
    }
    Ok(())
}

fn memory_v1(groups: &Groups, memory: &Memory) -> Result<()> {
    let dir = groups.with("memory");
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let both = "memory.memsw.limit_in_bytes";
    let single = "memory.limit_in_bytes";
    let swap = given(memory.swap);
    match (given(memory.limit), swap) {
        (Some(limit), Some(swap)) => {
            // The limit of both must never be below that of memory alone: which order works depends on what is there.
            if set(dir, single, &limit.to_string()).is_err() || set(dir, both, &swap.to_string()).is_err() {
                set(dir, both, &swap.to_string())?;
                set(dir, single, &limit.to_string())?;
            }
        }
        (Some(limit), None) => set(dir, single, &limit.to_string())?,
        (None, Some(swap)) => set(dir, both, &swap.to_string())?,
        (None, None) => {}
    }
    if let Some(reservation) = given(memory.reservation) {
        set(dir, "memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if memory.disable_oom_killer == Some(true) {
        set(dir, "memory.oom_control", "1")?;
    }
    if let Some(swappiness) = memory.swappiness {
        set(dir, "memory.swappiness", &swappiness.to_string())?;
    }
    Ok(())
}

/// A limit of version 2, for which -1 is spelled out.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn memory_v2(groups: &Groups, memory: &Memory) -> Result<()> {
    let dir = groups.with("");
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    if let Some(limit) = given(memory.limit) {
        set(dir, "memory.max", &or_max(limit))?;
    }
    if let Some(swap) = given(memory.swap) {
        // The configuration has both together, version 2 each by itself.
        let alone = match given(memory.limit) {
            Some(limit) if limit > 0 && swap > 0 => {
                if swap < limit {
                    bail!("linux.resources.memory: swap {swap} is below limit {limit}");
                }
                swap - limit
            }
            _ => swap,
        };
        set(dir, "memory.swap.max", &or_max(alone))?;
    }
    if let Some(reservation) = given(memory.reservation) {
        set(dir, "memory.low", &or_max(reservation))?;
    }
    Ok(())
}

fn cpu_v1(groups: &Groups, cpu: &Cpu) -> Result<()> {
    let dir = groups.with("cpu");
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        set(dir, "cpu.shares", &shares.to_string())?;
    }
    if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
        set(dir, "cpu.rt_period_us", &period.to_string())?;
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        set(dir, "cpu.rt_runtime_us", &runtime.to_string())?;
    }
    let burst = cpu.burst.map(|burst| burst.to_string());
    if let Some(burst) = &burst {
        // Refused where it is above the quota there is now; tried again below.
        let _early = set(dir, "cpu.cfs_burst_us", burst);
    }
    if let Some(period) = cpu.period.filter(|period| *period != 0)
        && set(dir, "cpu.cfs_period_us", &period.to_string()).is_err()
    {
        // A shorter period may be too short for the quota that is to be replaced.
        set(dir, "cpu.cfs_quota_us", "-1")?;
        set(dir, "cpu.cfs_period_us", &period.to_string())?;
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        set(dir, "cpu.cfs_quota_us", &quota.to_string())?;
    }
    if let Some(burst) = &burst {
        set(dir, "cpu.cfs_burst_us", burst)?;
    }
    if let Some(idle) = cpu.idle {
        set(dir, "cpu.idle", &idle.to_string())?;
    }
    cpuset(groups, cpu)
}

/// The weight of version 2 for shares of version 1, as runc has it: 2 to 262144 become 1 to 10000.
pub(super) fn cpu_weight(shares: u64) -> u64 {
    1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142
}

fn cpu_v2(groups: &Groups, cpu: &Cpu) -> Result<()> {
    let dir = groups.with("");
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        set(dir, "cpu.weight", &cpu_weight(shares).to_string())?;
    }
    let (quota, period) = (cpu.quota.filter(|q| *q != 0), cpu.period.filter(|p| *p != 0));
    if quota.is_some() || period.is_some() {
        let quota =
            quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        set(dir, "cpu.max", &format!("{quota} {}", period.unwrap_or(100_000)))?;
    }
    if let Some(burst) = cpu.burst {
        set(dir, "cpu.max.burst", &burst.to_string())?;
    }
    if let Some(idle) = cpu.idle {
        set(dir, "cpu.idle", &idle.to_string())?;
    }
    cpuset(groups, cpu)
}

fn cpuset(groups: &Groups, cpu: &Cpu) -> Result<()> {
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            set(groups.with("cpuset"), file, value)?;
        }
    }
    Ok(())
}

/// The four lists of rates with their files of version 1 and their keys of version 2.
fn rates(block_io: &BlockIo) -> [(&[Throttle], &'static str, &'static str); 4] {
    [
        (&block_io.throttle_read_bps_device, "blkio.throttle.read_bps_device", "rbps"),
        (&block_io.throttle_write_bps_device, "blkio.throttle.write_bps_device", "wbps"),
        (&block_io.throttle_read_iops_device, "blkio.throttle.read_iops_device", "riops"),
        (&block_io.throttle_write_iops_device, "blkio.throttle.write_iops_device", "wiops"),
    ]
}

fn block_io_v1(groups: &Groups, block_io: &BlockIo) -> Result<()> {
    let dir = groups.with("blkio");
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        // The file's name depends on the scheduler.
        if set(dir, "blkio.weight", &weight.to_string()).is_err() {
            set(dir, "blkio.bfq.weight", &weight.to_string())?;
        }
    }
    for device in &block_io.weight_device {
        let value = format!("{}:{} {}", device.major, device.minor, device.weight.unwrap_or(0));
        set(dir, "blkio.weight_device", &value)?;
    }
    for (list, file, _) in rates(block_io) {
        for rate in list {
            set(dir, file, &format!("{}:{} {}", rate.major, rate.minor, rate.rate))?;
        }
    }
    Ok(())
}

fn block_io_v2(groups: &Groups, block_io: &BlockIo) -> Result<()> {
    let dir = groups.with("");
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0)
        && set(dir, "io.bfq.weight", &weight.to_string()).is_err()
    {
        // 10 to 1000 become 1 to 10000.
        let value = 1 + u64::from(weight).saturating_sub(10) * 9999 / 990;
        set(dir, "io.weight", &value.to_string())?;
    }
    for (list, _, key) in rates(block_io) {
        for rate in list {
            set(dir, "io.max", &format!("{}:{} {key}={}", rate.major, rate.minor, rate.rate))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Group;

    struct Dir(std::path::PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// A folder that stands for a group.
    fn group(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("runsc-limits-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Dir(dir)
    }

    fn applied(name: &str, controller: &str, resources: &str) -> Vec<(String, String)> {
        let dir = group(name);
        let groups = Groups::from(vec![Group { controller: controller.to_owned(), dir: dir.0.clone() }]);
        apply(&groups, &serde_json::from_str(resources).unwrap()).unwrap();
        let entries = std::fs::read_dir(&dir.0).unwrap().flatten();
        let mut files: Vec<_> = entries
            .map(|e| (e.file_name().into_string().unwrap(), std::fs::read_to_string(e.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn version_2() {
        let text = r#"{"memory":{"limit":1000,"swap":1500,"reservation":500},"cpu":{"shares":1024,"quota":50000,"period":100000},
            "pids":{"limit":10},"unified":{"memory.high":"900"}}"#;
        let want = [
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "39"),
            ("memory.high", "900"),
            ("memory.low", "500"),
            ("memory.max", "1000"),
            ("memory.swap.max", "500"),
            ("pids.max", "94"),
        ];
        assert_eq!(applied("v2", "", text), pairs(&want));
        let none =
            applied("v2-none", "", r#"{"memory":{"limit":-1},"cpu":{"quota":-1},"pids":{"limit":-1}}"#);
        assert_eq!(none, pairs(&[("cpu.max", "max 100000"), ("memory.max", "max"), ("pids.max", "max")]));
    }

    #[test]
    fn version_1() {
        let text = r#"{"memory":{"limit":1000,"swap":-1,"swappiness":3,"disableOOMKiller":false}}"#;
        let want = [
            ("memory.limit_in_bytes", "1000"),
            ("memory.memsw.limit_in_bytes", "-1"),
            ("memory.swappiness", "3"),
        ];
        assert_eq!(applied("v1", "memory", text), pairs(&want));
        let empty = applied(
            "v1-none",
            "memory",
            r#"{"memory":{},"cpu":{"shares":0},"pids":{"limit":0},"blockIO":{"weight":0}}"#,
        );
        assert_eq!(empty, []);
    }

    #[test]
    fn what_the_host_has_not_is_an_error() {
        let groups = Groups::from(vec![Group { controller: "memory".to_owned(), dir: "/nowhere".into() }]);
        let resources: Resources = serde_json::from_str(r#"{"pids":{"limit":3}}"#).unwrap();
        assert!(apply(&groups, &resources).is_err());
        let resources: Resources = serde_json::from_str(r#"{"unified":{"a":"b"}}"#).unwrap();
        assert!(apply(&groups, &resources).is_err());
    }
}
