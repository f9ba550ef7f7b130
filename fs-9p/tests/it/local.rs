//! Client and server over folders of the host, with and without the extension.

use crate::common::{Scratch, connect, connect_plain, export, extended, serve};
use abi::Errno;
use fs_9p::client::{Client, Fid, Options};
use fs_9p::proto::{Make, SetAttr, SetAttrMask, Str, Time, mode, open};
use fs_9p::server::Limits;
use nix::sys::socket::SockType;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;

fn root(client: &Arc<Client>) -> Fid {
    client.attach(b"0").expect("attach").0
}

fn make(kind: u32, open: u32) -> Make<'static> {
    Make { mode: kind | 0o640, uid: 1234, gid: 4321, rdev: 0, target: Str(b""), open }
}

#[test]
fn a_walk_tells_attributes_and_brings_the_open_file() {
    let dir = Scratch::new();
    fs::create_dir_all(dir.join("a/b")).unwrap();
    fs::write(dir.join("a/b/c"), "hello").unwrap();
    let client = connect(&dir.0);
    assert!(client.extended());
    let walked = root(&client).walk_attr(&[b"a", b"b", b"c"], open::O_RDONLY).unwrap();
    assert_eq!(walked.files.len(), 3);
    assert_eq!(walked.error, None);
    let attr = walked.files[2].1;
    let meta = fs::metadata(dir.join("a/b/c")).unwrap();
    assert_eq!((attr.qid.path, attr.size, attr.mode), (meta.ino(), 5, meta.mode()));
    let file = fs::File::from(walked.fd.expect("a descriptor"));
    let mut buf = [0; 8];
    assert_eq!(file.read_at(&mut buf, 1).unwrap(), 4);
    assert_eq!(&buf[..4], b"ello");
    assert!(file.write_at(b"x", 0).is_err(), "opened for reading only");
    // The same file again, for writing.
    let file = walked.files[2].0.open_fd(open::O_RDWR).unwrap().expect("a descriptor");
    fs::File::from(file).write_at(b"J", 0).unwrap();
    assert_eq!(fs::read(dir.join("a/b/c")).unwrap(), b"Jello");
}

#[test]
fn a_walk_ends_at_what_is_missing_and_at_a_link() {
    let dir = Scratch::new();
    fs::create_dir(dir.join("a")).unwrap();
    symlink("a", dir.join("link")).unwrap();
    for client in [connect(&dir.0), connect_plain(&dir.0)] {
        let root = root(&client);
        let walked = root.walk_attr(&[b"a", b"no", b"c"], Make::UNOPENED).unwrap();
        assert_eq!((walked.files.len(), walked.error), (1, Some(Errno::ENOENT)));
        let walked = root.walk_attr(&[b"link", b"c"], Make::UNOPENED).unwrap();
        assert_eq!((walked.files.len(), walked.error), (1, None));
        assert_eq!(walked.files[0].0.read_link().unwrap(), b"a");
        assert_eq!(root.walk_attr(&[b"no"], Make::UNOPENED).unwrap_err(), Errno::ENOENT);
        assert_eq!(root.read_link().unwrap_err(), Errno::EINVAL);
    }
}

#[test]
fn files_of_every_type_are_made_with_owner_and_permissions() {
    let dir = Scratch::new();
    let client = connect(&dir.0);
    let root = root(&client);
    let is_root = nix::unistd::geteuid().is_root();
    let kinds = [
        (&b"reg"[..], mode::S_IFREG),
        (b"dir", mode::S_IFDIR),
        (b"fifo", mode::S_IFIFO),
        (b"sock", mode::S_IFSOCK),
    ];
    for (name, kind) in kinds {
        let wanted = if is_root {
            make(kind, Make::UNOPENED)
        } else {
            Make { uid: u32::MAX, gid: u32::MAX, ..make(kind, Make::UNOPENED) }
        };
        let made = root.make(name, &wanted).unwrap();
        let meta = fs::symlink_metadata(dir.join(std::str::from_utf8(name).unwrap())).unwrap();
        assert_eq!(meta.mode(), kind | 0o640);
        assert_eq!((made.attr.mode, made.attr.qid.path), (meta.mode(), meta.ino()));
        if is_root {
            assert_eq!((meta.uid(), meta.gid()), (1234, 4321));
        }
        assert_eq!(root.make(name, &wanted).unwrap_err(), Errno::EEXIST);
        assert!(made.fd.is_none());
    }
    let link = Make {
        mode: mode::S_IFLNK | 0o777,
        uid: u32::MAX,
        gid: u32::MAX,
        target: Str(b"no/where"),
        ..make(0, 0)
    };
    let made = root.make(b"link", &link).unwrap();
    assert_eq!(made.fid.read_link().unwrap(), b"no/where");
    let made = root
        .make(b"open", &Make { uid: u32::MAX, gid: u32::MAX, ..make(mode::S_IFREG, open::O_RDWR) })
        .unwrap();
    fs::File::from(made.fd.unwrap()).write_at(b"hi", 0).unwrap();
    assert_eq!(made.fid.get_attr().unwrap().size, 2);
    for name in [&b"fifo"[..], b"sock"] {
        let walked = root.walk_attr(&[name], open::O_RDONLY).unwrap();
        assert!(walked.fd.is_none());
        assert_eq!(walked.files[0].0.open_fd(open::O_RDONLY).unwrap_err(), Errno::ENXIO);
    }
}

#[test]
fn attributes_are_changed() {
    let dir = Scratch::new();
    fs::write(dir.join("f"), "0123456789").unwrap();
    symlink("f", dir.join("l")).unwrap();
    for client in [connect(&dir.0), connect_plain(&dir.0)] {
        let file = root(&client).walk(&[b"f"]).unwrap().0;
        let valid = SetAttrMask::MODE | SetAttrMask::SIZE | SetAttrMask::MTIME | SetAttrMask::MTIME_SET;
        let mtime = Time { sec: 1_000_000, nsec: 5 };
        let attr =
            file.set_attr(&SetAttr { valid, mode: 0o4711, size: 3, mtime, ..SetAttr::default() }).unwrap();
        assert_eq!((attr.mode & 0o7777, attr.size, attr.mtime), (0o4711, 3, mtime));
        let link = root(&client).walk(&[b"l"]).unwrap().0;
        let set = SetAttr { valid: SetAttrMask::MODE, mode: 0o600, ..SetAttr::default() };
        assert_eq!(link.set_attr(&set).unwrap_err(), Errno::EOPNOTSUPP);
        let times =
            SetAttr { valid: SetAttrMask::MTIME | SetAttrMask::MTIME_SET, mtime, ..SetAttr::default() };
        assert_eq!(link.set_attr(&times).unwrap().mtime, mtime);
        assert_eq!(fs::symlink_metadata(dir.join("l")).unwrap().mtime(), 1_000_000);
        assert_eq!(
            root(&client).set_attr(&SetAttr { valid: SetAttrMask::SIZE, ..set }).unwrap_err(),
            Errno::EISDIR
        );
        let bad = SetAttr { mtime: Time { sec: 0, nsec: 2_000_000_000 }, ..times };
        assert_eq!(file.set_attr(&bad).unwrap_err(), Errno::EINVAL);
        fs::write(dir.join("f"), "0123456789").unwrap();
    }
}

#[test]
fn plain_messages_read_write_and_list() {
    let dir = Scratch::new();
    let client = connect_plain(&dir.0);
    assert!(!client.extended());
    let file = root(&client);
    file.create(b"big", open::O_RDWR, 0o644, u32::MAX).unwrap();
    let data: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let mut done = 0;
    while done < data.len() {
        done += file.write(&data[done..], done as u64).unwrap();
    }
    file.sync(false).unwrap();
    assert_eq!(fs::read(dir.join("big")).unwrap(), data);
    let mut back = vec![0; data.len() + 10];
    let mut have = 0;
    loop {
        match file.read(&mut back[have..], have as u64).unwrap() {
            0 => break,
            got => have += got,
        }
    }
    assert_eq!(&back[..have], &data);
    for i in 0..2000 {
        fs::write(dir.join(&format!("file-with-a-long-name-{i}")), "").unwrap();
    }
    assert_eq!(list(&client, false), list(&connect(&dir.0), true));
    let walked = root(&client).walk(&[b"big", b".."]).unwrap();
    assert_eq!(walked.1[1], client.attach(b"0").unwrap().1);
    let walked = root(&client).walk(&[b"..", b".."]).unwrap();
    assert_eq!(walked.1[1], client.attach(b"0").unwrap().1, "never above the root");
}

fn list(client: &Arc<Client>, with_attr: bool) -> Vec<String> {
    let dir = root(client);
    dir.open(open::O_RDONLY | open::O_DIRECTORY).unwrap();
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let entries = dir.read_dir(offset, with_attr).unwrap();
        let Some(last) = entries.last() else { break };
        offset = last.offset;
        for entry in entries {
            assert!(!with_attr || entry.name == b".." || entry.attr.is_some());
            names.push(String::from_utf8(entry.name).unwrap());
        }
    }
    // From the middle, which the listing has left behind.
    let middle = dir.read_dir(1000, false).unwrap();
    assert_eq!(middle[0].name, names[1000].as_bytes());
    names.sort();
    assert_eq!(names.len(), 2003);
    names
}

#[test]
fn names_are_moved_linked_and_removed() {
    let dir = Scratch::new();
    for client in [connect(&dir.0), connect_plain(&dir.0)] {
        let root = root(&client);
        fs::write(dir.join("a"), "a").unwrap();
        fs::create_dir(dir.join("d")).unwrap();
        let a = root.walk(&[b"a"]).unwrap().0;
        let d = root.walk(&[b"d"]).unwrap().0;
        a.link(&d, b"hard").unwrap();
        assert_eq!(fs::metadata(dir.join("d/hard")).unwrap().nlink(), 2);
        assert_eq!(a.link(&d, b"hard").unwrap_err(), Errno::EEXIST);
        root.rename(b"a", &d, b"b", 0).unwrap();
        assert_eq!(fs::read(dir.join("d/b")).unwrap(), b"a");
        // The fid follows the file.
        assert_eq!(a.get_attr().unwrap().nlink, 2);
        assert_eq!(root.unlink(b"d", 0).unwrap_err(), Errno::EISDIR);
        assert_eq!(root.unlink(b"d", 0x200).unwrap_err(), Errno::ENOTEMPTY);
        assert_eq!(root.unlink(b"d", 1).unwrap_err(), Errno::EINVAL);
        d.unlink(b"b", 0).unwrap();
        d.unlink(b"hard", 0).unwrap();
        assert_eq!(a.get_attr().unwrap().nlink, 0, "unlinked while held");
        root.unlink(b"d", 0x200).unwrap();
        assert!(!dir.join("d").exists());
        assert_eq!(root.rename(b"no", &root, b"b", 0).unwrap_err(), Errno::ENOENT);
        assert!(root.stat_fs().unwrap().bsize > 0);
        assert_eq!(root.get_xattr(b"user.x", 100).unwrap_err(), Errno::EOPNOTSUPP);
    }
}

#[test]
fn a_read_only_export_is_not_changed() {
    let dir = Scratch::new();
    fs::write(dir.join("f"), "x").unwrap();
    fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o666)).unwrap();
    let exports = vec![export("ro", &dir.0, false), export("file", &dir.join("f"), true)];
    let client = Client::connect(serve(SockType::SeqPacket, exports, Limits::default()), extended()).unwrap();
    let root = client.attach(b"ro").unwrap().0;
    let f = root.walk(&[b"f"]).unwrap().0;
    let erofs = Errno::EROFS;
    assert_eq!(f.open_fd(open::O_RDWR).unwrap_err(), erofs);
    assert_eq!(f.open_fd(open::O_RDONLY | open::O_TRUNC).unwrap_err(), erofs);
    assert!(f.open_fd(open::O_RDONLY).unwrap().is_some());
    let walked = root.walk_attr(&[b"f"], open::O_RDWR).unwrap();
    assert_eq!((walked.open_error, walked.fd.is_none()), (Some(erofs), true));
    assert_eq!(root.make(b"g", &make(mode::S_IFREG, open::O_RDWR)).unwrap_err(), erofs);
    assert_eq!(f.set_attr(&SetAttr { valid: SetAttrMask::MODE, ..SetAttr::default() }).unwrap_err(), erofs);
    assert_eq!(f.link(&root, b"g").unwrap_err(), erofs);
    assert_eq!(root.rename(b"f", &root, b"g", 0).unwrap_err(), erofs);
    assert_eq!(root.unlink(b"f", 0).unwrap_err(), erofs);
    // A single file, exported writable.
    let file = client.attach(b"file").unwrap().0;
    assert_eq!(file.get_attr().unwrap().size, 1);
    assert_eq!(file.walk(&[b"x"]).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(file.walk_attr(&[b".."], Make::UNOPENED).unwrap_err(), Errno::EINVAL);
    fs::File::from(file.open_fd(open::O_RDWR).unwrap().unwrap()).write_at(b"yz", 0).unwrap();
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"yz");
    assert_eq!(f.link(&file, b"g").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(client.attach(b"none").unwrap_err(), Errno::ENOENT);
}

#[test]
fn many_threads_share_a_client_and_its_tags() {
    let dir = Scratch::new();
    for i in 0..16 {
        fs::write(dir.join(&format!("f{i}")), format!("contents {i}")).unwrap();
    }
    for (kind, options) in [(SockType::SeqPacket, extended()), (SockType::Stream, Options::default())] {
        let socket = serve(kind, vec![export("0", &dir.0, true)], Limits::default());
        let client = Client::connect(socket, Options { tags: 4, ..options }).unwrap();
        let root = root(&client);
        std::thread::scope(|scope| {
            for i in 0..16 {
                let (root, name) = (&root, format!("f{i}"));
                scope.spawn(move || {
                    for _ in 0..200 {
                        let walked = root.walk_attr(&[name.as_bytes()], open::O_RDONLY).unwrap();
                        if let Some(fd) = walked.fd {
                            let mut buf = [0; 64];
                            let got = fs::File::from(fd).read_at(&mut buf, 0).unwrap();
                            assert_eq!(&buf[..got], format!("contents {i}").as_bytes());
                        }
                        assert_eq!(root.walk(&[b"missing"]).unwrap_err(), Errno::ENOENT);
                    }
                });
            }
        });
        client.flush_dropped();
    }
}
