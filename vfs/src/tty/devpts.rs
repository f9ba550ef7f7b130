//! The file system of pseudo-terminals, Linux `fs/devpts/inode.c`, and the character devices of terminals.
//!
//! There is one instance a container; mounting it again shows the same terminals.
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::{DEVPTS_SUPER_MAGIC, O_NOCTTY};
use abi::stat::{S_IFCHR, S_IFDIR, makedev};
use abi::time::Timespec;
use kernel::Kernel;
use sync::{LockClass, Mutex};

use super::{Master, PTS_MAJOR, Slave, Tty};
use crate::{
    Caching, CharDevice, DirEntry, DirSink, FileOps, FileSystem, FileSystemType, InodeOps, Metadata, OpCx,
    SetAttr, SetTime, StatFs, anonymous_device, register_char_device, register_filesystem,
};

/// `kernel.pty.max`.
const MAX_TERMINALS: usize = 4096;
/// The inode of `ptmx`; that of terminal n is n + 3, as in Linux.
const PTMX_INO: u64 = 2;

#[derive(Clone, Copy, Debug)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
}

#[derive(Clone, Debug)]
struct Entry {
    tty: Weak<Tty>,
    attributes: Arc<Mutex<Attributes>>,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    mode: u32,
    gid: Option<u32>,
    ptmx_mode: u32,
}

/// All pseudo-terminals of a container.
#[derive(Debug)]
pub struct Devpts {
    kernel: Weak<Kernel>,
    device: u64,
    terminals: Mutex<BTreeMap<u32, Entry>>,
    options: Mutex<Options>,
    this: Weak<Self>,
}

/// Registers the file system type `devpts` and the devices `tty`, `ptmx` and `pts/*`. Each shows the terminals of the kernel
/// of whoever asks ([`Devpts::of`]).
pub fn register() {
    register_filesystem(Arc::new(Type));
    register_char_device(5, 0, 0, Arc::new(Devices));
    register_char_device(5, 2, 2, Arc::new(Devices));
    for major in 0..8 {
        let minors = (0, 255);
        let device = Slaves { first: major * 256 };
        register_char_device(PTS_MAJOR + major, minors.0, minors.1, Arc::new(device));
    }
}

impl Devpts {
    /// Makes the place for the terminals of a kernel, to be attached to it once.
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            kernel: Arc::downgrade(kernel),
            device: anonymous_device(),
            terminals: Mutex::new(LockClass::Leaf, BTreeMap::new()),
            options: Mutex::new(LockClass::Leaf, Options { mode: 0o600, gid: None, ptmx_mode: 0 }),
            this: Weak::clone(this),
        })
    }

    /// The terminals of the kernel that is meant.
    fn of(cx: &OpCx<'_>) -> Result<Arc<Self>, Errno> {
        cx.kernel()?.attached::<Self>().ok_or(Errno::EIO)
    }

    /// Makes a terminal; it is in the directory until its master is closed.
    ///
    /// # Errors
    /// `ENOSPC` where there are too many, `EIO` while the sandbox ends.
    pub fn open_master(&self, cx: &OpCx<'_>) -> Result<Arc<Master>, Errno> {
        let (kernel, this) = self.kernel.upgrade().zip(self.this.upgrade()).ok_or(Errno::EIO)?;
        let options = *self.options.lock();
        let now = cx.now();
        let attributes = Attributes {
            mode: options.mode,
            uid: cx.creds.fsuid,
            gid: options.gid.unwrap_or(cx.creds.fsgid),
            atime: now,
            mtime: now,
            ctime: now,
        };
        let attributes = Arc::new(Mutex::new(LockClass::Leaf, attributes));
        let tty = {
            let mut terminals = self.terminals.lock();
            if terminals.len() >= MAX_TERMINALS {
                return Err(Errno::ENOSPC);
            }
            let index = (0..).zip(terminals.keys()).find(|(n, k)| n != *k).map(|(n, _)| n);
            let index = index.or_else(|| u32::try_from(terminals.len()).ok()).ok_or(Errno::ENOSPC)?;
            let tty = Tty::new(&kernel, index);
            terminals.insert(index, Entry { tty: Arc::downgrade(&tty), attributes });
            tty
        };
        Ok(Arc::new(Master::new(tty, this)))
    }

    pub(super) fn remove(&self, index: u32) {
        let gone = self.terminals.lock().remove(&index);
        drop(gone);
    }

    fn entry(&self, index: u32) -> Option<Entry> {
        self.terminals.lock().get(&index).cloned()
    }

    fn tty(&self, index: u32) -> Result<Arc<Tty>, Errno> {
        self.entry(index).and_then(|e| e.tty.upgrade()).ok_or(Errno::ENXIO)
    }

    fn set_options(&self, data: &[u8]) -> Result<(), Errno> {
        let text = std::str::from_utf8(data).or(Err(Errno::EINVAL))?;
        let mut options = *self.options.lock();
        for option in text.split(',').filter(|o| !o.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let octal = || u32::from_str_radix(value, 8).map(|m| m & 0o777).or(Err(Errno::EINVAL));
            match name {
                "mode" => options.mode = octal()?,
                "ptmxmode" => options.ptmx_mode = octal()?,
                "gid" => options.gid = Some(value.parse().or(Err(Errno::EINVAL))?),
                // The owner of a terminal is whoever opened its master; there is one instance; the limit is ours.
                "uid" | "newinstance" | "max" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        *self.options.lock() = options;
        Ok(())
    }

    fn inode(&self, node: Node) -> Arc<dyn InodeOps> {
        Arc::new(DevptsInode { devpts: Weak::clone(&self.this), node })
    }
}

impl FileSystem for Devpts {
    fn name(&self) -> &'static str {
        "devpts"
    }
    fn root(&self) -> Arc<dyn InodeOps> {
        self.inode(Node::Root)
    }
    fn stat_fs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs {
            fs_type: i64::from(DEVPTS_SUPER_MAGIC),
            bsize: 4096,
            frsize: 4096,
            namelen: 255,
            ..StatFs::default()
        })
    }
    fn device(&self) -> u64 {
        self.device
    }
    fn options(&self) -> Vec<u8> {
        let o = *self.options.lock();
        let gid = o.gid.map(|g| format!("gid={g},")).unwrap_or_default();
        format!("{gid}mode={:o},ptmxmode={:03o}", o.mode, o.ptmx_mode).into_bytes()
    }
    fn remount(&self, _: &OpCx<'_>, data: &[u8]) -> Result<(), Errno> {
        self.set_options(data)
    }
}

#[derive(Debug)]
struct Type;

impl FileSystemType for Type {
    fn name(&self) -> &'static str {
        "devpts"
    }
    fn mount(&self, cx: &OpCx<'_>, _: &[u8], data: &[u8]) -> Result<Arc<dyn FileSystem>, Errno> {
        let devpts = Devpts::of(cx)?;
        devpts.set_options(data)?;
        Ok(devpts)
    }
}

#[derive(Clone, Copy, Debug)]
enum Node {
    Root,
    Ptmx,
    Slave(u32),
}

#[derive(Debug)]
struct DevptsInode {
    devpts: Weak<Devpts>,
    node: Node,
}

impl DevptsInode {
    fn devpts(&self) -> Result<Arc<Devpts>, Errno> {
        self.devpts.upgrade().ok_or(Errno::EIO)
    }
}

impl InodeOps for DevptsInode {
    fn metadata(&self) -> Result<Metadata, Errno> {
        let devpts = self.devpts()?;
        let base = Metadata { dev: devpts.device, nlink: 1, blksize: 1024, ..Metadata::default() };
        Ok(match self.node {
            Node::Root => Metadata { ino: 1, mode: S_IFDIR | 0o755, nlink: 2, ..base },
            Node::Ptmx => {
                let mode = S_IFCHR | devpts.options.lock().ptmx_mode;
                Metadata { ino: PTMX_INO, mode, rdev: makedev(5, 2), ..base }
            }
            Node::Slave(index) => {
                let entry = devpts.entry(index).ok_or(Errno::EIO)?;
                let a = *entry.attributes.lock();
                Metadata {
                    ino: u64::from(index) + 3,
                    mode: S_IFCHR | a.mode,
                    uid: a.uid,
                    gid: a.gid,
                    rdev: makedev(PTS_MAJOR, index),
                    atime: a.atime,
                    mtime: a.mtime,
                    ctime: a.ctime,
                    ..base
                }
            }
        })
    }

    fn file_type(&self) -> u32 {
        if matches!(self.node, Node::Root) { S_IFDIR } else { S_IFCHR }
    }

    fn set_attr(&self, cx: &OpCx<'_>, attr: &SetAttr) -> Result<(), Errno> {
        let Node::Slave(index) = self.node else { return Err(Errno::EPERM) };
        let entry = self.devpts()?.entry(index).ok_or(Errno::EIO)?;
        let now = cx.now();
        let time = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::At(at) => at,
        };
        let mut a = entry.attributes.lock();
        a.mode = attr.mode.map_or(a.mode, |m| m & 0o7777);
        a.uid = attr.uid.unwrap_or(a.uid);
        a.gid = attr.gid.unwrap_or(a.gid);
        a.atime = attr.atime.map_or(a.atime, time);
        a.mtime = attr.mtime.map_or(a.mtime, time);
        a.ctime = now;
        Ok(())
    }

    fn lookup(&self, _: &OpCx<'_>, name: &[u8]) -> Result<Arc<dyn InodeOps>, Errno> {
        if !matches!(self.node, Node::Root) {
            return Err(Errno::ENOTDIR);
        }
        let devpts = self.devpts()?;
        if name == b"ptmx" {
            return Ok(devpts.inode(Node::Ptmx));
        }
        let text = std::str::from_utf8(name).or(Err(Errno::ENOENT))?;
        let index: u32 = text.parse().or(Err(Errno::ENOENT))?;
        if text != index.to_string() || devpts.entry(index).is_none() {
            return Err(Errno::ENOENT);
        }
        Ok(devpts.inode(Node::Slave(index)))
    }

    fn open(self: Arc<Self>, cx: &OpCx<'_>, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        let devpts = self.devpts()?;
        match self.node {
            Node::Root => Ok(Arc::new(Directory(devpts))),
            Node::Ptmx => Ok(devpts.open_master(cx)?),
            Node::Slave(index) => Ok(Slave::open(&devpts.tty(index)?, cx, flags)?),
        }
    }

    fn opens_devices(&self) -> bool {
        true
    }

    fn caching(&self) -> Caching {
        Caching::Never
    }

    fn revalidate(&self, _: &OpCx<'_>) -> bool {
        match self.node {
            Node::Root | Node::Ptmx => true,
            Node::Slave(index) => self.devpts.upgrade().is_some_and(|d| d.entry(index).is_some()),
        }
    }
}

#[derive(Debug)]
struct Directory(Arc<Devpts>);

impl FileOps for Directory {
    fn readdir(&self, _: &OpCx<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let mut entries: Vec<(u64, u32, Vec<u8>)> = vec![
            (1, S_IFDIR, b".".to_vec()),
            (1, S_IFDIR, b"..".to_vec()),
            (PTMX_INO, S_IFCHR, b"ptmx".to_vec()),
        ];
        let terminals: Vec<u32> = self.0.terminals.lock().keys().copied().collect();
        entries.extend(terminals.iter().map(|n| (u64::from(*n) + 3, S_IFCHR, n.to_string().into_bytes())));
        let skip = usize::try_from(position).unwrap_or(usize::MAX);
        let mut at = position;
        for (ino, file_type, name) in entries.iter().skip(skip) {
            if !sink.add(&DirEntry { ino: *ino, next: at + 1, file_type: *file_type, name }) {
                break;
            }
            at += 1;
        }
        Ok(at)
    }
}

/// `/dev/tty` and `/dev/ptmx`.
#[derive(Debug)]
struct Devices;

impl CharDevice for Devices {
    fn open(&self, cx: &OpCx<'_>, minor: u32, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        if minor == 2 {
            return Ok(Devpts::of(cx)?.open_master(cx)?);
        }
        let session = cx.task.and_then(|t| t.group().session()).ok_or(Errno::ENXIO)?;
        let tty = session.tty().ok_or(Errno::ENXIO)?;
        let index = abi::stat::minor(tty.device());
        Ok(Slave::open(&Devpts::of(cx)?.tty(index)?, cx, flags | O_NOCTTY)?)
    }
}

/// `/dev/pts/*` by device number.
#[derive(Debug)]
struct Slaves {
    first: u32,
}

impl CharDevice for Slaves {
    fn open(&self, cx: &OpCx<'_>, minor: u32, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Slave::open(&Devpts::of(cx)?.tty(self.first + minor)?, cx, flags)?)
    }
}
