//! Path resolution, `path_resolution(7)`, Linux `fs/namei.c`.
//!
//! A cached component costs: one shared lock of the directory, one reference taken and one dropped, and the check of
//! search permission; no allocation. Symbolic links and names not in the cache cost what the file system does.

pub(crate) mod lookup;

use std::sync::Arc;

use abi::Errno;
use abi::fs::{
    MS_NOSYMFOLLOW, NAME_MAX, PATH_MAX, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV,
};
use abi::stat::{S_ISVTX, S_IWOTH};

use crate::inode::access;
use crate::{Dentry, InodeOps, OpCx, Path};

/// The most symbolic links in one resolution, Linux `MAXSYMLINKS`.
const MAX_LINKS: u32 = 40;

/// Where a relative path starts.
#[derive(Clone, Debug)]
pub enum At {
    /// At the working directory, `AT_FDCWD`.
    Cwd,
    /// At what a descriptor leads to.
    Path(Path),
}

/// How a path is resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupFlags {
    /// The last component may be a symbolic link, and is followed.
    pub follow: bool,
    /// An empty path means where it starts, `AT_EMPTY_PATH`.
    pub empty: bool,
    /// It must be a directory.
    pub directory: bool,
    /// `RESOLVE_*` of openat2(2).
    pub resolve: u32,
}

impl LookupFlags {
    /// Follows symbolic links, as most calls do.
    pub const FOLLOW: Self = Self { follow: true, empty: false, directory: false, resolve: 0 };
    /// Does not follow a symbolic link at the end.
    pub const NO_FOLLOW: Self = Self { follow: false, empty: false, directory: false, resolve: 0 };
    /// Follows symbolic links to a directory.
    pub const DIRECTORY: Self = Self { follow: true, empty: false, directory: true, resolve: 0 };

    /// From the `AT_*` flags of calls that follow by default: `AT_SYMLINK_NOFOLLOW`, `AT_EMPTY_PATH`.
    #[must_use]
    pub const fn from_at(flags: u32) -> Self {
        Self {
            follow: flags & abi::fs::AT_SYMLINK_NOFOLLOW == 0,
            empty: flags & abi::fs::AT_EMPTY_PATH != 0,
            directory: false,
            resolve: 0,
        }
    }
}

/// The last component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last<'p> {
    /// A name.
    Name(&'p [u8]),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// There is none: the path is `/`.
    Root,
}

/// A walk under way.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    cx: &'a OpCx<'a>,
    root: Path,
    pub(crate) at: Path,
    links: u32,
    resolve: u32,
}

/// Splits off the first component; gives it and what follows its slashes.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().position(|b| *b == b'/').unwrap_or(path.len());
    let (name, rest) = path.split_at_checked(end).unwrap_or((path, &[]));
    (name, skip_slashes(rest))
}

fn skip_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|b| *b != b'/').unwrap_or(path.len());
    path.get(start..).unwrap_or_default()
}

impl<'a> Walk<'a> {
    /// Starts at `at`; neither `..` nor absolute links lead above `root`.
    pub(crate) fn new(cx: &'a OpCx<'a>, root: Path, at: Path, resolve: u32) -> Self {
        let root = if resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT) != 0 { at.clone() } else { root };
        Self { cx, root, at, links: 0, resolve }
    }

    fn resolves(&self, flag: u32) -> bool {
        self.resolve & flag != 0
    }

    /// Goes to the root if the path is absolute, and checks its length.
    fn begin<'p>(&mut self, path: &'p [u8]) -> Result<&'p [u8], Errno> {
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if path.first() == Some(&b'/') {
            if self.resolves(RESOLVE_BENEATH) {
                return Err(Errno::EXDEV);
            }
            if self.resolves(RESOLVE_NO_XDEV) && !Arc::ptr_eq(&self.at.mount, &self.root.mount) {
                return Err(Errno::EXDEV);
            }
            self.at = self.root.clone();
        }
        Ok(skip_slashes(path))
    }

    /// Walks all but the last component; tells that, and whether slashes follow it.
    pub(crate) fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(Last<'p>, bool), Errno> {
        let mut rest = self.begin(path)?;
        if rest.is_empty() {
            return Ok((Last::Root, false));
        }
        loop {
            self.check_search()?;
            let (name, next) = split(rest);
            if name.len() > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            if next.is_empty() {
                let last = match name {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ => Last::Name(name),
                };
                return Ok((last, rest.len() > name.len()));
            }
            match name {
                b"." => {}
                b".." => self.dot_dot()?,
                _ => self.step(name)?,
            }
            rest = next;
        }
    }

    /// Walks the whole path; the end exists.
    pub(crate) fn all(&mut self, path: &[u8], follow: bool) -> Result<(), Errno> {
        let (last, slashes) = self.parent(path)?;
        self.last(last, follow, slashes)
    }

    /// Walks the last component.
    pub(crate) fn last(&mut self, last: Last<'_>, follow: bool, slashes: bool) -> Result<(), Errno> {
        match last {
            Last::Root | Last::Dot => {}
            Last::DotDot => self.dot_dot()?,
            Last::Name(name) => {
                let child = self.child(name)?;
                self.enter(child)?;
                if (follow || slashes) && self.at_link() {
                    self.check_protected_link()?;
                    self.follow()?;
                }
            }
        }
        if slashes && !self.at.is_dir() { Err(Errno::ENOTDIR) } else { Ok(()) }
    }

    /// Checks that names may be looked up where the walk is.
    fn check_search(&self) -> Result<(), Errno> {
        let inode = self.at.inode()?;
        if !inode.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        inode.access(self.cx, access::EXEC)
    }

    /// The dentry of a name where the walk is.
    pub(crate) fn child(&self, name: &[u8]) -> Result<Arc<Dentry>, Errno> {
        lookup::child(self.cx, self.at.mount.sb(), &self.at.dentry, name)
    }

    /// Goes to a child and to what is mounted on it.
    pub(crate) fn enter(&mut self, child: Arc<Dentry>) -> Result<(), Errno> {
        if child.inode().is_none() {
            return Err(Errno::ENOENT);
        }
        self.at.dentry = child;
        if self.at.dentry.is_mountpoint() {
            let over = self.at.clone().follow_mounts();
            if self.resolves(RESOLVE_NO_XDEV) && !Arc::ptr_eq(&over.mount, &self.at.mount) {
                return Err(Errno::EXDEV);
            }
            self.at = over;
        }
        Ok(())
    }

    /// Walks a component that is not the last.
    fn step(&mut self, name: &[u8]) -> Result<(), Errno> {
        let child = self.child(name)?;
        self.enter(child)?;
        if self.at_link() { self.follow() } else { Ok(()) }
    }

    pub(crate) fn at_link(&self) -> bool {
        self.at.dentry.inode().is_some_and(|inode| inode.is_symlink())
    }

    fn dot_dot(&mut self) -> Result<(), Errno> {
        if self.resolves(RESOLVE_BENEATH) && self.at == self.root {
            return Err(Errno::EXDEV);
        }
        let up = self.at.parent(&self.root);
        if self.resolves(RESOLVE_NO_XDEV) && !Arc::ptr_eq(&up.mount, &self.at.mount) {
            return Err(Errno::EXDEV);
        }
        self.at = up;
        Ok(())
    }

    /// Goes from a symbolic link to its target; a link at the target's end is followed too.
    fn follow(&mut self) -> Result<(), Errno> {
        match self.read_link()? {
            Some(target) => self.all(&target, true),
            None => Ok(()),
        }
    }

    /// Goes to the directory of the link the walk is at and gives the link's text, or follows a magic link.
    pub(crate) fn read_link(&mut self) -> Result<Option<Vec<u8>>, Errno> {
        self.links += 1;
        let forbidden = self.resolves(RESOLVE_NO_SYMLINKS) || self.at.mount.has_flags(MS_NOSYMFOLLOW);
        if self.links > MAX_LINKS || forbidden {
            return Err(Errno::ELOOP);
        }
        let inode = Arc::clone(self.at.inode()?);
        if let Some(target) = inode.magic_link(self.cx) {
            return self.follow_magic(target).map(|()| None);
        }
        let target = inode.readlink(self.cx)?;
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        let parent = self.at.dentry.parent().ok_or(Errno::ELOOP)?;
        self.at.dentry = parent;
        Ok(Some(target))
    }

    fn follow_magic(&mut self, target: Result<Path, Errno>) -> Result<(), Errno> {
        if self.resolves(RESOLVE_NO_MAGICLINKS) {
            return Err(Errno::ELOOP);
        }
        if self.resolves(RESOLVE_BENEATH | RESOLVE_IN_ROOT) {
            return Err(Errno::EXDEV);
        }
        let target = target?;
        if self.resolves(RESOLVE_NO_XDEV) && !Arc::ptr_eq(&target.mount, &self.at.mount) {
            return Err(Errno::EXDEV);
        }
        self.at = target;
        Ok(())
    }

    /// `/proc/sys/fs/protected_symlinks` = 1: a link at the end of a path, in a sticky directory that all may write, is
    /// followed only where its owner follows it or owns the directory.
    pub(crate) fn check_protected_link(&self) -> Result<(), Errno> {
        let Some(parent) = self.at.dentry.parent() else { return Ok(()) };
        let Some(directory) = parent.inode() else { return Ok(()) };
        let dir = directory.metadata()?;
        if dir.mode & (S_ISVTX | S_IWOTH) != S_ISVTX | S_IWOTH {
            return Ok(());
        }
        let link = self.at.inode()?.metadata()?;
        if link.uid == self.cx.creds.fsuid || link.uid == dir.uid { Ok(()) } else { Err(Errno::EACCES) }
    }
}

/// The inode of a directory where the walk ended.
pub(crate) fn directory(path: &Path) -> Result<&Arc<dyn InodeOps>, Errno> {
    let inode = path.inode()?;
    if inode.is_dir() { Ok(inode) } else { Err(Errno::ENOTDIR) }
}
