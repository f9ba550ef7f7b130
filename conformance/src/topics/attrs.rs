//! stat(2), statx(2), chmod(2), chown(2), utimensat(2), access(2), umask(2), statfs(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::in_child;
use crate::sys::{SysError, fstat, raw, stat, sys, zeroed};
use crate::util::{clock_ns, create, mkdir, symlink, timespec};
use std::ffi::CStr;
use std::os::fd::AsRawFd;

topic!(attrs: [
    stat_of_a_new_file,
    stat_follows_and_lstat_does_not,
    fstatat_flags,
    statx_gives_what_stat_gives,
    statx_checks_flags_and_mask,
    blocks_count_512_bytes,
    chmod_changes_the_bits_and_ctime_only,
    chmod_by_a_stranger_is_eperm,
    chmod_drops_setgid_of_a_foreign_group,
    fchmodat_of_a_symlink,
]);

pub(super) const NOBODY: u32 = 1000;

pub(super) fn lstat(path: &CStr) -> Result<libc::stat, SysError> {
    let mut st: libc::stat = zeroed();
    sys!(lstat(path.as_ptr(), &mut st))?;
    Ok(st)
}

fn statx(dir: i32, path: &CStr, flags: i32, mask: u32) -> Result<libc::statx, SysError> {
    let mut buf: libc::statx = zeroed();
    raw!(SYS_statx(dir, path.as_ptr(), flags, mask, &raw mut buf))?;
    Ok(buf)
}

pub(super) fn as_nobody(body: impl FnOnce() -> CaseResult) -> CaseResult {
    sys!(chmod(c".".as_ptr(), 0o777))?;
    in_child(|| {
        sys!(setgroups(0, std::ptr::null()))?;
        sys!(setresgid(NOBODY, NOBODY, NOBODY))?;
        sys!(setresuid(NOBODY, NOBODY, NOBODY))?;
        body()
    })
}

fn stat_of_a_new_file() -> CaseResult {
    let before = clock_ns(libc::CLOCK_REALTIME)? / 1_000_000_000;
    let f = create(c"f", b"12345")?;
    let st = fstat(f.as_raw_fd())?;
    check_eq!(st.st_mode, libc::S_IFREG | 0o644);
    check_eq!((st.st_size, st.st_nlink, st.st_uid, st.st_gid, st.st_rdev), (5, 1, 0, 0, 0));
    check!(st.st_blksize >= 512 && st.st_ino != 0);
    for time in [st.st_atime, st.st_mtime, st.st_ctime] {
        check!((before - 1..before + 5).contains(&time), "time {time}, now {before}");
    }
    mkdir(c"d")?;
    check_eq!(stat(c"d")?.st_mode, libc::S_IFDIR | 0o755);
    check_eq!(stat(c"d")?.st_nlink, 2);
    check!(stat(c"d")?.st_ino != st.st_ino);
    Ok(())
}

fn stat_follows_and_lstat_does_not() -> CaseResult {
    create(c"f", b"123")?;
    symlink(c"f", c"link")?;
    check_eq!(stat(c"link")?.st_ino, stat(c"f")?.st_ino);
    let st = lstat(c"link")?;
    check_eq!(st.st_mode, libc::S_IFLNK | 0o777);
    check_eq!(st.st_size, 1);
    expect_errno!(stat(c"missing"), libc::ENOENT);
    expect_errno!(raw!(SYS_newfstatat(libc::AT_FDCWD, c"f".as_ptr(), 8, 0)), libc::EFAULT);
    Ok(())
}

fn fstatat_flags() -> CaseResult {
    create(c"f", b"123")?;
    symlink(c"f", c"l")?;
    let mut st: libc::stat = zeroed();
    sys!(fstatat(libc::AT_FDCWD, c"l".as_ptr(), &mut st, libc::AT_SYMLINK_NOFOLLOW))?;
    check_eq!(st.st_mode & libc::S_IFMT, libc::S_IFLNK);
    sys!(fstatat(libc::AT_FDCWD, c"".as_ptr(), &mut st, libc::AT_EMPTY_PATH))?;
    check_eq!(st.st_ino, stat(c".")?.st_ino);
    expect_errno!(sys!(fstatat(libc::AT_FDCWD, c"".as_ptr(), &mut st, 0)), libc::ENOENT);
    expect_errno!(sys!(fstatat(libc::AT_FDCWD, c"f".as_ptr(), &mut st, 0x4000_0000)), libc::EINVAL);
    expect_errno!(sys!(fstatat(-1, c"".as_ptr(), &mut st, libc::AT_EMPTY_PATH)), libc::EBADF);
    expect_errno!(fstat(-1), libc::EBADF);
    Ok(())
}

fn statx_gives_what_stat_gives() -> CaseResult {
    let f = create(c"f", &[0; 5000])?;
    let old = stat(c"f")?;
    for got in [
        statx(libc::AT_FDCWD, c"f", 0, libc::STATX_BASIC_STATS)?,
        statx(f.as_raw_fd(), c"", libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS)?,
    ] {
        check_eq!(got.stx_mask & libc::STATX_BASIC_STATS, libc::STATX_BASIC_STATS);
        check_eq!((got.stx_size, got.stx_ino, u64::from(got.stx_nlink)), (5000, old.st_ino, old.st_nlink));
        check_eq!((u32::from(got.stx_mode), got.stx_uid, got.stx_gid), (old.st_mode, old.st_uid, old.st_gid));
        check_eq!((got.stx_mtime.tv_sec, i64::from(got.stx_mtime.tv_nsec)), (old.st_mtime, old.st_mtime_nsec));
        check_eq!(libc::makedev(got.stx_dev_major, got.stx_dev_minor), old.st_dev);
        check_eq!(i64::from(got.stx_blksize), old.st_blksize);
        check_eq!(got.stx_blocks as i64, old.st_blocks);
    }
    Ok(())
}

fn statx_checks_flags_and_mask() -> CaseResult {
    create(c"f", b"")?;
    expect_errno!(statx(libc::AT_FDCWD, c"f", 0x4000_0000, libc::STATX_BASIC_STATS), libc::EINVAL);
    expect_errno!(statx(libc::AT_FDCWD, c"f", 0, 0x8000_0000), libc::EINVAL);
    expect_errno!(statx(libc::AT_FDCWD, c"f", 0x6000, libc::STATX_BASIC_STATS), libc::EINVAL);
    expect_errno!(statx(libc::AT_FDCWD, c"missing", 0, libc::STATX_SIZE), libc::ENOENT);
    expect_errno!(statx(libc::AT_FDCWD, c"", 0, libc::STATX_SIZE), libc::ENOENT);
    expect_errno!(statx(-1, c"f", 0, libc::STATX_SIZE), libc::EBADF);
    // More may be given than was asked for, and no mask at all is no error.
    statx(libc::AT_FDCWD, c"f", 0, 0)?;
    Ok(())
}

fn blocks_count_512_bytes() -> CaseResult {
    let f = create(c"f", &[1; 4096])?;
    check_eq!(fstat(f.as_raw_fd())?.st_blocks, 8);
    sys!(ftruncate(f.as_raw_fd(), 1 << 20))?;
    check_eq!(fstat(f.as_raw_fd())?.st_blocks, 8);
    sys!(ftruncate(f.as_raw_fd(), 0))?;
    check_eq!(fstat(f.as_raw_fd())?.st_blocks, 0);
    Ok(())
}

fn chmod_changes_the_bits_and_ctime_only() -> CaseResult {
    let f = create(c"f", b"")?;
    let times = [timespec(1_000_000_000), timespec(2_000_000_000)];
    sys!(futimens(f.as_raw_fd(), times.as_ptr()))?;
    sys!(chmod(c"f".as_ptr(), 0o7531))?;
    let st = stat(c"f")?;
    check_eq!(st.st_mode, libc::S_IFREG | 0o7531);
    check_eq!((st.st_atime, st.st_mtime), (1, 2));
    sys!(fchmod(f.as_raw_fd(), 0o1_000_600))?;
    check_eq!(stat(c"f")?.st_mode, libc::S_IFREG | 0o600);
    expect_errno!(sys!(chmod(c"missing".as_ptr(), 0o600)), libc::ENOENT);
    expect_errno!(sys!(fchmod(-1, 0o600)), libc::EBADF);
    Ok(())
}

fn chmod_by_a_stranger_is_eperm() -> CaseResult {
    let f = create(c"f", b"")?;
    as_nobody(|| {
        expect_errno!(sys!(chmod(c"f".as_ptr(), 0o666)), libc::EPERM);
        expect_errno!(sys!(fchmod(f.as_raw_fd(), 0o666)), libc::EPERM);
        create(c"own", b"")?;
        sys!(chmod(c"own".as_ptr(), 0o4755))?;
        check_eq!(stat(c"own")?.st_mode & 0o7777, 0o4755);
        Ok(())
    })
}

fn chmod_drops_setgid_of_a_foreign_group() -> CaseResult {
    create(c"f", b"")?;
    sys!(chown(c"f".as_ptr(), NOBODY, 77))?;
    as_nobody(|| {
        sys!(chmod(c"f".as_ptr(), 0o2755))?;
        check_eq!(stat(c"f")?.st_mode & 0o7777, 0o755);
        Ok(())
    })
}

fn fchmodat_of_a_symlink() -> CaseResult {
    create(c"f", b"")?;
    symlink(c"f", c"l")?;
    raw!(SYS_fchmodat(libc::AT_FDCWD, c"l".as_ptr(), 0o600))?;
    check_eq!(stat(c"f")?.st_mode & 0o7777, 0o600);
    check_eq!(lstat(c"l")?.st_mode & 0o7777, 0o777);
    Ok(())
}
