//! Pipes: `pipe(2)`, `pipe2(2)`.
use abi::Errno;
use abi::fs::{O_CLOEXEC, O_DIRECT, O_NONBLOCK};
use vfs::OpCx;

use crate::Cx;
use crate::decode::UserPtr;

/// `pipe(2)`
///
/// # Errors
/// `EMFILE`, `EFAULT`.
pub fn pipe(cx: &mut Cx<'_>, fds: UserPtr<[i32; 2]>) -> Result<usize, Errno> {
    pipe2(cx, fds, 0)
}

/// `pipe2(2)`
///
/// # Errors
/// `EINVAL` for unknown flags, `EMFILE`, `EFAULT`.
pub fn pipe2(cx: &mut Cx<'_>, fds: UserPtr<[i32; 2]>, flags: u32) -> Result<usize, Errno> {
    if flags & !(O_CLOEXEC | O_NONBLOCK | O_DIRECT | 0o200) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & 0o200 != 0 {
        // O_NOTIFICATION_PIPE, which Linux may be built without.
        return Err(cx.unsupported("pipe2: O_NOTIFICATION_PIPE", Errno::ENOPKG));
    }
    let creds = cx.credentials();
    let op = OpCx::of_task(cx, &creds);
    let [read, write] = vfs::new_pipe(&op, flags & (O_NONBLOCK | O_DIRECT));
    install_pair(cx, [read, write], flags & O_CLOEXEC != 0, fds)
}

/// Gives two files descriptors and stores them; on failure neither stays.
pub(crate) fn install_pair(
    cx: &Cx<'_>,
    [one, two]: [std::sync::Arc<vfs::FileDescription>; 2],
    cloexec: bool,
    to: UserPtr<[i32; 2]>,
) -> Result<usize, Errno> {
    let (fds, limit) = (cx.fds()?, cx.fd_limit());
    let take_back = |fd| fds.remove(fd).map(drop);
    let first = fds.install(one, cloexec, limit)?;
    let second = match fds.install(two, cloexec, limit) {
        Ok(second) => second,
        Err(errno) => {
            take_back(first)?;
            return Err(errno);
        }
    };
    if let Err(errno) = to.write(cx, &[first, second]) {
        take_back(first)?;
        take_back(second)?;
        return Err(errno);
    }
    Ok(0)
}
