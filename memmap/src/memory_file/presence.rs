//! Which parts of the memory file take memory.
use nix::unistd::Whence;

use super::MemoryFile;
use crate::{FileRange, PAGE};

/// What the host told, which is not asked twice for neighbours.
#[derive(Debug)]
pub(crate) struct Presence<'a> {
    file: &'a MemoryFile,
    /// Runs that take memory.
    known: Vec<FileRange>,
}

impl<'a> Presence<'a> {
    /// Nothing is known yet.
    pub(crate) const fn new(file: &'a MemoryFile) -> Self {
        Self { file, known: Vec::new() }
    }

    /// Calls `f` with the parts of a range that take memory.
    pub(crate) fn for_each(&mut self, range: FileRange, f: &mut dyn FnMut(FileRange)) {
        let mut at = range.start;
        while at < range.end {
            let Some(found) = self.next(at, range.end) else { return };
            f(FileRange { start: found.start.max(at), end: found.end.min(range.end) });
            at = found.end;
        }
    }

    /// The run that `at` is in, or the first behind it, if that starts before `end`.
    fn next(&mut self, at: u64, end: u64) -> Option<FileRange> {
        if let Some(known) = self.known.iter().find(|known| (known.start..known.end).contains(&at)) {
            return Some(*known);
        }
        let seek = |at: u64, whence: Whence| {
            let at = i64::try_from(at).map_err(|_far| nix::errno::Errno::EOVERFLOW)?;
            nix::unistd::lseek64(self.file.fd(), at, whence).map(i64::unsigned_abs)
        };
        let start = match seek(at, Whence::SeekData) {
            Ok(start) if start < end => start,
            // A host that does not tell: all may be there.
            Err(error) if error != nix::errno::Errno::ENXIO => return Some(FileRange { start: at, end }),
            _ => return None,
        };
        let hole = seek(start, Whence::SeekHole).unwrap_or(end).max(start + PAGE);
        let found = FileRange { start, end: hole };
        self.known.push(found);
        Some(found)
    }
}
