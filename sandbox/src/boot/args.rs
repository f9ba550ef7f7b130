//! What a sentry is told at boot.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::{Device, IdMappings, Mount, Process, Seccomp};

/// A mount of the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GuestMount {
    /// What and where.
    pub mount: Mount,
    /// Which of the gofer's trees it shows; none for file systems of the sentry's own.
    pub tree: Option<usize>,
}

/// What a sentry is told at boot. With it go descriptors, in this order: the listening control socket, the file for the
/// exit record, that for the count of lacks of memory, the gofer's socket, the file for events if there is one, and the container's three streams or its terminal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the command line")]
pub struct BootArgs {
    /// The container's name.
    pub id: String,
    /// The first process.
    pub process: Process,
    /// `uname -n`.
    pub hostname: String,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// Mounts over the root, in order.
    pub mounts: Vec<GuestMount>,
    /// Which users and groups there are, and who they are on the host; everybody if missing.
    pub ids: Option<IdMappings>,
    /// Device nodes over the usual ones.
    pub devices: Vec<Device>,
    /// Paths whose content is hidden.
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written to.
    pub readonly_paths: Vec<String>,
    /// The profile of system calls.
    pub seccomp: Option<Seccomp>,
    /// Kernel parameters.
    pub sysctl: BTreeMap<String, String>,
    /// How many threads there may be.
    pub task_limit: Option<u64>,
    /// How many bytes of memory programs are told there are.
    pub memory_limit: Option<u64>,
    /// How many microseconds of processor time programs are told that they get in how many.
    pub cpu_limit: Option<(u64, u64)>,
    /// Whether there is a file that events are told to.
    pub events: bool,
    /// Whether the root is read-only for the container.
    pub readonly_root: bool,
    /// Whether changes of the root stay in memory.
    pub overlay: bool,
    /// The back end that runs guest code.
    pub platform: String,
    /// Whether systrap leaves the guest's system calls as they are.
    pub disable_patching: bool,
    /// Whether system calls are written to the report; and which, if not all.
    pub strace: Option<Vec<String>>,
    /// Whether the report shows details, and a forbidden host call is reported and not deadly.
    pub debug: bool,
    /// Whether the report has lines of JSON.
    pub report_json: bool,
    /// Whether changes that others make to the root may be seen a moment later.
    pub leased_files: bool,
    /// Whether files that are mounted in may be changed by others.
    pub shared_mounts: bool,
    /// How many bytes of a buffer a report of a system call shows.
    pub strace_bytes: usize,
    /// How many of the last descriptors are no streams, but what the first process gets from 3 up.
    pub preserved: usize,
    /// Whether host files may be changed by others while the container runs.
    pub shared_files: bool,
}
