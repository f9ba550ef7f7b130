//! open(2) and openat2(2).
use std::sync::Arc;

use abi::Errno;
use abi::fs::{
    FASYNC, MS_NODEV, MS_NOEXEC, O_ACCMODE, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECT, O_DIRECTORY, O_DSYNC,
    O_EXCL, O_LARGEFILE, O_NOATIME, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR, O_SYNC,
    O_TMPFILE, O_TRUNC, O_WRONLY, RESOLVE_BENEATH, RESOLVE_CACHED, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV,
};
use abi::stat::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};

use super::{Vfs, notify_name, notify_path};
use crate::anon::Pipe;
use crate::dentry::Target;
use crate::inode::{SetAttr, access};
use crate::notify::event;
use crate::walk::{At, Last, LookupFlags, Walk, directory};
use crate::write_count::WriteHold;
use crate::{FileDescription, FileOps, InodeOps, OpCx, Path, open_char_device, permission};

/// The flags that openat2(2) knows; open(2) and openat(2) pass over others.
const VALID: u32 = O_ACCMODE
    | O_CREAT
    | O_EXCL
    | O_NOCTTY
    | O_TRUNC
    | O_APPEND
    | O_NONBLOCK
    | O_SYNC
    | O_DSYNC
    | FASYNC
    | O_DIRECT
    | O_LARGEFILE
    | O_DIRECTORY
    | O_NOFOLLOW
    | O_NOATIME
    | O_CLOEXEC
    | O_PATH
    | O_TMPFILE;
/// The flags that `O_PATH` leaves in force.
const WITH_PATH: u32 = O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC;
const VALID_RESOLVE: u32 = RESOLVE_NO_XDEV
    | RESOLVE_NO_MAGICLINKS
    | RESOLVE_NO_SYMLINKS
    | RESOLVE_BENEATH
    | RESOLVE_IN_ROOT
    | RESOLVE_CACHED;
/// The bit of `O_TMPFILE` that is not `O_DIRECTORY`.
const TMPFILE_BIT: u32 = O_TMPFILE & !O_DIRECTORY;

/// How to open a file, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenHow {
    flags: u32,
    mode: u32,
    resolve: u32,
}

impl OpenHow {
    /// From the arguments of open(2) and openat(2).
    ///
    /// # Errors
    /// `EINVAL` for combinations of flags that make no sense.
    pub fn legacy(flags: u32, mode: u32) -> Result<Self, Errno> {
        let flags = flags & VALID;
        let flags = if flags & O_PATH != 0 { flags & WITH_PATH } else { flags };
        let creates = flags & (O_CREAT | TMPFILE_BIT) != 0;
        Self { flags, mode: if creates { mode & 0o7777 } else { 0 }, resolve: 0 }.checked()
    }

    /// From the argument of openat2(2).
    ///
    /// # Errors
    /// `EINVAL` for flags and modes that are unknown or make no sense together.
    pub fn strict(how: &abi::fs::OpenHow) -> Result<Self, Errno> {
        let narrow = |value: u64| u32::try_from(value).or(Err(Errno::EINVAL));
        let (flags, mode, resolve) = (narrow(how.flags)?, narrow(how.mode)?, narrow(how.resolve)?);
        let creates = flags & (O_CREAT | TMPFILE_BIT) != 0;
        let both_roots = RESOLVE_BENEATH | RESOLVE_IN_ROOT;
        let unknown = flags & !VALID != 0 || resolve & !VALID_RESOLVE != 0 || mode & !0o7777 != 0;
        let senseless = resolve & both_roots == both_roots
            || !creates && mode != 0
            || flags & O_PATH != 0 && flags & !WITH_PATH != 0;
        if unknown || senseless {
            return Err(Errno::EINVAL);
        }
        if resolve & RESOLVE_CACHED != 0 {
            // Never promised to succeed: the caller tries again without.
            return Err(Errno::EAGAIN);
        }
        Self { flags, mode, resolve }.checked()
    }

    fn checked(self) -> Result<Self, Errno> {
        let flags = self.flags;
        if flags & TMPFILE_BIT != 0 {
            let writable = matches!(flags & O_ACCMODE, O_WRONLY | O_RDWR);
            if flags & (O_DIRECTORY | O_CREAT) != O_DIRECTORY || !writable {
                return Err(Errno::EINVAL);
            }
        } else if flags & (O_CREAT | O_DIRECTORY) == O_CREAT | O_DIRECTORY {
            return Err(Errno::EINVAL);
        }
        Ok(self)
    }

    /// The flags, `O_*`.
    #[must_use]
    pub const fn flags(&self) -> u32 {
        self.flags
    }

    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Counts a writer of a regular file if this opens one; `ETXTBSY` for a running program.
    fn writer(&self, inode: &Arc<dyn InodeOps>) -> Result<Option<Arc<WriteHold>>, Errno> {
        let writes = self.access() & access::WRITE != 0 && inode.file_type() == S_IFREG;
        if writes { WriteHold::writer(inode) } else { Ok(None) }
    }

    /// The permissions asked for, a mask of [`access`].
    fn access(&self) -> u32 {
        let mode = match self.flags & O_ACCMODE {
            O_RDONLY => access::READ,
            O_WRONLY => access::WRITE,
            _ => access::READ | access::WRITE,
        };
        if self.has(O_TRUNC) { mode | access::WRITE } else { mode }
    }
}

/// What `O_PATH` opens: nothing can be done with it.
#[derive(Debug)]
struct PathOnly;

impl FileOps for PathOnly {}

impl Vfs<'_> {
    /// Opens a file.
    ///
    /// The description may have to wait for the other end of a FIFO, see [`FileOps::finish_open`].
    ///
    /// # Errors
    /// Those of open(2) and openat2(2).
    pub fn open(&self, at: &At, path: &[u8], how: &OpenHow) -> Result<Arc<FileDescription>, Errno> {
        if how.has(TMPFILE_BIT) {
            return self.open_tmpfile(at, path, how);
        }
        if how.has(O_CREAT) {
            return self.open_create(at, path, how);
        }
        let flags = LookupFlags {
            follow: !how.has(O_NOFOLLOW),
            empty: false,
            directory: how.has(O_DIRECTORY),
            resolve: how.resolve,
        };
        let found = self.resolve(at, path, flags)?;
        self.open_found(found, how, false)
    }

    /// Opens what was resolved already, such as the target of a file handle.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open_path(&self, path: Path, how: &OpenHow) -> Result<Arc<FileDescription>, Errno> {
        self.open_found(path, how, false)
    }

    /// Opens a program for execve(2).
    ///
    /// # Errors
    /// `EACCES` for what is no regular file or may not be executed, `ELOOP` for a symbolic link that is not followed,
    /// `ETXTBSY` for a file that is open for writing, and those of open(2).
    pub fn open_exec(&self, at: &At, path: &[u8], flags: LookupFlags) -> Result<Arc<FileDescription>, Errno> {
        let found = self.resolve(at, path, flags)?;
        let inode = found.inode()?;
        if inode.is_symlink() {
            return Err(Errno::ELOOP);
        }
        if inode.file_type() != S_IFREG || found.mount.has_flags(MS_NOEXEC) {
            return Err(Errno::EACCES);
        }
        inode.access(&self.cx, access::EXEC)?;
        let ops = Arc::clone(inode).open(&self.cx, O_RDONLY)?;
        let hold = WriteHold::program(inode)?;
        notify_path(&found, event::IN_OPEN);
        Ok(FileDescription::new_holding(&self.cx, ops, found, O_RDONLY | O_LARGEFILE, hold))
    }

    /// Opens what exists.
    fn open_found(&self, found: Path, how: &OpenHow, created: bool) -> Result<Arc<FileDescription>, Errno> {
        if how.has(O_PATH) {
            let flags = how.flags & !O_LARGEFILE;
            return Ok(FileDescription::new(&self.cx, Arc::new(PathOnly), found, flags));
        }
        let inode = Arc::clone(found.inode()?);
        if !created {
            self.may_open(&found, &inode, how)?;
        }
        let hold = how.writer(&inode)?;
        let ops = open_inode(&self.cx, &found, &inode, how.flags)?;
        if how.has(O_TRUNC) && !created && inode.file_type() == S_IFREG && !inode.truncates_on_open() {
            self.truncate_opened(&inode)?;
        }
        notify_path(&found, event::IN_OPEN);
        Ok(FileDescription::new_holding(&self.cx, ops, found, how.flags | O_LARGEFILE, hold))
    }

    fn truncate_opened(&self, inode: &Arc<dyn InodeOps>) -> Result<(), Errno> {
        let mode = inode.metadata()?.mode;
        let kept = permission::without_suid(mode);
        let mode = (kept != mode && !self.cx.creds.has_cap(kernel::Cap::FSETID)).then_some(kept & 0o7777);
        inode.set_attr(&self.cx, &SetAttr { size: Some(0), mode, ..SetAttr::default() })
    }

    /// Checks that a file may be opened this way, Linux `may_open`.
    fn may_open(&self, found: &Path, inode: &Arc<dyn InodeOps>, how: &OpenHow) -> Result<(), Errno> {
        let wanted = how.access();
        let kind = inode.file_type();
        match kind {
            S_IFLNK => return Err(Errno::ELOOP),
            S_IFDIR if wanted & access::WRITE != 0 => return Err(Errno::EISDIR),
            S_IFCHR | S_IFBLK if found.mount.has_flags(MS_NODEV) => return Err(Errno::EACCES),
            _ => {}
        }
        if wanted & access::WRITE != 0 && kind == S_IFREG && found.mount.is_read_only() {
            return Err(Errno::EROFS);
        }
        inode.access(&self.cx, wanted)?;
        if how.has(O_NOATIME) && !permission::owner_or_capable(self.cx.creds, inode.metadata()?.uid) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    fn open_tmpfile(&self, at: &At, path: &[u8], how: &OpenHow) -> Result<Arc<FileDescription>, Errno> {
        let flags =
            LookupFlags { follow: !how.has(O_NOFOLLOW), empty: false, directory: true, resolve: how.resolve };
        let dir = self.resolve(at, path, flags)?;
        if dir.mount.is_read_only() {
            return Err(Errno::EROFS);
        }
        let inode = directory(&dir)?;
        inode.access(&self.cx, access::WRITE | access::EXEC)?;
        let file = inode.tmpfile(&self.cx, how.mode & !self.fs.umask() | S_IFREG)?;
        let hold = how.writer(&file)?;
        let ops = Arc::clone(&file).open(&self.cx, how.flags)?;
        let name = file.metadata().map_or(0, |meta| meta.ino);
        let dentry = dir.dentry.unhashed(format!("#{name}").as_bytes(), Target::Inode(file));
        dentry.set_unlinked();
        if how.has(O_EXCL) {
            dentry.set_nameless();
        }
        let path = Path { mount: dir.mount, dentry };
        Ok(FileDescription::new_holding(&self.cx, ops, path, how.flags & !TMPFILE_BIT | O_LARGEFILE, hold))
    }

    fn open_create(&self, at: &At, path: &[u8], how: &OpenHow) -> Result<Arc<FileDescription>, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let follow = !how.has(O_NOFOLLOW | O_EXCL);
        let mut walk = self.walk(at, how.resolve);
        let mut text = path.to_vec();
        loop {
            let target = {
                let (last, slashes) = walk.parent(&text)?;
                if slashes || last == Last::Root {
                    return Err(self.create_not_a_name(&mut walk, last));
                }
                let Last::Name(name) = last else {
                    return Err(self.create_not_a_name(&mut walk, last));
                };
                match self.open_or_create(&mut walk, name, how, follow)? {
                    Opened::File(file) => return Ok(file),
                    Opened::Link(target) => target,
                }
            };
            text = target;
        }
    }

    /// The error of `O_CREAT` on what is not a plain name.
    fn create_not_a_name(&self, walk: &mut Walk<'_>, last: Last<'_>) -> Errno {
        match walk.last(last, true, false) {
            Ok(()) | Err(Errno::ENOENT) => Errno::EISDIR,
            Err(error) => error,
        }
    }

    /// Opens or makes a name where the walk is.
    fn open_or_create(
        &self,
        walk: &mut Walk<'_>,
        name: &[u8],
        how: &OpenHow,
        follow: bool,
    ) -> Result<Opened, Errno> {
        let generation = walk.at.dentry.generation();
        let child = walk.child(name)?;
        if child.inode().is_none() {
            let made = self.create_file(&walk.at, name, how, generation);
            if made.as_ref().err() != Some(&Errno::EEXIST) || how.has(O_EXCL) {
                return made.map(Opened::File);
            }
            // Somebody else was faster.
            walk.at.dentry.forget(name);
            let child = walk.child(name)?;
            walk.enter(child)?;
        } else {
            if how.has(O_EXCL) {
                return Err(Errno::EEXIST);
            }
            walk.enter(child)?;
        }
        if walk.at_link() && follow {
            walk.check_protected_link()?;
            if let Some(target) = walk.read_link()? {
                return Ok(Opened::Link(target));
            }
        }
        if walk.at.is_dir() {
            return Err(Errno::EISDIR);
        }
        self.open_found(walk.at.clone(), how, false).map(Opened::File)
    }

    fn create_file(
        &self,
        dir: &Path,
        name: &[u8],
        how: &OpenHow,
        generation: u64,
    ) -> Result<Arc<FileDescription>, Errno> {
        if dir.mount.is_read_only() {
            return Err(Errno::EROFS);
        }
        if dir.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        let inode = directory(dir)?;
        inode.access(&self.cx, access::WRITE | access::EXEC)?;
        let mode = how.mode & !self.fs.umask() | S_IFREG;
        let (file, ops) = inode.create_open(&self.cx, name, mode, how.flags)?;
        let hold = how.writer(&file)?;
        let dentry = dir.dentry.replace(&dir.mount.sb().cache, name, Target::Inode(file), generation);
        notify_name(dir, event::IN_CREATE, 0, name);
        let path = Path { mount: Arc::clone(&dir.mount), dentry };
        notify_path(&path, event::IN_OPEN);
        Ok(FileDescription::new_holding(&self.cx, ops, path, how.flags | O_LARGEFILE, hold))
    }
}

/// What opening a name came to.
enum Opened {
    /// The file.
    File(Arc<FileDescription>),
    /// A symbolic link's text, to be walked from where the walk is.
    Link(Vec<u8>),
}

/// Opens an inode by its type: devices and FIFOs are the sentry's whatever file system they are in.
pub(crate) fn open_inode(
    cx: &OpCx<'_>,
    path: &Path,
    inode: &Arc<dyn InodeOps>,
    flags: u32,
) -> Result<Arc<dyn FileOps>, Errno> {
    match inode.file_type() & S_IFMT {
        S_IFCHR if !inode.opens_devices() => open_char_device(cx, inode.metadata()?.rdev, flags),
        S_IFBLK | S_IFSOCK => Err(Errno::ENXIO),
        S_IFIFO => {
            let ino = inode.metadata()?.ino;
            let pipe = path.mount.sb().attach_with(ino, FIFO, Pipe::new);
            let end: Arc<dyn FileOps> = Pipe::open(&pipe, cx, flags)?;
            Ok(end)
        }
        _ => Arc::clone(inode).open(cx, flags),
    }
}

/// What a FIFO's inode has attached.
pub(crate) const FIFO: &str = "fifo";
