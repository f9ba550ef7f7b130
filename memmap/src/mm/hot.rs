//! The pages that forked processes store to: fork(2) copies them at once, for a copy costs a twentieth of the fault that
//! would make it.
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use sync::{LockClass, Mutex};

/// How many pages are copied at most.
const MOST: usize = 32;

/// What a process and those forked from it have stored to after a fork, by address; none before the first fork.
#[derive(Clone, Debug, Default)]
pub(super) struct HotPages(Option<Arc<Mutex<VecDeque<u64>>>>);

impl HotPages {
    /// Begins to take notes, for this process and its children.
    pub(super) fn begin(&mut self) {
        self.0.get_or_insert_with(|| Arc::new(Mutex::new(LockClass::Leaf, VecDeque::new())));
    }

    /// A page that a fork shared was stored to.
    pub(super) fn note(&self, page: u64) {
        let Some(pages) = &self.0 else { return };
        let mut pages = pages.lock();
        if pages.contains(&page) {
            return;
        }
        if pages.len() >= MOST {
            pages.pop_front();
        }
        pages.push_back(page);
    }

    /// Those in `range`.
    pub(super) fn within(&self, range: &Range<u64>) -> Vec<u64> {
        let Some(pages) = &self.0 else { return Vec::new() };
        pages.lock().iter().copied().filter(|page| range.contains(page)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relatives_share_the_last_pages_noted() {
        let mut parent = HotPages::default();
        parent.note(1);
        assert!(parent.within(&(0..100)).is_empty());
        parent.begin();
        let child = parent.clone();
        (0..40).for_each(|page| child.note(page));
        child.note(39);
        assert_eq!(parent.within(&(0..10)), [8, 9]);
        assert_eq!(parent.within(&(0..100)).len(), MOST);
    }
}
