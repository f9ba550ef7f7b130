//! Attributes: reading and changing them.

use super::{LocalFile, LocalFs, Tree, fd_name};
use crate::host::{errno, retry};
use crate::proto::{Attr, GetAttrMask, Qid, SetAttr, SetAttrMask, StatFs, Time, mode};
use abi::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{self, FchmodatFlags, FileStat, Mode, UtimensatFlags};
use nix::sys::statfs;
use nix::sys::time::TimeSpec;
use nix::unistd::{self, Gid, Uid};
use std::os::fd::{AsFd, BorrowedFd};

fn time(sec: i64, nsec: i64) -> Time {
    Time { sec: sec.cast_unsigned(), nsec: nsec.cast_unsigned() }
}

impl Tree {
    /// Which of the devices of the tree this is; 0 is that of its root.
    fn device_index(&self, device: u64) -> u32 {
        let mut devices = self.devices.lock();
        let index = devices.iter().position(|known| *known == device).unwrap_or_else(|| {
            devices.push(device);
            devices.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Our form of stat(2)'s result. A qid's path is the inode number; mounts below the root are told apart by its top
    /// byte and by the version, which are 0 on the root's device.
    pub(super) fn attr(&self, stat: &FileStat) -> Attr {
        let device = self.device_index(stat.st_dev);
        let path = stat.st_ino ^ (u64::from(device) << 56);
        Attr {
            valid: GetAttrMask::BASIC,
            qid: Qid { kind: Qid::kind_of(stat.st_mode), version: device, path },
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            nlink: stat.st_nlink,
            rdev: stat.st_rdev,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blksize: u64::try_from(stat.st_blksize).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            ..Attr::default()
        }
    }
}

/// One of the two times of utimensat(2).
fn time_spec(set: u32, flag: u32, given: u32, value: Time) -> Result<TimeSpec, Errno> {
    if set & flag == 0 {
        return Ok(TimeSpec::UTIME_OMIT);
    }
    if set & given == 0 {
        return Ok(TimeSpec::UTIME_NOW);
    }
    // Greater values are UTIME_NOW and UTIME_OMIT, which a client has other ways to say.
    let nsec = i64::try_from(value.nsec).ok().filter(|nsec| *nsec < 1_000_000_000).ok_or(Errno::EINVAL)?;
    Ok(TimeSpec::new(value.sec.cast_signed(), nsec))
}

impl LocalFs {
    /// chown(2) of the file itself.
    pub(super) fn chown(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        retry(|| unistd::fchownat(fd, "", uid, gid, AtFlags::AT_EMPTY_PATH))
    }

    /// chmod(2) of the file itself, which must be no symbolic link.
    pub(super) fn chmod(&self, fd: BorrowedFd<'_>, bits: u32) -> Result<(), Errno> {
        let mode = Mode::from_bits(bits & 0o7777).ok_or(Errno::EINVAL)?;
        let name = fd_name(fd);
        retry(|| stat::fchmodat(&self.proc_self_fd, name.as_str(), mode, FchmodatFlags::FollowSymlink))
    }

    /// Changes attributes, in the order in which one change must not undo another: truncation and chown(2) clear set-id
    /// bits, all of them set times.
    pub(super) fn change_attr(&self, file: &LocalFile, set: &SetAttr) -> Result<(), Errno> {
        file.tree.check_writable()?;
        let asked = |flag| set.valid & flag != 0;
        let times = (
            time_spec(set.valid, SetAttrMask::ATIME, SetAttrMask::ATIME_SET, set.atime)?,
            time_spec(set.valid, SetAttrMask::MTIME, SetAttrMask::MTIME_SET, set.mtime)?,
        );
        if asked(SetAttrMask::SIZE) {
            match file.kind {
                mode::S_IFREG => {}
                mode::S_IFDIR => return Err(Errno::EISDIR),
                _ => return Err(Errno::EINVAL),
            }
            let size = i64::try_from(set.size).map_err(|_too_large| Errno::EINVAL)?;
            let fd = self.reopen(file.fd.as_fd(), OFlag::O_WRONLY)?;
            retry(|| unistd::ftruncate(&fd, size))?;
        }
        if asked(SetAttrMask::UID | SetAttrMask::GID) {
            let uid = asked(SetAttrMask::UID).then_some(set.uid);
            Self::chown(file.fd.as_fd(), uid, asked(SetAttrMask::GID).then_some(set.gid))?;
        }
        if asked(SetAttrMask::MODE) {
            if file.kind == mode::S_IFLNK {
                return Err(Errno::EOPNOTSUPP);
            }
            self.chmod(file.fd.as_fd(), set.mode)?;
        }
        if asked(SetAttrMask::ATIME | SetAttrMask::MTIME) {
            let (name, follow) = (fd_name(file.fd.as_fd()), UtimensatFlags::FollowSymlink);
            retry(|| stat::utimensat(&self.proc_self_fd, name.as_str(), &times.0, &times.1, follow))?;
        }
        Ok(())
    }
}

/// statfs(2).
pub(super) fn stat_fs(file: &LocalFile) -> Result<StatFs, Errno> {
    let found = statfs::fstatfs(&file.fd).map_err(errno)?;
    let narrow = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    Ok(StatFs {
        kind: narrow(found.filesystem_type().0),
        bsize: narrow(found.block_size()),
        blocks: found.blocks(),
        bfree: found.blocks_free(),
        bavail: found.blocks_available(),
        files: found.files(),
        ffree: found.files_free(),
        fsid: 0,
        namelen: narrow(found.maximum_name_length()),
    })
}
