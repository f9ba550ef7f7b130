//! The fids of one connection.

use super::backend::Backend;
use crate::proto::{NOFID, Qid};
use abi::Errno;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use sync::{LockClass, Mutex};

/// A file that some fid stands for, and where it was found.
#[derive(Debug)]
pub(super) struct Node<B: Backend> {
    pub(super) file: B::File,
    pub(super) qid: Qid,
    /// The directory and the name, which Tremove, Trename and `..` need; not kept for fids of the extension.
    pub(super) parent: Option<(Arc<Self>, Box<[u8]>)>,
}

/// What a fid has been opened as.
#[derive(Debug)]
pub(super) enum Opened<B: Backend> {
    File(B::Handle),
    /// The value of an extended attribute, for reading.
    Xattr(Vec<u8>),
    /// An extended attribute that is set when the fid is clunked.
    NewXattr(Box<NewXattr>),
}

#[derive(Debug)]
pub(super) struct NewXattr {
    pub(super) name: Vec<u8>,
    pub(super) size: usize,
    pub(super) flags: u32,
    /// What has been written so far: at most `size` bytes.
    pub(super) value: Mutex<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Fid<B: Backend> {
    pub(super) node: Arc<Node<B>>,
    pub(super) opened: Option<Arc<Opened<B>>>,
}

impl<B: Backend> Clone for Fid<B> {
    fn clone(&self) -> Self {
        Self { node: Arc::clone(&self.node), opened: self.opened.clone() }
    }
}

impl<B: Backend> Fid<B> {
    pub(super) const fn new(node: Arc<Node<B>>) -> Self {
        Self { node, opened: None }
    }
    /// The open file of this fid.
    pub(super) fn handle(&self) -> Result<&B::Handle, Errno> {
        match self.opened.as_deref() {
            Some(Opened::File(handle)) => Ok(handle),
            _ => Err(Errno::EBADF),
        }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Fids<B: Backend> {
    limit: usize,
    map: Mutex<HashMap<u32, Fid<B>>>,
}

impl<B: Backend> Fids<B> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, map: Mutex::new(LockClass::Client, HashMap::new()) }
    }

    pub(super) fn get(&self, fid: u32) -> Result<Fid<B>, Errno> {
        self.map.lock().get(&fid).cloned().ok_or(Errno::EBADF)
    }

    /// Tells early what [`Self::insert`] would say, before work is done for a fid that cannot be had.
    pub(super) fn check_new(&self, fid: u32) -> Result<(), Errno> {
        let map = self.map.lock();
        if fid == NOFID || map.contains_key(&fid) {
            return Err(Errno::EBADF);
        }
        if map.len() >= self.limit { Err(Errno::ENFILE) } else { Ok(()) }
    }

    /// Adds a fid.
    ///
    /// # Errors
    /// `EBADF` when the fid is in use, `ENFILE` when there are too many.
    pub(super) fn insert(&self, fid: u32, value: Fid<B>) -> Result<(), Errno> {
        let mut map = self.map.lock();
        if map.len() >= self.limit {
            return Err(Errno::ENFILE);
        }
        match map.entry(fid) {
            Slot::Vacant(slot) if fid != NOFID => {
                slot.insert(value);
                Ok(())
            }
            // The value is closed after the lock is gone, as arguments outlive locals.
            _ => Err(Errno::EBADF),
        }
    }

    /// Points a fid that is not open to something else (Twalk to itself) or marks it open.
    pub(super) fn replace(&self, fid: u32, value: Fid<B>) -> Result<(), Errno> {
        let old = match self.map.lock().get_mut(&fid) {
            Some(slot) if slot.opened.is_none() => Ok(std::mem::replace(slot, value)),
            Some(_) | None => Err((Errno::EBADF, value)),
        };
        match old {
            Ok(_closed_here) => Ok(()),
            Err((errno, _closed_here)) => Err(errno),
        }
    }

    pub(super) fn remove(&self, fid: u32) -> Result<Fid<B>, Errno> {
        self.map.lock().remove(&fid).ok_or(Errno::EBADF)
    }

    /// Forgets these fids; the caller closes them by dropping.
    pub(super) fn remove_many(&self, fids: &[u32]) -> Vec<Fid<B>> {
        let mut map = self.map.lock();
        fids.iter().filter_map(|fid| map.remove(fid)).collect()
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.map.lock());
        drop(all);
    }
}
