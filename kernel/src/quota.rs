//! What a container may take of the sandbox, and what programs see of that.
use std::sync::atomic::{AtomicU64, Ordering};

use sync::{LockClass, Mutex};

/// Limits of a container that its kernel enforces or shows; each may change while programs run.
#[derive(Debug)]
pub struct Quota {
    tasks: AtomicU64,
    memory: AtomicU64,
    cpu: Mutex<Option<(u64, u64)>>,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            tasks: AtomicU64::new(u64::MAX),
            memory: AtomicU64::new(u64::MAX),
            cpu: Mutex::new(LockClass::Leaf, None),
        }
    }
}

impl Quota {
    /// How many threads there may be, `pids.max`; `u64::MAX` for no limit.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.tasks.load(Ordering::Relaxed)
    }
    /// Changes how many threads there may be.
    pub fn set_tasks(&self, tasks: u64) {
        self.tasks.store(tasks, Ordering::Relaxed);
    }
    /// How many bytes of memory programs are told there are; `u64::MAX` where nobody said.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }
    /// Changes how many bytes of memory programs are told there are.
    pub fn set_memory(&self, bytes: u64) {
        self.memory.store(bytes, Ordering::Relaxed);
    }
    /// How many microseconds of processor time programs get in how many, where that is limited: by the host, they are only
    /// told.
    #[must_use]
    pub fn cpu(&self) -> Option<(u64, u64)> {
        *self.cpu.lock()
    }
    /// Changes what they are told.
    pub fn set_cpu(&self, limit: Option<(u64, u64)>) {
        *self.cpu.lock() = limit;
    }
}
