//! What a container uses, and that it has run out of memory.
use std::fmt;

use crate::{CpuTimes, Kernel, ThreadGroup};

/// Called when a program is ended for want of memory, on its own thread.
pub type OutOfMemoryHook = Box<dyn Fn() + Send + Sync>;

/// The hook, which has nothing to show.
pub(crate) struct Hook(OutOfMemoryHook);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Kernel {
    /// The processor time of all processes, those that are gone included.
    #[must_use]
    pub fn cpu_times(&self) -> CpuTimes {
        let past = *self.past_cpu.lock();
        self.thread_groups().iter().fold(past, |sum, group| sum.plus(group.cpu_times()))
    }

    /// A process was removed.
    pub(crate) fn keep_cpu_times(&self, group: &ThreadGroup) {
        let times = group.cpu_times();
        let mut past = self.past_cpu.lock();
        *past = past.plus(times);
    }

    /// Registers what is called when a program is ended for want of memory; the first registration counts.
    pub fn on_out_of_memory(&self, hook: OutOfMemoryHook) {
        // A second registration is a mistake of the caller that changes nothing.
        let _second = self.out_of_memory.set(Hook(hook));
    }

    /// A program is ended for want of memory.
    pub(crate) fn tell_out_of_memory(&self) {
        if let Some(Hook(hook)) = self.out_of_memory.get() {
            hook();
        }
    }
}
