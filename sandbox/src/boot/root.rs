//! The container's file tree, as its configuration has it.
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{MS_BIND, MS_RDONLY, MS_REC, MS_REMOUNT};
use abi::stat::{S_IFREG, makedev};
use fs_9p::client::Client;
use fs_9p::vfs::{Access, Options};
use fs_overlay::OverlayFs;
use kernel::{Credentials, Kernel};
use vfs::tmpfs::{self, Tmpfs};
use vfs::{At, FileSystem, FsContext, LookupFlags, Mount, MountNamespace, OpCx, Path, SuperBlock, Vfs};

use super::BootArgs;
use super::mount_options::{self, MountOptions};
use crate::spec::Device;

/// Why the tree cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    /// A part of it.
    #[error("{what} {}: {errno}", String::from_utf8_lossy(path))]
    At {
        /// What was to be done.
        what: &'static str,
        /// Where.
        path: Vec<u8>,
        /// What came of it.
        errno: Errno,
    },
    /// A kernel parameter cannot be set.
    #[error("{0}")]
    Sysctl(String),
}

/// Says what failed where.
fn at<'a>(what: &'static str, path: &'a [u8]) -> impl FnOnce(Errno) -> TreeError + 'a {
    move |errno| TreeError::At { what, path: path.to_vec(), errno }
}

/// Builds the tree.
pub(super) struct Builder<'a> {
    kernel: &'a Arc<Kernel>,
    gofer: &'a Arc<Client>,
    args: &'a BootArgs,
    creds: Arc<Credentials>,
    fs: Arc<FsContext>,
}

impl<'a> Builder<'a> {
    /// Mounts the root.
    pub(super) fn new(
        kernel: &'a Arc<Kernel>,
        gofer: &'a Arc<Client>,
        args: &'a BootArgs,
    ) -> Result<Self, TreeError> {
        let lower = gofer_tree(gofer, args, 0).map_err(at("serve", b"/"))?;
        let creds = Arc::new(Credentials::root());
        let fs = if args.overlay {
            over(kernel, &creds, &lower).map_err(at("lay an overlay over", b"/"))?
        } else {
            lower
        };
        let sb = SuperBlock::new(fs, false);
        let root = Arc::clone(sb.root());
        let mount = Mount::new(sb, root, b"none", 0);
        let namespace = MountNamespace::new(mount);
        let fs = FsContext::new(Arc::clone(&namespace), namespace.root_path(), 0);
        Ok(Self { kernel, gofer, args, creds, fs })
    }

    /// The namespace and the root, once built.
    pub(super) fn finish(self) -> Result<(Arc<MountNamespace>, Path), TreeError> {
        for mount in &self.args.mounts {
            self.mount(mount)?;
        }
        self.devices()?;
        super::sysctl::set_all(&self.vfs(), &self.args.sysctl).map_err(TreeError::Sysctl)?;
        for path in &self.args.masked_paths {
            self.mask(path.as_bytes())?;
        }
        for path in &self.args.readonly_paths {
            self.make_readonly(path.as_bytes())?;
        }
        let namespace = self.fs.namespace();
        if self.args.readonly_root {
            let root = namespace.root();
            root.set_flags(root.flags() | MS_RDONLY);
        }
        Ok((Arc::clone(&namespace), namespace.root_path()))
    }

    fn vfs(&self) -> Vfs<'_> {
        Vfs::new(OpCx::of_container(&self.creds, self.kernel), &self.fs)
    }

    fn exists(&self, path: &[u8]) -> Option<Path> {
        self.vfs().resolve(&At::Cwd, path, LookupFlags::FOLLOW).ok()
    }

    /// Makes a directory and those above it, where they are missing.
    fn make_directories(&self, path: &[u8]) -> Result<(), Errno> {
        if self.exists(path).is_some() {
            return Ok(());
        }
        if let Some(slash) = path.iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0) {
            self.make_directories(path.get(..slash).unwrap_or_default())?;
        }
        match self.vfs().mkdir(&At::Cwd, path, 0o755) {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Makes what a file is mounted over.
    fn make_file(&self, path: &[u8]) -> Result<(), Errno> {
        if self.exists(path).is_some() {
            return Ok(());
        }
        if let Some(slash) = path.iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0) {
            self.make_directories(path.get(..slash).unwrap_or_default())?;
        }
        self.vfs().mknod(&At::Cwd, path, S_IFREG | 0o755, 0).map(drop)
    }

    fn mount(&self, guest: &super::GuestMount) -> Result<(), TreeError> {
        let target = guest.mount.destination.as_os_str().as_bytes();
        let options = mount_options::parse(&guest.mount.options);
        if let Some(tree) = guest.tree {
            return self.mount_tree(tree, target, &options).map_err(at("mount at", target));
        }
        let kind = guest.mount.kind.as_deref().unwrap_or("none");
        let source = guest.mount.source.as_deref().map_or(kind.as_bytes(), |s| s.as_os_str().as_bytes());
        self.make_directories(target).map_err(at("make", target))?;
        let (kind, data, flags) = match kind {
            "cgroup" | "cgroup2" => ("cgroup2", String::new(), options.flags | MS_RDONLY),
            kind => (kind, options.data, options.flags),
        };
        self.vfs()
            .mount(source, target, kind.as_bytes(), flags, data.as_bytes())
            .map_err(at("mount at", target))
    }

    fn mount_tree(&self, tree: usize, target: &[u8], options: &MountOptions) -> Result<(), Errno> {
        let fs = gofer_tree(self.gofer, self.args, tree)?;
        if fs.root().is_dir() {
            self.make_directories(target)?;
        } else {
            self.make_file(target)?;
        }
        let sb = SuperBlock::new(fs, false);
        let root = Arc::clone(sb.root());
        let mount = Mount::new(sb, root, b"none", options.flags);
        let vfs = self.vfs();
        let place = vfs.resolve(&At::Cwd, target, LookupFlags::FOLLOW)?;
        vfs.attach_mount(&mount, &place)
    }

    /// Makes the nodes and links that every /dev has, and those that the configuration asks for, if /dev is the
    /// sandbox's own.
    fn devices(&self) -> Result<(), TreeError> {
        let own = |m: &super::GuestMount| m.tree.is_none() && m.mount.destination.as_os_str() == "/dev";
        if !self.args.mounts.iter().any(own) {
            return Ok(());
        }
        for (path, major, minor) in NODES {
            self.node(path.as_bytes(), abi::stat::S_IFCHR | 0o666, makedev(*major, *minor), (0, 0))?;
        }
        for device in &self.args.devices {
            self.device(device)?;
        }
        for (path, target) in LINKS {
            match self.vfs().symlink(target.as_bytes(), &At::Cwd, path.as_bytes()) {
                Ok(_) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(at("make", path.as_bytes())(errno)),
            }
        }
        Ok(())
    }

    fn device(&self, device: &Device) -> Result<(), TreeError> {
        let path = device.path.as_os_str().as_bytes();
        let kind = match device.kind.as_str() {
            "b" => abi::stat::S_IFBLK,
            "p" => abi::stat::S_IFIFO,
            _ => abi::stat::S_IFCHR,
        };
        let number = |n: i64| u32::try_from(n).unwrap_or(0);
        let rdev = makedev(number(device.major), number(device.minor));
        let owner = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        self.node(path, kind | device.file_mode.unwrap_or(0o666) & 0o7777, rdev, owner)
    }

    fn node(&self, path: &[u8], mode: u32, rdev: u64, (uid, gid): (u32, u32)) -> Result<(), TreeError> {
        if let Some(slash) = path.iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0) {
            self.make_directories(path.get(..slash).unwrap_or_default()).map_err(at("make", path))?;
        }
        let vfs = self.vfs();
        match vfs.mknod(&At::Cwd, path, mode, rdev) {
            Ok(made) if (uid, gid) != (0, 0) => {
                vfs.chown(&made, Some(uid), Some(gid)).map_err(at("make", path))
            }
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(at("make", path)(errno)),
        }
    }

    /// Hides what is at a path, if anything is.
    fn mask(&self, path: &[u8]) -> Result<(), TreeError> {
        let Some(place) = self.exists(path) else { return Ok(()) };
        let masked = if place.is_dir() {
            self.vfs().mount(b"tmpfs", path, b"tmpfs", MS_RDONLY, b"size=0k")
        } else {
            self.vfs().mount(b"/dev/null", path, b"", MS_BIND, b"")
        };
        masked.map_err(at("mask", path))
    }

    fn make_readonly(&self, path: &[u8]) -> Result<(), TreeError> {
        if self.exists(path).is_none() {
            return Ok(());
        }
        let vfs = self.vfs();
        vfs.mount(path, path, b"", MS_BIND | MS_REC, b"").map_err(at("make read-only", path))?;
        let flags = vfs.resolve(&At::Cwd, path, LookupFlags::FOLLOW).map_or(0, |p| p.mount.flags());
        vfs.mount(b"", path, b"", MS_REMOUNT | MS_BIND | MS_RDONLY | flags, b"")
            .map_err(at("make read-only", path))
    }
}

/// The character devices of every container.
const NODES: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The symbolic links of every /dev.
const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Keeps changes of a file system in memory.
fn over(
    kernel: &Arc<Kernel>,
    creds: &Arc<Credentials>,
    lower: &Arc<dyn FileSystem>,
) -> Result<Arc<dyn FileSystem>, Errno> {
    let cx = OpCx::of_container(creds, kernel);
    let upper = Tmpfs::new(&cx, Arc::clone(kernel.memory_file()), tmpfs::Options::default())?;
    Ok(OverlayFs::new(kernel, upper, lower)?)
}

/// One of the gofer's trees.
fn gofer_tree(gofer: &Arc<Client>, args: &BootArgs, tree: usize) -> Result<Arc<dyn FileSystem>, Errno> {
    let shared = if tree == 0 { args.shared_files } else { args.shared_mounts };
    let access = match shared {
        false => Access::Exclusive,
        true if tree == 0 && args.leased_files => Access::Leased,
        true => Access::Shared,
    };
    fs_9p::vfs::mount(gofer, tree.to_string().as_bytes(), Options { access, ..Options::default() })
}
