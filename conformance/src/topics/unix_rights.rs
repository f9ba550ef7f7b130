//! unix(7): descriptors and credentials in control messages, scatter and gather.

use super::unix_sockets::pair;
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, wait_for};
use crate::sys::{SysError, fstat, owned, pipe, sys, write, zeroed};
use crate::util::{create, me, read_some};
use std::os::fd::{AsRawFd, OwnedFd};

topic!(unix_rights: [
    descriptor_arrives_as_a_duplicate,
    descriptors_survive_the_sender,
    several_descriptors_in_one_message,
    too_many_descriptors_is_einval,
    no_room_truncates_and_closes,
    cloexec_flag_of_recvmsg,
    plain_read_drops_descriptors,
    message_with_rights_is_a_boundary_in_a_stream,
    peek_duplicates_descriptors,
    bad_descriptor_is_ebadf,
    credentials_are_checked_and_delivered,
    passcred_adds_credentials,
    socket_passed_over_itself,
    unreachable_cycle_is_closed,
    long_chain_of_sockets_is_closed,
    gather_and_scatter,
]);

/// Room for control messages, aligned as they are.
#[repr(align(8))]
struct Control([u8; 256]);

fn rights(fds: &[i32]) -> (Control, usize) {
    let bytes: Vec<u8> = fds.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
    control(libc::SCM_RIGHTS, &bytes)
}

fn control(kind: i32, data: &[u8]) -> (Control, usize) {
    let mut control = Control([0; 256]);
    let length = 16 + data.len();
    control.0[..8].copy_from_slice(&length.to_ne_bytes());
    control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    control.0[12..16].copy_from_slice(&kind.to_ne_bytes());
    control.0[16..length].copy_from_slice(data);
    (control, length.next_multiple_of(8))
}

fn send_with(fd: &OwnedFd, data: &[u8], control: &(Control, usize)) -> Result<i64, SysError> {
    let mut part = libc::iovec { iov_base: data.as_ptr() as *mut _, iov_len: data.len() };
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.0.as_ptr() as *mut _;
    header.msg_controllen = control.1;
    sys!(sendmsg(fd.as_raw_fd(), &header, libc::MSG_NOSIGNAL))
}

/// What one recvmsg(2) gives.
struct Received {
    data: Vec<u8>,
    flags: i32,
    /// Kind and data of each control message.
    control: Vec<(i32, Vec<u8>)>,
}

impl Received {
    fn fds(&self) -> Vec<OwnedFd> {
        let all = self.control.iter().filter(|(kind, _)| *kind == libc::SCM_RIGHTS);
        all.flat_map(|(_, data)| data.chunks_exact(4))
            .map(|fd| owned(i64::from(i32::from_ne_bytes([fd[0], fd[1], fd[2], fd[3]]))))
            .collect()
    }
}

fn receive_with(fd: &OwnedFd, len: usize, room: usize, flags: i32) -> Result<Received, SysError> {
    let mut buf = vec![0u8; len];
    let mut control = Control([0; 256]);
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: len };
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = room;
    let n = sys!(recvmsg(fd.as_raw_fd(), &mut header, flags))? as usize;
    buf.truncate(n);
    let mut messages = Vec::new();
    let mut at = 0;
    while at + 16 <= header.msg_controllen {
        let word = |from: usize| {
            i32::from_ne_bytes([control.0[from], control.0[from + 1], control.0[from + 2], control.0[from + 3]])
        };
        let length = word(at) as usize;
        messages.push((word(at + 12), control.0[at + 16..at + length].to_vec()));
        at += length.next_multiple_of(8);
    }
    Ok(Received { data: buf, flags: header.msg_flags, control: messages })
}

fn descriptor_arrives_as_a_duplicate() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    let file = create(c"f", b"0123456789")?;
    send_with(&a, b"take", &rights(&[file.as_raw_fd()]))?;
    let got = receive_with(&b, 100, 256, 0)?;
    check_eq!(got.data, b"take");
    let fds = got.fds();
    check_eq!(fds.len(), 1);
    check!(fds[0].as_raw_fd() != file.as_raw_fd());
    check_eq!(fstat(fds[0].as_raw_fd())?.st_ino, fstat(file.as_raw_fd())?.st_ino);
    // One open file description: the offset is shared.
    sys!(lseek(file.as_raw_fd(), 4, libc::SEEK_SET))?;
    check_eq!(read_some(fds[0].as_raw_fd(), 2)?, b"45");
    check_eq!(sys!(fcntl(fds[0].as_raw_fd(), libc::F_GETFD))?, 0);
    Ok(())
}

fn descriptors_survive_the_sender() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    let child = fork_child(|| {
        let Ok((reader, writer)) = pipe(0) else { return 1 };
        let _ = write(writer.as_raw_fd(), b"from the dead");
        i32::from(send_with(&a, b"x", &rights(&[reader.as_raw_fd()])).is_err())
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    let fds = receive_with(&b, 10, 256, 0)?.fds();
    check_eq!(read_some(fds[0].as_raw_fd(), 100)?, b"from the dead");
    check_eq!(read_some(fds[0].as_raw_fd(), 100)?, b"");
    Ok(())
}

fn several_descriptors_in_one_message() -> CaseResult {
    let (a, b) = pair(libc::SOCK_DGRAM)?;
    let files = [create(c"1", b"1")?, create(c"2", b"22")?, create(c"3", b"333")?];
    send_with(&a, b"x", &rights(&files.each_ref().map(|f| f.as_raw_fd())))?;
    let fds = receive_with(&b, 10, 256, 0)?.fds();
    let sizes: Vec<i64> =
        fds.iter().map(|fd| fstat(fd.as_raw_fd()).map(|st| st.st_size)).collect::<Result<_, _>>()?;
    check_eq!(sizes, [1, 2, 3]);
    Ok(())
}

fn too_many_descriptors_is_einval() -> CaseResult {
    let (a, _b) = pair(libc::SOCK_STREAM)?;
    let fds: Vec<u8> = (0..254).flat_map(|_| 0i32.to_ne_bytes()).collect();
    let mut control = vec![0u64; 2 + fds.len() / 8];
    let length = 16 + fds.len();
    control[0] = length as u64;
    control[1] = (libc::SCM_RIGHTS as u64) << 32 | libc::SOL_SOCKET as u64;
    let mut part = libc::iovec { iov_base: c"x".as_ptr() as *mut _, iov_len: 1 };
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = length;
    expect_errno!(sys!(sendmsg(a.as_raw_fd(), &header, 0)), libc::EINVAL);
    Ok(())
}

fn no_room_truncates_and_closes() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    let (reader, writer) = pipe(0)?;
    send_with(&a, b"x", &rights(&[writer.as_raw_fd(), writer.as_raw_fd()]))?;
    drop(writer);
    // Room for one of two.
    let got = receive_with(&b, 10, 20, 0)?;
    check_eq!(got.flags & libc::MSG_CTRUNC, libc::MSG_CTRUNC);
    let fds = got.fds();
    check_eq!(fds.len(), 1);
    drop(fds);
    // The other has been closed too.
    check_eq!(read_some(reader.as_raw_fd(), 1)?, b"");
    Ok(())
}

fn cloexec_flag_of_recvmsg() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    send_with(&a, b"x", &rights(&[a.as_raw_fd()]))?;
    let got = receive_with(&b, 10, 256, libc::MSG_CMSG_CLOEXEC)?;
    check_eq!(sys!(fcntl(got.fds()[0].as_raw_fd(), libc::F_GETFD))?, 1);
    Ok(())
}

fn plain_read_drops_descriptors() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    let (reader, writer) = pipe(0)?;
    send_with(&a, b"x", &rights(&[writer.as_raw_fd()]))?;
    drop(writer);
    check_eq!(read_some(b.as_raw_fd(), 10)?, b"x");
    check_eq!(read_some(reader.as_raw_fd(), 1)?, b"");
    // So does closing the socket they wait in.
    let (reader, writer) = pipe(0)?;
    send_with(&a, b"x", &rights(&[writer.as_raw_fd()]))?;
    drop((writer, a, b));
    check_eq!(read_some(reader.as_raw_fd(), 1)?, b"");
    Ok(())
}

fn message_with_rights_is_a_boundary_in_a_stream() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    write(a.as_raw_fd(), b"before")?;
    send_with(&a, b"with", &rights(&[0]))?;
    write(a.as_raw_fd(), b"after")?;
    let mut seen = Vec::new();
    while seen.len() < 15 {
        let got = receive_with(&b, 100, 256, 0)?;
        let fds = got.fds().len();
        seen.extend_from_slice(&got.data);
        // What comes behind never joins the message that carries rights.
        check!(fds == 0 || seen == b"beforewith", "{:?} with {fds}", got.data);
    }
    Ok(())
}

fn peek_duplicates_descriptors() -> CaseResult {
    let (a, b) = pair(libc::SOCK_DGRAM)?;
    let (reader, writer) = pipe(0)?;
    send_with(&a, b"x", &rights(&[writer.as_raw_fd()]))?;
    drop(writer);
    let first = receive_with(&b, 10, 256, libc::MSG_PEEK)?.fds();
    let second = receive_with(&b, 10, 256, 0)?.fds();
    check_eq!((first.len(), second.len()), (1, 1));
    drop(first);
    write(second[0].as_raw_fd(), b"!")?;
    check_eq!(read_some(reader.as_raw_fd(), 1)?, b"!");
    Ok(())
}

fn bad_descriptor_is_ebadf() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    expect_errno!(send_with(&a, b"x", &rights(&[999])), libc::EBADF);
    expect_errno!(send_with(&a, b"x", &control(99, &[0; 4])), libc::EINVAL);
    let (mut wrong, length) = rights(&[0]);
    wrong.0[..8].copy_from_slice(&200usize.to_ne_bytes());
    expect_errno!(send_with(&a, b"x", &(wrong, length)), libc::EINVAL);
    let nothing = sys!(recv(b.as_raw_fd(), [0u8; 4].as_mut_ptr().cast(), 4, libc::MSG_DONTWAIT));
    expect_errno!(nothing, libc::EAGAIN);
    Ok(())
}

fn credentials_bytes(pid: i32, uid: u32, gid: u32) -> Vec<u8> {
    [pid.to_ne_bytes(), uid.to_ne_bytes(), gid.to_ne_bytes()].concat()
}

fn pass_credentials(fd: &OwnedFd) -> Result<i64, SysError> {
    let on = 1i32;
    let value = (&raw const on).cast();
    sys!(setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, value, 4))
}

fn credentials_are_checked_and_delivered() -> CaseResult {
    let (a, b) = pair(libc::SOCK_DGRAM)?;
    pass_credentials(&b)?;
    // Root may claim other users.
    send_with(&a, b"x", &control(libc::SCM_CREDENTIALS, &credentials_bytes(me(), 5, 6)))?;
    let got = receive_with(&b, 10, 256, 0)?;
    check_eq!(got.control, [(libc::SCM_CREDENTIALS, credentials_bytes(me(), 5, 6))]);
    in_child(|| {
        sys!(setresgid(7, 7, 7))?;
        sys!(setresuid(8, 8, 8))?;
        let own = credentials_bytes(me(), 8, 7);
        send_with(&a, b"y", &control(libc::SCM_CREDENTIALS, &own))?;
        check_eq!(receive_with(&b, 10, 256, 0)?.control, [(libc::SCM_CREDENTIALS, own)]);
        for (pid, uid, gid) in [(me(), 0, 7), (me(), 8, 0), (me() - 1, 8, 7)] {
            let lie = control(libc::SCM_CREDENTIALS, &credentials_bytes(pid, uid, gid));
            expect_errno!(send_with(&a, b"z", &lie), libc::EPERM);
        }
        Ok(())
    })
}

fn passcred_adds_credentials() -> CaseResult {
    let (a, b) = pair(libc::SOCK_STREAM)?;
    pass_credentials(&b)?;
    write(a.as_raw_fd(), b"plain")?;
    let got = receive_with(&b, 10, 256, 0)?;
    check_eq!(got.control, [(libc::SCM_CREDENTIALS, credentials_bytes(me(), 0, 0))]);
    let (a, b) = pair(libc::SOCK_STREAM)?;
    write(a.as_raw_fd(), b"plain")?;
    check_eq!(receive_with(&b, 10, 256, 0)?.control.len(), 0);
    Ok(())
}

fn socket_passed_over_itself() -> CaseResult {
    // A cycle that nothing refers to: the kernel has to notice or to live with it.
    for _ in 0..50 {
        let (a, b) = pair(libc::SOCK_STREAM)?;
        send_with(&a, b"x", &rights(&[a.as_raw_fd(), b.as_raw_fd()]))?;
        send_with(&b, b"x", &rights(&[a.as_raw_fd(), b.as_raw_fd()]))?;
    }
    let (a, b) = pair(libc::SOCK_STREAM)?;
    send_with(&a, b"x", &rights(&[b.as_raw_fd()]))?;
    let fds = receive_with(&b, 10, 256, 0)?.fds();
    write(a.as_raw_fd(), b"twice")?;
    check_eq!(read_some(fds[0].as_raw_fd(), 10)?, b"twice");
    Ok(())
}

fn unreachable_cycle_is_closed() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let (a, b) = pair(libc::SOCK_STREAM)?;
    let (c, d) = pair(libc::SOCK_DGRAM)?;
    send_with(&a, b"x", &rights(&[d.as_raw_fd(), writer.as_raw_fd()]))?;
    send_with(&c, b"x", &rights(&[b.as_raw_fd()]))?;
    drop((writer, b, d));
    // As long as one of the two can be received, so can what waits in both.
    send_with(&a, b"y", &rights(&[c.as_raw_fd()]))?;
    drop((a, c));
    // The pipe's end of file comes when the last writer is closed, which nobody can receive any more.
    check_eq!(read_some(reader.as_raw_fd(), 1)?, b"");
    Ok(())
}

fn long_chain_of_sockets_is_closed() -> CaseResult {
    let (reader, mut last) = pipe(0)?;
    for _ in 0..10_000 {
        let (a, b) = pair(libc::SOCK_STREAM)?;
        match send_with(&a, b"x", &rights(&[last.as_raw_fd()])) {
            Ok(_) => last = b,
            // Linux before 6.10 allows five.
            Err(error) if error.errno == libc::ETOOMANYREFS => break,
            Err(error) => return Err(error.into()),
        }
    }
    drop(last);
    check_eq!(read_some(reader.as_raw_fd(), 1)?, b"");
    Ok(())
}

fn gather_and_scatter() -> CaseResult {
    let (a, b) = pair(libc::SOCK_SEQPACKET)?;
    let parts = [b"abc".as_slice(), b"", b"defgh"];
    let mut from = parts.map(|part| libc::iovec { iov_base: part.as_ptr() as *mut _, iov_len: part.len() });
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = from.as_mut_ptr();
    header.msg_iovlen = 3;
    check_eq!(sys!(sendmsg(a.as_raw_fd(), &header, 0))?, 8);
    let mut bufs = [[0u8; 3]; 3];
    let mut to = bufs.each_mut().map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 3 });
    header.msg_iov = to.as_mut_ptr();
    check_eq!(sys!(recvmsg(b.as_raw_fd(), &mut header, 0))?, 8);
    check_eq!(&bufs.concat()[..8], b"abcdefgh");
    check_eq!(header.msg_flags & libc::MSG_EOR, 0);
    header.msg_iovlen = 1025;
    expect_errno!(sys!(sendmsg(a.as_raw_fd(), &header, 0)), libc::EMSGSIZE);
    Ok(())
}
