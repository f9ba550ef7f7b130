//! What a program is shown before it asks: a fault costs as much as ten mappings that are made in one go.
use std::ops::Range;

use platform::Access;

use super::MemoryManager;
use super::locked::Locked;
use super::vma::flag;
use crate::PAGE;

/// How many runs of pages are shown ahead: as many as one request of a back end holds.
pub(super) const RUNS: usize = 60;
/// How many mappings of a new program are looked at.
const MAPPINGS: usize = 32;
/// How much of a mapping of a file that may be stored to is copied.
const DATA: u64 = 64 << 10;

impl MemoryManager {
    /// Shows a new program, which does not run yet, what it is going to touch at first: the start of each mapping, and the
    /// data that it has from its files. What cannot be shown now is left to faults.
    pub fn show_program(&self) {
        let mut locked = self.lock();
        let mappings: Vec<Range<u64>> =
            locked.state.vmas.iter().take(MAPPINGS).map(|(range, _)| range).collect();
        for range in mappings {
            locked.fill_start(&range);
        }
        locked.show_ahead(0..u64::MAX, RUNS);
    }
}

impl Locked<'_> {
    fn fill_start(&mut self, range: &Range<u64>) {
        let Some((_, vma)) = self.state.vmas.get(range.start) else { return };
        if vma.access() == Access::NONE || vma.has(flag::GROWS_DOWN | flag::SPECIAL) {
            return;
        }
        let copies = vma.file.is_some() && vma.access().write && !vma.shared;
        let len = if copies { DATA } else { PAGE };
        let mut page = range.start;
        let end = range.end.min(range.start.saturating_add(len));
        while page < end && self.fill(page, copies).is_ok() {
            page += PAGE;
        }
    }
}
