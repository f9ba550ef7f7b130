//! mkdir(2), rmdir(2), unlink(2), link(2), mknod(2), symlink(2), getdents64(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::in_child;
use crate::sys::{SysError, fstat, open, raw, read, stat, sys, write};
use crate::util::{create, mkdir, symlink};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::AsRawFd;

topic!(dirs: [
    mkdir_of_existing_is_eexist,
    mkdir_below_missing_or_file,
    rmdir_checks,
    removed_directory_takes_no_more_names,
    unlink_checks,
    link_of_directory_is_eperm,
    link_of_symlink_does_not_follow,
    link_across_names_shares_data,
    mknod_makes_files_fifos_and_nodes,
    mknod_needs_the_capability,
    symlink_target_is_any_text,
    getdents_has_types_and_dots,
    getdents_small_buffer_is_einval,
    getdents_goes_on_where_it_stopped,
    getdents_of_a_file_is_enotdir,
    getdents_of_ten_thousand_names,
    getdents_rewinds_and_seeks,
    names_deleted_while_listing,
    names_with_any_bytes,
    deep_tree,
]);

fn mkdir_of_existing_is_eexist() -> CaseResult {
    mkdir(c"d")?;
    create(c"f", b"")?;
    symlink(c"nowhere", c"l")?;
    for path in [c"d", c"f", c"l", c".", c"..", c"/", c"d/."] {
        expect_errno!(mkdir(path), libc::EEXIST);
    }
    Ok(())
}

fn mkdir_below_missing_or_file() -> CaseResult {
    create(c"f", b"")?;
    expect_errno!(mkdir(c"missing/d"), libc::ENOENT);
    expect_errno!(mkdir(c"f/d"), libc::ENOTDIR);
    expect_errno!(mkdir(c""), libc::ENOENT);
    Ok(())
}

fn rmdir_checks() -> CaseResult {
    mkdir(c"d")?;
    create(c"d/f", b"")?;
    expect_errno!(sys!(rmdir(c"d".as_ptr())), libc::ENOTEMPTY);
    expect_errno!(sys!(rmdir(c"d/f".as_ptr())), libc::ENOTDIR);
    expect_errno!(sys!(rmdir(c"missing".as_ptr())), libc::ENOENT);
    expect_errno!(sys!(rmdir(c".".as_ptr())), libc::EINVAL);
    expect_errno!(sys!(rmdir(c"d/..".as_ptr())), libc::ENOTEMPTY);
    expect_errno!(sys!(rmdir(c"/".as_ptr())), libc::EBUSY);
    sys!(unlink(c"d/f".as_ptr()))?;
    sys!(rmdir(c"d".as_ptr()))?;
    expect_errno!(stat(c"d"), libc::ENOENT);
    Ok(())
}

fn removed_directory_takes_no_more_names() -> CaseResult {
    mkdir(c"d")?;
    let d = open(c"d", libc::O_RDONLY, 0)?;
    sys!(rmdir(c"d".as_ptr()))?;
    check_eq!(fstat(d.as_raw_fd())?.st_nlink, 0);
    let made = sys!(openat(d.as_raw_fd(), c"f".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o644));
    expect_errno!(made, libc::ENOENT);
    expect_errno!(sys!(mkdirat(d.as_raw_fd(), c"s".as_ptr(), 0o755)), libc::ENOENT);
    mkdir(c"d")?;
    check!(stat(c"d")?.st_ino != fstat(d.as_raw_fd())?.st_ino);
    Ok(())
}

fn unlink_checks() -> CaseResult {
    mkdir(c"d")?;
    expect_errno!(sys!(unlink(c"d".as_ptr())), libc::EISDIR);
    expect_errno!(sys!(unlink(c"missing".as_ptr())), libc::ENOENT);
    expect_errno!(sys!(unlink(c"".as_ptr())), libc::ENOENT);
    symlink(c"d", c"l")?;
    sys!(unlink(c"l".as_ptr()))?;
    stat(c"d")?;
    sys!(unlinkat(libc::AT_FDCWD, c"d".as_ptr(), libc::AT_REMOVEDIR))?;
    Ok(())
}

fn link_of_directory_is_eperm() -> CaseResult {
    mkdir(c"d")?;
    expect_errno!(sys!(link(c"d".as_ptr(), c"e".as_ptr())), libc::EPERM);
    expect_errno!(sys!(link(c"missing".as_ptr(), c"e".as_ptr())), libc::ENOENT);
    create(c"f", b"")?;
    expect_errno!(sys!(link(c"f".as_ptr(), c"d".as_ptr())), libc::EEXIST);
    expect_errno!(sys!(link(c"f".as_ptr(), c"missing/x".as_ptr())), libc::ENOENT);
    Ok(())
}

fn link_of_symlink_does_not_follow() -> CaseResult {
    create(c"f", b"")?;
    symlink(c"f", c"l")?;
    sys!(link(c"l".as_ptr(), c"m".as_ptr()))?;
    check_eq!(std::fs::read_link("m")?.to_string_lossy(), "f");
    let follow = libc::AT_SYMLINK_FOLLOW;
    sys!(linkat(libc::AT_FDCWD, c"l".as_ptr(), libc::AT_FDCWD, c"n".as_ptr(), follow))?;
    check_eq!(stat(c"n")?.st_ino, stat(c"f")?.st_ino);
    check_eq!(stat(c"f")?.st_nlink, 2);
    expect_errno!(
        sys!(linkat(libc::AT_FDCWD, c"l".as_ptr(), libc::AT_FDCWD, c"o".as_ptr(), 0x2)),
        libc::EINVAL
    );
    Ok(())
}

fn link_across_names_shares_data() -> CaseResult {
    let f = create(c"a", b"one")?;
    mkdir(c"d")?;
    sys!(link(c"a".as_ptr(), c"d/b".as_ptr()))?;
    write(f.as_raw_fd(), b"two")?;
    check_eq!(std::fs::read("d/b")?, b"onetwo");
    sys!(chmod(c"d/b".as_ptr(), 0o600))?;
    check_eq!(stat(c"a")?.st_mode & 0o7777, 0o600);
    sys!(unlink(c"a".as_ptr()))?;
    sys!(rename(c"d/b".as_ptr(), c"c".as_ptr()))?;
    check_eq!(stat(c"c")?.st_nlink, 1);
    // A file without a name cannot get one back.
    sys!(unlink(c"c".as_ptr()))?;
    let path = CString::new(format!("/proc/self/fd/{}", f.as_raw_fd()))?;
    let follow = libc::AT_SYMLINK_FOLLOW;
    expect_errno!(
        sys!(linkat(libc::AT_FDCWD, path.as_ptr(), libc::AT_FDCWD, c"back".as_ptr(), follow)),
        libc::ENOENT
    );
    Ok(())
}

fn mknod_makes_files_fifos_and_nodes() -> CaseResult {
    sys!(umask(0))?;
    let node = |path: &std::ffi::CStr, mode: u32, dev: u64| sys!(mknod(path.as_ptr(), mode, dev));
    node(c"f", libc::S_IFREG | 0o640, 0)?;
    check_eq!(stat(c"f")?.st_mode, libc::S_IFREG | 0o640);
    node(c"g", 0o600, 0)?;
    check_eq!(stat(c"g")?.st_mode, libc::S_IFREG | 0o600);
    node(c"p", libc::S_IFIFO | 0o622, 0)?;
    check_eq!(stat(c"p")?.st_mode, libc::S_IFIFO | 0o622);
    node(c"s", libc::S_IFSOCK | 0o777, 0)?;
    check_eq!(stat(c"s")?.st_mode, libc::S_IFSOCK | 0o777);
    expect_errno!(open(c"s", libc::O_RDONLY, 0), libc::ENXIO);
    node(c"c", libc::S_IFCHR | 0o600, libc::makedev(1, 3))?;
    check_eq!(stat(c"c")?.st_mode, libc::S_IFCHR | 0o600);
    check_eq!(stat(c"c")?.st_rdev, libc::makedev(1, 3));
    expect_errno!(node(c"d", libc::S_IFDIR | 0o755, 0), libc::EPERM);
    expect_errno!(node(c"x", 0o070_000, 0), libc::EINVAL);
    expect_errno!(node(c"f", libc::S_IFREG | 0o600, 0), libc::EEXIST);
    Ok(())
}

fn mknod_needs_the_capability() -> CaseResult {
    sys!(chmod(c".".as_ptr(), 0o777))?;
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        let device = libc::makedev(1, 3);
        expect_errno!(sys!(mknod(c"c".as_ptr(), libc::S_IFCHR | 0o600, device)), libc::EPERM);
        sys!(mknod(c"p".as_ptr(), libc::S_IFIFO | 0o600, 0))?;
        check_eq!(stat(c"p")?.st_uid, 1000);
        Ok(())
    })
}

fn symlink_target_is_any_text() -> CaseResult {
    let long = CString::new(vec![b'x'; 4095])?;
    symlink(&long, c"l")?;
    check_eq!(std::fs::read_link("l")?.as_os_str().len(), 4095);
    expect_errno!(stat(c"l"), libc::ENAMETOOLONG);
    let longer = CString::new(vec![b'x'; 4096])?;
    expect_errno!(symlink(&longer, c"m"), libc::ENAMETOOLONG);
    symlink(c"a\nb//..", c"odd")?;
    check_eq!(std::fs::read_link("odd")?.to_string_lossy(), "a\nb//..");
    expect_errno!(symlink(c"x", c"l"), libc::EEXIST);
    Ok(())
}

/// The entries of one getdents64 call: name, type, offset.
fn getdents(fd: i32, buf: &mut [u8]) -> Result<Vec<(Vec<u8>, u8, i64)>, SysError> {
    let n = raw!(SYS_getdents64(fd, buf.as_mut_ptr(), buf.len()))? as usize;
    let mut found = Vec::new();
    let mut at = 0;
    while at < n {
        let length = usize::from(u16::from_le_bytes([buf[at + 16], buf[at + 17]]));
        let mut offset = [0; 8];
        offset.copy_from_slice(&buf[at + 8..at + 16]);
        let name: Vec<u8> = buf[at + 19..at + length].iter().copied().take_while(|b| *b != 0).collect();
        found.push((name, buf[at + 18], i64::from_le_bytes(offset)));
        at += length;
    }
    Ok(found)
}

fn getdents_has_types_and_dots() -> CaseResult {
    create(c"f", b"")?;
    mkdir(c"d")?;
    symlink(c"f", c"l")?;
    sys!(mkfifo(c"p".as_ptr(), 0o600))?;
    let dir = open(c".", libc::O_RDONLY, 0)?;
    let entries = getdents(dir.as_raw_fd(), &mut [0; 4096])?;
    let found: BTreeSet<_> = entries.iter().map(|(name, kind, _)| (name.as_slice(), *kind)).collect();
    let expected: BTreeSet<(&[u8], u8)> = [
        (b".".as_slice(), libc::DT_DIR),
        (b"..", libc::DT_DIR),
        (b"f", libc::DT_REG),
        (b"d", libc::DT_DIR),
        (b"l", libc::DT_LNK),
        (b"p", libc::DT_FIFO),
    ]
    .into();
    check_eq!(found, expected);
    check_eq!(entries.len(), 6);
    check_eq!(getdents(dir.as_raw_fd(), &mut [0; 4096])?.len(), 0);
    Ok(())
}

fn getdents_small_buffer_is_einval() -> CaseResult {
    create(c"f", b"")?;
    let dir = open(c".", libc::O_RDONLY, 0)?;
    expect_errno!(getdents(dir.as_raw_fd(), &mut [0; 8]), libc::EINVAL);
    check_eq!(getdents(dir.as_raw_fd(), &mut [0; 24])?.len(), 1);
    expect_errno!(raw!(SYS_getdents64(dir.as_raw_fd(), 8, 4096)), libc::EFAULT);
    Ok(())
}

fn list_by(dir: i32, size: usize) -> CaseResult<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut buf = vec![0; size];
    loop {
        let entries = getdents(dir, &mut buf)?;
        if entries.is_empty() {
            return Ok(names);
        }
        names.extend(entries.into_iter().map(|(name, _, _)| name));
    }
}

fn getdents_goes_on_where_it_stopped() -> CaseResult {
    for i in 0..100 {
        create(&CString::new(format!("name-{i}"))?, b"")?;
    }
    let dir = open(c".", libc::O_RDONLY, 0)?;
    let names = list_by(dir.as_raw_fd(), 100)?;
    let unique: BTreeSet<_> = names.iter().collect();
    check_eq!((names.len(), unique.len()), (102, 102));
    Ok(())
}

fn getdents_of_a_file_is_enotdir() -> CaseResult {
    let f = create(c"f", b"")?;
    expect_errno!(getdents(f.as_raw_fd(), &mut [0; 100]), libc::ENOTDIR);
    expect_errno!(getdents(-1, &mut [0; 100]), libc::EBADF);
    let path = open(c".", libc::O_PATH, 0)?;
    expect_errno!(getdents(path.as_raw_fd(), &mut [0; 100]), libc::EBADF);
    Ok(())
}

fn getdents_of_ten_thousand_names() -> CaseResult {
    mkdir(c"d")?;
    for i in 0..10_000 {
        let path = CString::new(format!("d/{i:05}"))?;
        sys!(mknod(path.as_ptr(), libc::S_IFREG | 0o600, 0))?;
    }
    let dir = open(c"d", libc::O_RDONLY, 0)?;
    let unique: BTreeSet<_> = list_by(dir.as_raw_fd(), 32_768)?.into_iter().collect();
    check_eq!(unique.len(), 10_002);
    check!(unique.contains(b"09999".as_slice()));
    Ok(())
}

fn getdents_rewinds_and_seeks() -> CaseResult {
    for name in [c"a", c"b", c"c", c"d"] {
        create(name, b"")?;
    }
    let dir = open(c".", libc::O_RDONLY, 0)?;
    let fd = dir.as_raw_fd();
    let entries = getdents(fd, &mut [0; 4096])?;
    check_eq!(entries.len(), 6);
    create(c"e", b"")?;
    sys!(lseek(fd, 0, libc::SEEK_SET))?;
    check_eq!(list_by(fd, 4096)?.len(), 7);
    // The offset of an entry is where the next one is.
    sys!(lseek(fd, entries[2].2, libc::SEEK_SET))?;
    let rest = list_by(fd, 4096)?;
    check!(!rest.contains(&entries[2].0) && rest.contains(&entries[3].0));
    Ok(())
}

fn names_deleted_while_listing() -> CaseResult {
    for i in 0..200 {
        create(&CString::new(format!("f{i}"))?, b"")?;
    }
    let dir = open(c".", libc::O_RDONLY, 0)?;
    let mut deleted = BTreeSet::new();
    let mut buf = [0; 300];
    loop {
        let entries = getdents(dir.as_raw_fd(), &mut buf)?;
        if entries.is_empty() {
            break;
        }
        for (name, _, _) in entries {
            if name.starts_with(b"f") {
                sys!(unlink(CString::new(name.clone())?.as_ptr()))?;
                check!(deleted.insert(name), "a deleted name is listed again");
            }
        }
    }
    check_eq!(deleted.len(), 200);
    check_eq!(read(dir.as_raw_fd(), &mut [0; 1]).map_err(|e| e.errno), Err(libc::EISDIR));
    sys!(lseek(dir.as_raw_fd(), 0, libc::SEEK_SET))?;
    check_eq!(list_by(dir.as_raw_fd(), 4096)?.len(), 2);
    Ok(())
}

fn names_with_any_bytes() -> CaseResult {
    let names: [&[u8]; 6] = [b" ", b"\xff\xfe", b"a\nb", b"...", b"\x01", b"-"];
    for name in names {
        create(&CString::new(name)?, name)?;
    }
    let dir = open(c".", libc::O_RDONLY, 0)?;
    let found: BTreeSet<_> = list_by(dir.as_raw_fd(), 4096)?.into_iter().collect();
    check_eq!(found.len(), names.len() + 2);
    for name in names {
        check!(found.contains(name));
        check_eq!(stat(&CString::new(name)?)?.st_size, name.len() as i64);
    }
    Ok(())
}

fn deep_tree() -> CaseResult {
    // Deeper than a path may be long, by the working directory.
    for _ in 0..300 {
        mkdir(c"0123456789abcdef")?;
        sys!(chdir(c"0123456789abcdef".as_ptr()))?;
    }
    let mut buf = [0u8; 8192];
    let n = raw!(SYS_getcwd(buf.as_mut_ptr(), 8192));
    check!(n.is_ok_and(|n| n > 5000) || n.is_err_and(|e| e.errno == libc::ENAMETOOLONG));
    for _ in 0..300 {
        sys!(chdir(c"..".as_ptr()))?;
        sys!(rmdir(c"0123456789abcdef".as_ptr()))?;
    }
    Ok(())
}
