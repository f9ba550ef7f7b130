//! The virtual file system, its in-memory file systems and the files that are not on one.
//!
//! A path is walked over [`Dentry`]s, which cache what [`InodeOps::lookup`] found, and [`Mount`]s. Opening gives a
//! [`FileDescription`], the one kind of [`kernel::File`], around a [`FileOps`] of the file system.
#![forbid(unsafe_code)]

pub mod anon;
mod anon_file;
mod async_owner;
mod cx;
mod dentry;
mod description;
pub mod devices;
pub mod devtmpfs;
mod file;
mod file_size;
mod filesystem;
mod fs_context;
mod inode;
mod ioctl;
pub mod locks;
mod mount;
mod named_mapping;
mod namespace;
pub mod notify;
mod ops;
mod path;
pub mod permission;
mod registry;
pub mod socket;
pub mod tmpfs;
pub mod tty;
mod walk;
mod write_count;

pub use anon_file::{
    AnonInode, anon_device, new_anon_file, new_inode_file, new_pipe, new_socket_file, next_ino,
};
pub use async_owner::Owner;
pub use cx::OpCx;
pub use dentry::Dentry;
pub use description::FileDescription;
pub use file::{DirEntry, DirSink, FileOps, seek_in_size};
pub use filesystem::{FileSystem, StatFs, SuperBlock, anonymous_device};
pub use fs_context::{FS, FsContext};
pub use inode::{Caching, Created, InodeOps, Metadata, Ownership, SetAttr, SetTime, access};
pub use mount::{MOUNT_FLAGS, Mount};
pub use namespace::{MountMap, MountNamespace};
pub use ops::{OpenHow, Times, Vfs};
pub use path::{Path, PathName};
pub use registry::{
    CharDevice, FileSystemType, NetTable, filesystem_type, filesystem_types, net_table, open_char_device,
    register_char_device, register_filesystem, register_net_table,
};
pub use socket::{Ancillary, Received, SendArgs, SocketFamily, SocketOps};
pub use walk::{At, LookupFlags};
pub use write_count::WriteCount;

#[cfg(test)]
mod tests;
