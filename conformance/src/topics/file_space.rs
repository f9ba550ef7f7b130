//! truncate(2), fallocate(2), SEEK_HOLE, sizes and their limits.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, wait_for};
use crate::memory::{PAGE, RW, anonymous, poke, protect};
use crate::signal::{count_signal, counted, set_action};
use crate::sys::{fstat, open, pipe, raw, stat, sys, write};
use crate::util::{create, pread, read_some};
use std::os::fd::AsRawFd;

topic!(file_space: [
    truncate_by_name_and_descriptor,
    truncate_permissions,
    fallocate_grows_and_keeps_size,
    fallocate_punches_and_zeroes,
    fallocate_checks,
    seek_data_and_seek_hole,
    seek_overflow,
    file_size_limit_is_sigxfsz,
    largest_offsets,
    read_at_and_behind_the_end,
    write_of_two_gigabytes_is_cut,
    concurrent_appends_lose_nothing,
    write_extends_with_zeroes,
    fadvise_and_readahead,
    sync_calls,
]);

fn truncate_by_name_and_descriptor() -> CaseResult {
    let f = create(c"f", b"0123456789")?;
    sys!(truncate(c"f".as_ptr(), 4))?;
    check_eq!(fstat(f.as_raw_fd())?.st_size, 4);
    sys!(truncate(c"f".as_ptr(), 6))?;
    check_eq!(std::fs::read("f")?, b"0123\0\0");
    expect_errno!(sys!(truncate(c"missing".as_ptr(), 0)), libc::ENOENT);
    expect_errno!(sys!(truncate(c".".as_ptr(), 0)), libc::EISDIR);
    expect_errno!(sys!(truncate(c"f".as_ptr(), -1)), libc::EINVAL);
    let reader = open(c"f", libc::O_RDONLY, 0)?;
    expect_errno!(sys!(ftruncate(reader.as_raw_fd(), 0)), libc::EINVAL);
    let dir = open(c".", libc::O_RDONLY, 0)?;
    expect_errno!(sys!(ftruncate(dir.as_raw_fd(), 0)), libc::EINVAL);
    // The position does not move, and a write behind the new end leaves a hole.
    sys!(ftruncate(f.as_raw_fd(), 0))?;
    write(f.as_raw_fd(), b"x")?;
    check_eq!(stat(c"f")?.st_size, 11);
    Ok(())
}

fn truncate_permissions() -> CaseResult {
    create(c"f", b"data")?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(sys!(truncate(c"f".as_ptr(), 0)), libc::EACCES);
        expect_errno!(open(c"f", libc::O_RDONLY | libc::O_TRUNC, 0), libc::EACCES);
        check_eq!(stat(c"f")?.st_size, 4);
        Ok(())
    })
}

fn fallocate_grows_and_keeps_size() -> CaseResult {
    let f = create(c"f", b"data")?;
    let fd = f.as_raw_fd();
    sys!(fallocate(fd, 0, 0, 10_000))?;
    check_eq!(fstat(fd)?.st_size, 10_000);
    check!(fstat(fd)?.st_blocks >= 20);
    check_eq!(pread(fd, 0, 6)?, b"data\0\0");
    sys!(fallocate(fd, libc::FALLOC_FL_KEEP_SIZE, 0, 100_000))?;
    check_eq!(fstat(fd)?.st_size, 10_000);
    sys!(fallocate(fd, 0, 100, 10))?;
    check_eq!(fstat(fd)?.st_size, 10_000);
    Ok(())
}

fn fallocate_punches_and_zeroes() -> CaseResult {
    let f = create(c"f", &[7; 3 * PAGE])?;
    let fd = f.as_raw_fd();
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    sys!(fallocate(fd, punch, 100, PAGE as i64 * 2))?;
    let data = pread(fd, 0, 3 * PAGE)?;
    check!(data[..100].iter().all(|b| *b == 7) && data[100 + 2 * PAGE..].iter().all(|b| *b == 7));
    check!(data[100..100 + 2 * PAGE].iter().all(|b| *b == 0));
    check_eq!(fstat(fd)?.st_size, 3 * PAGE as i64);
    check_eq!(fstat(fd)?.st_blocks, 16);
    Ok(())
}

fn fallocate_checks() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    expect_errno!(sys!(fallocate(fd, 0, -1, 10)), libc::EINVAL);
    expect_errno!(sys!(fallocate(fd, 0, 0, 0)), libc::EINVAL);
    expect_errno!(sys!(fallocate(fd, 0, i64::MAX, 10)), libc::EFBIG);
    expect_errno!(sys!(fallocate(fd, libc::FALLOC_FL_PUNCH_HOLE, 0, 10)), libc::EOPNOTSUPP);
    expect_errno!(sys!(fallocate(fd, 0x4000_0000, 0, 10)), libc::EOPNOTSUPP);
    let reader = open(c"f", libc::O_RDONLY, 0)?;
    expect_errno!(sys!(fallocate(reader.as_raw_fd(), 0, 0, 10)), libc::EBADF);
    let (_pipe_reader, writer) = pipe(0)?;
    expect_errno!(sys!(fallocate(writer.as_raw_fd(), 0, 0, 10)), libc::ESPIPE);
    Ok(())
}

fn seek_data_and_seek_hole() -> CaseResult {
    const MB: i64 = 1 << 20;
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    sys!(pwrite(fd, [1u8; PAGE].as_ptr().cast(), PAGE, MB))?;
    sys!(ftruncate(fd, 2 * MB))?;
    let seek = |offset: i64, whence: i32| sys!(lseek(fd, offset, whence));
    check_eq!(seek(0, libc::SEEK_HOLE)?, 0);
    check_eq!(seek(0, libc::SEEK_DATA)?, MB);
    check_eq!(seek(MB + 5, libc::SEEK_DATA)?, MB + 5);
    check_eq!(seek(MB, libc::SEEK_HOLE)?, MB + PAGE as i64);
    expect_errno!(seek(MB + PAGE as i64, libc::SEEK_DATA), libc::ENXIO);
    check_eq!(seek(MB + PAGE as i64 + 1, libc::SEEK_HOLE)?, MB + PAGE as i64 + 1);
    for whence in [libc::SEEK_DATA, libc::SEEK_HOLE] {
        expect_errno!(seek(2 * MB, whence), libc::ENXIO);
        expect_errno!(seek(-1, whence), libc::ENXIO);
    }
    Ok(())
}

fn seek_overflow() -> CaseResult {
    let f = create(c"f", b"0123456789")?;
    let fd = f.as_raw_fd();
    sys!(lseek(fd, 5, libc::SEEK_SET))?;
    expect_errno!(sys!(lseek(fd, -6, libc::SEEK_CUR)), libc::EINVAL);
    expect_errno!(sys!(lseek(fd, -11, libc::SEEK_END)), libc::EINVAL);
    check!(sys!(lseek(fd, i64::MAX, libc::SEEK_CUR)).is_err_and(|e| e.errno == libc::EINVAL || e.errno == libc::EOVERFLOW));
    check_eq!(sys!(lseek(fd, 0, libc::SEEK_CUR))?, 5);
    check_eq!(sys!(lseek(fd, -10, libc::SEEK_END))?, 0);
    Ok(())
}

fn file_size_limit_is_sigxfsz() -> CaseResult {
    in_child(|| {
        count_signal(libc::SIGXFSZ, 0)?;
        let f = create(c"f", b"")?;
        let limit = libc::rlimit { rlim_cur: 100, rlim_max: 100 };
        sys!(setrlimit(libc::RLIMIT_FSIZE, &limit))?;
        check_eq!(write(f.as_raw_fd(), &[1; 150])?, 100);
        check_eq!(counted(), 0);
        expect_errno!(write(f.as_raw_fd(), b"x"), libc::EFBIG);
        check_eq!(counted(), 1);
        expect_errno!(sys!(ftruncate(f.as_raw_fd(), 101)), libc::EFBIG);
        check_eq!(counted(), 2);
        set_action(libc::SIGXFSZ, libc::SIG_IGN, 0, &[])?;
        expect_errno!(write(f.as_raw_fd(), b"x"), libc::EFBIG);
        let child = fork_child(|| {
            let _ = set_action(libc::SIGXFSZ, libc::SIG_DFL, 0, &[]);
            i32::from(write(f.as_raw_fd(), b"x").is_ok())
        })?;
        check_eq!(wait_for(child)?, Ended::Killed(libc::SIGXFSZ));
        // Pipes have no size.
        let (_reader, writer) = pipe(0)?;
        check_eq!(write(writer.as_raw_fd(), &[1; 200])?, 200);
        Ok(())
    })
}

fn largest_offsets() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    expect_errno!(sys!(pwrite(fd, b"x".as_ptr().cast(), 1, i64::MAX)), libc::EINVAL);
    check_eq!(pread(fd, i64::MAX - 4096, 10)?, b"");
    sys!(ftruncate(fd, 1 << 40))?;
    check_eq!(fstat(fd)?.st_size, 1 << 40);
    sys!(pwrite(fd, b"end".as_ptr().cast(), 3, 1 << 40))?;
    check_eq!(pread(fd, (1 << 40) - 1, 10)?, b"\0end");
    check!(fstat(fd)?.st_blocks < 1000);
    Ok(())
}

fn read_at_and_behind_the_end() -> CaseResult {
    let f = create(c"f", b"12345")?;
    check_eq!(pread(f.as_raw_fd(), 3, 100)?, b"45");
    check_eq!(pread(f.as_raw_fd(), 5, 100)?, b"");
    check_eq!(pread(f.as_raw_fd(), 500, 100)?, b"");
    sys!(lseek(f.as_raw_fd(), 1000, libc::SEEK_SET))?;
    check_eq!(read_some(f.as_raw_fd(), 10)?, b"");
    check_eq!(sys!(lseek(f.as_raw_fd(), 0, libc::SEEK_CUR))?, 1000);
    Ok(())
}

fn write_of_two_gigabytes_is_cut() -> CaseResult {
    // One page, many times: the count is what is looked at.
    let null = open(c"/dev/null", libc::O_WRONLY, 0)?;
    let memory = anonymous(1, RW)?;
    poke(memory, 0, 1);
    protect(memory, PAGE, libc::PROT_READ)?;
    check_eq!(raw!(SYS_write(null.as_raw_fd(), memory, PAGE))?, PAGE as i64);
    let count = raw!(SYS_write(null.as_raw_fd(), memory, 3usize << 30));
    check!(matches!(count, Ok(0x7fff_f000)) || count.is_err_and(|e| e.errno == libc::EFAULT), "{count:?}");
    expect_errno!(raw!(SYS_write(null.as_raw_fd(), memory, usize::MAX)), libc::EFAULT);
    Ok(())
}

fn concurrent_appends_lose_nothing() -> CaseResult {
    create(c"f", b"")?;
    let mut children = Vec::new();
    for id in 0..4u8 {
        children.push(fork_child(|| {
            let Ok(f) = open(c"f", libc::O_WRONLY | libc::O_APPEND, 0) else { return 1 };
            i32::from((0..100).any(|_| write(f.as_raw_fd(), &[b'a' + id; 37]) != Ok(37)))
        })?);
    }
    for child in children {
        check_eq!(wait_for(child)?, Ended::Exited(0));
    }
    let data = std::fs::read("f")?;
    check_eq!(data.len(), 4 * 100 * 37);
    check!(data.chunks(37).all(|chunk| chunk.iter().all(|b| *b == chunk[0])));
    Ok(())
}

fn write_extends_with_zeroes() -> CaseResult {
    let f = create(c"f", &[9; 10])?;
    sys!(ftruncate(f.as_raw_fd(), 3))?;
    sys!(pwrite(f.as_raw_fd(), b"x".as_ptr().cast(), 1, 8))?;
    check_eq!(std::fs::read("f")?, [9, 9, 9, 0, 0, 0, 0, 0, b'x']);
    Ok(())
}

fn fadvise_and_readahead() -> CaseResult {
    let f = create(c"f", b"data")?;
    for advice in 0..6 {
        raw!(SYS_fadvise64(f.as_raw_fd(), 0, 0, advice))?;
    }
    expect_errno!(raw!(SYS_fadvise64(f.as_raw_fd(), 0, 0, 99)), libc::EINVAL);
    expect_errno!(raw!(SYS_fadvise64(-1, 0, 0, 0)), libc::EBADF);
    let (reader, _writer) = pipe(0)?;
    expect_errno!(raw!(SYS_fadvise64(reader.as_raw_fd(), 0, 0, 0)), libc::ESPIPE);
    Ok(())
}

fn sync_calls() -> CaseResult {
    let f = create(c"f", b"data")?;
    raw!(SYS_sync_file_range(f.as_raw_fd(), 0, 0, 0))?;
    expect_errno!(raw!(SYS_sync_file_range(f.as_raw_fd(), 0, 0, 0x100)), libc::EINVAL);
    raw!(SYS_syncfs(f.as_raw_fd()))?;
    expect_errno!(raw!(SYS_syncfs(-1)), libc::EBADF);
    let (reader, _writer) = pipe(0)?;
    expect_errno!(raw!(SYS_fsync(reader.as_raw_fd())), libc::EINVAL);
    Ok(())
}
