//! epoll(7).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::sys::{SysError, open, owned, pipe, raw, sys, write};
use crate::util::{create, read_some};
use std::os::fd::{AsRawFd, OwnedFd};

topic!(epolls: [
    level_triggered_reports_again,
    edge_triggered_reports_once,
    edge_triggered_again_on_new_data,
    oneshot_is_off_until_modified,
    data_comes_back,
    hang_up_is_reported_unasked,
    ctl_errors,
    regular_file_is_eperm,
    closed_descriptor_leaves_the_set,
    duplicate_keeps_the_set_entry,
    same_file_by_two_descriptors,
    maxevents_rotates,
    wait_checks_arguments,
]);

pub(super) fn new() -> Result<OwnedFd, SysError> {
    sys!(epoll_create1(libc::EPOLL_CLOEXEC)).map(owned)
}

pub(super) fn ctl(ep: &OwnedFd, op: i32, fd: i32, events: i32, data: u64) -> Result<i64, SysError> {
    let mut event = libc::epoll_event { events: events as u32, u64: data };
    sys!(epoll_ctl(ep.as_raw_fd(), op, fd, &mut event))
}

pub(super) fn add(ep: &OwnedFd, fd: i32, events: i32, data: u64) -> Result<i64, SysError> {
    ctl(ep, libc::EPOLL_CTL_ADD, fd, events, data)
}

/// (events, data) of what is ready.
fn wait_max(ep: &OwnedFd, max: usize, timeout_ms: i32) -> Result<Vec<(i32, u64)>, SysError> {
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; max];
    let n = sys!(epoll_wait(ep.as_raw_fd(), events.as_mut_ptr(), max as i32, timeout_ms))?;
    Ok(events[..n as usize].iter().map(|event| (event.events as i32, event.u64)).collect())
}

pub(super) fn wait(ep: &OwnedFd, timeout_ms: i32) -> Result<Vec<(i32, u64)>, SysError> {
    wait_max(ep, 16, timeout_ms)
}

fn level_triggered_reports_again() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN, 1)?;
    check_eq!(wait(&ep, 0)?, []);
    write(writer.as_raw_fd(), b"xy")?;
    for _ in 0..3 {
        check_eq!(wait(&ep, -1)?, [(libc::EPOLLIN, 1)]);
    }
    read_some(reader.as_raw_fd(), 2)?;
    check_eq!(wait(&ep, 0)?, []);
    Ok(())
}

fn edge_triggered_reports_once() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    write(writer.as_raw_fd(), b"early")?;
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET, 1)?;
    check_eq!(wait(&ep, 0)?, [(libc::EPOLLIN, 1)]);
    check_eq!(wait(&ep, 0)?, []);
    // Reading a part of it is no edge.
    read_some(reader.as_raw_fd(), 1)?;
    check_eq!(wait(&ep, 0)?, []);
    Ok(())
}

fn edge_triggered_again_on_new_data() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET, 1)?;
    for _ in 0..3 {
        // New data is an edge even when the old has not been read.
        write(writer.as_raw_fd(), b"x")?;
        check_eq!(wait(&ep, 0)?, [(libc::EPOLLIN, 1)]);
        check_eq!(wait(&ep, 0)?, []);
    }
    drop(writer);
    check_eq!(wait(&ep, 0)?, [(libc::EPOLLIN | libc::EPOLLHUP, 1)]);
    Ok(())
}

fn oneshot_is_off_until_modified() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    let events = libc::EPOLLIN | libc::EPOLLONESHOT;
    add(&ep, reader.as_raw_fd(), events, 1)?;
    write(writer.as_raw_fd(), b"x")?;
    check_eq!(wait(&ep, 0)?, [(libc::EPOLLIN, 1)]);
    check_eq!(wait(&ep, 0)?, []);
    write(writer.as_raw_fd(), b"x")?;
    check_eq!(wait(&ep, 0)?, []);
    ctl(&ep, libc::EPOLL_CTL_MOD, reader.as_raw_fd(), events, 2)?;
    check_eq!(wait(&ep, 0)?, [(libc::EPOLLIN, 2)]);
    drop(writer);
    check_eq!(wait(&ep, 0)?, []);
    Ok(())
}

fn data_comes_back() -> CaseResult {
    let (ep, (a, b)) = (new()?, pipe(0)?);
    add(&ep, b.as_raw_fd(), libc::EPOLLOUT, 0xdead_beef_0123_4567)?;
    add(&ep, a.as_raw_fd(), libc::EPOLLIN, u64::MAX)?;
    write(b.as_raw_fd(), b"x")?;
    let mut ready = wait(&ep, 0)?;
    ready.sort_unstable();
    check_eq!(ready, [(libc::EPOLLIN, u64::MAX), (libc::EPOLLOUT, 0xdead_beef_0123_4567)]);
    Ok(())
}

fn hang_up_is_reported_unasked() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    add(&ep, reader.as_raw_fd(), 0, 1)?;
    drop(writer);
    check_eq!(wait(&ep, -1)?, [(libc::EPOLLHUP, 1)]);
    let (reader, writer) = pipe(0)?;
    add(&ep, writer.as_raw_fd(), 0, 2)?;
    drop(reader);
    check!(wait(&ep, -1)?.contains(&(libc::EPOLLERR, 2)));
    Ok(())
}

fn ctl_errors() -> CaseResult {
    let (ep, (reader, _writer)) = (new()?, pipe(0)?);
    let fd = reader.as_raw_fd();
    expect_errno!(ctl(&ep, libc::EPOLL_CTL_MOD, fd, 0, 0), libc::ENOENT);
    expect_errno!(ctl(&ep, libc::EPOLL_CTL_DEL, fd, 0, 0), libc::ENOENT);
    add(&ep, fd, libc::EPOLLIN, 0)?;
    expect_errno!(add(&ep, fd, libc::EPOLLIN, 0), libc::EEXIST);
    expect_errno!(add(&ep, -1, 0, 0), libc::EBADF);
    expect_errno!(add(&ep, 12_345, 0, 0), libc::EBADF);
    expect_errno!(add(&ep, ep.as_raw_fd(), 0, 0), libc::EINVAL);
    expect_errno!(ctl(&ep, 77, fd, 0, 0), libc::EINVAL);
    expect_errno!(add(&reader, ep.as_raw_fd(), 0, 0), libc::EINVAL);
    expect_errno!(raw!(SYS_epoll_ctl(ep.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, 8)), libc::EFAULT);
    // A deletion does not look at the event.
    raw!(SYS_epoll_ctl(ep.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, 8))?;
    expect_errno!(sys!(epoll_create1(1)), libc::EINVAL);
    expect_errno!(raw!(SYS_epoll_create(0)), libc::EINVAL);
    Ok(())
}

fn regular_file_is_eperm() -> CaseResult {
    let ep = new()?;
    let file = create(c"f", b"")?;
    expect_errno!(add(&ep, file.as_raw_fd(), libc::EPOLLIN, 0), libc::EPERM);
    let dir = open(c".", libc::O_RDONLY, 0)?;
    expect_errno!(add(&ep, dir.as_raw_fd(), libc::EPOLLIN, 0), libc::EPERM);
    Ok(())
}

fn closed_descriptor_leaves_the_set() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN, 1)?;
    write(writer.as_raw_fd(), b"x")?;
    let fd = reader.as_raw_fd();
    drop(reader);
    check_eq!(wait(&ep, 0)?, []);
    // The number may be used anew.
    let (again, _writer) = pipe(0)?;
    check_eq!(again.as_raw_fd(), fd);
    add(&ep, fd, libc::EPOLLIN, 2)?;
    Ok(())
}

fn duplicate_keeps_the_set_entry() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    let fd = reader.as_raw_fd();
    add(&ep, fd, libc::EPOLLIN, 1)?;
    let copy = owned(sys!(dup(fd))?);
    drop(reader);
    write(writer.as_raw_fd(), b"x")?;
    // The open file description lives on, and with it the entry, under the old number.
    check_eq!(wait(&ep, 0)?, [(libc::EPOLLIN, 1)]);
    expect_errno!(ctl(&ep, libc::EPOLL_CTL_DEL, fd, 0, 0), libc::EBADF);
    drop(copy);
    check_eq!(wait(&ep, 0)?, []);
    Ok(())
}

fn same_file_by_two_descriptors() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    let copy = owned(sys!(dup(reader.as_raw_fd()))?);
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN, 1)?;
    add(&ep, copy.as_raw_fd(), libc::EPOLLIN, 2)?;
    write(writer.as_raw_fd(), b"x")?;
    check_eq!(wait(&ep, 0)?.len(), 2);
    Ok(())
}

fn maxevents_rotates() -> CaseResult {
    let ep = new()?;
    let pipes: Vec<_> = (0..4).map(|_| pipe(0)).collect::<Result<_, _>>()?;
    for (at, (reader, writer)) in pipes.iter().enumerate() {
        add(&ep, reader.as_raw_fd(), libc::EPOLLIN, at as u64)?;
        write(writer.as_raw_fd(), b"x")?;
    }
    let mut seen = [0; 4];
    for _ in 0..8 {
        for (_, data) in wait_max(&ep, 1, 0)? {
            seen[data as usize] += 1;
        }
    }
    check_eq!(seen, [2; 4]);
    Ok(())
}

fn wait_checks_arguments() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let fd = ep.as_raw_fd();
    for max in [0, -1] {
        expect_errno!(sys!(epoll_wait(fd, &mut event, max, 0)), libc::EINVAL);
    }
    expect_errno!(sys!(epoll_wait(reader.as_raw_fd(), &mut event, 1, 0)), libc::EINVAL);
    expect_errno!(sys!(epoll_wait(-1, &mut event, 1, 0)), libc::EBADF);
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET, 5)?;
    write(writer.as_raw_fd(), b"x")?;
    expect_errno!(raw!(SYS_epoll_wait(fd, 8, 1, 0)), libc::EFAULT);
    // The event is not lost by that.
    check_eq!(wait(&ep, 0)?, [(libc::EPOLLIN, 5)]);
    Ok(())
}
