//! The control group of a container, cgroups(7) version 2, as its programs see it: only to be read.
use kernel::Kernel;

use super::Static;
use super::info::used_ns;

/// Nanoseconds in a microsecond.
const US: u64 = 1000;

/// A limit, where `u64::MAX` is none.
fn limit(value: u64) -> Vec<u8> {
    if value == u64::MAX { b"max\n".to_vec() } else { number(value) }
}

fn number(value: u64) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

fn ids(mut ids: Vec<i32>) -> Vec<u8> {
    ids.sort_unstable();
    ids.iter().map(|id| format!("{id}\n")).collect::<String>().into_bytes()
}

/// What nobody limited is what the machine has.
fn memory_max(kernel: &Kernel) -> Vec<u8> {
    let set = kernel.quota().memory();
    limit(if set < kernel.memory_file().total() { set } else { u64::MAX })
}

fn cpu_max(kernel: &Kernel) -> Vec<u8> {
    match kernel.quota().cpu() {
        Some((quota_us, period_us)) => format!("{quota_us} {period_us}\n").into_bytes(),
        None => b"max 100000\n".to_vec(),
    }
}

fn cpu_stat(kernel: &Kernel) -> Vec<u8> {
    let (user, system) = used_ns(kernel);
    let (user, system) = (user / US, system / US);
    format!("usage_usec {}\nuser_usec {user}\nsystem_usec {system}\n", user + system).into_bytes()
}

fn events(kernel: &Kernel) -> Vec<u8> {
    let populated = u8::from(kernel.task_count() > 0);
    format!("populated {populated}\nfrozen 0\n").into_bytes()
}

/// The top of a mounted group.
pub(crate) static CGROUP: &[(&str, Static)] = &[
    ("cgroup.controllers", Static::Text("cpu memory pids\n")),
    ("cgroup.events", Static::File(events)),
    ("cgroup.procs", Static::File(|k| ids(k.thread_groups().iter().map(|group| group.tgid()).collect()))),
    ("cgroup.subtree_control", Static::Text("")),
    ("cgroup.threads", Static::File(|k| ids(k.tasks().iter().map(|task| task.tid()).collect()))),
    ("cgroup.type", Static::Text("domain\n")),
    ("cpu.max", Static::File(cpu_max)),
    ("cpu.stat", Static::File(cpu_stat)),
    ("memory.current", Static::File(|k| number(k.memory().1))),
    ("memory.max", Static::File(memory_max)),
    ("pids.current", Static::File(|k| number(k.task_count() as u64))),
    ("pids.max", Static::File(|k| limit(k.quota().tasks()))),
];
