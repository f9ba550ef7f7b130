//! inotify(7).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::sys::{SysError, open, owned, sys, write};
use crate::util::{create, mkdir, poll_one, read_some};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

topic!(inotify: [
    create_and_delete_in_a_directory,
    write_and_close,
    moves_carry_a_cookie,
    attributes_and_self_events,
    watch_of_a_file,
    oneshot_and_mask_add,
    removing_a_watch_says_ignored,
    nonblocking_and_small_buffers,
    checks,
    same_events_are_merged,
    poll_and_fionread,
    excluded_and_only_directory,
]);

#[derive(Debug, PartialEq, Eq, Clone)]
struct Event {
    watch: i32,
    mask: u32,
    cookie: u32,
    name: String,
}

fn new() -> Result<OwnedFd, SysError> {
    sys!(inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC)).map(owned)
}

fn watch(fd: &OwnedFd, path: &CStr, mask: u32) -> Result<i32, SysError> {
    sys!(inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), mask)).map(|watch| watch as i32)
}

fn events(fd: &OwnedFd) -> CaseResult<Vec<Event>> {
    let data = match read_some(fd.as_raw_fd(), 8192) {
        Err(error) if error.errno == libc::EAGAIN => return Ok(Vec::new()),
        other => other?,
    };
    let word = |at: usize| u32::from_ne_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
    let (mut at, mut found) = (0, Vec::new());
    while at < data.len() {
        let length = word(at + 12) as usize;
        let name = &data[at + 16..at + 16 + length];
        let name = name.iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect();
        found.push(Event { watch: word(at) as i32, mask: word(at + 4), cookie: word(at + 8), name });
        at += 16 + length;
    }
    Ok(found)
}

fn short(all: &[Event]) -> Vec<(u32, &str)> {
    all.iter().map(|event| (event.mask, event.name.as_str())).collect()
}

fn create_and_delete_in_a_directory() -> CaseResult {
    let fd = new()?;
    let wd = watch(&fd, c".", libc::IN_CREATE | libc::IN_DELETE)?;
    create(c"f", b"")?;
    mkdir(c"d")?;
    sys!(unlink(c"f".as_ptr()))?;
    sys!(rmdir(c"d".as_ptr()))?;
    let got = events(&fd)?;
    let dir = libc::IN_ISDIR;
    check_eq!(
        short(&got),
        [
            (libc::IN_CREATE, "f"),
            (libc::IN_CREATE | dir, "d"),
            (libc::IN_DELETE, "f"),
            (libc::IN_DELETE | dir, "d")
        ]
    );
    check!(got.iter().all(|event| event.watch == wd && event.cookie == 0));
    Ok(())
}

fn write_and_close() -> CaseResult {
    create(c"f", b"")?;
    let fd = new()?;
    watch(&fd, c".", libc::IN_MODIFY | libc::IN_OPEN | libc::IN_CLOSE | libc::IN_ACCESS)?;
    let file = open(c"f", libc::O_RDWR, 0)?;
    write(file.as_raw_fd(), b"x")?;
    sys!(lseek(file.as_raw_fd(), 0, libc::SEEK_SET))?;
    read_some(file.as_raw_fd(), 1)?;
    drop(file);
    drop(open(c"f", libc::O_RDONLY, 0)?);
    let expected = [
        (libc::IN_OPEN, "f"),
        (libc::IN_MODIFY, "f"),
        (libc::IN_ACCESS, "f"),
        (libc::IN_CLOSE_WRITE, "f"),
        (libc::IN_OPEN, "f"),
        (libc::IN_CLOSE_NOWRITE, "f"),
    ];
    check_eq!(short(&events(&fd)?), expected);
    Ok(())
}

fn moves_carry_a_cookie() -> CaseResult {
    mkdir(c"a")?;
    mkdir(c"b")?;
    create(c"a/f", b"")?;
    let fd = new()?;
    let (a, b) = (watch(&fd, c"a", libc::IN_MOVE)?, watch(&fd, c"b", libc::IN_MOVE)?);
    sys!(rename(c"a/f".as_ptr(), c"b/g".as_ptr()))?;
    let got = events(&fd)?;
    check_eq!(short(&got), [(libc::IN_MOVED_FROM, "f"), (libc::IN_MOVED_TO, "g")]);
    check_eq!((got[0].watch, got[1].watch), (a, b));
    check!(got[0].cookie != 0 && got[0].cookie == got[1].cookie);
    Ok(())
}

fn attributes_and_self_events() -> CaseResult {
    create(c"f", b"")?;
    let fd = new()?;
    watch(&fd, c"f", libc::IN_ATTRIB | libc::IN_MOVE_SELF | libc::IN_DELETE_SELF)?;
    sys!(chmod(c"f".as_ptr(), 0o600))?;
    sys!(rename(c"f".as_ptr(), c"g".as_ptr()))?;
    sys!(unlink(c"g".as_ptr()))?;
    check_eq!(
        short(&events(&fd)?),
        [
            (libc::IN_ATTRIB, ""),
            (libc::IN_MOVE_SELF, ""),
            (libc::IN_ATTRIB, ""),
            (libc::IN_DELETE_SELF, ""),
            (libc::IN_IGNORED, "")
        ]
    );
    Ok(())
}

fn watch_of_a_file() -> CaseResult {
    let file = create(c"f", b"")?;
    let fd = new()?;
    watch(&fd, c"f", libc::IN_MODIFY)?;
    sys!(link(c"f".as_ptr(), c"g".as_ptr()))?;
    // It is the inode that is watched, whatever its name.
    write(open(c"g", libc::O_WRONLY, 0)?.as_raw_fd(), b"x")?;
    check_eq!(short(&events(&fd)?), [(libc::IN_MODIFY, "")]);
    sys!(ftruncate(file.as_raw_fd(), 0))?;
    check_eq!(short(&events(&fd)?), [(libc::IN_MODIFY, "")]);
    Ok(())
}

fn oneshot_and_mask_add() -> CaseResult {
    let fd = new()?;
    watch(&fd, c".", libc::IN_CREATE | libc::IN_ONESHOT)?;
    create(c"f", b"")?;
    create(c"g", b"")?;
    check_eq!(short(&events(&fd)?), [(libc::IN_CREATE, "f"), (libc::IN_IGNORED, "")]);
    let wd = watch(&fd, c".", libc::IN_CREATE)?;
    check_eq!(watch(&fd, c".", libc::IN_DELETE | libc::IN_MASK_ADD)?, wd);
    create(c"h", b"")?;
    sys!(unlink(c"h".as_ptr()))?;
    check_eq!(short(&events(&fd)?), [(libc::IN_CREATE, "h"), (libc::IN_DELETE, "h")]);
    // Without it the new mask replaces the old one.
    watch(&fd, c".", libc::IN_DELETE)?;
    create(c"i", b"")?;
    check_eq!(events(&fd)?, []);
    Ok(())
}

fn removing_a_watch_says_ignored() -> CaseResult {
    let fd = new()?;
    let wd = watch(&fd, c".", libc::IN_CREATE)?;
    sys!(inotify_rm_watch(fd.as_raw_fd(), wd))?;
    create(c"f", b"")?;
    check_eq!(short(&events(&fd)?), [(libc::IN_IGNORED, "")]);
    expect_errno!(sys!(inotify_rm_watch(fd.as_raw_fd(), wd)), libc::EINVAL);
    check!(watch(&fd, c".", libc::IN_CREATE)? > wd);
    Ok(())
}

fn nonblocking_and_small_buffers() -> CaseResult {
    let fd = new()?;
    expect_errno!(read_some(fd.as_raw_fd(), 100), libc::EAGAIN);
    watch(&fd, c".", libc::IN_CREATE)?;
    create(c"some-name", b"")?;
    expect_errno!(read_some(fd.as_raw_fd(), 16), libc::EINVAL);
    check_eq!(read_some(fd.as_raw_fd(), 32)?.len(), 32);
    Ok(())
}

fn checks() -> CaseResult {
    let fd = new()?;
    expect_errno!(sys!(inotify_init1(0x100)), libc::EINVAL);
    expect_errno!(watch(&fd, c"missing", libc::IN_CREATE), libc::ENOENT);
    expect_errno!(watch(&fd, c".", 0), libc::EINVAL);
    let file = create(c"f", b"")?;
    expect_errno!(watch(&file, c".", libc::IN_CREATE), libc::EINVAL);
    expect_errno!(sys!(inotify_rm_watch(fd.as_raw_fd(), 999)), libc::EINVAL);
    expect_errno!(sys!(inotify_add_watch(-1, c".".as_ptr(), libc::IN_CREATE)), libc::EBADF);
    expect_errno!(write(fd.as_raw_fd(), b"x"), libc::EBADF);
    Ok(())
}

fn same_events_are_merged() -> CaseResult {
    let file = create(c"f", b"")?;
    let fd = new()?;
    watch(&fd, c"f", libc::IN_MODIFY)?;
    for _ in 0..5 {
        write(file.as_raw_fd(), b"x")?;
    }
    check_eq!(short(&events(&fd)?), [(libc::IN_MODIFY, "")]);
    Ok(())
}

fn poll_and_fionread() -> CaseResult {
    let fd = new()?;
    watch(&fd, c".", libc::IN_CREATE)?;
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLIN, 0)?, 0);
    create(c"f", b"")?;
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLIN);
    let mut n = 0i32;
    sys!(ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut n))?;
    check_eq!(n, 32);
    check_eq!(events(&fd)?.len(), 1);
    Ok(())
}

fn excluded_and_only_directory() -> CaseResult {
    let file = create(c"f", b"")?;
    let fd = new()?;
    expect_errno!(watch(&fd, c"f", libc::IN_MODIFY | libc::IN_ONLYDIR), libc::ENOTDIR);
    watch(&fd, c".", libc::IN_MODIFY | libc::IN_EXCL_UNLINK)?;
    sys!(unlink(c"f".as_ptr()))?;
    write(file.as_raw_fd(), b"x")?;
    check_eq!(events(&fd)?, []);
    crate::util::symlink(c"nowhere", c"l")?;
    watch(&fd, c"l", libc::IN_ATTRIB | libc::IN_DONT_FOLLOW)?;
    Ok(())
}
