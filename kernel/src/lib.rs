//! Tasks, thread groups, signals, futexes, timers, credentials, open files and ELF loading.
#![forbid(unsafe_code)]

mod clone_flags;
pub mod credentials;
mod exit_status;
mod fd_table;
mod file;
pub mod futex;
mod group;
mod id_map;
mod kernel;
mod limits;
pub mod loader;
mod observe;
mod pause;
pub mod ptrace;
mod quota;
pub mod seccomp;
pub mod signal;
mod slot;
mod spawn;
mod task;
pub mod timer;
mod tree;
mod usage;

pub use clone_flags::CloneFlags;
pub use credentials::{Cap, CapSet, Credentials, ExecFile, FileCaps};
pub use exit_status::{CONTINUED_STATUS, ExitStatus, stopped_status};
pub use fd_table::{FdTable, close_file};
pub use file::{File, Metadata};
pub use futex::Futexes;
pub use group::{ControllingTty, ProcessGroup, ProcessId, Session, ThreadGroup};
pub use id_map::{IdMap, IdMaps, IdRange};
pub use kernel::{
    BeforeStart, ExitHook, InitArgs, Kernel, KernelArgs, PidfdFactory, RandomSource, Syscalls, Uts, UtsNames,
};
pub use limits::*;
pub use loader::{ExecImage, ExecStrings, HostAuxv, OpenInterpreter};
pub use observe::{Event, Observer};
pub use quota::Quota;
pub use slot::{Slot, SlotId, TaskResource};
pub use task::{
    BlockResult, CloneArgs, CpuTimes, CurrentTask, RestartBlock, Scheduling, Task, TaskWaiter, Usage,
    WaitArgs, WaitResult, WaitTarget,
};
pub use usage::OutOfMemoryHook;
