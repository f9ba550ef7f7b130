//! termios(3), ioctl_tty(2): attributes, sizes, hanging up, packets, flow control.

use super::ptys::{pty, unlock, name, attributes, change, no_echo, typed, read};
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::sys::{SysError, fstat, open, owned, raw, stat, sys, write, zeroed};
use crate::util::{poll_one, set_nonblock};
use std::os::fd::{AsRawFd, OwnedFd};

topic!(pty_modes: [
    window_size_and_sigwinch,
    set_attributes_and_flush,
    control_characters_echo_as_carets,
    hang_up_of_the_master,
    close_of_the_terminal_is_eio_at_the_master,
    fionread_and_tiocoutq,
    isatty_and_names,
    packet_mode,
    nonblocking_and_poll,
    by_peer_ioctl,
    termio_covers_the_lower_halves,
    locked_attributes_stay,
    literal_next_and_word_erase,
    long_line_is_cut,
    echo_off_echonl,
    stop_and_start_of_output,
]);

/// Waits until there is something to read: what is typed takes a way of its own through the kernel.
fn readable(fd: &OwnedFd) -> CaseResult {
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLIN);
    Ok(())
}

fn window_size_and_sigwinch() -> CaseResult {
    let (master, terminal) = pty()?;
    let mut size: libc::winsize = zeroed();
    sys!(ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size))?;
    check_eq!((size.ws_row, size.ws_col), (0, 0));
    size.ws_row = 24;
    size.ws_col = 80;
    sys!(ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size))?;
    let mut seen: libc::winsize = zeroed();
    for fd in [master.as_raw_fd(), terminal.as_raw_fd()] {
        sys!(ioctl(fd, libc::TIOCGWINSZ, &raw mut seen))?;
        check_eq!((seen.ws_row, seen.ws_col), (24, 80));
    }
    expect_errno!(raw!(SYS_ioctl(master.as_raw_fd(), libc::TIOCGWINSZ, 8)), libc::EFAULT);
    Ok(())
}

fn set_attributes_and_flush() -> CaseResult {
    let (master, terminal) = pty()?;
    let termios = attributes(&terminal)?;
    check_eq!(termios.c_lflag & (libc::ICANON | libc::ECHO | libc::ISIG), libc::ICANON | libc::ECHO | libc::ISIG);
    check_eq!(termios.c_iflag, libc::ICRNL | libc::IXON);
    check_eq!(termios.c_oflag, libc::OPOST | libc::ONLCR);
    check_eq!((termios.c_cc[libc::VINTR], termios.c_cc[libc::VEOF], termios.c_cc[libc::VERASE]), (3, 4, 0x7f));
    // Both ends speak of one terminal.
    check_eq!(attributes(&master)?.c_lflag, termios.c_lflag);
    typed(&master, b"thrown away\n")?;
    readable(&terminal)?;
    sys!(tcflush(terminal.as_raw_fd(), libc::TCIFLUSH))?;
    set_nonblock(terminal.as_raw_fd())?;
    expect_errno!(read(&terminal, 100), libc::EAGAIN);
    typed(&master, b"too\n")?;
    readable(&terminal)?;
    sys!(tcsetattr(terminal.as_raw_fd(), libc::TCSAFLUSH, &termios))?;
    expect_errno!(read(&terminal, 100), libc::EAGAIN);
    expect_errno!(sys!(tcflush(terminal.as_raw_fd(), 99)), libc::EINVAL);
    Ok(())
}

fn control_characters_echo_as_carets() -> CaseResult {
    let (master, terminal) = pty()?;
    typed(&master, b"\x01\x1b\t\n")?;
    check_eq!(read(&terminal, 100)?, b"\x01\x1b\t\n");
    check_eq!(read(&master, 100)?, b"^A^[\t\r\n");
    change(&terminal, |termios| termios.c_lflag &= !libc::ECHOCTL)?;
    typed(&master, b"\x01\n")?;
    check_eq!(read(&master, 100)?, b"\x01\r\n");
    Ok(())
}

fn hang_up_of_the_master() -> CaseResult {
    let (master, terminal) = pty()?;
    drop(master);
    check_eq!(read(&terminal, 10)?, b"");
    expect_errno!(write(terminal.as_raw_fd(), b"x"), libc::EIO);
    expect_errno!(attributes(&terminal), libc::EIO);
    check!(poll_one(terminal.as_raw_fd(), libc::POLLIN, 0)? & libc::POLLHUP != 0);
    Ok(())
}

fn close_of_the_terminal_is_eio_at_the_master() -> CaseResult {
    let (master, terminal) = pty()?;
    write(terminal.as_raw_fd(), b"last words")?;
    drop(terminal);
    check_eq!(read(&master, 100)?, b"last words");
    expect_errno!(read(&master, 100), libc::EIO);
    check!(poll_one(master.as_raw_fd(), libc::POLLIN, 0)? & libc::POLLHUP != 0);
    // It can be opened again.
    let again = open(&name(&master)?, libc::O_RDWR | libc::O_NOCTTY, 0)?;
    write(again.as_raw_fd(), b"back")?;
    check_eq!(read(&master, 100)?, b"back");
    Ok(())
}

fn fionread_and_tiocoutq() -> CaseResult {
    let (master, terminal) = pty()?;
    no_echo(&terminal)?;
    let count = |fd: &OwnedFd, request: u64| -> Result<i32, SysError> {
        let mut n = -1i32;
        sys!(ioctl(fd.as_raw_fd(), request, &raw mut n))?;
        Ok(n)
    };
    typed(&master, b"12345")?;
    // Half a line is nothing yet.
    check_eq!(count(&terminal, libc::FIONREAD)?, 0);
    typed(&master, b"\n")?;
    readable(&terminal)?;
    check_eq!(count(&terminal, libc::FIONREAD)?, 6);
    write(terminal.as_raw_fd(), b"abc")?;
    check_eq!(poll_one(master.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLIN);
    check_eq!(count(&master, libc::FIONREAD)?, 3);
    Ok(())
}

fn isatty_and_names() -> CaseResult {
    let (master, terminal) = pty()?;
    check_eq!(sys!(isatty(terminal.as_raw_fd()))?, 1);
    let link = std::fs::read_link(format!("/proc/self/fd/{}", terminal.as_raw_fd()))?;
    check_eq!(link.to_string_lossy(), name(&master)?.to_string_lossy());
    check_eq!(fstat(terminal.as_raw_fd())?.st_rdev, stat(&name(&master)?)?.st_rdev);
    expect_errno!(sys!(lseek(terminal.as_raw_fd(), 0, libc::SEEK_SET)), libc::ESPIPE);
    expect_errno!(sys!(ioctl(terminal.as_raw_fd(), 0x54ff, 0)), libc::ENOTTY);
    Ok(())
}

fn packet_mode() -> CaseResult {
    let (master, terminal) = pty()?;
    let on = 1i32;
    sys!(ioctl(master.as_raw_fd(), libc::TIOCPKT, &raw const on))?;
    write(terminal.as_raw_fd(), b"data")?;
    check_eq!(read(&master, 100)?, b"\0data");
    sys!(tcflush(terminal.as_raw_fd(), libc::TCIFLUSH))?;
    check_eq!(read(&master, 100)?, [1]);
    Ok(())
}

fn nonblocking_and_poll() -> CaseResult {
    let (master, terminal) = pty()?;
    set_nonblock(master.as_raw_fd())?;
    set_nonblock(terminal.as_raw_fd())?;
    expect_errno!(read(&master, 1), libc::EAGAIN);
    expect_errno!(read(&terminal, 1), libc::EAGAIN);
    let both = libc::POLLIN | libc::POLLOUT;
    check_eq!(poll_one(master.as_raw_fd(), both, 0)?, libc::POLLOUT);
    check_eq!(poll_one(terminal.as_raw_fd(), both, 0)?, libc::POLLOUT);
    typed(&master, b"x\n")?;
    check_eq!(poll_one(terminal.as_raw_fd(), both, -1)?, both);
    check_eq!(poll_one(master.as_raw_fd(), both, -1)?, both);
    // A terminal that nobody reads is full at some time.
    let mut total = 0;
    while let Ok(n) = write(terminal.as_raw_fd(), &[b'x'; 1000]) {
        total += n;
        check!(total < 1 << 20);
    }
    check!(total > 1000);
    Ok(())
}

fn by_peer_ioctl() -> CaseResult {
    const TIOCGPTPEER: u64 = 0x5441;
    let master = open(c"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0)?;
    unlock(&master)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let terminal = owned(sys!(ioctl(master.as_raw_fd(), TIOCGPTPEER, flags))?);
    check_eq!(sys!(fcntl(terminal.as_raw_fd(), libc::F_GETFD))?, 1);
    write(terminal.as_raw_fd(), b"hello")?;
    check_eq!(read(&master, 100)?, b"hello");
    Ok(())
}

/// `struct termio`, with its padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Termio {
    modes: [u16; 4],
    line: u8,
    characters: [u8; 8],
}

const TCGETA: u64 = 0x5405;
const TCSETA: u64 = 0x5406;
const TIOCGLCKTRMIOS: u64 = 0x5456;
const TIOCSLCKTRMIOS: u64 = 0x5457;
const CAP_SYS_ADMIN: u64 = 1 << 21;

fn termio_covers_the_lower_halves() -> CaseResult {
    let (_master, terminal) = pty()?;
    let before = attributes(&terminal)?;
    let mut termio = Termio::default();
    sys!(ioctl(terminal.as_raw_fd(), TCGETA, &raw mut termio))?;
    let modes = [before.c_iflag, before.c_oflag, before.c_cflag, before.c_lflag];
    check_eq!(termio.modes.map(u32::from), modes.map(|mode| mode & 0xffff));
    check_eq!(termio.characters[..], before.c_cc[..8]);
    termio.modes[3] &= !(libc::ECHO as u16);
    termio.characters[0] = 7;
    sys!(ioctl(terminal.as_raw_fd(), TCSETA, &raw const termio))?;
    let after = attributes(&terminal)?;
    check_eq!((after.c_lflag, after.c_cc[0]), (before.c_lflag & !libc::ECHO, 7));
    check_eq!((after.c_cflag, after.c_cc[8..].to_vec()), (before.c_cflag, before.c_cc[8..].to_vec()));
    Ok(())
}

fn locked_attributes_stay() -> CaseResult {
    let (_master, terminal) = pty()?;
    let fd = terminal.as_raw_fd();
    // SAFETY: plain numbers.
    let mut lock: libc::termios = zeroed();
    sys!(ioctl(fd, TIOCGLCKTRMIOS, &raw mut lock))?;
    check_eq!((lock.c_lflag, lock.c_cc[0]), (0, 0));
    lock.c_lflag = libc::ECHO;
    lock.c_cc[0] = 1;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap_or_default();
    if u64::from_str_radix(effective, 16).unwrap_or(0) & CAP_SYS_ADMIN == 0 {
        expect_errno!(sys!(ioctl(fd, TIOCSLCKTRMIOS, &raw const lock)), libc::EPERM);
        return Ok(());
    }
    sys!(ioctl(fd, TIOCSLCKTRMIOS, &raw const lock))?;
    let before = attributes(&terminal)?;
    change(&terminal, |termios| {
        termios.c_lflag &= !(libc::ECHO | libc::ISIG);
        termios.c_cc[..2].copy_from_slice(&[5, 6]);
    })?;
    let after = attributes(&terminal)?;
    check_eq!(after.c_lflag & (libc::ECHO | libc::ISIG), libc::ECHO);
    check_eq!(after.c_cc[..2], [before.c_cc[0], 6]);
    Ok(())
}

fn literal_next_and_word_erase() -> CaseResult {
    let (master, terminal) = pty()?;
    no_echo(&terminal)?;
    // ^V takes the next character as it is, ^W erases a word.
    typed(&master, b"a\x16\x03b\n")?;
    check_eq!(read(&terminal, 100)?, b"a\x03b\n");
    typed(&master, b"one two  \x17three\n")?;
    check_eq!(read(&terminal, 100)?, b"one three\n");
    Ok(())
}

fn long_line_is_cut() -> CaseResult {
    let (master, terminal) = pty()?;
    no_echo(&terminal)?;
    set_nonblock(master.as_raw_fd())?;
    for _ in 0..6 {
        write(master.as_raw_fd(), &[b'y'; 1000])?;
    }
    typed(&master, b"\n")?;
    let line = read(&terminal, 10_000)?;
    check_eq!((line.len(), line.last()), (4096, Some(&b'\n')));
    Ok(())
}

fn echo_off_echonl() -> CaseResult {
    let (master, terminal) = pty()?;
    change(&terminal, |termios| {
        termios.c_lflag &= !libc::ECHO;
        termios.c_lflag |= libc::ECHONL;
    })?;
    typed(&master, b"hidden\n")?;
    check_eq!(read(&terminal, 100)?, b"hidden\n");
    check_eq!(read(&master, 100)?, b"\r\n");
    Ok(())
}

fn stop_and_start_of_output() -> CaseResult {
    let (master, terminal) = pty()?;
    set_nonblock(terminal.as_raw_fd())?;
    no_echo(&terminal)?;
    typed(&master, b"\x13line\n")?;
    readable(&terminal)?;
    // Stopped by ^S: what is written waits in the terminal, or is not taken.
    expect_errno!(write(terminal.as_raw_fd(), b"x"), libc::EAGAIN);
    typed(&master, b"\x11")?;
    check_eq!(poll_one(terminal.as_raw_fd(), libc::POLLOUT, -1)?, libc::POLLOUT);
    check_eq!(write(terminal.as_raw_fd(), b"x")?, 1);
    check_eq!(read(&master, 100)?, b"x");
    Ok(())
}
