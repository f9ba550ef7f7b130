//! The file system whose files are those of a gofer.
//!
//! Names, attributes and changes of both go to the gofer, one round trip each. The contents of regular files do not: the
//! gofer donates a descriptor when a file is opened, and reads, writes and mappings use it.
//!
//! [`Access::Exclusive`] is for trees that nobody else changes: dentries (missing names too) and attributes are kept. While a
//! file is open its attributes are asked of its descriptor, because reads and writes change them on the host. With
//! [`Access::Shared`] every step of a walk asks the gofer again; with [`Access::Leased`] it believes for a moment what it was told:
//! for trees that others change now and then, and where nobody can tell that a moment has passed.
//!
//! What is in memory for each file is one small struct and a fid. Descriptors of files that nobody has open are kept for the
//! next open, up to [`Options::kept_files`].

mod dir;
mod file;
mod inode;
mod ops;

use abi::Errno;
use abi::fs::V9FS_MAGIC;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use sync::{LockClass, Mutex};
use vfs::{FileSystem, InodeOps, StatFs, anonymous_device};

use crate::client::{Client, Fid};
use crate::proto::Attr;
use dir::KeptListing;
use file::Donated;
use inode::{GoferInode, Key};

/// Host calls that this file system makes in the sentry, beyond those of the [client](crate::client::HOST_SYSCALLS).
pub const HOST_SYSCALLS: &[&str] = &[
    "pread64",
    "pwrite64",
    "fstat",
    "ftruncate",
    "fallocate",
    "lseek",
    "fsync",
    "fdatasync",
    "fcntl",
    "close",
];

/// Who may change the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody but this mount.
    Exclusive,
    /// Others too; what they do may be seen [`LEASE_NS`] later.
    Leased,
    /// Others too.
    Shared,
}

/// How long names, missing ones too, and attributes of a leased tree are believed, in nanoseconds.
pub const LEASE_NS: u64 = 20_000_000;

/// How many listings are kept, and of how many bytes each at most: 8 of some thousand names in all.
const KEPT_LISTINGS: usize = 8;
const KEPT_LISTING_BYTES: usize = 32 << 10;

/// How to mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Who may change the tree.
    pub access: Access,
    /// How many descriptors of files that nobody has open may be kept.
    pub kept_files: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { access: Access::Exclusive, kept_files: 256 }
    }
}

/// What a mount's inodes share.
#[derive(Debug)]
struct Shared {
    options: Options,
    device: u64,
    /// The inodes that are in use, so that every name of a file leads to the same one.
    inodes: Mutex<HashMap<Key, Weak<GoferInode>>>,
    /// Descriptors to keep, the oldest first.
    kept: Mutex<VecDeque<Arc<Donated>>>,
    /// Listings of small directories, the oldest first.
    listings: Mutex<VecDeque<KeptListing>>,
    /// The gofer said that its files have no extended attributes.
    no_xattr: AtomicBool,
}

#[derive(Debug)]
struct GoferFs {
    shared: Arc<Shared>,
    root: Arc<GoferInode>,
}

impl Drop for GoferFs {
    fn drop(&mut self) {
        // What is kept holds its inode, which holds what keeps it.
        let kept = std::mem::take(&mut *self.shared.kept.lock());
        drop(kept);
        self.root.fid.client().flush_dropped();
    }
}

/// Mounts the tree `aname` of a gofer, which must speak the extension.
///
/// # Errors
/// `EPROTONOSUPPORT` for a server without the extension, `ENOENT` when it has no such tree, `EIO`.
pub fn mount(client: &Arc<Client>, aname: &[u8], options: Options) -> Result<Arc<dyn FileSystem>, Errno> {
    if !client.extended() {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let (fid, _) = client.attach(aname)?;
    let attr = fid.get_attr()?;
    let shared = Arc::new(Shared {
        options,
        device: anonymous_device(),
        inodes: Mutex::new(LockClass::Client, HashMap::new()),
        kept: Mutex::new(LockClass::Client, VecDeque::new()),
        listings: Mutex::new(LockClass::Client, VecDeque::new()),
        no_xattr: AtomicBool::new(false),
    });
    let root = shared.inode(fid, &attr, None);
    Ok(Arc::new(GoferFs { shared, root }))
}

impl Shared {
    fn exclusive(&self) -> bool {
        self.options.access == Access::Exclusive
    }

    /// Whether what was told then is still believed, for trees that others change too.
    fn believes(&self, told_ns: u64) -> bool {
        self.options.access == Access::Leased
            && crate::host::monotonic_ns().saturating_sub(told_ns) < LEASE_NS
    }

    /// The inode of a file that the gofer told of; `fid` is let go if there is one already.
    fn inode(
        self: &Arc<Self>,
        fid: Fid,
        attr: &Attr,
        place: Option<(&Arc<GoferInode>, &[u8])>,
    ) -> Arc<GoferInode> {
        let key = Key::of(attr);
        let known = self.inodes.lock().get(&key).and_then(Weak::upgrade);
        let known = known.filter(|known| known.has_type_of(attr));
        let inode = known.unwrap_or_else(|| {
            let fresh = GoferInode::new(Arc::clone(self), fid, attr, place.is_none());
            let mut inodes = self.inodes.lock();
            // Another thread may have been faster.
            let other = inodes.get(&key).and_then(Weak::upgrade);
            let usable = other.as_ref().is_some_and(|other| other.has_type_of(attr));
            if !usable {
                inodes.insert(key, Arc::downgrade(&fresh));
            }
            drop(inodes);
            other.filter(|_| usable).unwrap_or(fresh)
        });
        inode.seen(attr);
        if let Some((dir, name)) = place.filter(|_| !self.exclusive()) {
            inode.set_place(dir, name);
        }
        inode
    }

    /// Keeps the listing of a small directory for the next who reads it, unless the tree is asked each time.
    fn keep_listing(&self, listing: KeptListing) {
        if self.options.access == Access::Shared || listing.entries.len() > KEPT_LISTING_BYTES {
            return;
        }
        let mut listings = self.listings.lock();
        listings.retain(|kept| !Weak::ptr_eq(&kept.dir, &listing.dir) && kept.dir.strong_count() > 0);
        listings.push_back(listing);
        let old = if listings.len() > KEPT_LISTINGS { listings.pop_front() } else { None };
        drop(listings);
        drop(old);
    }

    /// The kept listing of a directory, if it is still right.
    fn listing(&self, dir: &GoferInode, is_right: impl Fn(&KeptListing) -> bool) -> Option<Arc<Vec<u8>>> {
        let listings = self.listings.lock();
        let kept = listings.iter().find(|kept| std::ptr::eq(kept.dir.as_ptr(), dir))?;
        is_right(kept).then(|| Arc::clone(&kept.entries))
    }

    /// Keeps a descriptor for the next open.
    fn keep(&self, file: &Arc<Donated>) {
        let old = {
            let mut kept = self.kept.lock();
            kept.push_back(Arc::clone(file));
            if kept.len() > self.options.kept_files { kept.pop_front() } else { None }
        };
        drop(old);
    }

    /// Stops keeping descriptors of files that have no name any more, so that the host can free them; of those that
    /// `which` picks.
    fn forget_nameless(&self, which: impl Fn(&Donated) -> bool) {
        let all: Vec<_> = self.kept.lock().iter().filter(|file| which(file)).cloned().collect();
        for file in all.iter().filter(|file| file.is_nameless()) {
            let dropped = {
                let mut kept = self.kept.lock();
                let at = kept.iter().position(|kept| Arc::ptr_eq(kept, file));
                at.and_then(|at| kept.remove(at))
            };
            drop(dropped);
        }
    }
}

impl FileSystem for GoferFs {
    fn name(&self) -> &'static str {
        "9p"
    }

    fn root(&self) -> Arc<dyn InodeOps> {
        self.root.clone()
    }

    fn stat_fs(&self) -> Result<StatFs, Errno> {
        let found = self.root.fid.stat_fs()?;
        Ok(StatFs {
            fs_type: i64::from(V9FS_MAGIC),
            bsize: i64::from(found.bsize),
            blocks: found.blocks,
            bfree: found.bfree,
            bavail: found.bavail,
            files: found.files,
            ffree: found.ffree,
            fsid: [0; 2],
            namelen: i64::from(found.namelen),
            frsize: i64::from(found.bsize),
            flags: 0,
            spare: [0; 4],
        })
    }

    fn device(&self) -> u64 {
        self.shared.device
    }

    fn options(&self) -> Vec<u8> {
        let cache: &[u8] = if self.shared.exclusive() { b"cache=fscache" } else { b"cache=none" };
        [b"trans=fd,", cache].concat()
    }

    fn sync(&self) -> Result<(), Errno> {
        let inodes: Vec<_> = self.shared.inodes.lock().values().cloned().collect();
        for inode in inodes {
            if let Some(file) = inode.upgrade().and_then(|inode| inode.writable_file()) {
                file.sync(false)?;
            }
        }
        Ok(())
    }
}

/// Whether the gofer said that there are no extended attributes.
fn lacks_xattr(shared: &Shared) -> bool {
    shared.no_xattr.load(Ordering::Relaxed)
}
