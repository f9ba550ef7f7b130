//! Pseudoterminals: pts(4), termios(3), ioctl_tty(2), the line discipline.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::sys::{SysError, open, stat, sys, write, zeroed};
use crate::util::{poll_one, read_some, set_nonblock};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

topic!(ptys: [
    new_terminal_appears_in_dev_pts,
    locked_until_unlocked,
    canonical_mode_gives_lines,
    echo_shows_what_is_typed,
    erase_and_kill_edit_the_line,
    end_of_file_character,
    newline_becomes_carriage_return_newline,
    carriage_return_becomes_newline,
    raw_mode_passes_everything,
    min_and_time,
    partial_read_of_a_line,
]);

/// A new terminal in a session without one: (master, terminal).
pub(super) fn pty() -> CaseResult<(OwnedFd, OwnedFd)> {
    let master = open(c"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0)?;
    unlock(&master)?;
    let terminal = open(&name(&master)?, libc::O_RDWR | libc::O_NOCTTY, 0)?;
    Ok((master, terminal))
}

pub(super) fn unlock(master: &OwnedFd) -> Result<i64, SysError> {
    let off = 0i32;
    sys!(ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const off))
}

pub(super) fn name(master: &OwnedFd) -> CaseResult<CString> {
    let mut number = 0u32;
    sys!(ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number))?;
    Ok(CString::new(format!("/dev/pts/{number}"))?)
}

pub(super) fn attributes(fd: &OwnedFd) -> Result<libc::termios, SysError> {
    let mut termios: libc::termios = zeroed();
    sys!(tcgetattr(fd.as_raw_fd(), &mut termios))?;
    Ok(termios)
}

pub(super) fn change(fd: &OwnedFd, edit: impl FnOnce(&mut libc::termios)) -> CaseResult {
    let mut termios = attributes(fd)?;
    edit(&mut termios);
    sys!(tcsetattr(fd.as_raw_fd(), libc::TCSANOW, &termios))?;
    Ok(())
}

pub(super) fn no_echo(fd: &OwnedFd) -> CaseResult {
    change(fd, |termios| termios.c_lflag &= !libc::ECHO)
}

pub(super) fn typed(master: &OwnedFd, text: &[u8]) -> CaseResult {
    check_eq!(write(master.as_raw_fd(), text)?, text.len());
    Ok(())
}

pub(super) fn read(fd: &OwnedFd, len: usize) -> Result<Vec<u8>, SysError> {
    read_some(fd.as_raw_fd(), len)
}

fn new_terminal_appears_in_dev_pts() -> CaseResult {
    let master = open(c"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0)?;
    let path = name(&master)?;
    let st = stat(&path)?;
    check_eq!(st.st_mode & libc::S_IFMT, libc::S_IFCHR);
    check_eq!(libc::major(st.st_rdev), 136);
    let other = open(c"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0)?;
    check!(name(&other)? != path);
    drop(master);
    expect_errno!(stat(&path), libc::ENOENT);
    Ok(())
}

fn locked_until_unlocked() -> CaseResult {
    let master = open(c"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0)?;
    let path = name(&master)?;
    expect_errno!(open(&path, libc::O_RDWR | libc::O_NOCTTY, 0), libc::EIO);
    unlock(&master)?;
    open(&path, libc::O_RDWR | libc::O_NOCTTY, 0)?;
    Ok(())
}

fn canonical_mode_gives_lines() -> CaseResult {
    let (master, terminal) = pty()?;
    typed(&master, b"first\nsecond\n")?;
    check_eq!(read(&terminal, 100)?, b"first\n");
    check_eq!(read(&terminal, 100)?, b"second\n");
    set_nonblock(terminal.as_raw_fd())?;
    typed(&master, b"unfinished")?;
    expect_errno!(read(&terminal, 100), libc::EAGAIN);
    typed(&master, b"\n")?;
    check_eq!(read(&terminal, 100)?, b"unfinished\n");
    Ok(())
}

fn echo_shows_what_is_typed() -> CaseResult {
    let (master, terminal) = pty()?;
    typed(&master, b"abc")?;
    check_eq!(read(&master, 100)?, b"abc");
    typed(&master, b"\n")?;
    check_eq!(read(&master, 100)?, b"\r\n");
    check_eq!(read(&terminal, 100)?, b"abc\n");
    no_echo(&terminal)?;
    typed(&master, b"secret\n")?;
    check_eq!(read(&terminal, 100)?, b"secret\n");
    check_eq!(poll_one(master.as_raw_fd(), libc::POLLIN, 0)?, 0);
    Ok(())
}

fn erase_and_kill_edit_the_line() -> CaseResult {
    let (master, terminal) = pty()?;
    typed(&master, b"abx\x7fc\n")?;
    check_eq!(read(&terminal, 100)?, b"abc\n");
    check_eq!(read(&master, 100)?, b"abx\x08 \x08c\r\n");
    typed(&master, b"wrong\x15right\n")?;
    check_eq!(read(&terminal, 100)?, b"right\n");
    // Nothing to erase: nothing happens.
    read(&master, 100)?;
    typed(&master, b"\x7f\x7fz\n")?;
    check_eq!(read(&terminal, 100)?, b"z\n");
    check_eq!(read(&master, 100)?, b"z\r\n");
    Ok(())
}

fn end_of_file_character() -> CaseResult {
    let (master, terminal) = pty()?;
    typed(&master, b"\x04")?;
    check_eq!(read(&terminal, 100)?, b"");
    typed(&master, b"part\x04")?;
    check_eq!(read(&terminal, 100)?, b"part");
    typed(&master, b"more\n")?;
    check_eq!(read(&terminal, 100)?, b"more\n");
    Ok(())
}

fn newline_becomes_carriage_return_newline() -> CaseResult {
    let (master, terminal) = pty()?;
    write(terminal.as_raw_fd(), b"a\nb\n")?;
    check_eq!(read(&master, 100)?, b"a\r\nb\r\n");
    change(&terminal, |termios| termios.c_oflag &= !libc::OPOST)?;
    write(terminal.as_raw_fd(), b"a\n")?;
    check_eq!(read(&master, 100)?, b"a\n");
    Ok(())
}

fn carriage_return_becomes_newline() -> CaseResult {
    let (master, terminal) = pty()?;
    no_echo(&terminal)?;
    typed(&master, b"line\r")?;
    check_eq!(read(&terminal, 100)?, b"line\n");
    change(&terminal, |termios| {
        termios.c_iflag &= !libc::ICRNL;
        termios.c_iflag |= libc::IGNCR;
    })?;
    typed(&master, b"a\rb\n")?;
    check_eq!(read(&terminal, 100)?, b"ab\n");
    change(&terminal, |termios| termios.c_iflag = libc::INLCR)?;
    typed(&master, b"x\ny\x04")?;
    check_eq!(read(&terminal, 100)?, b"x\ry");
    Ok(())
}

fn make_raw(fd: &OwnedFd) -> CaseResult {
    // SAFETY: changes the structure only.
    change(fd, |termios| unsafe { libc::cfmakeraw(termios) })
}

fn raw_mode_passes_everything() -> CaseResult {
    let (master, terminal) = pty()?;
    make_raw(&terminal)?;
    let all: Vec<u8> = (0..=255).collect();
    typed(&master, &all)?;
    check_eq!(read(&terminal, 1000)?, all);
    write(terminal.as_raw_fd(), &all)?;
    check_eq!(read(&master, 1000)?, all);
    Ok(())
}

fn min_and_time() -> CaseResult {
    let (master, terminal) = pty()?;
    make_raw(&terminal)?;
    let set = |min: u8, time: u8| {
        change(&terminal, |termios| {
            termios.c_cc[libc::VMIN] = min;
            termios.c_cc[libc::VTIME] = time;
        })
    };
    set(0, 0)?;
    check_eq!(read(&terminal, 10)?, b"");
    set(0, 1)?;
    check_eq!(read(&terminal, 10)?, b"");
    set(3, 0)?;
    let child = fork_child(|| i32::from(read(&terminal, 10) != Ok(b"abc".to_vec())))?;
    for byte in [b"a", b"b", b"c"] {
        typed(&master, byte)?;
    }
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn partial_read_of_a_line() -> CaseResult {
    let (master, terminal) = pty()?;
    typed(&master, b"0123456789\n")?;
    check_eq!(read(&terminal, 4)?, b"0123");
    check_eq!(read(&terminal, 4)?, b"4567");
    check_eq!(read(&terminal, 100)?, b"89\n");
    Ok(())
}
