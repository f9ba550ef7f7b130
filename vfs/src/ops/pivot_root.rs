//! pivot_root(2).
use std::sync::Arc;

use abi::Errno;
use kernel::Cap;

use super::Vfs;
use crate::walk::{At, LookupFlags};
use crate::{FS, Path};

impl Vfs<'_> {
    /// pivot_root(2): the mount `new_root` becomes the root, the present root moves to `put_old`.
    ///
    /// # Errors
    /// Those of pivot_root(2).
    pub fn pivot_root(&self, new_root: &[u8], put_old: &[u8]) -> Result<(), Errno> {
        if !self.cx.creds.has_cap(Cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let new = self.resolve(&At::Cwd, new_root, LookupFlags::DIRECTORY)?;
        let put = self.resolve(&At::Cwd, put_old, LookupFlags::DIRECTORY)?;
        let root = self.fs.root();
        let namespace = self.fs.namespace();
        let guard = namespace.lock();
        if !namespace.contains(&new.mount) || !namespace.contains(&put.mount) {
            return Err(Errno::EINVAL);
        }
        if new.dentry.is_unlinked() || put.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        if Arc::ptr_eq(&new.mount, &root.mount) || Arc::ptr_eq(&put.mount, &root.mount) {
            return Err(Errno::EBUSY);
        }
        let is_mount = |path: &Path| Arc::ptr_eq(&path.dentry, path.mount.root());
        if !is_mount(&root) || !is_mount(&new) || new.mount.attached_on().is_none() {
            return Err(Errno::EINVAL);
        }
        if !put.mount.tree().is_empty() && !is_reachable(&put, &new) {
            return Err(Errno::EINVAL);
        }
        let mut gone = vec![new.mount.detach()];
        match root.mount.attached_on() {
            None => gone.push(Some((Arc::clone(&root.dentry), namespace.set_root(Arc::clone(&new.mount))))),
            Some(on) => {
                gone.push(root.mount.detach());
                on.mount.attach(&on.dentry, &new.mount);
            }
        }
        put.mount.attach(&put.dentry, &root.mount);
        drop(guard);
        drop(gone);
        self.move_roots(&root, &new);
        namespace.changed();
        Ok(())
    }

    /// Every process whose root or working directory was the old root gets the new one.
    fn move_roots(&self, old: &Path, new: &Path) {
        self.fs.replace_root(old, new);
        let Some(task) = self.cx.task else { return };
        for other in task.kernel().tasks() {
            if let Some(fs) = other.get(&FS) {
                fs.replace_root(old, new);
            }
        }
    }
}

/// Tells whether `path` is at or below `top`.
fn is_reachable(path: &Path, top: &Path) -> bool {
    let mut at = path.clone();
    loop {
        if Arc::ptr_eq(&at.mount, &top.mount) {
            return at.dentry.is_below(&top.dentry);
        }
        match at.mount.attached_on() {
            Some(on) => at = on,
            None => return false,
        }
    }
}
