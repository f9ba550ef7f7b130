//! The trait's methods.

use super::attr::stat_fs;
use super::{LocalFile, LocalFs, LocalHandle};
use crate::host::{errno, retry};
use crate::proto::{Attr, Make, SetAttr, StatFs, mode};
use crate::server::{Backend, Entry, Lock, MadeFile};
use abi::Errno;
use nix::fcntl::{self, FcntlArg};
use nix::libc;
use nix::sys::uio;
use nix::unistd;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

fn file_offset(offset: u64) -> Result<i64, Errno> {
    i64::try_from(offset).map_err(|_too_large| Errno::EINVAL)
}

impl Backend for LocalFs {
    type File = LocalFile;
    type Handle = LocalHandle;

    fn attach(&self, aname: &[u8]) -> Result<(LocalFile, Attr), Errno> {
        let tree = self.trees.iter().find(|tree| tree.name == aname).ok_or(Errno::ENOENT)?;
        let fd = tree
            .root
            .try_clone()
            .map_err(|error| error.raw_os_error().and_then(Errno::from_raw).unwrap_or(Errno::EIO))?;
        LocalFile::new(fd, tree)
    }

    fn walk(&self, dir: &LocalFile, name: &[u8]) -> Result<(LocalFile, Attr), Errno> {
        self.find(dir, name)
    }

    fn get_attr(&self, file: &LocalFile) -> Result<Attr, Errno> {
        Ok(file.tree.attr(&file.stat()?))
    }

    fn set_attr(&self, file: &LocalFile, set: &SetAttr) -> Result<(), Errno> {
        self.change_attr(file, set)
    }

    fn open(&self, file: &LocalFile, flags: u32) -> Result<LocalHandle, Errno> {
        self.open_file(file, flags)
    }

    fn make(&self, dir: &LocalFile, name: &[u8], make: &Make<'_>) -> Result<MadeFile<Self>, Errno> {
        self.make_file(dir, name, make)
    }

    fn read_link(&self, file: &LocalFile) -> Result<Vec<u8>, Errno> {
        if file.kind != mode::S_IFLNK {
            return Err(Errno::EINVAL);
        }
        retry(|| fcntl::readlinkat(&file.fd, "")).map(OsStringExt::into_vec)
    }

    fn link(&self, file: &LocalFile, dir: &LocalFile, name: &[u8]) -> Result<(), Errno> {
        self.make_link(file, dir, name)
    }

    fn rename(&self, from: (&LocalFile, &[u8]), to: (&LocalFile, &[u8]), flags: u32) -> Result<(), Errno> {
        Self::move_name(from, to, flags)
    }

    fn unlink(&self, dir: &LocalFile, name: &[u8], flags: u32) -> Result<(), Errno> {
        Self::remove_name(dir, name, flags)
    }

    fn stat_fs(&self, file: &LocalFile) -> Result<StatFs, Errno> {
        stat_fs(file)
    }

    fn read(&self, handle: &LocalHandle, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let offset = file_offset(offset)?;
        retry(|| uio::pread(&handle.fd, buf, offset))
    }

    fn write(&self, handle: &LocalHandle, data: &[u8], offset: u64) -> Result<usize, Errno> {
        let offset = file_offset(offset)?;
        retry(|| uio::pwrite(&handle.fd, data, offset))
    }

    fn sync(&self, handle: &LocalHandle, data_only: bool) -> Result<(), Errno> {
        retry(|| if data_only { unistd::fdatasync(&handle.fd) } else { unistd::fsync(&handle.fd) })
    }

    fn read_dir(
        &self,
        handle: &LocalHandle,
        offset: u64,
        with_attr: bool,
        sink: &mut dyn FnMut(&Entry<'_>) -> bool,
    ) -> Result<(), Errno> {
        self.list(handle, offset, with_attr, sink)
    }

    fn donate<'a>(&self, handle: &'a LocalHandle) -> Option<BorrowedFd<'a>> {
        (handle.kind == mode::S_IFREG).then(|| handle.fd.as_fd())
    }

    fn set_lock(&self, handle: &LocalHandle, lock: &Lock) -> Result<bool, Errno> {
        match fcntl::fcntl(&handle.fd, FcntlArg::F_OFD_SETLK(&flock(lock)?)) {
            Ok(_) => Ok(true),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
            Err(error) => Err(errno(error)),
        }
    }

    fn get_lock(&self, handle: &LocalHandle, lock: &Lock) -> Result<Lock, Errno> {
        let mut found = flock(lock)?;
        fcntl::fcntl(&handle.fd, FcntlArg::F_OFD_GETLK(&mut found)).map_err(errno)?;
        if i32::from(found.l_type) == libc::F_UNLCK {
            return Ok(Lock { kind: 2, ..*lock });
        }
        Ok(Lock {
            kind: u8::from(i32::from(found.l_type) == libc::F_WRLCK),
            start: u64::try_from(found.l_start).unwrap_or(0),
            length: u64::try_from(found.l_len).unwrap_or(0),
            proc_id: u32::try_from(found.l_pid).unwrap_or(0),
        })
    }
}

/// Locks belong to the open file, so that they go when its fid goes.
fn flock(lock: &Lock) -> Result<libc::flock, Errno> {
    let kind = match lock.kind {
        0 => libc::F_RDLCK,
        1 => libc::F_WRLCK,
        2 => libc::F_UNLCK,
        _ => return Err(Errno::EINVAL),
    };
    Ok(libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: 0,
        l_start: file_offset(lock.start)?,
        l_len: file_offset(lock.length)?,
        l_pid: 0,
    })
}
