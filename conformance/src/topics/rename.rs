//! rename(2), renameat2(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::in_child;
use crate::sys::{SysError, fstat, open, raw, stat, sys};
use crate::util::{create, mkdir, pread, symlink};
use std::ffi::CStr;
use std::os::fd::AsRawFd;

topic!(rename: [
    onto_itself_and_between_hard_links_does_nothing,
    replaced_file_lives_on_in_descriptors,
    missing_names_are_enoent,
    directory_replaces_only_an_empty_one,
    directory_into_itself_is_einval,
    dot_is_ebusy,
    dotdot_follows_the_moved_directory,
    symlink_is_renamed_not_its_target,
    noreplace_is_eexist,
    exchange_swaps,
    bad_flags_are_einval,
    sticky_directory_protects,
    parent_permission_is_needed,
    between_directories_keeps_the_inode,
    nlink_of_parents_follows,
]);

fn rename(from: &CStr, to: &CStr) -> Result<i64, SysError> {
    sys!(rename(from.as_ptr(), to.as_ptr()))
}

fn renameat2(from: &CStr, to: &CStr, flags: u32) -> Result<i64, SysError> {
    raw!(SYS_renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags))
}

fn onto_itself_and_between_hard_links_does_nothing() -> CaseResult {
    create(c"a", b"1")?;
    rename(c"a", c"a")?;
    sys!(link(c"a".as_ptr(), c"b".as_ptr()))?;
    rename(c"a", c"b")?;
    check_eq!(stat(c"a")?.st_nlink, 2);
    check_eq!(stat(c"b")?.st_nlink, 2);
    Ok(())
}

fn replaced_file_lives_on_in_descriptors() -> CaseResult {
    let old = create(c"b", b"old")?;
    create(c"a", b"new")?;
    rename(c"a", c"b")?;
    check_eq!(pread(old.as_raw_fd(), 0, 9)?, b"old");
    check_eq!(fstat(old.as_raw_fd())?.st_nlink, 0);
    check_eq!(std::fs::read("b")?, b"new");
    Ok(())
}

fn missing_names_are_enoent() -> CaseResult {
    create(c"a", b"")?;
    expect_errno!(rename(c"missing", c"b"), libc::ENOENT);
    expect_errno!(rename(c"a", c"missing/b"), libc::ENOENT);
    expect_errno!(rename(c"a", c""), libc::ENOENT);
    expect_errno!(rename(c"", c"a"), libc::ENOENT);
    expect_errno!(rename(c"a/x", c"b"), libc::ENOTDIR);
    Ok(())
}

fn directory_replaces_only_an_empty_one() -> CaseResult {
    mkdir(c"a")?;
    create(c"a/x", b"")?;
    mkdir(c"b")?;
    create(c"b/y", b"")?;
    expect_errno!(rename(c"a", c"b"), libc::ENOTEMPTY);
    sys!(unlink(c"b/y".as_ptr()))?;
    rename(c"a", c"b")?;
    stat(c"b/x")?;
    expect_errno!(stat(c"a"), libc::ENOENT);
    Ok(())
}

fn directory_into_itself_is_einval() -> CaseResult {
    mkdir(c"a")?;
    mkdir(c"a/b")?;
    expect_errno!(rename(c"a", c"a/b/c"), libc::EINVAL);
    expect_errno!(rename(c"a", c"a/new"), libc::EINVAL);
    // The other way round, the target holds the source and so is not empty.
    expect_errno!(rename(c"a/b", c"a"), libc::ENOTEMPTY);
    rename(c"a", c"ab")?;
    Ok(())
}

fn dot_is_ebusy() -> CaseResult {
    mkdir(c"a")?;
    expect_errno!(rename(c"a/.", c"b"), libc::EBUSY);
    expect_errno!(rename(c"a/..", c"b"), libc::EBUSY);
    expect_errno!(rename(c"a", c"b/."), libc::ENOENT);
    expect_errno!(rename(c"a", c"."), libc::EBUSY);
    Ok(())
}

fn dotdot_follows_the_moved_directory() -> CaseResult {
    mkdir(c"a")?;
    mkdir(c"b")?;
    mkdir(c"a/sub")?;
    rename(c"a/sub", c"b/sub")?;
    check_eq!(stat(c"b/sub/..")?.st_ino, stat(c"b")?.st_ino);
    Ok(())
}

fn symlink_is_renamed_not_its_target() -> CaseResult {
    create(c"f", b"data")?;
    symlink(c"f", c"l")?;
    rename(c"l", c"m")?;
    check_eq!(std::fs::read_link("m")?.to_string_lossy(), "f");
    stat(c"f")?;
    create(c"g", b"g")?;
    rename(c"g", c"m")?;
    check_eq!(std::fs::read("m")?, b"g");
    check_eq!(std::fs::read("f")?, b"data");
    Ok(())
}

fn noreplace_is_eexist() -> CaseResult {
    create(c"a", b"")?;
    create(c"b", b"")?;
    expect_errno!(renameat2(c"a", c"b", libc::RENAME_NOREPLACE), libc::EEXIST);
    renameat2(c"a", c"c", libc::RENAME_NOREPLACE)?;
    stat(c"c")?;
    symlink(c"nowhere", c"l")?;
    expect_errno!(renameat2(c"c", c"l", libc::RENAME_NOREPLACE), libc::EEXIST);
    Ok(())
}

fn exchange_swaps() -> CaseResult {
    create(c"a", b"file")?;
    mkdir(c"d")?;
    create(c"d/x", b"")?;
    renameat2(c"a", c"d", libc::RENAME_EXCHANGE)?;
    check_eq!(std::fs::read("d")?, b"file");
    stat(c"a/x")?;
    expect_errno!(renameat2(c"a", c"missing", libc::RENAME_EXCHANGE), libc::ENOENT);
    Ok(())
}

fn bad_flags_are_einval() -> CaseResult {
    create(c"a", b"")?;
    expect_errno!(renameat2(c"a", c"b", 0x100), libc::EINVAL);
    let both = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE;
    expect_errno!(renameat2(c"a", c"b", both), libc::EINVAL);
    check_eq!(stat(c"a")?.st_nlink, 1);
    Ok(())
}

fn sticky_directory_protects() -> CaseResult {
    mkdir(c"d")?;
    sys!(chmod(c"d".as_ptr(), 0o1777))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    create(c"d/roots", b"")?;
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(rename(c"d/roots", c"d/mine"), libc::EPERM);
        expect_errno!(sys!(unlink(c"d/roots".as_ptr())), libc::EPERM);
        create(c"d/own", b"")?;
        expect_errno!(rename(c"d/own", c"d/roots"), libc::EPERM);
        rename(c"d/own", c"d/own2")?;
        sys!(unlink(c"d/own2".as_ptr()))?;
        Ok(())
    })
}

fn parent_permission_is_needed() -> CaseResult {
    mkdir(c"closed")?;
    create(c"closed/f", b"")?;
    mkdir(c"free")?;
    sys!(chmod(c"free".as_ptr(), 0o777))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(rename(c"closed/f", c"free/f"), libc::EACCES);
        create(c"free/g", b"")?;
        expect_errno!(rename(c"free/g", c"closed/g"), libc::EACCES);
        Ok(())
    })
}

fn between_directories_keeps_the_inode() -> CaseResult {
    mkdir(c"a")?;
    mkdir(c"b")?;
    let f = create(c"a/f", b"123")?;
    rename(c"a/f", c"b/g")?;
    check_eq!(stat(c"b/g")?.st_ino, fstat(f.as_raw_fd())?.st_ino);
    check_eq!(std::fs::read_dir("a")?.count(), 0);
    let (a, b) = (open(c"a", libc::O_RDONLY, 0)?, open(c"b", libc::O_RDONLY, 0)?);
    sys!(renameat(b.as_raw_fd(), c"g".as_ptr(), a.as_raw_fd(), c"h".as_ptr()))?;
    check!(stat(c"a/h")?.st_size == 3);
    Ok(())
}

fn nlink_of_parents_follows() -> CaseResult {
    mkdir(c"a")?;
    mkdir(c"b")?;
    check_eq!(stat(c"a")?.st_nlink, 2);
    mkdir(c"a/sub")?;
    check_eq!(stat(c"a")?.st_nlink, 3);
    rename(c"a/sub", c"b/sub")?;
    check_eq!(stat(c"a")?.st_nlink, 2);
    check_eq!(stat(c"b")?.st_nlink, 3);
    sys!(rmdir(c"b/sub".as_ptr()))?;
    check_eq!(stat(c"b")?.st_nlink, 2);
    Ok(())
}
