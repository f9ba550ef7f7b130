//! This program as a file that a process of another user can execute, whatever happens to its path.
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::fcntl::{FcntlArg, OFlag, SealFlag};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;

/// Read and execute for everybody.
const FOR_ALL: u32 = 0o005;

/// The file this process runs; where others may not execute it, a sealed copy in memory.
pub(super) fn of_this_process() -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open("/proc/self/exe", flags, Mode::empty())?;
    let own = format!("/proc/self/fd/{}", fd.as_raw_fd());
    if std::fs::metadata(&own)?.mode() & FOR_ALL == FOR_ALL {
        return Ok(fd);
    }
    let mut copy = File::from(memfd_create("runsc", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    copy.seek(SeekFrom::Start(0))?;
    let seals =
        SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    nix::fcntl::fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy.into())
}
