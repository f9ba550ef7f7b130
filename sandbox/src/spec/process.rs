//! A process of the container.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::linux::null_as_default;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Who a process is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The file mode creation mask; 0o022 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(deserialize_with = "null_as_default")]
    pub additional_gids: Vec<u32>,
}

/// Capability sets, as names (`CAP_CHOWN`).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// What exec can give at most.
    #[serde(deserialize_with = "null_as_default")]
    pub bounding: Vec<String>,
    /// What is in force.
    #[serde(deserialize_with = "null_as_default")]
    pub effective: Vec<String>,
    /// What files may pass on.
    #[serde(deserialize_with = "null_as_default")]
    pub inheritable: Vec<String>,
    /// What may be put in force.
    #[serde(deserialize_with = "null_as_default")]
    pub permitted: Vec<String>,
    /// What exec keeps.
    #[serde(deserialize_with = "null_as_default")]
    pub ambient: Vec<String>,
}

impl Capabilities {
    /// Takes one out of every set.
    pub fn remove(&mut self, name: &str) {
        let sets = [
            &mut self.bounding,
            &mut self.effective,
            &mut self.inheritable,
            &mut self.permitted,
            &mut self.ambient,
        ];
        sets.into_iter().for_each(|set| set.retain(|capability| capability != name));
    }
}

/// A limit, setrlimit(2).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// The limit.
    pub soft: u64,
    /// What the limit can be raised to.
    pub hard: u64,
}

/// How a process is scheduled, sched_setattr(2).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduler {
    /// `SCHED_*`.
    pub policy: String,
    /// The nice value.
    #[serde(default)]
    pub nice: i32,
    /// The real-time priority.
    #[serde(default)]
    pub priority: i32,
    /// `SCHED_FLAG_*`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub flags: Vec<String>,
}

/// How input and output of a process are scheduled, ioprio_set(2).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_*`.
    pub class: String,
    /// From 0, the highest, to 7.
    #[serde(default)]
    pub priority: u16,
}

/// A process of the container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Whether it gets a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// The terminal's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Who it is.
    #[serde(default)]
    pub user: User,
    /// Its arguments, the program first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default, deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Its capabilities; none when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Its limits.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rlimits: Vec<Rlimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// `/proc/PID/oom_score_adj`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// A profile of AppArmor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparmor_profile: Option<String>,
    /// A label of SELinux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
    /// How it is scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// How its input and output are scheduled.
    #[serde(rename = "ioPriority", default, skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// The processors that `exec` runs on.
    #[serde(rename = "execCPUAffinity", default, skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<serde_json::Value>,
}

impl Process {
    /// Checks what can be checked without the container.
    ///
    /// # Errors
    /// [`SpecError`], for values without meaning.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(SpecError::Value("process.args names no program"));
        }
        if !self.cwd.is_absolute() {
            let value = self.cwd.display().to_string();
            return Err(SpecError::BadValue { what: "process.cwd is not an absolute path", value });
        }
        let texts = self.args.iter().chain(&self.env);
        if let Some(text) = texts.into_iter().find(|text| text.contains('\0')) {
            return Err(SpecError::BadValue {
                what: "a NUL in process.args or process.env",
                value: text.clone(),
            });
        }
        Ok(())
    }
}

/// The names of capabilities, by number, without `CAP_`.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
