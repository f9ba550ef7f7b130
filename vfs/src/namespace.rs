//! Mount namespaces, `mount_namespaces(7)`.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::Errno;
use sync::{LockClass, Mutex, MutexGuard, WaitQueue};

use crate::{Mount, Path};

/// The most mounts of one namespace, `/proc/sys/fs/mount-max`.
pub(crate) const MOUNT_MAX: usize = 100_000;

static NEXT_ID: AtomicU64 = AtomicU64::new(0xf000_0000);

/// What a group of processes sees as mounted where.
#[derive(Debug)]
pub struct MountNamespace {
    id: u64,
    /// Held by who changes the tree.
    lock: Mutex<()>,
    /// Below the lock's class because it is read on its own.
    root: Mutex<Arc<Mount>>,
    count: AtomicU32,
    /// Told when `/proc/mounts` changes.
    changes: WaitQueue,
    generation: AtomicU64,
}

impl MountNamespace {
    /// A namespace with one mount.
    #[must_use]
    pub fn new(root: Arc<Mount>) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            lock: Mutex::new(LockClass::Mounts, ()),
            root: Mutex::new(LockClass::Leaf, root),
            count: AtomicU32::new(1),
            changes: WaitQueue::new(),
            generation: AtomicU64::new(0),
        })
    }

    /// The inode number of `/proc/PID/ns/mnt`.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }
    /// The mount everything else is attached to.
    #[must_use]
    pub fn root(&self) -> Arc<Mount> {
        Arc::clone(&self.root.lock())
    }
    /// The root directory, with what is mounted over it.
    #[must_use]
    pub fn root_path(&self) -> Path {
        self.root().root_path().follow_mounts()
    }
    /// Every mount, in the order of their numbers.
    #[must_use]
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        let mut all = self.root().tree();
        all.sort_by_key(|mount| mount.id());
        all
    }
    /// Tells whether the mount is part of it.
    #[must_use]
    pub fn contains(&self, mount: &Arc<Mount>) -> bool {
        let root = self.root();
        let mut at = Arc::clone(mount);
        loop {
            if Arc::ptr_eq(&at, &root) {
                return true;
            }
            match at.attached_on() {
                Some(on) => at = on.mount,
                None => return false,
            }
        }
    }
    /// Who waits for changes of `/proc/mounts`.
    #[must_use]
    pub const fn changes(&self) -> &WaitQueue {
        &self.changes
    }
    /// Counts the changes.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock()
    }

    pub(crate) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        self.changes.notify(sync::PollEvents::PRI | sync::PollEvents::ERR);
    }

    /// Makes room for `n` more mounts in the count.
    pub(crate) fn reserve(&self, n: usize) -> Result<(), Errno> {
        let n = u32::try_from(n).or(Err(Errno::ENOSPC))?;
        let now = self.count.fetch_add(n, Ordering::Relaxed).saturating_add(n);
        if now as usize > MOUNT_MAX {
            self.release(n as usize);
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }
    pub(crate) fn release(&self, n: usize) {
        self.count.fetch_sub(u32::try_from(n).unwrap_or(0), Ordering::Relaxed);
    }

    /// Makes `mount` the root; the caller holds the lock. Gives the old one.
    pub(crate) fn set_root(&self, mount: Arc<Mount>) -> Arc<Mount> {
        std::mem::replace(&mut *self.root.lock(), mount)
    }

    /// A copy of it, `CLONE_NEWNS`, and which mount became which.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn copy(&self) -> Result<(Arc<Self>, MountMap), Errno> {
        let guard = self.lock();
        let old_root = self.root();
        let (root, map) = copy_tree(&old_root, old_root.root());
        drop(guard);
        let new = Self::new(root);
        new.reserve(map.pairs.len().saturating_sub(1))?;
        Ok((new, map))
    }
}

/// Which mount was copied to which.
#[derive(Debug, Default)]
pub struct MountMap {
    pairs: Vec<(Arc<Mount>, Arc<Mount>)>,
}

impl MountMap {
    /// The same place in the copy; the place itself where it was not copied.
    #[must_use]
    pub fn translate(&self, path: &Path) -> Path {
        let found = self.pairs.iter().find(|(old, _)| Arc::ptr_eq(old, &path.mount));
        let mount = found.map_or(&path.mount, |(_, new)| new);
        Path { mount: Arc::clone(mount), dentry: Arc::clone(&path.dentry) }
    }
    /// How many mounts were copied.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }
    /// Tells whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

fn copy_one(mount: &Arc<Mount>, root: &Arc<crate::Dentry>) -> Arc<Mount> {
    Mount::new(Arc::clone(mount.sb()), Arc::clone(root), mount.source(), mount.flags())
}

/// Copies a mount from `root` on, with everything mounted below that; the caller holds the namespace's lock.
pub(crate) fn copy_tree(mount: &Arc<Mount>, root: &Arc<crate::Dentry>) -> (Arc<Mount>, MountMap) {
    let top = copy_one(mount, root);
    let mut map = MountMap { pairs: vec![(Arc::clone(mount), Arc::clone(&top))] };
    let mut at = 0;
    while let Some((old, new)) = map.pairs.get(at).map(|(o, n)| (Arc::clone(o), Arc::clone(n))) {
        for child in old.children() {
            let Some(on) = child.attached_on() else { continue };
            if child.is_unbindable() || (at == 0 && !on.dentry.is_below(root)) {
                continue;
            }
            let copy = copy_one(&child, child.root());
            new.attach(&on.dentry, &copy);
            map.pairs.push((child, copy));
        }
        at += 1;
    }
    (top, map)
}
