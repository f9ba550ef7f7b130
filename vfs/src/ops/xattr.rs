//! Extended attributes, `xattr(7)`.
use abi::Errno;
use abi::fs::{XATTR_CREATE, XATTR_NAME_MAX, XATTR_REPLACE, XATTR_SIZE_MAX};
use abi::stat::{S_IFDIR, S_IFMT, S_IFREG, S_ISVTX};
use kernel::Cap;

use super::{Vfs, notify_path};
use crate::inode::access;
use crate::notify::event;
use crate::{Path, permission};

impl Vfs<'_> {
    /// Checks that an attribute may be accessed, Linux `xattr_permission`.
    fn may_access_xattr(&self, path: &Path, name: &[u8], write: bool) -> Result<(), Errno> {
        if name.is_empty() || name.len() > XATTR_NAME_MAX {
            return Err(Errno::ERANGE);
        }
        if write && path.mount.is_read_only() {
            return Err(Errno::EROFS);
        }
        let inode = path.inode()?;
        let denied = if write { Errno::EPERM } else { Errno::ENODATA };
        let mask = if write { access::WRITE } else { access::READ };
        if name.starts_with(b"security.") {
            let admin = if name == b"security.capability" { Cap::SETFCAP } else { Cap::SYS_ADMIN };
            return if write && !self.cx.creds.has_cap(admin) { Err(Errno::EPERM) } else { Ok(()) };
        }
        if name.starts_with(b"trusted.") {
            return if self.cx.creds.has_cap(Cap::SYS_ADMIN) { Ok(()) } else { Err(denied) };
        }
        if name.starts_with(b"user.") {
            let meta = inode.metadata()?;
            let kind = meta.mode & S_IFMT;
            if !matches!(kind, S_IFREG | S_IFDIR) {
                return Err(denied);
            }
            let sticky = kind == S_IFDIR && meta.mode & S_ISVTX != 0;
            if write && sticky && !permission::owner_or_capable(self.cx.creds, meta.uid) {
                return Err(Errno::EPERM);
            }
            return inode.access(&self.cx, mask);
        }
        Err(Errno::EOPNOTSUPP)
    }

    /// getxattr(2) of what was resolved.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`, `ERANGE` for a name too long, `EACCES`.
    pub fn get_xattr(&self, path: &Path, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.may_access_xattr(path, name, false)?;
        path.inode()?.get_xattr(&self.cx, name)
    }

    /// setxattr(2) of what was resolved.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub fn set_xattr(&self, path: &Path, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        if flags & !(XATTR_CREATE | XATTR_REPLACE) != 0 {
            return Err(Errno::EINVAL);
        }
        if value.len() > XATTR_SIZE_MAX {
            return Err(Errno::E2BIG);
        }
        self.may_access_xattr(path, name, true)?;
        path.inode()?.set_xattr(&self.cx, name, value, flags)?;
        notify_path(path, event::IN_ATTRIB);
        Ok(())
    }

    /// listxattr(2) of what was resolved: each name with its terminator.
    ///
    /// # Errors
    /// `EOPNOTSUPP`.
    pub fn list_xattr(&self, path: &Path) -> Result<Vec<u8>, Errno> {
        let admin = self.cx.creds.has_cap(Cap::SYS_ADMIN);
        let mut list = Vec::new();
        for name in path.inode()?.list_xattr(&self.cx)? {
            if admin || !name.starts_with(b"trusted.") {
                list.extend_from_slice(&name);
                list.push(0);
            }
        }
        Ok(list)
    }

    /// removexattr(2) of what was resolved.
    ///
    /// # Errors
    /// `ENODATA`, and those of [`Self::set_xattr`].
    pub fn remove_xattr(&self, path: &Path, name: &[u8]) -> Result<(), Errno> {
        self.may_access_xattr(path, name, true)?;
        path.inode()?.remove_xattr(&self.cx, name)?;
        notify_path(path, event::IN_ATTRIB);
        Ok(())
    }
}
