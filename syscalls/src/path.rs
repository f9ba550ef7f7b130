//! The way from a call's arguments to the virtual file system.
use abi::Errno;
use vfs::{At, FsContext, OpCx, Vfs};

use crate::Cx;
use crate::decode::{Fd, UserPtr};

impl Cx<'_> {
    /// Runs `f` with the caller's view of the file system.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn vfs<R>(&self, f: impl FnOnce(&Vfs<'_>) -> Result<R, Errno>) -> Result<R, Errno> {
        let (creds, fs) = (self.credentials(), FsContext::of(self)?);
        f(&Vfs::new(OpCx::of_task(self, &creds), &fs))
    }

    /// Copies a path in and finds where it starts.
    ///
    /// # Errors
    /// `EFAULT`, `ENAMETOOLONG`, `EBADF`.
    pub fn at(&self, fd: Fd, path: UserPtr<u8>) -> Result<(At, Vec<u8>), Errno> {
        let path = self.path(path)?;
        Ok((At::from_fd_for(self, fd.0, &path)?, path))
    }

    /// As [`Self::at`]; with `AT_EMPTY_PATH` among `flags` the null pointer is an empty path.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub fn at_or_empty(&self, fd: Fd, path: UserPtr<u8>, flags: u32) -> Result<(At, Vec<u8>), Errno> {
        let path = self.path_or_null(path, flags & abi::fs::AT_EMPTY_PATH != 0)?;
        Ok((At::from_fd_for(self, fd.0, &path)?, path))
    }
}
