//! The gofer's process, up to the point where it executes its program.
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::MsFlags;

use super::user_namespace::Mapper;
use super::{BeforeHooks, CHANNEL_FD, HostTree, LaunchArgs, LaunchError, caps, host, root, user_namespace};
use crate::control::{Channel, ChannelError};
use crate::spec::Hook;
use crate::{hook, sys};

/// Its namespaces. It stays in the host's user namespace: host files have host owners.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// Where the gofer finds the tree with this index.
pub(crate) fn mount_point(index: usize) -> PathBuf {
    Path::new("/").join(index.to_string())
}

/// A gofer that is on its way.
#[derive(Debug)]
pub(super) struct Gofer {
    pub(super) pid: i32,
    failure: OwnedFd,
    /// Where it waits to be told that its hooks may run, if it has any.
    hooks: Option<Channel>,
}

impl Gofer {
    /// Lets its hooks run, if it has any, after what comes before them.
    pub(super) fn run_hooks(&mut self, sentry: i32, before: BeforeHooks<'_>) -> Result<(), LaunchError> {
        let Some(hooks) = self.hooks.take() else { return Ok(()) };
        let told = before(sentry, self.pid).map_err(LaunchError::Before)?;
        // What became of a gofer that does not listen is told by `ready`.
        match hooks.send(&told, &[]) {
            Ok(()) | Err(ChannelError::Closed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it executes its program.
    pub(super) fn ready(&self) -> Result<(), LaunchError> {
        let mut text = String::new();
        let mut pipe = std::fs::File::from(self.failure.try_clone().map_err(host("dup"))?);
        pipe.read_to_string(&mut text).map_err(host("read"))?;
        if text.is_empty() { Ok(()) } else { Err(LaunchError::Gofer(text)) }
    }
}

/// Starts it.
pub(super) fn start(program: &OwnedFd, socket: OwnedFd, args: &LaunchArgs) -> Result<Gofer, LaunchError> {
    let (failure, failed) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| host("pipe")(e.into()))?;
    let spaces = Spaces::new(args).map_err(host("make a user namespace"))?;
    let (told, tells) = Channel::pair().map_err(host("socketpair"))?;
    if let Some(pid) = sys::fork_into(NAMESPACES).map_err(host("start the gofer"))? {
        let hooks = (!args.create_hooks.is_empty()).then(|| Channel::new(tells));
        return Ok(Gofer { pid, failure, hooks });
    }
    drop(tells);
    let error = become_gofer(program, &socket, &failed, args, (&told, &spaces));
    // Nobody is there to be told that this fails.
    let _unheard = std::fs::File::from(failed).write_all(error.as_bytes());
    sys::exit_now(1)
}

/// Prepares and executes; tells why it could not.
fn become_gofer(
    program: &OwnedFd,
    socket: &OwnedFd,
    failed: &OwnedFd,
    args: &LaunchArgs,
    (told, spaces): (&Channel, &Spaces),
) -> String {
    let trees = args.trees.as_slice();
    if let Err(error) = super::enter_groups(&args.doors) {
        return format!("gofer: enter the control group: {error}");
    }
    if let Err(error) = super::sentry::streams(args.report.as_fd()) {
        return format!("gofer: {error}");
    }
    if let Err(message) = run_hooks(&args.create_hooks, told) {
        return message;
    }
    let own_files = match prepare(trees, spaces) {
        Ok(own_files) => own_files,
        Err(message) => return message,
    };
    let kept = [socket.as_fd(), own_files.as_fd(), program.as_fd(), failed.as_fd()];
    if let Err(error) = sys::keep_only(&kept) {
        return format!("gofer: {error}");
    }
    let access = trees.iter().map(|tree| if tree.readonly { 'r' } else { 'w' }).collect::<String>();
    let (Ok(program), Ok(failed)) = (sys::take_fd(CHANNEL_FD + 2), sys::take_fd(CHANNEL_FD + 3)) else {
        return "gofer: a descriptor is lost".to_owned();
    };
    for fd in [&program, &failed] {
        // Known to be open; cannot fail.
        let _set = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
    }
    let format = if args.boot.report_json { "json" } else { "text" };
    let error = sys::exec_fd(program.as_fd(), &["runsc", "gofer", &access, format], &[]);
    let message = format!("gofer: exec: {error}");
    let _unheard = std::fs::File::from(failed).write_all(message.as_bytes());
    sys::exit_now(1)
}

/// The user namespaces that a gofer needs.
#[derive(Debug)]
struct Spaces {
    /// Whose root it is.
    own: Option<OwnedFd>,
    /// Whose ids the owners of each tree's files are shown in.
    trees: Vec<Option<OwnedFd>>,
}

impl Spaces {
    /// Makes them.
    fn new(args: &LaunchArgs) -> io::Result<Self> {
        let make = |tree: &HostTree| {
            let ids = tree.ids.as_ref();
            ids.map(|(ids, _)| user_namespace::make(ids, Mapper::Privileged)).transpose()
        };
        Ok(Self {
            own: args.ids.as_ref().map(|ids| user_namespace::make(ids, Mapper::Privileged)).transpose()?,
            trees: args.trees.iter().map(make).collect::<io::Result<_>>()?,
        })
    }
}

/// Runs hooks where mounts that they make are the container's, and nobody else's, once the launcher says so.
fn run_hooks(hooks: &[Hook], told: &Channel) -> Result<(), String> {
    if hooks.is_empty() {
        return Ok(());
    }
    let (dir, state): (PathBuf, String) = told.receive().map_err(|error| format!("gofer: {error}"))?.0;
    root::follow_host().map_err(|error| format!("gofer: {error}"))?;
    for hook in hooks {
        let path = hook.path.display();
        hook::run(hook, &dir, &state).map_err(|error| format!("createContainer hook {path}: {error}"))?;
    }
    Ok(())
}

/// Moves into the tree that is served; gives the process's own /proc/self/fd, which is in no tree.
fn prepare(trees: &[HostTree], spaces: &Spaces) -> Result<OwnedFd, String> {
    let gofer = |error: io::Error| format!("gofer: {error}");
    nix::unistd::setsid().map_err(|error| gofer(error.into()))?;
    let mut clones = Vec::new();
    for (tree, space) in trees.iter().zip(&spaces.trees) {
        let name = |error: io::Error| format!("{}: {error}", tree.source.display());
        let clone = match &tree.overlay {
            Some(options) => root::overlay(options),
            None => sys::clone_mounts(&tree.source, tree.recursive),
        };
        let clone = clone.map_err(name)?;
        let readonly = if tree.readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
        let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | readonly;
        sys::restrict_mounts(clone.as_fd(), attributes).map_err(name)?;
        if let (Some((_, recursive)), Some(space)) = (&tree.ids, space) {
            sys::map_mounts(clone.as_fd(), space.as_fd(), *recursive).map_err(name)?;
        }
        clones.push((&tree.source, clone));
    }
    root::begin(MsFlags::empty()).map_err(gofer)?;
    let mut nodes = Vec::new();
    for (index, (source, clone)) in clones.iter().enumerate() {
        let name = |error: io::Error| format!("{}: {error}", source.display());
        let at = Path::new(root::WORKSHOP).join(index.to_string());
        // The kind of what is mounted is looked at through the clone: the path may mean something else by now.
        let kind = nix::sys::stat::fstat(clone).map_err(|error| name(error.into()))?.st_mode & libc::S_IFMT;
        if kind == libc::S_IFDIR {
            std::fs::create_dir(&at).map_err(name)?;
        } else {
            std::fs::write(&at, "").map_err(name)?;
        }
        if matches!(kind, libc::S_IFCHR | libc::S_IFBLK) {
            nodes.push(at.clone());
        }
        sys::attach_mounts(clone.as_fd(), &at).map_err(name)?;
    }
    root::drop_kernel_views(Path::new(root::WORKSHOP), &nodes).map_err(gofer)?;
    let own_files = root::own_files().map_err(gofer)?;
    root::enter().and_then(|()| root::freeze()).map_err(gofer)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    if let Some(space) = &spaces.own {
        user_namespace::enter(space).map_err(gofer)?;
    }
    caps::keep_for_gofer().map_err(gofer)?;
    nix::sys::prctl::set_no_new_privs().map_err(|error| gofer(error.into()))?;
    Ok(own_files)
}
