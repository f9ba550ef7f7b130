//! Open directories of an overlay.
use std::sync::Arc;

use abi::Errno;
use abi::stat::S_IFDIR;
use sync::{LockClass, Mutex};
use vfs::{DirEntry, DirSink, FileOps, OpCx};

use crate::inode::OverlayInode;
use crate::merge::Listed;

/// What the directory showed when it was last read from its beginning.
type Snapshot = Arc<Vec<Listed>>;

#[derive(Debug)]
pub(crate) struct OverlayDirectory {
    inode: Arc<OverlayInode>,
    snapshot: Mutex<Option<Snapshot>>,
}

impl OverlayDirectory {
    pub(crate) fn new(inode: Arc<OverlayInode>) -> Self {
        Self { inode, snapshot: Mutex::new(LockClass::Leaf, None) }
    }

    fn snapshot(&self, cx: &OpCx<'_>, fresh: bool) -> Result<Snapshot, Errno> {
        let kept = self.snapshot.lock().clone();
        if let Some(kept) = kept.filter(|_| !fresh) {
            return Ok(kept);
        }
        let made = Arc::new(self.inode.list(cx)?);
        let old = self.snapshot.lock().replace(Arc::clone(&made));
        drop(old);
        Ok(made)
    }
}

impl FileOps for OverlayDirectory {
    fn readdir(&self, cx: &OpCx<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let snapshot = self.snapshot(cx, position == 0)?;
        let parent = self.inode.place.lock().parent.as_ref().map_or(self.inode.ino, |p| p.ino);
        let dots = [(&b"."[..], self.inode.ino, S_IFDIR), (b"..", parent, S_IFDIR)];
        let listed = snapshot.iter().map(|e| (e.name.as_slice(), e.ino, e.file_type));
        let skip = usize::try_from(position).unwrap_or(usize::MAX);
        let mut at = position;
        for (name, ino, file_type) in dots.into_iter().chain(listed).skip(skip) {
            if !sink.add(&DirEntry { ino, next: at + 1, file_type, name }) {
                break;
            }
            at += 1;
        }
        Ok(at)
    }

    fn fsync(&self, _: &OpCx<'_>, _: bool) -> Result<(), Errno> {
        // The upper layer is in memory; there is nothing to write back that could outlive the sandbox.
        self.inode.top()?.metadata().map(drop)
    }
}
