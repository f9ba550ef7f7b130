//! dup(2), dup3(2), fcntl(2), close_range(2), ioctl(2) of every file, descriptor limits.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, wait_for};
use crate::sys::{open, owned, pipe, raw, sys, write};
use crate::util::{create, me, read_some};
use std::os::fd::AsRawFd;

topic!(fds: [
    dup_shares_the_offset_and_flags,
    separate_opens_share_nothing,
    dup2_closes_the_target,
    dup2_onto_itself,
    dup3_checks,
    dupfd_takes_the_lowest_from_a_bound,
    cloexec_is_of_the_descriptor,
    setfl_changes_only_some_flags,
    fork_shares_open_file_descriptions,
    fork_copies_the_table,
    close_checks,
    close_range_closes_and_marks,
    limit_is_emfile,
    limit_below_open_descriptors,
    fioclex_and_fionbio,
    fionread_of_a_file,
    unknown_ioctl_is_enotty,
    unknown_fcntl_is_einval,
    owner_of_signals,
    sigio_on_input,
    readv_of_bad_descriptor,
    proc_self_fd_lists_them,
    unshare_files_splits_the_table,
]);

fn offset(fd: i32) -> CaseResult<i64> {
    Ok(sys!(lseek(fd, 0, libc::SEEK_CUR))?)
}

fn dup_shares_the_offset_and_flags() -> CaseResult {
    let f = create(c"f", b"0123456789")?;
    let copy = owned(sys!(dup(f.as_raw_fd()))?);
    sys!(lseek(f.as_raw_fd(), 3, libc::SEEK_SET))?;
    check_eq!(read_some(copy.as_raw_fd(), 2)?, b"34");
    check_eq!(offset(f.as_raw_fd())?, 5);
    sys!(fcntl(copy.as_raw_fd(), libc::F_SETFL, libc::O_APPEND))?;
    check!(sys!(fcntl(f.as_raw_fd(), libc::F_GETFL))? as i32 & libc::O_APPEND != 0);
    Ok(())
}

fn separate_opens_share_nothing() -> CaseResult {
    let a = create(c"f", b"0123456789")?;
    let b = open(c"f", libc::O_RDONLY, 0)?;
    check_eq!((offset(a.as_raw_fd())?, offset(b.as_raw_fd())?), (10, 0));
    Ok(())
}

fn dup2_closes_the_target() -> CaseResult {
    let f = create(c"f", b"data")?;
    let (reader, writer) = pipe(0)?;
    let target = writer.as_raw_fd();
    check_eq!(sys!(dup2(f.as_raw_fd(), target))?, i64::from(target));
    check_eq!(read_some(reader.as_raw_fd(), 1)?, b"");
    check_eq!(crate::sys::fstat(target)?.st_size, 4);
    check_eq!(sys!(dup2(f.as_raw_fd(), 500))?, 500);
    sys!(close(500))?;
    Ok(())
}

fn dup2_onto_itself() -> CaseResult {
    let f = open(c"f", libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC, 0o644)?;
    let fd = f.as_raw_fd();
    check_eq!(sys!(dup2(fd, fd))?, i64::from(fd));
    check_eq!(sys!(fcntl(fd, libc::F_GETFD))?, 1);
    expect_errno!(sys!(dup2(999, 999)), libc::EBADF);
    expect_errno!(sys!(dup3(fd, fd, 0)), libc::EINVAL);
    Ok(())
}

fn dup3_checks() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    check_eq!(sys!(dup3(fd, 300, libc::O_CLOEXEC))?, 300);
    check_eq!(sys!(fcntl(300, libc::F_GETFD))?, 1);
    expect_errno!(sys!(dup3(fd, 301, libc::O_APPEND)), libc::EINVAL);
    expect_errno!(sys!(dup3(999, 301, 0)), libc::EBADF);
    expect_errno!(sys!(dup2(fd, -1)), libc::EBADF);
    expect_errno!(sys!(dup2(fd, 1 << 30)), libc::EBADF);
    sys!(close(300))?;
    Ok(())
}

fn dupfd_takes_the_lowest_from_a_bound() -> CaseResult {
    let f = create(c"f", b"")?;
    let a = owned(sys!(fcntl(f.as_raw_fd(), libc::F_DUPFD, 100))?);
    let b = owned(sys!(fcntl(f.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100))?);
    check_eq!((a.as_raw_fd(), b.as_raw_fd()), (100, 101));
    check_eq!(sys!(fcntl(100, libc::F_GETFD))?, 0);
    check_eq!(sys!(fcntl(101, libc::F_GETFD))?, 1);
    expect_errno!(sys!(fcntl(f.as_raw_fd(), libc::F_DUPFD, -1)), libc::EINVAL);
    expect_errno!(sys!(fcntl(f.as_raw_fd(), libc::F_DUPFD, 1 << 30)), libc::EINVAL);
    Ok(())
}

fn cloexec_is_of_the_descriptor() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    sys!(fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC))?;
    let copy = owned(sys!(dup(fd))?);
    check_eq!(sys!(fcntl(copy.as_raw_fd(), libc::F_GETFD))?, 0);
    check_eq!(sys!(fcntl(fd, libc::F_GETFD))?, 1);
    sys!(fcntl(fd, libc::F_SETFD, 0x100))?;
    check_eq!(sys!(fcntl(fd, libc::F_GETFD))?, 0);
    Ok(())
}

fn setfl_changes_only_some_flags() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    sys!(fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_TRUNC | libc::O_WRONLY | libc::O_EXCL))?;
    let flags = sys!(fcntl(fd, libc::F_GETFL))? as i32 & !0o100_000;
    check_eq!(flags, libc::O_RDWR | libc::O_NONBLOCK);
    write(fd, b"still here")?;
    expect_errno!(sys!(fcntl(999, libc::F_GETFL)), libc::EBADF);
    Ok(())
}

fn fork_shares_open_file_descriptions() -> CaseResult {
    let f = create(c"f", b"0123456789")?;
    sys!(lseek(f.as_raw_fd(), 0, libc::SEEK_SET))?;
    let child = fork_child(|| i32::from(read_some(f.as_raw_fd(), 4) != Ok(b"0123".to_vec())))?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(read_some(f.as_raw_fd(), 2)?, b"45");
    Ok(())
}

fn fork_copies_the_table() -> CaseResult {
    let f = create(c"f", b"")?;
    let fd = f.as_raw_fd();
    let child = fork_child(|| i32::from(sys!(close(fd)).is_err() || sys!(fcntl(fd, libc::F_GETFD)).is_ok()))?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(sys!(fcntl(fd, libc::F_GETFD))?, 0);
    Ok(())
}

fn close_checks() -> CaseResult {
    expect_errno!(raw!(SYS_close(-1)), libc::EBADF);
    expect_errno!(raw!(SYS_close(999)), libc::EBADF);
    expect_errno!(raw!(SYS_close(i32::MAX)), libc::EBADF);
    let fd = sys!(dup(0))? as i32;
    raw!(SYS_close(fd))?;
    expect_errno!(raw!(SYS_close(fd)), libc::EBADF);
    Ok(())
}

fn close_range_closes_and_marks() -> CaseResult {
    const CLOEXEC: u32 = 4;
    let f = create(c"f", b"")?;
    for fd in 200..210 {
        sys!(dup2(f.as_raw_fd(), fd))?;
    }
    raw!(SYS_close_range(203, 205, 0))?;
    let open_now: Vec<i32> = (200..210).filter(|fd| sys!(fcntl(*fd, libc::F_GETFD)).is_ok()).collect();
    check_eq!(open_now, [200, 201, 202, 206, 207, 208, 209]);
    raw!(SYS_close_range(206, 207, CLOEXEC))?;
    check_eq!(sys!(fcntl(206, libc::F_GETFD))?, 1);
    check_eq!(sys!(fcntl(208, libc::F_GETFD))?, 0);
    raw!(SYS_close_range(200, u32::MAX, 0))?;
    expect_errno!(sys!(fcntl(209, libc::F_GETFD)), libc::EBADF);
    expect_errno!(raw!(SYS_close_range(5, 4, 0)), libc::EINVAL);
    expect_errno!(raw!(SYS_close_range(500, 600, 0x100)), libc::EINVAL);
    Ok(())
}

fn limit_is_emfile() -> CaseResult {
    in_child(|| {
        let f = create(c"f", b"")?;
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        sys!(setrlimit(libc::RLIMIT_NOFILE, &limit))?;
        let mut last = 0;
        let refused = loop {
            match sys!(dup(f.as_raw_fd())) {
                Ok(fd) => last = fd,
                Err(error) => break error.errno,
            }
        };
        check_eq!((refused, last), (libc::EMFILE, 63));
        expect_errno!(open(c"f", libc::O_RDONLY, 0), libc::EMFILE);
        expect_errno!(pipe(0), libc::EMFILE);
        expect_errno!(sys!(fcntl(f.as_raw_fd(), libc::F_DUPFD, 64)), libc::EINVAL);
        expect_errno!(sys!(dup2(f.as_raw_fd(), 64)), libc::EBADF);
        expect_errno!(sys!(socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)), libc::EMFILE);
        // A file that could not be given a descriptor is not made either, or is: what counts is that nothing leaks.
        sys!(close(63))?;
        check_eq!(sys!(dup(f.as_raw_fd()))?, 63);
        Ok(())
    })
}

fn limit_below_open_descriptors() -> CaseResult {
    in_child(|| {
        let f = create(c"f", b"data")?;
        sys!(dup2(f.as_raw_fd(), 200))?;
        let limit = libc::rlimit { rlim_cur: 50, rlim_max: 50 };
        sys!(setrlimit(libc::RLIMIT_NOFILE, &limit))?;
        // What is open stays.
        check_eq!(crate::sys::fstat(200)?.st_size, 4);
        check_eq!(sys!(dup(200))? < 50, true);
        Ok(())
    })
}

fn fioclex_and_fionbio() -> CaseResult {
    const FIOCLEX: u64 = 0x5451;
    const FIONCLEX: u64 = 0x5450;
    let (reader, _writer) = pipe(0)?;
    let fd = reader.as_raw_fd();
    sys!(ioctl(fd, FIOCLEX))?;
    check_eq!(sys!(fcntl(fd, libc::F_GETFD))?, 1);
    sys!(ioctl(fd, FIONCLEX))?;
    check_eq!(sys!(fcntl(fd, libc::F_GETFD))?, 0);
    for on in [1i32, 0] {
        sys!(ioctl(fd, libc::FIONBIO, &raw const on))?;
        check_eq!(sys!(fcntl(fd, libc::F_GETFL))? as i32 & libc::O_NONBLOCK != 0, on == 1);
    }
    expect_errno!(raw!(SYS_ioctl(fd, libc::FIONBIO, 8)), libc::EFAULT);
    Ok(())
}

fn fionread_of_a_file() -> CaseResult {
    let f = create(c"f", b"0123456789")?;
    let mut left = -1i32;
    sys!(lseek(f.as_raw_fd(), 4, libc::SEEK_SET))?;
    sys!(ioctl(f.as_raw_fd(), libc::FIONREAD, &raw mut left))?;
    check_eq!(left, 6);
    Ok(())
}

fn unknown_ioctl_is_enotty() -> CaseResult {
    let f = create(c"f", b"")?;
    let dir = open(c".", libc::O_RDONLY, 0)?;
    let (reader, _writer) = pipe(0)?;
    for fd in [f.as_raw_fd(), dir.as_raw_fd(), reader.as_raw_fd()] {
        expect_errno!(sys!(ioctl(fd, 0x1234_5678, 0)), libc::ENOTTY);
        let mut termios: libc::termios = crate::sys::zeroed();
        expect_errno!(sys!(ioctl(fd, libc::TCGETS, &raw mut termios)), libc::ENOTTY);
    }
    expect_errno!(sys!(ioctl(-1, libc::TCGETS, 0)), libc::EBADF);
    Ok(())
}

fn unknown_fcntl_is_einval() -> CaseResult {
    let f = create(c"f", b"")?;
    expect_errno!(sys!(fcntl(f.as_raw_fd(), 9999, 0)), libc::EINVAL);
    expect_errno!(sys!(fcntl(-1, 9999, 0)), libc::EBADF);
    Ok(())
}

fn owner_of_signals() -> CaseResult {
    const F_SETSIG: i32 = 10;
    const F_GETSIG: i32 = 11;
    let (reader, _writer) = pipe(0)?;
    let fd = reader.as_raw_fd();
    check_eq!(sys!(fcntl(fd, libc::F_GETOWN))?, 0);
    sys!(fcntl(fd, libc::F_SETOWN, me()))?;
    check_eq!(sys!(fcntl(fd, libc::F_GETOWN))?, i64::from(me()));
    sys!(fcntl(fd, F_SETSIG, libc::SIGUSR1))?;
    check_eq!(sys!(fcntl(fd, F_GETSIG))?, i64::from(libc::SIGUSR1));
    expect_errno!(sys!(fcntl(fd, F_SETSIG, 65)), libc::EINVAL);
    Ok(())
}

fn sigio_on_input() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let fd = reader.as_raw_fd();
    crate::signal::block(&[libc::SIGIO])?;
    sys!(fcntl(fd, libc::F_SETOWN, me()))?;
    sys!(fcntl(fd, libc::F_SETFL, libc::O_ASYNC))?;
    write(writer.as_raw_fd(), b"x")?;
    let set = crate::signal::set_of(&[libc::SIGIO]);
    let mut info: libc::siginfo_t = crate::sys::zeroed();
    check_eq!(sys!(sigwaitinfo(&set, &mut info))?, i64::from(libc::SIGIO));
    Ok(())
}

fn readv_of_bad_descriptor() -> CaseResult {
    for fd in [-1, 999, i32::MIN] {
        expect_errno!(raw!(SYS_read(fd, 0, 0)), libc::EBADF);
        expect_errno!(raw!(SYS_write(fd, 0, 0)), libc::EBADF);
        expect_errno!(raw!(SYS_fstat(fd, 8)), libc::EBADF);
        expect_errno!(raw!(SYS_lseek(fd, 0, 0)), libc::EBADF);
        expect_errno!(raw!(SYS_fsync(fd)), libc::EBADF);
        expect_errno!(raw!(SYS_dup(fd)), libc::EBADF);
    }
    let f = create(c"f", b"")?;
    sys!(fsync(f.as_raw_fd()))?;
    sys!(fdatasync(f.as_raw_fd()))?;
    // Only the lower half of the register is the descriptor.
    check_eq!(raw!(SYS_lseek(f.as_raw_fd() as u64 | 0x5_0000_0000, 0, 0))?, 0);
    Ok(())
}

fn proc_self_fd_lists_them() -> CaseResult {
    let f = create(c"f", b"")?;
    sys!(dup2(f.as_raw_fd(), 321))?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    check!(names.iter().any(|name| name == "321"), "{names:?}");
    check!(!names.iter().any(|name| name == "322"));
    check_eq!(std::fs::read_link("/proc/self/fd/321")?, std::env::current_dir()?.join("f"));
    sys!(unlink(c"f".as_ptr()))?;
    let gone = std::fs::read_link("/proc/self/fd/321")?;
    check!(gone.to_string_lossy().ends_with("/f (deleted)"), "{gone:?}");
    check!(std::fs::read_link("/proc/self/fd/322").is_err());
    Ok(())
}

fn unshare_files_splits_the_table() -> CaseResult {
    let thread = std::thread::spawn(|| -> CaseResult<i32> {
        sys!(unshare(libc::CLONE_FILES))?;
        let f = create(c"f", b"")?;
        sys!(dup2(f.as_raw_fd(), 222))?;
        sys!(fcntl(222, libc::F_GETFD))?;
        Ok(222)
    });
    let fd = thread.join().map_err(|_| "panic")??;
    expect_errno!(sys!(fcntl(fd, libc::F_GETFD)), libc::EBADF);
    Ok(())
}
