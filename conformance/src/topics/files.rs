//! open(2), read(2), write(2), lseek(2), link(2), rename(2), unlink(2), getdents64(2), truncate(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno, fail};
use crate::sys::{fstat, open, read, stat, sys, write};
use std::os::fd::AsRawFd;

topic!(files: [
    open_missing_is_enoent,
    open_excl_on_existing_is_eexist,
    open_directory_for_write_is_eisdir,
    open_through_file_is_enotdir,
    read_of_write_only_is_ebadf,
    write_then_read_back,
    append_goes_to_the_end,
    pread_does_not_move_the_offset,
    lseek_beyond_end_makes_a_hole,
    truncate_shrinks_and_zero_fills,
    unlink_keeps_open_file,
    hard_link_counts,
    rename_replaces,
    rename_directory_onto_file_is_enotdir,
    symlink_loop_is_eloop,
    getdents_lists_each_name_once,
    umask_masks_create_mode,
]);

fn open_missing_is_enoent() -> CaseResult {
    expect_errno!(open(c"missing", libc::O_RDONLY, 0), libc::ENOENT);
    expect_errno!(open(c"", libc::O_RDONLY, 0), libc::ENOENT);
    Ok(())
}

fn open_excl_on_existing_is_eexist() -> CaseResult {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    open(c"f", flags, 0o600)?;
    expect_errno!(open(c"f", flags, 0o600), libc::EEXIST);
    sys!(symlink(c"nowhere".as_ptr(), c"l".as_ptr()))?;
    expect_errno!(open(c"l", flags, 0o600), libc::EEXIST);
    Ok(())
}

fn open_directory_for_write_is_eisdir() -> CaseResult {
    sys!(mkdir(c"d".as_ptr(), 0o755))?;
    expect_errno!(open(c"d", libc::O_WRONLY, 0), libc::EISDIR);
    expect_errno!(open(c"d", libc::O_RDONLY | libc::O_CREAT, 0o644), libc::EISDIR);
    let dir = open(c"d", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    expect_errno!(read(dir.as_raw_fd(), &mut [0; 8]), libc::EISDIR);
    Ok(())
}

fn open_through_file_is_enotdir() -> CaseResult {
    open(c"f", libc::O_CREAT | libc::O_WRONLY, 0o644)?;
    expect_errno!(open(c"f/x", libc::O_RDONLY, 0), libc::ENOTDIR);
    expect_errno!(open(c"f/", libc::O_RDONLY, 0), libc::ENOTDIR);
    expect_errno!(open(c"f", libc::O_RDONLY | libc::O_DIRECTORY, 0), libc::ENOTDIR);
    Ok(())
}

fn read_of_write_only_is_ebadf() -> CaseResult {
    let f = open(c"f", libc::O_CREAT | libc::O_WRONLY, 0o644)?;
    expect_errno!(read(f.as_raw_fd(), &mut [0; 1]), libc::EBADF);
    let f = open(c"f", libc::O_RDONLY, 0)?;
    expect_errno!(write(f.as_raw_fd(), b"x"), libc::EBADF);
    expect_errno!(read(-1, &mut [0; 1]), libc::EBADF);
    Ok(())
}

fn write_then_read_back() -> CaseResult {
    let data: Vec<u8> = (0..200_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let f = open(c"f", libc::O_CREAT | libc::O_RDWR, 0o644)?;
    check_eq!(write(f.as_raw_fd(), &data)?, data.len());
    check_eq!(sys!(lseek(f.as_raw_fd(), 0, libc::SEEK_SET))?, 0);
    let mut back = vec![0; data.len() + 10];
    check_eq!(read(f.as_raw_fd(), &mut back)?, data.len());
    check!(back[..data.len()] == data[..], "the data differs");
    check_eq!(read(f.as_raw_fd(), &mut back)?, 0);
    check_eq!(fstat(f.as_raw_fd())?.st_size, data.len() as i64);
    Ok(())
}

fn append_goes_to_the_end() -> CaseResult {
    let f = open(c"f", libc::O_CREAT | libc::O_RDWR | libc::O_APPEND, 0o644)?;
    write(f.as_raw_fd(), b"abc")?;
    sys!(lseek(f.as_raw_fd(), 0, libc::SEEK_SET))?;
    write(f.as_raw_fd(), b"def")?;
    let mut buf = [0u8; 8];
    check_eq!(sys!(pread(f.as_raw_fd(), buf.as_mut_ptr().cast(), 8, 0))?, 6);
    check_eq!(&buf[..6], b"abcdef");
    Ok(())
}

fn pread_does_not_move_the_offset() -> CaseResult {
    let f = open(c"f", libc::O_CREAT | libc::O_RDWR, 0o644)?;
    write(f.as_raw_fd(), b"0123456789")?;
    let mut buf = [0u8; 4];
    check_eq!(sys!(pread(f.as_raw_fd(), buf.as_mut_ptr().cast(), 4, 2))?, 4);
    check_eq!(&buf, b"2345");
    check_eq!(sys!(lseek(f.as_raw_fd(), 0, libc::SEEK_CUR))?, 10);
    expect_errno!(sys!(pread(f.as_raw_fd(), buf.as_mut_ptr().cast(), 4, -1)), libc::EINVAL);
    Ok(())
}

fn lseek_beyond_end_makes_a_hole() -> CaseResult {
    let f = open(c"f", libc::O_CREAT | libc::O_RDWR, 0o644)?;
    check_eq!(sys!(lseek(f.as_raw_fd(), 10_000, libc::SEEK_END))?, 10_000);
    check_eq!(fstat(f.as_raw_fd())?.st_size, 0);
    write(f.as_raw_fd(), b"x")?;
    check_eq!(fstat(f.as_raw_fd())?.st_size, 10_001);
    let mut buf = [1u8; 100];
    check_eq!(sys!(pread(f.as_raw_fd(), buf.as_mut_ptr().cast(), 100, 500))?, 100);
    check!(buf.iter().all(|b| *b == 0), "the hole is not zero");
    expect_errno!(sys!(lseek(f.as_raw_fd(), -1, libc::SEEK_SET)), libc::EINVAL);
    expect_errno!(sys!(lseek(f.as_raw_fd(), 0, 99)), libc::EINVAL);
    Ok(())
}

fn truncate_shrinks_and_zero_fills() -> CaseResult {
    let f = open(c"f", libc::O_CREAT | libc::O_RDWR, 0o644)?;
    write(f.as_raw_fd(), &[7; 5000])?;
    sys!(ftruncate(f.as_raw_fd(), 10))?;
    check_eq!(fstat(f.as_raw_fd())?.st_size, 10);
    sys!(ftruncate(f.as_raw_fd(), 5000))?;
    let mut buf = [1u8; 5000];
    check_eq!(sys!(pread(f.as_raw_fd(), buf.as_mut_ptr().cast(), 5000, 0))?, 5000);
    check!(buf[..10].iter().all(|b| *b == 7) && buf[10..].iter().all(|b| *b == 0), "old data came back");
    expect_errno!(sys!(ftruncate(f.as_raw_fd(), -1)), libc::EINVAL);
    Ok(())
}

fn unlink_keeps_open_file() -> CaseResult {
    let f = open(c"f", libc::O_CREAT | libc::O_RDWR, 0o644)?;
    sys!(unlink(c"f".as_ptr()))?;
    expect_errno!(stat(c"f"), libc::ENOENT);
    write(f.as_raw_fd(), b"still")?;
    let st = fstat(f.as_raw_fd())?;
    check_eq!(st.st_nlink, 0);
    check_eq!(st.st_size, 5);
    sys!(mkdir(c"d".as_ptr(), 0o755))?;
    expect_errno!(sys!(unlink(c"d".as_ptr())), libc::EISDIR);
    Ok(())
}

fn hard_link_counts() -> CaseResult {
    open(c"a", libc::O_CREAT | libc::O_RDWR, 0o644)?;
    sys!(link(c"a".as_ptr(), c"b".as_ptr()))?;
    let (a, b) = (stat(c"a")?, stat(c"b")?);
    check_eq!(a.st_ino, b.st_ino);
    check_eq!(a.st_nlink, 2);
    sys!(unlink(c"a".as_ptr()))?;
    check_eq!(stat(c"b")?.st_nlink, 1);
    expect_errno!(sys!(link(c"b".as_ptr(), c"b".as_ptr())), libc::EEXIST);
    Ok(())
}

fn rename_replaces() -> CaseResult {
    write(open(c"a", libc::O_CREAT | libc::O_RDWR, 0o644)?.as_raw_fd(), b"a")?;
    write(open(c"b", libc::O_CREAT | libc::O_RDWR, 0o644)?.as_raw_fd(), b"bb")?;
    sys!(rename(c"a".as_ptr(), c"b".as_ptr()))?;
    expect_errno!(stat(c"a"), libc::ENOENT);
    check_eq!(stat(c"b")?.st_size, 1);
    Ok(())
}

fn rename_directory_onto_file_is_enotdir() -> CaseResult {
    sys!(mkdir(c"d".as_ptr(), 0o755))?;
    open(c"f", libc::O_CREAT | libc::O_RDWR, 0o644)?;
    expect_errno!(sys!(rename(c"d".as_ptr(), c"f".as_ptr())), libc::ENOTDIR);
    expect_errno!(sys!(rename(c"f".as_ptr(), c"d".as_ptr())), libc::EISDIR);
    expect_errno!(sys!(rename(c"d".as_ptr(), c"d/sub".as_ptr())), libc::EINVAL);
    Ok(())
}

fn symlink_loop_is_eloop() -> CaseResult {
    sys!(symlink(c"b".as_ptr(), c"a".as_ptr()))?;
    sys!(symlink(c"a".as_ptr(), c"b".as_ptr()))?;
    expect_errno!(open(c"a", libc::O_RDONLY, 0), libc::ELOOP);
    expect_errno!(open(c"a", libc::O_RDONLY | libc::O_NOFOLLOW, 0), libc::ELOOP);
    let mut buf = [0u8; 16];
    check_eq!(sys!(readlink(c"a".as_ptr(), buf.as_mut_ptr().cast(), 16))?, 1);
    check_eq!(buf[0], b'b');
    Ok(())
}

fn getdents_lists_each_name_once() -> CaseResult {
    for i in 0..500 {
        std::fs::write(format!("file-{i}"), b"")?;
    }
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(".")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let mut expected: Vec<String> = (0..500).map(|i| format!("file-{i}")).collect();
    expected.sort();
    if names != expected {
        fail!("{} names, expected {}", names.len(), expected.len());
    }
    Ok(())
}

fn umask_masks_create_mode() -> CaseResult {
    sys!(umask(0o027))?;
    open(c"f", libc::O_CREAT | libc::O_RDWR, 0o666)?;
    check_eq!(stat(c"f")?.st_mode & 0o7777, 0o640);
    sys!(mkdir(c"d".as_ptr(), 0o777))?;
    check_eq!(stat(c"d")?.st_mode & 0o7777, 0o750);
    check_eq!(sys!(umask(0))?, 0o027);
    Ok(())
}
