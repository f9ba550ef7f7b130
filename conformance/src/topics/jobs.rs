//! Sessions, process groups and job control: setsid(2), setpgid(2), tcsetpgrp(3), SIGTTIN, SIGHUP.

use super::ptys::pty;
use crate::case::{CaseResult, topic};
use crate::check::{check_eq, expect_errno};
use crate::child::{exec_helper, fork_child, in_child, wait_for};
use crate::memory::{post, shared_words, wait_for_word};
use crate::signal::{count_signal, counted};
use crate::sys::{SysError, open, pipe, sys, write, zeroed};
use crate::util::{me, read_some, until};
use std::os::fd::{AsRawFd, OwnedFd};

topic!(jobs: [
    ids_are_inherited,
    setpgid_moves_and_checks,
    setpgid_after_exec_is_eacces,
    setpgid_across_sessions_is_eperm,
    getpgid_and_getsid_of_others,
    setsid_leaves_the_terminal,
    leader_takes_the_terminal,
    dev_tty_is_the_controlling_terminal,
    interrupt_characters_signal_the_foreground_group,
    noflsh_keeps_input,
]);

/// Runs `body` as the leader of a new session whose terminal is a new one: (master, terminal).
pub(super) fn in_session(body: impl FnOnce(&OwnedFd, &OwnedFd) -> CaseResult) -> CaseResult {
    let (master, terminal) = pty()?;
    in_child(|| {
        sys!(setsid())?;
        sys!(ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0))?;
        body(&master, &terminal)
    })
}

pub(super) fn foreground(fd: &OwnedFd) -> Result<i32, SysError> {
    sys!(tcgetpgrp(fd.as_raw_fd())).map(|group| group as i32)
}

fn ids_are_inherited() -> CaseResult {
    let (group, session) = (sys!(getpgid(0))?, sys!(getsid(0))?);
    in_child(|| {
        check_eq!((sys!(getpgid(0))?, sys!(getsid(0))?), (group, session));
        Ok(())
    })
}

fn setpgid_moves_and_checks() -> CaseResult {
    let child = fork_child(|| sys!(pause()).map_or(1, |_| 0))?;
    sys!(setpgid(child, 0))?;
    check_eq!(sys!(getpgid(child))?, i64::from(child));
    sys!(setpgid(child, sys!(getpgid(0))? as i32))?;
    expect_errno!(sys!(setpgid(child, -1)), libc::EINVAL);
    expect_errno!(sys!(setpgid(-1, 0)), libc::EINVAL);
    expect_errno!(sys!(setpgid(32_003, 0)), libc::ESRCH);
    // A group that does not exist.
    expect_errno!(sys!(setpgid(child, 32_000)), libc::EPERM);
    expect_errno!(sys!(setpgid(1, 0)), libc::ESRCH);
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    Ok(())
}

fn setpgid_after_exec_is_eacces() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let child = fork_child(|| {
        let _ = sys!(dup2(writer.as_raw_fd(), 1));
        exec_helper(&["say-and-pause"], &[]).errno
    })?;
    check_eq!(read_some(reader.as_raw_fd(), 1)?, b"x");
    expect_errno!(sys!(setpgid(child, child)), libc::EACCES);
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    Ok(())
}

fn setpgid_across_sessions_is_eperm() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        let _ = sys!(setsid());
        post(&words[0]);
        sys!(pause()).map_or(1, |_| 0)
    })?;
    wait_for_word(&words[0], 1);
    expect_errno!(sys!(setpgid(child, 0)), libc::EPERM);
    // Nor may one join a group of another session.
    let sibling = fork_child(|| sys!(pause()).map_or(1, |_| 0))?;
    expect_errno!(sys!(setpgid(sibling, child)), libc::EPERM);
    for child in [child, sibling] {
        sys!(kill(child, libc::SIGKILL))?;
        wait_for(child)?;
    }
    Ok(())
}

fn getpgid_and_getsid_of_others() -> CaseResult {
    expect_errno!(sys!(getpgid(32_001)), libc::ESRCH);
    expect_errno!(sys!(getsid(32_001)), libc::ESRCH);
    check_eq!(sys!(getpgid(me()))?, sys!(getpgrp())?);
    Ok(())
}

fn setsid_leaves_the_terminal() -> CaseResult {
    in_session(|_, terminal| {
        in_child(|| {
            open(c"/dev/tty", libc::O_RDWR, 0)?;
            sys!(setsid())?;
            expect_errno!(open(c"/dev/tty", libc::O_RDWR, 0), libc::ENXIO);
            expect_errno!(foreground(terminal), libc::ENOTTY);
            Ok(())
        })
    })
}

fn leader_takes_the_terminal() -> CaseResult {
    let (_master, terminal) = pty()?;
    in_child(|| {
        expect_errno!(sys!(ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0)), libc::EPERM);
        let session = sys!(setsid())? as i32;
        expect_errno!(foreground(&terminal), libc::ENOTTY);
        sys!(ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0))?;
        check_eq!(foreground(&terminal)?, session);
        let mut sid = 0i32;
        sys!(ioctl(terminal.as_raw_fd(), libc::TIOCGSID, &raw mut sid))?;
        check_eq!(sid, session);
        // Once more is no error, another terminal is one.
        sys!(ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0))?;
        let (_master, other) = pty()?;
        expect_errno!(sys!(ioctl(other.as_raw_fd(), libc::TIOCSCTTY, 0)), libc::EPERM);
        Ok(())
    })
}

fn dev_tty_is_the_controlling_terminal() -> CaseResult {
    in_session(|master, _| {
        let tty = open(c"/dev/tty", libc::O_RDWR, 0)?;
        write(tty.as_raw_fd(), b"hello")?;
        check_eq!(read_some(master.as_raw_fd(), 100)?, b"hello");
        Ok(())
    })?;
    in_child(|| {
        sys!(setsid())?;
        expect_errno!(open(c"/dev/tty", libc::O_RDWR, 0), libc::ENXIO);
        Ok(())
    })
}

fn interrupt_characters_signal_the_foreground_group() -> CaseResult {
    in_session(|master, terminal| {
        for (key, signal) in [(b"\x03", libc::SIGINT), (b"\x1c", libc::SIGQUIT)] {
            count_signal(signal, libc::SA_RESTART)?;
            let before = counted();
            write(master.as_raw_fd(), key)?;
            until("the signal", || counted() == before + 1)?;
        }
        // The line typed so far is thrown away.
        write(master.as_raw_fd(), b"gone\x03kept\n")?;
        check_eq!(read_some(terminal.as_raw_fd(), 100)?, b"kept\n");
        let mut termios: libc::termios = zeroed();
        sys!(tcgetattr(terminal.as_raw_fd(), &mut termios))?;
        termios.c_lflag &= !libc::ISIG;
        sys!(tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &termios))?;
        let before = counted();
        write(master.as_raw_fd(), b"\x03\n")?;
        check_eq!(read_some(terminal.as_raw_fd(), 100)?, b"\x03\n");
        check_eq!(counted(), before);
        Ok(())
    })
}

fn noflsh_keeps_input() -> CaseResult {
    in_session(|master, terminal| {
        let mut termios: libc::termios = zeroed();
        sys!(tcgetattr(terminal.as_raw_fd(), &mut termios))?;
        termios.c_lflag |= libc::NOFLSH;
        sys!(tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &termios))?;
        count_signal(libc::SIGINT, libc::SA_RESTART)?;
        write(master.as_raw_fd(), b"kept\x03too\n")?;
        check_eq!(read_some(terminal.as_raw_fd(), 100)?, b"kepttoo\n");
        check_eq!(counted(), 1);
        Ok(())
    })
}
