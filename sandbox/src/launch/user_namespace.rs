//! User namespaces as descriptors: who the ids of a container are on the host.
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::spec::{IdMapping, IdMappings};
use crate::sys;

/// Who gives the ids to the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapper {
    /// This process, which may give any.
    Privileged,
    /// This process, which may give its own only.
    Own,
    /// newuidmap(1) and newgidmap(1), which give what /etc/subuid and /etc/subgid allow.
    Helpers,
}

fn numbers(ranges: &[IdMapping]) -> impl Iterator<Item = [String; 3]> {
    ranges.iter().map(|range| [range.container_id, range.host_id, range.size].map(|n| n.to_string()))
}

fn write(pid: i32, file: &str, text: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/{pid}/{file}"), text)
        .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
}

fn help(program: &str, pid: i32, ranges: &[IdMapping]) -> io::Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).args(numbers(ranges).flatten()).stdin(Stdio::null());
    let out =
        command.output().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if out.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&out.stderr).trim())))
}

impl Mapper {
    fn map(self, pid: i32, ids: &IdMappings) -> io::Result<()> {
        if self == Self::Helpers {
            help("newgidmap", pid, &ids.groups)?;
            return help("newuidmap", pid, &ids.users);
        }
        if self == Self::Own {
            // Who could give up a group could get at files that are closed to it.
            write(pid, "setgroups", "deny")?;
        }
        let lines = |ranges| numbers(ranges).map(|range| range.join(" ") + "\n").collect::<String>();
        write(pid, "gid_map", &lines(&ids.groups))?;
        write(pid, "uid_map", &lines(&ids.users))
    }
}

/// Makes a user namespace with these ids. To be called by a process of one thread.
///
/// # Errors
/// Those of clone(2), and of writes to `/proc/PID/uid_map`: `EINVAL` for ranges that overlap, or too many; `EPERM` where the
/// ids may not be given away.
pub(super) fn make(ids: &IdMappings, mapper: Mapper) -> io::Result<OwnedFd> {
    let (go, gate) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let Some(pid) = sys::fork_into(libc::CLONE_NEWUSER)? else {
        drop(gate);
        // Ends when the other side does, or lets go.
        while nix::unistd::read(&go, &mut [0]) == Err(nix::Error::EINTR) {}
        sys::exit_now(0)
    };
    drop(go);
    let made = mapper.map(pid, ids).and_then(|()| {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(nix::fcntl::open(format!("/proc/{pid}/ns/user").as_str(), flags, Mode::empty())?)
    });
    drop(gate);
    let _reaped = waitpid(Pid::from_raw(pid), None);
    made
}

/// Makes this process, of one thread, root of a user namespace, with every capability there and none outside.
pub(super) fn enter(namespace: &OwnedFd) -> io::Result<()> {
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWUSER)?;
    become_root()
}

/// Makes this process root of the user namespace that it is in.
pub(super) fn become_root() -> io::Result<()> {
    use nix::unistd::{Gid, Uid};
    match nix::unistd::setgroups(&[]) {
        // The groups of a user who may not give them up.
        Ok(()) | Err(nix::Error::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(group, group, group)?;
    nix::unistd::setresuid(user, user, user)?;
    Ok(())
}

/// Makes this process, of one thread and of an ordinary user, root of a new user namespace with these ids.
///
/// # Errors
/// Those of clone(2) and setns(2), and of who gives the ids.
pub fn become_root_of(ids: &IdMappings, mapper: Mapper) -> io::Result<()> {
    enter(&make(ids, mapper)?)
}
