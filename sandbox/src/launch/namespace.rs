//! Namespaces of the host that a configuration names.
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::sys;

/// The kinds of namespaces, by their names in a configuration.
const KINDS: [(&str, i32); 8] = [
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("ipc", libc::CLONE_NEWIPC),
    ("mount", libc::CLONE_NEWNS),
    ("network", libc::CLONE_NEWNET),
    ("pid", libc::CLONE_NEWPID),
    ("time", libc::CLONE_NEWTIME),
    ("user", libc::CLONE_NEWUSER),
    ("uts", libc::CLONE_NEWUTS),
];

/// Opens a namespace of this kind, whatever else is at the path.
///
/// # Errors
/// Those of open(2); `EINVAL` for what is no namespace, or one of another kind.
pub fn open_namespace(path: &Path, kind: &str) -> io::Result<OwnedFd> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("not a {what}"));
    // Looked at before it is opened: to open a device, or a FIFO, may have effects.
    let seen = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    if !sys::is_namespace(seen.as_fd())? {
        return Err(wrong("namespace"));
    }
    let own = format!("/proc/self/fd/{}", seen.as_raw_fd());
    let fd = nix::fcntl::open(own.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let found = sys::kind_of_namespace(fd.as_fd())?;
    if KINDS.iter().any(|(name, flag)| *name == kind && *flag == found) {
        return Ok(fd);
    }
    Err(wrong(&format!("{kind} namespace")))
}

/// fork(2) into new namespaces, and into this one of the network, which the caller leaves again: `None` in the child, its
/// process id in the parent. For a process of one thread.
pub(super) fn fork_in_network(network: Option<&OwnedFd>, flags: i32) -> io::Result<Option<i32>> {
    use nix::sched::{CloneFlags, setns};
    let Some(network) = network else { return sys::fork_into(flags | libc::CLONE_NEWNET) };
    let own = open_namespace(Path::new("/proc/self/ns/net"), "network")?;
    setns(network, CloneFlags::CLONE_NEWNET)?;
    let forked = sys::fork_into(flags);
    if !matches!(forked, Ok(None)) {
        setns(own, CloneFlags::CLONE_NEWNET)?;
    }
    forked
}
