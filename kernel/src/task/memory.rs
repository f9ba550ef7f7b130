//! Who uses a memory manager, and who waits in vfork(2) for it.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap::MemoryManager;

use super::TaskWaiter;

/// One for all tasks that run in the same memory: when the last is gone, the memory is given back, even if a reader of
/// `/proc` still holds the memory manager.
#[derive(Debug)]
pub(crate) struct MmUser {
    mm: Arc<MemoryManager>,
}

impl MmUser {
    pub(crate) fn new(mm: Arc<MemoryManager>) -> Arc<Self> {
        Arc::new(Self { mm })
    }
    pub(crate) const fn mm(&self) -> &Arc<MemoryManager> {
        &self.mm
    }
}

impl Drop for MmUser {
    fn drop(&mut self) {
        self.mm.release();
    }
}

/// The parent in vfork(2), which waits for its child to let go of the memory.
#[derive(Debug)]
pub(crate) struct VforkParent {
    released: AtomicBool,
    waiter: Arc<TaskWaiter>,
}

impl VforkParent {
    pub(crate) fn new(waiter: &Arc<TaskWaiter>) -> Arc<Self> {
        Arc::new(Self { released: AtomicBool::new(false), waiter: Arc::clone(waiter) })
    }
    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::SeqCst)
    }
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
        self.waiter.wake_up();
    }
}
