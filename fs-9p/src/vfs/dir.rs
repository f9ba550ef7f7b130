//! Open directories.

use super::inode::GoferInode;
use crate::client::{Fid, ListedFile};
use crate::proto::{NAME_MAX, open};
use abi::Errno;
use abi::fs::{SEEK_CUR, SEEK_SET};
use std::collections::VecDeque;
use std::sync::Arc;
use sync::{LockClass, Mutex};
use vfs::{DirEntry, DirSink, FileOps, OpCx};

/// What the gofer told and the guest has not read yet.
#[derive(Debug)]
struct Batch {
    fid: Fid,
    entries: VecDeque<ListedFile>,
    /// The position before the first of them.
    at: u64,
}

/// An open directory.
#[derive(Debug)]
pub(super) struct GoferDir {
    inode: Arc<GoferInode>,
    batch: Mutex<Option<Batch>>,
}

impl GoferDir {
    pub(super) fn new(inode: Arc<GoferInode>) -> Arc<Self> {
        Arc::new(Self { inode, batch: Mutex::new(LockClass::FileState, None) })
    }

    fn start(&self) -> Result<Batch, Errno> {
        let (fid, _) = self.inode.fid.walk(&[])?;
        fid.open(open::O_RDONLY | open::O_DIRECTORY)?;
        Ok(Batch { fid, entries: VecDeque::new(), at: 0 })
    }

    fn tell(&self, batch: &mut Batch, sink: &mut dyn DirSink) -> Result<(), Errno> {
        loop {
            if batch.entries.is_empty() {
                batch.entries = batch.fid.read_dir(batch.at, false)?.into();
            }
            let Some(entry) = batch.entries.front() else { return Ok(()) };
            // A position that does not grow would never end.
            if entry.offset <= batch.at || !is_name(&entry.name) {
                return Err(Errno::EIO);
            }
            let own = entry.name == b"." || (entry.name == b".." && self.inode.is_root);
            let told = DirEntry {
                ino: if own { self.inode.ino() } else { entry.qid.path },
                next: entry.offset,
                file_type: u32::from(entry.kind & 0xf) << 12,
                name: &entry.name,
            };
            if !sink.add(&told) {
                return Ok(());
            }
            batch.at = entry.offset;
            batch.entries.pop_front();
        }
    }
}

/// Refuses what a hostile gofer could call a name.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

impl FileOps for GoferDir {
    fn readdir(&self, _cx: &OpCx<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        // Taken out, so that no lock is held while the gofer is asked.
        let kept = self.batch.lock().take();
        let mut batch = match kept {
            Some(batch) if batch.at == position && position != 0 => batch,
            Some(batch) => Batch { entries: VecDeque::new(), at: position, ..batch },
            None => Batch { at: position, ..self.start()? },
        };
        let told = self.tell(&mut batch, sink);
        let at = batch.at;
        let old = self.batch.lock().replace(batch);
        drop(old);
        // What was told before the error counts; the error comes again.
        if at == position { told.map(|()| at) } else { Ok(at) }
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(self.inode.attributes()?.size)
    }

    fn seek(&self, _cx: &OpCx<'_>, position: u64, offset: i64, whence: u32) -> Result<u64, Errno> {
        let base = match whence {
            SEEK_SET => 0,
            SEEK_CUR => position,
            _ => return Err(Errno::EINVAL),
        };
        let to =
            i64::try_from(base).ok().and_then(|base| base.checked_add(offset)).ok_or(Errno::EOVERFLOW)?;
        u64::try_from(to).map_err(|_negative| Errno::EINVAL)
    }

    fn fsync(&self, _cx: &OpCx<'_>, data_only: bool) -> Result<(), Errno> {
        let (fid, _) = self.inode.fid.walk(&[])?;
        fid.open(open::O_RDONLY | open::O_DIRECTORY)?;
        fid.sync(data_only)
    }
}
