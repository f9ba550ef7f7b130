//! Where a file is in the mount tree, and how that is spelled.
use std::sync::Arc;

use abi::Errno;
use abi::fs::PATH_MAX;

use crate::{Dentry, InodeOps, Mount};

/// A dentry as seen through a mount.
#[derive(Clone, Debug)]
pub struct Path {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The dentry in the mount's file system.
    pub dentry: Arc<Dentry>,
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }
}
impl Eq for Path {}

/// A path's spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathName {
    /// The absolute path, or for files in no directory their own name (`pipe:[5]`).
    pub name: Vec<u8>,
    /// The path leads up to a root other than the one it was to be spelled from.
    pub unreachable: bool,
    /// The file's name was removed.
    pub deleted: bool,
}

impl PathName {
    /// As the links of `/proc/PID` show it.
    #[must_use]
    pub fn display(mut self) -> Vec<u8> {
        if self.deleted {
            self.name.extend_from_slice(b" (deleted)");
        }
        self.name
    }
}

impl Path {
    /// The inode.
    ///
    /// # Errors
    /// `ENOENT` where the name is missing.
    pub fn inode(&self) -> Result<&Arc<dyn InodeOps>, Errno> {
        self.dentry.inode().ok_or(Errno::ENOENT)
    }

    /// Tells whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.dentry.inode().is_some_and(|inode| inode.is_dir())
    }

    /// The directory above, not leaving `root`, by the rules of `..`.
    #[must_use]
    pub fn parent(&self, root: &Self) -> Self {
        let mut at = self.clone();
        loop {
            if at == *root {
                return at;
            }
            if !Arc::ptr_eq(&at.dentry, at.mount.root()) {
                let up = at.dentry.parent().unwrap_or_else(|| Arc::clone(&at.dentry));
                return Self { mount: at.mount, dentry: up }.follow_mounts();
            }
            match at.mount.attached_on() {
                Some(on) => at = on,
                None => return at,
            }
        }
    }

    /// What is mounted here, or else this itself.
    #[must_use]
    pub fn follow_mounts(self) -> Self {
        let mut at = self;
        while at.dentry.is_mountpoint() {
            let Some(child) = at.mount.child_at(&at.dentry) else { break };
            let dentry = Arc::clone(child.root());
            at = Self { mount: child, dentry };
        }
        at
    }

    /// Spells the path from `root`, Linux `d_path`.
    #[must_use]
    pub fn name(&self, root: &Self) -> PathName {
        self.spell(Some(root))
    }

    /// Spells the path from the root of its namespace.
    #[must_use]
    pub fn full_name(&self) -> PathName {
        self.spell(None)
    }

    fn spell(&self, root: Option<&Self>) -> PathName {
        let deleted = self.dentry.is_unlinked();
        let mut names: Vec<Arc<[u8]>> = Vec::new();
        let mut at = self.clone();
        let mut unreachable = false;
        while root != Some(&at) {
            if Arc::ptr_eq(&at.dentry, at.mount.root()) {
                match at.mount.attached_on() {
                    Some(on) => at = on,
                    None => {
                        unreachable = root.is_some();
                        break;
                    }
                }
                continue;
            }
            let (parent, name) = at.dentry.place();
            let Some(parent) = parent else {
                // A pipe or another file that never was in a directory.
                if Arc::ptr_eq(&at.dentry, &self.dentry) {
                    return PathName { name: name.to_vec(), unreachable: false, deleted };
                }
                unreachable = true;
                break;
            };
            names.push(name);
            at.dentry = parent;
        }
        let mut spelled = Vec::new();
        for name in names.iter().rev() {
            spelled.push(b'/');
            spelled.extend_from_slice(name);
        }
        if spelled.is_empty() {
            spelled.push(b'/');
        }
        PathName { name: spelled, unreachable, deleted }
    }

    /// The path for getcwd(2).
    ///
    /// # Errors
    /// `ENOENT` for a removed directory, `ENAMETOOLONG` for more than `PATH_MAX` bytes.
    pub fn working_directory_name(&self, root: &Self) -> Result<Vec<u8>, Errno> {
        let name = self.name(root);
        if name.deleted {
            return Err(Errno::ENOENT);
        }
        let mut spelled = if name.unreachable { b"(unreachable)".to_vec() } else { Vec::new() };
        spelled.extend_from_slice(&name.name);
        if spelled.len() >= PATH_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(spelled) }
    }
}
