//! fcntl(2) record locks, open file description locks, flock(2), leases.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, wait_for};
use crate::memory::{post, shared_words, wait_for_word};
use crate::signal::{count_signal, counted};
use crate::sys::{SysError, open, owned, sys, zeroed};
use crate::util::create;
use std::os::fd::AsRawFd;

topic!(locks: [
    record_lock_excludes_other_processes,
    shared_record_locks_share,
    getlk_tells_who,
    ranges_split_and_merge,
    own_locks_replace_each_other,
    close_of_any_descriptor_drops_record_locks,
    fork_does_not_inherit_record_locks,
    setlkw_waits_until_unlocked,
    setlkw_deadlock_is_edeadlk,
    setlkw_is_interrupted_by_a_signal,
    lock_checks,
    exit_drops_locks,
    ofd_locks_belong_to_the_description,
    ofd_and_record_locks_conflict,
    flock_belongs_to_the_description,
    flock_upgrade_and_conflict,
    flock_is_inherited_by_fork,
    flock_checks,
    flock_waits,
]);

const OFD_GETLK: i32 = 36;
const OFD_SETLK: i32 = 37;

fn lock(fd: i32, command: i32, kind: i32, start: i64, len: i64) -> Result<libc::flock, SysError> {
    let mut lock: libc::flock = zeroed();
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = len;
    sys!(fcntl(fd, command, &raw mut lock))?;
    Ok(lock)
}

fn set(fd: i32, kind: i32, start: i64, len: i64) -> Result<libc::flock, SysError> {
    lock(fd, libc::F_SETLK, kind, start, len)
}

/// Whether another process could write-lock the range.
fn free_for_others(fd: i32, start: i64, len: i64) -> CaseResult<bool> {
    let child = fork_child(|| match lock(fd, libc::F_GETLK, libc::F_WRLCK, start, len) {
        Ok(found) if found.l_type == libc::F_UNLCK as i16 => 0,
        Ok(_) => 1,
        Err(_) => 2,
    })?;
    match wait_for(child)? {
        Ended::Exited(0) => Ok(true),
        Ended::Exited(1) => Ok(false),
        other => Err(format!("F_GETLK: {other:?}").into()),
    }
}

fn record_lock_excludes_other_processes() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    set(fd, libc::F_WRLCK, 10, 10)?;
    in_child(|| {
        expect_errno!(set(fd, libc::F_WRLCK, 15, 1), libc::EAGAIN);
        expect_errno!(set(fd, libc::F_RDLCK, 0, 11), libc::EAGAIN);
        set(fd, libc::F_WRLCK, 0, 10)?;
        set(fd, libc::F_WRLCK, 20, 0)?;
        Ok(())
    })
}

fn shared_record_locks_share() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    set(fd, libc::F_RDLCK, 0, 10)?;
    in_child(|| {
        set(fd, libc::F_RDLCK, 5, 10)?;
        expect_errno!(set(fd, libc::F_WRLCK, 5, 10), libc::EAGAIN);
        set(fd, libc::F_WRLCK, 10, 5)?;
        Ok(())
    })
}

fn getlk_tells_who() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    set(fd, libc::F_WRLCK, 100, 50)?;
    let me = std::process::id() as i32;
    in_child(|| {
        let found = lock(fd, libc::F_GETLK, libc::F_RDLCK, 0, 0)?;
        check_eq!((found.l_start, found.l_len, found.l_pid), (100, 50, me));
        check_eq!(found.l_type, libc::F_WRLCK as i16);
        let none = lock(fd, libc::F_GETLK, libc::F_RDLCK, 0, 100)?;
        check_eq!((none.l_type, none.l_start, none.l_len), (libc::F_UNLCK as i16, 0, 100));
        Ok(())
    })?;
    // One's own lock is never in one's way.
    check_eq!(lock(fd, libc::F_GETLK, libc::F_WRLCK, 0, 0)?.l_type, libc::F_UNLCK as i16);
    Ok(())
}

fn ranges_split_and_merge() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    set(fd, libc::F_WRLCK, 0, 30)?;
    set(fd, libc::F_UNLCK, 10, 10)?;
    let free = [0, 9, 10, 19, 20, 29, 30].map(|at| free_for_others(fd, at, 1));
    let mut seen = Vec::new();
    for outcome in free {
        seen.push(outcome?);
    }
    check_eq!(seen, [false, false, true, true, false, false, true]);
    set(fd, libc::F_WRLCK, 10, 10)?;
    let merged = in_child(|| {
        let found = lock(fd, libc::F_GETLK, libc::F_WRLCK, 5, 1)?;
        check_eq!((found.l_start, found.l_len), (0, 30));
        Ok(())
    });
    merged?;
    // A length of 0 reaches to the end, whatever that will be; a negative one lies before the start.
    set(fd, libc::F_UNLCK, 0, 0)?;
    check!(free_for_others(fd, 0, 0)?);
    set(fd, libc::F_WRLCK, 30, -10)?;
    check!(!free_for_others(fd, 20, 10)? && free_for_others(fd, 30, 0)? && free_for_others(fd, 0, 20)?);
    Ok(())
}

fn own_locks_replace_each_other() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    set(fd, libc::F_WRLCK, 0, 10)?;
    set(fd, libc::F_RDLCK, 0, 10)?;
    in_child(|| set(fd, libc::F_RDLCK, 0, 10).map(drop).map_err(Into::into))?;
    set(fd, libc::F_WRLCK, 0, 5)?;
    check!(!free_for_others(fd, 7, 1)?);
    Ok(())
}

fn close_of_any_descriptor_drops_record_locks() -> CaseResult {
    let f = create(c"f", b"")?;
    set(f.as_raw_fd(), libc::F_WRLCK, 0, 0)?;
    check!(!free_for_others(f.as_raw_fd(), 0, 0)?);
    drop(open(c"f", libc::O_RDONLY, 0)?);
    check!(free_for_others(f.as_raw_fd(), 0, 0)?);
    Ok(())
}

fn fork_does_not_inherit_record_locks() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    set(fd, libc::F_WRLCK, 0, 0)?;
    in_child(|| {
        expect_errno!(set(fd, libc::F_RDLCK, 0, 1), libc::EAGAIN);
        // Nor does a child's close drop its parent's.
        sys!(close(sys!(dup(fd))? as i32))?;
        Ok(())
    })?;
    check!(!free_for_others(fd, 0, 0)?);
    Ok(())
}

fn setlkw_waits_until_unlocked() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    let words = shared_words()?;
    set(fd, libc::F_WRLCK, 0, 0)?;
    let child = fork_child(|| {
        post(&words[0]);
        if lock(fd, libc::F_SETLKW, libc::F_WRLCK, 0, 0).is_err() {
            return 1;
        }
        i32::from(words[1].load(std::sync::atomic::Ordering::SeqCst) != 1) * 2
    })?;
    wait_for_word(&words[0], 1);
    words[1].store(1, std::sync::atomic::Ordering::SeqCst);
    set(fd, libc::F_UNLCK, 0, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn setlkw_deadlock_is_edeadlk() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    let words = shared_words()?;
    set(fd, libc::F_WRLCK, 0, 1)?;
    let child = fork_child(|| {
        if set(fd, libc::F_WRLCK, 1, 1).is_err() {
            return 1;
        }
        post(&words[0]);
        // One of the two finds the circle; this one gives way either way.
        let _ = lock(fd, libc::F_SETLKW, libc::F_WRLCK, 0, 1);
        0
    })?;
    wait_for_word(&words[0], 1);
    let mine = lock(fd, libc::F_SETLKW, libc::F_WRLCK, 1, 1);
    set(fd, libc::F_UNLCK, 0, 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check!(mine.is_ok() || mine.is_err_and(|error| error.errno == libc::EDEADLK));
    Ok(())
}

fn setlkw_is_interrupted_by_a_signal() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    set(fd, libc::F_WRLCK, 0, 0)?;
    in_child(|| {
        count_signal(libc::SIGALRM, 0)?;
        let timer = libc::itimerval {
            it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
            it_value: libc::timeval { tv_sec: 0, tv_usec: 5000 },
        };
        sys!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()))?;
        expect_errno!(lock(fd, libc::F_SETLKW, libc::F_WRLCK, 0, 0), libc::EINTR);
        check_eq!(counted(), 1);
        Ok(())
    })
}

fn lock_checks() -> CaseResult {
    let f = create(c"f", b"")?;
    let reader = open(c"f", libc::O_RDONLY, 0)?;
    let writer = open(c"f", libc::O_WRONLY, 0)?;
    expect_errno!(set(reader.as_raw_fd(), libc::F_WRLCK, 0, 0), libc::EBADF);
    expect_errno!(set(writer.as_raw_fd(), libc::F_RDLCK, 0, 0), libc::EBADF);
    expect_errno!(set(f.as_raw_fd(), 77, 0, 0), libc::EINVAL);
    expect_errno!(set(f.as_raw_fd(), libc::F_WRLCK, -1, 0), libc::EINVAL);
    expect_errno!(set(f.as_raw_fd(), libc::F_WRLCK, 0, -1), libc::EINVAL);
    expect_errno!(set(f.as_raw_fd(), libc::F_WRLCK, i64::MAX, 2), libc::EOVERFLOW);
    expect_errno!(sys!(fcntl(f.as_raw_fd(), libc::F_SETLK, 8)), libc::EFAULT);
    let path = open(c"f", libc::O_PATH, 0)?;
    expect_errno!(set(path.as_raw_fd(), libc::F_WRLCK, 0, 0), libc::EBADF);
    Ok(())
}

fn exit_drops_locks() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    let child = fork_child(|| i32::from(set(fd, libc::F_WRLCK, 0, 0).is_err()))?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    set(fd, libc::F_WRLCK, 0, 0)?;
    Ok(())
}

fn ofd_locks_belong_to_the_description() -> CaseResult {
    let a = create(c"f", b"")?;
    let b = open(c"f", libc::O_RDWR, 0)?;
    lock(a.as_raw_fd(), OFD_SETLK, libc::F_WRLCK, 0, 10)?;
    expect_errno!(lock(b.as_raw_fd(), OFD_SETLK, libc::F_WRLCK, 5, 1), libc::EAGAIN);
    let found = lock(b.as_raw_fd(), OFD_GETLK, libc::F_WRLCK, 0, 0)?;
    check_eq!((found.l_pid, found.l_start, found.l_len), (-1, 0, 10));
    // Closing one of two descriptors keeps it, and so does another open of the file.
    let copy = owned(sys!(dup(a.as_raw_fd()))?);
    drop(a);
    drop(open(c"f", libc::O_RDWR, 0)?);
    expect_errno!(lock(b.as_raw_fd(), OFD_SETLK, libc::F_WRLCK, 5, 1), libc::EAGAIN);
    drop(copy);
    lock(b.as_raw_fd(), OFD_SETLK, libc::F_WRLCK, 5, 1)?;
    Ok(())
}

fn ofd_and_record_locks_conflict() -> CaseResult {
    let a = create(c"f", b"")?;
    lock(a.as_raw_fd(), OFD_SETLK, libc::F_WRLCK, 0, 10)?;
    // Even of one process.
    expect_errno!(set(a.as_raw_fd(), libc::F_WRLCK, 0, 1), libc::EAGAIN);
    let mut with_pid: libc::flock = zeroed();
    with_pid.l_pid = 5;
    expect_errno!(sys!(fcntl(a.as_raw_fd(), OFD_SETLK, &raw mut with_pid)), libc::EINVAL);
    Ok(())
}

fn flock(fd: i32, operation: i32) -> Result<i64, SysError> {
    sys!(flock(fd, operation | libc::LOCK_NB))
}

fn flock_belongs_to_the_description() -> CaseResult {
    let a = create(c"f", b"")?;
    let b = open(c"f", libc::O_RDONLY, 0)?;
    flock(a.as_raw_fd(), libc::LOCK_EX)?;
    expect_errno!(flock(b.as_raw_fd(), libc::LOCK_SH), libc::EAGAIN);
    let copy = owned(sys!(dup(a.as_raw_fd()))?);
    flock(copy.as_raw_fd(), libc::LOCK_EX)?;
    drop(a);
    expect_errno!(flock(b.as_raw_fd(), libc::LOCK_EX), libc::EAGAIN);
    drop(copy);
    flock(b.as_raw_fd(), libc::LOCK_EX)?;
    // It has nothing to do with record locks.
    set(open(c"f", libc::O_RDWR, 0)?.as_raw_fd(), libc::F_WRLCK, 0, 0)?;
    Ok(())
}

fn flock_upgrade_and_conflict() -> CaseResult {
    let a = create(c"f", b"")?;
    let b = open(c"f", libc::O_RDONLY, 0)?;
    flock(a.as_raw_fd(), libc::LOCK_SH)?;
    flock(b.as_raw_fd(), libc::LOCK_SH)?;
    expect_errno!(flock(a.as_raw_fd(), libc::LOCK_EX), libc::EAGAIN);
    sys!(flock(b.as_raw_fd(), libc::LOCK_UN))?;
    flock(a.as_raw_fd(), libc::LOCK_EX)?;
    expect_errno!(flock(b.as_raw_fd(), libc::LOCK_SH), libc::EAGAIN);
    flock(a.as_raw_fd(), libc::LOCK_SH)?;
    flock(b.as_raw_fd(), libc::LOCK_SH)?;
    Ok(())
}

fn flock_is_inherited_by_fork() -> CaseResult {
    let a = create(c"f", b"")?;
    flock(a.as_raw_fd(), libc::LOCK_EX)?;
    let fd = a.as_raw_fd();
    // A child that unlocks, unlocks for its parent too.
    let child = fork_child(|| i32::from(sys!(flock(fd, libc::LOCK_UN)).is_err()))?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    flock(open(c"f", libc::O_RDONLY, 0)?.as_raw_fd(), libc::LOCK_EX)?;
    Ok(())
}

fn flock_checks() -> CaseResult {
    let a = create(c"f", b"")?;
    expect_errno!(sys!(flock(a.as_raw_fd(), 0)), libc::EINVAL);
    expect_errno!(sys!(flock(a.as_raw_fd(), libc::LOCK_SH | libc::LOCK_EX)), libc::EINVAL);
    expect_errno!(sys!(flock(-1, libc::LOCK_SH)), libc::EBADF);
    let path = open(c"f", libc::O_PATH, 0)?;
    expect_errno!(sys!(flock(path.as_raw_fd(), libc::LOCK_SH)), libc::EBADF);
    sys!(flock(a.as_raw_fd(), libc::LOCK_UN))?;
    let dir = open(c".", libc::O_RDONLY, 0)?;
    flock(dir.as_raw_fd(), libc::LOCK_EX)?;
    Ok(())
}

fn flock_waits() -> CaseResult {
    let a = create(c"f", b"")?;
    flock(a.as_raw_fd(), libc::LOCK_EX)?;
    let words = shared_words()?;
    let child = fork_child(|| {
        let Ok(b) = open(c"f", libc::O_RDONLY, 0) else { return 1 };
        post(&words[0]);
        if sys!(flock(b.as_raw_fd(), libc::LOCK_EX)).is_err() {
            return 2;
        }
        i32::from(words[1].load(std::sync::atomic::Ordering::SeqCst) != 1) * 3
    })?;
    wait_for_word(&words[0], 1);
    words[1].store(1, std::sync::atomic::Ordering::SeqCst);
    sys!(flock(a.as_raw_fd(), libc::LOCK_UN))?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}
