//! readv(2), preadv2(2), sendfile(2), copy_file_range(2), truncate(2), fallocate(2), SEEK_HOLE, limits of files.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::sys::{SysError, fstat, open, pipe, raw, sys};
use crate::util::{create, pread, read_some};
use std::os::fd::AsRawFd;

topic!(rw: [
    vectors_gather_and_scatter,
    vector_checks,
    vector_with_a_bad_part_is_short,
    preadv_and_pwritev_take_offsets,
    pwritev2_append_and_dsync_flags,
    preadv2_of_offset_minus_one_moves,
    sendfile_between_files_and_to_a_pipe,
    sendfile_checks,
    copy_file_range_copies,
    copy_file_range_checks,
]);

fn iov(part: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: part.as_ptr() as *mut _, iov_len: part.len() }
}

fn vectors_gather_and_scatter() -> CaseResult {
    let f = create(c"f", b"")?;
    let parts = [iov(b"one"), iov(b""), iov(b"twelve"), iov(b"!")];
    check_eq!(raw!(SYS_writev(f.as_raw_fd(), parts.as_ptr(), 4))?, 10);
    let (mut a, mut b) = ([0u8; 4], [0u8; 100]);
    let into = [
        libc::iovec { iov_base: a.as_mut_ptr().cast(), iov_len: 4 },
        libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 100 },
    ];
    sys!(lseek(f.as_raw_fd(), 0, libc::SEEK_SET))?;
    check_eq!(raw!(SYS_readv(f.as_raw_fd(), into.as_ptr(), 2))?, 10);
    check_eq!((&a, &b[..6]), (b"onet", b"welve!".as_slice()));
    check_eq!(raw!(SYS_readv(f.as_raw_fd(), into.as_ptr(), 0))?, 0);
    Ok(())
}

fn vector_checks() -> CaseResult {
    let f = create(c"f", b"")?;
    let parts = vec![iov(b"x"); 1025];
    expect_errno!(raw!(SYS_writev(f.as_raw_fd(), parts.as_ptr(), 1025)), libc::EINVAL);
    check_eq!(raw!(SYS_writev(f.as_raw_fd(), parts.as_ptr(), 1024))?, 1024);
    expect_errno!(raw!(SYS_writev(f.as_raw_fd(), parts.as_ptr(), -1)), libc::EINVAL);
    expect_errno!(raw!(SYS_writev(f.as_raw_fd(), 8, 1)), libc::EFAULT);
    let huge = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: usize::MAX }];
    expect_errno!(raw!(SYS_writev(f.as_raw_fd(), huge.as_ptr(), 1)), libc::EINVAL);
    expect_errno!(raw!(SYS_preadv(f.as_raw_fd(), parts.as_ptr(), 1, -1, 0)), libc::EINVAL);
    Ok(())
}

fn vector_with_a_bad_part_is_short() -> CaseResult {
    let f = create(c"f", b"")?;
    let bad = libc::iovec { iov_base: 8 as *mut _, iov_len: 5 };
    let parts = [iov(b"good"), bad, iov(b"never")];
    check_eq!(raw!(SYS_writev(f.as_raw_fd(), parts.as_ptr(), 3))?, 4);
    check_eq!(fstat(f.as_raw_fd())?.st_size, 4);
    expect_errno!(raw!(SYS_writev(f.as_raw_fd(), [bad].as_ptr(), 1)), libc::EFAULT);
    check_eq!(sys!(lseek(f.as_raw_fd(), 0, libc::SEEK_CUR))?, 4);
    Ok(())
}

fn preadv_and_pwritev_take_offsets() -> CaseResult {
    let f = create(c"f", b"0123456789")?;
    check_eq!(raw!(SYS_pwritev(f.as_raw_fd(), [iov(b"ab"), iov(b"c")].as_ptr(), 2, 4, 0))?, 3);
    check_eq!(pread(f.as_raw_fd(), 0, 20)?, b"0123abc789");
    check_eq!(sys!(lseek(f.as_raw_fd(), 0, libc::SEEK_CUR))?, 10);
    let mut buf = [0u8; 3];
    let into = [libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: 3 }];
    check_eq!(raw!(SYS_preadv(f.as_raw_fd(), into.as_ptr(), 1, 3, 0))?, 3);
    check_eq!(&buf, b"3ab");
    Ok(())
}

fn pwritev2_append_and_dsync_flags() -> CaseResult {
    const APPEND: i32 = 0x10;
    const DSYNC: i32 = 2;
    let f = create(c"f", b"start")?;
    let part = [iov(b"+end")];
    check_eq!(raw!(SYS_pwritev2(f.as_raw_fd(), part.as_ptr(), 1, 0, 0, APPEND))?, 4);
    check_eq!(pread(f.as_raw_fd(), 0, 20)?, b"start+end");
    check_eq!(raw!(SYS_pwritev2(f.as_raw_fd(), part.as_ptr(), 1, 0, 0, DSYNC))?, 4);
    check_eq!(pread(f.as_raw_fd(), 0, 20)?, b"+endt+end");
    expect_errno!(raw!(SYS_pwritev2(f.as_raw_fd(), part.as_ptr(), 1, 0, 0, 0x4000)), libc::EOPNOTSUPP);
    Ok(())
}

fn preadv2_of_offset_minus_one_moves() -> CaseResult {
    const NOWAIT: i32 = 8;
    let f = create(c"f", b"0123456789")?;
    sys!(lseek(f.as_raw_fd(), 2, libc::SEEK_SET))?;
    let mut buf = [0u8; 3];
    let into = [libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: 3 }];
    check_eq!(raw!(SYS_preadv2(f.as_raw_fd(), into.as_ptr(), 1, -1, -1, 0))?, 3);
    check_eq!((&buf, sys!(lseek(f.as_raw_fd(), 0, libc::SEEK_CUR))?), (b"234", 5));
    let (reader, _writer) = pipe(0)?;
    let outcome = raw!(SYS_preadv2(reader.as_raw_fd(), into.as_ptr(), 1, -1, -1, NOWAIT));
    check!(outcome.is_err_and(|e| e.errno == libc::EAGAIN || e.errno == libc::EOPNOTSUPP));
    Ok(())
}

fn sendfile_between_files_and_to_a_pipe() -> CaseResult {
    let from = create(c"from", b"0123456789")?;
    let to = create(c"to", b"")?;
    let mut offset = 3i64;
    check_eq!(raw!(SYS_sendfile(to.as_raw_fd(), from.as_raw_fd(), &raw mut offset, 100))?, 7);
    check_eq!(offset, 10);
    check_eq!(sys!(lseek(from.as_raw_fd(), 0, libc::SEEK_CUR))?, 10);
    check_eq!(std::fs::read("to")?, b"3456789");
    sys!(lseek(from.as_raw_fd(), 0, libc::SEEK_SET))?;
    let (reader, writer) = pipe(0)?;
    check_eq!(raw!(SYS_sendfile(writer.as_raw_fd(), from.as_raw_fd(), 0, 4))?, 4);
    check_eq!(read_some(reader.as_raw_fd(), 10)?, b"0123");
    check_eq!(sys!(lseek(from.as_raw_fd(), 0, libc::SEEK_CUR))?, 4);
    Ok(())
}

fn sendfile_checks() -> CaseResult {
    let from = create(c"from", b"0123456789")?;
    let reader = open(c"from", libc::O_RDONLY, 0)?;
    expect_errno!(raw!(SYS_sendfile(reader.as_raw_fd(), from.as_raw_fd(), 0, 1)), libc::EBADF);
    let append = open(c"from", libc::O_WRONLY | libc::O_APPEND, 0)?;
    expect_errno!(raw!(SYS_sendfile(append.as_raw_fd(), reader.as_raw_fd(), 0, 1)), libc::EINVAL);
    let to = create(c"to", b"")?;
    let mut negative = -1i64;
    let outcome = raw!(SYS_sendfile(to.as_raw_fd(), from.as_raw_fd(), &raw mut negative, 1));
    expect_errno!(outcome, libc::EINVAL);
    expect_errno!(raw!(SYS_sendfile(to.as_raw_fd(), from.as_raw_fd(), 8, 1)), libc::EFAULT);
    check_eq!(raw!(SYS_sendfile(to.as_raw_fd(), from.as_raw_fd(), 0, 0))?, 0);
    Ok(())
}

fn copy_range(from: i32, at: i64, to: i32, to_at: i64, len: usize) -> Result<i64, SysError> {
    let (mut at, mut to_at) = (at, to_at);
    raw!(SYS_copy_file_range(from, &raw mut at, to, &raw mut to_at, len, 0))
}

fn copy_file_range_copies() -> CaseResult {
    let from = create(c"from", b"0123456789")?;
    let to = create(c"to", b"..........")?;
    check_eq!(copy_range(from.as_raw_fd(), 2, to.as_raw_fd(), 5, 3)?, 3);
    check_eq!(std::fs::read("to")?, b".....234..");
    check_eq!(copy_range(from.as_raw_fd(), 8, to.as_raw_fd(), 10, 100)?, 2);
    check_eq!(std::fs::read("to")?, b".....234..89");
    check_eq!(copy_range(from.as_raw_fd(), 50, to.as_raw_fd(), 0, 10)?, 0);
    // Without offsets, both positions move.
    sys!(lseek(from.as_raw_fd(), 0, libc::SEEK_SET))?;
    sys!(lseek(to.as_raw_fd(), 0, libc::SEEK_SET))?;
    check_eq!(raw!(SYS_copy_file_range(from.as_raw_fd(), 0, to.as_raw_fd(), 0, 4, 0))?, 4);
    check_eq!(sys!(lseek(from.as_raw_fd(), 0, libc::SEEK_CUR))?, 4);
    check_eq!(sys!(lseek(to.as_raw_fd(), 0, libc::SEEK_CUR))?, 4);
    check_eq!(copy_range(from.as_raw_fd(), 0, from.as_raw_fd(), 5, 5)?, 5);
    check_eq!(std::fs::read("from")?, b"0123401234");
    Ok(())
}

fn copy_file_range_checks() -> CaseResult {
    let from = create(c"from", b"0123456789")?;
    let to = create(c"to", b"")?;
    let (f, t) = (from.as_raw_fd(), to.as_raw_fd());
    expect_errno!(raw!(SYS_copy_file_range(f, 0, t, 0, 1, 1)), libc::EINVAL);
    expect_errno!(copy_range(f, 0, f, 3, 5), libc::EINVAL);
    let reader = open(c"to", libc::O_RDONLY, 0)?;
    expect_errno!(copy_range(f, 0, reader.as_raw_fd(), 0, 1), libc::EBADF);
    let append = open(c"to", libc::O_WRONLY | libc::O_APPEND, 0)?;
    expect_errno!(copy_range(f, 0, append.as_raw_fd(), 0, 1), libc::EBADF);
    let dir = open(c".", libc::O_RDONLY, 0)?;
    expect_errno!(copy_range(dir.as_raw_fd(), 0, t, 0, 1), libc::EISDIR);
    let (pipe_reader, _writer) = pipe(0)?;
    expect_errno!(raw!(SYS_copy_file_range(pipe_reader.as_raw_fd(), 0, t, 0, 1, 0)), libc::EINVAL);
    Ok(())
}
