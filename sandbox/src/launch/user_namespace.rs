//! User namespaces as descriptors: who the ids of a container are on the host.
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::spec::{IdMapping, IdMappings};
use crate::sys;

fn lines(ranges: &[IdMapping]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.container_id, range.host_id, range.size)).collect()
}

/// Makes a user namespace with these ids. To be called by a process of one thread.
///
/// # Errors
/// Those of clone(2), and of writes to `/proc/PID/uid_map`: `EINVAL` for ranges that overlap, or too many; `EPERM` where the
/// caller may not give ids away.
pub(super) fn make(ids: &IdMappings) -> io::Result<OwnedFd> {
    let (go, gate) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let Some(pid) = sys::fork_into(libc::CLONE_NEWUSER)? else {
        drop(gate);
        // Ends when the other side does, or lets go.
        while nix::unistd::read(&go, &mut [0]) == Err(nix::Error::EINTR) {}
        sys::exit_now(0)
    };
    drop(go);
    let map = |file: &str, ranges: &[IdMapping]| {
        std::fs::write(format!("/proc/{pid}/{file}"), lines(ranges))
            .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
    };
    let made = map("uid_map", &ids.users).and_then(|()| map("gid_map", &ids.groups)).and_then(|()| {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(nix::fcntl::open(format!("/proc/{pid}/ns/user").as_str(), flags, Mode::empty())?)
    });
    drop(gate);
    let _reaped = waitpid(Pid::from_raw(pid), None);
    made
}

/// Makes this process, of one thread, root of a user namespace, with every capability there and none outside.
pub(super) fn enter(namespace: &OwnedFd) -> io::Result<()> {
    use nix::unistd::{Gid, Uid};
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWUSER)?;
    nix::unistd::setgroups(&[])?;
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(group, group, group)?;
    nix::unistd::setresuid(user, user, user)?;
    Ok(())
}
