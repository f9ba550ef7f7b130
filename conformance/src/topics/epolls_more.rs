//! epoll(7): instances in instances, waiting, masks, sharing.

use super::epolls::{new, ctl, add, wait};
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::signal::{block, blocked, count_signal, counted, holds, set_of};
use crate::sys::{monotonic_ns, owned, pipe, raw, sys, write};
use crate::util::{me, poll_one, read_some, timespec};
use std::os::fd::AsRawFd;

topic!(epolls_more: [
    times_out,
    nested_instances,
    nested_loop_is_eloop,
    pollable_itself,
    exclusive_is_allowed_at_add_only,
    exclusive_wakes_at_least_one,
    pwait_swaps_the_mask,
    pwait2_takes_nanoseconds,
    modified_to_a_ready_event_wakes_the_waiter,
    deleted_entry_is_silent,
    instance_is_shared_by_fork,
    signal_is_eintr,
    eventfd_write_is_an_edge_each_time,
]);

fn times_out() -> CaseResult {
    let (ep, (reader, _writer)) = (new()?, pipe(0)?);
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN, 1)?;
    let start = monotonic_ns();
    check_eq!(wait(&ep, 5)?, []);
    check!(monotonic_ns() - start >= 5_000_000);
    Ok(())
}

fn nested_instances() -> CaseResult {
    let (outer, inner, (reader, writer)) = (new()?, new()?, pipe(0)?);
    add(&inner, reader.as_raw_fd(), libc::EPOLLIN, 1)?;
    add(&outer, inner.as_raw_fd(), libc::EPOLLIN, 2)?;
    check_eq!(wait(&outer, 0)?, []);
    write(writer.as_raw_fd(), b"x")?;
    check_eq!(wait(&outer, -1)?, [(libc::EPOLLIN, 2)]);
    check_eq!(wait(&inner, 0)?, [(libc::EPOLLIN, 1)]);
    read_some(reader.as_raw_fd(), 1)?;
    check_eq!(wait(&outer, 0)?, []);
    Ok(())
}

fn nested_loop_is_eloop() -> CaseResult {
    let (a, b) = (new()?, new()?);
    add(&a, b.as_raw_fd(), libc::EPOLLIN, 0)?;
    expect_errno!(add(&b, a.as_raw_fd(), libc::EPOLLIN, 0), libc::ELOOP);
    let chain: Vec<_> = (0..7).map(|_| new()).collect::<Result<_, _>>()?;
    let mut depth = 0;
    for pair in chain.windows(2) {
        if add(&pair[1], pair[0].as_raw_fd(), libc::EPOLLIN, 0).is_err() {
            break;
        }
        depth += 1;
    }
    check_eq!(depth, 4);
    Ok(())
}

fn pollable_itself() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN, 1)?;
    check_eq!(poll_one(ep.as_raw_fd(), libc::POLLIN, 0)?, 0);
    write(writer.as_raw_fd(), b"x")?;
    check_eq!(poll_one(ep.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLIN);
    expect_errno!(read_some(ep.as_raw_fd(), 8), libc::EINVAL);
    expect_errno!(write(ep.as_raw_fd(), b"x"), libc::EINVAL);
    Ok(())
}

fn exclusive_is_allowed_at_add_only() -> CaseResult {
    let (ep, inner, (reader, _writer)) = (new()?, new()?, pipe(0)?);
    let exclusive = libc::EPOLLEXCLUSIVE;
    expect_errno!(
        add(&ep, reader.as_raw_fd(), libc::EPOLLIN | exclusive | libc::EPOLLONESHOT, 0),
        libc::EINVAL
    );
    expect_errno!(add(&ep, inner.as_raw_fd(), libc::EPOLLIN | exclusive, 0), libc::EINVAL);
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN | exclusive | libc::EPOLLET, 0)?;
    expect_errno!(ctl(&ep, libc::EPOLL_CTL_MOD, reader.as_raw_fd(), libc::EPOLLIN, 0), libc::EINVAL);
    Ok(())
}

fn exclusive_wakes_at_least_one() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let (done_reader, done_writer) = pipe(0)?;
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(fork_child(|| {
            let Ok(ep) = new() else { return 1 };
            if add(&ep, reader.as_raw_fd(), libc::EPOLLIN | libc::EPOLLEXCLUSIVE, 0).is_err() {
                return 2;
            }
            let _ = wait(&ep, -1);
            let _ = read_some(reader.as_raw_fd(), 1);
            let _ = write(done_writer.as_raw_fd(), b"d");
            0
        })?);
    }
    for _ in 0..3 {
        write(writer.as_raw_fd(), b"x")?;
        check_eq!(read_some(done_reader.as_raw_fd(), 1)?, b"d");
    }
    for child in children {
        check_eq!(wait_for(child)?, Ended::Exited(0));
    }
    Ok(())
}

fn pwait_swaps_the_mask() -> CaseResult {
    count_signal(libc::SIGUSR1, 0)?;
    block(&[libc::SIGUSR1])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    let ep = new()?;
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    expect_errno!(sys!(epoll_pwait(ep.as_raw_fd(), &mut event, 1, -1, &set_of(&[]))), libc::EINTR);
    check_eq!(counted(), 1);
    check!(holds(&blocked()?, libc::SIGUSR1));
    Ok(())
}

fn pwait2_takes_nanoseconds() -> CaseResult {
    let ep = new()?;
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let pwait2 = |timeout: *const libc::timespec, event: *mut libc::epoll_event| {
        raw!(SYS_epoll_pwait2(ep.as_raw_fd(), event, 1, timeout, 0, 8))
    };
    let start = monotonic_ns();
    check_eq!(pwait2(&timespec(2_500_000), &mut event)?, 0);
    check!(monotonic_ns() - start >= 2_500_000);
    let bad = libc::timespec { tv_sec: 0, tv_nsec: -1 };
    expect_errno!(pwait2(&bad, &mut event), libc::EINVAL);
    Ok(())
}

fn modified_to_a_ready_event_wakes_the_waiter() -> CaseResult {
    let (ep, (_reader, writer)) = (new()?, pipe(0)?);
    add(&ep, writer.as_raw_fd(), 0, 1)?;
    check_eq!(wait(&ep, 0)?, []);
    let child = fork_child(|| i32::from(wait(&ep, -1) != Ok(vec![(libc::EPOLLOUT, 2)])))?;
    ctl(&ep, libc::EPOLL_CTL_MOD, writer.as_raw_fd(), libc::EPOLLOUT, 2)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn deleted_entry_is_silent() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN, 1)?;
    write(writer.as_raw_fd(), b"x")?;
    ctl(&ep, libc::EPOLL_CTL_DEL, reader.as_raw_fd(), 0, 0)?;
    check_eq!(wait(&ep, 0)?, []);
    add(&ep, reader.as_raw_fd(), libc::EPOLLIN, 3)?;
    check_eq!(wait(&ep, 0)?, [(libc::EPOLLIN, 3)]);
    Ok(())
}

fn instance_is_shared_by_fork() -> CaseResult {
    let (ep, (reader, writer)) = (new()?, pipe(0)?);
    let child = fork_child(|| i32::from(add(&ep, reader.as_raw_fd(), libc::EPOLLIN, 9).is_err()))?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    write(writer.as_raw_fd(), b"x")?;
    check_eq!(wait(&ep, 0)?, [(libc::EPOLLIN, 9)]);
    Ok(())
}

fn signal_is_eintr() -> CaseResult {
    count_signal(libc::SIGALRM, libc::SA_RESTART)?;
    let ep = new()?;
    let timer = libc::itimerval {
        // Again and again: the first may come before the wait.
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 5000 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 5000 },
    };
    sys!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()))?;
    expect_errno!(wait(&ep, -1), libc::EINTR);
    check!(counted() >= 1);
    Ok(())
}

fn eventfd_write_is_an_edge_each_time() -> CaseResult {
    let ep = new()?;
    let event = owned(sys!(eventfd(0, 0))?);
    add(&ep, event.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET, 1)?;
    for _ in 0..3 {
        write(event.as_raw_fd(), &1u64.to_ne_bytes())?;
        check_eq!(wait(&ep, 0)?, [(libc::EPOLLIN, 1)]);
    }
    check_eq!(wait(&ep, 0)?, []);
    Ok(())
}
