//! Files: flags and wire structs of `open(2)`, `openat2(2)`, `fcntl(2)`, `getdents64(2)`, `mount(2)`, `rename(2)`.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! constants {
    ($($name:ident $value:literal)*) => {
        $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: u32 = $value;)*
        #[cfg(test)]
        const ALL: &[(&str, u32, u32)] = &[$((stringify!($name), $name, linux_raw_sys::general::$name)),*];
    };
}

constants! {
    O_RDONLY 0o0
    O_WRONLY 0o1
    O_RDWR 0o2
    O_ACCMODE 0o3
    O_CREAT 0o100
    O_EXCL 0o200
    O_NOCTTY 0o400
    O_TRUNC 0o1000
    O_APPEND 0o2000
    O_NONBLOCK 0o4000
    O_DSYNC 0o10000
    FASYNC 0o20000
    O_DIRECT 0o40000
    O_LARGEFILE 0o100000
    O_DIRECTORY 0o200000
    O_NOFOLLOW 0o400000
    O_NOATIME 0o1000000
    O_CLOEXEC 0o2000000
    O_SYNC 0o4010000
    O_PATH 0o10000000
    O_TMPFILE 0o20200000

    AT_SYMLINK_NOFOLLOW 0x100
    AT_EACCESS 0x200
    AT_REMOVEDIR 0x200
    AT_SYMLINK_FOLLOW 0x400
    AT_NO_AUTOMOUNT 0x800
    AT_EMPTY_PATH 0x1000
    AT_STATX_SYNC_TYPE 0x6000
    AT_STATX_FORCE_SYNC 0x2000
    AT_STATX_DONT_SYNC 0x4000
    AT_RECURSIVE 0x8000

    RENAME_NOREPLACE 1
    RENAME_EXCHANGE 2
    RENAME_WHITEOUT 4

    RESOLVE_NO_XDEV 0x1
    RESOLVE_NO_MAGICLINKS 0x2
    RESOLVE_NO_SYMLINKS 0x4
    RESOLVE_BENEATH 0x8
    RESOLVE_IN_ROOT 0x10
    RESOLVE_CACHED 0x20

    FALLOC_FL_KEEP_SIZE 0x1
    FALLOC_FL_PUNCH_HOLE 0x2
    FALLOC_FL_COLLAPSE_RANGE 0x8
    FALLOC_FL_ZERO_RANGE 0x10
    FALLOC_FL_INSERT_RANGE 0x20
    FALLOC_FL_UNSHARE_RANGE 0x40

    F_DUPFD 0
    F_GETFD 1
    F_SETFD 2
    F_GETFL 3
    F_SETFL 4
    F_GETLK 5
    F_SETLK 6
    F_SETLKW 7
    F_SETOWN 8
    F_GETOWN 9
    F_SETSIG 10
    F_GETSIG 11
    F_SETOWN_EX 15
    F_GETOWN_EX 16
    F_OFD_GETLK 36
    F_OFD_SETLK 37
    F_OFD_SETLKW 38
    F_SETLEASE 1024
    F_GETLEASE 1025
    F_NOTIFY 1026
    F_DUPFD_CLOEXEC 1030
    F_SETPIPE_SZ 1031
    F_GETPIPE_SZ 1032
    F_ADD_SEALS 1033
    F_GET_SEALS 1034
    FD_CLOEXEC 1
    F_RDLCK 0
    F_WRLCK 1
    F_UNLCK 2
    F_SEAL_SEAL 1
    F_SEAL_SHRINK 2
    F_SEAL_GROW 4
    F_SEAL_WRITE 8
    F_SEAL_FUTURE_WRITE 16
    LOCK_SH 1
    LOCK_EX 2
    LOCK_NB 4
    LOCK_UN 8

    SEEK_SET 0
    SEEK_CUR 1
    SEEK_END 2
    SEEK_DATA 3
    SEEK_HOLE 4

    MS_RDONLY 0x1
    MS_NOSUID 0x2
    MS_NODEV 0x4
    MS_NOEXEC 0x8
    MS_SYNCHRONOUS 0x10
    MS_REMOUNT 0x20
    MS_MANDLOCK 0x40
    MS_DIRSYNC 0x80
    MS_NOSYMFOLLOW 0x100
    MS_NOATIME 0x400
    MS_NODIRATIME 0x800
    MS_BIND 0x1000
    MS_MOVE 0x2000
    MS_REC 0x4000
    MS_SILENT 0x8000
    MS_POSIXACL 0x1_0000
    MS_UNBINDABLE 0x2_0000
    MS_PRIVATE 0x4_0000
    MS_SLAVE 0x8_0000
    MS_SHARED 0x10_0000
    MS_RELATIME 0x20_0000
    MS_STRICTATIME 0x100_0000
    MS_LAZYTIME 0x200_0000
    MNT_FORCE 0x1
    MNT_DETACH 0x2
    MNT_EXPIRE 0x4
    UMOUNT_NOFOLLOW 0x8

    XATTR_CREATE 1
    XATTR_REPLACE 2
}

/// `AT_FDCWD`.
pub const AT_FDCWD: i32 = -100;
/// The most bytes of a path with its terminator.
pub const PATH_MAX: usize = 4096;
/// The most bytes of one name.
pub const NAME_MAX: usize = 255;
/// The most bytes of the value of an extended attribute.
pub const XATTR_SIZE_MAX: usize = 65_536;
/// The most bytes of the name of an extended attribute.
pub const XATTR_NAME_MAX: usize = 255;
/// The most bytes of a list of names of extended attributes.
pub const XATTR_LIST_MAX: usize = 65_536;

/// `DT_*` of a file type of a mode.
#[must_use]
pub const fn dirent_type(mode: u32) -> u8 {
    (mode >> 12 & 0xf).to_le_bytes()[0]
}

#[expect(missing_docs, reason = "the names are those of statfs(2), Linux include/uapi/linux/magic.h")]
mod magic {
    pub const TMPFS_MAGIC: u32 = 0x0102_1994;
    pub const OVERLAYFS_SUPER_MAGIC: u32 = 0x794c_7630;
    pub const PROC_SUPER_MAGIC: u32 = 0x9fa0;
    pub const SYSFS_MAGIC: u32 = 0x6265_6572;
    pub const DEVPTS_SUPER_MAGIC: u32 = 0x1cd1;
    pub const V9FS_MAGIC: u32 = 0x0102_1997;
    pub const PIPEFS_MAGIC: u32 = 0x5049_5045;
    pub const SOCKFS_MAGIC: u32 = 0x534f_434b;
    pub const ANON_INODE_FS_MAGIC: u32 = 0x0904_1934;
    pub const CGROUP2_SUPER_MAGIC: u32 = 0x6367_7270;
    pub const EXT4_SUPER_MAGIC: u32 = 0xef53;
}
pub use magic::*;

#[expect(missing_docs, reason = "the names are those of statfs(2), Linux include/linux/statfs.h")]
mod statfs_flags {
    pub const ST_RDONLY: u32 = 1;
    pub const ST_NOSUID: u32 = 2;
    pub const ST_NODEV: u32 = 4;
    pub const ST_NOEXEC: u32 = 8;
    pub const ST_SYNCHRONOUS: u32 = 16;
    pub const ST_VALID: u32 = 0x20;
    pub const ST_NOATIME: u32 = 1024;
    pub const ST_NODIRATIME: u32 = 2048;
    pub const ST_RELATIME: u32 = 4096;
    pub const ST_NOSYMFOLLOW: u32 = 0x2000;
}
pub use statfs_flags::*;

/// `struct open_how`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenHow {
    /// `O_*`.
    pub flags: u64,
    /// Permissions of a file that is created.
    pub mode: u64,
    /// `RESOLVE_*`.
    pub resolve: u64,
}

/// `struct flock` of 64-bit programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flock {
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub ty: i16,
    /// `SEEK_*`.
    pub whence: i16,
    /// Padding.
    pub pad0: u32,
    /// The first byte, from `whence`.
    pub start: i64,
    /// How many bytes; 0 for all that follow.
    pub len: i64,
    /// Who holds it.
    pub pid: i32,
    /// Padding.
    pub pad1: u32,
}

/// `struct f_owner_ex`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FOwnerEx {
    /// `F_OWNER_TID` 0, `F_OWNER_PID` 1, `F_OWNER_PGRP` 2.
    pub ty: i32,
    /// Which one.
    pub pid: i32,
}

/// What comes before the name in `struct linux_dirent64`: 19 bytes, so that the record is made of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Dirent64Head {
    ino: [u8; 8],
    off: [u8; 8],
    reclen: [u8; 2],
    ty: u8,
}

impl Dirent64Head {
    /// The head of a record of `reclen` bytes; `off` is the position after it, `ty` is `DT_*`.
    #[must_use]
    pub const fn new(ino: u64, off: u64, reclen: u16, ty: u8) -> Self {
        Self { ino: ino.to_le_bytes(), off: off.to_le_bytes(), reclen: reclen.to_le_bytes(), ty }
    }
    /// The bytes of a record with a name of this length: head, name, terminator, padded to 8.
    #[must_use]
    pub const fn record_len(name_len: usize) -> usize {
        (size_of::<Self>() + name_len + 1).next_multiple_of(8)
    }
}

/// `struct file_handle` without the handle that follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileHandleHead {
    /// Bytes of the handle.
    pub handle_bytes: u32,
    /// Kind of the handle.
    pub handle_type: i32,
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
        assert_eq!(AT_FDCWD, raw::AT_FDCWD);
    }

    #[test]
    fn layouts_are_linux_s() {
        assert_eq!(size_of::<OpenHow>(), size_of::<raw::open_how>());
        assert_eq!(size_of::<Flock>(), size_of::<raw::flock>());
        assert_eq!(offset_of!(Flock, start), offset_of!(raw::flock, l_start));
        assert_eq!(offset_of!(Flock, pid), offset_of!(raw::flock, l_pid));
        assert_eq!(size_of::<FOwnerEx>(), size_of::<raw::f_owner_ex>());
        assert_eq!(offset_of!(raw::linux_dirent64, d_name), size_of::<Dirent64Head>());
        assert_eq!(Dirent64Head::record_len(1), 24);
        assert_eq!(Dirent64Head::record_len(4), 24);
        assert_eq!(Dirent64Head::record_len(5), 32);
    }
}
