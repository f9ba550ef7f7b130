//! Where a task sleeps.
use std::time::Duration;

use sync::{PollEvents, Waiter, Wake};

/// Wakes one task: files and futexes call it by [`Wake`], signals by [`crate::Task::interrupt`].
#[derive(Debug, Default)]
pub struct TaskWaiter {
    waiter: Waiter,
}

impl TaskWaiter {
    /// Sleeps until woken, by whatever; a wake that came since the last wait counts.
    pub fn wait(&self) {
        self.waiter.wait(None);
    }

    /// Sleeps until woken or for `timeout`, after a look for so long; tells whether it was woken.
    pub fn wait_for(&self, look: Duration, timeout: Option<Duration>) -> bool {
        if look.is_zero() { self.waiter.wait(timeout) } else { self.waiter.look_and_wait(look, timeout) }
    }

    /// Wakes the task, or makes its next wait return at once.
    pub fn wake_up(&self) {
        self.waiter.wake_up();
    }
}

impl Wake for TaskWaiter {
    fn wake(&self, _: PollEvents) {
        self.wake_up();
    }
}
