//! Mounts: where a file system, or a part of one, is attached.
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::fs::{
    MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_NOSYMFOLLOW, MS_RDONLY, MS_RELATIME,
    MS_STRICTATIME,
};
use sync::{LockClass, RwLock};

use crate::{Dentry, Path, SuperBlock};

/// The flags that belong to a mount rather than to its file system.
pub const MOUNT_FLAGS: u32 = MS_RDONLY
    | MS_NOSUID
    | MS_NODEV
    | MS_NOEXEC
    | MS_NOATIME
    | MS_NODIRATIME
    | MS_RELATIME
    | MS_STRICTATIME
    | MS_NOSYMFOLLOW;

static NEXT_ID: AtomicU64 = AtomicU64::new(20);

#[derive(Debug, Default)]
struct Links {
    /// Where it is attached; `None` for the root of a namespace and for what is not attached.
    on: Option<(Weak<Mount>, Arc<Dentry>)>,
    /// What is attached in it, oldest first.
    children: Vec<(Arc<Dentry>, Arc<Mount>)>,
}

/// A file system at a place. Parents hold their children.
#[derive(Debug)]
pub struct Mount {
    id: u64,
    sb: Arc<SuperBlock>,
    root: Arc<Dentry>,
    source: Vec<u8>,
    flags: AtomicU32,
    unbindable: AtomicBool,
    /// Marked by `MNT_EXPIRE`.
    expired: AtomicBool,
    links: RwLock<Links>,
}

impl Mount {
    /// A mount, not attached yet. `flags` are those of [`MOUNT_FLAGS`]; `source` is what `/proc/mounts` shows first.
    #[must_use]
    pub fn new(sb: Arc<SuperBlock>, root: Arc<Dentry>, source: &[u8], flags: u32) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            sb,
            root,
            source: source.to_vec(),
            flags: AtomicU32::new(flags & MOUNT_FLAGS),
            unbindable: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            links: RwLock::new(LockClass::Leaf, Links::default()),
        })
    }

    /// Number, as in `/proc/self/mountinfo`.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }
    /// The file system's instance.
    #[must_use]
    pub const fn sb(&self) -> &Arc<SuperBlock> {
        &self.sb
    }
    /// What of it is attached.
    #[must_use]
    pub const fn root(&self) -> &Arc<Dentry> {
        &self.root
    }
    /// What was mounted, as `/proc/mounts` shows it.
    #[must_use]
    pub fn source(&self) -> &[u8] {
        &self.source
    }
    /// The flags, `MS_*` of [`MOUNT_FLAGS`].
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }
    /// Replaces the flags.
    pub fn set_flags(&self, flags: u32) {
        self.flags.store(flags & MOUNT_FLAGS, Ordering::Relaxed);
    }
    /// Tells whether any of the flags is set.
    #[must_use]
    pub fn has_flags(&self, flags: u32) -> bool {
        self.flags() & flags != 0
    }
    /// Tells whether nothing may be changed through it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.has_flags(MS_RDONLY) || self.sb.is_read_only()
    }
    /// Tells whether it refuses to be bound elsewhere, `MS_UNBINDABLE`.
    #[must_use]
    pub fn is_unbindable(&self) -> bool {
        self.unbindable.load(Ordering::Relaxed)
    }
    pub(crate) fn set_unbindable(&self, unbindable: bool) {
        self.unbindable.store(unbindable, Ordering::Relaxed);
    }
    /// Marks it as unused; tells whether it was marked before.
    pub(crate) fn mark_expired(&self) -> bool {
        self.expired.swap(true, Ordering::Relaxed)
    }
    /// The mount is in use.
    pub(crate) fn touch(&self) {
        if self.expired.load(Ordering::Relaxed) {
            self.expired.store(false, Ordering::Relaxed);
        }
    }

    /// The path of its root.
    #[must_use]
    pub fn root_path(self: &Arc<Self>) -> Path {
        Path { mount: Arc::clone(self), dentry: Arc::clone(&self.root) }
    }

    /// Where it is attached.
    #[must_use]
    pub fn attached_on(&self) -> Option<Path> {
        let links = self.links.read();
        let (mount, dentry) = links.on.as_ref()?;
        Some(Path { mount: mount.upgrade()?, dentry: Arc::clone(dentry) })
    }

    /// What is attached at a place in it; of several, the last.
    #[must_use]
    pub fn child_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Self>> {
        let links = self.links.read();
        let found = links.children.iter().rev().find(|(on, _)| Arc::ptr_eq(on, dentry));
        found.map(|(_, mount)| Arc::clone(mount))
    }

    /// Everything attached in it, oldest first.
    #[must_use]
    pub fn children(&self) -> Vec<Arc<Self>> {
        self.links.read().children.iter().map(|(_, m)| Arc::clone(m)).collect()
    }

    /// This mount and all below it, parents first.
    #[must_use]
    pub fn tree(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut all = vec![Arc::clone(self)];
        let mut at = 0;
        while let Some(mount) = all.get(at) {
            let below = mount.children();
            all.extend(below);
            at += 1;
        }
        all
    }

    /// Attaches `child`; the caller holds the namespace's lock.
    pub(crate) fn attach(self: &Arc<Self>, dentry: &Arc<Dentry>, child: &Arc<Self>) {
        let old = {
            let mut links = child.links.write();
            links.on.replace((Arc::downgrade(self), Arc::clone(dentry)))
        };
        drop(old);
        let mut links = self.links.write();
        links.children.push((Arc::clone(dentry), Arc::clone(child)));
        drop(links);
        dentry.mounts.fetch_add(1, Ordering::Release);
    }

    /// Detaches it from where it is; the caller holds the namespace's lock. Gives what is to be dropped without it.
    pub(crate) fn detach(self: &Arc<Self>) -> Option<(Arc<Dentry>, Arc<Self>)> {
        let on = self.links.write().on.take();
        let (parent, dentry) = on?;
        dentry.mounts.fetch_sub(1, Ordering::Release);
        let parent = parent.upgrade()?;
        let mut links = parent.links.write();
        let at = links.children.iter().position(|(_, m)| Arc::ptr_eq(m, self));
        let gone = at.map(|at| links.children.remove(at));
        drop(links);
        gone
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let links = std::mem::take(self.links.get_mut());
        for (dentry, _) in &links.children {
            dentry.mounts.fetch_sub(1, Ordering::Release);
        }
        // The dentries that a file system keeps for later need not outlive its last mount.
        if Arc::strong_count(&self.sb) == 1 {
            self.sb.cache.clear();
        }
    }
}
