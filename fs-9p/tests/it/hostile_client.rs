//! A client that keeps to no rule, against the server.

use crate::common::{Scratch, export, pair, serve_until};
use abi::Errno;
use fs_9p::localfs::LocalFs;
use fs_9p::proto::{
    Data, Make, NOFID, NOTAG, Rmessage, SetAttr, Step, Str, Tmessage, VERSION, VERSION_EXTENDED, mode, open,
};
use fs_9p::server::{Limits, ServeError, serve};
use nix::sys::socket::{self, ControlMessage, MsgFlags, SockType};
use proptest::prelude::*;
use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::thread::JoinHandle;

struct Raw {
    socket: OwnedFd,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Raw {
    fn new(dir: &Scratch, limits: Limits) -> Self {
        let (socket, server) = serve_until(SockType::SeqPacket, vec![export("0", &dir.0, true)], limits);
        Self { socket, server }
    }
    /// One that has agreed on the extension and attached fid 0.
    fn attached(dir: &Scratch, limits: Limits) -> Self {
        let raw = Self::new(dir, limits);
        raw.ok(&Tmessage::Tversion { msize: 1 << 16, version: Str(VERSION_EXTENDED) });
        raw.ok(&attach(0));
        raw
    }
    fn send(&self, bytes: &[u8]) {
        socket::send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).ok();
    }
    fn receive(&self) -> Vec<u8> {
        let mut buf = vec![0; 1 << 17];
        let got = socket::recv(self.socket.as_raw_fd(), &mut buf, MsgFlags::empty()).unwrap_or(0);
        buf.truncate(got);
        buf
    }
    fn ask(&self, message: &Tmessage<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(7, &mut out).unwrap();
        self.send(&out);
        self.receive()
    }
    fn error(&self, message: &Tmessage<'_>) -> Option<Errno> {
        match Rmessage::decode(&self.ask(message)).unwrap() {
            (7, Rmessage::Rlerror { errno }) => Errno::from_raw(errno.try_into().unwrap()),
            _ => None,
        }
    }
    fn ok(&self, message: &Tmessage<'_>) {
        assert_eq!(self.error(message), None, "{message:?}");
    }
    /// Ends the connection and tells how the server took it.
    fn end(self) -> Result<(), ServeError> {
        drop(self.socket);
        self.server.join().expect("the server does not panic")
    }
}

const fn attach(fid: u32) -> Tmessage<'static> {
    Tmessage::Tattach { fid, afid: NOFID, uname: Str(b""), aname: Str(b"0"), n_uname: 0 }
}

fn make(kind: u32) -> Make<'static> {
    Make {
        mode: kind | 0o600,
        uid: u32::MAX,
        gid: u32::MAX,
        rdev: 0,
        target: Str(b"t"),
        open: Make::UNOPENED,
    }
}

#[test]
fn names_that_are_none_are_refused_everywhere() {
    let dir = Scratch::new();
    fs::write(dir.join("f"), "").unwrap();
    let raw = Raw::attached(&dir, Limits::default());
    let long = vec![b'x'; 256];
    let names: [(&[u8], Errno); 8] = [
        (b"", Errno::ENOENT),
        (b".", Errno::EINVAL),
        (b"..", Errno::EINVAL),
        (b"/", Errno::EINVAL),
        (b"../x", Errno::EINVAL),
        (b"/etc/passwd", Errno::EINVAL),
        (b"f\0", Errno::EINVAL),
        (&long, Errno::ENAMETOOLONG),
    ];
    raw.ok(&Tmessage::Twalk { fid: 0, newfid: 1, names: vec![Str(b"f")] });
    for (name, errno) in names {
        let (name, good) = (Str(name), Str(b"g"));
        let steps = vec![Step { newfid: 9, name }];
        let requests = [
            Tmessage::Twalkattr { fid: 0, steps, open: Make::UNOPENED },
            Tmessage::Tmake { dfid: 0, newfid: 9, name, make: make(mode::S_IFDIR) },
            Tmessage::Tlcreate { fid: 0, name, flags: 2, mode: 0o600, gid: 0 },
            Tmessage::Tmkdir { dfid: 0, name, mode: 0o700, gid: u32::MAX },
            Tmessage::Tsymlink { fid: 0, name, target: good, gid: u32::MAX },
            Tmessage::Tmknod { dfid: 0, name, mode: mode::S_IFIFO, major: 0, minor: 0, gid: u32::MAX },
            Tmessage::Tlink { dfid: 0, fid: 1, name },
            Tmessage::Tunlinkat { dirfid: 0, name, flags: 0 },
            Tmessage::Trenameat { olddirfid: 0, oldname: name, newdirfid: 0, newname: good },
            Tmessage::Trenameat2 { olddirfid: 0, oldname: Str(b"f"), newdirfid: 0, newname: name, flags: 0 },
            Tmessage::Trename { fid: 1, dfid: 0, name },
        ];
        for request in requests {
            assert_eq!(raw.error(&request), Some(errno), "{request:?}");
        }
        if *name != *b".." {
            let walk = Tmessage::Twalk { fid: 0, newfid: 9, names: vec![name] };
            assert_eq!(raw.error(&walk), Some(errno), "{walk:?}");
        }
    }
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
    assert_eq!(raw.end(), Ok(()));
}

#[test]
fn fids_are_limited_and_never_confused() {
    let dir = Scratch::new();
    fs::write(dir.join("f"), "").unwrap();
    symlink("f", dir.join("l")).unwrap();
    let raw = Raw::attached(&dir, Limits { fids: 4, ..Limits::default() });
    let walk = |newfid| Tmessage::Twalk { fid: 0, newfid, names: vec![Str(b"f")] };
    for newfid in 1..4 {
        raw.ok(&walk(newfid));
    }
    assert_eq!(raw.error(&walk(4)), Some(Errno::ENFILE));
    assert_eq!(raw.error(&attach(4)), Some(Errno::ENFILE));
    assert_eq!(raw.error(&walk(2)), Some(Errno::EBADF), "in use");
    assert_eq!(raw.error(&walk(NOFID)), Some(Errno::EBADF));
    raw.ok(&Tmessage::Tclunkmany { fids: vec![1, 2, 77, 1] });
    raw.ok(&walk(1));
    assert_eq!(raw.error(&Tmessage::Tclunk { fid: 77 }), Some(Errno::EBADF));
    assert_eq!(raw.error(&Tmessage::Tread { fid: 1, offset: 0, count: 9 }), Some(Errno::EBADF), "not open");
    raw.ok(&Tmessage::Tlopen { fid: 1, flags: 0 });
    assert_eq!(raw.error(&Tmessage::Tlopen { fid: 1, flags: 0 }), Some(Errno::EBADF), "open already");
    assert_eq!(raw.error(&Tmessage::Tlopen { fid: 3, flags: 0o3 }), Some(Errno::EINVAL));
    assert_eq!(
        raw.error(&Tmessage::Tread { fid: 1, offset: u64::MAX, count: u32::MAX }),
        Some(Errno::EINVAL)
    );
    assert_eq!(raw.error(&Tmessage::Twrite { fid: 1, offset: 0, data: Data(b"x") }), Some(Errno::EBADF));
    assert_eq!(raw.error(&Tmessage::Treaddir { fid: 1, offset: 0, count: 0 }), Some(Errno::ENOTDIR));
    let names = vec![Str(b"f"); 17];
    assert_eq!(raw.error(&Tmessage::Twalk { fid: 0, newfid: 2, names }), Some(Errno::EINVAL));
    // A step's fid twice.
    let steps = vec![Step { newfid: 2, name: Str(b"l") }, Step { newfid: 2, name: Str(b"l") }];
    raw.ok(&Tmessage::Twalkattr { fid: 0, steps, open: 0 });
    assert_eq!(raw.error(&Tmessage::Tlopen { fid: 2, flags: 0 }), Some(Errno::ELOOP));
    let set = SetAttr { valid: !0, ..SetAttr::default() };
    assert_eq!(raw.error(&Tmessage::Tsetattr { fid: 3, set }), Some(Errno::EINVAL));
    assert_eq!(
        raw.error(&Tmessage::Txattrcreate { fid: 3, name: Str(b"user.a"), size: 1 << 40, flags: 0 }),
        Some(Errno::E2BIG)
    );
    raw.ok(&Tmessage::Txattrcreate { fid: 3, name: Str(b"user.a"), size: 2, flags: 0 });
    assert_eq!(raw.error(&Tmessage::Twrite { fid: 3, offset: 0, data: Data(b"xyz") }), Some(Errno::EINVAL));
    assert_eq!(raw.error(&Tmessage::Tclunk { fid: 3 }), Some(Errno::EINVAL), "not all was written");
    assert_eq!(raw.end(), Ok(()));
}

#[test]
fn versions_and_sizes_are_agreed_on_first() {
    let dir = Scratch::new();
    let raw = Raw::new(&dir, Limits { msize: 8192, ..Limits::default() });
    assert_eq!(raw.error(&attach(0)), Some(Errno::EPROTO));
    let version = |msize, version| Tmessage::Tversion { msize, version: Str(version) };
    let answer = |message| {
        let bytes = raw.ask(&message);
        match Rmessage::decode(&bytes).unwrap().1 {
            Rmessage::Rversion { msize, version } => (msize, version.to_vec()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(answer(version(u32::MAX, b"9P2000.u")).1, b"unknown");
    assert_eq!(raw.error(&attach(0)), Some(Errno::EPROTO));
    assert_eq!(raw.error(&version(100, VERSION)), Some(Errno::EMSGSIZE));
    assert_eq!(answer(version(u32::MAX, b"9P2000.L.other")), (8192, VERSION.to_vec()));
    raw.ok(&attach(0));
    assert_eq!(raw.error(&Tmessage::Tclunkmany { fids: vec![] }), Some(Errno::EOPNOTSUPP), "not agreed on");
    assert_eq!(answer(version(4096, VERSION_EXTENDED)), (4096, VERSION_EXTENDED.to_vec()));
    assert_eq!(raw.error(&Tmessage::Tclunk { fid: 0 }), Some(Errno::EBADF), "forgotten by Tversion");
    raw.ok(&attach(0));
    // An unknown type is answered, by the tag it came with.
    raw.send(&[7, 0, 0, 0, 250, 5, 0]);
    let mut refused = Vec::new();
    Rmessage::Rlerror { errno: u32::from(Errno::EOPNOTSUPP.raw()) }.encode(5, &mut refused).unwrap();
    assert_eq!(raw.receive(), refused);
    assert_eq!(raw.end(), Ok(()));
}

#[test]
fn what_is_no_message_ends_the_connection() {
    let dir = Scratch::new();
    let bad: [&[u8]; 5] =
        [&[0], &[7, 0, 0, 0, 100], &[8, 0, 0, 0, 120, 1, 0], &[255; 40], &[7, 0, 0, 0, 120, 1, 0]];
    for bytes in bad {
        let raw = Raw::attached(&dir, Limits::default());
        raw.send(bytes);
        assert_eq!(raw.receive(), b"");
        assert!(matches!(raw.end(), Err(ServeError::Message(_))), "{bytes:?}");
    }
    // A stream that ends within a message, and one whose size is absurd.
    for bytes in [&[19, 0, 0, 0, 100][..], &[255; 7], &[3, 0, 0, 0, 100, 0, 0]] {
        let (ours, theirs) = pair(SockType::Stream);
        let fs = LocalFs::new(vec![], LocalFs::open_proc_self_fd().unwrap()).unwrap();
        socket::send(ours.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
        drop(ours);
        assert_eq!(serve(theirs, &fs, Limits::default()), Err(ServeError::Socket(Errno::EPROTO)));
    }
}

#[test]
fn descriptors_that_a_client_sends_are_not_kept() {
    let dir = Scratch::new();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let raw = Raw::attached(&dir, Limits::default());
    let mut out = Vec::new();
    Tmessage::Tgetattr { fid: 0, mask: 0 }.encode(1, &mut out).unwrap();
    let rights = [writer.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&rights)];
    socket::sendmsg::<()>(raw.socket.as_raw_fd(), &[IoSlice::new(&out)], &control, MsgFlags::empty(), None)
        .unwrap();
    assert!(matches!(Rmessage::decode(&raw.receive()), Ok((1, Rmessage::Rgetattr { .. }))));
    drop(writer);
    // All writers are gone: end of file and not a wait.
    assert_eq!(nix::unistd::read(&reader, &mut [0; 1]), Ok(0));
    assert_eq!(raw.end(), Ok(()));
}

#[test]
fn flushes_are_answered_behind_what_they_flush() {
    let dir = Scratch::new();
    let raw = Raw::attached(&dir, Limits { threads: 1, ..Limits::default() });
    let send = |tag, message: Tmessage<'_>| {
        let mut out = Vec::new();
        message.encode(tag, &mut out).unwrap();
        raw.send(&out);
    };
    for round in 0..200_u16 {
        send(round * 3, Tmessage::Tgetattr { fid: 0, mask: 0 });
        send(round * 3 + 1, Tmessage::Tflush { oldtag: round * 3 });
        send(round * 3 + 2, Tmessage::Tflush { oldtag: round * 3 + 1 });
        for place in 0..3 {
            let bytes = raw.receive();
            let (tag, message) = Rmessage::decode(&bytes).unwrap();
            assert_eq!(tag, round * 3 + place);
            assert_eq!(matches!(message, Rmessage::Rgetattr { .. }), place == 0);
            assert_eq!(matches!(message, Rmessage::Rflush {}), place != 0);
        }
    }
    send(NOTAG, Tmessage::Tflush { oldtag: NOTAG });
    assert!(matches!(Rmessage::decode(&raw.receive()), Ok((NOTAG, Rmessage::Rflush {}))));
    assert_eq!(raw.end(), Ok(()));
}

#[test]
fn several_threads_offer_no_flush() {
    let dir = Scratch::new();
    let raw = Raw::attached(&dir, Limits { threads: 2, ..Limits::default() });
    assert_eq!(raw.error(&Tmessage::Tflush { oldtag: 7 }), Some(Errno::EOPNOTSUPP));
    raw.ok(&Tmessage::Tgetattr { fid: 0, mask: 0 });
    assert_eq!(raw.end(), Ok(()));
}

/// A message with a small fid space, so that messages meet each other's fids.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(prop_oneof![4 => Just(0_u8), 2 => 0_u8..4, 1 => any::<u8>()], 0..80);
    (prop_oneof![0_u8..130, 198_u8..218], body).prop_map(|(kind, body)| {
        let mut bytes = u32::try_from(7 + body.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend([kind, 1, 0]);
        bytes.extend(body);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_messages_do_no_harm(messages in prop::collection::vec(any_message(), 1..60)) {
        let dir = Scratch::new();
        fs::write(dir.join("\u{1}"), "x").unwrap();
        let raw = Raw::attached(&dir, Limits { fids: 16, ..Limits::default() });
        for message in messages {
            raw.send(&message);
            if raw.receive().is_empty() {
                break;
            }
        }
        let ended = raw.end();
        prop_assert!(matches!(ended, Ok(()) | Err(ServeError::Message(_))), "{:?}", ended);
    }
}

#[test]
fn special_files_are_never_opened() {
    let dir = Scratch::new();
    nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let raw = Raw::attached(&dir, Limits::default());
    raw.ok(&Tmessage::Twalk { fid: 0, newfid: 1, names: vec![Str(b"fifo")] });
    for flags in [open::O_RDONLY, open::O_WRONLY, open::O_RDWR | open::O_NONBLOCK] {
        assert_eq!(raw.error(&Tmessage::Tlopen { fid: 1, flags }), Some(Errno::ENXIO));
    }
    let set = SetAttr { valid: fs_9p::proto::SetAttrMask::SIZE, ..SetAttr::default() };
    assert_eq!(raw.error(&Tmessage::Tsetattr { fid: 1, set }), Some(Errno::EINVAL));
    assert_eq!(raw.end(), Ok(()));
}
