//! Shared anonymous memory, which Linux makes a file of its internal tmpfs: `/dev/zero (deleted)`.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use sync::{LockClass, Mutex, RangeMap};

use crate::{Backing, FileRange, Mappable, MappingKey, Mappings, MemoryFile, PAGE};

/// A file without a name that is as long as its first mapping.
#[derive(Debug)]
pub(crate) struct SharedAnonymous {
    file: Arc<MemoryFile>,
    len: u64,
    ino: u64,
    /// Offset to offset in the memory file; one reference is held to each page.
    pages: Mutex<RangeMap<u64>>,
    mappings: Mappings,
}

impl SharedAnonymous {
    pub(crate) fn new(file: Arc<MemoryFile>, len: u64) -> Arc<Self> {
        static NEXT_INO: AtomicU64 = AtomicU64::new(1);
        let pages = Mutex::new(LockClass::Pages, RangeMap::new());
        Arc::new(Self {
            file,
            len,
            ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
            pages,
            mappings: Mappings::new(),
        })
    }
}

impl Mappable for SharedAnonymous {
    fn translate(&self, offset: u64, len: u64, _write: bool) -> Result<Backing, Errno> {
        if offset >= self.len {
            return Err(Errno::EFAULT);
        }
        let mut pages = self.pages.lock();
        if pages.get(offset).is_none() {
            let ahead = self.file.step();
            let step = offset & !(ahead - 1);
            let start = pages.before(offset).map_or(step, |(r, _)| r.end.max(step));
            let end = (step + ahead).min(self.len);
            let end = pages.at_or_after(offset).map_or(end, |(r, _)| r.start.min(end));
            let mut hole = start..end;
            let memory = self.file.allocate(end - start).or_else(|_fragmented| {
                hole = offset..offset + PAGE;
                self.file.allocate(PAGE)
            })?;
            // The hole is free, as found above under the same lock.
            let _refused = pages.insert(hole.clone(), memory.start);
            pages.merge_range(hole, |low, len, up| *low + len == *up);
        }
        let (run, start) = pages.get(offset).ok_or(Errno::ENOMEM)?;
        let start = start + (offset - run.start);
        let range = FileRange { start, end: start + len.min(run.end - offset) };
        self.file.inc_ref(range);
        Ok(Backing::Memory(range))
    }

    fn add_mapping(&self, key: MappingKey) {
        self.mappings.add(key);
    }
    fn remove_mapping(&self, key: &MappingKey) {
        self.mappings.remove(key);
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let end = offset.checked_add(len).ok_or(Errno::EINVAL)?;
        let gone = self.pages.lock().remove_range(offset..end, |start, by| *start + by);
        self.mappings.invalidate(offset, len);
        for (range, start) in gone {
            self.file.dec_ref(FileRange { start, end: start + (range.end - range.start) });
        }
        Ok(())
    }

    fn identity(&self) -> (u64, u64, Vec<u8>) {
        // Linux's internal tmpfs mount is device 0:1.
        (1, self.ino, b"/dev/zero (deleted)".to_vec())
    }
}

impl Drop for SharedAnonymous {
    fn drop(&mut self) {
        for (range, start) in self.pages.get_mut().iter() {
            self.file.dec_ref(FileRange { start: *start, end: start + (range.end - range.start) });
        }
    }
}

/// Memory that is zero until it is written, as long as an offset can tell: what `/dev/zero` maps.
#[must_use]
pub fn zero_memory(file: &Arc<MemoryFile>) -> Arc<dyn Mappable> {
    SharedAnonymous::new(Arc::clone(file), !(PAGE - 1))
}
