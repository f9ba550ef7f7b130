//! Names and what they lead to: the dentry cache.
//!
//! A dentry never changes what it leads to: a name that is made, removed or replaced gets a new dentry. A dentry holds its
//! parent; a directory knows its children weakly; the cache of the file system holds some children that nothing uses.
//! Looking up a cached name takes one shared lock of the directory and no allocation.
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use sync::{LockClass, Mutex, RwLock};

use crate::InodeOps;
use crate::inode::Caching;

/// Where a dentry is.
struct Place {
    /// `None` for a root and for what never had a name.
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

type ByName = HashMap<Arc<[u8]>, Weak<Dentry>>;

#[derive(Default)]
struct Children {
    /// Boxed, because most dentries are no directories.
    map: Option<Box<ByName>>,
    /// Counts changes of the directory, so that what was looked up before one is not taken as what is there after it.
    generation: u64,
}

/// What a name leads to.
pub(crate) enum Target {
    Inode(Arc<dyn InodeOps>),
    /// Nothing; the directory's [`InodeOps::missing_stamp`] from before it was asked, or 0.
    Missing(u64),
}

impl Target {
    const fn inode(&self) -> Option<&Arc<dyn InodeOps>> {
        match self {
            Self::Inode(inode) => Some(inode),
            Self::Missing(_) => None,
        }
    }
}

/// A name in a directory and the inode it leads to; without an inode, the knowledge that the name is missing.
pub struct Dentry {
    target: Target,
    place: RwLock<Place>,
    children: RwLock<Children>,
    /// How many mounts there are on it, in all namespaces.
    pub(crate) mounts: AtomicU32,
    /// Its name was removed.
    unlinked: AtomicBool,
    /// Opened by `O_TMPFILE | O_EXCL`: never to get a name.
    nameless: AtomicBool,
    /// Used since the cache last looked.
    referenced: AtomicBool,
    /// Where the cache keeps it; changed under the cache's lock.
    slot: AtomicU32,
}

impl fmt::Debug for Dentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        f.debug_struct("Dentry")
            .field("name", &String::from_utf8_lossy(&name))
            .field("negative", &self.inode().is_none())
            .finish_non_exhaustive()
    }
}

impl Dentry {
    fn make(parent: Option<Arc<Self>>, name: Arc<[u8]>, target: Target) -> Arc<Self> {
        Arc::new(Self {
            target,
            place: RwLock::new(LockClass::Dentry, Place { parent, name }),
            children: RwLock::new(LockClass::Dentry, Children::default()),
            mounts: AtomicU32::new(0),
            unlinked: AtomicBool::new(false),
            nameless: AtomicBool::new(false),
            referenced: AtomicBool::new(false),
            slot: AtomicU32::new(NO_SLOT),
        })
    }

    /// The root of a file system.
    #[must_use]
    pub fn root(inode: Arc<dyn InodeOps>) -> Arc<Self> {
        Self::make(None, Arc::from(&b"/"[..]), Target::Inode(inode))
    }

    /// A dentry in no directory: of a pipe, a socket, a file without a name. `name` is what `/proc/PID/fd` shows.
    #[must_use]
    pub fn disconnected(name: &[u8], inode: Arc<dyn InodeOps>) -> Arc<Self> {
        Self::make(None, Arc::from(name), Target::Inode(inode))
    }

    /// A dentry below another, unknown to it.
    pub(crate) fn unhashed(self: &Arc<Self>, name: &[u8], target: Target) -> Arc<Self> {
        Self::make(Some(Arc::clone(self)), Arc::from(name), target)
    }

    /// What the name leads to; `None` where it is missing.
    #[must_use]
    pub const fn inode(&self) -> Option<&Arc<dyn InodeOps>> {
        self.target.inode()
    }
    pub(crate) const fn target(&self) -> &Target {
        &self.target
    }
    /// The last component.
    #[must_use]
    pub fn name(&self) -> Arc<[u8]> {
        Arc::clone(&self.place.read().name)
    }
    /// The directory it is in; `None` for a root.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.place.read().parent.clone()
    }
    /// Parent and name together.
    #[must_use]
    pub fn place(&self) -> (Option<Arc<Self>>, Arc<[u8]>) {
        let place = self.place.read();
        (place.parent.clone(), Arc::clone(&place.name))
    }
    /// Tells whether the name was removed.
    #[must_use]
    pub fn is_unlinked(&self) -> bool {
        self.unlinked.load(Ordering::Relaxed)
    }
    pub(crate) fn is_nameless(&self) -> bool {
        self.nameless.load(Ordering::Relaxed)
    }
    pub(crate) fn set_nameless(&self) {
        self.nameless.store(true, Ordering::Relaxed);
    }
    pub(crate) fn set_unlinked(&self) {
        self.unlinked.store(true, Ordering::Relaxed);
    }
    /// Tells whether something is mounted on it, in some namespace.
    #[must_use]
    pub fn is_mountpoint(&self) -> bool {
        self.mounts.load(Ordering::Acquire) > 0
    }
    /// Tells whether `self` is `other` or below it.
    #[must_use]
    pub fn is_below(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let mut at = Some(Arc::clone(self));
        while let Some(dentry) = at {
            if Arc::ptr_eq(&dentry, other) {
                return true;
            }
            at = dentry.parent();
        }
        false
    }

    /// The child the cache knows under a name.
    #[must_use]
    pub fn cached(&self, name: &[u8]) -> Option<Arc<Self>> {
        let found = self.children.read().map.as_ref()?.get(name)?.upgrade()?;
        if !found.referenced.load(Ordering::Relaxed) {
            found.referenced.store(true, Ordering::Relaxed);
        }
        Some(found)
    }

    /// The count of changes that [`Self::insert`] and [`Self::replace`] are told.
    #[must_use]
    pub(crate) fn generation(&self) -> u64 {
        self.children.read().generation
    }

    /// Adds what a lookup found. `None` where the directory changed since `generation`; if another lookup was faster, its
    /// dentry.
    pub(crate) fn insert(
        self: &Arc<Self>,
        cache: &DentryCache,
        name: &[u8],
        target: Target,
        generation: u64,
    ) -> Option<Arc<Self>> {
        let fresh = self.unhashed(name, target);
        let key = fresh.name();
        let mut children = self.children.write();
        if children.generation != generation {
            drop(children);
            return None;
        }
        let other = children.map.as_ref().and_then(|m| m.get(name)).and_then(Weak::upgrade);
        if let Some(other) = other {
            drop(children);
            return Some(other);
        }
        children.map.get_or_insert_default().insert(key, Arc::downgrade(&fresh));
        drop(children);
        cache.keep(&fresh, self);
        Some(fresh)
    }

    /// The directory changed at this name: forgets what was known, and knows what it leads to now. Gives the new dentry,
    /// which the cache knows only if nothing else changed since `generation`.
    pub(crate) fn replace(
        self: &Arc<Self>,
        cache: &DentryCache,
        name: &[u8],
        target: Target,
        generation: u64,
    ) -> Arc<Self> {
        let fresh = self.unhashed(name, target);
        let key = fresh.name();
        let mut children = self.children.write();
        let sole = children.generation == generation;
        children.generation += 1;
        let map = children.map.get_or_insert_default();
        let old = if sole { map.insert(key, Arc::downgrade(&fresh)) } else { map.remove(name) };
        drop(children);
        drop(old);
        if sole {
            cache.keep(&fresh, self);
        }
        fresh
    }

    /// The directory changed at this name: forgets what was known.
    pub(crate) fn forget(&self, name: &[u8]) {
        let mut children = self.children.write();
        children.generation += 1;
        let old = children.map.as_mut().and_then(|m| m.remove(name));
        drop(children);
        drop(old);
    }

    /// Forgets a child that proved stale, unless the name leads elsewhere already.
    pub(crate) fn forget_child(&self, child: &Arc<Self>) {
        let name = child.name();
        let mut children = self.children.write();
        let Some(map) = children.map.as_mut() else { return };
        if map.get(&name).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(child))) {
            let old = map.remove(&name);
            drop(children);
            drop(old);
        }
    }

    /// Gives a child another place, after the file system did.
    pub(crate) fn move_child(&self, child: &Arc<Self>, new_dir: &Arc<Self>, new_name: &[u8]) {
        self.forget(&child.name());
        child.set_place(new_dir, new_name);
    }

    /// Puts the dentry at a place, in place of what was known there.
    pub(crate) fn set_place(self: &Arc<Self>, dir: &Arc<Self>, name: &[u8]) {
        let name: Arc<[u8]> = Arc::from(name);
        let old_place = {
            let mut place = self.place.write();
            let place = &mut *place;
            (place.parent.replace(Arc::clone(dir)), std::mem::replace(&mut place.name, Arc::clone(&name)))
        };
        drop(old_place);
        let mut children = dir.children.write();
        children.generation += 1;
        let old = children.map.get_or_insert_default().insert(name, Arc::downgrade(self));
        drop(children);
        drop(old);
    }

    /// Takes the dentry at `this` out of its parent's children, when it goes away.
    fn unhash(this: *const Self, parent: &Self, name: &[u8]) {
        let mut children = parent.children.write();
        let Some(map) = children.map.as_mut() else { return };
        let old = if map.get(name).is_some_and(|known| std::ptr::eq(known.as_ptr(), this)) {
            map.remove_entry(name)
        } else {
            None
        };
        if map.is_empty() {
            children.map = None;
        }
        drop(children);
        drop(old);
    }
}

impl Drop for Dentry {
    /// Goes up in a loop, because a guest can make a path of any depth.
    fn drop(&mut self) {
        let this: *const Self = self;
        let place = self.place.get_mut();
        let (mut up, mut name) = (place.parent.take(), Arc::clone(&place.name));
        let mut this = this;
        while let Some(parent) = up {
            Self::unhash(this, &parent, &name);
            this = Arc::as_ptr(&parent);
            let Some(mut last) = Arc::into_inner(parent) else { break };
            let place = last.place.get_mut();
            up = place.parent.take();
            name = Arc::clone(&place.name);
        }
    }
}

/// No place in the cache.
const NO_SLOT: u32 = u32::MAX;
/// How many dentries get a second chance before one goes regardless.
const MOST_LOOKS: usize = 64;

/// Dentries in a circle with a hand that goes round.
#[derive(Default)]
struct Clock {
    slots: Vec<Option<Arc<Dentry>>>,
    free: Vec<u32>,
    hand: usize,
}

impl Clock {
    /// Finds a slot, and what has to leave it.
    fn take_slot(&mut self, capacity: usize) -> (usize, Option<Arc<Dentry>>) {
        if let Some(slot) = self.free.pop() {
            return (slot as usize, None);
        }
        if self.slots.len() < capacity {
            self.slots.push(None);
            return (self.slots.len() - 1, None);
        }
        for _ in 0..MOST_LOOKS {
            let second_chance = match self.slots.get(self.hand) {
                Some(Some(dentry)) => dentry.referenced.swap(false, Ordering::Relaxed),
                _ => false,
            };
            if !second_chance {
                break;
            }
            self.hand = (self.hand + 1) % self.slots.len().max(1);
        }
        let slot = self.hand;
        self.hand = (self.hand + 1) % self.slots.len().max(1);
        let old = self.slots.get_mut(slot).and_then(Option::take);
        if let Some(old) = &old {
            old.slot.store(NO_SLOT, Ordering::Relaxed);
        }
        (slot, old)
    }
}

/// Keeps dentries that nothing uses, up to a number, by second chance.
pub(crate) struct DentryCache {
    capacity: usize,
    clock: Mutex<Clock>,
}

impl fmt::Debug for DentryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DentryCache(up to {})", self.capacity)
    }
}

impl DentryCache {
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, 1 << 24);
        Self { capacity, clock: Mutex::new(LockClass::Dentry, Clock::default()) }
    }

    /// Keeps a new dentry, and lets another go for it.
    fn keep(&self, dentry: &Arc<Dentry>, parent: &Arc<Dentry>) {
        let inode = dentry.inode().or(parent.inode());
        if inode.is_some_and(|inode| inode.caching() == Caching::Never) {
            return;
        }
        let mut clock = self.clock.lock();
        let (slot, gone) = clock.take_slot(self.capacity);
        if let Some(place) = clock.slots.get_mut(slot) {
            dentry.slot.store(u32::try_from(slot).unwrap_or(NO_SLOT), Ordering::Relaxed);
            *place = Some(Arc::clone(dentry));
        }
        drop(clock);
        drop(gone);
    }

    /// Lets a dentry go whose name was removed, so that the file goes with its last user.
    pub(crate) fn release(&self, dentry: &Arc<Dentry>) {
        let mut clock = self.clock.lock();
        let slot = dentry.slot.swap(NO_SLOT, Ordering::Relaxed);
        let place = usize::try_from(slot).ok().and_then(|s| clock.slots.get_mut(s));
        let old = match place {
            Some(place) if place.as_ref().is_some_and(|d| Arc::ptr_eq(d, dentry)) => place.take(),
            _ => None,
        };
        if old.is_some() {
            clock.free.push(slot);
        }
        drop(clock);
        drop(old);
    }

    /// Lets everything go.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.clock.lock());
        drop(all);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.clock.lock().slots.iter().flatten().count()
    }
}
