//! The contents of a regular file: runs of pages of the memory file, with holes between them.
use abi::Errno;
use memmap::{FileRange, MemoryFile, PAGE};
use sync::RangeMap;

use super::Shared;

/// From this size on a file that grows gets more than it asks for, so that it stays in few runs.
const GROWS_BY: u64 = 64 << 10;

/// Offsets in the file, by whole pages, to offsets in the memory file; and the size.
///
/// Whoever owns it gives every page back by [`Data::clear`].
#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) size: u64,
    runs: RangeMap<u64>,
    /// How many pages there are.
    pages: u64,
}

const fn page_down(at: u64) -> u64 {
    at & !(PAGE - 1)
}
fn page_up(at: u64) -> u64 {
    at.checked_next_multiple_of(PAGE).unwrap_or(page_down(u64::MAX))
}
fn split(start: &mut u64, offset: u64) -> u64 {
    *start + offset
}

impl Data {
    pub(super) const fn pages(&self) -> u64 {
        self.pages
    }

    /// The page run at `offset`, a multiple of the page size: where in the memory file, and how many bytes.
    fn run_at(&self, offset: u64) -> Option<(u64, u64)> {
        let (range, start) = self.runs.get(offset)?;
        Some((start + (offset - range.start), range.end - offset))
    }

    /// Copies out from `offset`, no further than the size; tells how much.
    pub(super) fn read(&self, memory: &MemoryFile, offset: u64, into: &mut [u8]) -> usize {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let total = into.len().min(left);
        let mut done = 0;
        while done < total {
            let at = offset + done as u64;
            let within = at - page_down(at);
            let Some(rest) = into.get_mut(done..total) else { break };
            let here = match self.run_at(page_down(at)) {
                Some((start, len)) => {
                    let n = clamp(rest.len(), len - within);
                    memory.read_at(start + within, rest.get_mut(..n).unwrap_or_default());
                    n
                }
                None => {
                    let hole_end = self.runs.at_or_after(at).map_or(u64::MAX, |(r, _)| r.start);
                    let n = clamp(rest.len(), hole_end - at);
                    rest.get_mut(..n).unwrap_or_default().fill(0);
                    n
                }
            };
            done += here;
        }
        done
    }

    /// Makes sure that pages are there for `start..end`. Gives how far they are: `end` unless the space ran out.
    fn fill(&mut self, shared: &Shared, start: u64, end: u64) -> Result<u64, Errno> {
        let (mut at, end) = (page_down(start), page_up(end));
        while at < end {
            if let Some((range, _)) = self.runs.get(at) {
                at = range.end;
                continue;
            }
            let gap_end = self.runs.at_or_after(at).map_or(u64::MAX, |(r, _)| r.start);
            let wanted = end.min(gap_end) - at;
            let generous =
                if gap_end == u64::MAX && self.size >= GROWS_BY { wanted.max(GROWS_BY) } else { wanted };
            let got = self.add_run(shared, at, generous).or_else(|_| self.add_run(shared, at, wanted));
            match got {
                Ok(()) => at = at.saturating_add(wanted),
                // A page at a time, what is left of the space is used up.
                Err(_) if wanted > PAGE && self.add_run(shared, at, PAGE).is_ok() => at += PAGE,
                Err(error) if at <= start => return Err(error),
                Err(_) => return Ok(at),
            }
        }
        Ok(end)
    }

    fn add_run(&mut self, shared: &Shared, at: u64, len: u64) -> Result<(), Errno> {
        let pages = len / PAGE;
        shared.charge_pages(pages)?;
        let run = match shared.memory.allocate(len) {
            Ok(run) => run,
            Err(error) => {
                shared.release_pages(pages);
                return Err(if error == Errno::ENOMEM { Errno::ENOSPC } else { error });
            }
        };
        if self.runs.insert(at..at + len, run.start).is_err() {
            shared.memory.dec_ref(run);
            shared.release_pages(pages);
            return Err(Errno::EIO);
        }
        self.pages += pages;
        self.runs.merge_range(at..at + len, |lower, lower_len, upper| *lower + lower_len == *upper);
        Ok(())
    }

    /// Copies in at `offset` and grows the file; tells how much, less than all where the space ran out.
    pub(super) fn write(&mut self, shared: &Shared, offset: u64, from: &[u8]) -> Result<usize, Errno> {
        if from.is_empty() {
            return Ok(0);
        }
        let end = offset.checked_add(from.len() as u64).ok_or(Errno::EFBIG)?;
        let filled = self.fill(shared, offset, end)?.min(end);
        let total = clamp(from.len(), filled - offset);
        let mut done = 0;
        while done < total {
            let at = offset + done as u64;
            let within = at - page_down(at);
            let Some((start, len)) = self.run_at(page_down(at)) else { break };
            let rest = from.get(done..total).unwrap_or_default();
            let n = clamp(rest.len(), len - within);
            shared.memory.write_at(start + within, rest.get(..n).unwrap_or_default());
            done += n;
        }
        self.size = self.size.max(offset + done as u64);
        Ok(done)
    }

    /// Frees the pages of `start..end`, multiples of the page size.
    fn free(&mut self, shared: &Shared, start: u64, end: u64) {
        for (range, at) in self.runs.remove_range(start..end, split) {
            let len = range.end - range.start;
            self.pages -= len / PAGE;
            shared.release_pages(len / PAGE);
            shared.memory.dec_ref(FileRange { start: at, end: at + len });
        }
    }

    /// Zeroes bytes within one page, if it is there.
    fn zero_within(&self, shared: &Shared, start: u64, end: u64) {
        if start < end
            && let Some((at, _)) = self.run_at(page_down(start))
        {
            shared.memory.zero(at + (start - page_down(start)), end - start);
        }
    }

    /// Changes the size. Gives from where on mappings have lost their pages.
    pub(super) fn resize(&mut self, shared: &Shared, size: u64) -> Option<u64> {
        let old = std::mem::replace(&mut self.size, size);
        if size >= old {
            // What a shared mapping stored beyond the end must not come to light.
            self.zero_within(shared, old, page_up(old));
            return None;
        }
        let from = page_up(size);
        self.free(shared, from, u64::MAX);
        self.zero_within(shared, size, from);
        Some(from)
    }

    /// Punches a hole. Gives the whole pages that mappings have lost.
    pub(super) fn punch(&mut self, shared: &Shared, start: u64, end: u64) -> Option<(u64, u64)> {
        let (first, last) = (page_up(start), page_down(end));
        if first > last {
            self.zero_within(shared, start, end);
            return None;
        }
        self.zero_within(shared, start, first);
        self.zero_within(shared, last, end);
        if first == last {
            return None;
        }
        self.free(shared, first, last);
        Some((first, last))
    }

    /// Takes the space for a range, all of it or nothing new.
    pub(super) fn reserve(&mut self, shared: &Shared, start: u64, end: u64) -> Result<(), Errno> {
        let reached = self.fill(shared, start, end)?;
        if reached < end { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    /// Where the page at `offset` is and how many bytes follow in one run, at most `len`; makes it if there is a hole. The
    /// caller gets a reference.
    pub(super) fn share(&mut self, shared: &Shared, offset: u64, len: u64) -> Result<FileRange, Errno> {
        let end = page_up(self.size);
        if offset >= end {
            return Err(Errno::EFAULT);
        }
        if self.run_at(offset).is_none() {
            self.fill(shared, offset, offset + PAGE)?;
        }
        let (start, run) = self.run_at(offset).ok_or(Errno::EIO)?;
        let range = FileRange { start, end: start + run.min(len.max(PAGE)).min(end - offset) };
        shared.memory.inc_ref(range);
        Ok(range)
    }

    /// The next byte at or after `offset` that is data (or in a hole).
    pub(super) fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        let mut at = offset;
        while at < self.size {
            match (self.runs.get(at), data) {
                (Some(_), true) | (None, false) => return Some(at),
                (Some((range, _)), false) => at = range.end,
                (None, true) => at = self.runs.at_or_after(at).map_or(self.size, |(r, _)| r.start),
            }
        }
        if data { None } else { Some(self.size) }
    }

    /// Gives all pages back.
    pub(super) fn clear(&mut self, shared: &Shared) {
        self.size = 0;
        self.free(shared, 0, u64::MAX);
    }
}

/// A length in memory, no more than a length in a file.
fn clamp(len: usize, most: u64) -> usize {
    usize::try_from(most).map_or(len, |most| len.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmpfs::Options;

    fn shared(size: u64) -> std::sync::Arc<Shared> {
        Shared::new(MemoryFile::new().expect("memfd"), &Options { size, ..Options::default() })
    }

    #[test]
    fn holes_read_as_zeros_and_are_found() {
        let shared = shared(0);
        let mut data = Data::default();
        assert_eq!(data.write(&shared, 3 * PAGE + 5, b"hello"), Ok(5));
        assert_eq!((data.size, data.pages()), (3 * PAGE + 10, 1));
        let mut seen = [1; 8];
        assert_eq!(data.read(&shared.memory, 3 * PAGE + 2, &mut seen), 8);
        assert_eq!(&seen, b"\0\0\0hello");
        assert_eq!(data.seek(0, true), Some(3 * PAGE));
        assert_eq!(data.seek(3 * PAGE, false), Some(3 * PAGE + 10));
        data.resize(&shared, 3 * PAGE + 7);
        data.resize(&shared, 3 * PAGE + 20);
        assert_eq!(data.read(&shared.memory, 3 * PAGE + 5, &mut seen), 8);
        assert_eq!(&seen, b"he\0\0\0\0\0\0");
        assert_eq!(data.punch(&shared, 0, 3 * PAGE + 6), Some((0, 3 * PAGE)));
        assert_eq!(data.read(&shared.memory, 3 * PAGE + 5, &mut seen[..2]), 2);
        assert_eq!(&seen[..2], b"\0e");
        data.clear(&shared);
        assert_eq!((shared.used_pages(), shared.memory.usage_bytes()), (0, 0));
    }

    #[test]
    fn the_size_limit_cuts_writes() {
        let shared = shared(2 * PAGE);
        let mut data = Data::default();
        let bytes = vec![7; 3 * 4096];
        assert_eq!(data.write(&shared, 0, &bytes), Ok(2 * 4096));
        assert_eq!(data.write(&shared, 2 * PAGE, &bytes), Err(Errno::ENOSPC));
        data.resize(&shared, 0);
        assert_eq!(data.write(&shared, PAGE, &bytes), Ok(2 * 4096));
        data.clear(&shared);
    }
}
