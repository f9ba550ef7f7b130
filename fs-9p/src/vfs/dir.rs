//! Open directories.

use super::inode::GoferInode;
use crate::client::{Fid, Listed};
use crate::proto::{Data, Dirent, Dirents, NAME_MAX};
use abi::Errno;
use abi::fs::{SEEK_CUR, SEEK_SET};
use std::sync::Arc;
use sync::{LockClass, Mutex};
use vfs::{DirEntry, DirSink, FileOps, OpCx};

/// What the gofer told of a directory and when, for those who ask next.
#[derive(Debug)]
pub(super) struct KeptListing {
    /// The directory, which may be gone: its address alone would be another's then.
    pub(super) dir: std::sync::Weak<GoferInode>,
    /// The directory's count of changes before the gofer was asked.
    pub(super) changes: u64,
    /// When that was, in the monotonic clock.
    pub(super) asked_ns: u64,
    /// Every entry.
    pub(super) entries: Arc<Vec<u8>>,
}

/// Where in a directory its reader is.
#[derive(Debug)]
struct Reading {
    /// Entries, as the gofer sent them.
    entries: Arc<Vec<u8>>,
    /// Where in them the next one is.
    next: usize,
    /// The position before it.
    at: u64,
    /// The open directory, where there may be more.
    rest: Option<Fid>,
}

impl Reading {
    /// The next entry.
    fn peek(&mut self) -> Result<Option<Dirent<'_>>, Errno> {
        if self.next >= self.entries.len() {
            let Some(rest) = &self.rest else { return Ok(None) };
            self.entries = Arc::new(rest.read_entries(self.at)?);
            self.next = 0;
        }
        let bytes = self.entries.get(self.next..).unwrap_or_default();
        let entry = Dirents::new(Data(bytes)).next().transpose().map_err(|_hostile| Errno::EIO)?;
        // A position that does not grow would never end.
        if entry.is_some_and(|entry| entry.offset <= self.at || !is_name(&entry.name)) {
            return Err(Errno::EIO);
        }
        Ok(entry)
    }

    /// Goes past the entry that [`Self::peek`] gave.
    fn pass(&mut self, len: usize, offset: u64) {
        self.next += len;
        self.at = offset;
    }

    /// Goes on from the start to a position.
    fn skip_to(&mut self, position: u64) -> Result<(), Errno> {
        while self.at < position {
            let Some(entry) = self.peek()?.map(|entry| (Dirent::wire_len(entry.name.len()), entry.offset))
            else {
                // Behind the end.
                self.at = position;
                return Ok(());
            };
            if entry.1 > position {
                return Ok(());
            }
            self.pass(entry.0, entry.1);
        }
        Ok(())
    }
}

/// An open directory.
#[derive(Debug)]
pub(super) struct GoferDir {
    inode: Arc<GoferInode>,
    reading: Mutex<Option<Reading>>,
}

impl GoferDir {
    pub(super) fn new(inode: Arc<GoferInode>) -> Arc<Self> {
        Arc::new(Self { inode, reading: Mutex::new(LockClass::FileState, None) })
    }

    fn start(&self, position: u64) -> Result<Reading, Errno> {
        let mut reading = match self.inode.kept_listing() {
            Some(entries) => Reading { entries, next: 0, at: 0, rest: None },
            None => {
                let changes = self.inode.changes();
                let asked_ns = crate::host::monotonic_ns();
                let Listed { entries, rest } = self.inode.fid.list()?;
                let entries = Arc::new(entries);
                if rest.is_none() {
                    let dir = Arc::downgrade(&self.inode);
                    let kept = KeptListing { dir, changes, asked_ns, entries: Arc::clone(&entries) };
                    self.inode.shared.keep_listing(kept);
                }
                Reading { entries, next: 0, at: 0, rest }
            }
        };
        match &reading.rest {
            // The gofer finds the place.
            Some(_) if position != 0 => {
                reading.next = reading.entries.len();
                reading.at = position;
            }
            _ => reading.skip_to(position)?,
        }
        Ok(reading)
    }

    fn tell(&self, reading: &mut Reading, sink: &mut dyn DirSink) -> Result<(), Errno> {
        while let Some(entry) = reading.peek()? {
            let own = *entry.name == *b"." || (*entry.name == *b".." && self.inode.is_root);
            let told = DirEntry {
                ino: if own { self.inode.ino() } else { entry.qid.path },
                next: entry.offset,
                file_type: u32::from(entry.kind & 0xf) << 12,
                name: &entry.name,
            };
            if !sink.add(&told) {
                return Ok(());
            }
            let (len, offset) = (Dirent::wire_len(entry.name.len()), entry.offset);
            reading.pass(len, offset);
        }
        Ok(())
    }
}

/// Refuses what a hostile gofer could call a name.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

impl FileOps for GoferDir {
    fn readdir(&self, _cx: &OpCx<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        // Taken out, so that no lock is held while the gofer is asked.
        let kept = self.reading.lock().take();
        let mut reading = match kept {
            Some(reading) if reading.at == position && position != 0 => reading,
            _ => self.start(position)?,
        };
        let told = self.tell(&mut reading, sink);
        let at = reading.at;
        let old = self.reading.lock().replace(reading);
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
        fid.open(crate::proto::open::O_RDONLY | crate::proto::open::O_DIRECTORY)?;
        fid.sync(data_only)
    }
}
