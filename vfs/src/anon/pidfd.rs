//! Processes as files, pidfd_open(2).
use std::sync::Arc;

use kernel::ThreadGroup;
use sync::{PollEvents, WaitQueue};

use crate::{FileOps, OpCx};

/// A pidfd.
#[derive(Debug)]
pub struct PidFd {
    group: Arc<ThreadGroup>,
}

impl PidFd {
    /// A pidfd of this process.
    #[must_use]
    pub fn new(group: &Arc<ThreadGroup>) -> Arc<Self> {
        Arc::new(Self { group: Arc::clone(group) })
    }

    /// The process.
    #[must_use]
    pub const fn group(&self) -> &Arc<ThreadGroup> {
        &self.group
    }
}

impl FileOps for PidFd {
    fn stream(&self) -> bool {
        true
    }

    fn poll(&self, _: &OpCx<'_>) -> PollEvents {
        if self.group.leader().is_none() {
            // It was waited for.
            PollEvents::READABLE | PollEvents::HUP
        } else if self.group.final_status().is_some() {
            PollEvents::READABLE
        } else {
            PollEvents::NONE
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.group.exit_events())
    }

    fn fdinfo(&self) -> Vec<u8> {
        let gone = self.group.kernel().thread_group(self.group.tgid()).is_none();
        let pid = if gone { -1 } else { self.group.tgid() };
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n").into_bytes()
    }
}
