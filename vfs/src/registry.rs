//! What other crates add: kinds of file systems and character devices.
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use abi::Errno;
use kernel::Kernel;
use sync::{LockClass, RwLock};

use crate::{FileOps, FileSystem, OpCx};

/// A kind of file system that mount(2) can make.
pub trait FileSystemType: Send + Sync + Debug {
    /// The name given to mount(2).
    fn name(&self) -> &'static str;
    /// Makes an instance; `source` and `data` are those of mount(2).
    ///
    /// # Errors
    /// Those of mount(2).
    fn mount(&self, cx: &OpCx<'_>, source: &[u8], data: &[u8]) -> Result<Arc<dyn FileSystem>, Errno>;
    /// Tells whether it needs a block device, as `/proc/filesystems` shows by the lack of `nodev`.
    fn needs_device(&self) -> bool {
        false
    }
}

static TYPES: RwLock<BTreeMap<&'static str, Arc<dyn FileSystemType>>> =
    RwLock::new(LockClass::Leaf, BTreeMap::new());

/// Registers a kind of file system; a later registration replaces an earlier one.
pub fn register_filesystem(kind: Arc<dyn FileSystemType>) {
    let old = TYPES.write().insert(kind.name(), kind);
    drop(old);
}

/// The kind of file system with this name.
///
/// # Errors
/// `ENODEV`.
pub fn filesystem_type(name: &[u8]) -> Result<Arc<dyn FileSystemType>, Errno> {
    let types = TYPES.read();
    std::str::from_utf8(name).ok().and_then(|n| types.get(n)).cloned().ok_or(Errno::ENODEV)
}

/// Every kind of file system, for `/proc/filesystems`.
#[must_use]
pub fn filesystem_types() -> Vec<Arc<dyn FileSystemType>> {
    TYPES.read().values().cloned().collect()
}

/// Opens character devices of one major number.
pub trait CharDevice: Send + Sync + Debug {
    /// Opens the device with this minor number; `flags` are those of open(2).
    ///
    /// # Errors
    /// `ENXIO` where there is none, and the driver's own.
    fn open(&self, cx: &OpCx<'_>, minor: u32, flags: u32) -> Result<Arc<dyn FileOps>, Errno>;
}

/// A driver and the last minor number it has.
type Driver = (u32, Arc<dyn CharDevice>);

static DEVICES: RwLock<BTreeMap<(u32, u32), Driver>> = RwLock::new(LockClass::Leaf, BTreeMap::new());

/// Registers who opens the devices `(major, first_minor..=last_minor)`; a later registration from the same minor number
/// replaces an earlier one.
pub fn register_char_device(major: u32, first_minor: u32, last_minor: u32, device: Arc<dyn CharDevice>) {
    let old = DEVICES.write().insert((major, first_minor), (last_minor, device));
    drop(old);
}

/// Opens a character device by number.
///
/// # Errors
/// `ENXIO` where there is none, and the driver's own.
pub fn open_char_device(cx: &OpCx<'_>, rdev: u64, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
    let (major, minor) = (abi::stat::major(rdev), abi::stat::minor(rdev));
    let found = {
        let devices = DEVICES.read();
        let last = devices.range((major, 0)..=(major, minor)).next_back();
        last.filter(|(_, (end, _))| minor <= *end).map(|(_, (_, device))| Arc::clone(device))
    };
    found.ok_or(Errno::ENXIO)?.open(cx, minor, flags)
}

/// Makes the lines of a file in `/proc/net`, without its heading.
pub type NetTable = fn(&Kernel) -> Vec<u8>;

static NET_TABLES: RwLock<BTreeMap<&'static str, NetTable>> = RwLock::new(LockClass::Leaf, BTreeMap::new());

/// Registers who tells of its sockets in the file of this name in `/proc/net`; a later registration replaces an earlier one.
pub fn register_net_table(name: &'static str, table: NetTable) {
    NET_TABLES.write().insert(name, table);
}

/// Who tells of its sockets in the file of this name in `/proc/net`.
#[must_use]
pub fn net_table(name: &str) -> Option<NetTable> {
    NET_TABLES.read().get(name).copied()
}
