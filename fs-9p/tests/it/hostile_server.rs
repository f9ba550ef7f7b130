//! A server that keeps to no rule, against the client and the gofer file system.

use crate::common::{extended, pair};
use abi::Errno;
use fs_9p::client::{Client, Options};
use fs_9p::proto::{
    Attr, Data, Dirent, Made, Make, NOTAG, Qid, Rmessage, Str, Tmessage, VERSION_EXTENDED, mode, open,
    put_entry,
};
use fs_9p::vfs::mount;
use nix::sys::socket::{self, ControlMessage, MsgFlags, SockType};
use proptest::prelude::*;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the fake server answers to one request: messages, each with descriptors.
type Answers = Vec<(Vec<u8>, Vec<OwnedFd>)>;

/// A server that agrees on the version and then answers each request by `answer`, until that gives `None`.
fn fake(
    mut answer: impl FnMut(u16, &Tmessage<'_>) -> Option<Answers> + Send + 'static,
    options: Options,
) -> Arc<Client> {
    let (ours, theirs) = pair(SockType::SeqPacket);
    std::thread::spawn(move || {
        let mut buf = vec![0; 1 << 18];
        loop {
            let got = socket::recv(theirs.as_raw_fd(), &mut buf, MsgFlags::empty()).unwrap_or(0);
            let Ok((tag, message)) = Tmessage::decode(&buf[..got]) else { return };
            let answers = match message {
                Tmessage::Tversion { msize, .. } => {
                    Some(one(NOTAG, &Rmessage::Rversion { msize, version: Str(VERSION_EXTENDED) }))
                }
                _ => answer(tag, &message),
            };
            let Some(answers) = answers else { return };
            for (bytes, fds) in answers {
                let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
                let rights = [ControlMessage::ScmRights(&raw)];
                let control = if raw.is_empty() { &[][..] } else { &rights[..] };
                let iov = [IoSlice::new(&bytes)];
                socket::sendmsg::<()>(theirs.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None).ok();
            }
        }
    });
    Client::connect(ours, options).unwrap()
}

fn one(tag: u16, message: &Rmessage<'_>) -> Answers {
    let mut out = Vec::new();
    message.encode(tag, &mut out).unwrap();
    vec![(out, Vec::new())]
}

fn directory() -> Attr {
    let qid = Qid { kind: Qid::DIR, version: 0, path: 1 };
    Attr { valid: 0x7ff, qid, mode: mode::S_IFDIR | 0o755, nlink: 2, ..Attr::default() }
}

/// Answers what mounting asks for.
fn mounting(tag: u16, message: &Tmessage<'_>) -> Option<Answers> {
    match message {
        Tmessage::Tattach { .. } => Some(one(tag, &Rmessage::Rattach { qid: directory().qid })),
        Tmessage::Tgetattr { .. } => Some(one(tag, &Rmessage::Rgetattr { attr: directory() })),
        Tmessage::Tclunkmany { .. } => Some(one(tag, &Rmessage::Rclunkmany {})),
        Tmessage::Tnear { .. } => Some(one(tag, &Rmessage::Rnear {})),
        _ => None,
    }
}

#[test]
fn a_server_that_goes_fails_all_who_wait() {
    let client = fake(mounting, extended());
    let root = client.attach(b"").unwrap().0;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(root.walk(&[b"x"]).unwrap_err(), Errno::EIO));
        }
    });
    assert!(client.is_dead());
    assert_eq!(root.get_attr().unwrap_err(), Errno::EIO);
    assert_eq!(mount(&client, b"", fs_9p::vfs::Options::default()).unwrap_err(), Errno::EIO);
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    let deadline = Some(Duration::from_millis(100));
    let silent = |tag, message: &Tmessage<'_>| Some(mounting(tag, message).unwrap_or_default());
    let client = fake(silent, Options { deadline, ..extended() });
    let root = client.attach(b"").unwrap().0;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(root.walk(&[b"x"]).unwrap_err(), Errno::EIO));
        }
    });
    assert!(client.is_dead() && start.elapsed() < Duration::from_secs(5));
    // One that says nothing at all.
    let (ours, _theirs) = pair(SockType::Stream);
    assert_eq!(Client::connect(ours, Options { deadline, ..Options::default() }).unwrap_err(), Errno::EIO);
}

#[test]
fn answers_to_nobody_end_the_connection() {
    let bad: [fn(u16) -> Answers; 4] = [
        |tag| one(tag + 1, &Rmessage::Rclunk {}),
        |_| one(NOTAG, &Rmessage::Rclunk {}),
        |_| vec![(vec![1, 2, 3], vec![])],
        |tag| [one(tag, &Rmessage::Rclunk {}), one(tag, &Rmessage::Rclunk {})].concat_twice(),
    ];
    for answers in bad {
        let client = fake(move |tag, m| mounting(tag, m).or_else(|| Some(answers(tag))), extended());
        let root = client.attach(b"").unwrap().0;
        assert_eq!(root.walk(&[b"x"]).unwrap_err(), Errno::EIO);
        assert_eq!(root.walk(&[b"x"]).unwrap_err(), Errno::EIO);
    }
}

trait Concat {
    fn concat_twice(self) -> Answers;
}
impl Concat for [Answers; 2] {
    fn concat_twice(self) -> Answers {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn wrong_numbers_are_errors() {
    // More attributes than steps, none, an error number that is none, a descriptor that does not come.
    let answer = |tag, message: &Tmessage<'_>| {
        let walk = |attrs, errno, donated| Rmessage::Rwalkattr { attrs, errno, donated, open_errno: 0 };
        Some(match message {
            Tmessage::Twalkattr { steps, .. } => match steps.first().map(|step| step.name.0) {
                Some(b"many") => one(tag, &walk(vec![directory(); 3], 0, 0)),
                Some(b"none") => one(tag, &walk(vec![], 0, 0)),
                Some(b"errno") => one(tag, &Rmessage::Rlerror { errno: 70_000 }),
                Some(b"restart") => one(tag, &Rmessage::Rlerror { errno: 512 }),
                Some(b"zero") => one(tag, &Rmessage::Rlerror { errno: 0 }),
                _ => one(tag, &walk(vec![directory()], 0, 1)),
            },
            Tmessage::Tread { .. } => one(tag, &Rmessage::Rread { data: Data(b"more than was asked") }),
            Tmessage::Twrite { .. } => one(tag, &Rmessage::Rwrite { count: u32::MAX }),
            Tmessage::Twalk { .. } => one(tag, &Rmessage::Rwalk { qids: vec![Qid::default(); 9] }),
            Tmessage::Tmake { .. } => {
                one(tag, &Rmessage::Rmake { made: Made { attr: directory(), donated: 1 } })
            }
            _ => return mounting(tag, message),
        })
    };
    let client = fake(answer, extended());
    let root = client.attach(b"").unwrap().0;
    for name in [&b"many"[..], b"none", b"errno", b"restart", b"zero"] {
        assert_eq!(root.walk_attr(&[name], Make::UNOPENED).unwrap_err(), Errno::EIO, "{name:?}");
    }
    let walked = root.walk_attr(&[b"x"], open::O_RDONLY).unwrap();
    assert_eq!((walked.fd.is_none(), walked.open_error), (true, Some(Errno::EMFILE)));
    assert_eq!(root.open_fd(0).unwrap_err(), Errno::EMFILE);
    assert_eq!(root.read(&mut [0; 4], 0).unwrap_err(), Errno::EIO);
    assert_eq!(root.write(b"abc", 0).unwrap_err(), Errno::EIO);
    assert_eq!(root.walk(&[b"x"]).unwrap_err(), Errno::EIO);
    let make = Make { mode: mode::S_IFREG, uid: 0, gid: 0, rdev: 0, target: Str(b""), open: 0 };
    assert_eq!(root.make(b"x", &make).unwrap_err(), Errno::EMFILE);
    assert!(!client.is_dead());
}

#[test]
fn what_is_donated_must_be_a_regular_file() {
    let regular =
        Attr { mode: mode::S_IFREG | 0o644, qid: Qid { kind: 0, version: 0, path: 2 }, ..directory() };
    let answer = move |tag, message: &Tmessage<'_>| {
        let Tmessage::Twalkattr { steps, .. } = message else { return mounting(tag, message) };
        if !steps.is_empty() {
            let attrs = vec![regular];
            return Some(one(tag, &Rmessage::Rwalkattr { attrs, errno: 0, donated: 0, open_errno: 0 }));
        }
        // A pipe that would block whoever reads it; and more descriptors than the client has room for.
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut fds = vec![reader.try_clone().unwrap()];
        for _ in 0..20 {
            fds.push(writer.try_clone().unwrap());
        }
        let mut out = Vec::new();
        let reply = Rmessage::Rwalkattr { attrs: vec![], errno: 0, donated: 1, open_errno: 0 };
        reply.encode(tag, &mut out).unwrap();
        drop(reader);
        Some(vec![(out, fds)])
    };
    let client = fake(answer, extended());
    let fs = mount(&client, b"", fs_9p::vfs::Options::default()).unwrap();
    let (creds, clock) = (Arc::new(kernel::Credentials::root()), sync::HostClock::new());
    let cx = vfs::OpCx::of_kernel(&creds, &clock);
    let file = fs.root().lookup(&cx, b"f").unwrap();
    assert_eq!(file.open(&cx, 0).unwrap_err(), Errno::EIO);
}

struct Count(usize);
impl vfs::DirSink for Count {
    fn add(&mut self, _: &vfs::DirEntry<'_>) -> bool {
        self.0 += 1;
        true
    }
}

#[test]
fn a_directory_without_end_or_with_bad_names_is_an_error() {
    let names = [(1, &b"same place"[..]), (9, b"a/b"), (9, b""), (9, b"a\0"), (9, &[b'x'; 300])];
    for ((offset, name), at_once) in names.into_iter().flat_map(|name| [(name, true), (name, false)]) {
        let answer = move |tag, message: &Tmessage<'_>| {
            let (mut fine, mut bad) = (Vec::new(), Vec::new());
            put_entry(&mut fine, &Dirent { qid: Qid::default(), offset: 1, kind: 8, name: Str(b"fine") });
            put_entry(&mut bad, &Dirent { qid: Qid::default(), offset, kind: 8, name: Str(name) });
            let all = [fine.clone(), bad.clone()].concat();
            Some(match message {
                Tmessage::Tlist { .. } if at_once => one(tag, &Rmessage::Rlist { more: 0, data: Data(&all) }),
                Tmessage::Tlist { .. } => one(tag, &Rmessage::Rlist { more: 1, data: Data(&fine) }),
                Tmessage::Treaddir { .. } => one(tag, &Rmessage::Rreaddir { data: Data(&bad) }),
                _ => return mounting(tag, message),
            })
        };
        let fs = mount(&fake(answer, extended()), b"", fs_9p::vfs::Options::default()).unwrap();
        let (creds, clock) = (Arc::new(kernel::Credentials::root()), sync::HostClock::new());
        let cx = vfs::OpCx::of_kernel(&creds, &clock);
        let dir = fs.root().open(&cx, 0).unwrap();
        let mut count = Count(0);
        assert_eq!(dir.readdir(&cx, 0, &mut count), Ok(1));
        assert_eq!(dir.readdir(&cx, 1, &mut count), Err(Errno::EIO));
        assert_eq!(count.0, 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_answers_do_no_harm(
        answers in prop::collection::vec((0_u8..224, prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..300)), 1..20)
    ) {
        let mut answers = answers.into_iter().cycle();
        let answer = move |tag: u16, message: &Tmessage<'_>| {
            let (kind, body) = answers.next()?;
            // Half of the time the type that is waited for.
            let kind = if body.len() % 2 == 0 { message.kind() + 1 } else { kind };
            let mut bytes = u32::try_from(7 + body.len()).ok()?.to_le_bytes().to_vec();
            bytes.push(kind);
            bytes.extend(tag.to_le_bytes());
            bytes.extend(body);
            Some(vec![(bytes, vec![])])
        };
        let client = fake(answer, Options { deadline: Some(Duration::from_secs(5)), ..extended() });
        if let Ok((root, _)) = client.attach(b"") {
            drop(root.walk_attr(&[b"a", b"b"], 0));
            root.get_attr().ok();
            drop(root.read_dir(0, true));
            drop(root.read_dir(0, false));
            drop(root.list());
            drop(root.read_link());
            drop(root.get_xattr(b"user.x", 10));
            root.read(&mut [0; 10], 0).ok();
            drop(root.open_fd(0));
        }
        if let Ok(fs) = mount(&client, b"", fs_9p::vfs::Options::default()) {
            fs.stat_fs().ok();
            fs.root().metadata().ok();
        }
    }
}
