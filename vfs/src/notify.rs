//! Telling watchers what happens to files, `inotify(7)`.
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;
use sync::{LockClass, Mutex};

/// The events of `inotify(7)`.
#[expect(missing_docs, reason = "the names are those of inotify(7)")]
pub mod event {
    pub const IN_ACCESS: u32 = 0x1;
    pub const IN_MODIFY: u32 = 0x2;
    pub const IN_ATTRIB: u32 = 0x4;
    pub const IN_CLOSE_WRITE: u32 = 0x8;
    pub const IN_CLOSE_NOWRITE: u32 = 0x10;
    pub const IN_OPEN: u32 = 0x20;
    pub const IN_MOVED_FROM: u32 = 0x40;
    pub const IN_MOVED_TO: u32 = 0x80;
    pub const IN_CREATE: u32 = 0x100;
    pub const IN_DELETE: u32 = 0x200;
    pub const IN_DELETE_SELF: u32 = 0x400;
    pub const IN_MOVE_SELF: u32 = 0x800;
    pub const IN_UNMOUNT: u32 = 0x2000;
    pub const IN_EXCL_UNLINK: u32 = 0x400_0000;
    pub const IN_ISDIR: u32 = 0x4000_0000;
}

/// Is told of events; called with no lock held.
pub trait Watcher: Send + Sync + fmt::Debug {
    /// Something happened to the watched inode, or where `name` is given to that child of the watched directory. Equal
    /// cookies tie the two halves of a rename. `IN_EXCL_UNLINK` says that the child has lost its name.
    fn event(&self, mask: u32, cookie: u32, name: Option<&[u8]>);
}

/// Who watches which inode of a file system. Costs one load where nobody does.
pub struct Watches {
    count: AtomicUsize,
    by_ino: Mutex<WatchMap>,
}

type WatchList = SmallVec<[(u64, Arc<dyn Watcher>); 1]>;

#[derive(Default)]
struct WatchMap {
    next: u64,
    by_ino: HashMap<u64, WatchList>,
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watches({})", self.count.load(Ordering::Relaxed))
    }
}

impl Default for Watches {
    fn default() -> Self {
        Self::new()
    }
}

impl Watches {
    pub(crate) fn new() -> Self {
        let by_ino = Mutex::new(LockClass::Leaf, WatchMap::default());
        Self { count: AtomicUsize::new(0), by_ino }
    }

    /// Tells whether nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Adds a watcher of an inode; gives the key to remove it by.
    pub fn add(&self, ino: u64, watcher: Arc<dyn Watcher>) -> u64 {
        let mut map = self.by_ino.lock();
        map.next += 1;
        let key = map.next;
        map.by_ino.entry(ino).or_default().push((key, watcher));
        self.count.fetch_add(1, Ordering::Release);
        key
    }

    /// Removes a watcher.
    pub fn remove(&self, ino: u64, key: u64) {
        let mut map = self.by_ino.lock();
        let Some(list) = map.by_ino.get_mut(&ino) else { return };
        let gone = list.iter().position(|(k, _)| *k == key).map(|at| list.remove(at));
        if list.is_empty() {
            map.by_ino.remove(&ino);
        }
        drop(map);
        if gone.is_some() {
            self.count.fetch_sub(1, Ordering::Release);
        }
    }

    /// Tells the watchers of an inode.
    pub fn notify(&self, ino: u64, mask: u32, cookie: u32, name: Option<&[u8]>) {
        if self.is_empty() {
            return;
        }
        let told: SmallVec<[Arc<dyn Watcher>; 4]> = {
            let map = self.by_ino.lock();
            map.by_ino.get(&ino).into_iter().flatten().map(|(_, w)| Arc::clone(w)).collect()
        };
        for watcher in told {
            watcher.event(mask, cookie, name);
        }
    }
}
