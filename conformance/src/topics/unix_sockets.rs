//! unix(7): streams, datagrams, sequenced packets, names, shutdown, errors.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::sys::{SysError, owned, stat, sys, write, zeroed};
use crate::util::{create, read_some};
use std::os::fd::{AsRawFd, OwnedFd};

topic!(unix_sockets: [
    pair_carries_both_ways,
    stream_connect_and_accept,
    connect_without_listener_is_econnrefused,
    connect_errors,
    bind_makes_a_socket_file,
    abstract_names,
    autobind_gives_five_hex_digits,
    names_of_both_ends,
    accept_on_nonblocking_is_eagain,
    accept4_flags,
    backlog_full_is_eagain,
]);

pub(super) fn socket(kind: i32) -> Result<OwnedFd, SysError> {
    sys!(socket(libc::AF_UNIX, kind, 0)).map(owned)
}

pub(super) fn pair(kind: i32) -> Result<(OwnedFd, OwnedFd), SysError> {
    let mut fds = [0i32; 2];
    sys!(socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()))?;
    Ok((owned(i64::from(fds[0])), owned(i64::from(fds[1]))))
}

/// An address; a name that begins with a zero byte is abstract.
pub(super) fn address(name: &[u8]) -> (libc::sockaddr_un, u32) {
    let mut address: libc::sockaddr_un = zeroed();
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as i8;
    }
    (address, 2 + name.len() as u32)
}

pub(super) fn bind(fd: &OwnedFd, name: &[u8]) -> Result<i64, SysError> {
    let (address, length) = address(name);
    sys!(bind(fd.as_raw_fd(), (&raw const address).cast(), length))
}

pub(super) fn connect(fd: &OwnedFd, name: &[u8]) -> Result<i64, SysError> {
    let (address, length) = address(name);
    sys!(connect(fd.as_raw_fd(), (&raw const address).cast(), length))
}

pub(super) fn accept(fd: &OwnedFd, flags: i32) -> Result<OwnedFd, SysError> {
    let none = std::ptr::null_mut();
    sys!(accept4(fd.as_raw_fd(), none, std::ptr::null_mut(), flags)).map(owned)
}

pub(super) fn listener(name: &[u8], kind: i32) -> Result<OwnedFd, SysError> {
    let fd = socket(kind)?;
    bind(&fd, name)?;
    sys!(listen(fd.as_raw_fd(), 5))?;
    Ok(fd)
}

fn name_of(fd: &OwnedFd, peer: bool) -> Result<Vec<u8>, SysError> {
    let mut address: libc::sockaddr_un = zeroed();
    let mut length = 110u32;
    let to = (&raw mut address).cast();
    if peer {
        sys!(getpeername(fd.as_raw_fd(), to, &mut length))?;
    } else {
        sys!(getsockname(fd.as_raw_fd(), to, &mut length))?;
    }
    Ok(address.sun_path.iter().take(length as usize - 2).map(|b| *b as u8).collect())
}

pub(super) fn send(fd: &OwnedFd, data: &[u8], flags: i32) -> Result<i64, SysError> {
    sys!(send(fd.as_raw_fd(), data.as_ptr().cast(), data.len(), flags | libc::MSG_NOSIGNAL))
}

pub(super) fn receive(fd: &OwnedFd, len: usize, flags: i32) -> Result<Vec<u8>, SysError> {
    let mut buf = vec![0u8; len];
    let n = sys!(recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), len, flags))? as usize;
    buf.truncate(n);
    Ok(buf)
}

fn pair_carries_both_ways() -> CaseResult {
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = pair(kind)?;
        write(a.as_raw_fd(), b"there")?;
        check_eq!(read_some(b.as_raw_fd(), 10)?, b"there");
        write(b.as_raw_fd(), b"back")?;
        check_eq!(receive(&a, 10, 0)?, b"back");
    }
    Ok(())
}

fn stream_connect_and_accept() -> CaseResult {
    let server = listener(b"s\0", libc::SOCK_STREAM)?;
    let child = fork_child(|| {
        let Ok(client) = socket(libc::SOCK_STREAM) else { return 1 };
        if connect(&client, b"s\0").is_err() || send(&client, b"hello", 0) != Ok(5) {
            return 2;
        }
        i32::from(receive(&client, 10, 0) != Ok(b"world".to_vec())) * 3
    })?;
    let served = accept(&server, 0)?;
    check_eq!(receive(&served, 10, 0)?, b"hello");
    send(&served, b"world", 0)?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    check_eq!(receive(&served, 10, 0)?, b"");
    Ok(())
}

fn connect_without_listener_is_econnrefused() -> CaseResult {
    let bound = socket(libc::SOCK_STREAM)?;
    bind(&bound, b"s\0")?;
    let client = socket(libc::SOCK_STREAM)?;
    // Bound, but not listening.
    expect_errno!(connect(&client, b"s\0"), libc::ECONNREFUSED);
    drop(bound);
    // The file stays behind.
    expect_errno!(connect(&client, b"s\0"), libc::ECONNREFUSED);
    create(c"f", b"")?;
    expect_errno!(connect(&client, b"f\0"), libc::ECONNREFUSED);
    expect_errno!(connect(&client, b"\0nobody-listens-here"), libc::ECONNREFUSED);
    Ok(())
}

fn connect_errors() -> CaseResult {
    let server = listener(b"s\0", libc::SOCK_STREAM)?;
    let client = socket(libc::SOCK_STREAM)?;
    expect_errno!(connect(&client, b"missing\0"), libc::ENOENT);
    expect_errno!(connect(&client, b"s/x\0"), libc::ENOTDIR);
    expect_errno!(connect(&socket(libc::SOCK_DGRAM)?, b"s\0"), libc::EPROTOTYPE);
    let (mut wrong, length) = address(b"s\0");
    wrong.sun_family = libc::AF_INET as u16;
    expect_errno!(sys!(connect(client.as_raw_fd(), (&raw const wrong).cast(), length)), libc::EINVAL);
    connect(&client, b"s\0")?;
    expect_errno!(connect(&client, b"s\0"), libc::EISCONN);
    expect_errno!(connect(&server, b"s\0"), libc::EINVAL);
    Ok(())
}

fn bind_makes_a_socket_file() -> CaseResult {
    sys!(umask(0o027))?;
    let fd = socket(libc::SOCK_STREAM)?;
    bind(&fd, b"s\0")?;
    check_eq!(stat(c"s")?.st_mode, libc::S_IFSOCK | 0o750);
    expect_errno!(bind(&socket(libc::SOCK_STREAM)?, b"s\0"), libc::EADDRINUSE);
    expect_errno!(bind(&fd, b"other\0"), libc::EINVAL);
    expect_errno!(bind(&socket(libc::SOCK_STREAM)?, b"missing/s\0"), libc::ENOENT);
    drop(fd);
    expect_errno!(bind(&socket(libc::SOCK_STREAM)?, b"s\0"), libc::EADDRINUSE);
    sys!(unlink(c"s".as_ptr()))?;
    bind(&socket(libc::SOCK_STREAM)?, b"s\0")?;
    Ok(())
}

fn abstract_names() -> CaseResult {
    let server = listener(b"\0guest.abstract\0x", libc::SOCK_STREAM)?;
    expect_errno!(bind(&socket(libc::SOCK_STREAM)?, b"\0guest.abstract\0x"), libc::EADDRINUSE);
    // The whole length is the name, zero bytes too.
    expect_errno!(connect(&socket(libc::SOCK_STREAM)?, b"\0guest.abstract"), libc::ECONNREFUSED);
    connect(&socket(libc::SOCK_STREAM)?, b"\0guest.abstract\0x")?;
    check_eq!(name_of(&server, false)?, b"\0guest.abstract\0x");
    drop(server);
    listener(b"\0guest.abstract\0x", libc::SOCK_STREAM)?;
    Ok(())
}

fn autobind_gives_five_hex_digits() -> CaseResult {
    let fd = socket(libc::SOCK_DGRAM)?;
    bind(&fd, b"")?;
    let name = name_of(&fd, false)?;
    check_eq!((name.len(), name[0]), (6, 0));
    check!(name[1..].iter().all(u8::is_ascii_hexdigit), "{name:?}");
    Ok(())
}

fn names_of_both_ends() -> CaseResult {
    let server = listener(b"s\0", libc::SOCK_STREAM)?;
    let client = socket(libc::SOCK_STREAM)?;
    expect_errno!(name_of(&client, true), libc::ENOTCONN);
    connect(&client, b"s\0")?;
    check_eq!(name_of(&client, true)?, b"s\0");
    check_eq!(name_of(&client, false)?, b"");
    let served = accept(&server, 0)?;
    check_eq!(name_of(&served, false)?, b"s\0");
    check_eq!(name_of(&served, true)?, b"");
    // A buffer that is too short gets a part, and the length that it would have taken.
    let mut small = [0u8; 3];
    let mut length = 3u32;
    sys!(getsockname(server.as_raw_fd(), small.as_mut_ptr().cast(), &mut length))?;
    check_eq!((length, small[2]), (4, b's'));
    Ok(())
}

fn accept_on_nonblocking_is_eagain() -> CaseResult {
    let server = listener(b"s\0", libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?;
    expect_errno!(accept(&server, 0), libc::EAGAIN);
    expect_errno!(accept(&socket(libc::SOCK_STREAM)?, 0), libc::EINVAL);
    expect_errno!(accept(&socket(libc::SOCK_DGRAM)?, 0), libc::EOPNOTSUPP);
    expect_errno!(sys!(listen(socket(libc::SOCK_DGRAM)?.as_raw_fd(), 1)), libc::EOPNOTSUPP);
    expect_errno!(sys!(listen(socket(libc::SOCK_STREAM)?.as_raw_fd(), 1)), libc::EINVAL);
    Ok(())
}

fn accept4_flags() -> CaseResult {
    let server = listener(b"s\0", libc::SOCK_STREAM)?;
    let client = socket(libc::SOCK_STREAM)?;
    connect(&client, b"s\0")?;
    let served = accept(&server, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)?;
    check_eq!(sys!(fcntl(served.as_raw_fd(), libc::F_GETFD))?, 1);
    expect_errno!(receive(&served, 1, 0), libc::EAGAIN);
    expect_errno!(accept(&server, 0x1), libc::EINVAL);
    Ok(())
}

fn backlog_full_is_eagain() -> CaseResult {
    let server = socket(libc::SOCK_STREAM)?;
    bind(&server, b"s\0")?;
    sys!(listen(server.as_raw_fd(), 1))?;
    let mut clients = Vec::new();
    let refused = loop {
        let client = socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?;
        match connect(&client, b"s\0") {
            Ok(_) => clients.push(client),
            Err(error) => break error.errno,
        }
        check!(clients.len() < 20);
    };
    check_eq!((refused, clients.len()), (libc::EAGAIN, 2));
    drop(accept(&server, 0)?);
    connect(&socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?, b"s\0")?;
    Ok(())
}
