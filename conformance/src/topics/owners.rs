//! chown(2), utimensat(2), access(2), statfs(2), and times.

use super::attrs::{NOBODY, lstat, as_nobody};
use crate::case::{CaseResult, Failure, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::in_child;
use crate::sys::{fstat, open, raw, read, stat, sys, write, zeroed};
use crate::util::{create, mkdir, symlink, timespec};
use std::ffi::CStr;
use std::os::fd::AsRawFd;

topic!(owners: [
    chown_changes_owners_and_minus_one_keeps,
    chown_clears_setuid_bits,
    chown_by_a_stranger_is_eperm,
    lchown_changes_the_symlink,
    write_clears_setuid_for_a_stranger,
    utimensat_sets_now_and_omits,
    utimensat_of_a_descriptor_and_a_symlink,
    utimensat_permissions,
    write_moves_mtime_and_ctime,
    directory_times_follow_its_entries,
    access_asks_for_the_real_user,
    access_of_root_needs_an_execute_bit,
    faccessat2_eaccess_asks_for_the_effective_user,
    fchmod_and_fchown_of_unlinked_file,
    statfs_of_tmpfs,
    device_numbers_differ_between_mounts,
    files_of_the_root_keep_their_owner_and_birth,
]);

fn chown_changes_owners_and_minus_one_keeps() -> CaseResult {
    let f = create(c"f", b"")?;
    sys!(chown(c"f".as_ptr(), 12, 34))?;
    check_eq!((stat(c"f")?.st_uid, stat(c"f")?.st_gid), (12, 34));
    sys!(chown(c"f".as_ptr(), u32::MAX, 56))?;
    check_eq!((stat(c"f")?.st_uid, stat(c"f")?.st_gid), (12, 56));
    sys!(fchown(f.as_raw_fd(), 78, u32::MAX))?;
    check_eq!((stat(c"f")?.st_uid, stat(c"f")?.st_gid), (78, 56));
    sys!(fchownat(f.as_raw_fd(), c"".as_ptr(), 1, 2, libc::AT_EMPTY_PATH))?;
    check_eq!((stat(c"f")?.st_uid, stat(c"f")?.st_gid), (1, 2));
    expect_errno!(sys!(fchownat(f.as_raw_fd(), c"".as_ptr(), 1, 2, 0)), libc::ENOENT);
    expect_errno!(sys!(fchownat(libc::AT_FDCWD, c"f".as_ptr(), 1, 2, 0x2)), libc::EINVAL);
    Ok(())
}

fn chown_clears_setuid_bits() -> CaseResult {
    create(c"f", b"")?;
    sys!(chmod(c"f".as_ptr(), 0o6755))?;
    sys!(chown(c"f".as_ptr(), 1, 1))?;
    check_eq!(stat(c"f")?.st_mode & 0o7777, 0o755);
    // Without the group's execute bit, set-group-ID is not one, but it is cleared only by who lacks CAP_FSETID.
    mkdir(c"d")?;
    sys!(chmod(c"d".as_ptr(), 0o6755))?;
    sys!(chown(c"d".as_ptr(), 1, 1))?;
    check_eq!(stat(c"d")?.st_mode & 0o7777, 0o6755);
    Ok(())
}

fn chown_by_a_stranger_is_eperm() -> CaseResult {
    create(c"f", b"")?;
    create(c"mine", b"")?;
    sys!(chown(c"mine".as_ptr(), NOBODY, NOBODY))?;
    as_nobody(|| {
        expect_errno!(sys!(chown(c"f".as_ptr(), NOBODY, u32::MAX)), libc::EPERM);
        expect_errno!(sys!(chown(c"mine".as_ptr(), 0, u32::MAX)), libc::EPERM);
        expect_errno!(sys!(chown(c"mine".as_ptr(), u32::MAX, 77)), libc::EPERM);
        sys!(chown(c"mine".as_ptr(), NOBODY, NOBODY))?;
        sys!(chown(c"mine".as_ptr(), u32::MAX, u32::MAX))?;
        Ok(())
    })
}

fn lchown_changes_the_symlink() -> CaseResult {
    create(c"f", b"")?;
    symlink(c"f", c"l")?;
    sys!(lchown(c"l".as_ptr(), 5, 6))?;
    check_eq!((lstat(c"l")?.st_uid, lstat(c"l")?.st_gid), (5, 6));
    check_eq!(stat(c"f")?.st_uid, 0);
    Ok(())
}

fn write_clears_setuid_for_a_stranger() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    sys!(fchmod(fd, 0o6777))?;
    write(fd, b"root keeps them")?;
    check_eq!(fstat(fd)?.st_mode & 0o7777, 0o6777);
    as_nobody(|| {
        write(fd, b"x")?;
        check_eq!(fstat(fd)?.st_mode & 0o7777, 0o777);
        Ok(())
    })?;
    sys!(fchmod(fd, 0o6777))?;
    as_nobody(|| {
        sys!(ftruncate(fd, 1))?;
        check_eq!(fstat(fd)?.st_mode & 0o7777, 0o777);
        Ok(())
    })
}

fn utimensat_sets_now_and_omits() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    let set = |a: libc::timespec, m: libc::timespec| {
        raw!(SYS_utimensat(libc::AT_FDCWD, c"f".as_ptr(), [a, m].as_ptr(), 0))
    };
    set(timespec(1_000_000_007), timespec(2_000_000_009))?;
    let st = fstat(fd)?;
    check_eq!((st.st_atime, st.st_atime_nsec, st.st_mtime, st.st_mtime_nsec), (1, 7, 2, 9));
    let omit = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT };
    let now = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
    set(omit, timespec(5_000_000_000))?;
    check_eq!((fstat(fd)?.st_atime, fstat(fd)?.st_mtime), (1, 5));
    set(now, omit)?;
    check!(fstat(fd)?.st_atime > 1_000_000_000);
    check_eq!(fstat(fd)?.st_mtime, 5);
    raw!(SYS_utimensat(libc::AT_FDCWD, c"f".as_ptr(), 0, 0))?;
    check!(fstat(fd)?.st_mtime > 1_000_000_000);
    expect_errno!(set(libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }, omit), libc::EINVAL);
    expect_errno!(set(libc::timespec { tv_sec: 0, tv_nsec: -1 }, omit), libc::EINVAL);
    set(libc::timespec { tv_sec: -5, tv_nsec: 0 }, omit)?;
    check_eq!(fstat(fd)?.st_atime, -5);
    Ok(())
}

fn utimensat_of_a_descriptor_and_a_symlink() -> CaseResult {
    let f = create(c"f", b"")?;
    symlink(c"f", c"l")?;
    let times = [timespec(3_000_000_000), timespec(4_000_000_000)];
    raw!(SYS_utimensat(f.as_raw_fd(), 0, times.as_ptr(), 0))?;
    check_eq!(stat(c"f")?.st_mtime, 4);
    let times = [timespec(6_000_000_000), timespec(7_000_000_000)];
    raw!(SYS_utimensat(libc::AT_FDCWD, c"l".as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW))?;
    check_eq!((lstat(c"l")?.st_mtime, stat(c"f")?.st_mtime), (7, 4));
    expect_errno!(raw!(SYS_utimensat(-1, 0, times.as_ptr(), 0)), libc::EBADF);
    expect_errno!(raw!(SYS_utimensat(libc::AT_FDCWD, c"f".as_ptr(), times.as_ptr(), 1)), libc::EINVAL);
    Ok(())
}

fn utimensat_permissions() -> CaseResult {
    create(c"f", b"")?;
    sys!(chmod(c"f".as_ptr(), 0o666))?;
    create(c"closed", b"")?;
    as_nobody(|| {
        let times = [timespec(1), timespec(2)];
        expect_errno!(raw!(SYS_utimensat(libc::AT_FDCWD, c"f".as_ptr(), times.as_ptr(), 0)), libc::EPERM);
        // The present time may be set by whoever may write.
        raw!(SYS_utimensat(libc::AT_FDCWD, c"f".as_ptr(), 0, 0))?;
        expect_errno!(raw!(SYS_utimensat(libc::AT_FDCWD, c"closed".as_ptr(), 0, 0)), libc::EACCES);
        Ok(())
    })
}

fn write_moves_mtime_and_ctime() -> CaseResult {
    let f = create(c"f", b"")?;
    let times = [timespec(1), timespec(2)];
    sys!(futimens(f.as_raw_fd(), times.as_ptr()))?;
    write(f.as_raw_fd(), b"x")?;
    let st = fstat(f.as_raw_fd())?;
    check!(st.st_mtime > 1_000_000_000 && st.st_ctime >= st.st_mtime);
    check_eq!(st.st_atime, 0);
    sys!(futimens(f.as_raw_fd(), times.as_ptr()))?;
    sys!(ftruncate(f.as_raw_fd(), 0))?;
    check!(fstat(f.as_raw_fd())?.st_mtime > 1_000_000_000);
    Ok(())
}

fn directory_times_follow_its_entries() -> CaseResult {
    mkdir(c"d")?;
    let d = open(c"d", libc::O_RDONLY, 0)?;
    let old = [timespec(1), timespec(2)];
    let moved = || -> CaseResult<bool> {
        let new = fstat(d.as_raw_fd())?.st_mtime > 1_000_000_000;
        sys!(futimens(d.as_raw_fd(), old.as_ptr()))?;
        Ok(new)
    };
    moved()?;
    create(c"d/f", b"")?;
    check!(moved()?, "creation");
    create(c"d/f", b"again")?;
    check!(!moved()?, "a write to a file");
    sys!(rename(c"d/f".as_ptr(), c"d/g".as_ptr()))?;
    check!(moved()?, "rename");
    sys!(unlink(c"d/g".as_ptr()))?;
    check!(moved()?, "unlink");
    Ok(())
}

fn access_asks_for_the_real_user() -> CaseResult {
    create(c"f", b"")?;
    sys!(chmod(c"f".as_ptr(), 0o640))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    in_child(|| {
        sys!(setresgid(NOBODY, NOBODY, NOBODY))?;
        sys!(setresuid(NOBODY, 0, 0))?;
        expect_errno!(sys!(access(c"f".as_ptr(), libc::R_OK)), libc::EACCES);
        sys!(access(c"f".as_ptr(), libc::F_OK))?;
        open(c"f", libc::O_RDWR, 0)?;
        expect_errno!(sys!(access(c"missing".as_ptr(), libc::F_OK)), libc::ENOENT);
        expect_errno!(raw!(SYS_access(c"f".as_ptr(), 8)), libc::EINVAL);
        Ok(())
    })
}

fn access_of_root_needs_an_execute_bit() -> CaseResult {
    create(c"f", b"")?;
    sys!(chmod(c"f".as_ptr(), 0))?;
    sys!(access(c"f".as_ptr(), libc::R_OK | libc::W_OK))?;
    expect_errno!(sys!(access(c"f".as_ptr(), libc::X_OK)), libc::EACCES);
    sys!(chmod(c"f".as_ptr(), 0o001))?;
    sys!(access(c"f".as_ptr(), libc::X_OK))?;
    mkdir(c"d")?;
    sys!(chmod(c"d".as_ptr(), 0))?;
    sys!(access(c"d".as_ptr(), libc::X_OK))?;
    Ok(())
}

fn faccessat2_eaccess_asks_for_the_effective_user() -> CaseResult {
    create(c"f", b"")?;
    sys!(chmod(c"f".as_ptr(), 0o600))?;
    symlink(c"missing", c"l")?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    in_child(|| {
        sys!(setresuid(0, NOBODY, 0))?;
        let ask = |path: &CStr, flags: i32| {
            raw!(SYS_faccessat2(libc::AT_FDCWD, path.as_ptr(), libc::R_OK, flags))
        };
        ask(c"f", 0)?;
        expect_errno!(ask(c"f", libc::AT_EACCESS), libc::EACCES);
        expect_errno!(ask(c"l", 0), libc::ENOENT);
        raw!(SYS_faccessat2(libc::AT_FDCWD, c"l".as_ptr(), libc::F_OK, libc::AT_SYMLINK_NOFOLLOW))?;
        expect_errno!(ask(c"f", 0x2), libc::EINVAL);
        Ok(())
    })
}

fn fchmod_and_fchown_of_unlinked_file() -> CaseResult {
    let f = create(c"f", b"")?;
    sys!(unlink(c"f".as_ptr()))?;
    sys!(fchmod(f.as_raw_fd(), 0o123))?;
    sys!(fchown(f.as_raw_fd(), 4, 5))?;
    let st = fstat(f.as_raw_fd())?;
    check_eq!((st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_nlink), (0o123, 4, 5, 0));
    Ok(())
}

fn statfs_of_tmpfs() -> CaseResult {
    let mut fs: libc::statfs = zeroed();
    sys!(statfs(c"/dev/shm".as_ptr(), &mut fs))?;
    check_eq!(fs.f_type, libc::TMPFS_MAGIC);
    check_eq!(fs.f_namelen, 255);
    check!(fs.f_bsize == 4096 && fs.f_blocks > 0 && fs.f_bfree <= fs.f_blocks);
    let dir = open(c".", libc::O_RDONLY, 0)?;
    sys!(fstatfs(dir.as_raw_fd(), &mut fs))?;
    check!(fs.f_type != 0);
    expect_errno!(sys!(statfs(c"missing".as_ptr(), &mut fs)), libc::ENOENT);
    sys!(statfs(c"/proc".as_ptr(), &mut fs))?;
    check_eq!(fs.f_type, libc::PROC_SUPER_MAGIC);
    Ok(())
}

fn device_numbers_differ_between_mounts() -> CaseResult {
    let devices = [stat(c"/proc")?.st_dev, stat(c"/dev/shm")?.st_dev, stat(c"/dev/pts")?.st_dev];
    check!(devices[0] != devices[1] && devices[1] != devices[2] && devices[0] != devices[2]);
    create(c"f", b"")?;
    check_eq!(stat(c"f")?.st_dev, stat(c".")?.st_dev);
    expect_errno!(sys!(link(c"f".as_ptr(), c"/dev/shm/guest-link".as_ptr())), libc::EXDEV);
    expect_errno!(sys!(rename(c"f".as_ptr(), c"/dev/shm/guest-link".as_ptr())), libc::EXDEV);
    Ok(())
}

fn files_of_the_root_keep_their_owner_and_birth() -> CaseResult {
    let path = c"/etc/passwd";
    let birth = || -> Result<_, Failure> {
        let mut found: libc::statx = zeroed();
        raw!(SYS_statx(libc::AT_FDCWD, path.as_ptr(), 0, libc::STATX_BTIME, &raw mut found))?;
        Ok((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
    };
    let born = birth()?;
    // Opened, read and closed: each of the three may be where a file system learns of the attributes anew.
    let file = open(path, libc::O_RDONLY, 0)?;
    let owner = || fstat(file.as_raw_fd()).map(|found| (found.st_uid, found.st_gid));
    check_eq!(owner()?, (0, 0));
    read(file.as_raw_fd(), &mut [0; 16])?;
    check_eq!(owner()?, (0, 0));
    check_eq!(birth()?, born);
    drop(file);
    check_eq!((stat(path)?.st_uid, stat(path)?.st_gid), (0, 0));
    check_eq!(birth()?, born);
    Ok(())
}
