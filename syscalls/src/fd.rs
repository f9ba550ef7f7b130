//! Descriptors: `close(2)`, `dup(2)`, `close_range(2)`, `ioctl(2)`.
use std::sync::Arc;

use abi::Errno;
use abi::fs::O_CLOEXEC;
use kernel::{FdTable, File, RLIMIT_NOFILE, close_file};

use crate::Cx;
use crate::decode::Fd;
use crate::process::id;

impl Cx<'_> {
    /// The descriptor table.
    ///
    /// # Errors
    /// `EBADF` once the task exited.
    pub fn fds(&self) -> Result<Arc<FdTable>, Errno> {
        self.fd_table().ok_or(Errno::EBADF)
    }

    /// `RLIMIT_NOFILE`.
    #[must_use]
    pub fn fd_limit(&self) -> u64 {
        self.limit(RLIMIT_NOFILE)
    }

    /// Gives the file a descriptor.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn install(&self, file: Arc<dyn File>, cloexec: bool) -> Result<usize, Errno> {
        id(self.fds()?.install(file, cloexec, self.fd_limit())?)
    }
}

/// `close(2)`
///
/// # Errors
/// `EBADF`, and late errors of the file.
pub fn close(cx: &mut Cx<'_>, fd: Fd) -> Result<usize, Errno> {
    let file = cx.fds()?.remove(fd.0)?;
    // The descriptor is gone: starting again would close another one.
    match close_file(cx, file) {
        Err(errno) if errno.is_restart() => Err(Errno::EINTR),
        result => result.map(|()| 0),
    }
}

/// `dup(2)`
///
/// # Errors
/// `EBADF`, `EMFILE`.
pub fn dup(cx: &mut Cx<'_>, fd: Fd) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    cx.install(file, false)
}

fn replace(cx: &Cx<'_>, old: Fd, new: i32, cloexec: bool) -> Result<usize, Errno> {
    let fds = cx.fds()?;
    let limit = cx.fd_limit();
    if u64::try_from(new).map_or(true, |new| new >= limit) {
        return Err(Errno::EBADF);
    }
    let replaced = fds.install_at(new, cx.file(old)?, cloexec, limit)?;
    if let Some(file) = replaced {
        // dup2(2) tells no errors of closing.
        let _late = close_file(cx, file);
    }
    id(new)
}

/// `dup2(2)`
///
/// # Errors
/// `EBADF`.
pub fn dup2(cx: &mut Cx<'_>, old: Fd, new: i32) -> Result<usize, Errno> {
    if old.0 == new {
        cx.file(old)?;
        return id(new);
    }
    replace(cx, old, new, false)
}

/// `dup3(2)`
///
/// # Errors
/// `EINVAL` for unknown flags or equal descriptors, `EBADF`.
pub fn dup3(cx: &mut Cx<'_>, old: Fd, new: i32, flags: u32) -> Result<usize, Errno> {
    if flags & !O_CLOEXEC != 0 || old.0 == new {
        return Err(Errno::EINVAL);
    }
    replace(cx, old, new, flags & O_CLOEXEC != 0)
}

const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

/// `close_range(2)`
///
/// # Errors
/// `EINVAL` for unknown flags or an empty range, `EMFILE`, `ENOMEM`.
pub fn close_range(cx: &mut Cx<'_>, first: u32, last: u32, flags: u32) -> Result<usize, Errno> {
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        cx.unshare_fd_table();
    }
    let fds = cx.fds()?;
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        fds.set_cloexec_range(first, last);
    } else {
        for file in fds.remove_range(first, last) {
            let _late = close_file(cx, file);
        }
    }
    Ok(0)
}

const FIONCLEX: u32 = 0x5450;
const FIOCLEX: u32 = 0x5451;
const FIONBIO: u32 = 0x5421;
const FIOASYNC: u32 = 0x5452;
const O_NONBLOCK: u32 = abi::fs::O_NONBLOCK;

/// `ioctl(2)`
///
/// # Errors
/// `EBADF`, `ENOTTY`, `EFAULT`, `EINVAL`, and the file's.
pub fn ioctl(cx: &mut Cx<'_>, fd: Fd, command: u32, arg: u64) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let flag = |cx: &Cx<'_>, bit: u32| -> Result<usize, Errno> {
        let on = crate::decode::UserPtr::<i32>::new(arg).read(cx)? != 0;
        let flags = file.status_flags();
        file.set_status_flags(cx, if on { flags | bit } else { flags & !bit })?;
        Ok(0)
    };
    if file.status_flags() & abi::fs::O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    match command {
        FIOCLEX | FIONCLEX => cx.fds()?.set_cloexec(fd.0, command == FIOCLEX).map(|()| 0),
        FIONBIO => flag(cx, O_NONBLOCK),
        FIOASYNC => flag(cx, abi::fs::FASYNC),
        _ => match file.ioctl(cx, command, arg) {
            Err(Errno::ENOIOCTLCMD) => Err(Errno::ENOTTY),
            result => result,
        },
    }
}
