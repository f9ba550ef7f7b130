//! path_resolution(7), openat(2), openat2(2), readlinkat(2), chdir(2), getcwd(2), chroot(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::in_child;
use crate::sys::{open, owned, raw, stat, sys, zeroed};
use crate::util::{create, mkdir, symlink};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

topic!(path: [
    component_longer_than_255_is_enametoolong,
    path_of_4096_is_enametoolong,
    dot_and_double_slash_are_skipped,
    dotdot_of_root_is_root,
    trailing_slash_wants_a_directory,
    trailing_slash_follows_a_symlink,
    forty_symlinks_resolve_and_more_are_eloop,
    dangling_symlink_creates_its_target,
    absolute_symlink_starts_at_the_root,
    empty_path_and_bad_pointer,
    at_fdcwd_and_directory_descriptors,
    at_of_a_file_is_enotdir,
    search_permission_is_needed,
    readlink_truncates_and_does_not_terminate,
    openat2_resolve_flags,
    openat2_checks_how,
    chdir_and_fchdir_and_getcwd,
    cwd_of_removed_directory_is_enoent,
    chroot_hides_what_is_above,
    open_directory_survives_rename,
]);

fn long_name(len: usize) -> CString {
    CString::new(vec![b'n'; len]).unwrap_or_default()
}

fn openat(dir: i32, path: &CStr, flags: i32) -> Result<OwnedFd, crate::sys::SysError> {
    raw!(SYS_openat(dir, path.as_ptr(), flags, 0o644)).map(owned)
}

fn component_longer_than_255_is_enametoolong() -> CaseResult {
    create(&long_name(255), b"x")?;
    check_eq!(stat(&long_name(255))?.st_size, 1);
    expect_errno!(stat(&long_name(256)), libc::ENAMETOOLONG);
    expect_errno!(create(&long_name(256), b""), libc::ENAMETOOLONG);
    expect_errno!(sys!(mkdir(long_name(256).as_ptr(), 0o755)), libc::ENAMETOOLONG);
    // The component is looked at only when the walk gets there.
    let behind = CString::new([b"missing/".as_slice(), &[b'n'; 256]].concat())?;
    expect_errno!(stat(&behind), libc::ENOENT);
    Ok(())
}

fn path_of_4096_is_enametoolong() -> CaseResult {
    let slashes = |len: usize| CString::new([b".".as_slice(), &b"/".repeat(len - 1)].concat());
    check_eq!(stat(&slashes(4095)?)?.st_mode & libc::S_IFMT, libc::S_IFDIR);
    expect_errno!(stat(&slashes(4096)?), libc::ENAMETOOLONG);
    expect_errno!(stat(&slashes(5000)?), libc::ENAMETOOLONG);
    Ok(())
}

fn dot_and_double_slash_are_skipped() -> CaseResult {
    mkdir(c"d")?;
    create(c"d/f", b"abc")?;
    let inode = stat(c"d/f")?.st_ino;
    for path in [c"./d/f", c"d//f", c"d/./f", c"./././d///.//f", c"d/../d/f"] {
        check_eq!(stat(path)?.st_ino, inode);
    }
    expect_errno!(stat(c"missing/../d/f"), libc::ENOENT);
    expect_errno!(stat(c"d/f/../f"), libc::ENOTDIR);
    expect_errno!(stat(c"d/f/."), libc::ENOTDIR);
    Ok(())
}

fn dotdot_of_root_is_root() -> CaseResult {
    let root = stat(c"/")?;
    for path in [c"/..", c"/../..", c"/.", c"//"] {
        let found = stat(path)?;
        check_eq!((found.st_ino, found.st_dev), (root.st_ino, root.st_dev));
    }
    Ok(())
}

fn trailing_slash_wants_a_directory() -> CaseResult {
    create(c"f", b"")?;
    expect_errno!(stat(c"f/"), libc::ENOTDIR);
    expect_errno!(open(c"new/", libc::O_CREAT | libc::O_RDWR, 0o644), libc::EISDIR);
    sys!(mkdir(c"d/".as_ptr(), 0o755))?;
    stat(c"d/")?;
    expect_errno!(sys!(unlink(c"f/".as_ptr())), libc::ENOTDIR);
    expect_errno!(sys!(symlink(c"f".as_ptr(), c"l/".as_ptr())), libc::ENOENT);
    expect_errno!(sys!(link(c"f".as_ptr(), c"g/".as_ptr())), libc::ENOENT);
    expect_errno!(sys!(rename(c"f".as_ptr(), c"g/".as_ptr())), libc::ENOTDIR);
    sys!(rename(c"d/".as_ptr(), c"e/".as_ptr()))?;
    sys!(rmdir(c"e/".as_ptr()))?;
    Ok(())
}

fn trailing_slash_follows_a_symlink() -> CaseResult {
    mkdir(c"d")?;
    symlink(c"d", c"l")?;
    let mut st: libc::stat = zeroed();
    sys!(lstat(c"l".as_ptr(), &mut st))?;
    check_eq!(st.st_mode & libc::S_IFMT, libc::S_IFLNK);
    sys!(lstat(c"l/".as_ptr(), &mut st))?;
    check_eq!(st.st_mode & libc::S_IFMT, libc::S_IFDIR);
    expect_errno!(sys!(rmdir(c"l".as_ptr())), libc::ENOTDIR);
    expect_errno!(sys!(rmdir(c"l/".as_ptr())), libc::ENOTDIR);
    expect_errno!(sys!(unlink(c"l/".as_ptr())), libc::ENOTDIR);
    expect_errno!(open(c"l", libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0), libc::ENOTDIR);
    open(c"l/", libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
    Ok(())
}

fn forty_symlinks_resolve_and_more_are_eloop() -> CaseResult {
    create(c"l0", b"end")?;
    for i in 1..=41 {
        symlink(&CString::new(format!("l{}", i - 1))?, &CString::new(format!("l{i}"))?)?;
    }
    check_eq!(stat(c"l40")?.st_size, 3);
    expect_errno!(stat(c"l41"), libc::ELOOP);
    let mut st: libc::stat = zeroed();
    sys!(lstat(c"l41".as_ptr(), &mut st))?;
    check_eq!(st.st_size, 3);
    Ok(())
}

fn dangling_symlink_creates_its_target() -> CaseResult {
    symlink(c"target", c"l")?;
    expect_errno!(stat(c"l"), libc::ENOENT);
    create(c"l", b"data")?;
    check_eq!(stat(c"target")?.st_size, 4);
    symlink(c"other", c"m")?;
    expect_errno!(sys!(mkdir(c"m".as_ptr(), 0o755)), libc::EEXIST);
    symlink(c"nodir/x", c"n")?;
    expect_errno!(create(c"n", b""), libc::ENOENT);
    Ok(())
}

fn absolute_symlink_starts_at_the_root() -> CaseResult {
    let here = std::env::current_dir()?;
    create(c"f", b"12345")?;
    mkdir(c"d")?;
    std::os::unix::fs::symlink(here.join("f"), "d/l")?;
    check_eq!(stat(c"d/l")?.st_size, 5);
    symlink(c"/", c"root")?;
    check_eq!(stat(c"root")?.st_ino, stat(c"/")?.st_ino);
    check_eq!(stat(c"root/..")?.st_ino, stat(c"/")?.st_ino);
    Ok(())
}

fn empty_path_and_bad_pointer() -> CaseResult {
    expect_errno!(raw!(SYS_openat(libc::AT_FDCWD, c"".as_ptr(), libc::O_RDONLY, 0)), libc::ENOENT);
    expect_errno!(raw!(SYS_openat(libc::AT_FDCWD, 0, libc::O_RDONLY, 0)), libc::EFAULT);
    expect_errno!(raw!(SYS_openat(libc::AT_FDCWD, 8, libc::O_RDONLY, 0)), libc::EFAULT);
    expect_errno!(raw!(SYS_openat(libc::AT_FDCWD, u64::MAX - 10, libc::O_RDONLY, 0)), libc::EFAULT);
    expect_errno!(sys!(symlink(c"".as_ptr(), c"l".as_ptr())), libc::ENOENT);
    let mut buf = [0u8; 8];
    expect_errno!(sys!(readlink(c"".as_ptr(), buf.as_mut_ptr().cast(), 8)), libc::ENOENT);
    Ok(())
}

fn at_fdcwd_and_directory_descriptors() -> CaseResult {
    mkdir(c"d")?;
    create(c"d/f", b"xy")?;
    let dir = open(c"d", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let f = openat(dir.as_raw_fd(), c"f", libc::O_RDONLY)?;
    check_eq!(crate::sys::fstat(f.as_raw_fd())?.st_size, 2);
    openat(dir.as_raw_fd(), c"made", libc::O_CREAT | libc::O_RDWR)?;
    stat(c"d/made")?;
    sys!(mkdirat(dir.as_raw_fd(), c"sub".as_ptr(), 0o700))?;
    sys!(unlinkat(dir.as_raw_fd(), c"sub".as_ptr(), libc::AT_REMOVEDIR))?;
    sys!(unlinkat(dir.as_raw_fd(), c"made".as_ptr(), 0))?;
    expect_errno!(sys!(unlinkat(dir.as_raw_fd(), c"f".as_ptr(), libc::AT_REMOVEDIR)), libc::ENOTDIR);
    expect_errno!(sys!(unlinkat(dir.as_raw_fd(), c"f".as_ptr(), 0x1000_0000)), libc::EINVAL);
    openat(libc::AT_FDCWD, c"d/f", libc::O_RDONLY)?;
    // An absolute path does not look at the descriptor.
    openat(-1, c"/", libc::O_RDONLY)?;
    expect_errno!(openat(-1, c"f", libc::O_RDONLY), libc::EBADF);
    expect_errno!(openat(-99, c"f", libc::O_RDONLY), libc::EBADF);
    Ok(())
}

fn at_of_a_file_is_enotdir() -> CaseResult {
    let f = create(c"f", b"")?;
    expect_errno!(openat(f.as_raw_fd(), c"x", libc::O_RDONLY), libc::ENOTDIR);
    expect_errno!(openat(f.as_raw_fd(), c"..", libc::O_RDONLY), libc::ENOTDIR);
    expect_errno!(openat(f.as_raw_fd(), c"", libc::O_RDONLY), libc::ENOENT);
    let mut st: libc::stat = zeroed();
    sys!(fstatat(f.as_raw_fd(), c"".as_ptr(), &mut st, libc::AT_EMPTY_PATH))?;
    check_eq!(st.st_mode & libc::S_IFMT, libc::S_IFREG);
    Ok(())
}

fn search_permission_is_needed() -> CaseResult {
    mkdir(c"d")?;
    create(c"d/f", b"")?;
    sys!(chmod(c"d".as_ptr(), 0o644))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(stat(c"d/f"), libc::EACCES);
        expect_errno!(stat(c"d/missing"), libc::EACCES);
        expect_errno!(open(c"d/f", libc::O_RDONLY, 0), libc::EACCES);
        expect_errno!(sys!(chdir(c"d".as_ptr())), libc::EACCES);
        // Reading the directory's names needs only read permission.
        open(c"d", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        expect_errno!(create(c"new", b""), libc::EACCES);
        expect_errno!(sys!(unlink(c"d".as_ptr())), libc::EACCES);
        Ok(())
    })
}

fn readlink_truncates_and_does_not_terminate() -> CaseResult {
    symlink(c"0123456789", c"l")?;
    let mut buf = [b'#'; 16];
    check_eq!(sys!(readlink(c"l".as_ptr(), buf.as_mut_ptr().cast(), 4))?, 4);
    check_eq!(&buf[..5], b"0123#");
    check_eq!(sys!(readlink(c"l".as_ptr(), buf.as_mut_ptr().cast(), 16))?, 10);
    check_eq!(&buf[..11], b"0123456789#");
    expect_errno!(sys!(readlink(c"l".as_ptr(), buf.as_mut_ptr().cast(), 0)), libc::EINVAL);
    create(c"f", b"")?;
    expect_errno!(sys!(readlink(c"f".as_ptr(), buf.as_mut_ptr().cast(), 16)), libc::EINVAL);
    let link = open(c"l", libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    check_eq!(sys!(readlinkat(link.as_raw_fd(), c"".as_ptr(), buf.as_mut_ptr().cast(), 16))?, 10);
    Ok(())
}

/// `struct open_how`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

fn openat2(dir: i32, path: &CStr, flags: i32, resolve: u64) -> Result<OwnedFd, crate::sys::SysError> {
    let how = OpenHow { flags: flags as u64, mode: 0, resolve };
    raw!(SYS_openat2(dir, path.as_ptr(), &raw const how, 24)).map(owned)
}

fn openat2_resolve_flags() -> CaseResult {
    const NO_MAGICLINKS: u64 = 2;
    const NO_SYMLINKS: u64 = 4;
    const BENEATH: u64 = 8;
    const IN_ROOT: u64 = 16;
    mkdir(c"d")?;
    create(c"d/f", b"")?;
    symlink(c"f", c"d/l")?;
    symlink(c"/f", c"d/abs")?;
    symlink(c"../x", c"d/up")?;
    create(c"x", b"")?;
    let dir = open(c"d", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let at = |path, resolve| openat2(dir.as_raw_fd(), path, libc::O_RDONLY, resolve);
    at(c"f", BENEATH)?;
    at(c"l", BENEATH)?;
    expect_errno!(at(c"up", BENEATH), libc::EXDEV);
    expect_errno!(at(c"abs", BENEATH), libc::EXDEV);
    expect_errno!(at(c"/", BENEATH), libc::EXDEV);
    expect_errno!(at(c"l", NO_SYMLINKS), libc::ELOOP);
    at(c"f", NO_SYMLINKS)?;
    at(c"abs", IN_ROOT)?;
    expect_errno!(at(c"up", IN_ROOT), libc::ENOENT);
    expect_errno!(at(c"../x", BENEATH), libc::EXDEV);
    at(c"../x", 0)?;
    expect_errno!(openat2(-100, c"/proc/self/exe", libc::O_RDONLY, NO_MAGICLINKS), libc::ELOOP);
    Ok(())
}

fn openat2_checks_how() -> CaseResult {
    let call = |how: &[u64], size: usize| {
        raw!(SYS_openat2(libc::AT_FDCWD, c".".as_ptr(), how.as_ptr(), size)).map(owned)
    };
    call(&[0, 0, 0], 24)?;
    expect_errno!(call(&[0, 0, 0], 16), libc::EINVAL);
    expect_errno!(call(&[1 << 40, 0, 0], 24), libc::EINVAL);
    expect_errno!(call(&[0, 0o644, 0], 24), libc::EINVAL);
    expect_errno!(call(&[0, 0, 1 << 20], 24), libc::EINVAL);
    expect_errno!(call(&[0, 0, 8 | 16], 24), libc::EINVAL);
    call(&[0, 0, 0, 0], 32)?;
    expect_errno!(call(&[0, 0, 0, 1], 32), libc::E2BIG);
    expect_errno!(call(&[0, 0, 0], 5000), libc::E2BIG);
    Ok(())
}

fn chdir_and_fchdir_and_getcwd() -> CaseResult {
    let start = std::env::current_dir()?;
    mkdir(c"d")?;
    create(c"f", b"")?;
    let here = open(c".", libc::O_RDONLY, 0)?;
    sys!(chdir(c"d".as_ptr()))?;
    check_eq!(std::env::current_dir()?, start.join("d"));
    let mut buf = [0u8; 4096];
    let length = raw!(SYS_getcwd(buf.as_mut_ptr(), 4096))? as usize;
    check_eq!(length, start.join("d").as_os_str().len() + 1);
    check_eq!(buf[length - 1], 0);
    expect_errno!(raw!(SYS_getcwd(buf.as_mut_ptr(), length - 1)), libc::ERANGE);
    expect_errno!(raw!(SYS_getcwd(8, 4096)), libc::EFAULT);
    sys!(fchdir(here.as_raw_fd()))?;
    check_eq!(std::env::current_dir()?, start);
    expect_errno!(sys!(chdir(c"f".as_ptr())), libc::ENOTDIR);
    let file = open(c"f", libc::O_RDONLY, 0)?;
    expect_errno!(sys!(fchdir(file.as_raw_fd())), libc::ENOTDIR);
    sys!(rename(c"d".as_ptr(), c"e".as_ptr()))?;
    sys!(chdir(c"e".as_ptr()))?;
    sys!(rename(c"../e".as_ptr(), c"../g".as_ptr()))?;
    check_eq!(std::env::current_dir()?, start.join("g"));
    Ok(())
}

fn cwd_of_removed_directory_is_enoent() -> CaseResult {
    mkdir(c"d")?;
    sys!(chdir(c"d".as_ptr()))?;
    sys!(rmdir(c"../d".as_ptr()))?;
    let mut buf = [0u8; 4096];
    expect_errno!(raw!(SYS_getcwd(buf.as_mut_ptr(), 4096)), libc::ENOENT);
    expect_errno!(create(c"f", b""), libc::ENOENT);
    expect_errno!(sys!(mkdir(c"x".as_ptr(), 0o755)), libc::ENOENT);
    stat(c".")?;
    check_eq!(std::fs::read_dir(".")?.count(), 0);
    Ok(())
}

fn chroot_hides_what_is_above() -> CaseResult {
    mkdir(c"jail")?;
    create(c"jail/inside", b"")?;
    create(c"outside", b"")?;
    symlink(c"/inside", c"jail/abs")?;
    in_child(|| {
        sys!(chroot(c"jail".as_ptr()))?;
        // The working directory is still outside.
        stat(c"outside")?;
        sys!(chdir(c"/".as_ptr()))?;
        stat(c"/inside")?;
        stat(c"abs")?;
        expect_errno!(stat(c"/outside"), libc::ENOENT);
        expect_errno!(stat(c"../outside"), libc::ENOENT);
        check_eq!(stat(c"/..")?.st_ino, stat(c"/")?.st_ino);
        let mut buf = [0u8; 64];
        check_eq!(raw!(SYS_getcwd(buf.as_mut_ptr(), 64))?, 2);
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(sys!(chroot(c"/".as_ptr())), libc::EPERM);
        Ok(())
    })
}

fn open_directory_survives_rename() -> CaseResult {
    mkdir(c"a")?;
    create(c"a/f", b"1")?;
    let dir = open(c"a", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    sys!(rename(c"a".as_ptr(), c"b".as_ptr()))?;
    openat(dir.as_raw_fd(), c"f", libc::O_RDONLY)?;
    openat(dir.as_raw_fd(), c"g", libc::O_CREAT | libc::O_RDWR)?;
    stat(c"b/g")?;
    let up = openat(dir.as_raw_fd(), c"..", libc::O_RDONLY)?;
    check!(crate::sys::fstat(up.as_raw_fd())?.st_ino == stat(c".")?.st_ino);
    Ok(())
}
