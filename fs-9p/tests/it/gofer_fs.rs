//! The gofer file system over a real gofer, driven as the walker and open file descriptions drive it.

use crate::common::{Scratch, connect, connect_with};
use abi::Errno;
use abi::fs::{O_RDWR, O_TRUNC, SEEK_DATA, SEEK_HOLE};
use abi::stat::{S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG};
use abi::time::Timespec;
use fs_9p::client::Client;
use fs_9p::vfs::{Access, Options, mount};
use kernel::Credentials;
use memmap::{Backing, IoDst, IoSrc};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync::HostClock;
use vfs::{Caching, DirEntry, DirSink, FileOps, FileSystem, InodeOps, OpCx, SetAttr, SetTime};

struct World {
    creds: Arc<Credentials>,
    clock: HostClock,
    fs: Arc<dyn FileSystem>,
}

impl World {
    fn new(path: &Path, access: Access) -> Self {
        Self::of(&connect(path), access)
    }
    fn of(client: &Arc<Client>, access: Access) -> Self {
        let fs = mount(client, b"0", Options { access, kept_files: 8 }).unwrap();
        Self { creds: Arc::new(Credentials::root()), clock: HostClock::new(), fs }
    }
    fn cx(&self) -> OpCx<'_> {
        OpCx::of_kernel(&self.creds, &self.clock)
    }
    fn root(&self) -> Arc<dyn InodeOps> {
        self.fs.root()
    }
    fn find(&self, path: &str) -> Result<Arc<dyn InodeOps>, Errno> {
        path.split('/').try_fold(self.root(), |dir, name| dir.lookup(&self.cx(), name.as_bytes()))
    }
    fn read(&self, file: &Arc<dyn FileOps>, offset: u64) -> Vec<u8> {
        let mut buf = [0; 64];
        let got = file.read_at(&self.cx(), &mut IoDst::kernel(&mut buf), offset).unwrap();
        buf[..got].to_vec()
    }
    fn write(&self, file: &Arc<dyn FileOps>, bytes: &[u8], offset: u64) {
        let done = file.write_at(&self.cx(), &mut IoSrc::kernel(bytes), offset).unwrap();
        assert_eq!(done, bytes.len());
    }
}

#[derive(Default)]
struct Names {
    names: Vec<(String, u32, u64)>,
    room: usize,
}

impl DirSink for Names {
    fn add(&mut self, entry: &DirEntry<'_>) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.names.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.file_type, entry.ino));
        true
    }
}

#[test]
fn files_are_found_read_and_written() {
    let dir = Scratch::new();
    fs::create_dir_all(dir.join("a/b")).unwrap();
    fs::write(dir.join("a/b/c"), "hello").unwrap();
    let world = World::new(&dir.0, Access::Exclusive);
    let cx = world.cx();
    let inode = world.find("a/b/c").unwrap();
    let meta = inode.metadata().unwrap();
    let host = fs::metadata(dir.join("a/b/c")).unwrap();
    assert_eq!((meta.ino, meta.size, meta.mode, meta.dev), (host.ino(), 5, host.mode(), world.fs.device()));
    assert!(inode.same(world.find("a/b/c").unwrap().as_ref()));
    assert_eq!(world.find("a/no").unwrap_err(), Errno::ENOENT);
    assert_eq!(inode.lookup(&cx, b"x").unwrap_err(), Errno::ENOTDIR);
    let reader = Arc::clone(&inode).open(&cx, 0).unwrap();
    assert_eq!(world.read(&reader, 1), b"ello");
    let writer = Arc::clone(&inode).open(&cx, O_RDWR).unwrap();
    world.write(&writer, b"more than that", 5);
    assert_eq!(inode.metadata().unwrap().size, 19);
    assert_eq!(world.read(&reader, 5), b"more than that");
    assert_eq!(writer.append(&cx, &mut IoSrc::kernel(b"!")).unwrap(), (1, 19));
    assert_eq!(writer.size(), Ok(20));
    drop((reader, writer));
    let meta = inode.metadata().unwrap();
    let host = fs::metadata(dir.join("a/b/c")).unwrap();
    assert_eq!((meta.size, meta.mtime.sec, meta.mtime.nsec), (20, host.mtime(), host.mtime_nsec()));
    // A truncating open.
    let file = Arc::clone(&inode).open(&cx, O_RDWR | O_TRUNC).unwrap();
    assert_eq!(inode.metadata().unwrap().size, 0);
    file.fallocate(&cx, 0, 0, 8192).unwrap();
    assert_eq!(file.size(), Ok(8192));
    world.write(&file, b"x", 1 << 20);
    assert_eq!(file.seek(&cx, 0, 16384, SEEK_DATA).unwrap(), 1 << 20);
    assert_eq!(file.seek(&cx, 0, 1 << 20, SEEK_HOLE).unwrap(), (1 << 20) + 1);
    assert_eq!(file.seek(&cx, 0, 1 << 21, SEEK_DATA), Err(Errno::ENXIO));
    file.fsync(&cx, false).unwrap();
    world.fs.sync().unwrap();
    assert!(world.fs.stat_fs().unwrap().bsize > 0);
}

#[test]
fn files_are_mapped_by_the_donated_descriptor() {
    let dir = Scratch::new();
    fs::write(dir.join("f"), vec![7; 5000]).unwrap();
    let world = World::new(&dir.0, Access::Exclusive);
    let file = world.find("f").unwrap().open(&world.cx(), 0).unwrap();
    let mappable = file.mappable(&world.cx()).unwrap();
    let Backing::Host { file: memory, offset, len } = mappable.translate(4096, 1 << 20, false).unwrap()
    else {
        panic!("not a host file");
    };
    assert_eq!((offset, len, memory.writable), (4096, 4096, false));
    assert_eq!(mappable.translate(8192, 4096, false).unwrap_err(), Errno::EFAULT);
    assert_eq!(mappable.translate(!4095, 4096, false).unwrap_err(), Errno::EFAULT);
    assert_eq!(mappable.translate(0, 4096, true).unwrap_err(), Errno::EACCES);
}

#[test]
fn names_are_made_moved_and_removed() {
    let dir = Scratch::new();
    for access in [Access::Exclusive, Access::Leased, Access::Shared] {
        let world = World::new(&dir.0, access);
        let (cx, root) = (world.cx(), world.root());
        let sub = root.mkdir(&cx, b"sub", S_IFDIR | 0o750).unwrap();
        assert_eq!(sub.metadata().unwrap().mode, S_IFDIR | 0o750);
        let (inode, file) = root.create_open(&cx, b"new", 0o640, O_RDWR).unwrap();
        assert_eq!(root.create(&cx, b"new", 0o640).unwrap_err(), Errno::EEXIST);
        world.write(&file, b"abc", 0);
        let meta = inode.metadata().unwrap();
        assert_eq!((meta.size, meta.mode, meta.nlink), (3, S_IFREG | 0o640, 1));
        let link = root.symlink(&cx, b"link", b"target").unwrap();
        assert_eq!(link.readlink(&cx).unwrap(), b"target");
        assert_eq!(link.readlink(&cx).unwrap(), b"target");
        assert_eq!((link.file_type(), inode.readlink(&cx)), (S_IFLNK, Err(Errno::EINVAL)));
        sub.link(&cx, b"hard", &inode).unwrap();
        assert_eq!(inode.metadata().unwrap().nlink, 2);
        assert!(world.find("sub/hard").unwrap().same(inode.as_ref()));
        // Over a file that is open, which loses its last name but one, then its last.
        let (over, _) = root.create_open(&cx, b"over", 0o600, O_RDWR).unwrap();
        root.rename(&cx, b"over", &sub, b"hard", 0).unwrap();
        inode.lost_name();
        assert_eq!(inode.metadata().unwrap().nlink, 1);
        assert!(world.find("sub/hard").unwrap().same(over.as_ref()));
        assert_eq!(world.find("over").unwrap_err(), Errno::ENOENT);
        root.unlink(&cx, b"new", &inode).unwrap();
        assert_eq!(inode.metadata().unwrap().nlink, 0);
        assert_eq!(world.read(&file, 0), b"abc", "unlinked while open");
        world.write(&file, b"d", 3);
        assert_eq!(root.rmdir(&cx, b"sub", &sub).unwrap_err(), Errno::ENOTEMPTY);
        sub.unlink(&cx, b"hard", &over).unwrap();
        root.rmdir(&cx, b"sub", &sub).unwrap();
        root.unlink(&cx, b"link", &link).unwrap();
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
        assert_eq!(sub.lookup(&cx, b"x").unwrap_err(), Errno::ENOENT);
    }
}

#[test]
fn special_files_are_made_and_not_opened() {
    let dir = Scratch::new();
    let world = World::new(&dir.0, Access::Exclusive);
    let (cx, root) = (world.cx(), world.root());
    let fifo = root.mknod(&cx, b"fifo", S_IFIFO | 0o600, 0).unwrap();
    assert_eq!(fifo.file_type(), S_IFIFO);
    assert_eq!(fifo.open(&cx, O_RDWR).unwrap_err(), Errno::ENXIO);
    for _ in 0..2 {
        assert_eq!(root.get_xattr(&cx, b"user.x"), Err(Errno::EOPNOTSUPP));
    }
}

#[test]
fn attributes_are_set() {
    let dir = Scratch::new();
    fs::write(dir.join("f"), "0123456789").unwrap();
    let world = World::new(&dir.0, Access::Exclusive);
    let inode = world.find("f").unwrap();
    let at = Timespec { sec: 12345, nsec: 678 };
    let set =
        SetAttr { size: Some(4), mode: Some(0o4711), mtime: Some(SetTime::At(at)), ..SetAttr::default() };
    inode.set_attr(&world.cx(), &set).unwrap();
    let meta = inode.metadata().unwrap();
    assert_eq!((meta.size, meta.mode, meta.mtime), (4, S_IFREG | 0o4711, at));
    inode.set_attr(&world.cx(), &SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() }).unwrap();
    let meta = inode.metadata().unwrap();
    assert!(meta.mtime.sec > 1_000_000_000 && meta.atime != meta.mtime);
    if nix::unistd::geteuid().is_root() {
        inode.set_attr(&world.cx(), &SetAttr { uid: Some(7), gid: Some(8), ..SetAttr::default() }).unwrap();
        let meta = inode.metadata().unwrap();
        assert_eq!((meta.uid, meta.gid, meta.mode), (7, 8, S_IFREG | 0o711), "chown clears set-user-id");
    }
}

#[test]
fn directories_are_listed_in_pieces() {
    let dir = Scratch::new();
    for i in 0..500 {
        fs::write(dir.join(&format!("{i}")), "").unwrap();
    }
    // In one message, and in several.
    for msize in [128 << 10, 4096] {
        list_in_pieces(&dir, &World::of(&connect_with(&dir.0, msize), Access::Exclusive));
    }
}

fn list_in_pieces(dir: &Scratch, world: &World) {
    let open = world.root().open(&world.cx(), 0).unwrap();
    let (mut sink, mut at) = (Names::default(), 0);
    loop {
        sink.room = 7;
        let next = open.readdir(&world.cx(), at, &mut sink).unwrap();
        if next == at {
            break;
        }
        at = next;
    }
    assert_eq!(sink.names.len(), 502);
    let find = |name: &str| sink.names.iter().find(|(n, ..)| n == name).cloned().unwrap();
    let root = fs::metadata(&dir.0).unwrap().ino();
    assert_eq!(find("."), (".".to_owned(), S_IFDIR, root));
    assert_eq!(find(".."), ("..".to_owned(), S_IFDIR, root), "the root's parent is itself");
    assert_eq!(find("7").2, world.find("7").unwrap().metadata().unwrap().ino);
    // From the start again, and from the middle.
    for (from, count) in [(0, 502), (500, 2), (502, 0)] {
        let mut again = Names { room: 1000, ..Names::default() };
        open.readdir(&world.cx(), from, &mut again).unwrap();
        assert_eq!(again.names.len(), count);
    }
}

/// The names in a directory, in order.
fn names(world: &World, dir: &Arc<dyn FileOps>) -> Vec<String> {
    let mut sink = Names { room: 1000, ..Names::default() };
    dir.readdir(&world.cx(), 0, &mut sink).unwrap();
    let mut names: Vec<_> = sink.names.into_iter().map(|(name, ..)| name).collect();
    names.sort();
    names
}

#[test]
fn a_listing_is_kept_until_the_directory_changes() {
    let dir = Scratch::new();
    fs::write(dir.join("a"), "").unwrap();
    let world = World::new(&dir.0, Access::Exclusive);
    let (cx, root) = (world.cx(), world.root());
    let open = Arc::clone(&root).open(&cx, 0).unwrap();
    assert_eq!(names(&world, &open), [".", "..", "a"]);
    fs::write(dir.join("hidden"), "").unwrap();
    assert_eq!(names(&world, &open), [".", "..", "a"], "nobody else changes the tree");
    root.create(&cx, b"b", 0o600).unwrap();
    assert_eq!(names(&world, &open), [".", "..", "a", "b", "hidden"]);
    root.rename(&cx, b"b", &root, b"c", 0).unwrap();
    assert_eq!(names(&world, &open), [".", "..", "a", "c", "hidden"]);
    root.unlink(&cx, b"c", &world.find("c").unwrap()).unwrap();
    root.link(&cx, b"d", &world.find("a").unwrap()).unwrap();
    assert_eq!(names(&world, &open), [".", "..", "a", "d", "hidden"]);
    // What others do is seen at once, or after a moment.
    let shared = World::new(&dir.0, Access::Shared);
    let open = shared.root().open(&cx, 0).unwrap();
    assert_eq!(names(&shared, &open).len(), 5);
    fs::remove_file(dir.join("d")).unwrap();
    assert_eq!(names(&shared, &open), [".", "..", "a", "hidden"]);
    let leased = World::new(&dir.0, Access::Leased);
    let open = leased.root().open(&cx, 0).unwrap();
    assert_eq!(names(&leased, &open).len(), 4);
    fs::remove_file(dir.join("a")).unwrap();
    let told = Instant::now();
    while names(&leased, &open) != [".", "..", "hidden"] {
        assert!(told.elapsed() < Duration::from_secs(5), "the old listing is believed for ever");
    }
}

#[test]
fn a_shared_tree_is_asked_again() {
    let dir = Scratch::new();
    fs::create_dir(dir.join("d")).unwrap();
    fs::write(dir.join("d/f"), "one").unwrap();
    let world = World::new(&dir.0, Access::Shared);
    let inode = world.find("d/f").unwrap();
    assert_eq!(inode.caching(), Caching::Revalidate);
    assert!(inode.revalidate(&world.cx()));
    fs::write(dir.join("d/f"), "longer").unwrap();
    assert_eq!(inode.metadata().unwrap().size, 6);
    fs::write(dir.join("d/g"), "other").unwrap();
    fs::rename(dir.join("d/g"), dir.join("d/f")).unwrap();
    assert!(!inode.revalidate(&world.cx()), "the name leads to another file");
    let other = world.find("d/f").unwrap();
    assert!(other.revalidate(&world.cx()) && !other.same(inode.as_ref()));
    fs::remove_file(dir.join("d/f")).unwrap();
    assert!(!other.revalidate(&world.cx()));
    assert_eq!(other.metadata().unwrap().nlink, 0);
}

#[test]
fn a_leased_tree_is_asked_again_after_a_moment() {
    let dir = Scratch::new();
    fs::write(dir.join("f"), "one").unwrap();
    let world = World::new(&dir.0, Access::Leased);
    let inode = world.find("f").unwrap();
    assert_eq!(inode.caching(), Caching::Revalidate);
    assert!(inode.revalidate(&world.cx()));
    let told = Instant::now();
    fs::write(dir.join("g"), "other").unwrap();
    fs::rename(dir.join("g"), dir.join("f")).unwrap();
    while inode.revalidate(&world.cx()) {
        assert!(told.elapsed() < Duration::from_secs(5), "the old name is believed for ever");
    }
    let other = world.find("f").unwrap();
    assert!(!other.same(inode.as_ref()));
    fs::write(dir.join("f"), "longer").unwrap();
    let told = Instant::now();
    while other.metadata().unwrap().size != 6 {
        assert!(told.elapsed() < Duration::from_secs(5), "the old size is believed for ever");
    }
    // A missing name is believed as long, and its stamp is no other time's.
    let root = world.root();
    let told = Instant::now();
    let mut stamp = root.missing_stamp().unwrap();
    while !root.is_still_missing(stamp) {
        assert!(told.elapsed() < Duration::from_secs(5), "the missing name is never believed");
        stamp = root.missing_stamp().unwrap();
    }
    let told = Instant::now();
    while root.is_still_missing(stamp) {
        assert!(told.elapsed() < Duration::from_secs(5), "the missing name is believed for ever");
    }
    // What is changed through the tree itself is seen at once.
    other.set_attr(&world.cx(), &SetAttr { size: Some(2), ..SetAttr::default() }).unwrap();
    assert_eq!(other.metadata().unwrap().size, 2);
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"lo");
}

#[test]
fn descriptors_of_removed_files_are_let_go() {
    let dir = Scratch::new();
    let world = World::new(&dir.0, Access::Exclusive);
    let (cx, root) = (world.cx(), world.root());
    for name in [&b"a"[..], b"b"] {
        drop(root.create_open(&cx, name, 0o600, O_RDWR).unwrap());
    }
    let before = open_deleted(&dir.0);
    let a = world.find("a").unwrap();
    root.unlink(&cx, b"a", &a).unwrap();
    root.rename(&cx, b"b", &root, b"c", 0).unwrap();
    drop(root.create_open(&cx, b"d", 0o600, O_RDWR).unwrap());
    let replaced = world.find("c").unwrap();
    root.rename(&cx, b"d", &root, b"c", 0).unwrap();
    replaced.lost_name();
    drop((a, replaced));
    for _ in 0..40 {
        // Later calls take dropped fids along.
        world.find("c").unwrap();
    }
    assert_eq!((before, open_deleted(&dir.0)), (0, 0));
}

/// How many descriptors this process, client and server, has of removed files below a folder.
fn open_deleted(dir: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|e| fs::read_link(e.path()).ok());
    links.filter(|l| l.starts_with(dir) && l.to_string_lossy().ends_with(" (deleted)")).count()
}
