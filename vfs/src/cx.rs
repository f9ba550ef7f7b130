//! Who asks a file system for something.
use std::fmt;
use std::sync::Arc;

use abi::Errno;
use abi::time::Timespec;
use kernel::{Credentials, Kernel, Task};
use memmap::MemoryManager;
use sync::Clock;

/// On whose behalf a file system works.
///
/// Calls on inodes carry the caller's own credentials; calls on open files those of whoever opened the file, as Linux's
/// `f_cred`, so that a read takes no reference to credentials.
#[derive(Clone, Copy)]
pub struct OpCx<'a> {
    /// Whose permissions count.
    pub creds: &'a Arc<Credentials>,
    /// The task, where there is one; at boot there is none.
    pub task: Option<&'a Task>,
    /// What tells the time for timestamps.
    pub clock: &'a dyn Clock,
    /// The kernel it is done for, where that is not the task's.
    pub kernel: Option<&'a Arc<Kernel>>,
    /// Status flags of the open file that is called (`O_NONBLOCK`, `O_APPEND`, …); 0 in calls on inodes.
    pub flags: u32,
}

impl fmt::Debug for OpCx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpCx").field("fsuid", &self.creds.fsuid).finish_non_exhaustive()
    }
}

impl<'a> OpCx<'a> {
    /// Works for a task, with these credentials: its own but for access(2).
    #[must_use]
    pub fn of_task(task: &'a Task, creds: &'a Arc<Credentials>) -> Self {
        Self { creds, task: Some(task), clock: task.kernel().clock().as_ref(), kernel: None, flags: 0 }
    }

    /// Works for the sentry itself.
    #[must_use]
    pub fn of_kernel(creds: &'a Arc<Credentials>, clock: &'a dyn Clock) -> Self {
        Self { creds, task: None, clock, kernel: None, flags: 0 }
    }

    /// Works for the sentry itself, on a container with this kernel.
    #[must_use]
    pub fn of_container(creds: &'a Arc<Credentials>, kernel: &'a Arc<Kernel>) -> Self {
        Self { creds, task: None, clock: kernel.clock().as_ref(), kernel: Some(kernel), flags: 0 }
    }

    /// The kernel whose processes are meant.
    ///
    /// # Errors
    /// `EIO` where that is not said.
    pub fn kernel(&self) -> Result<&'a Arc<Kernel>, Errno> {
        self.kernel.or(self.task.map(Task::kernel)).ok_or(Errno::EIO)
    }

    /// The time, for timestamps.
    #[must_use]
    pub fn now(&self) -> Timespec {
        Timespec::from_ns(self.clock.realtime_ns())
    }

    /// The memory that pointers in the call's arguments point into.
    ///
    /// # Errors
    /// `EFAULT` where there is none.
    pub fn mm(&self) -> Result<Arc<MemoryManager>, Errno> {
        self.task.and_then(Task::mm).ok_or(Errno::EFAULT)
    }

    /// Tells whether the call must not wait.
    #[must_use]
    pub const fn nonblocking(&self) -> bool {
        self.flags & abi::fs::O_NONBLOCK != 0
    }
}
