//! poll(2), ppoll(2), select(2), pselect6(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::signal::{block, blocked, count_signal, counted, holds, set_of};
use crate::sys::{monotonic_ns, open, owned, pipe, raw, sys, write, zeroed};
use crate::util::{create, me, mkdir, poll_one, read_some, timespec};
use std::os::fd::AsRawFd;

topic!(polls: [
    nothing_ready_times_out,
    files_and_directories_are_always_ready,
    closed_descriptor_is_pollnval,
    negative_descriptors_are_skipped,
    counts_ready_entries,
    same_descriptor_twice,
    wakes_on_a_write_of_another,
    wakes_on_hang_up,
    signal_is_eintr_and_never_restarted,
    ppoll_swaps_the_mask,
    ppoll_writes_back_what_is_left,
    ppoll_checks_arguments,
    too_many_entries_is_einval,
    select_clears_what_is_not_ready,
    select_of_a_closed_descriptor_is_ebadf,
    select_ignores_bits_beyond_nfds,
    select_writes_back_what_is_left,
    pselect_swaps_the_mask,
    pending_signal_with_unblocking_mask_wins,
    thousand_descriptors,
]);

fn nothing_ready_times_out() -> CaseResult {
    let (reader, _writer) = pipe(0)?;
    let start = monotonic_ns();
    check_eq!(poll_one(reader.as_raw_fd(), libc::POLLIN, 5)?, 0);
    let took = monotonic_ns() - start;
    check!(took >= 5_000_000, "took {took} ns");
    check_eq!(sys!(poll(std::ptr::null_mut(), 0, 1))?, 0);
    Ok(())
}

fn files_and_directories_are_always_ready() -> CaseResult {
    let file = create(c"f", b"")?;
    mkdir(c"d")?;
    let dir = open(c"d", libc::O_RDONLY, 0)?;
    let all = libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM | libc::POLLPRI;
    let always = libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM;
    check_eq!(poll_one(file.as_raw_fd(), all, 0)?, always);
    check_eq!(poll_one(dir.as_raw_fd(), all, 0)?, always);
    let null = open(c"/dev/null", libc::O_RDONLY, 0)?;
    check_eq!(poll_one(null.as_raw_fd(), all, 0)?, always);
    check_eq!(poll_one(file.as_raw_fd(), 0, 0)?, 0);
    Ok(())
}

fn closed_descriptor_is_pollnval() -> CaseResult {
    let fd = create(c"f", b"")?.as_raw_fd();
    check_eq!(poll_one(fd, libc::POLLIN, -1)?, libc::POLLNVAL);
    let path = open(c"f", libc::O_PATH, 0)?;
    check_eq!(poll_one(path.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLNVAL);
    Ok(())
}

fn negative_descriptors_are_skipped() -> CaseResult {
    let mut entry = libc::pollfd { fd: -7, events: libc::POLLIN, revents: 0x55 };
    check_eq!(sys!(poll(&mut entry, 1, 0))?, 0);
    check_eq!(entry.revents, 0);
    Ok(())
}

fn counts_ready_entries() -> CaseResult {
    let (a_reader, a_writer) = pipe(0)?;
    let (b_reader, _b_writer) = pipe(0)?;
    write(a_writer.as_raw_fd(), b"x")?;
    let entry = |fd, events| libc::pollfd { fd, events, revents: -1 };
    let mut entries = [
        entry(a_reader.as_raw_fd(), libc::POLLIN),
        entry(b_reader.as_raw_fd(), libc::POLLIN),
        entry(a_writer.as_raw_fd(), libc::POLLOUT),
    ];
    check_eq!(sys!(poll(entries.as_mut_ptr(), 3, -1))?, 2);
    check_eq!(entries.map(|e| e.revents), [libc::POLLIN, 0, libc::POLLOUT]);
    Ok(())
}

fn same_descriptor_twice() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    write(writer.as_raw_fd(), b"x")?;
    let entry = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut entries = [entry, entry];
    check_eq!(sys!(poll(entries.as_mut_ptr(), 2, -1))?, 2);
    Ok(())
}

fn wakes_on_a_write_of_another() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let (back_reader, back_writer) = pipe(0)?;
    let child = fork_child(|| {
        for _ in 0..50 {
            if poll_one(reader.as_raw_fd(), libc::POLLIN, -1) != Ok(libc::POLLIN)
                || read_some(reader.as_raw_fd(), 1).is_err()
                || write(back_writer.as_raw_fd(), b"y").is_err()
            {
                return 1;
            }
        }
        0
    })?;
    for _ in 0..50 {
        write(writer.as_raw_fd(), b"x")?;
        check_eq!(poll_one(back_reader.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLIN);
        read_some(back_reader.as_raw_fd(), 1)?;
    }
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn wakes_on_hang_up() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let child = fork_child(|| 0)?;
    drop(writer);
    // Whether the child has gone or not yet: its end closes at the latest when it exits.
    check_eq!(poll_one(reader.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLHUP);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn alarm_in(us: i64) -> CaseResult {
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: us },
    };
    sys!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()))?;
    Ok(())
}

fn signal_is_eintr_and_never_restarted() -> CaseResult {
    count_signal(libc::SIGALRM, libc::SA_RESTART)?;
    let (reader, _writer) = pipe(0)?;
    alarm_in(5000)?;
    expect_errno!(poll_one(reader.as_raw_fd(), libc::POLLIN, -1), libc::EINTR);
    alarm_in(5000)?;
    let mut set: libc::fd_set = zeroed();
    sys!(poll(std::ptr::null_mut(), 0, 0))?;
    // SAFETY: the set is valid and the descriptor small.
    unsafe { libc::FD_SET(reader.as_raw_fd(), &mut set) };
    let nfds = reader.as_raw_fd() + 1;
    let none = std::ptr::null_mut();
    expect_errno!(sys!(select(nfds, &mut set, none, none, std::ptr::null_mut())), libc::EINTR);
    check_eq!(counted(), 2);
    Ok(())
}

fn ppoll_swaps_the_mask() -> CaseResult {
    count_signal(libc::SIGUSR1, 0)?;
    block(&[libc::SIGUSR1])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    let empty = set_of(&[]);
    let none = std::ptr::null_mut::<libc::pollfd>();
    expect_errno!(raw!(SYS_ppoll(none, 0, 0, &raw const empty, 8)), libc::EINTR);
    check_eq!(counted(), 1);
    check!(holds(&blocked()?, libc::SIGUSR1));
    Ok(())
}

fn ppoll_writes_back_what_is_left() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    write(writer.as_raw_fd(), b"x")?;
    let mut entry = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut timeout = timespec(100_000_000_000);
    check_eq!(raw!(SYS_ppoll(&raw mut entry, 1, &raw mut timeout, 0, 8))?, 1);
    check!(timeout.tv_sec == 99 || timeout.tv_sec == 100);
    let mut timeout = timespec(1_000_000);
    check_eq!(raw!(SYS_ppoll(&raw mut entry, 0, &raw mut timeout, 0, 8))?, 0);
    check_eq!((timeout.tv_sec, timeout.tv_nsec), (0, 0));
    Ok(())
}

fn ppoll_checks_arguments() -> CaseResult {
    let none = std::ptr::null_mut::<libc::pollfd>();
    for bad in [libc::timespec { tv_sec: -1, tv_nsec: 0 }, libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }] {
        expect_errno!(raw!(SYS_ppoll(none, 0, &raw const bad, 0, 8)), libc::EINVAL);
    }
    let set = set_of(&[]);
    expect_errno!(raw!(SYS_ppoll(none, 0, 0, &raw const set, 16)), libc::EINVAL);
    expect_errno!(raw!(SYS_ppoll(8, 1, 0, 0, 8)), libc::EFAULT);
    expect_errno!(raw!(SYS_poll(8, 1, 0)), libc::EFAULT);
    Ok(())
}

fn too_many_entries_is_einval() -> CaseResult {
    let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
    let mut entries = vec![libc::pollfd { fd: -1, events: 0, revents: 0 }; 65];
    let child = fork_child(|| {
        let _ = sys!(setrlimit(libc::RLIMIT_NOFILE, &limit));
        let more = sys!(poll(entries.as_mut_ptr(), 65, 0)).map_err(|e| e.errno);
        i32::from(more != Err(libc::EINVAL) || sys!(poll(entries.as_mut_ptr(), 64, 0)) != Ok(0))
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

/// A set as select(2) takes it.
fn fd_set(fds: &[i32]) -> libc::fd_set {
    let mut set: libc::fd_set = zeroed();
    for fd in fds {
        // SAFETY: the set is valid and the descriptors are below FD_SETSIZE.
        unsafe { libc::FD_SET(*fd, &mut set) };
    }
    set
}

fn in_set(set: &libc::fd_set, fd: i32) -> bool {
    // SAFETY: as above.
    unsafe { libc::FD_ISSET(fd, set) }
}

fn select_clears_what_is_not_ready() -> CaseResult {
    let (a_reader, a_writer) = pipe(0)?;
    let (b_reader, _b_writer) = pipe(0)?;
    let (a, b, w) = (a_reader.as_raw_fd(), b_reader.as_raw_fd(), a_writer.as_raw_fd());
    write(w, b"x")?;
    let (mut readers, mut writers, mut others) = (fd_set(&[a, b]), fd_set(&[w]), fd_set(&[a, b, w]));
    let nfds = a.max(b).max(w) + 1;
    check_eq!(sys!(select(nfds, &mut readers, &mut writers, &mut others, std::ptr::null_mut()))?, 2);
    check!(in_set(&readers, a) && !in_set(&readers, b) && in_set(&writers, w));
    check!(!in_set(&others, a) && !in_set(&others, b) && !in_set(&others, w));
    Ok(())
}

fn select_of_a_closed_descriptor_is_ebadf() -> CaseResult {
    let fd = create(c"f", b"")?.as_raw_fd();
    let mut set = fd_set(&[fd]);
    let none = std::ptr::null_mut();
    expect_errno!(sys!(select(fd + 1, &mut set, none, none, std::ptr::null_mut())), libc::EBADF);
    expect_errno!(sys!(select(-1, none, none, none, std::ptr::null_mut())), libc::EINVAL);
    Ok(())
}

fn select_ignores_bits_beyond_nfds() -> CaseResult {
    let file = create(c"f", b"")?;
    let mut set = fd_set(&[file.as_raw_fd(), 900]);
    let mut zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let none = std::ptr::null_mut();
    check_eq!(sys!(select(file.as_raw_fd() + 1, &mut set, none, none, &mut zero))?, 1);
    check!(in_set(&set, file.as_raw_fd()));
    Ok(())
}

fn select_writes_back_what_is_left() -> CaseResult {
    let none = std::ptr::null_mut();
    let mut timeout = libc::timeval { tv_sec: 0, tv_usec: 2000 };
    check_eq!(sys!(select(0, none, none, none, &mut timeout))?, 0);
    check_eq!((timeout.tv_sec, timeout.tv_usec), (0, 0));
    let mut bad = libc::timeval { tv_sec: -1, tv_usec: 0 };
    expect_errno!(sys!(select(0, none, none, none, &mut bad)), libc::EINVAL);
    Ok(())
}

fn pselect_swaps_the_mask() -> CaseResult {
    count_signal(libc::SIGUSR1, 0)?;
    block(&[libc::SIGUSR1])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    let none = std::ptr::null_mut();
    expect_errno!(sys!(pselect(0, none, none, none, std::ptr::null(), &set_of(&[]))), libc::EINTR);
    check_eq!(counted(), 1);
    check!(holds(&blocked()?, libc::SIGUSR1));
    Ok(())
}

fn pending_signal_with_unblocking_mask_wins() -> CaseResult {
    // Something is ready and a signal is pending: the call reports what is ready, and the handler runs.
    count_signal(libc::SIGUSR1, 0)?;
    block(&[libc::SIGUSR1])?;
    sys!(kill(me(), libc::SIGUSR1))?;
    let file = create(c"f", b"")?;
    let mut entry = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let empty = set_of(&[]);
    check_eq!(raw!(SYS_ppoll(&raw mut entry, 1, 0, &raw const empty, 8))?, 1);
    // The mask is back before the handler could run, when the call did not end by the signal.
    check!(counted() == 0 || counted() == 1);
    check!(holds(&blocked()?, libc::SIGUSR1));
    Ok(())
}

fn thousand_descriptors() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let mut copies = Vec::new();
    for _ in 0..800 {
        copies.push(owned(sys!(dup(reader.as_raw_fd()))?));
    }
    let mut entries: Vec<libc::pollfd> = copies
        .iter()
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    check_eq!(sys!(poll(entries.as_mut_ptr(), 800, 0))?, 0);
    write(writer.as_raw_fd(), b"x")?;
    check_eq!(sys!(poll(entries.as_mut_ptr(), 800, -1))?, 800);
    Ok(())
}
