//! The directory of all queues.
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::{O_ACCMODE, O_CREAT, O_EXCL, O_RDONLY, O_WRONLY};
use abi::stat::{S_IFDIR, S_IFREG, S_ISVTX};
use abi::time::Timespec;
use kernel::Metadata;
use sync::{LockClass, Mutex};
use vfs::{Caching, DirEntry, DirSink, FileOps, InodeOps, OpCx, SetAttr, access, permission};

use crate::account::Account;
use crate::attributes::Attributes;
use crate::queue::{Limits, Queue};
use crate::{QUEUES_MAX, byte_limit, is_privileged};

/// The longest name.
const NAME_MAX: usize = 255;
/// What each entry adds to the directory's size, and what a queue has, Linux `DIRENT_SIZE`, `FILENT_SIZE`.
const DIRENT_SIZE: u64 = 20;
const FILENT_SIZE: u64 = 80;
/// The positions of `.` and `..` come before the first entry's.
const FIRST_COOKIE: u64 = 2;
const ROOT_INO: u64 = 1;

#[derive(Debug, Default)]
struct Names {
    /// Each with its position in the directory, which does not change.
    by_name: BTreeMap<Vec<u8>, (u64, Arc<Queue>)>,
    made: u64,
}

/// The directory.
#[derive(Debug)]
pub struct Root {
    me: Weak<Self>,
    device: u64,
    attributes: Attributes,
    names: Mutex<Names>,
    account: Arc<Account>,
    under_way: Arc<Account>,
}

impl Root {
    pub(crate) fn new(device: u64, now: Timespec) -> Arc<Self> {
        let mode = S_IFDIR | S_ISVTX | 0o777;
        let meta = Metadata { dev: device, ino: ROOT_INO, mode, nlink: 2, ..Metadata::default() };
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            device,
            attributes: Attributes::new(meta, now),
            names: Mutex::new(LockClass::Directory, Names::default()),
            account: Account::new(),
            under_way: Account::new(),
        })
    }

    /// mq_open(2) but for the descriptor: finds a queue, or makes it with `mode` (from which the umask was taken) and `limits`
    /// (the defaults where none are given).
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `EACCES`, `EINVAL`, `ENAMETOOLONG`, `ENOSPC`, `EMFILE`.
    pub fn open_queue(
        &self,
        cx: &OpCx<'_>,
        name: &[u8],
        (flags, mode): (u32, u32),
        limits: Option<(i64, i64)>,
    ) -> Result<Arc<Queue>, Errno> {
        check_name(name)?;
        let found = self.names.lock().by_name.get(name).map(|(_, queue)| Arc::clone(queue));
        match found {
            Some(_) if flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL => Err(Errno::EEXIST),
            Some(queue) => {
                let mask = match flags & O_ACCMODE {
                    O_ACCMODE => return Err(Errno::EINVAL),
                    O_RDONLY => access::READ,
                    O_WRONLY => access::WRITE,
                    _ => access::READ | access::WRITE,
                };
                queue.access(cx, mask).map(|()| queue)
            }
            None if flags & O_CREAT == 0 => Err(Errno::ENOENT),
            None => {
                self.access(cx, access::WRITE | access::EXEC)?;
                let checked = |(messages, size)| Limits::checked(messages, size, is_privileged(cx));
                let limits = limits.map(checked).transpose()?.unwrap_or(Limits::DEFAULT);
                match self.make(cx, name, mode, limits) {
                    // Somebody was faster.
                    Err(Errno::EEXIST) if flags & O_EXCL == 0 => {
                        self.open_queue(cx, name, (flags & !O_CREAT, mode), None)
                    }
                    made => made,
                }
            }
        }
    }

    /// mq_unlink(2).
    ///
    /// # Errors
    /// `ENOENT`, `EACCES`, `EPERM`, `ENAMETOOLONG`.
    pub fn unlink_queue(&self, cx: &OpCx<'_>, name: &[u8]) -> Result<(), Errno> {
        check_name(name)?;
        let found = self.names.lock().by_name.get(name).map(|(_, queue)| Arc::clone(queue));
        let queue = found.ok_or(Errno::ENOENT)?;
        self.access(cx, access::WRITE | access::EXEC)?;
        if permission::sticky(cx.creds, &self.ownership()?, queue.attributes().get().uid) {
            return Err(Errno::EPERM);
        }
        self.remove(cx, name, &queue)
    }

    fn make(&self, cx: &OpCx<'_>, name: &[u8], mode: u32, limits: Limits) -> Result<Arc<Queue>, Errno> {
        let charge = self.account.charge(cx.creds.uid, limits.bytes(), byte_limit(cx))?;
        let mut names = self.names.lock();
        if names.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if names.by_name.len() >= QUEUES_MAX && !is_privileged(cx) {
            return Err(Errno::ENOSPC);
        }
        names.made += 1;
        let cookie = FIRST_COOKIE + names.made;
        let meta = Metadata {
            dev: self.device,
            ino: ROOT_INO + names.made,
            mode: S_IFREG | mode & 0o7777,
            nlink: 1,
            uid: cx.creds.fsuid,
            gid: cx.creds.fsgid,
            size: FILENT_SIZE,
            ..Metadata::default()
        };
        let queue = Queue::new(limits, Attributes::new(meta, cx.now()), charge, Arc::clone(&self.under_way));
        names.by_name.insert(name.to_vec(), (cookie, Arc::clone(&queue)));
        drop(names);
        self.changed(cx);
        Ok(queue)
    }

    fn remove(&self, cx: &OpCx<'_>, name: &[u8], queue: &Arc<Queue>) -> Result<(), Errno> {
        let mut names = self.names.lock();
        if !names.by_name.get(name).is_some_and(|(_, there)| Arc::ptr_eq(there, queue)) {
            return Err(Errno::ENOENT);
        }
        let gone = names.by_name.remove(name);
        drop(names);
        drop(gone);
        queue.attributes().change(|meta| (meta.nlink, meta.ctime) = (0, cx.now()));
        self.changed(cx);
        Ok(())
    }

    fn changed(&self, cx: &OpCx<'_>) {
        let now = cx.now();
        self.attributes.change(|meta| (meta.mtime, meta.ctime) = (now, now));
    }
}

/// Linux `lookup_noperm_common`.
fn check_name(name: &[u8]) -> Result<(), Errno> {
    match name {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        _ if name.contains(&b'/') => Err(Errno::EACCES),
        _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ => Ok(()),
    }
}

impl InodeOps for Root {
    fn metadata(&self) -> Result<Metadata, Errno> {
        let size = self.names.lock().by_name.len() as u64 * DIRENT_SIZE;
        Ok(Metadata { size, ..self.attributes.get() })
    }
    fn file_type(&self) -> u32 {
        S_IFDIR
    }
    fn set_attr(&self, cx: &OpCx<'_>, attr: &SetAttr) -> Result<(), Errno> {
        self.attributes.set(cx, attr)
    }
    fn lookup(&self, _cx: &OpCx<'_>, name: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        let names = self.names.lock();
        let (_, queue) = names.by_name.get(name).ok_or(Errno::ENOENT)?;
        Ok(Arc::clone(queue) as Arc<dyn InodeOps>)
    }
    fn create(&self, cx: &OpCx<'_>, name: &[u8], mode: u32) -> Result<Arc<dyn InodeOps>, Errno> {
        Ok(self.make(cx, name, mode, Limits::DEFAULT)?)
    }
    fn unlink(&self, cx: &OpCx<'_>, name: &[u8], child: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        let queue = Arc::clone(child).downcast_arc::<Queue>().ok_or(Errno::ENOENT)?;
        self.remove(cx, name, &queue)
    }
    fn caching(&self) -> Caching {
        Caching::Never
    }
    fn open(self: Arc<Self>, _cx: &OpCx<'_>, _flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(self)
    }
}

impl FileOps for Root {
    fn readdir(&self, _cx: &OpCx<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let me = self.me.upgrade().ok_or(Errno::ENOENT)?;
        let mut entries: Vec<(u64, u64, u32, Vec<u8>)> =
            vec![(1, ROOT_INO, S_IFDIR, b".".to_vec()), (2, ROOT_INO, S_IFDIR, b"..".to_vec())];
        let names = me.names.lock();
        let shown = names
            .by_name
            .iter()
            .map(|(name, (cookie, queue))| (*cookie, queue.attributes().get().ino, S_IFREG, name.clone()));
        entries.extend(shown);
        drop(names);
        entries.sort_unstable_by_key(|(cookie, ..)| *cookie);
        let mut at = position;
        for (next, ino, file_type, name) in entries.iter().filter(|(cookie, ..)| *cookie > position) {
            if !sink.add(&DirEntry { ino: *ino, next: *next, file_type: *file_type, name }) {
                break;
            }
            at = *next;
        }
        Ok(at)
    }
}
