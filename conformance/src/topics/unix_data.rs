//! unix(7): what is sent and received: boundaries, flags, shutdown, errors, events.

use super::unix_sockets::{socket, pair, address, bind, connect, accept, listener, send, receive};
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, wait_for};
use crate::signal::{count_signal, counted};
use crate::sys::{SysError, pipe, raw, sys, write, zeroed};
use crate::util::{poll_one, set_nonblock};
use std::os::fd::{AsRawFd, OwnedFd};

topic!(unix_data: [
    stream_has_no_boundaries,
    datagram_keeps_boundaries_and_sender,
    datagram_truncates,
    seqpacket_keeps_boundaries_in_order,
    shutdown_of_writing_is_end_of_file,
    shutdown_of_both_and_of_unconnected,
    write_to_closed_peer_is_epipe,
    unread_data_resets_the_peer,
    peek_leaves_the_data,
    dontwait_of_one_call,
    waitall_waits_for_all,
    sockopt_basics,
    peercred_names_the_creator,
    poll_events,
    unknown_families_and_types,
    not_a_socket_and_not_connected,
    large_stream_transfer,
    sendmmsg_and_recvmmsg,
    datagram_connect_filters_senders,
    receive_timeout,
]);

fn option(fd: &OwnedFd, name: i32) -> Result<i32, SysError> {
    let (mut value, mut length) = (-1i32, 4u32);
    sys!(getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut length))?;
    Ok(value)
}

fn set_option<T>(fd: &OwnedFd, name: i32, value: &T) -> Result<i64, SysError> {
    let length = size_of::<T>() as u32;
    sys!(setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, std::ptr::from_ref(value).cast(), length))
}

fn stream_has_no_boundaries() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    for part in [b"one".as_slice(), b"two", b"three"] {
        send(&a, part, 0)?;
    }
    check_eq!(receive(&b, 4, 0)?, b"onet");
    check_eq!(receive(&b, 100, 0)?, b"wothree");
    Ok(())
}

fn datagram_keeps_boundaries_and_sender() -> CaseResult {
    let server = socket(libc::SOCK_DGRAM)?;
    bind(&server, b"d\0")?;
    let client = socket(libc::SOCK_DGRAM)?;
    bind(&client, b"\0client")?;
    let (to, length) = address(b"d\0");
    for part in [b"first".as_slice(), b"", b"second"] {
        let data = part.as_ptr().cast();
        sys!(sendto(client.as_raw_fd(), data, part.len(), 0, (&raw const to).cast(), length))?;
    }
    let mut from: libc::sockaddr_un = zeroed();
    let mut from_length = 110u32;
    let mut buf = [0u8; 100];
    let n = sys!(recvfrom(
        server.as_raw_fd(),
        buf.as_mut_ptr().cast(),
        100,
        0,
        (&raw mut from).cast(),
        &mut from_length
    ))?;
    check_eq!(&buf[..n as usize], b"first");
    check_eq!(from_length, 2 + 7);
    check_eq!(receive(&server, 100, 0)?, b"");
    check_eq!(receive(&server, 100, 0)?, b"second");
    expect_errno!(send(&client, b"x", 0), libc::ENOTCONN);
    connect(&client, b"d\0")?;
    send(&client, b"connected", 0)?;
    drop(server);
    expect_errno!(send(&client, b"x", 0), libc::ECONNREFUSED);
    Ok(())
}

fn datagram_truncates() -> CaseResult {
    let (a, b) = pair(libc::SOCK_DGRAM)?;
    send(&a, b"0123456789", 0)?;
    send(&a, b"next", 0)?;
    let mut buf = [0u8; 4];
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: 4 };
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    check_eq!(sys!(recvmsg(b.as_raw_fd(), &mut header, 0))?, 4);
    check_eq!(header.msg_flags & libc::MSG_TRUNC, libc::MSG_TRUNC);
    // Asked so, the call tells the real length.
    check_eq!(sys!(recv(b.as_raw_fd(), buf.as_mut_ptr().cast(), 2, libc::MSG_TRUNC))?, 4);
    Ok(())
}

fn seqpacket_keeps_boundaries_in_order() -> CaseResult {
    let server = listener(b"q\0", libc::SOCK_SEQPACKET)?;
    let client = socket(libc::SOCK_SEQPACKET)?;
    connect(&client, b"q\0")?;
    let served = accept(&server, 0)?;
    send(&client, b"one", 0)?;
    send(&client, b"two", 0)?;
    check_eq!(receive(&served, 2, 0)?, b"on");
    check_eq!(receive(&served, 100, 0)?, b"two");
    drop(client);
    check_eq!(receive(&served, 100, 0)?, b"");
    expect_errno!(send(&served, b"x", 0), libc::EPIPE);
    Ok(())
}

fn shutdown_of_writing_is_end_of_file() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    send(&a, b"last", 0)?;
    sys!(shutdown(a.as_raw_fd(), libc::SHUT_WR))?;
    expect_errno!(send(&a, b"x", 0), libc::EPIPE);
    check_eq!(receive(&b, 10, 0)?, b"last");
    check_eq!(receive(&b, 10, 0)?, b"");
    send(&b, b"other way", 0)?;
    check_eq!(receive(&a, 10, 0)?, b"other way");
    Ok(())
}

fn shutdown_of_both_and_of_unconnected() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    sys!(shutdown(a.as_raw_fd(), libc::SHUT_RDWR))?;
    check_eq!(receive(&a, 1, 0)?, b"");
    check_eq!(receive(&b, 1, 0)?, b"");
    expect_errno!(send(&b, b"x", 0), libc::EPIPE);
    expect_errno!(sys!(shutdown(a.as_raw_fd(), 3)), libc::EINVAL);
    let alone = socket(libc::SOCK_STREAM)?;
    expect_errno!(receive(&alone, 1, 0), libc::EINVAL);
    Ok(())
}

fn write_to_closed_peer_is_epipe() -> CaseResult {
    count_signal(libc::SIGPIPE, 0)?;
    let (a, b) = pair(libc::SOCK_STREAM)?;
    drop(b);
    expect_errno!(send(&a, b"x", 0), libc::EPIPE);
    check_eq!(counted(), 0);
    expect_errno!(write(a.as_raw_fd(), b"x"), libc::EPIPE);
    check_eq!(counted(), 1);
    check_eq!(receive(&a, 1, 0)?, b"");
    let (a, b) = pair(libc::SOCK_DGRAM)?;
    drop(b);
    expect_errno!(send(&a, b"x", 0), libc::ECONNREFUSED);
    Ok(())
}

fn unread_data_resets_the_peer() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    send(&a, b"never read", 0)?;
    drop(b);
    expect_errno!(receive(&a, 1, 0), libc::ECONNRESET);
    // The error is told once.
    check_eq!(receive(&a, 1, 0)?, b"");
    Ok(())
}

fn peek_leaves_the_data() -> CaseResult {
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = pair(kind)?;
        send(&a, b"data", 0)?;
        check_eq!(receive(&b, 2, libc::MSG_PEEK)?, b"da");
        check_eq!(receive(&b, 10, libc::MSG_PEEK)?, b"data");
        check_eq!(receive(&b, 10, 0)?, b"data");
        expect_errno!(receive(&b, 10, libc::MSG_PEEK | libc::MSG_DONTWAIT), libc::EAGAIN);
    }
    Ok(())
}

fn dontwait_of_one_call() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    expect_errno!(receive(&b, 1, libc::MSG_DONTWAIT), libc::EAGAIN);
    let chunk = [0; 4096];
    let mut sent = 0;
    while send(&a, &chunk, libc::MSG_DONTWAIT).is_ok() {
        sent += 1;
        check!(sent < 10_000);
    }
    check!(sent >= 4);
    expect_errno!(send(&a, b"x", libc::MSG_DONTWAIT), libc::EAGAIN);
    Ok(())
}

fn waitall_waits_for_all() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    let child = fork_child(|| i32::from(receive(&b, 6, libc::MSG_WAITALL) != Ok(b"abcdef".to_vec())))?;
    for byte in b"abcdef" {
        send(&a, &[*byte], 0)?;
    }
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn sockopt_basics() -> CaseResult {
    let (a, _b) = pair(libc::SOCK_SEQPACKET)?;
    check_eq!(option(&a, libc::SO_TYPE)?, libc::SOCK_SEQPACKET);
    check_eq!(option(&a, libc::SO_DOMAIN)?, libc::AF_UNIX);
    check_eq!(option(&a, libc::SO_ERROR)?, 0);
    check_eq!(option(&a, libc::SO_ACCEPTCONN)?, 0);
    check_eq!(option(&listener(b"s\0", libc::SOCK_STREAM)?, libc::SO_ACCEPTCONN)?, 1);
    check!(option(&a, libc::SO_SNDBUF)? >= 4096);
    // Linux doubles what is asked for.
    set_option(&a, libc::SO_SNDBUF, &10_000i32)?;
    check_eq!(option(&a, libc::SO_SNDBUF)?, 20_000);
    expect_errno!(option(&a, 9999), libc::ENOPROTOOPT);
    expect_errno!(set_option(&a, libc::SO_SNDBUF, &1u8), libc::EINVAL);
    let mut n = 0i32;
    sys!(ioctl(a.as_raw_fd(), libc::FIONREAD, &raw mut n))?;
    check_eq!(n, 0);
    Ok(())
}

fn peercred_names_the_creator() -> CaseResult {
    let credentials = |fd: &OwnedFd| -> Result<(i32, u32, u32), SysError> {
        let mut cred: libc::ucred = zeroed();
        let mut length = size_of::<libc::ucred>() as u32;
        let to = (&raw mut cred).cast();
        sys!(getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, to, &mut length))?;
        Ok((cred.pid, cred.uid, cred.gid))
    };
    let (a, _b) = pair(libc::SOCK_STREAM)?;
    check_eq!(credentials(&a)?, (std::process::id() as i32, 0, 0));
    let server = listener(b"s\0", libc::SOCK_STREAM)?;
    sys!(chmod(c"s".as_ptr(), 0o777))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    let child = fork_child(|| {
        let _ = sys!(setresgid(7, 7, 7));
        let _ = sys!(setresuid(8, 8, 8));
        let Ok(client) = socket(libc::SOCK_STREAM) else { return 1 };
        i32::from(connect(&client, b"s\0").is_err()) * 2
    })?;
    let served = accept(&server, 0)?;
    check_eq!(credentials(&served)?, (child, 8, 7));
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn poll_events() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    let all = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
    let fd = b.as_raw_fd();
    check_eq!(poll_one(fd, all, 0)?, libc::POLLOUT);
    send(&a, b"x", 0)?;
    check_eq!(poll_one(fd, all, -1)?, libc::POLLOUT | libc::POLLIN);
    sys!(shutdown(a.as_raw_fd(), libc::SHUT_WR))?;
    check_eq!(poll_one(fd, all, 0)?, libc::POLLOUT | libc::POLLIN | libc::POLLRDHUP);
    drop(a);
    let gone = libc::POLLOUT | libc::POLLIN | libc::POLLRDHUP | libc::POLLHUP;
    check_eq!(poll_one(fd, all, 0)?, gone);
    let server = listener(b"s\0", libc::SOCK_STREAM)?;
    check_eq!(poll_one(server.as_raw_fd(), all, 0)?, 0);
    let client = socket(libc::SOCK_STREAM)?;
    check_eq!(poll_one(client.as_raw_fd(), all, 0)?, libc::POLLOUT | libc::POLLHUP);
    connect(&client, b"s\0")?;
    check_eq!(poll_one(server.as_raw_fd(), all, -1)?, libc::POLLIN);
    Ok(())
}

fn unknown_families_and_types() -> CaseResult {
    expect_errno!(sys!(socket(99, libc::SOCK_STREAM, 0)), libc::EAFNOSUPPORT);
    expect_errno!(sys!(socket(-1, libc::SOCK_STREAM, 0)), libc::EAFNOSUPPORT);
    expect_errno!(sys!(socket(libc::AF_UNIX, 15, 0)), libc::EINVAL);
    expect_errno!(sys!(socket(libc::AF_UNIX, libc::SOCK_RDM, 0)), libc::ESOCKTNOSUPPORT);
    expect_errno!(sys!(socket(libc::AF_UNIX, libc::SOCK_STREAM, 99)), libc::EPROTONOSUPPORT);
    expect_errno!(sys!(socket(libc::AF_UNIX, libc::SOCK_STREAM | 0x100, 0)), libc::EINVAL);
    Ok(())
}

fn not_a_socket_and_not_connected() -> CaseResult {
    let (reader, _writer) = pipe(0)?;
    expect_errno!(sys!(listen(reader.as_raw_fd(), 1)), libc::ENOTSOCK);
    expect_errno!(send(&reader, b"x", 0), libc::ENOTSOCK);
    expect_errno!(option(&reader, libc::SO_TYPE), libc::ENOTSOCK);
    let alone = socket(libc::SOCK_STREAM)?;
    expect_errno!(send(&alone, b"x", 0), libc::ENOTCONN);
    // Unlike TCP.
    sys!(shutdown(alone.as_raw_fd(), libc::SHUT_WR))?;
    expect_errno!(send(&alone, b"x", 0), libc::ENOTCONN);
    expect_errno!(raw!(SYS_socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, 8)), libc::EFAULT);
    let listening = listener(b"s\0", libc::SOCK_STREAM)?;
    set_nonblock(listening.as_raw_fd())?;
    expect_errno!(receive(&listening, 1, 0), libc::EINVAL);
    Ok(())
}

fn large_stream_transfer() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    let data: Vec<u8> = (0..2_000_000u32).map(|i| (i % 253) as u8).collect();
    let child = fork_child(|| i32::from(send(&a, &data, 0) != Ok(data.len() as i64)))?;
    drop(a);
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(b), &mut got)?;
    check!(got == data, "{} bytes", got.len());
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn sendmmsg_and_recvmmsg() -> CaseResult {
    let (a, b) = pair(libc::SOCK_DGRAM)?;
    let texts = [b"one".as_slice(), b"second", b"3"];
    let mut parts = texts.map(|text| libc::iovec { iov_base: text.as_ptr() as *mut _, iov_len: text.len() });
    let mut messages: [libc::mmsghdr; 3] = zeroed();
    for (message, part) in messages.iter_mut().zip(&mut parts) {
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
    }
    check_eq!(sys!(sendmmsg(a.as_raw_fd(), messages.as_mut_ptr(), 3, 0))?, 3);
    check_eq!(messages.map(|m| m.msg_len), [3, 6, 1]);
    let mut bufs = [[0u8; 16]; 3];
    let mut parts = bufs.each_mut().map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 16 });
    let mut messages: [libc::mmsghdr; 3] = zeroed();
    for (message, part) in messages.iter_mut().zip(&mut parts) {
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
    }
    let none = std::ptr::null_mut();
    check_eq!(sys!(recvmmsg(b.as_raw_fd(), messages.as_mut_ptr(), 3, libc::MSG_DONTWAIT as _, none))?, 3);
    check_eq!(messages.map(|m| m.msg_len), [3, 6, 1]);
    check_eq!(&bufs[1][..6], b"second");
    Ok(())
}

fn datagram_connect_filters_senders() -> CaseResult {
    let (a, b, stranger) = (socket(libc::SOCK_DGRAM)?, socket(libc::SOCK_DGRAM)?, socket(libc::SOCK_DGRAM)?);
    bind(&a, b"\0guest.a")?;
    bind(&b, b"\0guest.b")?;
    connect(&a, b"\0guest.b")?;
    expect_errno!(connect(&stranger, b"\0guest.a"), libc::EPERM);
    connect(&b, b"\0guest.a")?;
    send(&b, b"friend", 0)?;
    check_eq!(receive(&a, 10, 0)?, b"friend");
    // AF_UNSPEC dissolves the association.
    let nowhere = [0u8; 16];
    sys!(connect(a.as_raw_fd(), nowhere.as_ptr().cast(), 16))?;
    connect(&stranger, b"\0guest.a")?;
    Ok(())
}

fn receive_timeout() -> CaseResult {
    let (a, _b) = pair(libc::SOCK_STREAM)?;
    set_option(&a, libc::SO_RCVTIMEO, &libc::timeval { tv_sec: 0, tv_usec: 5000 })?;
    let start = crate::sys::monotonic_ns();
    expect_errno!(receive(&a, 1, 0), libc::EAGAIN);
    check!(crate::sys::monotonic_ns() - start >= 5_000_000);
    Ok(())
}
