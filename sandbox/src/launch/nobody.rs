//! Processes that are nobody on the host, and root of nothing.
use std::io;
use std::os::fd::OwnedFd;

use super::namespace::fork_in_network;
use super::{LaunchError, host, user_namespace};

/// The namespaces of such a process, besides that of the network: all that are empty when they are new.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
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
        user_namespace::become_root()
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
        self.map("gid_map", nix::unistd::getegid().as_raw())?;
        self.map("uid_map", nix::unistd::geteuid().as_raw())?;
        // Closing opens the gate.
        drop(self.gate);
        Ok(())
    }
}

impl Parent {
    /// Makes root of its user namespace nobody outside; a caller who is not root of the host may have none to give but itself.
    fn map(&self, file: &str, own: u32) -> Result<(), LaunchError> {
        let write = |file: &str, text: String| std::fs::write(format!("/proc/{}/{file}", self.pid), text);
        let written = match write(file, format!("0 {NOBODY} 1")) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                if file == "gid_map" {
                    // Without this an ordinary user may give no group.
                    write("setgroups", "deny".to_owned()).map_err(host("give up groups"))?;
                }
                write(file, format!("0 {own} 1"))
            }
            other => other,
        };
        written.map_err(host("map nobody into the sandbox"))
    }
}

/// fork(2) into such namespaces, or into this one of the network, for a process of one thread.
pub(super) fn fork(what: &'static str, network: Option<&OwnedFd>) -> Result<Forked, LaunchError> {
    let (go, gate) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| host("pipe")(e.into()))?;
    Ok(match fork_in_network(network, NAMESPACES).map_err(host(what))? {
        Some(pid) => Forked::Parent(Parent { pid, gate }),
        None => Forked::Child(Gate(go)),
    })
}
