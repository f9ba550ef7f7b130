//! Permissions by mode bits and capabilities, `path_resolution(7)`, `capabilities(7)`.
use abi::Errno;
use abi::stat::{S_IFDIR, S_IFMT, S_ISGID, S_IXGRP};
use kernel::Credentials;
use kernel::credentials::Cap;

use crate::inode::access;
use crate::{InodeOps, OpCx, Ownership};

/// Checks a mask of [`access`] by mode and owner, Linux `fs/namei.c:generic_permission`.
///
/// # Errors
/// `EACCES`.
pub fn generic(creds: &Credentials, mode: u32, uid: u32, gid: u32, mask: u32) -> Result<(), Errno> {
    let granted = if creds.fsuid == uid {
        mode >> 6
    } else if mode & 0o070 != (mode & 0o007) << 3 && creds.in_group(gid) {
        mode >> 3
    } else {
        mode
    };
    if mask & !granted & 0o7 == 0 {
        return Ok(());
    }
    let directory = mode & S_IFMT == S_IFDIR;
    let reads_only = mask & access::WRITE == 0;
    let search = directory || mask == access::READ;
    if reads_only && search && creds.has_cap(Cap::DAC_READ_SEARCH) {
        return Ok(());
    }
    let overridable = directory || mask & access::EXEC == 0 || mode & 0o111 != 0;
    if overridable && creds.has_cap(Cap::DAC_OVERRIDE) { Ok(()) } else { Err(Errno::EACCES) }
}

/// Tells whether the caller owns the file or may act as if, Linux `inode_owner_or_capable`.
#[must_use]
pub fn owner_or_capable(creds: &Credentials, uid: u32) -> bool {
    creds.fsuid == uid || creds.has_cap(Cap::FOWNER)
}

/// Tells whether the sticky bit of a directory keeps the caller from removing a file of `victim_uid`.
#[must_use]
pub fn sticky(creds: &Credentials, dir: &Ownership, victim_uid: u32) -> bool {
    dir.mode & abi::stat::S_ISVTX != 0
        && creds.fsuid != victim_uid
        && creds.fsuid != dir.uid
        && !creds.has_cap(Cap::FOWNER)
}

/// The owner, group and mode of what is made in a directory, Linux `inode_init_owner`: a set-group-id directory gives its
/// group, and itself to directories.
#[must_use]
pub fn new_inode_owner(creds: &Credentials, dir_mode: u32, dir_gid: u32, mode: u32) -> (u32, u32, u32) {
    if dir_mode & S_ISGID == 0 {
        return (creds.fsuid, creds.fsgid, mode);
    }
    let mode = if mode & S_IFMT == S_IFDIR {
        mode | S_ISGID
    } else if mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP
        && !creds.in_group(dir_gid)
        && !creds.has_cap(Cap::FSETID)
    {
        mode & !S_ISGID
    } else {
        mode
    };
    (creds.fsuid, dir_gid, mode)
}

/// The mode that a file keeps when its contents or owner change, Linux `setattr_should_drop_suidgid`.
#[must_use]
pub fn without_suid(mode: u32) -> u32 {
    let mode = mode & !abi::stat::S_ISUID;
    if mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP { mode & !S_ISGID } else { mode }
}

/// Checks a permission on an inode.
///
/// # Errors
/// `EACCES`; those of [`InodeOps::metadata`].
pub fn check(cx: &OpCx<'_>, inode: &dyn InodeOps, mask: u32) -> Result<(), Errno> {
    inode.access(cx, mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_do_not_add_up() {
        let user = Credentials::user(5, 6);
        assert_eq!(generic(&user, 0o077, 5, 6, access::READ), Err(Errno::EACCES));
        assert_eq!(generic(&user, 0o707, 1, 6, access::READ), Err(Errno::EACCES));
        assert_eq!(generic(&user, 0o740, 1, 6, access::READ), Ok(()));
        assert_eq!(generic(&user, 0o704, 1, 1, access::READ), Ok(()));
    }

    #[test]
    fn root_executes_only_what_someone_may() {
        let root = Credentials::root();
        assert_eq!(generic(&root, 0o100_600, 5, 6, access::EXEC), Err(Errno::EACCES));
        assert_eq!(generic(&root, 0o100_610, 5, 6, access::EXEC), Ok(()));
        assert_eq!(generic(&root, 0o040_000, 5, 6, access::EXEC | access::WRITE), Ok(()));
    }

    #[test]
    fn set_group_id_directories_pass_their_group_on() {
        let user = Credentials::user(5, 6);
        assert_eq!(new_inode_owner(&user, 0o042_775, 9, 0o040_755), (5, 9, 0o042_755));
        assert_eq!(new_inode_owner(&user, 0o042_775, 9, 0o102_755), (5, 9, 0o100_755));
        assert_eq!(new_inode_owner(&user, 0o040_775, 9, 0o100_644), (5, 6, 0o100_644));
    }
}
