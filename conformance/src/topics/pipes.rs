//! pipe(2), fifo(7): order, atomicity, capacity, ends that are closed; splice(2), tee(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::memory::{post, shared_words, wait_for_word};
use crate::signal::{count_signal, counted, set_action};
use crate::sys::{fstat, open, pipe, raw, read, sys, write};
use crate::util::{create, poll_one, read_some, set_nonblock};
use std::os::fd::AsRawFd;

topic!(pipes: [
    bytes_come_out_in_order,
    read_of_closed_writer_is_zero,
    write_to_closed_reader_is_epipe_and_sigpipe,
    sigpipe_kills_by_default,
    nonblocking_empty_and_full,
    default_capacity_is_64k,
    setpipe_size_rounds_and_refuses,
    small_writes_are_atomic,
    blocked_writer_goes_on_when_read,
    blocked_reader_wakes_on_write,
    large_write_arrives_whole,
    pipe_cannot_seek,
    pipe2_flags,
    fionread_counts,
    packet_mode_keeps_boundaries,
    poll_of_both_ends,
    fifo_open_waits_for_the_other_end,
    fifo_by_two_names_is_one_pipe,
    reopen_by_proc_fd,
    splice_moves_between_pipe_and_file,
    tee_copies_and_keeps,
    vmsplice_gathers,
    splice_checks,
    zero_length_operations,
    partial_write_when_nearly_full,
]);

fn bytes_come_out_in_order() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    for chunk in [b"abc".as_slice(), b"d", b"efgh"] {
        check_eq!(write(writer.as_raw_fd(), chunk)?, chunk.len());
    }
    check_eq!(read_some(reader.as_raw_fd(), 2)?, b"ab");
    check_eq!(read_some(reader.as_raw_fd(), 100)?, b"cdefgh");
    let st = fstat(reader.as_raw_fd())?;
    check_eq!(st.st_mode & libc::S_IFMT, libc::S_IFIFO);
    check_eq!(st.st_ino, fstat(writer.as_raw_fd())?.st_ino);
    Ok(())
}

fn read_of_closed_writer_is_zero() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    write(writer.as_raw_fd(), b"last")?;
    drop(writer);
    check_eq!(read_some(reader.as_raw_fd(), 100)?, b"last");
    check_eq!(read_some(reader.as_raw_fd(), 100)?, b"");
    check_eq!(read_some(reader.as_raw_fd(), 100)?, b"");
    Ok(())
}

fn write_to_closed_reader_is_epipe_and_sigpipe() -> CaseResult {
    count_signal(libc::SIGPIPE, 0)?;
    let (reader, writer) = pipe(0)?;
    drop(reader);
    expect_errno!(write(writer.as_raw_fd(), b"x"), libc::EPIPE);
    check_eq!(counted(), 1);
    set_action(libc::SIGPIPE, libc::SIG_IGN, 0, &[])?;
    expect_errno!(write(writer.as_raw_fd(), b"x"), libc::EPIPE);
    check_eq!(counted(), 1);
    Ok(())
}

fn sigpipe_kills_by_default() -> CaseResult {
    let child = fork_child(|| {
        let _ = set_action(libc::SIGPIPE, libc::SIG_DFL, 0, &[]);
        if let Ok((reader, writer)) = pipe(0) {
            drop(reader);
            let _ = write(writer.as_raw_fd(), b"x");
        }
        0
    })?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGPIPE));
    Ok(())
}

fn nonblocking_empty_and_full() -> CaseResult {
    let (reader, writer) = pipe(libc::O_NONBLOCK)?;
    expect_errno!(read_some(reader.as_raw_fd(), 1), libc::EAGAIN);
    let mut total = 0;
    while let Ok(n) = write(writer.as_raw_fd(), &[1; 4096]) {
        total += n;
        check!(total <= 1 << 20);
    }
    check_eq!(total, 65_536);
    expect_errno!(write(writer.as_raw_fd(), b"x"), libc::EAGAIN);
    read_some(reader.as_raw_fd(), 4096)?;
    check_eq!(write(writer.as_raw_fd(), &[1; 4096])?, 4096);
    Ok(())
}

fn default_capacity_is_64k() -> CaseResult {
    let (reader, writer) = pipe(libc::O_NONBLOCK)?;
    check_eq!(sys!(fcntl(reader.as_raw_fd(), libc::F_GETPIPE_SZ))?, 65_536);
    check_eq!(write(writer.as_raw_fd(), &[1; 100_000])?, 65_536);
    check_eq!(read_some(reader.as_raw_fd(), 100_000)?.len(), 65_536);
    Ok(())
}

fn setpipe_size_rounds_and_refuses() -> CaseResult {
    let (reader, writer) = pipe(libc::O_NONBLOCK)?;
    let fd = writer.as_raw_fd();
    check_eq!(sys!(fcntl(fd, libc::F_SETPIPE_SZ, 5000))?, 8192);
    check_eq!(sys!(fcntl(reader.as_raw_fd(), libc::F_GETPIPE_SZ))?, 8192);
    check_eq!(write(fd, &[1; 100_000])?, 8192);
    expect_errno!(sys!(fcntl(fd, libc::F_SETPIPE_SZ, 4096)), libc::EBUSY);
    check_eq!(sys!(fcntl(fd, libc::F_SETPIPE_SZ, 1 << 20))?, 1 << 20);
    expect_errno!(sys!(fcntl(fd, libc::F_SETPIPE_SZ, -1)), libc::EINVAL);
    check_eq!(read_some(reader.as_raw_fd(), 100_000)?.len(), 8192);
    check_eq!(sys!(fcntl(fd, libc::F_SETPIPE_SZ, 1))?, 4096);
    let file = create(c"f", b"")?;
    expect_errno!(sys!(fcntl(file.as_raw_fd(), libc::F_GETPIPE_SZ)), libc::EBADF);
    Ok(())
}

fn small_writes_are_atomic() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let mut children = Vec::new();
    for id in 0..3u8 {
        children.push(fork_child(|| {
            let chunk = [b'a' + id; 3000];
            i32::from((0..30).any(|_| write(writer.as_raw_fd(), &chunk) != Ok(3000)))
        })?);
    }
    drop(writer);
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(reader), &mut all)?;
    check_eq!(all.len(), 3 * 30 * 3000);
    for (at, chunk) in all.chunks(3000).enumerate() {
        check!(chunk.iter().all(|b| *b == chunk[0]), "chunk {at} is mixed");
    }
    for child in children {
        check_eq!(wait_for(child)?, Ended::Exited(0));
    }
    Ok(())
}

fn blocked_writer_goes_on_when_read() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let words = shared_words()?;
    let child = fork_child(|| {
        let first = write(writer.as_raw_fd(), &[1; 65_536]);
        post(&words[0]);
        let second = write(writer.as_raw_fd(), &[2; 5000]);
        i32::from((first, second) != (Ok(65_536), Ok(5000)))
    })?;
    drop(writer);
    wait_for_word(&words[0], 1);
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(reader), &mut all)?;
    check_eq!((all.len(), all.last()), (70_536, Some(&2)));
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn blocked_reader_wakes_on_write() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let (back_reader, back_writer) = pipe(0)?;
    let child = fork_child(|| {
        for _ in 0..200 {
            match read_some(reader.as_raw_fd(), 10) {
                Ok(data) if data == b"ping" => {
                    let _ = write(back_writer.as_raw_fd(), b"pong");
                }
                _ => return 1,
            }
        }
        0
    })?;
    for _ in 0..200 {
        write(writer.as_raw_fd(), b"ping")?;
        check_eq!(read_some(back_reader.as_raw_fd(), 10)?, b"pong");
    }
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn large_write_arrives_whole() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let child = fork_child(|| i32::from(write(writer.as_raw_fd(), &data) != Ok(data.len())))?;
    drop(writer);
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(reader), &mut all)?;
    check!(all == data);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn pipe_cannot_seek() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    for fd in [reader.as_raw_fd(), writer.as_raw_fd()] {
        expect_errno!(sys!(lseek(fd, 0, libc::SEEK_CUR)), libc::ESPIPE);
        expect_errno!(sys!(ftruncate(fd, 0)), libc::EINVAL);
    }
    let mut byte = 0u8;
    expect_errno!(raw!(SYS_pread64(reader.as_raw_fd(), &raw mut byte, 1, 0)), libc::ESPIPE);
    expect_errno!(raw!(SYS_pwrite64(writer.as_raw_fd(), &raw const byte, 1, 0)), libc::ESPIPE);
    expect_errno!(read_some(writer.as_raw_fd(), 1), libc::EBADF);
    expect_errno!(write(reader.as_raw_fd(), b"x"), libc::EBADF);
    Ok(())
}

fn pipe2_flags() -> CaseResult {
    let (reader, writer) = pipe(libc::O_CLOEXEC | libc::O_NONBLOCK)?;
    for (fd, access) in [(reader.as_raw_fd(), libc::O_RDONLY), (writer.as_raw_fd(), libc::O_WRONLY)] {
        check_eq!(sys!(fcntl(fd, libc::F_GETFD))?, 1);
        check_eq!(sys!(fcntl(fd, libc::F_GETFL))? as i32, libc::O_NONBLOCK | access);
    }
    let mut fds = [0i32; 2];
    expect_errno!(raw!(SYS_pipe2(fds.as_mut_ptr(), libc::O_APPEND)), libc::EINVAL);
    expect_errno!(raw!(SYS_pipe2(8, 0)), libc::EFAULT);
    Ok(())
}

fn fionread_counts() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let mut n = -1i32;
    for (add, sum) in [(0, 0), (10, 10), (5, 15)] {
        write(writer.as_raw_fd(), &vec![0; add])?;
        sys!(ioctl(reader.as_raw_fd(), libc::FIONREAD, &raw mut n))?;
        check_eq!(n, sum);
    }
    expect_errno!(sys!(ioctl(reader.as_raw_fd(), libc::TCGETS, &raw mut n)), libc::ENOTTY);
    let on = 1i32;
    sys!(ioctl(reader.as_raw_fd(), libc::FIONBIO, &raw const on))?;
    read_some(reader.as_raw_fd(), 100)?;
    expect_errno!(read_some(reader.as_raw_fd(), 1), libc::EAGAIN);
    Ok(())
}

fn packet_mode_keeps_boundaries() -> CaseResult {
    let (reader, writer) = pipe(libc::O_DIRECT)?;
    for chunk in [b"one".as_slice(), b"two!", b"three"] {
        write(writer.as_raw_fd(), chunk)?;
    }
    check_eq!(read_some(reader.as_raw_fd(), 100)?, b"one");
    // What does not fit is lost.
    check_eq!(read_some(reader.as_raw_fd(), 2)?, b"tw");
    check_eq!(read_some(reader.as_raw_fd(), 100)?, b"three");
    Ok(())
}

fn poll_of_both_ends() -> CaseResult {
    let (reader, writer) = pipe(libc::O_NONBLOCK)?;
    let (r, w) = (reader.as_raw_fd(), writer.as_raw_fd());
    let both = libc::POLLIN | libc::POLLOUT;
    check_eq!((poll_one(r, both, 0)?, poll_one(w, both, 0)?), (0, libc::POLLOUT));
    while write(w, &[0; 4096]).is_ok() {}
    check_eq!((poll_one(r, both, 0)?, poll_one(w, both, 0)?), (libc::POLLIN, 0));
    drop(writer);
    check_eq!(poll_one(r, both, 0)?, libc::POLLIN | libc::POLLHUP);
    read_some(r, 1 << 20)?;
    check_eq!(poll_one(r, both, 0)?, libc::POLLHUP);
    let (reader, writer) = pipe(0)?;
    drop(reader);
    check_eq!(poll_one(writer.as_raw_fd(), both, 0)?, libc::POLLOUT | libc::POLLERR);
    Ok(())
}

fn fifo_open_waits_for_the_other_end() -> CaseResult {
    sys!(mkfifo(c"p".as_ptr(), 0o600))?;
    let child = fork_child(|| match open(c"p", libc::O_WRONLY, 0) {
        Ok(writer) => i32::from(write(writer.as_raw_fd(), b"hello") != Ok(5)),
        Err(_) => 2,
    })?;
    let reader = open(c"p", libc::O_RDONLY, 0)?;
    check_eq!(read_some(reader.as_raw_fd(), 100)?, b"hello");
    check_eq!(wait_for(child)?, Ended::Exited(0));
    // Both at once never waits.
    let both = open(c"p", libc::O_RDWR, 0)?;
    write(both.as_raw_fd(), b"x")?;
    check_eq!(read_some(both.as_raw_fd(), 1)?, b"x");
    Ok(())
}

fn fifo_by_two_names_is_one_pipe() -> CaseResult {
    sys!(mkfifo(c"p".as_ptr(), 0o600))?;
    sys!(link(c"p".as_ptr(), c"q".as_ptr()))?;
    let a = open(c"p", libc::O_RDWR | libc::O_NONBLOCK, 0)?;
    let b = open(c"q", libc::O_RDWR | libc::O_NONBLOCK, 0)?;
    write(a.as_raw_fd(), b"shared")?;
    check_eq!(read_some(b.as_raw_fd(), 10)?, b"shared");
    write(a.as_raw_fd(), b"gone")?;
    drop((a, b));
    // The last close empties it.
    let c = open(c"p", libc::O_RDWR | libc::O_NONBLOCK, 0)?;
    expect_errno!(read_some(c.as_raw_fd(), 10), libc::EAGAIN);
    Ok(())
}

fn reopen_by_proc_fd() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", reader.as_raw_fd()))?;
    let second_writer = open(&path, libc::O_WRONLY, 0)?;
    drop(writer);
    write(second_writer.as_raw_fd(), b"via proc")?;
    check_eq!(read_some(reader.as_raw_fd(), 100)?, b"via proc");
    let name = std::fs::read_link(path.to_string_lossy().as_ref())?;
    check_eq!(name.to_string_lossy(), format!("pipe:[{}]", fstat(reader.as_raw_fd())?.st_ino));
    Ok(())
}

fn splice(from: i32, to: i32, len: usize, flags: u32) -> Result<i64, crate::sys::SysError> {
    raw!(SYS_splice(from, 0, to, 0, len, flags))
}

fn splice_moves_between_pipe_and_file() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let from = create(c"from", b"0123456789")?;
    let to = create(c"to", b"")?;
    let mut offset = 2i64;
    let moved = raw!(SYS_splice(from.as_raw_fd(), &raw mut offset, writer.as_raw_fd(), 0, 5, 0))?;
    check_eq!((moved, offset), (5, 7));
    check_eq!(splice(reader.as_raw_fd(), to.as_raw_fd(), 100, 0)?, 5);
    check_eq!(std::fs::read("to")?, b"23456");
    sys!(lseek(from.as_raw_fd(), 0, libc::SEEK_END))?;
    check_eq!(splice(from.as_raw_fd(), writer.as_raw_fd(), 5, 0)?, 0);
    drop(writer);
    check_eq!(splice(reader.as_raw_fd(), to.as_raw_fd(), 5, 0)?, 0);
    Ok(())
}

fn tee_copies_and_keeps() -> CaseResult {
    let (a_reader, a_writer) = pipe(0)?;
    let (b_reader, b_writer) = pipe(0)?;
    write(a_writer.as_raw_fd(), b"twice")?;
    check_eq!(raw!(SYS_tee(a_reader.as_raw_fd(), b_writer.as_raw_fd(), 100, 0))?, 5);
    check_eq!(read_some(a_reader.as_raw_fd(), 100)?, b"twice");
    check_eq!(read_some(b_reader.as_raw_fd(), 100)?, b"twice");
    expect_errno!(raw!(SYS_tee(a_reader.as_raw_fd(), a_writer.as_raw_fd(), 1, 0)), libc::EINVAL);
    let nonblock = libc::SPLICE_F_NONBLOCK;
    expect_errno!(raw!(SYS_tee(a_reader.as_raw_fd(), b_writer.as_raw_fd(), 1, nonblock)), libc::EAGAIN);
    Ok(())
}

fn vmsplice_gathers() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let parts = [b"gather ".as_slice(), b"these"];
    let iov = parts.map(|part| libc::iovec { iov_base: part.as_ptr() as *mut _, iov_len: part.len() });
    check_eq!(raw!(SYS_vmsplice(writer.as_raw_fd(), iov.as_ptr(), 2, 0))?, 12);
    check_eq!(read_some(reader.as_raw_fd(), 100)?, b"gather these");
    Ok(())
}

fn splice_checks() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let a = create(c"a", b"data")?;
    let b = create(c"b", b"")?;
    expect_errno!(splice(a.as_raw_fd(), b.as_raw_fd(), 1, 0), libc::EINVAL);
    expect_errno!(splice(reader.as_raw_fd(), writer.as_raw_fd(), 1, 0), libc::EINVAL);
    expect_errno!(splice(writer.as_raw_fd(), b.as_raw_fd(), 1, 0), libc::EBADF);
    expect_errno!(splice(reader.as_raw_fd(), b.as_raw_fd(), 1, 0x100), libc::EINVAL);
    let mut offset = 0i64;
    let with_offset = raw!(SYS_splice(reader.as_raw_fd(), &raw mut offset, b.as_raw_fd(), 0, 1, 0));
    expect_errno!(with_offset, libc::ESPIPE);
    check_eq!(splice(reader.as_raw_fd(), b.as_raw_fd(), 0, 0)?, 0);
    set_nonblock(reader.as_raw_fd())?;
    expect_errno!(splice(reader.as_raw_fd(), b.as_raw_fd(), 1, libc::SPLICE_F_NONBLOCK), libc::EAGAIN);
    let append = open(c"b", libc::O_WRONLY | libc::O_APPEND, 0)?;
    write(writer.as_raw_fd(), b"x")?;
    expect_errno!(splice(reader.as_raw_fd(), append.as_raw_fd(), 1, 0), libc::EINVAL);
    Ok(())
}

fn zero_length_operations() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    check_eq!(read(reader.as_raw_fd(), &mut [])?, 0);
    check_eq!(write(writer.as_raw_fd(), &[])?, 0);
    drop(reader);
    // Nothing to write is no broken pipe.
    check_eq!(write(writer.as_raw_fd(), &[])?, 0);
    Ok(())
}

fn partial_write_when_nearly_full() -> CaseResult {
    let (reader, writer) = pipe(libc::O_NONBLOCK)?;
    check_eq!(write(writer.as_raw_fd(), &[1; 61_440])?, 61_440);
    // More than PIPE_BUF may be written in part; PIPE_BUF and less not.
    check_eq!(write(writer.as_raw_fd(), &[2; 8192])?, 4096);
    expect_errno!(write(writer.as_raw_fd(), &[3; 4096]), libc::EAGAIN);
    read_some(reader.as_raw_fd(), 4096)?;
    check_eq!(write(writer.as_raw_fd(), &[3; 4096])?, 4096);
    Ok(())
}
