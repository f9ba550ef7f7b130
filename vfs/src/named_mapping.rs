//! Mappings know the path that their file was opened by.
use std::sync::Arc;

use abi::Errno;
use memmap::{Backing, Mappable, MappingKey};

use crate::Path;
use crate::write_count::WriteHold;

/// A file's contents with the path for `/proc/PID/maps`. Holding the path keeps the mount busy, as a mapping does.
#[derive(Debug)]
pub(crate) struct NamedMapping {
    pub(crate) inner: Arc<dyn Mappable>,
    pub(crate) path: Path,
    /// A mapping that may write counts as a writer for as long as it lives.
    pub(crate) _writer: Option<Arc<WriteHold>>,
}

impl Mappable for NamedMapping {
    fn translate(&self, offset: u64, len: u64, write: bool) -> Result<Backing, Errno> {
        self.inner.translate(offset, len, write)
    }
    fn add_mapping(&self, key: MappingKey) {
        self.inner.add_mapping(key);
    }
    fn remove_mapping(&self, key: &MappingKey) {
        self.inner.remove_mapping(key);
    }
    fn sync(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.inner.sync(offset, len)
    }
    fn punch_hole(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.inner.punch_hole(offset, len)
    }
    fn identity(&self) -> (u64, u64, Vec<u8>) {
        let (device, ino, name) = self.inner.identity();
        let attributes = self.path.inode().and_then(|inode| inode.metadata());
        let (device, ino) = attributes.map_or((device, ino), |meta| (meta.dev, meta.ino));
        let name = if name.is_empty() { self.path.full_name().display() } else { name };
        (device, ino, name)
    }
}
