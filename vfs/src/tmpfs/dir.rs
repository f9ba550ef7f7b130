//! The entries of a directory.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::TmpfsInode;

/// The positions of `.` and `..` come before the first entry's.
const FIRST_COOKIE: u64 = 2;

/// Names by name and by age. A name's position in the directory never changes, so that reading goes on where it was
/// whatever is made and removed meanwhile.
#[derive(Debug)]
pub(super) struct Entries {
    by_name: HashMap<Arc<[u8]>, (u64, Arc<TmpfsInode>)>,
    by_age: BTreeMap<u64, Arc<[u8]>>,
    next_cookie: u64,
    /// The directory was removed: nothing can be made in it any more.
    pub(super) dead: bool,
    /// The inode number of `..`.
    pub(super) parent: u64,
}

impl Entries {
    pub(super) fn new(parent: u64) -> Self {
        let (by_name, by_age) = (HashMap::new(), BTreeMap::new());
        Self { by_name, by_age, next_cookie: FIRST_COOKIE, dead: false, parent }
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Arc<TmpfsInode>> {
        self.by_name.get(name).map(|(_, inode)| inode)
    }
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Adds a name, or has it lead elsewhere; gives where it led.
    pub(super) fn put(&mut self, name: &[u8], inode: Arc<TmpfsInode>) -> Option<Arc<TmpfsInode>> {
        if let Some((_, place)) = self.by_name.get_mut(name) {
            return Some(std::mem::replace(place, inode));
        }
        let (key, cookie): (Arc<[u8]>, u64) = (Arc::from(name), self.next_cookie);
        self.next_cookie += 1;
        self.by_age.insert(cookie, Arc::clone(&key));
        self.by_name.insert(key, (cookie, inode));
        None
    }

    /// Takes a name out.
    pub(super) fn take(&mut self, name: &[u8]) -> Option<Arc<TmpfsInode>> {
        let (cookie, inode) = self.by_name.remove(name)?;
        self.by_age.remove(&cookie);
        Some(inode)
    }

    /// The entries from a position on: position, name, inode.
    pub(super) fn from(&self, position: u64) -> impl Iterator<Item = (u64, &Arc<[u8]>, &Arc<TmpfsInode>)> {
        self.by_age.range(position.max(FIRST_COOKIE)..).filter_map(|(cookie, name)| {
            let (_, inode) = self.by_name.get(name)?;
            Some((*cookie, name, inode))
        })
    }

    /// Takes everything out.
    pub(super) fn take_all(&mut self) -> Vec<Arc<TmpfsInode>> {
        self.by_age.clear();
        self.by_name.drain().map(|(_, (_, inode))| inode).collect()
    }
}
