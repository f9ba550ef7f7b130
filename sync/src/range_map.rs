//! Values over disjoint ranges of `u64`, that split and merge.
use std::collections::BTreeMap;
use std::ops::Range;

/// A map from disjoint, non-empty ranges to values.
#[derive(Clone, Debug)]
pub struct RangeMap<V> {
    /// Start to (end, value).
    map: BTreeMap<u64, (u64, V)>,
}

impl<V> Default for RangeMap<V> {
    fn default() -> Self {
        Self { map: BTreeMap::new() }
    }
}

impl<V> RangeMap<V> {
    /// An empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self { map: BTreeMap::new() }
    }
    /// How many ranges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }
    /// Tells whether there is no range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
    /// The range that holds `key`.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<(Range<u64>, &V)> {
        let (start, (end, value)) = self.map.range(..=key).next_back()?;
        (key < *end).then_some((*start..*end, value))
    }
    /// The range that holds `key`, for changing its value.
    pub fn get_mut(&mut self, key: u64) -> Option<(Range<u64>, &mut V)> {
        let (start, (end, value)) = self.map.range_mut(..=key).next_back()?;
        (key < *end).then_some((*start..*end, value))
    }
    /// The first range that ends after `key`: the one that holds it or else the next.
    #[must_use]
    pub fn at_or_after(&self, key: u64) -> Option<(Range<u64>, &V)> {
        self.get(key).or_else(|| self.map.range(key..).next().map(|(s, (e, v))| (*s..*e, v)))
    }
    /// The last range that starts before `key`.
    #[must_use]
    pub fn before(&self, key: u64) -> Option<(Range<u64>, &V)> {
        self.map.range(..key).next_back().map(|(s, (e, v))| (*s..*e, v))
    }
    /// Every range that starts before `key`, descending.
    pub fn before_descending(&self, key: u64) -> impl Iterator<Item = (Range<u64>, &V)> {
        self.map.range(..key).rev().map(|(s, (e, v))| (*s..*e, v))
    }
    /// Every range, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Range<u64>, &V)> {
        self.map.iter().map(|(s, (e, v))| (*s..*e, v))
    }
    /// Every range that overlaps `range`, whole, ascending.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, &V)> {
        let first = self.get(range.start).map_or(range.start, |(r, _)| r.start);
        self.map.range(first..range.end.max(first)).map(|(s, (e, v))| (*s..*e, v))
    }
    /// Every range that overlaps `range`, whole, ascending, for changing values.
    pub fn overlapping_mut(&mut self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, &mut V)> {
        let first = self.get(range.start).map_or(range.start, |(r, _)| r.start);
        self.map.range_mut(first..range.end.max(first)).map(|(s, (e, v))| (*s..*e, v))
    }
    /// Tells whether nothing overlaps `range`.
    #[must_use]
    pub fn is_free(&self, range: Range<u64>) -> bool {
        self.overlapping(range).next().is_none()
    }
    /// Adds a range. It must be free and not empty; otherwise nothing changes and the value comes back.
    ///
    /// # Errors
    /// The value, when `range` is empty or overlaps a range of the map.
    pub fn insert(&mut self, range: Range<u64>, value: V) -> Result<(), V> {
        if range.is_empty() || !self.is_free(range.clone()) {
            return Err(value);
        }
        self.map.insert(range.start, (range.end, value));
        Ok(())
    }
    /// Takes out the whole range that starts at `start`.
    pub fn remove_at(&mut self, start: u64) -> Option<(Range<u64>, V)> {
        self.map.remove(&start).map(|(end, value)| (start..end, value))
    }
    /// Splits the range that holds `at` in its inside, `split(value, offset)` making the upper part's value, where offset
    /// is `at` less the range's start. A boundary or a hole is left as it is.
    pub fn split_at(&mut self, at: u64, split: impl FnOnce(&mut V, u64) -> V) {
        let Some((start, (end, value))) = self.map.range_mut(..at).next_back() else { return };
        if at >= *end {
            return;
        }
        let upper = split(value, at - *start);
        let old_end = std::mem::replace(end, at);
        self.map.insert(at, (old_end, upper));
    }
    /// Takes out everything within `range`, splitting what crosses its ends with `split` as [`Self::split_at`] does.
    pub fn remove_range(
        &mut self,
        range: Range<u64>,
        mut split: impl FnMut(&mut V, u64) -> V,
    ) -> Vec<(Range<u64>, V)> {
        if range.is_empty() {
            return Vec::new();
        }
        self.split_at(range.start, &mut split);
        self.split_at(range.end, &mut split);
        let starts: Vec<u64> = self.map.range(range).map(|(s, _)| *s).collect();
        starts.into_iter().filter_map(|s| self.remove_at(s)).collect()
    }
    /// Joins neighbours that meet within `range` or at its ends, for which `merge(lower, lower_len, upper)` says yes; it
    /// must have made `lower` stand for both when it does.
    pub fn merge_range(&mut self, range: Range<u64>, mut merge: impl FnMut(&mut V, u64, &V) -> bool) {
        let mut at = self.before(range.start).map_or(range.start, |(r, _)| r.start);
        while let Some((start, (end, _))) = self.map.range(at..).next().map(|(s, v)| (*s, (v.0, ()))) {
            if end > range.end {
                break;
            }
            let Some((upper_end, upper)) = self.map.remove(&end) else {
                at = start + 1;
                continue;
            };
            let Some((lower_end, lower)) = self.map.get_mut(&start) else { break };
            if merge(lower, end - start, &upper) {
                *lower_end = upper_end;
                at = start;
            } else {
                self.map.insert(end, (upper_end, upper));
                at = end;
            }
        }
    }
    /// The lowest free range of `len` within `within`, aligned to `align`, a power of two.
    #[must_use]
    pub fn find_free_low(&self, within: Range<u64>, len: u64, align: u64) -> Option<u64> {
        let mut at = within.start.checked_next_multiple_of(align)?;
        loop {
            let end = at.checked_add(len).filter(|e| *e <= within.end)?;
            match self.overlapping(at..end).next() {
                None => return Some(at),
                Some((used, _)) => at = used.end.checked_next_multiple_of(align)?,
            }
        }
    }
    /// The highest free range of `len` within `within`, aligned to `align`, a power of two.
    #[must_use]
    pub fn find_free_high(&self, within: Range<u64>, len: u64, align: u64) -> Option<u64> {
        let mut end = within.end;
        loop {
            let at = end.checked_sub(len)? & !(align - 1);
            if at < within.start {
                return None;
            }
            match self.overlapping(at..at + len).last() {
                None => return Some(at),
                Some(_) => end = self.overlapping(at..at + len).next().map(|(r, _)| r.start)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_remove_merge() {
        let mut m = RangeMap::new();
        m.insert(0..100, 0u64).expect("free");
        let out = m.remove_range(20..50, |v, off| *v + off);
        assert_eq!(out, [(20..50, 20)]);
        assert_eq!(m.iter().map(|(r, v)| (r, *v)).collect::<Vec<_>>(), [(0..20, 0), (50..100, 50)]);
        m.insert(20..50, 20).expect("free");
        m.merge_range(20..50, |low, len, up| *low + len == *up);
        assert_eq!(m.iter().map(|(r, v)| (r, *v)).collect::<Vec<_>>(), [(0..100, 0)]);
    }

    #[test]
    fn finds_free_space_from_both_ends() {
        let mut m = RangeMap::new();
        m.insert(10..20, ()).expect("free");
        m.insert(30..40, ()).expect("free");
        assert_eq!(m.find_free_low(0..100, 10, 1), Some(0));
        assert_eq!(m.find_free_low(5..100, 10, 1), Some(20));
        assert_eq!(m.find_free_high(0..40, 10, 1), Some(20));
        assert_eq!(m.find_free_high(0..30, 11, 1), None);
        assert!(m.insert(39..41, ()).is_err());
    }
}
