//! Renames and symbolic links that change while a client walks: nothing leads out of the tree.

use crate::common::{Scratch, connect, connect_plain, export, extended, serve};
use abi::Errno;
use fs_9p::client::{Client, Fid};
use fs_9p::proto::{Make, Str, mode, open};
use fs_9p::server::Limits;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::socket::SockType;
use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

const ROUNDS: usize = 3000;

/// Exchanges two names until told to stop.
fn exchange(stop: &AtomicBool, a: &std::path::Path, b: &std::path::Path) {
    while !stop.load(Ordering::Relaxed) {
        renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE).unwrap();
    }
}

fn tree() -> (Scratch, std::path::PathBuf) {
    let dir = Scratch::new();
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::create_dir(dir.join("outside")).unwrap();
    fs::write(tree.join("d/secret"), "inside").unwrap();
    fs::write(dir.join("outside/secret"), "OUTSIDE").unwrap();
    symlink("../outside", tree.join("link")).unwrap();
    (dir, tree)
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let (dir, tree) = tree();
    for (client, plain) in [(connect(&tree), false), (connect_plain(&tree), true)] {
        let root = client.attach(b"0").unwrap().0;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| exchange(&stop, &tree.join("d"), &tree.join("link")));
            let mut found = 0;
            for _ in 0..ROUNDS {
                let mut buf = [0; 16];
                let got = if plain {
                    let walked = root.walk(&[b"d", b"secret"]);
                    walked.and_then(|(file, _)| file.open(0).and_then(|_| file.read(&mut buf, 0)))
                } else {
                    let walked = root.walk_attr(&[b"d", b"secret"], open::O_RDONLY);
                    let fd = walked.and_then(|walked| walked.fd.ok_or(Errno::ELOOP));
                    fd.map(|fd| fs::File::from(fd).read_at(&mut buf, 0).unwrap())
                };
                match got {
                    Ok(got) => {
                        assert_eq!(&buf[..got], b"inside");
                        found += 1;
                    }
                    Err(errno) => {
                        assert!(matches!(errno, Errno::ELOOP | Errno::ENOTDIR | Errno::ENOENT), "{errno:?}");
                    }
                }
                let make = Make {
                    mode: mode::S_IFREG | 0o600,
                    uid: u32::MAX,
                    gid: u32::MAX,
                    rdev: 0,
                    target: Str(b""),
                    open: Make::UNOPENED,
                };
                if let Ok((dir, _)) = root.walk(&[b"d"]) {
                    drop(dir.make(b"new", &make));
                    dir.unlink(b"new", 0).ok();
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(found > 0, "the walk never succeeded");
        });
        assert_eq!(fs::read_dir(dir.join("outside")).unwrap().count(), 1);
    }
}

#[test]
fn a_directory_that_is_moved_away_gives_no_way_up() {
    let (dir, tree) = tree();
    for client in [connect(&tree), connect_plain(&tree)] {
        let root = client.attach(b"0").unwrap();
        let inner = root.0.walk(&[b"d"]).unwrap().0;
        fs::rename(tree.join("d"), dir.join("moved")).unwrap();
        // It is still that directory; up from it leads to where it was, and no name but its children's can be used.
        assert_eq!(inner.walk(&[b"secret"]).unwrap().1.len(), 1);
        let up = inner.walk_attr(&[b".."], Make::UNOPENED);
        assert!(up.is_err() || up.is_ok_and(|walked| walked.files[0].1.qid == root.1));
        assert_eq!(inner.walk(&[b"..", b"outside"]).unwrap_err(), Errno::ENOENT);
        assert_eq!(inner.rename(b"../outside", &root.0, b"stolen", 0).unwrap_err(), Errno::EINVAL);
        fs::rename(dir.join("moved"), tree.join("d")).unwrap();
    }
}

#[test]
fn a_directory_that_moves_out_under_a_walk_gives_no_way_up() {
    let (dir, tree) = tree();
    fs::create_dir_all(tree.join("d/e/f")).unwrap();
    fs::write(dir.join("outside/marker"), "OUTSIDE").unwrap();
    for client in [connect(&tree), connect_plain(&tree)] {
        let root = client.attach(b"0").unwrap().0;
        let inner = root.walk(&[b"d", b"e", b"f"]).unwrap().0;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(tree.join("d/e"), dir.join("outside/e")).unwrap();
                    fs::rename(dir.join("outside/e"), tree.join("d/e")).unwrap();
                }
            });
            for _ in 0..ROUNDS / 4 {
                // From a place that is outside for moments, and through it: what is beside it there is never found.
                let ways: [(&Fid, &[&[u8]]); 3] = [
                    (&inner, &[b"..", b"..", b"marker"]),
                    (&inner, &[b"..", b"..", b"..", b"outside"]),
                    (&root, &[b"d", b"e", b"f", b"..", b"..", b"marker"]),
                ];
                for (from, names) in ways {
                    assert!(from.walk(names).is_err(), "{names:?}");
                    if let Ok(walked) = from.walk_attr(names, Make::UNOPENED) {
                        assert!(walked.files.len() < names.len(), "{names:?}");
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(root.walk(&[b"d", b"e", b"f"]).unwrap().1.len(), 3);
    }
}

#[test]
fn files_that_change_places_are_told_apart() {
    let dir = Scratch::new();
    fs::write(dir.join("a"), "a").unwrap();
    fs::write(dir.join("b"), "bb").unwrap();
    let client = connect(&dir.0);
    let root = client.attach(b"0").unwrap().0;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| exchange(&stop, &dir.join("a"), &dir.join("b")));
        for _ in 0..ROUNDS {
            // The attributes, the fid and the descriptor are of one file, whichever it was.
            let walked = root.walk_attr(&[b"a"], open::O_RDONLY).unwrap();
            let (fid, attr) = &walked.files[0];
            let mut buf = [0; 4];
            let got = fs::File::from(walked.fd.unwrap()).read_at(&mut buf, 0).unwrap();
            assert_eq!(got as u64, attr.size);
            assert_eq!(fid.get_attr().unwrap().qid, attr.qid);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn two_trees_are_two_trees() {
    let dir = Scratch::new();
    for name in ["a", "b"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("a/f"), "").unwrap();
    let exports = vec![export("a", &dir.join("a"), true), export("b", &dir.join("b"), true)];
    let client = Client::connect(serve(SockType::SeqPacket, exports, Limits::default()), extended()).unwrap();
    let (a, b) = (client.attach(b"a").unwrap().0, client.attach(b"b").unwrap().0);
    assert_eq!(a.rename(b"f", &b, b"f", 0).unwrap_err(), Errno::EXDEV);
    assert_eq!(a.walk(&[b"f"]).unwrap().0.link(&b, b"f").unwrap_err(), Errno::EXDEV);
}
