//! POSIX message queues: mq_overview(7).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, wait_for};
use crate::signal::{CODE, SENDER, VALUE, count_signal, record_signal};
use crate::sys::{SysError, pipe, raw, read, sys, write, zeroed};
use crate::util::{me, timespec};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

topic!(mqueues: [
    missing_queue_is_enoent,
    names_are_checked,
    exclusive_create_is_eexist,
    attributes_are_checked,
    default_attributes,
    attributes_given_and_read_back,
    highest_priority_first_then_oldest,
    small_buffer_is_emsgsize,
    long_message_is_emsgsize,
    priorities_are_bounded,
    full_and_empty_are_eagain,
    deadlines_are_etimedout,
    bad_timeouts_are_einval,
    access_mode_is_enforced,
    sender_waits_for_room,
    receiver_waits_for_a_message,
    signal_interrupts_a_receiver,
    poll_tells_room_and_messages,
    nonblock_is_the_only_flag_to_change,
    unlinked_queue_lives_on,
    descriptor_is_closed_by_exec,
    notify_sends_one_signal,
    notify_is_given_to_one_process,
    notify_checks_its_arguments,
    no_notification_while_a_receiver_waits,
    read_tells_the_state,
    stat_shows_mode_and_size,
    another_user_is_refused,
    limit_of_bytes_is_emfile,
    other_files_are_ebadf,
]);

const RW: i32 = libc::O_RDWR | libc::O_CREAT;

/// A queue, unlinked when the case ends.
struct Queue(OwnedFd, &'static CStr);

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = raw!(SYS_mq_unlink(self.1.as_ptr()));
    }
}

fn open(name: &CStr, flags: i32, mode: u32, attr: Option<(i64, i64)>) -> Result<OwnedFd, SysError> {
    let mut wire: libc::mq_attr = zeroed();
    let attr = attr.map(|(count, size)| {
        (wire.mq_maxmsg, wire.mq_msgsize) = (count, size);
        &raw const wire
    });
    let fd = raw!(SYS_mq_open(name.as_ptr(), flags, mode, attr.unwrap_or(std::ptr::null())))?;
    // SAFETY: the descriptor is new.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn queue(name: &'static CStr, count: i64, size: i64) -> Result<Queue, SysError> {
    let _ = raw!(SYS_mq_unlink(name.as_ptr()));
    Ok(Queue(open(name, RW, 0o600, Some((count, size)))?, name))
}

fn send(fd: &OwnedFd, text: &[u8], priority: u32, timeout: Option<&libc::timespec>) -> Result<i64, SysError> {
    let timeout = timeout.map_or(std::ptr::null(), std::ptr::from_ref);
    raw!(SYS_mq_timedsend(fd.as_raw_fd(), text.as_ptr(), text.len(), priority, timeout))
}

fn receive(fd: &OwnedFd, room: usize, timeout: Option<&libc::timespec>) -> Result<(Vec<u8>, u32), SysError> {
    let (mut text, mut priority) = (vec![0u8; room], 99u32);
    let timeout = timeout.map_or(std::ptr::null(), std::ptr::from_ref);
    let len =
        raw!(SYS_mq_timedreceive(fd.as_raw_fd(), text.as_mut_ptr(), room, &raw mut priority, timeout))?;
    text.truncate(len as usize);
    Ok((text, priority))
}

fn attributes(fd: &OwnedFd) -> Result<(i64, i64, i64, i64), SysError> {
    let mut old: libc::mq_attr = zeroed();
    raw!(SYS_mq_getsetattr(fd.as_raw_fd(), std::ptr::null::<u8>(), &raw mut old))?;
    Ok((old.mq_flags, old.mq_maxmsg, old.mq_msgsize, old.mq_curmsgs))
}

fn set_nonblock(fd: &OwnedFd, flags: i64) -> Result<i64, SysError> {
    let mut new: libc::mq_attr = zeroed();
    new.mq_flags = flags;
    raw!(SYS_mq_getsetattr(fd.as_raw_fd(), &raw const new, std::ptr::null::<u8>()))
}

fn notify(fd: &OwnedFd, how: i32, signal: i32, value: i32) -> Result<i64, SysError> {
    let mut event: libc::sigevent = zeroed();
    event.sigev_notify = how;
    event.sigev_signo = signal;
    event.sigev_value.sival_ptr = value as usize as *mut libc::c_void;
    raw!(SYS_mq_notify(fd.as_raw_fd(), &raw const event))
}

fn missing_queue_is_enoent() -> CaseResult {
    expect_errno!(open(c"mq.none", libc::O_RDWR, 0, None), libc::ENOENT);
    expect_errno!(raw!(SYS_mq_unlink(c"mq.none".as_ptr())), libc::ENOENT);
    Ok(())
}

fn names_are_checked() -> CaseResult {
    expect_errno!(open(c"", RW, 0o600, None), libc::ENOENT);
    for name in [c"/a", c"a/b", c".", c".."] {
        expect_errno!(open(name, RW, 0o600, None), libc::EACCES);
    }
    let long = std::ffi::CString::new(vec![b'x'; 256]).expect("no NUL");
    expect_errno!(open(&long, RW, 0o600, None), libc::ENAMETOOLONG);
    expect_errno!(raw!(SYS_mq_open(1, RW, 0o600, 0)), libc::EFAULT);
    Ok(())
}

fn exclusive_create_is_eexist() -> CaseResult {
    let q = queue(c"mq.excl", 2, 16)?;
    expect_errno!(open(q.1, RW | libc::O_EXCL, 0o600, None), libc::EEXIST);
    let again = open(q.1, RW, 0o600, Some((5, 5)))?;
    check_eq!(attributes(&again)?, (0, 2, 16, 0));
    Ok(())
}

fn attributes_are_checked() -> CaseResult {
    for (count, size) in [(0, 16), (-1, 16), (2, 0), (2, -1), (1 << 20, 16), (2, 1 << 30)] {
        expect_errno!(open(c"mq.attr", RW, 0o600, Some((count, size))), libc::EINVAL);
    }
    expect_errno!(raw!(SYS_mq_open(c"mq.attr".as_ptr(), RW, 0o600, 8)), libc::EFAULT);
    Ok(())
}

fn default_attributes() -> CaseResult {
    let _ = raw!(SYS_mq_unlink(c"mq.default".as_ptr()));
    let q = Queue(open(c"mq.default", RW | libc::O_NONBLOCK, 0o600, None)?, c"mq.default");
    check_eq!(attributes(&q.0)?, (i64::from(libc::O_NONBLOCK), 10, 8192, 0));
    Ok(())
}

fn attributes_given_and_read_back() -> CaseResult {
    let q = queue(c"mq.back", 3, 20)?;
    send(&q.0, b"abc", 0, None)?;
    check_eq!(attributes(&q.0)?, (0, 3, 20, 1));
    Ok(())
}

fn highest_priority_first_then_oldest() -> CaseResult {
    let q = queue(c"mq.prio", 8, 8)?;
    for (text, priority) in [(b"a", 1), (b"b", 9), (b"c", 1), (b"d", 32_767), (b"e", 9)] {
        send(&q.0, text, priority, None)?;
    }
    for (text, priority) in [(b"d", 32_767), (b"b", 9), (b"e", 9), (b"a", 1), (b"c", 1)] {
        check_eq!(receive(&q.0, 8, None)?, (text.to_vec(), priority));
    }
    send(&q.0, b"", 0, None)?;
    check_eq!(receive(&q.0, 8, None)?, (Vec::new(), 0));
    Ok(())
}

fn small_buffer_is_emsgsize() -> CaseResult {
    let q = queue(c"mq.small", 2, 16)?;
    send(&q.0, b"x", 0, None)?;
    expect_errno!(receive(&q.0, 15, None), libc::EMSGSIZE);
    check_eq!(receive(&q.0, 16, None)?.0, b"x");
    Ok(())
}

fn long_message_is_emsgsize() -> CaseResult {
    let q = queue(c"mq.long", 2, 4)?;
    expect_errno!(send(&q.0, b"12345", 0, None), libc::EMSGSIZE);
    expect_errno!(raw!(SYS_mq_timedsend(q.0.as_raw_fd(), 1, 4, 0, 0)), libc::EFAULT);
    Ok(())
}

fn priorities_are_bounded() -> CaseResult {
    let q = queue(c"mq.bound", 2, 4)?;
    expect_errno!(send(&q.0, b"1", 32_768, None), libc::EINVAL);
    expect_errno!(send(&q.0, b"1", u32::MAX, None), libc::EINVAL);
    Ok(())
}

fn full_and_empty_are_eagain() -> CaseResult {
    let q = queue(c"mq.full", 1, 4)?;
    set_nonblock(&q.0, i64::from(libc::O_NONBLOCK))?;
    expect_errno!(receive(&q.0, 4, None), libc::EAGAIN);
    send(&q.0, b"1", 0, None)?;
    expect_errno!(send(&q.0, b"2", 0, None), libc::EAGAIN);
    Ok(())
}

fn deadlines_are_etimedout() -> CaseResult {
    let q = queue(c"mq.late", 1, 4)?;
    let past = timespec(1_000_000);
    expect_errno!(receive(&q.0, 4, Some(&past)), libc::ETIMEDOUT);
    let soon = timespec(crate::util::clock_ns(libc::CLOCK_REALTIME)? as u64 + 20_000_000);
    expect_errno!(receive(&q.0, 4, Some(&soon)), libc::ETIMEDOUT);
    check!(crate::util::clock_ns(libc::CLOCK_REALTIME)? >= crate::util::nanoseconds(soon));
    send(&q.0, b"1", 0, Some(&past))?;
    expect_errno!(send(&q.0, b"2", 0, Some(&past)), libc::ETIMEDOUT);
    check_eq!(receive(&q.0, 4, Some(&past))?.0, b"1");
    Ok(())
}

fn bad_timeouts_are_einval() -> CaseResult {
    let q = queue(c"mq.bad", 1, 4)?;
    for (tv_sec, tv_nsec) in [(0, 1_000_000_000), (0, -1), (-1, 0)] {
        let bad = libc::timespec { tv_sec, tv_nsec };
        expect_errno!(send(&q.0, b"1", 0, Some(&bad)), libc::EINVAL);
        expect_errno!(receive(&q.0, 4, Some(&bad)), libc::EINVAL);
    }
    Ok(())
}

fn access_mode_is_enforced() -> CaseResult {
    let q = queue(c"mq.mode", 1, 4)?;
    let reader = open(q.1, libc::O_RDONLY, 0, None)?;
    expect_errno!(send(&reader, b"1", 0, None), libc::EBADF);
    let writer = open(q.1, libc::O_WRONLY, 0, None)?;
    expect_errno!(receive(&writer, 4, None), libc::EBADF);
    expect_errno!(open(q.1, libc::O_ACCMODE, 0, None), libc::EINVAL);
    Ok(())
}

fn sender_waits_for_room() -> CaseResult {
    let q = queue(c"mq.room", 1, 4)?;
    send(&q.0, b"1", 0, None)?;
    let child = fork_child(|| i32::from(send(&q.0, b"2", 5, None).is_err()))?;
    check_eq!(receive(&q.0, 4, None)?, (b"1".to_vec(), 0));
    check_eq!(receive(&q.0, 4, None)?, (b"2".to_vec(), 5));
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn receiver_waits_for_a_message() -> CaseResult {
    let q = queue(c"mq.wait", 1, 4)?;
    let child = fork_child(|| match receive(&q.0, 4, None) {
        Ok((text, 7)) if text == b"hi" => 0,
        _ => 1,
    })?;
    send(&q.0, b"hi", 7, None)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn signal_interrupts_a_receiver() -> CaseResult {
    let q = queue(c"mq.eintr", 1, 4)?;
    count_signal(libc::SIGALRM, 0)?;
    let every = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    sys!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()))?;
    expect_errno!(receive(&q.0, 4, None), libc::EINTR);
    Ok(())
}

fn poll_tells_room_and_messages() -> CaseResult {
    let q = queue(c"mq.poll", 1, 4)?;
    let poll = |timeout| -> Result<i16, SysError> {
        let mut entry = libc::pollfd { fd: q.0.as_raw_fd(), events: libc::POLLIN | libc::POLLOUT, revents: 0 };
        sys!(poll(&raw mut entry, 1, timeout))?;
        Ok(entry.revents)
    };
    check_eq!(poll(0)?, libc::POLLOUT);
    send(&q.0, b"1", 0, None)?;
    check_eq!(poll(0)?, libc::POLLIN);
    receive(&q.0, 4, None)?;
    check_eq!(poll(0)?, libc::POLLOUT);
    Ok(())
}

fn nonblock_is_the_only_flag_to_change() -> CaseResult {
    let q = queue(c"mq.flag", 1, 4)?;
    expect_errno!(set_nonblock(&q.0, i64::from(libc::O_APPEND)), libc::EINVAL);
    set_nonblock(&q.0, i64::from(libc::O_NONBLOCK))?;
    let flags = sys!(fcntl(q.0.as_raw_fd(), libc::F_GETFL))?;
    check!(flags as i32 & libc::O_NONBLOCK != 0);
    set_nonblock(&q.0, 0)?;
    check_eq!(attributes(&q.0)?.0, 0);
    Ok(())
}

fn unlinked_queue_lives_on() -> CaseResult {
    let q = queue(c"mq.gone", 1, 4)?;
    raw!(SYS_mq_unlink(q.1.as_ptr()))?;
    send(&q.0, b"1", 0, None)?;
    expect_errno!(open(q.1, libc::O_RDWR, 0, None), libc::ENOENT);
    let other = Queue(open(q.1, RW, 0o600, Some((1, 4)))?, q.1);
    check_eq!(attributes(&other.0)?.3, 0);
    check_eq!(receive(&q.0, 4, None)?.0, b"1");
    Ok(())
}

fn descriptor_is_closed_by_exec() -> CaseResult {
    let q = queue(c"mq.exec", 1, 4)?;
    check_eq!(sys!(fcntl(q.0.as_raw_fd(), libc::F_GETFD))?, i64::from(libc::FD_CLOEXEC));
    Ok(())
}

fn notify_sends_one_signal() -> CaseResult {
    let q = queue(c"mq.notify", 4, 4)?;
    record_signal(libc::SIGUSR1)?;
    notify(&q.0, libc::SIGEV_SIGNAL, libc::SIGUSR1, 77)?;
    send(&q.0, b"1", 0, None)?;
    check_eq!(CODE.load(Ordering::SeqCst), libc::SI_MESGQ);
    check_eq!(VALUE.load(Ordering::SeqCst), 77);
    check_eq!(SENDER.load(Ordering::SeqCst), me());
    // It was for one message, and a queue that is not empty tells nothing.
    notify(&q.0, libc::SIGEV_SIGNAL, libc::SIGUSR1, 78)?;
    send(&q.0, b"2", 0, None)?;
    check_eq!(VALUE.load(Ordering::SeqCst), 77);
    receive(&q.0, 4, None)?;
    receive(&q.0, 4, None)?;
    send(&q.0, b"3", 0, None)?;
    check_eq!(VALUE.load(Ordering::SeqCst), 78);
    Ok(())
}

fn notify_is_given_to_one_process() -> CaseResult {
    let q = queue(c"mq.busy", 4, 4)?;
    notify(&q.0, libc::SIGEV_NONE, 0, 0)?;
    expect_errno!(notify(&q.0, libc::SIGEV_NONE, 0, 0), libc::EBUSY);
    in_child(|| {
        // Taking back another's does nothing.
        raw!(SYS_mq_notify(q.0.as_raw_fd(), 0))?;
        expect_errno!(notify(&q.0, libc::SIGEV_NONE, 0, 0), libc::EBUSY);
        Ok(())
    })?;
    raw!(SYS_mq_notify(q.0.as_raw_fd(), 0))?;
    notify(&q.0, libc::SIGEV_NONE, 0, 0)?;
    // Closing any descriptor of the queue takes it back.
    drop(open(q.1, libc::O_RDONLY, 0, None)?);
    notify(&q.0, libc::SIGEV_NONE, 0, 0)?;
    Ok(())
}

fn notify_checks_its_arguments() -> CaseResult {
    let q = queue(c"mq.args", 4, 4)?;
    expect_errno!(notify(&q.0, libc::SIGEV_SIGNAL, 65, 0), libc::EINVAL);
    expect_errno!(notify(&q.0, 9, libc::SIGUSR1, 0), libc::EINVAL);
    expect_errno!(raw!(SYS_mq_notify(q.0.as_raw_fd(), 8)), libc::EFAULT);
    expect_errno!(raw!(SYS_mq_notify(-1, 0)), libc::EBADF);
    Ok(())
}

fn no_notification_while_a_receiver_waits() -> CaseResult {
    let q = queue(c"mq.taken", 4, 4)?;
    record_signal(libc::SIGUSR1)?;
    let (ready, starts) = pipe(0)?;
    let child = fork_child(|| {
        let _ = write(starts.as_raw_fd(), b"x");
        i32::from(receive(&q.0, 4, None).is_err())
    })?;
    read(ready.as_raw_fd(), &mut [0])?;
    // Until it sleeps in the call.
    let stat = format!("/proc/{child}/stat");
    while !std::fs::read_to_string(&stat)?.contains(") S ") {
        let _ = raw!(SYS_sched_yield());
    }
    notify(&q.0, libc::SIGEV_SIGNAL, libc::SIGUSR1, 5)?;
    send(&q.0, b"1", 0, None)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(VALUE.load(Ordering::SeqCst), 0);
    send(&q.0, b"2", 0, None)?;
    check_eq!(VALUE.load(Ordering::SeqCst), 5);
    Ok(())
}

fn read_tells_the_state() -> CaseResult {
    let q = queue(c"mq.text", 4, 8)?;
    send(&q.0, b"12345", 0, None)?;
    let mut text = [0; 100];
    let len = read(q.0.as_raw_fd(), &mut text)?;
    let want = "QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n";
    check_eq!(String::from_utf8_lossy(&text[..len]), want);
    check_eq!(read(q.0.as_raw_fd(), &mut text)?, 0);
    expect_errno!(write(q.0.as_raw_fd(), b"x"), libc::EINVAL);
    Ok(())
}

fn stat_shows_mode_and_size() -> CaseResult {
    sys!(umask(0o022))?;
    let _ = raw!(SYS_mq_unlink(c"mq.stat".as_ptr()));
    let q = Queue(open(c"mq.stat", RW, 0o666, None)?, c"mq.stat");
    let mut stat: libc::stat = zeroed();
    sys!(fstat(q.0.as_raw_fd(), &raw mut stat))?;
    check_eq!(stat.st_mode, libc::S_IFREG | 0o644);
    check_eq!((stat.st_size, stat.st_nlink, stat.st_uid), (80, 1, 0));
    raw!(SYS_mq_unlink(q.1.as_ptr()))?;
    sys!(fstat(q.0.as_raw_fd(), &raw mut stat))?;
    check_eq!(stat.st_nlink, 0);
    Ok(())
}

fn another_user_is_refused() -> CaseResult {
    let q = queue(c"mq.user", 4, 8)?;
    in_child(|| {
        sys!(setresgid(1000, 1000, 1000))?;
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(open(q.1, libc::O_RDWR, 0, None), libc::EACCES);
        expect_errno!(raw!(SYS_mq_unlink(q.1.as_ptr())), libc::EPERM);
        expect_errno!(open(c"mq.other", RW, 0o600, Some((11, 16))), libc::EINVAL);
        expect_errno!(open(c"mq.other", RW, 0o600, Some((2, 8193))), libc::EINVAL);
        let own = Queue(open(c"mq.other", RW, 0o600, Some((10, 8192)))?, c"mq.other");
        send(&own.0, b"1", 0, None)?;
        Ok(())
    })
}

fn limit_of_bytes_is_emfile() -> CaseResult {
    let limit = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
    sys!(setrlimit(libc::RLIMIT_MSGQUEUE, &raw const limit))?;
    expect_errno!(open(c"mq.limit", RW, 0o600, Some((2, 8192))), libc::EMFILE);
    let _small = queue(c"mq.limit", 2, 100)?;
    Ok(())
}

fn other_files_are_ebadf() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    expect_errno!(send(&writer, b"1", 0, None), libc::EBADF);
    expect_errno!(receive(&reader, 4, None), libc::EBADF);
    expect_errno!(attributes(&reader), libc::EBADF);
    expect_errno!(notify(&reader, libc::SIGEV_NONE, 0, 0), libc::EBADF);
    Ok(())
}
