use std::sync::Arc;

use abi::Errno;
use memmap::{IoDst, IoSrc};
use sync::PollEvents;

use super::*;

const ME: Sender = Sender { pid: 1, uid: 2, gid: 3 };

fn send(socket: &Arc<UnixSocket>, bytes: &[u8]) -> Result<usize, Errno> {
    socket.send(&mut IoSrc::kernel(bytes), SendArgs::default())
}

fn receive(socket: &UnixSocket, max: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; max];
    let len = socket.receive(&mut IoDst::kernel(&mut buffer), ReceiveArgs::default())?.len;
    buffer.truncate(len);
    Ok(buffer)
}

#[test]
fn a_stream_has_no_boundaries() {
    let [a, b] = UnixSocket::pair(SocketType::Stream, ME);
    assert_eq!(receive(&b, 9), Err(Errno::EAGAIN));
    assert_eq!((send(&a, b"abc"), send(&a, b"def")), (Ok(3), Ok(3)));
    assert_eq!(receive(&b, 4), Ok(b"abcd".to_vec()));
    assert_eq!(receive(&b, 9), Ok(b"ef".to_vec()));
    drop(a);
    assert_eq!(receive(&b, 9), Ok(Vec::new()));
    assert_eq!(send(&b, b"x"), Err(Errno::EPIPE));
    assert!(b.poll().contains(PollEvents::HUP | PollEvents::IN));
}

#[test]
fn datagrams_keep_their_boundaries() {
    let [a, b] = UnixSocket::pair(SocketType::Datagram, ME);
    assert_eq!((send(&a, b"abc"), send(&a, b""), send(&a, b"d")), (Ok(3), Ok(0), Ok(1)));
    assert_eq!(receive(&b, 2), Ok(b"ab".to_vec()));
    assert_eq!(receive(&b, 2), Ok(Vec::new()));
    assert_eq!(receive(&b, 2), Ok(b"d".to_vec()));
    for _ in 0..10 {
        assert_eq!(send(&a, b"x"), Ok(1));
    }
    assert_eq!(send(&a, b"x"), Err(Errno::EAGAIN));
    assert_eq!(receive(&b, 2), Ok(b"x".to_vec()));
    assert_eq!(send(&a, b"x"), Ok(1));
}

#[test]
fn connections_wait_for_accept() {
    let (server, client) = (UnixSocket::new(SocketType::Stream, ME), UnixSocket::new(SocketType::Stream, ME));
    assert_eq!(client.connect(Some(&server), ME), Err(Errno::ECONNREFUSED));
    assert_eq!(server.listen(1, ME), Err(Errno::EINVAL));
    assert_eq!(server.set_address(UnixAddress::Abstract(b"s".to_vec())), Ok(()));
    assert_eq!(server.listen(0, ME), Ok(()));
    assert_eq!(client.connect(Some(&server), ME), Ok(()));
    assert_eq!(client.connect(Some(&server), ME), Err(Errno::EISCONN));
    let second = UnixSocket::new(SocketType::Stream, ME);
    assert_eq!(second.connect(Some(&server), ME), Err(Errno::EAGAIN));
    assert_eq!(send(&client, b"early"), Ok(5));
    let accepted = server.accept().expect("a connection waits");
    assert_eq!(receive(&accepted, 9), Ok(b"early".to_vec()));
    assert_eq!(accepted.peer_owner(), Some(ME));
    assert_eq!(client.peer_address(), Ok(UnixAddress::Abstract(b"s".to_vec())));
    assert_eq!(server.accept().err(), Some(Errno::EAGAIN));
}

#[test]
fn a_full_stream_takes_no_more() {
    let [a, b] = UnixSocket::pair(SocketType::Stream, ME);
    let sent = send(&a, &vec![7; 1 << 20]).expect("some fits");
    assert!((100_000..400_000).contains(&sent));
    assert_eq!(send(&a, b"x"), Err(Errno::EAGAIN));
    assert!(!a.poll().intersects(PollEvents::OUT));
    assert_eq!(receive(&b, 1 << 20).map(|r| r.len()), Ok(sent));
    assert!(a.poll().intersects(PollEvents::OUT));
}

#[test]
fn unread_data_resets_the_connection() {
    let [a, b] = UnixSocket::pair(SocketType::Stream, ME);
    assert_eq!(send(&a, b"x"), Ok(1));
    drop(b);
    assert_eq!(receive(&a, 1), Err(Errno::ECONNRESET));
    assert_eq!(receive(&a, 1), Ok(Vec::new()));
}

#[test]
fn shutdown_ends_one_direction() {
    let [a, b] = UnixSocket::pair(SocketType::Stream, ME);
    assert_eq!(a.shutdown(false, true), Ok(()));
    assert_eq!((send(&a, b"x"), receive(&b, 1)), (Err(Errno::EPIPE), Ok(Vec::new())));
    assert_eq!(send(&b, b"y"), Ok(1));
    assert_eq!(receive(&a, 1), Ok(b"y".to_vec()));
}
