//! Moving bytes between files: `sendfile(2)`, `copy_file_range(2)`, `splice(2)`, `tee(2)`.
use std::sync::Arc;

use abi::Errno;
use abi::fs::{O_APPEND, O_NONBLOCK, SEEK_CUR};
use abi::stat::{S_IFDIR, S_IFREG};
use abi::uio::{MAX_RW_COUNT, SPLICE_F_NONBLOCK};
use kernel::File;
use memmap::{IoDst, IoSrc, IoVec};
use sync::PollEvents;
use vfs::FileDescription;
use vfs::anon::PipeEnd;

use crate::Cx;
use crate::blocking::Wait;
use crate::cx::rest;
use crate::decode::{Fd, UserPtr};
use crate::read_write::signal_for;

/// How many bytes go through the sentry at a time.
const CHUNK: usize = 64 << 10;
/// Every flag of splice(2) and its kin.
const SPLICE_F_ALL: u32 = 15;

fn description(file: &Arc<dyn File>) -> Result<&FileDescription, Errno> {
    FileDescription::from_file(file).filter(|d| !d.is_path_only()).ok_or(Errno::EBADF)
}

/// An open file with the offset that the call keeps in memory, or its own position.
struct End {
    file: Arc<dyn File>,
    offset: Option<i64>,
    at: UserPtr<i64>,
}

impl End {
    fn new(cx: &Cx<'_>, file: Arc<dyn File>, at: UserPtr<i64>) -> Result<Self, Errno> {
        Ok(Self { file, offset: at.read_if_some(cx)?, at })
    }

    /// Reads what comes next into `buffer`, without moving on.
    fn peek(&self, cx: &Cx<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
        let at = match self.offset {
            Some(offset) => offset,
            None => self.file.seek(cx, 0, SEEK_CUR)?,
        };
        self.file.pread(cx, &mut IoDst::kernel(buffer), at)
    }

    fn advance(&mut self, cx: &Cx<'_>, n: usize) -> Result<(), Errno> {
        let n = i64::try_from(n).map_err(|_wide| Errno::EOVERFLOW)?;
        match &mut self.offset {
            Some(offset) => *offset = offset.checked_add(n).ok_or(Errno::EOVERFLOW)?,
            None => self.file.seek(cx, n, SEEK_CUR).map(drop)?,
        }
        Ok(())
    }

    /// Writes all of `bytes`, as far as waiting allows.
    fn write(&mut self, cx: &mut Cx<'_>, bytes: &[u8], wait: Wait) -> Result<usize, Errno> {
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        let n = cx
            .blocking_all(&file, wait, bytes.len(), |cx, done| {
                let mut src = IoSrc::kernel(bytes.get(done..).unwrap_or_default());
                match offset {
                    None => file.write(cx, &mut src),
                    Some(offset) => file.pwrite(cx, &mut src, offset),
                }
            })
            .map_err(|errno| signal_for(cx, errno))?;
        if self.offset.is_some() {
            self.advance(cx, n)?;
        }
        Ok(n)
    }

    /// Stores the offset back.
    fn store(&self, cx: &Cx<'_>) -> Result<(), Errno> {
        self.offset.map_or(Ok(()), |offset| self.at.write_if_some(cx, &offset))
    }
}

/// Copies from a file with a position to any file.
fn copy(cx: &mut Cx<'_>, from: &mut End, to: &mut End, count: usize, wait: Wait) -> Result<usize, Errno> {
    let count = count.min(MAX_RW_COUNT);
    let mut buffer = vec![0; CHUNK.min(count)];
    let mut done = 0;
    while done < count {
        let want = (count - done).min(CHUNK);
        let step = (|| {
            let chunk = buffer.get_mut(..want).ok_or(Errno::EINVAL)?;
            let read = from.peek(cx, chunk)?;
            let written = to.write(cx, chunk.get(..read).unwrap_or_default(), wait)?;
            from.advance(cx, written)?;
            Ok((read, written))
        })();
        match step {
            Ok((read, written)) => {
                done += written;
                if read == 0 || written < read || kernel::signal::has_work(cx) {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// `sendfile(2)`
///
/// # Errors
/// `EBADF`, `EINVAL`, `EFAULT`, `ESPIPE`, `EAGAIN`, `EINTR`, `EPIPE`.
pub fn sendfile(
    cx: &mut Cx<'_>,
    out_fd: Fd,
    in_fd: Fd,
    offset: UserPtr<i64>,
    count: usize,
) -> Result<usize, Errno> {
    let input = cx.file(in_fd)?;
    let source = description(&input)?;
    if !source.is_readable() {
        return Err(Errno::EBADF);
    }
    if source.is_stream() {
        return Err(if offset.is_null() { Errno::EINVAL } else { Errno::ESPIPE });
    }
    let mut from = End::new(cx, Arc::clone(&input), offset)?;
    if from.offset.is_some_and(|o| o < 0) {
        return Err(Errno::EINVAL);
    }
    let output = cx.file(out_fd)?;
    let target = description(&output)?;
    if !target.is_writable() {
        return Err(Errno::EBADF);
    }
    if target.flags() & O_APPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let wait = Wait::of(&*output);
    let mut to = End { file: Arc::clone(&output), offset: None, at: UserPtr::new(0) };
    let done = copy(cx, &mut from, &mut to, count, wait)?;
    from.store(cx)?;
    Ok(done)
}

/// `copy_file_range(2)`
///
/// # Errors
/// `EBADF`, `EINVAL`, `EISDIR`, `EFAULT`, `EFBIG`, `ENOSPC`, `EOVERFLOW`.
pub fn copy_file_range(
    cx: &mut Cx<'_>,
    in_fd: Fd,
    in_offset: UserPtr<i64>,
    out_fd: Fd,
    out_offset: UserPtr<i64>,
    count: usize,
    flags: u32,
) -> Result<usize, Errno> {
    let (input, output) = (cx.file(in_fd)?, cx.file(out_fd)?);
    let mut from = End::new(cx, Arc::clone(&input), in_offset)?;
    let mut to = End::new(cx, Arc::clone(&output), out_offset)?;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let (source, target) = (description(&input)?, description(&output)?);
    let types = [source.file_type(), target.file_type()];
    if types.contains(&S_IFDIR) {
        return Err(Errno::EISDIR);
    }
    if types != [S_IFREG, S_IFREG] {
        return Err(Errno::EINVAL);
    }
    if !source.is_readable() || !target.is_writable() || target.flags() & O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    let position = |end: &End| end.offset.map_or_else(|| end.file.seek(cx, 0, SEEK_CUR), Ok);
    let (start, to_start) = (position(&from)?, position(&to)?);
    if start < 0 || to_start < 0 {
        return Err(Errno::EINVAL);
    }
    let len = i64::try_from(count.min(MAX_RW_COUNT)).map_err(|_wide| Errno::EOVERFLOW)?;
    let (Some(end), Some(to_end)) = (start.checked_add(len), to_start.checked_add(len)) else {
        return Err(Errno::EOVERFLOW);
    };
    let (a, b) = (input.stat(cx)?, output.stat(cx)?);
    if (a.dev, a.ino) == (b.dev, b.ino) && start < to_end && to_start < end {
        return Err(Errno::EINVAL);
    }
    let done = copy(cx, &mut from, &mut to, count, Wait::Never)?;
    from.store(cx)?;
    to.store(cx)?;
    Ok(done)
}

/// The pipe behind a file.
fn pipe(file: &Arc<dyn File>) -> Option<&PipeEnd> {
    FileDescription::from_file(file).and_then(|d| d.ops().downcast_ref::<PipeEnd>())
}

/// How splice(2) waits for a pipe or file.
fn splice_wait(file: &Arc<dyn File>, flags: u32) -> Wait {
    Wait::unless(flags & SPLICE_F_NONBLOCK != 0 || file.status_flags() & O_NONBLOCK != 0)
}

/// `splice(2)`
///
/// # Errors
/// `EBADF`, `EINVAL`, `ESPIPE`, `EFAULT`, `EAGAIN`, `EINTR`, `EPIPE`.
pub fn splice(
    cx: &mut Cx<'_>,
    in_fd: Fd,
    in_offset: UserPtr<i64>,
    out_fd: Fd,
    out_offset: UserPtr<i64>,
    count: usize,
    flags: u32,
) -> Result<usize, Errno> {
    if count == 0 {
        return Ok(0);
    }
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let (input, output) = (cx.file(in_fd)?, cx.file(out_fd)?);
    let (source, target) = (description(&input)?, description(&output)?);
    if !source.is_readable() || !target.is_writable() {
        return Err(Errno::EBADF);
    }
    let (in_pipe, out_pipe) = (pipe(&input), pipe(&output));
    if in_pipe.is_some() && !in_offset.is_null() || out_pipe.is_some() && !out_offset.is_null() {
        return Err(Errno::ESPIPE);
    }
    match (in_pipe, out_pipe) {
        (None, None) => Err(Errno::EINVAL),
        (Some(from), Some(to)) if Arc::ptr_eq(from.pipe(), to.pipe()) => Err(Errno::EINVAL),
        (Some(_), _) => {
            if out_pipe.is_none() && target.flags() & O_APPEND != 0 {
                return Err(Errno::EINVAL);
            }
            if !out_offset.is_null() && target.is_stream() {
                return Err(Errno::EINVAL);
            }
            from_pipe(cx, &input, End::new(cx, Arc::clone(&output), out_offset)?, count, flags)
        }
        (None, Some(_)) => {
            if !in_offset.is_null() && source.is_stream() {
                return Err(Errno::EINVAL);
            }
            to_pipe(cx, End::new(cx, Arc::clone(&input), in_offset)?, &output, count, flags)
        }
    }
}

/// Takes from a pipe and writes; what the other side does not take goes back.
fn from_pipe(
    cx: &mut Cx<'_>,
    input: &Arc<dyn File>,
    mut to: End,
    count: usize,
    flags: u32,
) -> Result<usize, Errno> {
    let from = pipe(input).ok_or(Errno::EINVAL)?;
    let wait = splice_wait(input, flags);
    let mut done = 0;
    while done < count {
        let want = (count - done).min(CHUNK);
        // Only the first bytes are waited for.
        let wait = if done == 0 { wait } else { Wait::Never };
        let bytes = match cx.blocking(input, PollEvents::READABLE, wait, |_| from.take(want)) {
            Ok(bytes) if bytes.is_empty() => break,
            Ok(bytes) => bytes,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        };
        let out_wait = splice_wait(&to.file, flags);
        let written = to.write(cx, &bytes, out_wait);
        let n = *written.as_ref().unwrap_or(&0);
        done += n;
        if n < bytes.len() {
            from.put_back(bytes.get(n..).unwrap_or_default().to_vec());
            if done == 0 {
                return written;
            }
            break;
        }
    }
    to.store(cx)?;
    Ok(done)
}

/// Reads and writes into a pipe. What is read from a stream is no more than the pipe takes at once.
fn to_pipe(
    cx: &mut Cx<'_>,
    mut from: End,
    output: &Arc<dyn File>,
    count: usize,
    flags: u32,
) -> Result<usize, Errno> {
    let to = pipe(output).ok_or(Errno::EINVAL)?;
    let want = count.min(CHUNK).min(to.capacity());
    let wait = splice_wait(output, flags);
    cx.blocking(output, PollEvents::WRITABLE, wait, |cx| {
        if output.poll(cx).intersects(PollEvents::WRITABLE | PollEvents::ERR) {
            Ok(())
        } else {
            Err(Errno::EAGAIN)
        }
    })?;
    let mut buffer = vec![0; want];
    let stream = description(&from.file)?.is_stream();
    let file = Arc::clone(&from.file);
    let read = if stream {
        // A page is the room that a writable pipe has at least.
        let chunk = buffer.get_mut(..want.min(4096)).unwrap_or_default();
        let in_wait = splice_wait(&file, flags);
        cx.blocking(&file, PollEvents::READABLE, in_wait, |cx| file.read(cx, &mut IoDst::kernel(chunk)))?
    } else {
        from.peek(cx, &mut buffer)?
    };
    let bytes = buffer.get(..read).unwrap_or_default();
    let out_wait = if stream { Wait::Forever } else { wait };
    let mut pipe_end = End { file: Arc::clone(output), offset: None, at: UserPtr::new(0) };
    let written = pipe_end.write(cx, bytes, out_wait)?;
    if !stream {
        from.advance(cx, written)?;
        from.store(cx)?;
    }
    Ok(written)
}

/// `tee(2)`
///
/// # Errors
/// `EINVAL`, `EBADF`, `EAGAIN`, `EINTR`, `EPIPE`.
pub fn tee(cx: &mut Cx<'_>, in_fd: Fd, out_fd: Fd, count: usize, flags: u32) -> Result<usize, Errno> {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    if count == 0 {
        return Ok(0);
    }
    let (input, output) = (cx.file(in_fd)?, cx.file(out_fd)?);
    if !description(&input)?.is_readable() || !description(&output)?.is_writable() {
        return Err(Errno::EBADF);
    }
    let (Some(from), Some(to)) = (pipe(&input), pipe(&output)) else { return Err(Errno::EINVAL) };
    if Arc::ptr_eq(from.pipe(), to.pipe()) {
        return Err(Errno::EINVAL);
    }
    let wait = splice_wait(&input, flags);
    let bytes = cx.blocking(&input, PollEvents::READABLE, wait, |_| from.peek(count.min(CHUNK)))?;
    if bytes.is_empty() {
        return Ok(0);
    }
    // What fits at once; the rest is not lost, for it was only copied.
    let out_wait = splice_wait(&output, flags);
    let mut src = IoSrc::kernel(&bytes);
    cx.blocking(&output, PollEvents::WRITABLE, out_wait, |cx| output.write(cx, &mut src))
        .map_err(|errno| signal_for(cx, errno))
}

/// `vmsplice(2)`: copies where Linux may share pages.
///
/// # Errors
/// `EBADF`, `EINVAL`, `EFAULT`, `EAGAIN`, `EINTR`, `EPIPE`.
pub fn vmsplice(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    flags: u32,
) -> Result<usize, Errno> {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let file = cx.file(fd)?;
    let description = description(&file)?;
    let (readable, writable) = (description.is_readable(), description.is_writable());
    let pieces = cx.iovec(iov, count)?;
    if pipe(&file).is_none() {
        return Err(Errno::EBADF);
    }
    let wait = splice_wait(&file, flags);
    let mm = Arc::clone(cx.memory()?);
    if writable {
        let len = usize::try_from(pieces.iter().map(|p| p.len).sum::<u64>()).unwrap_or(usize::MAX);
        cx.blocking_all(&file, wait, len, |cx, done| {
            file.write(cx, &mut IoSrc::user_iovec(&mm, rest(&pieces, done)))
        })
        .map_err(|errno| signal_for(cx, errno))
    } else if readable {
        let mut dst = IoDst::user_iovec(&mm, pieces);
        cx.blocking(&file, PollEvents::READABLE, wait, |cx| file.read(cx, &mut dst))
    } else {
        Err(Errno::EBADF)
    }
}
