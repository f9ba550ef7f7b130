//! Walks over tmpfs, as the system calls would make them.
use std::sync::Arc;

use abi::Errno;
use abi::fs::{
    O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY,
    RENAME_EXCHANGE, RENAME_NOREPLACE, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS,
};
use kernel::Credentials;
use memmap::{IoDst, IoSrc, MemoryFile};
use sync::HostClock;

use crate::tmpfs::{Options, Tmpfs};
use crate::{
    At, DirEntry, DirSink, FileDescription, FsContext, LookupFlags, Mount, MountNamespace, OpCx, OpenHow,
    SuperBlock, Vfs, access,
};

const CWD: &At = &At::Cwd;

/// A namespace with an empty tmpfs.
pub(crate) struct World {
    clock: HostClock,
    pub(crate) root: Arc<Credentials>,
    user: Arc<Credentials>,
    pub(crate) memory: Arc<MemoryFile>,
    fs: Arc<FsContext>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = HostClock::new();
        let root = Arc::new(Credentials::root());
        let memory = MemoryFile::new().expect("memfd");
        let cx = OpCx::of_kernel(&root, &clock);
        let tmpfs = Tmpfs::new(&cx, Arc::clone(&memory), Options { mode: 0o755, ..Options::default() });
        let sb = SuperBlock::with_dentries(tmpfs.expect("room"), false, 16);
        let mount = Mount::new(Arc::clone(&sb), Arc::clone(sb.root()), b"tmpfs", 0);
        let namespace = MountNamespace::new(mount);
        let at = namespace.root_path();
        let fs = FsContext::new(namespace, at, 0o022);
        Self { clock, root, user: Arc::new(Credentials::user(1000, 1000)), memory, fs }
    }
    pub(crate) fn vfs(&self) -> Vfs<'_> {
        Vfs::new(OpCx::of_kernel(&self.root, &self.clock), &self.fs)
    }
    fn user(&self) -> Vfs<'_> {
        Vfs::new(OpCx::of_kernel(&self.user, &self.clock), &self.fs)
    }
}

fn how(flags: u32) -> OpenHow {
    OpenHow::legacy(flags, 0o666).expect("sensible flags")
}

pub(crate) fn put(vfs: &Vfs<'_>, path: &str, text: &str) {
    let file = vfs.open(CWD, path.as_bytes(), &how(O_CREAT | O_WRONLY | O_TRUNC)).expect(path);
    let n = file.ops().write_at(&vfs.cx, &mut IoSrc::kernel(text.as_bytes()), 0);
    assert_eq!(n, Ok(text.len()));
}

pub(crate) fn content(vfs: &Vfs<'_>, file: &FileDescription) -> String {
    let mut buf = [0; 256];
    let n = file.ops().read_at(&vfs.cx, &mut IoDst::kernel(&mut buf), 0).expect("read");
    String::from_utf8_lossy(&buf[..n]).into_owned()
}

pub(crate) fn get(vfs: &Vfs<'_>, path: &str) -> Result<String, Errno> {
    let file = vfs.open(CWD, path.as_bytes(), &how(O_RDONLY))?;
    Ok(content(vfs, &file))
}

#[derive(Default)]
struct Names(Vec<String>, usize);
impl DirSink for Names {
    fn add(&mut self, entry: &DirEntry<'_>) -> bool {
        if self.0.len() >= self.1 {
            return false;
        }
        self.0.push(String::from_utf8_lossy(entry.name).into_owned());
        true
    }
}

pub(crate) fn list(vfs: &Vfs<'_>, path: &str) -> Vec<String> {
    let dir = vfs.open(CWD, path.as_bytes(), &how(O_RDONLY | O_DIRECTORY)).expect(path);
    let (mut all, mut at) = (Vec::new(), 0);
    loop {
        let mut some = Names(Vec::new(), 2);
        at = dir.ops().readdir(&vfs.cx, at, &mut some).expect("readdir");
        if some.0.is_empty() {
            all.sort();
            return all;
        }
        all.append(&mut some.0);
    }
}

fn exists(vfs: &Vfs<'_>, path: &str) -> Result<(), Errno> {
    vfs.resolve(CWD, path.as_bytes(), LookupFlags::FOLLOW).map(drop)
}

#[test]
fn paths_are_walked_by_linux_s_rules() {
    let world = World::new();
    let v = world.vfs();
    v.mkdir(CWD, b"/a", 0o755).expect("a");
    v.mkdir(CWD, b"a//b/", 0o755).expect("a/b");
    put(&v, "/a/file", "one");
    v.symlink(b"a/b", CWD, b"/link").expect("link");
    v.symlink(b"loop2", CWD, b"/loop1").expect("loop");
    v.symlink(b"loop1", CWD, b"/loop2").expect("loop");
    v.symlink(b"nowhere", CWD, b"/dangling").expect("dangling");
    for (path, result) in [
        ("/", Ok(())),
        ("..", Ok(())),
        ("/../../a/./b/..//b/", Ok(())),
        ("/link/../file", Ok(())),
        ("/link/", Ok(())),
        ("/a/file/", Err(Errno::ENOTDIR)),
        ("/a/file/x", Err(Errno::ENOTDIR)),
        ("/a/none", Err(Errno::ENOENT)),
        ("/a/none/..", Err(Errno::ENOENT)),
        ("/loop1", Err(Errno::ELOOP)),
        ("/dangling", Err(Errno::ENOENT)),
        ("", Err(Errno::ENOENT)),
    ] {
        assert_eq!(exists(&v, path), result, "{path}");
    }
    assert_eq!(exists(&v, &"x".repeat(256)), Err(Errno::ENAMETOOLONG));
    assert_eq!(exists(&v, &"./".repeat(2048)), Err(Errno::ENAMETOOLONG));
    assert_eq!(exists(&v, &"x".repeat(255)), Err(Errno::ENOENT));
    assert_eq!(v.readlink(CWD, b"/link"), Ok(b"a/b".to_vec()));
    assert_eq!(v.readlink(CWD, b"/a"), Err(Errno::EINVAL));
    v.chdir(CWD, b"/link", false).expect("chdir");
    assert_eq!(v.getcwd(), Ok(b"/a/b".to_vec()));
    assert_eq!(get(&v, "../file"), Ok("one".to_owned()));
    v.rmdir(CWD, b"/a/b").expect("rmdir");
    assert_eq!(v.getcwd(), Err(Errno::ENOENT));
    assert_eq!(v.mkdir(CWD, b"new", 0o755).err(), Some(Errno::ENOENT));
    v.chdir(CWD, b"/a", false).expect("chdir");
    v.chroot(b"/a").expect("chroot");
    assert_eq!(exists(&v, "../../file"), Ok(()));
    assert_eq!(v.getcwd(), Ok(b"/".to_vec()));
}

#[test]
#[expect(clippy::cognitive_complexity, reason = "a list of cases")]
fn open_flags() {
    let world = World::new();
    let v = world.vfs();
    put(&v, "/f", "text");
    v.mkdir(CWD, b"/d", 0o755).expect("d");
    v.symlink(b"f", CWD, b"/l").expect("l");
    v.symlink(b"made", CWD, b"/dangling").expect("l");
    let err = |path: &str, flags| v.open(CWD, path.as_bytes(), &how(flags)).err();
    assert_eq!(err("/f", O_CREAT | O_EXCL | O_WRONLY), Some(Errno::EEXIST));
    assert_eq!(err("/dangling", O_CREAT | O_EXCL | O_WRONLY), Some(Errno::EEXIST));
    assert_eq!(err("/f", O_DIRECTORY), Some(Errno::ENOTDIR));
    assert_eq!(err("/d", O_WRONLY), Some(Errno::EISDIR));
    assert_eq!(err("/d", O_CREAT | O_RDONLY), Some(Errno::EISDIR));
    assert_eq!(err("/new/", O_CREAT | O_WRONLY), Some(Errno::EISDIR));
    assert_eq!(err("/none/new", O_CREAT | O_WRONLY), Some(Errno::ENOENT));
    assert_eq!(err("/l", O_NOFOLLOW), Some(Errno::ELOOP));
    assert_eq!(err("/l", O_NOFOLLOW | O_PATH), None);
    assert_eq!(err("/dangling", O_CREAT | O_WRONLY), None);
    assert_eq!(get(&v, "/made"), Ok(String::new()));
    put(&v, "/l", "abc");
    assert_eq!(get(&v, "/f"), Ok("abc".to_owned()));
    let strict = |flags: u32, mode, resolve| {
        OpenHow::strict(&abi::fs::OpenHow { flags: u64::from(flags), mode, resolve: u64::from(resolve) })
    };
    assert_eq!(strict(O_RDONLY, 0o600, 0), Err(Errno::EINVAL));
    assert_eq!(strict(1 << 30, 0, 0), Err(Errno::EINVAL));
    let dir = At::Path(v.resolve(CWD, b"/d", LookupFlags::FOLLOW).expect("d"));
    let open = |path: &[u8], resolve| v.open(&dir, path, &strict(O_RDONLY, 0, resolve).expect("how")).err();
    assert_eq!(open(b"../f", RESOLVE_BENEATH), Some(Errno::EXDEV));
    assert_eq!(open(b"/f", RESOLVE_BENEATH), Some(Errno::EXDEV));
    assert_eq!(open(b"../f", RESOLVE_IN_ROOT), Some(Errno::ENOENT));
    assert_eq!(open(b"../l", RESOLVE_NO_SYMLINKS), Some(Errno::ELOOP));
    assert_eq!(open(b"../l", 0), None);
    let file = v.open(CWD, b"/d", &how(O_TMPFILE | O_RDWR)).expect("tmpfile");
    file.ops().write_at(&v.cx, &mut IoSrc::kernel(b"linked"), 0).expect("write");
    let at = At::Path(file.path().clone());
    let empty = LookupFlags { empty: true, ..LookupFlags::NO_FOLLOW };
    v.link(&at, b"", empty, CWD, b"/d/named").expect("linkat");
    assert_eq!(get(&v, "/d/named"), Ok("linked".to_owned()));
    v.unlink(CWD, b"/d/named").expect("unlink");
    assert_eq!(v.link(&at, b"", empty, CWD, b"/d/again"), Err(Errno::ENOENT));
}

#[test]
#[expect(clippy::cognitive_complexity, reason = "a list of cases")]
fn removing_and_renaming() {
    let world = World::new();
    let v = world.vfs();
    let mv = |a: &str, b: &str, flags| v.rename(CWD, a.as_bytes(), CWD, b.as_bytes(), flags);
    for dir in ["/a", "/a/b", "/a/b/c", "/d", "/e", "/e/full"] {
        v.mkdir(CWD, dir.as_bytes(), 0o755).expect(dir);
    }
    put(&v, "/f", "f");
    put(&v, "/g", "g");
    assert_eq!(mv("/a", "/a/b/c/x", 0), Err(Errno::EINVAL));
    assert_eq!(mv("/a/b/c", "/a", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(mv("/f", "/d", 0), Err(Errno::EISDIR));
    assert_eq!(mv("/d", "/f", 0), Err(Errno::ENOTDIR));
    assert_eq!(mv("/d", "/e", 0), Err(Errno::ENOTEMPTY));
    assert_eq!(mv("/f", "/g", RENAME_NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(mv("/f", "/none", RENAME_EXCHANGE), Err(Errno::ENOENT));
    assert_eq!(mv("/none", "/x", 0), Err(Errno::ENOENT));
    assert_eq!(mv("/d/.", "/x", 0), Err(Errno::EBUSY));
    assert_eq!(mv("/f", "/x/", 0), Err(Errno::ENOTDIR));
    assert_eq!(mv("/f", "/f", 0), Ok(()));
    assert_eq!(mv("/f", "/g", RENAME_EXCHANGE), Ok(()));
    assert_eq!((get(&v, "/f"), get(&v, "/g")), (Ok("g".to_owned()), Ok("f".to_owned())));
    let open = v.open(CWD, b"/g", &how(O_RDONLY)).expect("g");
    assert_eq!(mv("/f", "/g", 0), Ok(()));
    assert_eq!((get(&v, "/f"), get(&v, "/g")), (Err(Errno::ENOENT), Ok("g".to_owned())));
    assert_eq!(content(&v, &open), "f");
    let root = world.fs.root();
    assert_eq!(open.path().name(&root).display(), b"/g (deleted)");
    let c = v.open(CWD, b"/a/b/c", &how(O_RDONLY)).expect("c");
    assert_eq!(mv("/a/b", "/d/moved", 0), Ok(()));
    assert_eq!(c.path().name(&root).display(), b"/d/moved/c");
    assert_eq!(list(&v, "/d"), [".", "..", "moved"]);
    assert_eq!(v.stat(CWD, b"/d/moved/..", LookupFlags::FOLLOW), v.stat(CWD, b"/d", LookupFlags::FOLLOW));
    assert_eq!(v.stat(CWD, b"/d", LookupFlags::FOLLOW).map(|m| m.nlink), Ok(3));
    assert_eq!(v.stat(CWD, b"/a", LookupFlags::FOLLOW).map(|m| m.nlink), Ok(2));
    assert_eq!(v.unlink(CWD, b"/d"), Err(Errno::EISDIR));
    assert_eq!(v.rmdir(CWD, b"/d"), Err(Errno::ENOTEMPTY));
    assert_eq!(v.rmdir(CWD, b"/g"), Err(Errno::ENOTDIR));
    assert_eq!(v.rmdir(CWD, b"/d/."), Err(Errno::EINVAL));
    assert_eq!(v.unlink(CWD, b"/g/"), Err(Errno::ENOTDIR));
    v.link(CWD, b"/g", LookupFlags::NO_FOLLOW, CWD, b"/h").expect("link");
    assert_eq!(v.stat(CWD, b"/h", LookupFlags::FOLLOW).map(|m| m.nlink), Ok(2));
    v.unlink(CWD, b"/g").expect("unlink");
    assert_eq!(get(&v, "/h"), Ok("g".to_owned()));
    assert_eq!(v.link(CWD, b"/d", LookupFlags::NO_FOLLOW, CWD, b"/x"), Err(Errno::EPERM));
}

#[test]
fn permissions_are_checked() {
    let world = World::new();
    let (v, u) = (world.vfs(), world.user());
    v.mkdir(CWD, b"/private", 0o700).expect("dir");
    put(&v, "/private/f", "x");
    v.mkdir(CWD, b"/tmp", 0o777).expect("dir");
    let tmp = v.resolve(CWD, b"/tmp", LookupFlags::FOLLOW).expect("tmp");
    v.chmod(&tmp, 0o1777).expect("chmod");
    put(&v, "/tmp/roots", "x");
    put(&u, "/tmp/users", "y");
    v.symlink(b"/tmp/users", CWD, b"/tmp/trap").expect("link");
    assert_eq!(get(&u, "/private/f"), Err(Errno::EACCES));
    assert_eq!(u.unlink(CWD, b"/tmp/roots"), Err(Errno::EPERM));
    assert_eq!(u.mkdir(CWD, b"/new", 0o755).err(), Some(Errno::EACCES));
    assert_eq!(u.open(CWD, b"/tmp/roots", &how(O_WRONLY)).err(), Some(Errno::EACCES));
    assert_eq!(get(&u, "/tmp/trap"), Ok("y".to_owned()));
    u.symlink(b"/tmp/roots", CWD, b"/tmp/users-trap").expect("link");
    assert_eq!(get(&v, "/tmp/users-trap"), Err(Errno::EACCES));
    assert_eq!(u.chmod(&tmp, 0o777), Err(Errno::EPERM));
    assert_eq!(u.access(CWD, b"/tmp/roots", LookupFlags::FOLLOW, access::WRITE), Err(Errno::EACCES));
    let roots = v.resolve(CWD, b"/tmp/roots", LookupFlags::FOLLOW).expect("roots");
    assert_eq!(u.link(CWD, b"/tmp/roots", LookupFlags::NO_FOLLOW, CWD, b"/tmp/x"), Err(Errno::EPERM));
    v.chmod(&roots, 0o6777).expect("chmod");
    v.chown(&roots, Some(5), None).expect("chown");
    assert_eq!(v.stat(CWD, b"/tmp/roots", LookupFlags::FOLLOW).map(|m| m.mode), Ok(0o100_777));
}

#[test]
fn the_dentry_cache_is_bounded_and_lets_removed_files_go() {
    let world = World::new();
    let v = world.vfs();
    for n in 0..100 {
        put(&v, &format!("/file{n}"), "contents");
    }
    let root = world.fs.root();
    assert!(root.mount.sb().cache.len() <= 16);
    for n in 0..100 {
        v.unlink(CWD, format!("/file{n}").as_bytes()).expect("unlink");
    }
    assert_eq!(world.memory.usage_bytes(), 0);
    assert_eq!(list(&v, "/"), [".", ".."]);
}

#[test]
fn deep_trees_come_down_without_recursion() {
    let world = World::new();
    let v = world.vfs();
    for _ in 0..20_000 {
        v.mkdir(CWD, b"d", 0o755).expect("mkdir");
        v.chdir(CWD, b"d", false).expect("chdir");
    }
    v.chdir(CWD, b"/", false).expect("chdir");
}

#[test]
fn mounts_cover_and_uncover() {
    let world = World::new();
    crate::tmpfs::register(&world.memory, 1 << 30);
    let v = world.vfs();
    v.mkdir(CWD, b"/m", 0o755).expect("m");
    put(&v, "/m/under", "under");
    v.mount(b"none", b"/m", b"tmpfs", 0, b"mode=755").expect("mount");
    assert_eq!(get(&v, "/m/under"), Err(Errno::ENOENT));
    put(&v, "/m/over", "over");
    assert_eq!(list(&v, "/m/.."), [".", "..", "m"]);
    v.mkdir(CWD, b"/bound", 0o755).expect("bound");
    v.mount(b"/m", b"/bound", b"", abi::fs::MS_BIND, b"").expect("bind");
    assert_eq!(get(&v, "/bound/over"), Ok("over".to_owned()));
    let flags = abi::fs::MS_BIND | abi::fs::MS_REMOUNT | abi::fs::MS_RDONLY;
    v.mount(b"", b"/bound", b"", flags, b"").expect("remount");
    assert_eq!(v.unlink(CWD, b"/bound/over"), Err(Errno::EROFS));
    assert_eq!(v.rename(CWD, b"/m/over", CWD, b"/bound/x", 0), Err(Errno::EXDEV));
    assert_eq!(v.rmdir(CWD, b"/m"), Err(Errno::EBUSY));
    let open = v.open(CWD, b"/m/over", &how(O_RDONLY)).expect("over");
    assert_eq!(open.path().name(&world.fs.root()).display(), b"/m/over");
    assert_eq!(v.umount(b"/m", 0), Err(Errno::EBUSY));
    drop(open);
    assert_eq!(v.umount(b"/m/over", 0), Err(Errno::EINVAL));
    v.umount(b"/m", 0).expect("umount");
    assert_eq!(get(&v, "/m/under"), Ok("under".to_owned()));
    v.umount(b"/bound", abi::fs::MNT_DETACH).expect("umount");
    assert_eq!(list(&v, "/bound"), [".", ".."]);
    v.rmdir(CWD, b"/bound").expect("rmdir");
    assert_eq!(v.mount(b"", b"/m", b"nofs", 0, b""), Err(Errno::ENODEV));
}

#[test]
fn a_partner_that_is_gone_again_was_met() {
    use crate::FileOps;
    let world = World::new();
    let cx = OpCx::of_kernel(&world.root, &world.clock);
    let fifo = crate::anon::Pipe::new();
    let open = |flags| crate::anon::Pipe::open(&fifo, &cx, flags).expect("open");
    let writer = open(O_WRONLY);
    assert_eq!(writer.finish_open(&cx), Err(Errno::EAGAIN));
    let reader = open(O_RDONLY);
    // The writer goes on, and is done, before the reader looks.
    assert_eq!(writer.finish_open(&cx), Ok(()));
    drop(writer);
    assert_eq!(reader.finish_open(&cx), Ok(()));
    assert_eq!(open(O_RDONLY).finish_open(&cx), Err(Errno::EAGAIN));
}
