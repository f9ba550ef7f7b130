//! Terminals and job control: foreground groups, SIGTTIN, hanging up.

use super::jobs::{in_session, foreground};
use super::ptys::pty;
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, exec_helper, fork_child, wait_for, wait_options};
use crate::memory::{post, shared_words, wait_for_word};
use crate::signal::{block, holds, pending, set_action, set_of};
use crate::sys::{open, pipe, raw, sys, write, zeroed};
use crate::util::{me, read_some};
use std::os::fd::AsRawFd;

topic!(job_terminals: [
    background_read_is_sigttin,
    background_write_is_sigttou_with_tostop,
    background_tcsetpgrp_is_sigttou,
    orphaned_group_reads_eio,
    tcsetpgrp_checks,
    exit_of_the_session_leader_hangs_up,
    hang_up_of_the_master_signals_the_leader,
    giving_up_the_terminal,
    orphaned_stopped_group_gets_hup_and_cont,
    window_change_signals_the_foreground,
    stop_character_stops,
    exec_keeps_group_and_session,
]);

/// A child in a background group that does something with the terminal.
fn in_background(body: impl FnOnce() -> i32) -> CaseResult<i32> {
    let words = shared_words()?;
    let child = fork_child(|| {
        wait_for_word(&words[0], 1);
        body()
    })?;
    sys!(setpgid(child, child))?;
    post(&words[0]);
    Ok(child)
}

fn background_read_is_sigttin() -> CaseResult {
    in_session(|master, terminal| {
        let child =
            in_background(|| i32::from(read_some(terminal.as_raw_fd(), 100) != Ok(b"now\n".to_vec())))?;
        check_eq!(wait_options(child, libc::WUNTRACED)?.1, Ended::Stopped(libc::SIGTTIN));
        sys!(tcsetpgrp(terminal.as_raw_fd(), child))?;
        sys!(kill(child, libc::SIGCONT))?;
        write(master.as_raw_fd(), b"now\n")?;
        check_eq!(wait_for(child)?, Ended::Exited(0));
        Ok(())
    })?;
    // Ignored, it becomes an error.
    in_session(|_, terminal| {
        set_action(libc::SIGTTIN, libc::SIG_IGN, 0, &[])?;
        let child = in_background(|| read_some(terminal.as_raw_fd(), 1).map_or_else(|e| e.errno, |_| 0))?;
        check_eq!(wait_for(child)?, Ended::Exited(libc::EIO));
        Ok(())
    })
}

fn background_write_is_sigttou_with_tostop() -> CaseResult {
    in_session(|master, terminal| {
        let child = in_background(|| i32::from(write(terminal.as_raw_fd(), b"free") != Ok(4)))?;
        check_eq!(wait_for(child)?, Ended::Exited(0));
        check_eq!(read_some(master.as_raw_fd(), 100)?, b"free");
        let mut termios: libc::termios = zeroed();
        sys!(tcgetattr(terminal.as_raw_fd(), &mut termios))?;
        termios.c_lflag |= libc::TOSTOP;
        sys!(tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &termios))?;
        let child = in_background(|| i32::from(write(terminal.as_raw_fd(), b"stopped") != Ok(7)))?;
        check_eq!(wait_options(child, libc::WUNTRACED)?.1, Ended::Stopped(libc::SIGTTOU));
        sys!(tcsetpgrp(terminal.as_raw_fd(), child))?;
        sys!(kill(child, libc::SIGCONT))?;
        check_eq!(wait_for(child)?, Ended::Exited(0));
        check_eq!(read_some(master.as_raw_fd(), 100)?, b"stopped");
        // Blocked or ignored, it does not stop.
        let child = in_background(|| {
            let _ = block(&[libc::SIGTTOU]);
            i32::from(write(terminal.as_raw_fd(), b"through") != Ok(7))
        })?;
        check_eq!(wait_for(child)?, Ended::Exited(0));
        Ok(())
    })
}

fn background_tcsetpgrp_is_sigttou() -> CaseResult {
    in_session(|_, terminal| {
        let child = in_background(|| i32::from(sys!(tcsetpgrp(terminal.as_raw_fd(), me())).is_err()))?;
        check_eq!(wait_options(child, libc::WUNTRACED)?.1, Ended::Stopped(libc::SIGTTOU));
        sys!(kill(child, libc::SIGKILL))?;
        wait_for(child)?;
        let child = in_background(|| {
            let _ = block(&[libc::SIGTTOU]);
            i32::from(sys!(tcsetpgrp(terminal.as_raw_fd(), me())).is_err())
        })?;
        check_eq!(wait_for(child)?, Ended::Exited(0));
        check_eq!(foreground(terminal)?, child);
        Ok(())
    })
}

fn orphaned_group_reads_eio() -> CaseResult {
    in_session(|_, terminal| {
        let words = shared_words()?;
        let middle = fork_child(|| {
            let _ = sys!(setpgid(0, 0));
            let orphan = fork_child(|| {
                wait_for_word(&words[0], 1);
                let errno = read_some(terminal.as_raw_fd(), 1).map_or_else(|e| e.errno, |_| 0);
                words[1].store(errno as u32, std::sync::atomic::Ordering::SeqCst);
                post(&words[2]);
                0
            });
            i32::from(orphan.is_err())
        })?;
        // Its parent gone, nobody of its session but of another group is left to wake the group.
        check_eq!(wait_for(middle)?, Ended::Exited(0));
        post(&words[0]);
        wait_for_word(&words[2], 1);
        check_eq!(words[1].load(std::sync::atomic::Ordering::SeqCst), libc::EIO as u32);
        Ok(())
    })
}

fn tcsetpgrp_checks() -> CaseResult {
    in_session(|_, terminal| {
        let fd = terminal.as_raw_fd();
        expect_errno!(sys!(tcsetpgrp(fd, 32_002)), libc::ESRCH);
        expect_errno!(sys!(tcsetpgrp(fd, -5)), libc::EINVAL);
        let (reader, _writer) = pipe(0)?;
        expect_errno!(sys!(tcsetpgrp(reader.as_raw_fd(), me())), libc::ENOTTY);
        // A group of another session.
        let words = shared_words()?;
        let child = fork_child(|| {
            let _ = sys!(setsid());
            post(&words[0]);
            sys!(pause()).map_or(1, |_| 0)
        })?;
        wait_for_word(&words[0], 1);
        expect_errno!(sys!(tcsetpgrp(fd, child)), libc::EPERM);
        sys!(kill(child, libc::SIGKILL))?;
        wait_for(child)?;
        Ok(())
    })
}

fn exit_of_the_session_leader_hangs_up() -> CaseResult {
    raw!(SYS_prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
    let (master, terminal) = pty()?;
    let words = shared_words()?;
    let leader = fork_child(|| {
        let _ = sys!(setsid());
        let _ = sys!(ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0));
        // In the foreground group, with the default action.
        let child = fork_child(|| {
            post(&words[0]);
            loop {
                let _ = sys!(pause());
            }
        });
        wait_for_word(&words[0], 1);
        words[1].store(child.unwrap_or(0) as u32, std::sync::atomic::Ordering::SeqCst);
        0
    })?;
    check_eq!(wait_for(leader)?, Ended::Exited(0));
    let child = words[1].load(std::sync::atomic::Ordering::SeqCst) as i32;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGHUP));
    // A pseudoterminal is not hung up by that, other than a line.
    check_eq!(write(terminal.as_raw_fd(), b"x")?, 1);
    drop(master);
    Ok(())
}

fn hang_up_of_the_master_signals_the_leader() -> CaseResult {
    let (master, terminal) = pty()?;
    let words = shared_words()?;
    let master_fd = master.as_raw_fd();
    let leader = fork_child(|| {
        let _ = sys!(close(master_fd));
        let _ = sys!(setsid());
        let _ = sys!(ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0));
        post(&words[0]);
        loop {
            let _ = sys!(pause());
        }
    })?;
    wait_for_word(&words[0], 1);
    drop(master);
    check_eq!(wait_for(leader)?, Ended::Killed(libc::SIGHUP));
    Ok(())
}

fn giving_up_the_terminal() -> CaseResult {
    in_session(|_, terminal| {
        set_action(libc::SIGHUP, libc::SIG_IGN, 0, &[])?;
        set_action(libc::SIGCONT, libc::SIG_IGN, 0, &[])?;
        sys!(ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY, 0))?;
        expect_errno!(open(c"/dev/tty", libc::O_RDWR, 0), libc::ENXIO);
        expect_errno!(foreground(terminal), libc::ENOTTY);
        // It may be taken again.
        sys!(ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0))?;
        Ok(())
    })
}

fn orphaned_stopped_group_gets_hup_and_cont() -> CaseResult {
    raw!(SYS_prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
    let words = shared_words()?;
    // A session of its own, so that the reaper does not keep the group from being orphaned.
    let middle = fork_child(|| {
        let _ = sys!(setsid());
        let child = fork_child(|| {
            let _ = sys!(setpgid(0, 0));
            let _ = sys!(kill(me(), libc::SIGSTOP));
            0
        });
        let Ok(child) = child else { return 1 };
        if wait_options(child, libc::WUNTRACED).map(|(_, ended)| ended) != Ok(Ended::Stopped(libc::SIGSTOP)) {
            return 2;
        }
        words[0].store(child as u32, std::sync::atomic::Ordering::SeqCst);
        0
    })?;
    check_eq!(wait_for(middle)?, Ended::Exited(0));
    let child = words[0].load(std::sync::atomic::Ordering::SeqCst) as i32;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGHUP));
    Ok(())
}

fn window_change_signals_the_foreground() -> CaseResult {
    in_session(|master, terminal| {
        block(&[libc::SIGWINCH])?;
        let size = libc::winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 };
        for fd in [master.as_raw_fd(), terminal.as_raw_fd()] {
            let size = libc::winsize { ws_row: size.ws_row + fd as u16, ..size };
            sys!(ioctl(fd, libc::TIOCSWINSZ, &raw const size))?;
            check!(holds(&pending()?, libc::SIGWINCH));
            let mut info: libc::siginfo_t = zeroed();
            sys!(sigwaitinfo(&set_of(&[libc::SIGWINCH]), &mut info))?;
            // The same size again is no change.
            sys!(ioctl(fd, libc::TIOCSWINSZ, &raw const size))?;
            check!(!holds(&pending()?, libc::SIGWINCH));
        }
        Ok(())
    })
}

fn stop_character_stops() -> CaseResult {
    in_session(|master, terminal| {
        let child = in_background(|| sys!(pause()).map_or(1, |_| 0))?;
        sys!(tcsetpgrp(terminal.as_raw_fd(), child))?;
        write(master.as_raw_fd(), b"\x1a")?;
        check_eq!(wait_options(child, libc::WUNTRACED)?.1, Ended::Stopped(libc::SIGTSTP));
        sys!(kill(-child, libc::SIGCONT))?;
        check_eq!(wait_options(child, libc::WCONTINUED)?.1, Ended::Continued);
        write(master.as_raw_fd(), b"\x03")?;
        check_eq!(wait_for(child)?, Ended::Killed(libc::SIGINT));
        Ok(())
    })
}

fn exec_keeps_group_and_session() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let child = fork_child(|| {
        let _ = sys!(setsid());
        let _ = sys!(dup2(writer.as_raw_fd(), 1));
        exec_helper(&["say-and-pause"], &[]).errno
    })?;
    read_some(reader.as_raw_fd(), 1)?;
    check_eq!((sys!(getpgid(child))?, sys!(getsid(child))?), (i64::from(child), i64::from(child)));
    sys!(kill(-child, libc::SIGTERM))?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGTERM));
    Ok(())
}
