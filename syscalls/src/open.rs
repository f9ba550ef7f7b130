//! Opening files: `open(2)`, `openat(2)`, `openat2(2)`, `creat(2)`.
use abi::Errno;
use abi::fs::{O_CLOEXEC, O_CREAT, O_NONBLOCK, O_TRUNC, O_WRONLY};
use sync::PollEvents;
use vfs::{At, OpenHow};

use crate::Cx;
use crate::blocking::Wait;
use crate::decode::{Fd, UserPtr};
use crate::observe;

fn open_at(cx: &mut Cx<'_>, at: &At, path: &[u8], how: &OpenHow) -> Result<usize, Errno> {
    let file = cx.vfs(|vfs| vfs.open(at, path, how))?;
    // A FIFO waits for its other end.
    if let Some(queue) = file.ops().wait_queue() {
        let wait = Wait::unless(how.flags() & O_NONBLOCK != 0);
        match cx.wait_on(queue, PollEvents::ALL, wait, |cx| file.ops().finish_open(&file.cx(cx))) {
            Err(Errno::EAGAIN) | Ok(()) => {}
            Err(errno) => return Err(errno),
        }
    }
    observe::opened(cx, &file, how.flags());
    cx.install(file.clone(), how.flags() & O_CLOEXEC != 0)
}

/// `openat(2)`
///
/// # Errors
/// Those of openat(2).
pub fn openat(cx: &mut Cx<'_>, fd: Fd, path: UserPtr<u8>, flags: u32, mode: u16) -> Result<usize, Errno> {
    let how = OpenHow::legacy(flags, u32::from(mode))?;
    let (at, path) = cx.at(fd, path)?;
    open_at(cx, &at, &path, &how)
}

/// `open(2)`
///
/// # Errors
/// Those of open(2).
pub fn open(cx: &mut Cx<'_>, path: UserPtr<u8>, flags: u32, mode: u16) -> Result<usize, Errno> {
    openat(cx, Fd::CWD, path, flags, mode)
}

/// `creat(2)`
///
/// # Errors
/// Those of open(2).
pub fn creat(cx: &mut Cx<'_>, path: UserPtr<u8>, mode: u16) -> Result<usize, Errno> {
    openat(cx, Fd::CWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode)
}

/// `openat2(2)`
///
/// # Errors
/// Those of openat2(2).
pub fn openat2(
    cx: &mut Cx<'_>,
    fd: Fd,
    path: UserPtr<u8>,
    how: UserPtr<u8>,
    size: u64,
) -> Result<usize, Errno> {
    if size < size_of::<abi::fs::OpenHow>() as u64 {
        return Err(Errno::EINVAL);
    }
    let how: abi::fs::OpenHow = crate::clone::read_extensible(cx, how.addr(), size)?;
    let how = OpenHow::strict(&how)?;
    let (at, path) = cx.at(fd, path)?;
    open_at(cx, &at, &path, &how)
}
