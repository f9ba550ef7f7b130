//! File attributes: `stat(2)`, `statx(2)`, `statfs(2)`.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::Timespec;

macro_rules! constants {
    ($($name:ident $value:literal)*) => {
        $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: u32 = $value;)*
        #[cfg(test)]
        const ALL: &[(&str, u32, u32)] = &[$((stringify!($name), $name, linux_raw_sys::general::$name)),*];
    };
}

constants! {
    S_IFMT 0o170000
    S_IFSOCK 0o140000
    S_IFLNK 0o120000
    S_IFREG 0o100000
    S_IFBLK 0o060000
    S_IFDIR 0o040000
    S_IFCHR 0o020000
    S_IFIFO 0o010000
    S_ISUID 0o4000
    S_ISGID 0o2000
    S_ISVTX 0o1000
    S_IRWXU 0o700
    S_IRUSR 0o400
    S_IWUSR 0o200
    S_IXUSR 0o100
    S_IRWXG 0o070
    S_IRGRP 0o040
    S_IWGRP 0o020
    S_IXGRP 0o010
    S_IRWXO 0o007
    S_IROTH 0o004
    S_IWOTH 0o002
    S_IXOTH 0o001

    STATX_TYPE 0x1
    STATX_MODE 0x2
    STATX_NLINK 0x4
    STATX_UID 0x8
    STATX_GID 0x10
    STATX_ATIME 0x20
    STATX_MTIME 0x40
    STATX_CTIME 0x80
    STATX_INO 0x100
    STATX_SIZE 0x200
    STATX_BLOCKS 0x400
    STATX_BASIC_STATS 0x7ff
    STATX_BTIME 0x800
    STATX_MNT_ID 0x1000
    STATX_DIOALIGN 0x2000
    STATX_MNT_ID_UNIQUE 0x4000
    STATX__RESERVED 0x8000_0000
    STATX_ATTR_COMPRESSED 0x4
    STATX_ATTR_IMMUTABLE 0x10
    STATX_ATTR_APPEND 0x20
    STATX_ATTR_NODUMP 0x40
    STATX_ATTR_ENCRYPTED 0x800
    STATX_ATTR_AUTOMOUNT 0x1000
    STATX_ATTR_MOUNT_ROOT 0x2000
    STATX_ATTR_VERITY 0x10_0000
    STATX_ATTR_DAX 0x20_0000
}

/// `struct stat` of x86-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of stat(2)")]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub pad0: u32,
    pub rdev: u64,
    pub size: i64,
    pub blksize: i64,
    pub blocks: i64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub unused: [i64; 3],
}

/// `struct statx_timestamp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of statx(2)")]
pub struct StatxTimestamp {
    pub sec: i64,
    pub nsec: u32,
    pub reserved: i32,
}

impl From<Timespec> for StatxTimestamp {
    fn from(t: Timespec) -> Self {
        Self { sec: t.sec, nsec: u32::try_from(t.nsec).unwrap_or(0), reserved: 0 }
    }
}

/// `struct statx`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of statx(2)")]
pub struct Statx {
    pub mask: u32,
    pub blksize: u32,
    pub attributes: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    pub pad0: u16,
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub attributes_mask: u64,
    pub atime: StatxTimestamp,
    pub btime: StatxTimestamp,
    pub ctime: StatxTimestamp,
    pub mtime: StatxTimestamp,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub dev_major: u32,
    pub dev_minor: u32,
    pub mnt_id: u64,
    pub dio_mem_align: u32,
    pub dio_offset_align: u32,
    pub spare: [u64; 12],
}

/// `struct statfs` of 64-bit programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of statfs(2)")]
pub struct StatFs {
    pub fs_type: i64,
    pub bsize: i64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub fsid: [i32; 2],
    pub namelen: i64,
    pub frsize: i64,
    pub flags: i64,
    pub spare: [i64; 4],
}

/// A device number in Linux's user-space encoding (`new_encode_dev`, widened as `makedev(3)` does).
#[must_use]
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// The major number of a device number.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the number has 32 bits")]
pub const fn major(dev: u64) -> u32 {
    (dev >> 8 & 0xfff | dev >> 32 & 0xffff_f000) as u32
}

/// The minor number of a device number.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the upper half holds bits of the major number")]
pub const fn minor(dev: u64) -> u32 {
    (dev & 0xff | dev >> 12 & 0xffff_ff00) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;
    use linux_raw_sys::general as raw;

    #[test]
    fn constants_are_linux_s() {
        for (name, ours, linux) in ALL {
            assert_eq!(ours, linux, "{name}");
        }
    }

    #[test]
    fn layouts_are_linux_s() {
        assert_eq!(size_of::<Stat>(), size_of::<raw::stat>());
        assert_eq!(offset_of!(Stat, mode), offset_of!(raw::stat, st_mode));
        assert_eq!(offset_of!(Stat, size), offset_of!(raw::stat, st_size));
        assert_eq!(offset_of!(Stat, ctime), offset_of!(raw::stat, st_ctime));
        assert_eq!(size_of::<Statx>(), size_of::<raw::statx>());
        assert_eq!(offset_of!(Statx, ino), offset_of!(raw::statx, stx_ino));
        assert_eq!(offset_of!(Statx, rdev_major), offset_of!(raw::statx, stx_rdev_major));
        assert_eq!(offset_of!(Statx, mnt_id), offset_of!(raw::statx, stx_mnt_id));
        assert_eq!(size_of::<StatFs>(), size_of::<raw::statfs>());
        assert_eq!(offset_of!(StatFs, namelen), offset_of!(raw::statfs, f_namelen));
    }

    #[test]
    fn device_numbers_round_trip() {
        for (ma, mi) in [(0, 0), (1, 3), (5, 2), (136, 7), (0xfff, 0xff), (0x1234, 0xf_ffff), (8, 0x100)] {
            assert_eq!((major(makedev(ma, mi)), minor(makedev(ma, mi))), (ma, mi));
        }
        assert_eq!(makedev(1, 3), 0x103);
    }
}
