//! Attributes of files and file systems.

use super::wire::{CodecError, Reader, Wire, Writer};

/// A struct whose wire form is its fields in order.
macro_rules! record {
    ($(#[$doc:meta])* pub struct $name:ident $(<$lt:lifetime>)? { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        pub struct $name $(<$lt>)? { $($(#[$fdoc])* pub $field: $ty,)* }
        impl<'a> Wire<'a> for $name $(<$lt>)? {
            fn get(r: &mut Reader<'a>) -> Result<Self, CodecError> {
                Ok(Self { $($field: r.get()?,)* })
            }
            fn put(&self, w: &mut Writer<'_>) {
                $(w.put(&self.$field);)*
            }
        }
    };
}
pub(super) use record;

record! {
    /// The server's name for a file; two files are the same one if and only if their qids are equal.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
    pub struct Qid {
        /// One of the `Qid::` constants.
        kind: u8,
        /// Changes with the file, or 0.
        version: u32,
        /// The file.
        path: u64,
    }
}

impl Qid {
    /// A directory.
    pub const DIR: u8 = 0x80;
    /// A symbolic link.
    pub const SYMLINK: u8 = 0x02;
    /// Anything else.
    pub const FILE: u8 = 0x00;

    /// The type of a file of this mode (`st_mode`).
    #[must_use]
    pub const fn kind_of(file_mode: u32) -> u8 {
        match file_mode & mode::S_IFMT {
            mode::S_IFDIR => Self::DIR,
            mode::S_IFLNK => Self::SYMLINK,
            _ => Self::FILE,
        }
    }
}

record! {
    /// A time since the epoch.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
    pub struct Time {
        /// Seconds, two's complement for times before the epoch.
        sec: u64,
        /// Nanoseconds.
        nsec: u64,
    }
}

record! {
    /// The attributes of a file, as `Rgetattr` holds them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Attr {
        /// Which fields hold (`GetAttrMask`).
        valid: u64,
        /// The file.
        qid: Qid,
        /// `st_mode`, type and permissions.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Links.
        nlink: u64,
        /// Device number of a device node, `major << 8 | minor` as Linux's `new_encode_dev`.
        rdev: u64,
        /// Bytes.
        size: u64,
        /// Preferred size of I/O.
        blksize: u64,
        /// Blocks of 512 bytes.
        blocks: u64,
        /// Last access.
        atime: Time,
        /// Last change of the contents.
        mtime: Time,
        /// Last change of the attributes.
        ctime: Time,
        /// Creation.
        btime: Time,
        /// Generation of the inode number.
        generation: u64,
        /// Version of the contents.
        data_version: u64,
    }
}

/// Bits of `Tgetattr`'s mask and of [`Attr::valid`].
#[derive(Clone, Copy, Debug)]
pub struct GetAttrMask;
#[expect(missing_docs, reason = "each bit is named after the field of stat(2)")]
impl GetAttrMask {
    pub const MODE: u64 = 0x1;
    pub const NLINK: u64 = 0x2;
    pub const UID: u64 = 0x4;
    pub const GID: u64 = 0x8;
    pub const RDEV: u64 = 0x10;
    pub const ATIME: u64 = 0x20;
    pub const MTIME: u64 = 0x40;
    pub const CTIME: u64 = 0x80;
    pub const INO: u64 = 0x100;
    pub const SIZE: u64 = 0x200;
    pub const BLOCKS: u64 = 0x400;
    pub const BTIME: u64 = 0x800;
    /// Everything that stat(2) gives.
    pub const BASIC: u64 = 0x7ff;
    pub const ALL: u64 = 0x3fff;
}

record! {
    /// What `Tsetattr` changes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct SetAttr {
        /// Which fields to set ([`SetAttrMask`]).
        valid: u32,
        /// Permissions.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Size.
        size: u64,
        /// Last access.
        atime: Time,
        /// Last change of the contents.
        mtime: Time,
    }
}

/// Bits of [`SetAttr::valid`].
#[derive(Clone, Copy, Debug)]
pub struct SetAttrMask;
#[expect(missing_docs, reason = "each bit is named after the field that it sets")]
impl SetAttrMask {
    pub const MODE: u32 = 0x1;
    pub const UID: u32 = 0x2;
    pub const GID: u32 = 0x4;
    pub const SIZE: u32 = 0x8;
    /// Sets the access time, to the server's now unless `ATIME_SET`.
    pub const ATIME: u32 = 0x10;
    /// Sets the modification time, to the server's now unless `MTIME_SET`.
    pub const MTIME: u32 = 0x20;
    pub const CTIME: u32 = 0x40;
    pub const ATIME_SET: u32 = 0x80;
    pub const MTIME_SET: u32 = 0x100;
    pub const ALL: u32 = 0x1ff;
}

record! {
    /// A file system's figures, statfs(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct StatFs {
        /// Magic number of the file system.
        kind: u32,
        /// Bytes of a block.
        bsize: u32,
        /// Blocks.
        blocks: u64,
        /// Free blocks.
        bfree: u64,
        /// Free blocks for those who are not root.
        bavail: u64,
        /// Inodes.
        files: u64,
        /// Free inodes.
        ffree: u64,
        /// File system id.
        fsid: u64,
        /// The longest name.
        namelen: u32,
    }
}

/// File types and permissions, inode(7).
#[expect(missing_docs, reason = "the names are those of inode(7)")]
pub mod mode {
    pub const S_IFMT: u32 = 0o170_000;
    pub const S_IFSOCK: u32 = 0o140_000;
    pub const S_IFLNK: u32 = 0o120_000;
    pub const S_IFREG: u32 = 0o100_000;
    pub const S_IFBLK: u32 = 0o060_000;
    pub const S_IFDIR: u32 = 0o040_000;
    pub const S_IFCHR: u32 = 0o020_000;
    pub const S_IFIFO: u32 = 0o010_000;
}

/// Flags of `Tlopen` and `Tlcreate`: those of open(2) on x86-64, which 9P2000.L uses on every machine.
#[expect(missing_docs, reason = "the names are those of open(2)")]
pub mod open {
    pub const O_ACCMODE: u32 = 0o3;
    pub const O_RDONLY: u32 = 0;
    pub const O_WRONLY: u32 = 0o1;
    pub const O_RDWR: u32 = 0o2;
    pub const O_CREAT: u32 = 0o100;
    pub const O_EXCL: u32 = 0o200;
    pub const O_NOCTTY: u32 = 0o400;
    pub const O_TRUNC: u32 = 0o1000;
    pub const O_APPEND: u32 = 0o2000;
    pub const O_NONBLOCK: u32 = 0o4000;
    pub const O_DSYNC: u32 = 0o10_000;
    pub const O_DIRECT: u32 = 0o40_000;
    pub const O_LARGEFILE: u32 = 0o100_000;
    pub const O_DIRECTORY: u32 = 0o200_000;
    pub const O_NOFOLLOW: u32 = 0o400_000;
    pub const O_NOATIME: u32 = 0o1_000_000;
    pub const O_CLOEXEC: u32 = 0o2_000_000;
    pub const O_SYNC: u32 = 0o4_010_000;
}
