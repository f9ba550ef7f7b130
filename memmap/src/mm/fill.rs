//! Giving mappings pages: fresh ones, a file's, and copies of either.
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use abi::Errno;
use platform::Access;

use super::locked::Locked;
use super::pma::{AHEAD, Place, Pma, around, intersect};
use super::vma::Vma;
use crate::{Backing, FileRange, HostMemory, PAGE};

/// How much is copied at the first store to a page: a few neighbours are cheaper to copy than to fault on one by one.
const COPY: u64 = 4 * PAGE;
/// How much is copied at most when one store follows the other upwards.
const MAX_COPY: u64 = 32 * PAGE;

/// Reads up to `buf.len()` bytes of a host file; tells how many there were.
pub(super) fn read_host(file: &HostMemory, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        let at = i64::try_from(offset.saturating_add(done as u64)).map_err(|_far| Errno::EFAULT)?;
        match nix::sys::uio::pread(file.fd.as_fd(), rest, at) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_io) => return Err(Errno::EIO),
        }
    }
    Ok(done)
}

impl Locked<'_> {
    /// The part of `within` around `at` that has no pages and is not guarded; `at` has none and is not.
    fn hole(&self, at: u64, within: Range<u64>) -> Range<u64> {
        let (pmas, guards) = (&self.state.pmas, &self.state.guards);
        let start = pmas.before(at).map_or(within.start, |(r, _)| r.end.max(within.start));
        let end = pmas.at_or_after(at).map_or(within.end, |(r, _)| r.start.min(within.end));
        let start = guards.before(at).map_or(start, |(r, ())| r.end.max(start));
        start..guards.at_or_after(at).map_or(end, |(r, ())| r.start.min(end))
    }

    /// Makes the page at `at` present, such that stores may go to it if `write`. True if another page was there before,
    /// which the guest may still reach: the caller shows the new one.
    ///
    /// # Errors
    /// `EFAULT` without a mapping and beyond the end of a file, `ENOMEM`, `EIO`.
    pub(super) fn fill(&mut self, at: u64, write: bool) -> Result<bool, Errno> {
        if write {
            self.note_store(at);
        }
        let Some((in_vma, vma)) = self.state.vmas.get(at) else { return Err(Errno::EFAULT) };
        let Some((in_pma, pma)) = self.state.pmas.get(at) else {
            if self.state.guards.get(at).is_some() {
                return Err(Errno::EFAULT);
            }
            return match vma.file.clone() {
                None => self.fill_anonymous(at, &in_vma),
                Some(_) => {
                    let vma = vma.clone();
                    self.fill_from_file(at, &in_vma, &vma, write && vma.shared)?;
                    if write && !vma.shared { self.fill(at, true) } else { Ok(false) }
                }
            };
        };
        if !write || pma.writable {
            return Ok(false);
        }
        let run = intersect(&in_vma, &in_pma);
        if pma.private || !vma.shared {
            let pma = pma.clone();
            if pma.private {
                self.state.hot.note(at & !(PAGE - 1));
            }
            self.copy(at, &run, &in_pma, &pma)
        } else {
            let (vma, shown) = (vma.clone(), pma.shown);
            let run = around(at, AHEAD, &run);
            let (range, new) = self.translate(at..run.end, &in_vma, &vma, true)?;
            self.replace_pmas(range, new);
            Ok(shown != Access::NONE)
        }
    }

    /// Fresh memory, ahead of need: pages that are never touched cost nothing.
    fn fill_anonymous(&mut self, at: u64, in_vma: &Range<u64>) -> Result<bool, Errno> {
        let mut hole = self.hole(at, around(at, self.mm.memory_file.step(), in_vma));
        let memory = self.mm.memory_file.allocate(hole.end - hole.start).or_else(|_fragmented| {
            hole = at..at + PAGE;
            self.mm.memory_file.allocate(PAGE)
        })?;
        let place = Place::Memory(memory.start);
        self.add_pma(hole, Pma { place, private: true, writable: true, shown: Access::NONE });
        Ok(false)
    }

    /// Asks the file where the pages in `range` of a mapping are, and gives those from its start that are in one run.
    fn translate(
        &mut self,
        range: Range<u64>,
        in_vma: &Range<u64>,
        vma: &Vma,
        write: bool,
    ) -> Result<(Range<u64>, Pma), Errno> {
        let file = vma.file.as_ref().ok_or(Errno::EFAULT)?;
        let want = range.end - range.start;
        let (place, len) = match file.translate(vma.offset_of(in_vma.start, range.start), want, write)? {
            Backing::Memory(memory) => {
                let len = memory.len().min(want);
                let over = FileRange { start: memory.start + len, end: memory.end };
                if !over.is_empty() {
                    self.garbage.add_range(over);
                }
                (Place::Memory(memory.start), len)
            }
            Backing::Host { file, offset, len } => {
                if write && !file.writable {
                    return Err(Errno::EACCES);
                }
                (Place::Host(file, offset), len.min(want) & !(PAGE - 1))
            }
        };
        if len == 0 {
            return Err(Errno::EFAULT);
        }
        let writable = vma.shared && write;
        Ok((range.start..range.start + len, Pma { place, private: false, writable, shown: Access::NONE }))
    }

    /// A file's pages: from `at` on, and of a host file also those before.
    fn fill_from_file(&mut self, at: u64, in_vma: &Range<u64>, vma: &Vma, write: bool) -> Result<(), Errno> {
        let hole = self.hole(at, around(at, AHEAD, in_vma));
        let (range, pma) = self.translate(at..hole.end, in_vma, vma, write)?;
        let is_host = matches!(pma.place, Place::Host(..));
        self.add_pma(range, pma);
        if is_host && hole.start < at {
            // What is before is a bonus: if the file does not give it now, a fault will tell why.
            if let Ok((range, pma)) = self.translate(hole.start..at, in_vma, vma, write) {
                self.add_pma(range, pma);
            }
        }
        Ok(())
    }

    /// Makes the page at `at` of `run`, which others may see too, this address space's own.
    fn copy(&mut self, at: u64, run: &Range<u64>, in_pma: &Range<u64>, pma: &Pma) -> Result<bool, Errno> {
        if let (true, Place::Memory(start)) = (pma.private, &pma.place) {
            let from =
                FileRange { start: start + (at - in_pma.start), end: start + (run.end - in_pma.start) };
            let sole = self.mm.memory_file.sole_run(from);
            if sole > 0 {
                self.own(at..at + sole);
                return Ok(false);
            }
        }
        // Pages of a file that were not stored to go on following the file.
        let mut part = if pma.private { self.part_to_copy(at, run) } else { at..at + PAGE };
        let memory = self.mm.memory_file.allocate_to_fill(part.end - part.start).or_else(|_fragmented| {
            part = at..at + PAGE;
            self.mm.memory_file.allocate_to_fill(PAGE)
        })?;
        let into = memory.start;
        let copied = match &pma.place {
            Place::Memory(start) => {
                self.mm.memory_file.copy(start + (part.start - in_pma.start), into, memory.len());
                Ok(())
            }
            Place::Host(file, start) => {
                let file = Arc::clone(file);
                self.copy_host(&file, start + (part.start - in_pma.start), memory, at - part.start)
            }
        };
        if let Err(error) = copied {
            self.garbage.add_range(memory);
            return Err(error);
        }
        let place = Place::Memory(into);
        self.replace_pmas(part, Pma { place, private: true, writable: true, shown: Access::NONE });
        Ok(pma.shown != Access::NONE)
    }

    /// What to copy for a store at `at`: a little around it, and more and more as stores go on upwards.
    fn part_to_copy(&mut self, at: u64, run: &Range<u64>) -> Range<u64> {
        let (end, len) = self.state.last_copy;
        let part = if at == end {
            at..at.saturating_add((2 * len).clamp(COPY, MAX_COPY)).min(run.end)
        } else {
            around(at, COPY, run)
        };
        let part = part.start..part.end.min(around(at, AHEAD, run).end);
        self.state.last_copy = (part.end, part.end - part.start);
        part
    }

    /// Copies pages of a host file; beyond its end there are zeros up to the end of the last page, and nothing after:
    /// the page `needed` bytes from the start must be there.
    pub(super) fn copy_host(
        &self,
        file: &HostMemory,
        offset: u64,
        into: FileRange,
        needed: u64,
    ) -> Result<(), Errno> {
        let mut buf = vec![0; usize::try_from(into.len()).map_err(|_wide| Errno::ENOMEM)?];
        let done = read_host(file, offset, &mut buf)? as u64;
        if done <= needed {
            return Err(Errno::EFAULT);
        }
        self.mm.memory_file.write_at(into.start, &buf);
        Ok(())
    }

    /// Notes that the pages in `range` have become this address space's alone.
    fn own(&mut self, range: Range<u64>) {
        self.state.pmas.split_at(range.start, Pma::split);
        self.state.pmas.split_at(range.end, Pma::split);
        for (_, pma) in self.state.pmas.overlapping_mut(range.clone()) {
            pma.writable = true;
        }
        self.merge_pmas(range);
    }
}
