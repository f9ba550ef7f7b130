//! Which pages of the memory file are in use, and how often.
use std::collections::BTreeSet;

use abi::Errno;
use sync::RangeMap;

use crate::{FileRange, PAGE};

/// Runs without references, found by place and by length.
#[derive(Debug, Default)]
struct FreeRuns {
    runs: RangeMap<()>,
    /// (length, start) of each run.
    lengths: BTreeSet<(u64, u64)>,
}

impl FreeRuns {
    fn add(&mut self, range: FileRange) {
        let mut all = range.start..range.end;
        if let Some((below, ())) = self.runs.before(range.start).filter(|(r, ())| r.end == range.start) {
            all.start = below.start;
        }
        if let Some((above, ())) = self.runs.get(range.end) {
            all.end = above.end;
        }
        for start in [all.start, range.end] {
            if let Some((old, ())) = self.runs.remove_at(start) {
                self.lengths.remove(&(old.end - old.start, old.start));
            }
        }
        if self.runs.insert(all.clone(), ()).is_ok() {
            self.lengths.insert((all.end - all.start, all.start));
        }
    }

    /// Takes the start of the shortest run that is long enough, of such the lowest.
    fn take(&mut self, len: u64) -> Option<u64> {
        let found = *self.lengths.range((len, 0)..).next()?;
        self.lengths.remove(&found);
        let (run_len, start) = found;
        self.runs.remove_at(start);
        if run_len > len {
            self.add(FileRange { start: start + len, end: start + run_len });
        }
        Some(start)
    }
}

/// The number of who takes pages.
pub(super) type Account = u16;

/// Reference counts by page, and the runs without references.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// By page number, up to the highest page ever used.
    counts: Vec<u32>,
    /// Who took each page, likewise.
    takers: Vec<Account>,
    /// How many bytes have references, by who took them.
    taken: Vec<u64>,
    /// Accounts that nobody takes pages by any more.
    closed: Vec<Account>,
    /// Free runs below the highest page ever used, in bytes, that read as zeros.
    clean: FreeRuns,
    /// Free runs that hold old bytes.
    dirty: FreeRuns,
    /// How many bytes `dirty` has.
    dirty_bytes: u64,
    /// How many bytes have references.
    used: u64,
}

impl Pages {
    pub(super) fn used(&self) -> u64 {
        self.used
    }
    /// The offset after the highest page ever used.
    pub(super) fn extent(&self) -> u64 {
        self.counts.len() as u64 * PAGE
    }
    pub(super) fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    /// A number for somebody more who takes pages; one that was used before, if nothing of that is left.
    pub(super) fn open_account(&mut self) -> Option<Account> {
        let empty = self.closed.iter().position(|account| self.taken_by(*account) == 0);
        if let Some(at) = empty {
            return Some(self.closed.swap_remove(at));
        }
        // The first is always there.
        let fresh = self.taken.len().max(1);
        let account = Account::try_from(fresh).ok()?;
        self.taken.resize(fresh + 1, 0);
        Some(account)
    }

    /// Its number may be given away when none of its pages is left.
    pub(super) fn close_account(&mut self, account: Account) {
        self.closed.push(account);
    }

    /// How many bytes taken by this account have references.
    pub(super) fn taken_by(&self, account: Account) -> u64 {
        self.taken.get(usize::from(account)).copied().unwrap_or(0)
    }

    /// The pages taken by this account that have references.
    pub(super) fn runs_of(&self, account: Account) -> Vec<FileRange> {
        let mut runs: Vec<FileRange> = Vec::new();
        let pages = (0..).step_by(4096).zip(self.takers.iter().zip(&self.counts));
        for (at, _) in pages.filter(|(_, (taker, count))| **taker == account && **count > 0) {
            match runs.last_mut().filter(|run| run.end == at) {
                Some(run) => run.end += PAGE,
                None => runs.push(FileRange { start: at, end: at + PAGE }),
            }
        }
        runs
    }

    fn account_slot(&mut self, account: Account) -> Option<&mut u64> {
        if self.taken.is_empty() {
            self.taken.push(0);
        }
        self.taken.get_mut(usize::from(account))
    }

    /// A clean run of `len` bytes below `limit`, with one reference to each page.
    pub(super) fn take_clean(&mut self, len: u64, limit: u64, account: Account) -> Result<FileRange, Errno> {
        let start = match self.clean.take(len) {
            Some(start) => start,
            None => {
                let start = self.counts.len() as u64 * PAGE;
                let end = start.checked_add(len).filter(|e| *e <= limit).ok_or(Errno::ENOMEM)?;
                let count = usize::try_from(end / PAGE).map_err(|_wide| Errno::ENOMEM)?;
                self.counts.try_reserve(count - self.counts.len()).map_err(|_full| Errno::ENOMEM)?;
                self.takers.try_reserve(count - self.takers.len()).map_err(|_full| Errno::ENOMEM)?;
                self.counts.resize(count, 0);
                self.takers.resize(count, 0);
                start
            }
        };
        Ok(self.use_run(start, len, account))
    }

    /// A dirty run of `len` bytes, with one reference to each page; the caller overwrites it.
    pub(super) fn take_dirty(&mut self, len: u64, account: Account) -> Option<FileRange> {
        let start = self.dirty.take(len)?;
        self.dirty_bytes -= len;
        Some(self.use_run(start, len, account))
    }

    fn use_run(&mut self, start: u64, len: u64, account: Account) -> FileRange {
        let range = FileRange { start, end: start + len };
        self.slots(range).fill(1);
        let places = Self::places(range);
        self.takers.get_mut(places).unwrap_or_default().fill(account);
        if let Some(taken) = self.account_slot(account) {
            *taken += len;
        }
        self.used += len;
        range
    }

    /// Where the pages of a range are in lists.
    fn places(range: FileRange) -> std::ops::Range<usize> {
        let start = usize::try_from(range.start / PAGE).unwrap_or(usize::MAX);
        let end = usize::try_from(range.end.div_ceil(PAGE)).unwrap_or(usize::MAX);
        start..end
    }

    /// The counts of a range; empty for one beyond the highest page ever used.
    fn slots(&mut self, range: FileRange) -> &mut [u32] {
        self.counts.get_mut(Self::places(range)).unwrap_or_default()
    }

    /// One more reference to each page. False, and no change, if a page has none or too many.
    pub(super) fn inc(&mut self, range: FileRange) -> bool {
        let slots = self.slots(range);
        if slots.len() as u64 != range.len() / PAGE || slots.iter().any(|c| *c == 0 || *c == u32::MAX) {
            return false;
        }
        for count in slots {
            *count += 1;
        }
        true
    }

    /// One reference less to each page; the pages left without any become dirty. False if a page had none.
    pub(super) fn dec(&mut self, range: FileRange) -> bool {
        let mut sound = self.slots(range).len() as u64 == range.len() / PAGE;
        let mut freed: Vec<FileRange> = Vec::new();
        let mut at = range.start;
        for count in self.slots(range) {
            sound &= *count > 0;
            if *count == 1 {
                match freed.last_mut().filter(|r| r.end == at) {
                    Some(run) => run.end += PAGE,
                    None => freed.push(FileRange { start: at, end: at + PAGE }),
                }
            }
            *count = count.saturating_sub(1);
            at += PAGE;
        }
        for run in freed {
            self.used -= run.len();
            self.return_to_takers(run);
            self.dirty_bytes += run.len();
            self.dirty.add(run);
        }
        sound
    }

    /// The pages of a range have no reference any more: whoever took them has that much less.
    fn return_to_takers(&mut self, range: FileRange) {
        let takers = self.takers.get(Self::places(range)).unwrap_or_default();
        for same in takers.chunk_by(|a, b| a == b) {
            let place = same.first().and_then(|account| self.taken.get_mut(usize::from(*account)));
            if let Some(taken) = place {
                *taken = taken.saturating_sub(same.len() as u64 * PAGE);
            }
        }
    }

    /// The length in bytes of the run from the range's start in which every page has exactly one reference.
    pub(super) fn sole_run(&mut self, range: FileRange) -> u64 {
        self.slots(range).iter().take_while(|c| **c == 1).count() as u64 * PAGE
    }

    /// All dirty runs, to be emptied by the caller, who gives them back by `add_clean`.
    pub(super) fn take_all_dirty(&mut self) -> Vec<FileRange> {
        self.dirty_bytes = 0;
        let runs = std::mem::take(&mut self.dirty);
        runs.runs.iter().map(|(r, ())| FileRange { start: r.start, end: r.end }).collect()
    }

    pub(super) fn add_clean(&mut self, range: FileRange) {
        self.clean.add(range);
    }

    pub(super) fn add_dirty(&mut self, range: FileRange) {
        self.dirty_bytes += range.len();
        self.dirty.add(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_and_come_back_dirty() {
        let mut p = Pages::default();
        let a = p.take_clean(4 * PAGE, 1 << 30, 0).expect("room");
        assert_eq!((a.start, p.used()), (0, 4 * PAGE));
        let middle = FileRange { start: PAGE, end: 3 * PAGE };
        assert!(p.inc(middle));
        assert_eq!(p.sole_run(a), PAGE);
        assert!(p.dec(a));
        assert_eq!((p.used(), p.dirty_bytes()), (2 * PAGE, 2 * PAGE));
        assert!(p.dec(middle));
        assert_eq!(p.take_dirty(4 * PAGE, 0), Some(a));
        assert!(p.dec(a) && !p.dec(a) && !p.inc(a));
        let all = p.take_all_dirty();
        assert_eq!(all, [a]);
        p.add_clean(a);
        assert_eq!(p.take_clean(PAGE, 1 << 30, 0), Ok(FileRange { start: 0, end: PAGE }));
    }

    #[test]
    fn who_took_pages_has_them_until_they_are_free() {
        let mut p = Pages::default();
        let (one, two) = (p.open_account().expect("room"), p.open_account().expect("room"));
        assert_eq!((one, two), (1, 2));
        let a = p.take_clean(2 * PAGE, 1 << 30, one).expect("room");
        let b = p.take_clean(PAGE, 1 << 30, two).expect("room");
        let c = p.take_clean(PAGE, 1 << 30, 0).expect("room");
        assert!(p.inc(b));
        let taken = |p: &Pages| [0, one, two].map(|account| p.taken_by(account) / PAGE);
        assert_eq!((taken(&p), p.used()), ([1, 2, 1], 4 * PAGE));
        assert_eq!(p.runs_of(one), [a]);
        assert!(p.dec(FileRange { start: a.start, end: c.end }));
        assert_eq!(taken(&p), [0, 0, 1]);
        p.close_account(two);
        p.close_account(one);
        assert_eq!((p.open_account(), p.open_account()), (Some(one), Some(3)));
        assert!(p.dec(b));
        assert_eq!(p.open_account(), Some(two));
    }

    #[test]
    fn the_limit_holds() {
        let mut p = Pages::default();
        assert_eq!(p.take_clean(2 * PAGE, PAGE, 0), Err(Errno::ENOMEM));
        assert!(p.take_clean(PAGE, PAGE, 0).is_ok());
    }
}
