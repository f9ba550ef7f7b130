//! What upper crates keep in each task, without the kernel looking inside.
use std::any::Any;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use abi::Errno;

use crate::CloneFlags;

/// Every place there is for a resource of an upper crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotId {
    /// Root, working directory and umask.
    Fs,
    /// The mount namespace.
    MountNs,
    /// The network namespace.
    NetNs,
    /// The System V IPC namespace.
    IpcNs,
    /// Who traces the task.
    Tracing,
}

impl SlotId {
    /// How many places there are.
    pub(crate) const COUNT: usize = 5;
}

/// The resources of one task, by [`SlotId`].
pub(crate) type Slots = [Option<Arc<dyn TaskResource>>; SlotId::COUNT];

/// What a slot can hold.
pub trait TaskResource: Any + Send + Sync + Debug {
    /// Gives what a new task gets: the same value where the flags share it, a copy otherwise. Also called by unshare(2),
    /// with the flags inverted, so that what is not to be shared any more is copied.
    ///
    /// # Errors
    /// Those of clone(2), such as `EPERM` for a namespace that may not be made.
    fn on_clone(self: Arc<Self>, flags: CloneFlags) -> Result<Arc<dyn TaskResource>, Errno>;

    /// Gives what the task has after execve(2).
    fn on_exec(self: Arc<Self>) -> Arc<dyn TaskResource>;

    /// One task that had it is gone.
    fn on_exit(&self) {}
}

/// The typed name of a slot; upper crates keep one as a constant.
#[derive(Debug)]
pub struct Slot<T> {
    id: SlotId,
    holds: PhantomData<fn() -> T>,
}

impl<T: TaskResource> Slot<T> {
    /// Names the slot. Each slot holds values of one type only.
    #[must_use]
    pub const fn new(id: SlotId) -> Self {
        Self { id, holds: PhantomData }
    }

    /// Which slot this is.
    #[must_use]
    pub const fn id(&self) -> SlotId {
        self.id
    }

    pub(crate) fn read(&self, slots: &Slots) -> Option<Arc<T>> {
        let value: Arc<dyn TaskResource> = slots.get(self.id as usize)?.clone()?;
        let value: Arc<dyn Any + Send + Sync> = value;
        value.downcast().ok()
    }
}

/// Puts a value in its place; gives what was there.
pub(crate) fn put(
    slots: &mut Slots,
    id: SlotId,
    value: Arc<dyn TaskResource>,
) -> Option<Arc<dyn TaskResource>> {
    slots.get_mut(id as usize).and_then(|slot| slot.replace(value))
}
