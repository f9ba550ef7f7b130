//! mount(2) and umount(2).
use std::sync::Arc;

use abi::Errno;
use abi::fs::{
    MNT_DETACH, MNT_EXPIRE, MNT_FORCE, MS_BIND, MS_DIRSYNC, MS_LAZYTIME, MS_MANDLOCK, MS_MOVE, MS_NOATIME,
    MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_NOSYMFOLLOW, MS_POSIXACL, MS_PRIVATE, MS_RDONLY,
    MS_REC, MS_RELATIME, MS_REMOUNT, MS_SHARED, MS_SILENT, MS_SLAVE, MS_STRICTATIME, MS_SYNCHRONOUS,
    MS_UNBINDABLE, ST_NOATIME, ST_NODEV, ST_NODIRATIME, ST_NOEXEC, ST_NOSUID, ST_NOSYMFOLLOW, ST_RDONLY,
    ST_RELATIME, ST_VALID, UMOUNT_NOFOLLOW,
};
use kernel::Cap;

use super::Vfs;
use crate::namespace::copy_tree;
use crate::walk::{At, LookupFlags};
use crate::{Mount, MountNamespace, Path, SuperBlock, filesystem_type};

/// The flags that mount(2) understands.
const VALID: u32 = MS_RDONLY
    | MS_NOSUID
    | MS_NODEV
    | MS_NOEXEC
    | MS_SYNCHRONOUS
    | MS_REMOUNT
    | MS_MANDLOCK
    | MS_DIRSYNC
    | MS_NOSYMFOLLOW
    | MS_NOATIME
    | MS_NODIRATIME
    | MS_BIND
    | MS_MOVE
    | MS_REC
    | MS_SILENT
    | MS_POSIXACL
    | MS_UNBINDABLE
    | MS_PRIVATE
    | MS_SLAVE
    | MS_SHARED
    | MS_RELATIME
    | MS_STRICTATIME
    | MS_LAZYTIME;
const PROPAGATION: u32 = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;
/// What callers may leave in the upper half for old kernels.
const MS_MGC_VAL: u32 = 0xc0ed_0000;
const MS_MGC_MSK: u32 = 0xffff_0000;

/// `f_flags` of statfs(2).
pub(super) fn statfs_flags(mount: &Mount) -> u32 {
    let map = [
        (MS_NOSUID, ST_NOSUID),
        (MS_NODEV, ST_NODEV),
        (MS_NOEXEC, ST_NOEXEC),
        (MS_NOATIME, ST_NOATIME),
        (MS_NODIRATIME, ST_NODIRATIME),
        (MS_RELATIME, ST_RELATIME),
        (MS_NOSYMFOLLOW, ST_NOSYMFOLLOW),
    ];
    let set = map.iter().filter(|(ms, _)| mount.has_flags(*ms)).fold(0, |all, (_, st)| all | st);
    ST_VALID | set | if mount.is_read_only() { ST_RDONLY } else { 0 }
}

/// The mount's own flags out of those of mount(2); relatime is the default.
fn mount_flags(flags: u32) -> u32 {
    let flags = flags & crate::MOUNT_FLAGS;
    let relative = flags & (MS_NOATIME | MS_STRICTATIME) == 0;
    let flags = if relative { flags | MS_RELATIME } else { flags & !MS_RELATIME };
    flags & !MS_STRICTATIME
}

impl Vfs<'_> {
    fn may_mount(&self) -> Result<(), Errno> {
        if self.cx.creds.has_cap(Cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// mount(2).
    ///
    /// # Errors
    /// Those of mount(2); `EINVAL` for `MS_SHARED`, as nothing is propagated.
    pub fn mount(
        &self,
        source: &[u8],
        target: &[u8],
        kind: &[u8],
        flags: u32,
        data: &[u8],
    ) -> Result<(), Errno> {
        let flags = if flags & MS_MGC_MSK == MS_MGC_VAL { flags & !MS_MGC_MSK } else { flags };
        let target = self.resolve(&At::Cwd, target, LookupFlags::FOLLOW)?;
        self.may_mount()?;
        if flags & !VALID != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & (MS_REMOUNT | MS_BIND) == MS_REMOUNT | MS_BIND {
            return self.remount_bind(&target, flags);
        }
        if flags & MS_REMOUNT != 0 {
            return self.remount(&target, flags, data);
        }
        if flags & MS_BIND != 0 {
            return self.bind(source, &target, flags & MS_REC != 0);
        }
        if flags & PROPAGATION != 0 {
            return self.set_propagation(&target, flags);
        }
        if flags & MS_MOVE != 0 {
            return self.move_mount(source, &target);
        }
        let fs = filesystem_type(kind)?.mount(&self.cx, source, data)?;
        let sb = SuperBlock::new(fs, flags & MS_RDONLY != 0);
        let root = Arc::clone(sb.root());
        let mount =
            Mount::new(sb, root, if source.is_empty() { b"none" } else { source }, mount_flags(flags));
        self.attach(&mount, &target, 1)
    }

    /// Attaches a new mount, with whatever is mounted in it, at `target`.
    ///
    /// # Errors
    /// `ENOTDIR` where one is a directory and the other is not, `ENOENT` for a removed target, `EINVAL` for a target in
    /// another namespace, `ENOSPC`.
    pub fn attach_mount(&self, mount: &Arc<Mount>, target: &Path) -> Result<(), Errno> {
        self.attach(mount, target, mount.tree().len())
    }

    fn attach(&self, mount: &Arc<Mount>, target: &Path, count: usize) -> Result<(), Errno> {
        let namespace = self.fs.namespace();
        let guard = namespace.lock();
        let target = target.clone().follow_mounts();
        if !namespace.contains(&target.mount) {
            return Err(Errno::EINVAL);
        }
        let is_dir = mount.root().inode().is_some_and(|inode| inode.is_dir());
        if is_dir != target.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if target.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        namespace.reserve(count)?;
        target.mount.attach(&target.dentry, mount);
        drop(guard);
        namespace.changed();
        Ok(())
    }

    fn bind(&self, source: &[u8], target: &Path, recursive: bool) -> Result<(), Errno> {
        let source = self.resolve(&At::Cwd, source, LookupFlags::FOLLOW)?;
        if source.mount.is_unbindable() {
            return Err(Errno::EINVAL);
        }
        let (mount, count) = {
            let namespace = self.fs.namespace();
            let _guard = namespace.lock();
            if recursive {
                let (mount, map) = copy_tree(&source.mount, &source.dentry);
                (mount, map.len())
            } else {
                let sb = Arc::clone(source.mount.sb());
                let flags = source.mount.flags();
                (Mount::new(sb, Arc::clone(&source.dentry), source.mount.source(), flags), 1)
            }
        };
        self.attach(&mount, target, count)
    }

    fn remount_bind(&self, target: &Path, flags: u32) -> Result<(), Errno> {
        if !Arc::ptr_eq(&target.dentry, target.mount.root()) {
            return Err(Errno::EINVAL);
        }
        target.mount.set_flags(mount_flags(flags));
        self.fs.namespace().changed();
        Ok(())
    }

    fn remount(&self, target: &Path, flags: u32, data: &[u8]) -> Result<(), Errno> {
        if !Arc::ptr_eq(&target.dentry, target.mount.root()) {
            return Err(Errno::EINVAL);
        }
        let sb = target.mount.sb();
        sb.fs().remount(&self.cx, data)?;
        sb.set_read_only(flags & MS_RDONLY != 0);
        target.mount.set_flags(mount_flags(flags));
        self.fs.namespace().changed();
        Ok(())
    }

    /// Private is what every mount is; without masters and peers a slave is the same.
    fn set_propagation(&self, target: &Path, flags: u32) -> Result<(), Errno> {
        let kind = flags & PROPAGATION;
        let others = flags & !(PROPAGATION | MS_REC | MS_SILENT);
        if others != 0 || !kind.is_power_of_two() || !Arc::ptr_eq(&target.dentry, target.mount.root()) {
            return Err(Errno::EINVAL);
        }
        if kind == MS_SHARED {
            if let Some(task) = self.cx.task {
                task.kernel().unsupported("mount: MS_SHARED");
            }
            return Err(Errno::EINVAL);
        }
        let namespace = self.fs.namespace();
        let _guard = namespace.lock();
        let mounts = if flags & MS_REC != 0 { target.mount.tree() } else { vec![Arc::clone(&target.mount)] };
        for mount in mounts {
            mount.set_unbindable(kind == MS_UNBINDABLE);
        }
        Ok(())
    }

    fn move_mount(&self, source: &[u8], target: &Path) -> Result<(), Errno> {
        let source = self.resolve(&At::Cwd, source, LookupFlags::FOLLOW)?;
        let namespace = self.fs.namespace();
        let guard = namespace.lock();
        let target = target.clone().follow_mounts();
        let mount = &source.mount;
        let movable = Arc::ptr_eq(&source.dentry, mount.root())
            && mount.attached_on().is_some()
            && namespace.contains(mount)
            && namespace.contains(&target.mount);
        if !movable {
            return Err(Errno::EINVAL);
        }
        if source.is_dir() != target.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if mount.tree().iter().any(|m| Arc::ptr_eq(m, &target.mount)) {
            return Err(Errno::ELOOP);
        }
        let gone = mount.detach();
        target.mount.attach(&target.dentry, mount);
        drop(guard);
        drop(gone);
        namespace.changed();
        Ok(())
    }

    /// umount2(2).
    ///
    /// # Errors
    /// Those of umount(2); a mount in use is `EBUSY` unless `MNT_DETACH`.
    pub fn umount(&self, target: &[u8], flags: u32) -> Result<(), Errno> {
        if flags & !(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW) != 0 {
            return Err(Errno::EINVAL);
        }
        let lookup = LookupFlags { follow: flags & UMOUNT_NOFOLLOW == 0, ..LookupFlags::NO_FOLLOW };
        let target = self.resolve(&At::Cwd, target, lookup)?;
        self.may_mount()?;
        let namespace = self.fs.namespace();
        let Path { mount, dentry } = target;
        if !Arc::ptr_eq(&dentry, mount.root()) || !namespace.contains(&mount) {
            return Err(Errno::EINVAL);
        }
        drop(dentry);
        if flags & MNT_EXPIRE != 0 {
            if flags & (MNT_FORCE | MNT_DETACH) != 0 {
                return Err(Errno::EINVAL);
            }
            if !mount.mark_expired() {
                return Err(Errno::EAGAIN);
            }
        }
        if mount.attached_on().is_none() {
            // The root of the namespace stays.
            return Err(Errno::EINVAL);
        }
        detach(&namespace, &mount, flags & MNT_DETACH != 0)
    }
}

/// Takes a mount, and with `lazy` all below it, out of the tree.
fn detach(namespace: &Arc<MountNamespace>, mount: &Arc<Mount>, lazy: bool) -> Result<(), Errno> {
    let mut gone = Vec::new();
    let guard = namespace.lock();
    let tree = mount.tree();
    // This call holds `mount` and `tree` holds it; its parent holds it once more. Whatever else does uses it.
    if !lazy && (tree.len() > 1 || Arc::strong_count(mount) > 3) {
        return Err(Errno::EBUSY);
    }
    for mount in tree.iter().rev() {
        gone.push(mount.detach());
    }
    namespace.release(tree.len());
    drop(guard);
    drop(gone);
    drop(tree);
    namespace.changed();
    Ok(())
}
