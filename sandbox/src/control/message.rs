//! What is said over the control socket.
use serde::{Deserialize, Serialize};

use crate::spec::{Hook, Process};

/// A question to the sentry, or an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Build the container; only on the launcher's channel, once. Its descriptors are listed in [`BootArgs`].
    Boot(Box<crate::boot::BootArgs>),
    /// The launcher has recorded which processes the sandbox has, and may end; until then its end is the sandbox's. Only on
    /// the launcher's channel; without an answer.
    Settled,
    /// Build another container beside those that are there. Its descriptors are those of [`Request::Boot`]. Once it is built
    /// the connection is that container's own, which ends when it is closed; its end is told on it.
    Create(Box<crate::boot::BootArgs>),
    /// Let the first process run. With hooks go two descriptors: the container's state, and `/dev/null` of the host.
    Start {
        /// What is to run in the container first.
        hooks: Vec<Hook>,
    },
    /// End the container, which is not the sandbox's first: answered when nothing of it runs any more.
    End,
    /// Send a signal.
    Signal {
        /// To this process of the container; to the first if missing.
        pid: Option<i32>,
        /// Its number.
        signal: i32,
        /// To every process.
        all: bool,
    },
    /// Start another process. Three descriptors go with it: its streams; or one: its terminal; and those it gets from 3 up.
    Exec {
        /// What to run.
        process: Box<Process>,
        /// How many of the descriptors it gets from 3 up.
        #[serde(default)]
        preserved: usize,
    },
    /// Tell when a process has exited: [`Response::Exited`].
    Wait {
        /// This process; the first if missing.
        pid: Option<i32>,
    },
    /// List the processes.
    Processes,
    /// Name the host's processes that hold them: [`Response::HostProcesses`].
    HostProcesses,
    /// Tell what the container uses, as the sandbox's own kernel counts it: [`Response::Usage`].
    Usage,
    /// End the container when this connection ends; no answer. Who runs a container in the foreground asks for this.
    Attach,
    /// Keep every program from running.
    Pause,
    /// Let them run again.
    Resume,
    /// Report system calls from now on, or no longer.
    Strace {
        /// Whether to.
        on: bool,
    },
    /// Tell what the sandbox is doing, for people: [`Response::Text`].
    Stacks,
    /// Other limits.
    Limit {
        /// How many threads there may be; as before if missing, none if 0.
        tasks: Option<u64>,
        /// How many bytes of memory programs are told there are; likewise.
        memory: Option<u64>,
        /// How many microseconds of processor time programs are told that they get in how many; likewise.
        #[serde(default)]
        cpu: Option<(u64, u64)>,
    },
    /// A terminal has a new size.
    Resize {
        /// The process whose terminal it is; the first if missing.
        pid: Option<i32>,
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
}

/// A process, as `runsc ps` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its id in the container.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// Its user.
    pub uid: u32,
    /// Its name.
    pub name: String,
}

/// What a container uses, without what the sandbox itself needs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in its programs, in nanoseconds.
    pub user_ns: u64,
    /// Processor time in system calls, likewise.
    pub system_ns: u64,
    /// Bytes of memory: of its programs, and of file systems in memory that it wrote to.
    pub memory: u64,
    /// How many there may be, if there is a limit of its own.
    pub memory_limit: Option<u64>,
    /// Threads.
    pub tasks: u64,
    /// How many there may be.
    pub task_limit: Option<u64>,
}

/// An answer of the sentry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is done.
    Done,
    /// It is not, and this is why.
    Error(String),
    /// A process runs.
    Started {
        /// Its id in the container.
        pid: i32,
    },
    /// A process has exited.
    Exited {
        /// As a shell shows it: its code, or 128 and the signal.
        code: i32,
    },
    /// The processes.
    Processes(Vec<ProcessInfo>),
    /// Process ids in the sentry's PID namespace.
    HostProcesses(Vec<i32>),
    /// What the container uses.
    Usage(Usage),
    /// Lines for people.
    Text(String),
}
