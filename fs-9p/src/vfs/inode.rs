//! Files, and what is kept of their attributes.

use super::file::Donated;
use super::{Access, Shared};
use crate::client::Fid;
use crate::proto::{Attr, Make, Time, open};
use abi::Errno;
use abi::stat::{S_IFDIR, S_IFMT, S_IFREG};
use abi::time::Timespec;
use memmap::{HostMemory, Mappings};
use nix::sys::stat::FileStat;
use nix::unistd;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use sync::{LockClass, Mutex};
use vfs::{Metadata, Ownership, WriteCount};

/// What tells files of a tree apart: version and path of the qid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u32, u64);

impl Key {
    pub(super) const fn of(attr: &Attr) -> Self {
        Self(attr.qid.version, attr.qid.path)
    }
}

/// Which descriptor of a file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    Write,
    Append,
}

#[derive(Debug)]
struct State {
    /// Type, permissions and owner are always right, the rest if `valid`.
    meta: Metadata,
    valid: bool,
    /// When the gofer told of attributes last, in the monotonic clock; only kept for leased trees.
    told_ns: u64,
    /// When the gofer told last that `place` leads here; likewise.
    placed_ns: u64,
    /// Counts changes, so that an answer that was asked for before one is not kept after it.
    changes: u64,
    /// How many open files there are.
    users: usize,
    reading: Weak<Donated>,
    writing: Weak<Donated>,
    appending: Weak<Donated>,
    /// Where it was found last; only kept for shared trees.
    place: Option<(Arc<GoferInode>, Box<[u8]>)>,
}

/// A file of the gofer.
#[derive(Debug)]
pub(super) struct GoferInode {
    pub(super) shared: Arc<Shared>,
    pub(super) fid: Fid,
    pub(super) kind: u32,
    pub(super) is_root: bool,
    pub(super) mappings: Mappings,
    /// The target of a symbolic link, once it was asked for; it never changes.
    pub(super) target: OnceLock<Box<[u8]>>,
    /// Read or written since the attributes were kept.
    pub(super) touched: AtomicBool,
    /// Who writes it and who executes it.
    pub(super) writers: WriteCount,
    key: Key,
    this: Weak<Self>,
    state: Mutex<State>,
}

impl Drop for GoferInode {
    fn drop(&mut self) {
        let mut place = self.state.get_mut().place.take();
        let mut inodes = self.shared.inodes.lock();
        // A newer one may stand there.
        if inodes.get(&self.key).is_some_and(|known| known.strong_count() == 0) {
            inodes.remove(&self.key);
        }
        drop(inodes);
        // Goes up in a loop, because a guest can make a path of any depth.
        while let Some((dir, _)) = place {
            place = Arc::into_inner(dir).and_then(|mut last| last.state.get_mut().place.take());
        }
    }
}

fn time(from: Time) -> Timespec {
    // A server's nonsense must not become a time that no program can bear.
    Timespec { sec: from.sec.cast_signed(), nsec: i64::try_from(from.nsec.min(999_999_999)).unwrap_or(0) }
}

impl GoferInode {
    pub(super) fn new(shared: Arc<Shared>, fid: Fid, attr: &Attr, is_root: bool) -> Arc<Self> {
        let key = Key::of(attr);
        let state = State {
            meta: metadata(shared.device, attr),
            valid: false,
            told_ns: 0,
            placed_ns: 0,
            changes: 0,
            users: 0,
            reading: Weak::new(),
            writing: Weak::new(),
            appending: Weak::new(),
            place: None,
        };
        Arc::new_cyclic(|this| Self {
            shared,
            fid,
            kind: attr.mode & S_IFMT,
            is_root,
            mappings: Mappings::new(),
            target: OnceLock::new(),
            touched: AtomicBool::new(false),
            writers: WriteCount::default(),
            key,
            this: this.clone(),
            state: Mutex::new(LockClass::Inode, state),
        })
    }

    /// Tells whether a file that the gofer tells of under this inode's qid can be this inode's.
    pub(super) const fn has_type_of(&self, attr: &Attr) -> bool {
        attr.mode & S_IFMT == self.kind
    }

    /// The inode, shared; whoever calls a method has it.
    pub(super) fn myself(&self) -> Result<Arc<Self>, Errno> {
        self.this.upgrade().ok_or(Errno::EIO)
    }

    /// The inode number.
    pub(super) const fn ino(&self) -> u64 {
        self.key.1
    }

    /// Attributes came with the answer to a walk.
    pub(super) fn seen(&self, attr: &Attr) {
        let mut state = self.state.lock();
        if !state.valid || !self.shared.exclusive() {
            self.told(&mut state, metadata(self.shared.device, attr));
        }
    }

    /// Keeps what the gofer told.
    fn told(&self, state: &mut State, meta: Metadata) {
        self.keep(state, meta);
        if self.shared.options.access == Access::Leased {
            state.told_ns = crate::host::monotonic_ns();
        }
    }

    fn keep(&self, state: &mut State, meta: Metadata) {
        let access = self.shared.options.access;
        state.valid = access != Access::Shared && self.has_one_name(&meta);
        state.meta = Metadata { mode: (meta.mode & !S_IFMT) | self.kind, ..meta };
        state.changes += 1;
    }

    /// Tells whether nothing happens to the file by another name that this inode is not told of: of several names, one may
    /// be removed, by a rename too.
    fn has_one_name(&self, meta: &Metadata) -> bool {
        meta.nlink <= 1 || self.kind == S_IFDIR
    }

    /// A change was made whose effect on the attributes is not known.
    pub(super) fn changed(&self) {
        let mut state = self.state.lock();
        state.valid = false;
        state.changes += 1;
    }

    /// A change was made, and the gofer told the new attributes.
    pub(super) fn changed_to(&self, attr: &Attr) {
        let mut state = self.state.lock();
        self.told(&mut state, metadata(self.shared.device, attr));
    }

    /// The gofer told that this name leads here.
    pub(super) fn set_place(&self, dir: &Arc<Self>, name: &[u8]) {
        let now = if self.shared.options.access == Access::Leased { crate::host::monotonic_ns() } else { 0 };
        let old = {
            let mut state = self.state.lock();
            state.placed_ns = now;
            state.place.replace((Arc::clone(dir), Box::from(name)))
        };
        drop(old);
    }

    /// Type, permissions and owner, as last known.
    pub(super) fn permissions(&self) -> Ownership {
        let state = self.state.lock();
        Ownership { mode: state.meta.mode, uid: state.meta.uid, gid: state.meta.gid }
    }

    /// The count of changes.
    pub(super) fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// What this directory is still known to hold.
    pub(super) fn kept_listing(&self) -> Option<Arc<Vec<u8>>> {
        let changes = self.changes();
        self.shared.listing(self, |kept| {
            kept.changes == changes && (self.shared.exclusive() || self.shared.believes(kept.asked_ns))
        })
    }

    pub(super) fn attributes(&self) -> Result<Metadata, Errno> {
        let (changes, known, open) = {
            let state = self.state.lock();
            let believed = self.shared.exclusive() || self.shared.believes(state.told_ns);
            if state.users == 0 && state.valid && believed {
                return Ok(state.meta);
            }
            // Others may change the owner, and only the gofer can tell.
            let open = (state.users > 0 && believed)
                .then(|| state.writing.upgrade().or_else(|| state.reading.upgrade()));
            (state.changes, state.meta, open.flatten())
        };
        let (meta, asked) = match open {
            Some(file) => (of_host(&known, &file.stat()?), false),
            None => (metadata(self.shared.device, &self.fid.get_attr()?), true),
        };
        let mut state = self.state.lock();
        if state.changes == changes {
            if asked {
                self.told(&mut state, meta);
            } else {
                self.keep(&mut state, meta);
            }
        }
        Ok(Metadata { mode: (meta.mode & !S_IFMT) | self.kind, ..meta })
    }

    /// Asks the gofer whether the name that led here still does; for shared and leased trees.
    pub(super) fn still_there(&self) -> bool {
        let place = {
            let state = self.state.lock();
            if self.has_one_name(&state.meta) && self.shared.believes(state.placed_ns) {
                return true;
            }
            state.place.clone()
        };
        let Some((dir, name)) = place else { return self.is_root };
        let asked_ns = crate::host::monotonic_ns();
        match dir.fid.walk_attr(&[&name], Make::UNOPENED) {
            Ok(walked) => {
                let found = walked.files.first().map(|(_, attr)| *attr).filter(|attr| {
                    // Of several names only the last is known: the others are looked up anew.
                    Key::of(attr) == self.key
                        && self.has_type_of(attr)
                        && (attr.nlink <= 1 || self.kind == S_IFDIR)
                });
                if let Some(attr) = found {
                    self.seen(&attr);
                    // Whoever moved the file meanwhile set another place.
                    let mut state = self.state.lock();
                    if state.place.as_ref().is_some_and(|(d, n)| Arc::ptr_eq(d, &dir) && **n == *name) {
                        state.placed_ns = asked_ns;
                    }
                }
                found.is_some()
            }
            Err(_) => false,
        }
    }

    /// A descriptor of this regular file: one that is there, or one that the gofer donates.
    pub(super) fn file(self: &Arc<Self>, want: Want, truncate: bool) -> Result<Arc<Donated>, Errno> {
        let known = {
            let state = self.state.lock();
            match want {
                Want::Read => state.writing.upgrade().or_else(|| state.reading.upgrade()),
                Want::Write => state.writing.upgrade(),
                Want::Append => state.appending.upgrade(),
            }
        };
        if let Some(known) = known {
            if truncate {
                unistd::ftruncate(&known.memory().fd, 0).map_err(crate::host::errno)?;
            }
            return Ok(known);
        }
        let flags = match want {
            Want::Read => open::O_RDONLY,
            Want::Write => open::O_RDWR,
            Want::Append => open::O_RDWR | open::O_APPEND,
        };
        let flags = flags | if truncate { open::O_TRUNC } else { 0 };
        let fd = self.fid.open_fd(flags)?.ok_or(Errno::EIO)?;
        self.adopt(fd, want)
    }

    /// Takes a donated descriptor.
    pub(super) fn adopt(self: &Arc<Self>, fd: OwnedFd, want: Want) -> Result<Arc<Donated>, Errno> {
        let stat = nix::sys::stat::fstat(&fd).map_err(crate::host::errno)?;
        // Any other type could block the sentry, or act on the host in ways that no guest is to cause.
        if stat.st_mode & S_IFMT != S_IFREG {
            return Err(Errno::EIO);
        }
        let memory = Arc::new(HostMemory { fd, writable: want != Want::Read });
        let file = Arc::new(Donated::new(Arc::clone(self), memory));
        {
            let mut state = self.state.lock();
            let slot = match want {
                Want::Read => &mut state.reading,
                Want::Write => &mut state.writing,
                Want::Append => &mut state.appending,
            };
            *slot = Arc::downgrade(&file);
        }
        if self.kind == S_IFREG && self.shared.options.kept_files > 0 {
            self.shared.keep(&file);
        }
        Ok(file)
    }

    /// The descriptor through which the file may have been written, if there is one.
    pub(super) fn writable_file(&self) -> Option<Arc<Donated>> {
        let state = self.state.lock();
        state.writing.upgrade().or_else(|| state.appending.upgrade())
    }

    /// One more open file, or one less.
    pub(super) fn opened(&self) {
        self.state.lock().users += 1;
    }

    pub(super) fn closed(&self, file: &Donated) {
        let (changes, last) = {
            let mut state = self.state.lock();
            state.users = state.users.saturating_sub(1);
            (state.changes, state.users == 0)
        };
        if !last || !self.touched.swap(false, Ordering::Relaxed) {
            return;
        }
        // The attributes that are kept from now on are those that reading and writing left.
        let found = file.stat();
        let mut state = self.state.lock();
        match found {
            Ok(stat) if state.changes == changes => {
                let meta = of_host(&state.meta, &stat);
                self.keep(&mut state, meta);
            }
            _ => state.valid = false,
        }
    }
}

/// Our form of what the gofer tells.
fn metadata(device: u64, attr: &Attr) -> Metadata {
    Metadata {
        dev: device,
        ino: attr.qid.path,
        mode: attr.mode,
        nlink: u32::try_from(attr.nlink).unwrap_or(u32::MAX),
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        size: attr.size,
        blocks: attr.blocks,
        blksize: u32::try_from(attr.blksize).unwrap_or(4096),
        atime: time(attr.atime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
        btime: time(attr.btime),
        attributes: 0,
    }
}

/// What is known of a file, brought up to date by what a donated descriptor tells. The owner stays: the user namespace of
/// whoever holds the descriptor may not know the users that the gofer knows.
fn of_host(known: &Metadata, stat: &FileStat) -> Metadata {
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    Metadata {
        mode: stat.st_mode,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        size: unsigned(stat.st_size),
        blocks: unsigned(stat.st_blocks),
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        atime: Timespec { sec: stat.st_atime, nsec: stat.st_atime_nsec },
        mtime: Timespec { sec: stat.st_mtime, nsec: stat.st_mtime_nsec },
        ctime: Timespec { sec: stat.st_ctime, nsec: stat.st_ctime_nsec },
        ..*known
    }
}
