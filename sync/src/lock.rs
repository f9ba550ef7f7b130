//! Locks with a fixed order, checked at run time in debug and test builds.
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Every class of lock there is, outermost first: a thread that holds a lock takes only locks of later classes.
///
/// Two locks of one class may be held together only by `lock_nested`, whose callers order the two by themselves
/// (parent directory before child, lower address before higher).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LockClass {
    /// Objects above the kernel's own, such as the control server.
    Sandbox,
    /// Rename of directories, one a superblock (Linux `s_vfs_rename_mutex`).
    Rename,
    /// The mount tree.
    Mounts,
    /// An inode of an overlay that is being copied up.
    OverlayCopy,
    /// Names in a directory of an overlay.
    OverlayChange,
    /// An epoll instance's interest list.
    Epoll,
    /// A position of an open file; getdents(2) reads the directory under it.
    FilePosition,
    /// A directory inode: its children are being changed.
    Directory,
    /// Contents and attributes of one inode.
    Inode,
    /// Descriptors on their way between sockets.
    InFlight,
    /// A socket's state.
    Socket,
    /// A terminal's line discipline.
    Tty,
    /// A pipe's, eventfd's or similar file's state.
    FileState,
    /// The task tree: parents, children, thread groups, process groups, sessions (Linux `tasklist_lock`).
    TaskTree,
    /// What a thread and the one that traces it have in common.
    Tracing,
    /// Signal actions and pending signals of one thread group (Linux `siglock`).
    Signals,
    /// Timers of a thread group.
    Timers,
    /// Descriptor tables.
    FdTable,
    /// Working directory, root and umask.
    FsContext,
    /// Small mutable state of one task.
    Task,
    /// Futex buckets.
    Futex,
    /// VMAs and PMAs of one memory manager.
    MemoryManager,
    /// Mappings of one file object.
    Mappings,
    /// Page storage of a file in memory.
    Pages,
    /// The memory file's allocator.
    MemoryFile,
    /// The dentry cache and its LRU list.
    Dentry,
    /// Record and whole-file locks.
    FileLocks,
    /// A 9P client.
    Client,
    /// Stub processes.
    Platform,
    /// Wait queues: taken last but for leaves.
    WaitQueue,
    /// Locks under which nothing else is taken.
    Leaf,
}

#[cfg(debug_assertions)]
mod held {
    use super::LockClass;
    use std::cell::RefCell;
    thread_local!(static HELD: RefCell<Vec<LockClass>> = const { RefCell::new(Vec::new()) });

    pub(super) fn acquire(class: LockClass, nested: bool) {
        HELD.with_borrow_mut(|held| {
            if let Some(last) = held.iter().max() {
                let ordered = if nested { *last <= class } else { *last < class };
                assert!(ordered, "lock order: {class:?} taken while holding {held:?}");
            }
            held.push(class);
        });
    }
    pub(super) fn release(class: LockClass) {
        // A guard may be dropped while its thread's locals are being torn down; nothing is left to check then.
        HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if let Some(at) = held.iter().rposition(|c| *c == class) {
                held.remove(at);
            }
        })
        .unwrap_or(());
    }
}
#[cfg(not(debug_assertions))]
mod held {
    pub(super) fn acquire(_: super::LockClass, _: bool) {}
    pub(super) fn release(_: super::LockClass) {}
}

macro_rules! guard {
    ($(#[$doc:meta])* $name:ident, $inner:ident $(, $mutable:ident)?) => {
        $(#[$doc])*
        pub struct $name<'a, T: ?Sized> {
            inner: parking_lot::$inner<'a, T>,
            class: LockClass,
        }
        impl<T: ?Sized> Deref for $name<'_, T> {
            type Target = T;
            fn deref(&self) -> &T { &self.inner }
        }
        $(impl<T: ?Sized> DerefMut for $name<'_, T> {
            fn deref_mut(&$mutable self) -> &mut T { &mut self.inner }
        })?
        impl<T: ?Sized> Drop for $name<'_, T> {
            fn drop(&mut self) { held::release(self.class); }
        }
        impl<T: ?Sized + fmt::Debug> fmt::Debug for $name<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Debug::fmt(&self.inner, f) }
        }
    };
}

guard!(
    /// Access to what a [`Mutex`] protects.
    MutexGuard, MutexGuard, mut
);
guard!(
    /// Shared access to what an [`RwLock`] protects.
    RwLockReadGuard, RwLockReadGuard
);
guard!(
    /// Exclusive access to what an [`RwLock`] protects.
    RwLockWriteGuard, RwLockWriteGuard, mut
);

/// A mutual exclusion lock with a place in the order of [`LockClass`].
pub struct Mutex<T: ?Sized> {
    class: LockClass,
    inner: parking_lot::Mutex<T>,
}

impl<T> Mutex<T> {
    /// Makes a lock of this class.
    pub const fn new(class: LockClass, value: T) -> Self {
        Self { class, inner: parking_lot::Mutex::new(value) }
    }
    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes the lock, waiting for it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        held::acquire(self.class, false);
        MutexGuard { inner: self.inner.lock(), class: self.class }
    }
    /// Takes a second lock of a class that the thread holds already; the caller orders the two.
    pub fn lock_nested(&self) -> MutexGuard<'_, T> {
        held::acquire(self.class, true);
        MutexGuard { inner: self.inner.lock(), class: self.class }
    }
    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.inner.try_lock()?;
        held::acquire(self.class, true);
        Some(MutexGuard { inner, class: self.class })
    }
    /// The value, through exclusive access to the lock itself.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

/// A readers-writer lock with a place in the order of [`LockClass`].
pub struct RwLock<T: ?Sized> {
    class: LockClass,
    inner: parking_lot::RwLock<T>,
}

impl<T> RwLock<T> {
    /// Makes a lock of this class.
    pub const fn new(class: LockClass, value: T) -> Self {
        Self { class, inner: parking_lot::RwLock::new(value) }
    }
    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Takes the lock shared, waiting for it.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        held::acquire(self.class, false);
        RwLockReadGuard { inner: self.inner.read(), class: self.class }
    }
    /// Takes the lock exclusive, waiting for it.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        held::acquire(self.class, false);
        RwLockWriteGuard { inner: self.inner.write(), class: self.class }
    }
    /// Takes a second lock of a class exclusive; the caller orders the two.
    pub fn write_nested(&self) -> RwLockWriteGuard<'_, T> {
        held::acquire(self.class, true);
        RwLockWriteGuard { inner: self.inner.write(), class: self.class }
    }
    /// Takes a second lock of a class shared; the caller orders the two.
    pub fn read_nested(&self) -> RwLockReadGuard<'_, T> {
        held::acquire(self.class, true);
        RwLockReadGuard { inner: self.inner.read(), class: self.class }
    }
    /// The value, through exclusive access to the lock itself.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downward_order_is_accepted() {
        let (a, b) = (Mutex::new(LockClass::Inode, 1), Mutex::new(LockClass::Leaf, 2));
        assert_eq!(*a.lock() + *b.lock(), 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock order")]
    fn upward_order_is_caught() {
        let (a, b) = (Mutex::new(LockClass::Inode, 1), Mutex::new(LockClass::Leaf, 2));
        let _b = b.lock();
        let _a = a.lock();
    }
}
