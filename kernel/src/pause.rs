//! Pausing all programs of the sandbox, as the freezer of a control group does: none of them notices.
use std::sync::atomic::Ordering;

use crate::task::Mode;
use crate::{CurrentTask, Kernel, signal};

impl Kernel {
    /// Keeps every program from running on. A system call that waits goes on waiting; what it did is seen after
    /// [`Kernel::resume`].
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        self.tasks().iter().for_each(|task| task.interrupt());
    }

    /// Lets programs run again.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
        self.tasks().iter().for_each(|task| task.waiter().wake_up());
    }

    /// Tells whether programs are kept from running.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }
}

impl CurrentTask {
    /// Waits while the sandbox is paused; death ends this early.
    pub(crate) fn wait_until_resumed(&self) {
        let kernel = self.kernel();
        if !kernel.is_paused() {
            return;
        }
        self.cpu.enter(Mode::Idle, kernel.clock().monotonic_ns());
        while kernel.is_paused() && !self.is_leaving() && !signal::is_killed(self) {
            self.waiter().wait();
        }
        self.cpu.enter(Mode::System, kernel.clock().monotonic_ns());
    }
}
