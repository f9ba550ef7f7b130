//! open(2): what each flag does, O_PATH, O_TMPFILE, creat(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::in_child;
use crate::sys::{fstat, open, owned, raw, read, stat, sys, write, zeroed};
use crate::util::{create, mkdir, symlink};
use std::ffi::CString;
use std::os::fd::AsRawFd;

topic!(open_flags: [
    lowest_descriptor_is_taken,
    trunc_empties_and_keeps_the_inode,
    creat_is_write_only_create_truncate,
    nofollow_of_a_symlink_is_eloop,
    created_mode_does_not_bind_the_opener,
    suid_and_sticky_bits_at_creation,
    directory_with_creat_is_einval,
    path_descriptor_cannot_read_or_write,
    path_descriptor_of_a_symlink,
    path_descriptor_needs_no_read_permission,
    reopen_by_proc_self_fd,
    tmpfile_has_no_name_until_linked,
    tmpfile_needs_write_access,
    getfl_shows_status_flags_only,
    access_mode_three_opens_for_ioctl_only,
    permission_bits_decide,
    append_ignores_the_offset_of_two_openers,
    open_of_fifo_without_reader_is_enxio,
    dev_null_zero_full,
]);

fn lowest_descriptor_is_taken() -> CaseResult {
    let a = create(c"a", b"")?;
    let b = create(c"b", b"")?;
    let low = a.as_raw_fd();
    check!(b.as_raw_fd() > low);
    drop(a);
    let c = create(c"c", b"")?;
    check_eq!(c.as_raw_fd(), low);
    Ok(())
}

fn trunc_empties_and_keeps_the_inode() -> CaseResult {
    let f = create(c"f", b"hello")?;
    let inode = fstat(f.as_raw_fd())?.st_ino;
    let again = open(c"f", libc::O_WRONLY | libc::O_TRUNC, 0)?;
    check_eq!(fstat(again.as_raw_fd())?.st_ino, inode);
    check_eq!(fstat(f.as_raw_fd())?.st_size, 0);
    check_eq!(read(f.as_raw_fd(), &mut [0; 4])?, 0);
    Ok(())
}

fn creat_is_write_only_create_truncate() -> CaseResult {
    create(c"f", b"hello")?;
    let f = raw!(SYS_creat(c"f".as_ptr(), 0o600)).map(owned)?;
    check_eq!(fstat(f.as_raw_fd())?.st_size, 0);
    // The mode is for new files only.
    check_eq!(fstat(f.as_raw_fd())?.st_mode & 0o7777, 0o644);
    expect_errno!(read(f.as_raw_fd(), &mut [0; 4]), libc::EBADF);
    write(f.as_raw_fd(), b"x")?;
    Ok(())
}

fn nofollow_of_a_symlink_is_eloop() -> CaseResult {
    create(c"f", b"")?;
    symlink(c"f", c"l")?;
    expect_errno!(open(c"l", libc::O_RDONLY | libc::O_NOFOLLOW, 0), libc::ELOOP);
    expect_errno!(open(c"l", libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW, 0o644), libc::ELOOP);
    open(c"f", libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
    mkdir(c"d")?;
    create(c"d/x", b"")?;
    symlink(c"d", c"m")?;
    // Only the last component is not followed.
    open(c"m/x", libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
    Ok(())
}

fn created_mode_does_not_bind_the_opener() -> CaseResult {
    sys!(chmod(c".".as_ptr(), 0o777))?;
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        let f = open(c"f", libc::O_CREAT | libc::O_RDWR, 0o400)?;
        write(f.as_raw_fd(), b"x")?;
        expect_errno!(open(c"f", libc::O_RDWR, 0), libc::EACCES);
        open(c"f", libc::O_RDONLY, 0)?;
        check_eq!(fstat(f.as_raw_fd())?.st_uid, 1000);
        Ok(())
    })
}

fn suid_and_sticky_bits_at_creation() -> CaseResult {
    sys!(umask(0))?;
    let f = open(c"f", libc::O_CREAT | libc::O_RDWR, 0o7777)?;
    check_eq!(fstat(f.as_raw_fd())?.st_mode & 0o7777, 0o7777);
    sys!(mkdir(c"d".as_ptr(), 0o7777))?;
    check_eq!(stat(c"d")?.st_mode & 0o7777, 0o1777);
    // A directory with the set-group-ID bit hands down its group, and to directories the bit.
    sys!(chown(c"d".as_ptr(), 0, 77))?;
    sys!(chmod(c"d".as_ptr(), 0o2777))?;
    create(c"d/f", b"")?;
    check_eq!(stat(c"d/f")?.st_gid, 77);
    mkdir(c"d/sub")?;
    check_eq!(stat(c"d/sub")?.st_gid, 77);
    check_eq!(stat(c"d/sub")?.st_mode & 0o7777, 0o2755);
    Ok(())
}

fn directory_with_creat_is_einval() -> CaseResult {
    let flags = libc::O_CREAT | libc::O_DIRECTORY | libc::O_RDWR;
    expect_errno!(open(c"new", flags, 0o644), libc::EINVAL);
    expect_errno!(stat(c"new"), libc::ENOENT);
    mkdir(c"d")?;
    expect_errno!(open(c"d", libc::O_RDWR | libc::O_DIRECTORY, 0), libc::EISDIR);
    expect_errno!(open(c"d", libc::O_RDONLY | libc::O_TRUNC, 0), libc::EISDIR);
    Ok(())
}

fn path_descriptor_cannot_read_or_write() -> CaseResult {
    create(c"f", b"data")?;
    // Flags but O_DIRECTORY, O_NOFOLLOW and O_CLOEXEC are not looked at.
    let p = open(c"f", libc::O_PATH | libc::O_RDWR | libc::O_TRUNC, 0)?;
    let fd = p.as_raw_fd();
    check_eq!(stat(c"f")?.st_size, 4);
    expect_errno!(read(fd, &mut [0; 4]), libc::EBADF);
    expect_errno!(write(fd, b"x"), libc::EBADF);
    expect_errno!(sys!(lseek(fd, 0, libc::SEEK_SET)), libc::EBADF);
    expect_errno!(sys!(ftruncate(fd, 0)), libc::EBADF);
    expect_errno!(sys!(fchmod(fd, 0o600)), libc::EBADF);
    expect_errno!(sys!(fchown(fd, 1, 1)), libc::EBADF);
    expect_errno!(sys!(ioctl(fd, libc::FIONREAD, 0)), libc::EBADF);
    expect_errno!(sys!(mmap(std::ptr::null_mut(), 4096, 1, libc::MAP_PRIVATE, fd, 0)), libc::EBADF);
    check_eq!(fstat(fd)?.st_size, 4);
    check_eq!(sys!(fcntl(fd, libc::F_GETFL))? as i32 & libc::O_PATH, libc::O_PATH);
    check_eq!(sys!(fcntl(fd, libc::F_GETFD))?, 0);
    owned(sys!(dup(fd))?);
    Ok(())
}

fn path_descriptor_of_a_symlink() -> CaseResult {
    symlink(c"nowhere", c"l")?;
    let p = open(c"l", libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    check_eq!(fstat(p.as_raw_fd())?.st_mode & libc::S_IFMT, libc::S_IFLNK);
    let mut st: libc::stat = zeroed();
    sys!(fstatat(p.as_raw_fd(), c"".as_ptr(), &mut st, libc::AT_EMPTY_PATH))?;
    check_eq!(st.st_size, 7);
    expect_errno!(raw!(SYS_openat(p.as_raw_fd(), c"x".as_ptr(), 0, 0)), libc::ENOTDIR);
    Ok(())
}

fn path_descriptor_needs_no_read_permission() -> CaseResult {
    create(c"f", b"")?;
    sys!(chmod(c"f".as_ptr(), 0))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(open(c"f", libc::O_RDONLY, 0), libc::EACCES);
        let p = open(c"f", libc::O_PATH, 0)?;
        check_eq!(fstat(p.as_raw_fd())?.st_uid, 0);
        let again = CString::new(format!("/proc/self/fd/{}", p.as_raw_fd()))?;
        expect_errno!(open(&again, libc::O_RDONLY, 0), libc::EACCES);
        Ok(())
    })
}

fn reopen_by_proc_self_fd() -> CaseResult {
    let f = create(c"f", b"data")?;
    let path = CString::new(format!("/proc/self/fd/{}", f.as_raw_fd()))?;
    sys!(unlink(c"f".as_ptr()))?;
    // A new open file description, from the start, even though the name is gone.
    let again = open(&path, libc::O_RDONLY, 0)?;
    let mut buf = [0u8; 8];
    check_eq!(read(again.as_raw_fd(), &mut buf)?, 4);
    expect_errno!(write(again.as_raw_fd(), b"x"), libc::EBADF);
    Ok(())
}

fn tmpfile_has_no_name_until_linked() -> CaseResult {
    let f = open(c".", libc::O_TMPFILE | libc::O_RDWR, 0o600)?;
    write(f.as_raw_fd(), b"secret")?;
    check_eq!(fstat(f.as_raw_fd())?.st_nlink, 0);
    check_eq!(std::fs::read_dir(".")?.count(), 0);
    let proc_path = CString::new(format!("/proc/self/fd/{}", f.as_raw_fd()))?;
    sys!(linkat(libc::AT_FDCWD, proc_path.as_ptr(), libc::AT_FDCWD, c"n".as_ptr(), libc::AT_SYMLINK_FOLLOW))?;
    check_eq!(stat(c"n")?.st_size, 6);
    check_eq!(fstat(f.as_raw_fd())?.st_nlink, 1);
    let hidden = open(c".", libc::O_TMPFILE | libc::O_RDWR | libc::O_EXCL, 0o600)?;
    let proc_path = CString::new(format!("/proc/self/fd/{}", hidden.as_raw_fd()))?;
    let flags = libc::AT_SYMLINK_FOLLOW;
    expect_errno!(
        sys!(linkat(libc::AT_FDCWD, proc_path.as_ptr(), libc::AT_FDCWD, c"m".as_ptr(), flags)),
        libc::ENOENT
    );
    Ok(())
}

fn tmpfile_needs_write_access() -> CaseResult {
    expect_errno!(open(c".", libc::O_TMPFILE, 0o600), libc::EINVAL);
    create(c"f", b"")?;
    expect_errno!(open(c"f", libc::O_TMPFILE | libc::O_RDWR, 0o600), libc::ENOTDIR);
    expect_errno!(open(c"missing", libc::O_TMPFILE | libc::O_RDWR, 0o600), libc::ENOENT);
    Ok(())
}

fn getfl_shows_status_flags_only() -> CaseResult {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_APPEND | libc::O_CLOEXEC;
    let f = open(c"f", flags | libc::O_NONBLOCK, 0o644)?;
    const LARGEFILE: i32 = 0o100_000;
    let shown = sys!(fcntl(f.as_raw_fd(), libc::F_GETFL))? as i32 & !LARGEFILE;
    check_eq!(shown, libc::O_RDWR | libc::O_APPEND | libc::O_NONBLOCK);
    check_eq!(sys!(fcntl(f.as_raw_fd(), libc::F_GETFD))?, i64::from(libc::FD_CLOEXEC));
    // The access mode cannot be changed.
    sys!(fcntl(f.as_raw_fd(), libc::F_SETFL, libc::O_WRONLY))?;
    let shown = sys!(fcntl(f.as_raw_fd(), libc::F_GETFL))? as i32 & !LARGEFILE;
    check_eq!(shown, libc::O_RDWR);
    Ok(())
}

fn access_mode_three_opens_for_ioctl_only() -> CaseResult {
    create(c"f", b"x")?;
    let f = open(c"f", 3, 0)?;
    expect_errno!(read(f.as_raw_fd(), &mut [0; 1]), libc::EBADF);
    expect_errno!(write(f.as_raw_fd(), b"x"), libc::EBADF);
    check_eq!(fstat(f.as_raw_fd())?.st_size, 1);
    Ok(())
}

fn permission_bits_decide() -> CaseResult {
    create(c"f", b"")?;
    sys!(chown(c"f".as_ptr(), 1000, 2000))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    let opens = |uid: u32, gid: u32, mode: u32, flags: i32, errno: i32| {
        sys!(chmod(c"f".as_ptr(), mode))?;
        in_child(|| {
            sys!(setgroups(0, std::ptr::null()))?;
            sys!(setresgid(gid, gid, gid))?;
            sys!(setresuid(uid, uid, uid))?;
            match errno {
                0 => drop(open(c"f", flags, 0)?),
                _ => expect_errno!(open(c"f", flags, 0), errno),
            }
            Ok(())
        })
    };
    opens(1000, 1, 0o400, libc::O_RDONLY, 0)?;
    opens(1000, 1, 0o400, libc::O_WRONLY, libc::EACCES)?;
    // The first class that fits decides, even when a later one would allow more.
    opens(1000, 2000, 0o077, libc::O_RDONLY, libc::EACCES)?;
    opens(3000, 2000, 0o707, libc::O_RDONLY, libc::EACCES)?;
    opens(3000, 2000, 0o040, libc::O_RDONLY, 0)?;
    opens(3000, 3000, 0o004, libc::O_RDONLY, 0)?;
    opens(3000, 3000, 0o004, libc::O_RDWR, libc::EACCES)?;
    opens(0, 0, 0, libc::O_RDWR, 0)
}

fn append_ignores_the_offset_of_two_openers() -> CaseResult {
    let a = open(c"f", libc::O_CREAT | libc::O_WRONLY | libc::O_APPEND, 0o644)?;
    let b = open(c"f", libc::O_WRONLY | libc::O_APPEND, 0)?;
    write(a.as_raw_fd(), b"one")?;
    write(b.as_raw_fd(), b"two")?;
    write(a.as_raw_fd(), b"three")?;
    check_eq!(std::fs::read("f")?, b"onetwothree");
    check_eq!(sys!(lseek(a.as_raw_fd(), 0, libc::SEEK_CUR))?, 11);
    // Linux appends even with pwrite(2), see its BUGS.
    check_eq!(sys!(pwrite(a.as_raw_fd(), b"!".as_ptr().cast(), 1, 0))?, 1);
    check_eq!(std::fs::read("f")?, b"onetwothree!");
    Ok(())
}

fn open_of_fifo_without_reader_is_enxio() -> CaseResult {
    sys!(mkfifo(c"p".as_ptr(), 0o600))?;
    check_eq!(stat(c"p")?.st_mode & libc::S_IFMT, libc::S_IFIFO);
    expect_errno!(open(c"p", libc::O_WRONLY | libc::O_NONBLOCK, 0), libc::ENXIO);
    let reader = open(c"p", libc::O_RDONLY | libc::O_NONBLOCK, 0)?;
    check_eq!(read(reader.as_raw_fd(), &mut [0; 1])?, 0);
    let writer = open(c"p", libc::O_WRONLY | libc::O_NONBLOCK, 0)?;
    expect_errno!(read(reader.as_raw_fd(), &mut [0; 1]), libc::EAGAIN);
    write(writer.as_raw_fd(), b"x")?;
    check_eq!(read(reader.as_raw_fd(), &mut [0; 1])?, 1);
    Ok(())
}

fn dev_null_zero_full() -> CaseResult {
    let null = open(c"/dev/null", libc::O_RDWR, 0)?;
    check_eq!(write(null.as_raw_fd(), &[1; 1000])?, 1000);
    check_eq!(read(null.as_raw_fd(), &mut [0; 10])?, 0);
    let zero = open(c"/dev/zero", libc::O_RDWR, 0)?;
    let mut buf = [7u8; 5000];
    check_eq!(read(zero.as_raw_fd(), &mut buf)?, 5000);
    check!(buf.iter().all(|b| *b == 0));
    check_eq!(write(zero.as_raw_fd(), &buf)?, 5000);
    let full = open(c"/dev/full", libc::O_RDWR, 0)?;
    expect_errno!(write(full.as_raw_fd(), b"x"), libc::ENOSPC);
    check_eq!(read(full.as_raw_fd(), &mut buf)?, 5000);
    let st = stat(c"/dev/null")?;
    check_eq!(st.st_mode & libc::S_IFMT, libc::S_IFCHR);
    check_eq!((libc::major(st.st_rdev), libc::minor(st.st_rdev)), (1, 3));
    Ok(())
}
