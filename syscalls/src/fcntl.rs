//! Properties of descriptors and descriptions: `fcntl(2)`.
use abi::fs::{
    F_ADD_SEALS, F_DUPFD, F_DUPFD_CLOEXEC, F_GET_SEALS, F_GETFD, F_GETFL, F_GETLEASE, F_GETLK, F_GETOWN,
    F_GETOWN_EX, F_GETPIPE_SZ, F_GETSIG, F_NOTIFY, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_SETFD, F_SETFL,
    F_SETLEASE, F_SETLK, F_SETLKW, F_SETOWN, F_SETOWN_EX, F_SETPIPE_SZ, F_SETSIG, FD_CLOEXEC, FOwnerEx,
    O_PATH,
};
use abi::{Errno, Signal};
use vfs::anon::PipeEnd;
use vfs::{FileDescription, Owner};

use crate::Cx;
use crate::decode::{Arg, Fd, UserPtr};
use crate::process::id;

const F_OWNER_TID: i32 = 0;
const F_OWNER_PID: i32 = 1;
const F_OWNER_PGRP: i32 = 2;

/// `fcntl(2)`
///
/// # Errors
/// `EBADF`, `EINVAL`, `EMFILE`, `EFAULT`, `EPERM`, `EAGAIN`, `EINTR`, `EDEADLK`, `ENOLCK`.
pub fn fcntl(cx: &mut Cx<'_>, fd: Fd, command: u32, arg: u64) -> Result<usize, Errno> {
    let fds = cx.fds()?;
    let (file, cloexec) = fds.get_with_flags(fd.0)?;
    let low = Arg(arg).low();
    let path_only = file.status_flags() & O_PATH != 0;
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => {
            let min = low.cast_signed();
            id(fds.install_from(min, file, command == F_DUPFD_CLOEXEC, cx.fd_limit())?)
        }
        F_GETFD => Ok(usize::from(cloexec)),
        F_SETFD => fds.set_cloexec(fd.0, low & FD_CLOEXEC != 0).map(|()| 0),
        F_GETFL => Ok(file.status_flags() as usize),
        _ if path_only => Err(Errno::EBADF),
        F_SETFL => file.set_status_flags(cx, low).map(|()| 0),
        F_GETLK | F_SETLK | F_SETLKW | F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW => {
            crate::lock::record_lock(cx, &file, command, arg)
        }
        _ => {
            let file = FileDescription::from_file(&file).ok_or(Errno::EINVAL)?;
            description(cx, file, command, arg)
        }
    }
}

/// The commands that only some files know.
fn description(cx: &Cx<'_>, file: &FileDescription, command: u32, arg: u64) -> Result<usize, Errno> {
    let low = Arg(arg).low().cast_signed();
    match command {
        F_GETOWN => match file.owner() {
            Owner::None => Ok(0),
            Owner::Thread(pid) | Owner::Process(pid) => id(pid),
            // A negative result that is no error.
            Owner::ProcessGroup(group) => Ok(usize::from_le_bytes(i64::from(-group).to_le_bytes())),
        },
        F_SETOWN => {
            let owner = match low {
                i32::MIN => return Err(Errno::EINVAL),
                0 => Owner::None,
                1.. => owner(cx, F_OWNER_PID, low)?,
                group => owner(cx, F_OWNER_PGRP, -group)?,
            };
            file.set_owner(owner);
            Ok(0)
        }
        F_GETOWN_EX => {
            let (ty, pid) = match file.owner() {
                Owner::None => (F_OWNER_PID, 0),
                Owner::Thread(pid) => (F_OWNER_TID, pid),
                Owner::Process(pid) => (F_OWNER_PID, pid),
                Owner::ProcessGroup(pid) => (F_OWNER_PGRP, pid),
            };
            UserPtr::new(arg).write(cx, &FOwnerEx { ty, pid })?;
            Ok(0)
        }
        F_SETOWN_EX => {
            let wire = UserPtr::<FOwnerEx>::new(arg).read(cx)?;
            file.set_owner(owner(cx, wire.ty, wire.pid)?);
            Ok(0)
        }
        F_GETSIG => id(file.owner_signal()),
        F_SETSIG => {
            if low != 0 && Signal::new(low).is_none() {
                return Err(Errno::EINVAL);
            }
            file.set_owner_signal(low);
            Ok(0)
        }
        F_GETPIPE_SZ => pipe(file).map(PipeEnd::capacity),
        F_SETPIPE_SZ => {
            let privileged = cx.credentials().has_cap(kernel::Cap::SYS_RESOURCE);
            let bytes = usize::try_from(low).map_err(|_negative| Errno::EINVAL)?;
            pipe(file)?.set_capacity(bytes, privileged)
        }
        F_GET_SEALS => crate::memfd::seals(file),
        F_ADD_SEALS => crate::memfd::add_seals(file, low.cast_unsigned()),
        F_GETLEASE | F_SETLEASE | F_NOTIFY => Err(cx.unsupported("fcntl: leases", Errno::EINVAL)),
        _ => Err(Errno::EINVAL),
    }
}

/// The owner that the numbers mean; one that is not there is an error, 0 is nobody.
fn owner(cx: &Cx<'_>, ty: i32, pid: i32) -> Result<Owner, Errno> {
    let (owner, there) = match ty {
        F_OWNER_TID => (Owner::Thread(pid), cx.kernel().task(pid).is_some()),
        F_OWNER_PID => (Owner::Process(pid), cx.kernel().task(pid).is_some()),
        F_OWNER_PGRP => (Owner::ProcessGroup(pid), cx.kernel().process_group(pid).is_some()),
        _ => return Err(Errno::EINVAL),
    };
    match (pid, there) {
        (0, _) => Ok(Owner::None),
        (_, true) => Ok(owner),
        (_, false) => Err(Errno::ESRCH),
    }
}

fn pipe(file: &FileDescription) -> Result<&PipeEnd, Errno> {
    file.ops().downcast_ref::<PipeEnd>().ok_or(Errno::EBADF)
}
