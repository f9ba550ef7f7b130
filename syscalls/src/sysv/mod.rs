//! System V IPC, `sysvipc(7)`. All processes of a sandbox are in one IPC namespace.
pub mod msg;
pub mod sem;
pub mod shm;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use abi::Errno;
use abi::ipc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE, IpcPerm};
use kernel::{Cap, Credentials};
use sync::{LockClass, Mutex};

use crate::Cx;

/// The most objects of one kind, Linux `SEMMNI`.
const MAX_OBJECTS: usize = 32_000;

/// Seconds since the epoch, for the times of objects.
fn seconds(cx: &Cx<'_>) -> i64 {
    (cx.kernel().clock().realtime_ns() / abi::time::NSEC_PER_SEC).cast_signed()
}

/// What an access needs, the bits of one class of a mode.
const READ: u32 = 4;
const WRITE: u32 = 2;

/// A new object's owner and mode.
fn new_perm(creds: &Credentials, key: i32, flags: u32) -> IpcPerm {
    let (uid, gid) = (creds.euid, creds.egid);
    IpcPerm { key, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777, ..IpcPerm::default() }
}

/// Linux `ipcperms`.
///
/// # Errors
/// `EACCES`.
fn check(creds: &Credentials, perm: &IpcPerm, wanted: u32) -> Result<(), Errno> {
    let granted = if creds.euid == perm.cuid || creds.euid == perm.uid {
        perm.mode >> 6
    } else if creds.in_egroup(perm.cgid) || creds.in_egroup(perm.gid) {
        perm.mode >> 3
    } else {
        perm.mode
    };
    if wanted & !granted & 7 == 0 || creds.has_cap(Cap::IPC_OWNER) { Ok(()) } else { Err(Errno::EACCES) }
}

/// Who may change or remove an object.
///
/// # Errors
/// `EPERM`.
fn check_owner(creds: &Credentials, perm: &IpcPerm) -> Result<(), Errno> {
    let owns = creds.euid == perm.cuid || creds.euid == perm.uid;
    if owns || creds.has_cap(Cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// What `IPC_SET` changes.
fn set_perm(perm: &mut IpcPerm, new: &IpcPerm) {
    (perm.uid, perm.gid) = (new.uid, new.gid);
    perm.mode = perm.mode & !0o777 | new.mode & 0o777;
}

/// Something with an owner and a mode.
trait Object {
    fn perm(&self) -> IpcPerm;
}

#[derive(Debug)]
struct Objects<T> {
    by_id: BTreeMap<i32, Arc<T>>,
    last_id: i32,
}

/// All objects of one kind.
#[derive(Debug)]
struct Registry<T> {
    objects: Mutex<Objects<T>>,
}

impl<T: Object> Registry<T> {
    const fn new() -> Self {
        let objects = Objects { by_id: BTreeMap::new(), last_id: -1 };
        Self { objects: Mutex::new(LockClass::FsContext, objects) }
    }

    /// The object with this id.
    ///
    /// # Errors
    /// `EINVAL`.
    fn get(&self, id: i32) -> Result<Arc<T>, Errno> {
        self.objects.lock().by_id.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    fn remove(&self, id: i32) -> Option<Arc<T>> {
        self.objects.lock().by_id.remove(&id)
    }

    /// The id and object at a place in the order of ids, and the highest place there is.
    fn at(&self, index: i32) -> Result<(i32, Arc<T>), Errno> {
        let index = usize::try_from(index).map_err(|_negative| Errno::EINVAL)?;
        let objects = self.objects.lock();
        objects.by_id.iter().nth(index).map(|(id, o)| (*id, Arc::clone(o))).ok_or(Errno::EINVAL)
    }

    fn len(&self) -> usize {
        self.objects.lock().by_id.len()
    }

    /// Finds the object with a key, or makes one: semget(2), shmget(2). `fits` checks one that is there.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT`, `EACCES`, `ENOSPC`, and those of `fits` and `make`.
    fn find_or_make(
        &self,
        cx: &Cx<'_>,
        key: i32,
        flags: u32,
        fits: impl FnOnce(&T) -> Result<(), Errno>,
        make: impl FnOnce(IpcPerm) -> Result<T, Errno>,
    ) -> Result<i32, Errno> {
        let creds = cx.credentials();
        let known = |objects: &Objects<T>| {
            let mut all = objects.by_id.iter();
            all.find(|(_, o)| key != IPC_PRIVATE && o.perm().key == key).map(|(id, o)| (*id, Arc::clone(o)))
        };
        let found = known(&self.objects.lock());
        if let Some((id, object)) = found {
            if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL {
                return Err(Errno::EEXIST);
            }
            fits(&object)?;
            check(&creds, &object.perm(), flags >> 6 | flags >> 3 | flags)?;
            return Ok(id);
        }
        if key != IPC_PRIVATE && flags & IPC_CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        let new = Arc::new(make(new_perm(&creds, key, flags))?);
        let mut objects = self.objects.lock();
        // Another may have been faster; then its object counts.
        if let Some((id, _)) = known(&objects) {
            return if flags & IPC_EXCL != 0 { Err(Errno::EEXIST) } else { Ok(id) };
        }
        if objects.by_id.len() >= MAX_OBJECTS {
            return Err(Errno::ENOSPC);
        }
        loop {
            objects.last_id = objects.last_id.checked_add(1).unwrap_or(0);
            let id = objects.last_id;
            if let Entry::Vacant(place) = objects.by_id.entry(id) {
                place.insert(new);
                return Ok(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_checked_by_class() {
        let perm = IpcPerm { uid: 1, cuid: 2, gid: 3, cgid: 4, mode: 0o640, ..IpcPerm::default() };
        assert_eq!(check(&Credentials::user(1, 9), &perm, READ | WRITE), Ok(()));
        assert_eq!(check(&Credentials::user(9, 3), &perm, READ), Ok(()));
        assert_eq!(check(&Credentials::user(9, 3), &perm, WRITE), Err(Errno::EACCES));
        assert_eq!(check(&Credentials::user(9, 9), &perm, READ), Err(Errno::EACCES));
        assert_eq!(check(&Credentials::root(), &perm, READ | WRITE), Ok(()));
        assert_eq!(check_owner(&Credentials::user(9, 9), &perm), Err(Errno::EPERM));
    }
}
