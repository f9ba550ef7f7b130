//! eventfd(2), timerfd_create(2), signalfd(2), memfd_create(2), pidfd_open(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::memory::{PAGE, RW, map, poke, protect, unmap};
use crate::signal::{block, holds, pending, set_of};
use crate::sys::{SysError, fstat, open, owned, pipe, raw, sys, write, zeroed};
use crate::util::{clock_ns, me, poll_one, pread, read_some, set_nonblock, timespec};
use std::os::fd::{AsRawFd, OwnedFd};

topic!(eventfds: [
    eventfd_adds_and_resets,
    eventfd_semaphore_takes_one,
    eventfd_overflow_blocks,
    eventfd_small_buffers_are_einval,
    eventfd_flags_and_poll,
    eventfd_wakes_another_process,
    timerfd_counts_expirations,
    timerfd_absolute_in_the_past_fires_at_once,
    timerfd_gettime_and_disarm,
    timerfd_checks,
    timerfd_read_waits,
    signalfd_reads_pending_signals,
    signalfd_of_several_and_mask_change,
    signalfd_queue_value,
    signalfd_checks,
    signalfd_poll,
    memfd_is_a_file,
    memfd_seals_write_shrink_grow,
    memfd_seal_of_write_with_a_mapping_is_ebusy,
    memfd_future_write,
    memfd_without_sealing_is_sealed,
    memfd_names_and_flags,
    pidfd_polls_and_signals,
    pidfd_of_nobody_is_esrch,
]);

fn eventfd(value: u32, flags: i32) -> Result<OwnedFd, SysError> {
    sys!(eventfd(value, flags)).map(owned)
}

fn take(fd: &OwnedFd) -> Result<u64, SysError> {
    let mut value = [0u8; 8];
    crate::sys::read(fd.as_raw_fd(), &mut value)?;
    Ok(u64::from_ne_bytes(value))
}

fn put(fd: &OwnedFd, value: u64) -> Result<usize, SysError> {
    write(fd.as_raw_fd(), &value.to_ne_bytes())
}

fn eventfd_adds_and_resets() -> CaseResult {
    let fd = eventfd(3, libc::EFD_NONBLOCK)?;
    put(&fd, 4)?;
    put(&fd, 0)?;
    check_eq!(take(&fd)?, 7);
    expect_errno!(take(&fd), libc::EAGAIN);
    Ok(())
}

fn eventfd_semaphore_takes_one() -> CaseResult {
    let fd = eventfd(2, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK)?;
    check_eq!((take(&fd)?, take(&fd)?), (1, 1));
    expect_errno!(take(&fd), libc::EAGAIN);
    Ok(())
}

fn eventfd_overflow_blocks() -> CaseResult {
    let fd = eventfd(1, libc::EFD_NONBLOCK)?;
    put(&fd, u64::MAX - 2)?;
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLOUT | libc::POLLIN, 0)?, libc::POLLIN);
    expect_errno!(put(&fd, 1), libc::EAGAIN);
    expect_errno!(put(&fd, u64::MAX), libc::EINVAL);
    check_eq!(take(&fd)?, u64::MAX - 1);
    Ok(())
}

fn eventfd_small_buffers_are_einval() -> CaseResult {
    let fd = eventfd(1, 0)?;
    expect_errno!(read_some(fd.as_raw_fd(), 7), libc::EINVAL);
    expect_errno!(write(fd.as_raw_fd(), &[0; 7]), libc::EINVAL);
    check_eq!(read_some(fd.as_raw_fd(), 100)?.len(), 8);
    // Its position is always 0.
    check_eq!(sys!(lseek(fd.as_raw_fd(), 5, libc::SEEK_SET))?, 0);
    Ok(())
}

fn eventfd_flags_and_poll() -> CaseResult {
    let fd = eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)?;
    check_eq!(sys!(fcntl(fd.as_raw_fd(), libc::F_GETFD))?, 1);
    check_eq!(sys!(fcntl(fd.as_raw_fd(), libc::F_GETFL))? as i32, libc::O_RDWR | libc::O_NONBLOCK);
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLOUT | libc::POLLIN, 0)?, libc::POLLOUT);
    put(&fd, 1)?;
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLOUT | libc::POLLIN, 0)?, libc::POLLIN | libc::POLLOUT);
    expect_errno!(sys!(eventfd(0, 0x100)), libc::EINVAL);
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    check_eq!(link.to_string_lossy(), "anon_inode:[eventfd]");
    Ok(())
}

fn eventfd_wakes_another_process() -> CaseResult {
    let (ping, pong) = (eventfd(0, 0)?, eventfd(0, 0)?);
    let child = fork_child(|| i32::from((0..100).any(|_| take(&ping) != Ok(1) || put(&pong, 2) != Ok(8))))?;
    for _ in 0..100 {
        put(&ping, 1)?;
        check_eq!(take(&pong)?, 2);
    }
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn timerfd(clock: i32, flags: i32) -> Result<OwnedFd, SysError> {
    sys!(timerfd_create(clock, flags)).map(owned)
}

fn set_timer(fd: &OwnedFd, flags: i32, value_ns: u64, interval_ns: u64) -> Result<libc::itimerspec, SysError> {
    let new = libc::itimerspec { it_interval: timespec(interval_ns), it_value: timespec(value_ns) };
    let mut old: libc::itimerspec = zeroed();
    sys!(timerfd_settime(fd.as_raw_fd(), flags, &new, &mut old))?;
    Ok(old)
}

fn timerfd_counts_expirations() -> CaseResult {
    let fd = timerfd(libc::CLOCK_MONOTONIC, 0)?;
    set_timer(&fd, 0, 1_000_000, 1_000_000)?;
    check!(take(&fd)? >= 1);
    // A pause that is no wait for anything: several periods go by unread.
    let until = clock_ns(libc::CLOCK_MONOTONIC)? + 5_000_000;
    while clock_ns(libc::CLOCK_MONOTONIC)? < until {}
    let count = take(&fd)?;
    check!(count >= 4, "{count} expirations in 5 periods");
    set_nonblock(fd.as_raw_fd())?;
    set_timer(&fd, 0, 10_000_000_000, 0)?;
    // Setting it anew forgets what it has counted.
    expect_errno!(take(&fd), libc::EAGAIN);
    Ok(())
}

fn timerfd_absolute_in_the_past_fires_at_once() -> CaseResult {
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME] {
        let fd = timerfd(clock, libc::TFD_NONBLOCK)?;
        set_timer(&fd, libc::TFD_TIMER_ABSTIME, 1, 0)?;
        check_eq!(poll_one(fd.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLIN);
        check_eq!(take(&fd)?, 1);
        expect_errno!(take(&fd), libc::EAGAIN);
    }
    Ok(())
}

fn timerfd_gettime_and_disarm() -> CaseResult {
    let fd = timerfd(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK)?;
    set_timer(&fd, 0, 100_000_000_000, 7_000_000_000)?;
    let mut now: libc::itimerspec = zeroed();
    sys!(timerfd_gettime(fd.as_raw_fd(), &mut now))?;
    check!(matches!(now.it_value.tv_sec, 99 | 100) && now.it_interval.tv_sec == 7);
    let old = set_timer(&fd, 0, 0, 0)?;
    check!(matches!(old.it_value.tv_sec, 99 | 100) && old.it_interval.tv_sec == 7);
    sys!(timerfd_gettime(fd.as_raw_fd(), &mut now))?;
    check_eq!((now.it_value.tv_sec, now.it_value.tv_nsec), (0, 0));
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLIN, 0)?, 0);
    Ok(())
}

fn timerfd_checks() -> CaseResult {
    expect_errno!(timerfd(99, 0), libc::EINVAL);
    expect_errno!(timerfd(libc::CLOCK_MONOTONIC, 0x100), libc::EINVAL);
    expect_errno!(timerfd(libc::CLOCK_PROCESS_CPUTIME_ID, 0), libc::EINVAL);
    let fd = timerfd(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC)?;
    let bad = libc::itimerspec {
        it_interval: timespec(0),
        it_value: libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 },
    };
    expect_errno!(sys!(timerfd_settime(fd.as_raw_fd(), 0, &bad, std::ptr::null_mut())), libc::EINVAL);
    expect_errno!(set_timer(&fd, 0x100, 1, 0), libc::EINVAL);
    expect_errno!(set_timer(&eventfd(0, 0)?, 0, 1, 0), libc::EINVAL);
    expect_errno!(read_some(fd.as_raw_fd(), 4), libc::EINVAL);
    expect_errno!(write(fd.as_raw_fd(), &[0; 8]), libc::EINVAL);
    Ok(())
}

fn timerfd_read_waits() -> CaseResult {
    let fd = timerfd(libc::CLOCK_MONOTONIC, 0)?;
    let start = clock_ns(libc::CLOCK_MONOTONIC)?;
    set_timer(&fd, 0, 5_000_000, 0)?;
    check_eq!(take(&fd)?, 1);
    check!(clock_ns(libc::CLOCK_MONOTONIC)? - start >= 5_000_000);
    Ok(())
}

fn signalfd(signals: &[i32], fd: i32) -> Result<i64, SysError> {
    let set = set_of(signals);
    raw!(SYS_signalfd4(fd, &raw const set, 8, libc::SFD_NONBLOCK))
}

fn read_siginfo(fd: &OwnedFd) -> Result<libc::signalfd_siginfo, SysError> {
    let mut info: libc::signalfd_siginfo = zeroed();
    sys!(read(fd.as_raw_fd(), (&raw mut info).cast(), 128))?;
    Ok(info)
}

fn signalfd_reads_pending_signals() -> CaseResult {
    block(&[libc::SIGUSR1, libc::SIGUSR2])?;
    let fd = owned(signalfd(&[libc::SIGUSR1], -1)?);
    expect_errno!(read_siginfo(&fd), libc::EAGAIN);
    sys!(kill(me(), libc::SIGUSR1))?;
    sys!(kill(me(), libc::SIGUSR2))?;
    let info = read_siginfo(&fd)?;
    check_eq!((info.ssi_signo as i32, info.ssi_code), (libc::SIGUSR1, libc::SI_USER));
    check_eq!((info.ssi_pid as i32, info.ssi_uid), (me(), 0));
    check!(!holds(&pending()?, libc::SIGUSR1) && holds(&pending()?, libc::SIGUSR2));
    expect_errno!(read_siginfo(&fd), libc::EAGAIN);
    Ok(())
}

fn signalfd_of_several_and_mask_change() -> CaseResult {
    let signals = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP];
    block(&signals)?;
    let fd = owned(signalfd(&[libc::SIGUSR1], -1)?);
    for signal in signals {
        sys!(kill(me(), signal))?;
    }
    check_eq!(read_some(fd.as_raw_fd(), 512)?.len(), 128);
    signalfd(&signals, fd.as_raw_fd())?;
    check_eq!(read_some(fd.as_raw_fd(), 512)?.len(), 256);
    Ok(())
}

fn signalfd_queue_value() -> CaseResult {
    block(&[40])?;
    let fd = owned(signalfd(&[40], -1)?);
    sys!(sigqueue(me(), 40, libc::sigval { sival_ptr: 0x1234_5678 as *mut libc::c_void }))?;
    let info = read_siginfo(&fd)?;
    check_eq!((info.ssi_code, info.ssi_int, info.ssi_ptr), (libc::SI_QUEUE, 0x1234_5678, 0x1234_5678));
    Ok(())
}

fn signalfd_checks() -> CaseResult {
    let set = set_of(&[libc::SIGUSR1]);
    expect_errno!(raw!(SYS_signalfd4(-1, &raw const set, 16, 0)), libc::EINVAL);
    expect_errno!(raw!(SYS_signalfd4(-1, &raw const set, 8, 0x100)), libc::EINVAL);
    expect_errno!(raw!(SYS_signalfd4(-1, 8, 8, 0)), libc::EFAULT);
    expect_errno!(signalfd(&[libc::SIGUSR1], 999), libc::EBADF);
    let other = eventfd(0, 0)?;
    expect_errno!(signalfd(&[libc::SIGUSR1], other.as_raw_fd()), libc::EINVAL);
    let fd = owned(signalfd(&[libc::SIGUSR1], -1)?);
    expect_errno!(read_some(fd.as_raw_fd(), 127), libc::EINVAL);
    Ok(())
}

fn signalfd_poll() -> CaseResult {
    block(&[libc::SIGUSR1])?;
    let fd = owned(signalfd(&[libc::SIGUSR1], -1)?);
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLIN, 0)?, 0);
    let parent = me();
    let child = fork_child(|| i32::from(sys!(kill(parent, libc::SIGUSR1)).is_err()))?;
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLIN);
    check_eq!(read_siginfo(&fd)?.ssi_pid as i32, child);
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn memfd(flags: u32) -> Result<OwnedFd, SysError> {
    sys!(memfd_create(c"name".as_ptr(), flags)).map(owned)
}

fn memfd_is_a_file() -> CaseResult {
    let fd = memfd(libc::MFD_CLOEXEC)?;
    write(fd.as_raw_fd(), b"contents")?;
    check_eq!(pread(fd.as_raw_fd(), 0, 100)?, b"contents");
    let st = fstat(fd.as_raw_fd())?;
    check_eq!((st.st_mode, st.st_size, st.st_nlink), (libc::S_IFREG | 0o777, 8, 0));
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    check_eq!(link.to_string_lossy(), "/memfd:name (deleted)");
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    check_eq!(read_some(open(&path, libc::O_RDONLY, 0)?.as_raw_fd(), 3)?, b"con");
    Ok(())
}

fn seal(fd: &OwnedFd, seals: i32) -> Result<i64, SysError> {
    sys!(fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals))
}

fn memfd_seals_write_shrink_grow() -> CaseResult {
    let fd = memfd(libc::MFD_ALLOW_SEALING)?;
    let raw_fd = fd.as_raw_fd();
    check_eq!(sys!(fcntl(raw_fd, libc::F_GET_SEALS))?, 0);
    write(raw_fd, &[1; 100])?;
    seal(&fd, libc::F_SEAL_SHRINK)?;
    expect_errno!(sys!(ftruncate(raw_fd, 50)), libc::EPERM);
    sys!(ftruncate(raw_fd, 200))?;
    seal(&fd, libc::F_SEAL_GROW)?;
    expect_errno!(sys!(ftruncate(raw_fd, 300)), libc::EPERM);
    expect_errno!(sys!(pwrite(raw_fd, [0u8; 9].as_ptr().cast(), 9, 4096)), libc::EPERM);
    sys!(pwrite(raw_fd, [2u8; 9].as_ptr().cast(), 9, 0))?;
    seal(&fd, libc::F_SEAL_WRITE)?;
    expect_errno!(sys!(pwrite(raw_fd, [0u8; 9].as_ptr().cast(), 9, 0)), libc::EPERM);
    expect_errno!(map(PAGE, RW, libc::MAP_SHARED, raw_fd, 0), libc::EPERM);
    map(PAGE, RW, libc::MAP_PRIVATE, raw_fd, 0)?;
    seal(&fd, libc::F_SEAL_SEAL)?;
    expect_errno!(seal(&fd, libc::F_SEAL_WRITE), libc::EPERM);
    let all = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    check_eq!(sys!(fcntl(raw_fd, libc::F_GET_SEALS))? as i32, all);
    Ok(())
}

fn memfd_seal_of_write_with_a_mapping_is_ebusy() -> CaseResult {
    let fd = memfd(libc::MFD_ALLOW_SEALING)?;
    sys!(ftruncate(fd.as_raw_fd(), PAGE as i64))?;
    let memory = map(PAGE, RW, libc::MAP_SHARED, fd.as_raw_fd(), 0)?;
    expect_errno!(seal(&fd, libc::F_SEAL_WRITE), libc::EBUSY);
    unmap(memory, PAGE)?;
    seal(&fd, libc::F_SEAL_WRITE)?;
    let memory = map(PAGE, libc::PROT_READ, libc::MAP_SHARED, fd.as_raw_fd(), 0)?;
    expect_errno!(protect(memory, PAGE, RW), libc::EACCES);
    Ok(())
}

fn memfd_future_write() -> CaseResult {
    const FUTURE_WRITE: i32 = 0x10;
    let fd = memfd(libc::MFD_ALLOW_SEALING)?;
    sys!(ftruncate(fd.as_raw_fd(), PAGE as i64))?;
    let memory = map(PAGE, RW, libc::MAP_SHARED, fd.as_raw_fd(), 0)?;
    seal(&fd, FUTURE_WRITE)?;
    poke(memory, 0, 7);
    check_eq!(pread(fd.as_raw_fd(), 0, 1)?, [7]);
    expect_errno!(write(fd.as_raw_fd(), b"x"), libc::EPERM);
    expect_errno!(map(PAGE, RW, libc::MAP_SHARED, fd.as_raw_fd(), 0), libc::EPERM);
    Ok(())
}

fn memfd_without_sealing_is_sealed() -> CaseResult {
    let fd = memfd(0)?;
    check_eq!(sys!(fcntl(fd.as_raw_fd(), libc::F_GET_SEALS))? as i32, libc::F_SEAL_SEAL);
    expect_errno!(seal(&fd, libc::F_SEAL_WRITE), libc::EPERM);
    let sealing = memfd(libc::MFD_ALLOW_SEALING)?;
    expect_errno!(seal(&sealing, 0x1000), libc::EINVAL);
    let event = eventfd(0, 0)?;
    expect_errno!(seal(&event, libc::F_SEAL_WRITE), libc::EINVAL);
    Ok(())
}

fn memfd_names_and_flags() -> CaseResult {
    let long = std::ffi::CString::new(vec![b'n'; 249])?;
    owned(sys!(memfd_create(long.as_ptr(), 0))?);
    let longer = std::ffi::CString::new(vec![b'n'; 250])?;
    expect_errno!(sys!(memfd_create(longer.as_ptr(), 0)), libc::EINVAL);
    expect_errno!(sys!(memfd_create(c"x".as_ptr(), 0x400)), libc::EINVAL);
    expect_errno!(raw!(SYS_memfd_create(8, 0)), libc::EFAULT);
    let fd = memfd(libc::MFD_CLOEXEC)?;
    check_eq!(sys!(fcntl(fd.as_raw_fd(), libc::F_GETFD))?, 1);
    Ok(())
}

fn pidfd_polls_and_signals() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let writer_fd = writer.as_raw_fd();
    let child = fork_child(|| {
        let _ = sys!(close(writer_fd));
        let _ = read_some(reader.as_raw_fd(), 1);
        3
    })?;
    let fd = owned(raw!(SYS_pidfd_open(child, 0))?);
    check_eq!(sys!(fcntl(fd.as_raw_fd(), libc::F_GETFD))?, 1);
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLIN, 0)?, 0);
    raw!(SYS_pidfd_send_signal(fd.as_raw_fd(), 0, 0, 0))?;
    raw!(SYS_pidfd_send_signal(fd.as_raw_fd(), libc::SIGTERM, 0, 0))?;
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLIN);
    let mut info: libc::siginfo_t = zeroed();
    sys!(waitid(libc::P_PIDFD, fd.as_raw_fd() as u32, &mut info, libc::WEXITED))?;
    check_eq!(info.si_code, libc::CLD_KILLED);
    expect_errno!(raw!(SYS_pidfd_send_signal(fd.as_raw_fd(), 0, 0, 0)), libc::ESRCH);
    Ok(())
}

fn pidfd_of_nobody_is_esrch() -> CaseResult {
    let child = fork_child(|| 0)?;
    wait_for(child)?;
    expect_errno!(raw!(SYS_pidfd_open(child, 0)), libc::ESRCH);
    expect_errno!(raw!(SYS_pidfd_open(0, 0)), libc::EINVAL);
    expect_errno!(raw!(SYS_pidfd_open(me(), 0x1)), libc::EINVAL);
    let event = eventfd(0, 0)?;
    expect_errno!(raw!(SYS_pidfd_send_signal(event.as_raw_fd(), 0, 0, 0)), libc::EBADF);
    Ok(())
}
