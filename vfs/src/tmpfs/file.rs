//! Open files and directories of tmpfs.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use abi::fs::{
    F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE, O_NOATIME, SEEK_DATA, SEEK_HOLE,
};
use abi::stat::S_IFDIR;
use kernel::Cap;
use memmap::{Backing, IoDst, IoSrc, Mappable, MappingKey};
use smallvec::SmallVec;

use super::TmpfsInode;
use super::inode::Kind;
use crate::description::MAX_OFFSET;
use crate::{DirEntry, DirSink, FileOps, InodeOps, OpCx, permission, seek_in_size};

/// An entry of a directory: position, name, inode number, type.
type Listed = (u64, Arc<[u8]>, u64, u32);

/// How many entries are taken from a directory at a time.
const BATCH: usize = 32;

impl TmpfsInode {
    fn has_seals(&self, seals: u32) -> bool {
        self.file_data().is_ok_and(|file| file.seals.load(Ordering::Relaxed) & seals != 0)
    }

    /// `F_GET_SEALS`.
    ///
    /// # Errors
    /// `EINVAL` for what is no regular file.
    pub fn seals(&self) -> Result<u32, Errno> {
        Ok(self.file_data().or(Err(Errno::EINVAL))?.seals.load(Ordering::Relaxed))
    }

    /// Replaces the seals, when memfd_create(2) makes a file that can be sealed.
    pub fn allow_sealing(&self) {
        if let Ok(file) = self.file_data() {
            file.seals.store(0, Ordering::Relaxed);
        }
    }

    /// `F_ADD_SEALS`; the caller checked that the file is open for writing.
    ///
    /// # Errors
    /// `EPERM` for a file that may not be sealed further, `EINVAL` for what is no regular file or unknown seals, `EBUSY` for
    /// `F_SEAL_WRITE` while a writable shared mapping exists.
    pub fn add_seals(&self, seals: u32) -> Result<(), Errno> {
        let known = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
        let file = self.file_data().or(Err(Errno::EINVAL))?;
        if seals & !known != 0 {
            return Err(Errno::EINVAL);
        }
        if file.seals.load(Ordering::Relaxed) & F_SEAL_SEAL != 0 {
            return Err(Errno::EPERM);
        }
        if seals & F_SEAL_WRITE != 0 && file.mappings.has_writable() {
            return Err(Errno::EBUSY);
        }
        file.seals.fetch_or(seals, Ordering::Relaxed);
        Ok(())
    }

    /// Has every mapping of `offset..offset + len` ask again where its pages are.
    fn invalidate(&self, offset: u64, len: u64) {
        let Ok(file) = self.file_data() else { return };
        file.mappings.invalidate(offset, len);
    }

    /// Changes the size.
    pub(super) fn resize(&self, size: u64) -> Result<(), Errno> {
        if size > MAX_OFFSET {
            return Err(Errno::EFBIG);
        }
        let file = self.file_data()?;
        let lost = {
            let mut data = file.data.write();
            let seals = file.seals.load(Ordering::Relaxed);
            if size < data.size && seals & F_SEAL_SHRINK != 0 || size > data.size && seals & F_SEAL_GROW != 0
            {
                return Err(Errno::EPERM);
            }
            data.resize(&self.shared, size)
        };
        if lost.is_some() {
            file.mappings.truncate(size);
        }
        Ok(())
    }

    /// Contents changed: times, and privileges that writing takes away.
    fn modified(&self, cx: &OpCx<'_>) {
        let now = cx.now();
        {
            let mut attributes = self.attributes.lock();
            attributes.mtime = now;
            attributes.ctime = now;
        }
        let mode = self.mode_bits();
        let kept = permission::without_suid(mode);
        if kept != mode && !cx.task.is_some_and(|task| task.credentials().has_cap(Cap::FSETID)) {
            self.set_mode_bits(kept);
        }
    }

    fn accessed(&self, cx: &OpCx<'_>) {
        if cx.flags & O_NOATIME != 0 {
            return;
        }
        let mut attributes = self.attributes.lock();
        let a = &mut *attributes;
        // relatime: once after each change, and once a day.
        let stale = a.atime <= a.mtime || a.atime <= a.ctime;
        let now = cx.now();
        if stale || now.sec.saturating_sub(a.atime.sec) >= 24 * 60 * 60 {
            a.atime = now;
        }
    }

    fn write_from(
        &self,
        cx: &OpCx<'_>,
        src: &mut IoSrc<'_>,
        start: Option<u64>,
    ) -> Result<(usize, u64), Errno> {
        let file = self.file_data()?;
        if self.has_seals(F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        let (mut first, mut at) = (start, start.unwrap_or(0));
        let most = src.remaining();
        let written = src.read_into(most, &mut |bytes| {
            let mut data = file.data.write();
            let from = match first {
                Some(_) => at,
                None => data.size,
            };
            first.get_or_insert(from);
            if from >= MAX_OFFSET {
                return Err(Errno::EFBIG);
            }
            let end = from.saturating_add(bytes.len() as u64);
            let bytes = if file.seals.load(Ordering::Relaxed) & F_SEAL_GROW != 0 && end > data.size {
                let room = usize::try_from(data.size.saturating_sub(from)).unwrap_or(usize::MAX);
                bytes.get(..room).filter(|b| !b.is_empty()).ok_or(Errno::EPERM)?
            } else {
                bytes
            };
            let n = data.write(&self.shared, from, bytes)?;
            at = from + n as u64;
            Ok(n)
        })?;
        if written > 0 {
            self.modified(cx);
        }
        Ok((written, first.unwrap_or(0)))
    }

    fn list(&self, position: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let Kind::Directory(entries) = &self.kind else { return Err(Errno::ENOTDIR) };
        let parent = entries.lock().parent;
        let mut at = position;
        for (n, ino, name) in [(0, self.ino, &b"."[..]), (1, parent, b"..")] {
            if at == n {
                if !sink.add(&DirEntry { ino, next: n + 1, file_type: S_IFDIR, name }) {
                    return Ok(at);
                }
                at = n + 1;
            }
        }
        loop {
            let batch: SmallVec<[Listed; BATCH]> = {
                let entries = entries.lock();
                let some = entries.from(at).take(BATCH);
                some.map(|(cookie, name, i)| (cookie, Arc::clone(name), i.ino, i.file_type())).collect()
            };
            let last = batch.len() < BATCH;
            for (cookie, name, ino, file_type) in batch {
                if !sink.add(&DirEntry { ino, next: cookie + 1, file_type, name: &name }) {
                    return Ok(at);
                }
                at = cookie + 1;
            }
            if last {
                return Ok(at);
            }
        }
    }
}

impl FileOps for TmpfsInode {
    fn read_at(&self, cx: &OpCx<'_>, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        let file = self.file_data()?;
        let left = file.data.read().size.saturating_sub(offset);
        let max = dst.remaining().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut at = offset;
        let n = dst.write_from(max, &mut |room| {
            let n = file.data.read().read(&self.shared.memory, at, room);
            at += n as u64;
            Ok(n)
        })?;
        self.accessed(cx);
        Ok(n)
    }

    fn write_at(&self, cx: &OpCx<'_>, src: &mut IoSrc<'_>, offset: u64) -> Result<usize, Errno> {
        Ok(self.write_from(cx, src, Some(offset))?.0)
    }

    fn append(&self, cx: &OpCx<'_>, src: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        self.write_from(cx, src, None)
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(self.file_data()?.data.read().size)
    }

    fn seek(&self, _cx: &OpCx<'_>, position: u64, offset: i64, whence: u32) -> Result<u64, Errno> {
        match &self.kind {
            Kind::File(file) => {
                let data = file.data.read();
                if !matches!(whence, SEEK_DATA | SEEK_HOLE) {
                    return seek_in_size(data.size, position, offset, whence);
                }
                let from = u64::try_from(offset).ok().filter(|at| *at < data.size).ok_or(Errno::ENXIO)?;
                data.seek(from, whence == SEEK_DATA).ok_or(Errno::ENXIO)
            }
            // A directory's positions are cookies; it has no end to seek from.
            _ => match whence {
                abi::fs::SEEK_SET | abi::fs::SEEK_CUR => seek_in_size(0, position, offset, whence),
                _ => Err(Errno::EINVAL),
            },
        }
    }

    fn readdir(&self, cx: &OpCx<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let to = self.list(position, sink)?;
        self.accessed(cx);
        Ok(to)
    }

    fn mappable(&self, _cx: &OpCx<'_>) -> Result<Arc<dyn Mappable>, Errno> {
        self.file_data().or(Err(Errno::ENODEV))?;
        let me = self.me.upgrade().ok_or(Errno::ENODEV)?;
        Ok(me)
    }

    fn fsync(&self, _cx: &OpCx<'_>, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn fallocate(&self, cx: &OpCx<'_>, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let file = self.file_data().or(Err(Errno::ENODEV))?;
        let end = offset.checked_add(len).filter(|end| *end <= MAX_OFFSET).ok_or(Errno::EFBIG)?;
        let punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        if mode & !punch != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let punches = mode & FALLOC_FL_PUNCH_HOLE != 0;
        let seals = file.seals.load(Ordering::Relaxed);
        let grows = mode & FALLOC_FL_KEEP_SIZE == 0;
        let mut lost = None;
        {
            let mut data = file.data.write();
            if punches {
                if seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0 {
                    return Err(Errno::EPERM);
                }
                lost = data.punch(&self.shared, offset, end);
            }
            if !punches {
                if grows && end > data.size && seals & F_SEAL_GROW != 0 {
                    return Err(Errno::EPERM);
                }
                data.reserve(&self.shared, offset, end)?;
                if grows {
                    data.size = data.size.max(end);
                }
            }
        }
        if let Some((from, to)) = lost {
            self.invalidate(from, to - from);
        }
        self.modified(cx);
        Ok(())
    }
}

impl Mappable for TmpfsInode {
    fn translate(&self, offset: u64, len: u64, _write: bool) -> Result<Backing, Errno> {
        let file = self.file_data().or(Err(Errno::EFAULT))?;
        Ok(Backing::Memory(file.data.write().share(&self.shared, offset, len)?))
    }

    fn add_mapping(&self, key: MappingKey) {
        if let Ok(file) = self.file_data() {
            file.mappings.add(key);
        }
    }

    fn remove_mapping(&self, key: &MappingKey) {
        if let Ok(file) = self.file_data() {
            file.mappings.remove(key);
        }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let file = self.file_data()?;
        let end = offset.checked_add(len).ok_or(Errno::EINVAL)?;
        if file.seals.load(Ordering::Relaxed) & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        let lost = file.data.write().punch(&self.shared, offset, end);
        if let Some((from, to)) = lost {
            self.invalidate(from, to - from);
        }
        Ok(())
    }

    fn identity(&self) -> (u64, u64, Vec<u8>) {
        (self.shared.device, self.ino, Vec::new())
    }
}
