//! Processes that are nobody on the host, and root of nothing.
use std::io;
use std::os::fd::OwnedFd;

use nix::unistd::{Gid, Uid};

use super::{LaunchError, host};
use crate::sys;

/// The namespaces of such a process: all that are empty when they are new.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// The user and group nobody.
const NOBODY: u32 = 65534;

/// What a new process waits at until its ids are mapped. It opens when the other side is gone, too: then there are none.
#[derive(Debug)]
pub(super) struct Gate(OwnedFd);

impl Gate {
    /// Waits, and becomes root of the new user namespace, who is nobody outside.
    pub(super) fn pass(self) -> io::Result<()> {
        while nix::unistd::read(&self.0, &mut [0]) == Err(nix::Error::EINTR) {}
        nix::unistd::setgroups(&[])?;
        let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
        nix::unistd::setresgid(group, group, group)?;
        nix::unistd::setresuid(user, user, user)?;
        Ok(())
    }
}

/// A process that this one has made, or the process itself.
#[derive(Debug)]
pub(super) enum Forked {
    /// It; it waits until [`Parent::admit`].
    Parent(Parent),
    /// The new process.
    Child(Gate),
}

/// A new process that waits at its gate.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) pid: i32,
    gate: OwnedFd,
}

impl Parent {
    /// Maps its ids, and lets it go on.
    pub(super) fn admit(self) -> Result<(), LaunchError> {
        let map = format!("0 {NOBODY} 1");
        for file in ["gid_map", "uid_map"] {
            let path = format!("/proc/{}/{file}", self.pid);
            std::fs::write(path, &map).map_err(host("map nobody into the sandbox"))?;
        }
        // Closing opens the gate.
        drop(self.gate);
        Ok(())
    }
}

/// fork(2) into such namespaces, for a process of one thread.
pub(super) fn fork(what: &'static str) -> Result<Forked, LaunchError> {
    let (go, gate) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| host("pipe")(e.into()))?;
    Ok(match sys::fork_into(NAMESPACES).map_err(host(what))? {
        Some(pid) => Forked::Parent(Parent { pid, gate }),
        None => Forked::Child(Gate(go)),
    })
}
