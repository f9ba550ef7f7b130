//! The patches of one address space.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{JUMP_LEN, Shape, Site, TRAMPOLINE_LEN};
use crate::stub::lock::Mutex;

/// What stands at an address of patched code, as the guest is to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing of ours.
    Own,
    /// The guest is at this address, having executed nothing of the patch.
    At(u64),
    /// The same, of a patch that is no more, and whose trampoline may be gone.
    Former(u64),
}

/// The patches of one address space: which sites have which trampolines. Shared by the owner of the memory, who makes
/// them, and the back end, who has to know where a guest is that stopped in the middle of one.
#[derive(Debug, Default)]
pub struct Patches {
    any: AtomicBool,
    /// There was ever one.
    ever: AtomicBool,
    /// How often patches were removed.
    removals: AtomicU64,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// By the address behind the `syscall`.
    sites: BTreeMap<u64, (Site, u64)>,
    /// By the trampoline's address.
    trampolines: BTreeMap<u64, Site>,
    /// As `trampolines`, of patches that were removed last: a thread may be in the middle of one.
    former: BTreeMap<u64, Site>,
    /// The addresses behind those that cannot be patched.
    refused: HashSet<u64>,
    /// How often those trapped that are neither.
    seen: HashMap<u64, u32>,
    /// No more patches are to be made.
    closed: bool,
}

/// How many patches that were removed are remembered.
const MOST_FORMER: usize = 1024;
/// How many system calls that cannot be patched are remembered.
const MOST_REFUSED: usize = 1024;
/// How often a system call has to trap to be patched: a patch costs as much as so many traps by signal.
const ENOUGH: u32 = 3;
/// How many system calls are counted.
const MOST_SEEN: usize = 4096;

impl Patches {
    /// Tells whether there are none, without a lock.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Tells whether it is worth trying to patch the `syscall` that ends at `next`.
    #[must_use]
    pub fn wants(&self, next: u64) -> bool {
        let state = self.state.lock();
        !state.closed && !state.sites.contains_key(&next) && !state.refused.contains(&next)
    }

    /// The `syscall` that ends at `next` trapped: tells whether it is worth trying to patch it now.
    #[must_use]
    pub fn count(&self, next: u64) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.sites.contains_key(&next) || state.refused.contains(&next) {
            return false;
        }
        if state.seen.len() >= MOST_SEEN {
            state.seen.clear();
        }
        let count = state.seen.entry(next).or_default();
        *count += 1;
        let enough = *count >= ENOUGH;
        if enough {
            state.seen.remove(&next);
        }
        enough
    }

    /// Remembers that it was not.
    pub fn refuse(&self, next: u64) {
        let mut state = self.state.lock();
        if state.refused.len() < MOST_REFUSED {
            state.refused.insert(next);
        } else {
            state.closed = true;
        }
    }

    /// Wants no patches any more.
    pub fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Adds a patch, before its jump is stored.
    pub fn add(&self, site: Site, trampoline: u64) {
        let mut state = self.state.lock();
        state.sites.insert(site.next, (site, trampoline));
        state.trampolines.insert(trampoline, site);
        state.former.remove(&trampoline);
        self.ever.store(true, Ordering::Release);
        self.any.store(true, Ordering::Release);
    }

    /// Takes the patches of another address space over, whose memory was copied.
    pub fn copy_from(&self, other: &Self) {
        let state = other.state.lock().clone();
        self.any.store(!state.sites.is_empty(), Ordering::Release);
        self.ever.store(other.ever.load(Ordering::Acquire), Ordering::Release);
        *self.state.lock() = state;
    }

    /// The patches whose jumps overlap a range, with their trampolines.
    #[must_use]
    pub fn overlapping(&self, range: &Range<u64>) -> Vec<(Site, u64)> {
        if self.is_empty() {
            return Vec::new();
        }
        // A jump starts up to `BEFORE` bytes before the address that it is known by, and ends up to its length behind it.
        let near = range.start.saturating_sub(JUMP_LEN)..=range.end.saturating_add(super::BEFORE);
        let hit = |site: &Site| site.start < range.end && site.start + JUMP_LEN > range.start;
        self.state.lock().sites.range(near).map(|(_, found)| *found).filter(|(site, _)| hit(site)).collect()
    }

    /// All patches.
    #[must_use]
    pub fn all(&self) -> Vec<(Site, u64)> {
        self.state.lock().sites.values().copied().collect()
    }

    /// The patches whose trampolines start in a range.
    #[must_use]
    pub fn entered_in(&self, range: &Range<u64>) -> Vec<Site> {
        self.state.lock().trampolines.range(range.clone()).map(|(_, site)| *site).collect()
    }

    /// Forgets a patch, after its jump is gone from memory.
    pub fn remove(&self, site: &Site) {
        let mut state = self.state.lock();
        if let Some((_, trampoline)) = state.sites.remove(&site.next) {
            state.trampolines.remove(&trampoline);
            if state.former.len() == MOST_FORMER {
                state.former.pop_first();
            }
            state.former.insert(trampoline, *site);
        }
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.any.store(!state.sites.is_empty(), Ordering::Release);
    }

    /// Where a guest goes on that is to go on at `rip`: in the trampoline, if that is in the middle of a patch.
    #[must_use]
    pub fn resumption(&self, rip: u64) -> u64 {
        if self.is_empty() {
            return rip;
        }
        match self.state.lock().sites.get(&rip) {
            Some((site, trampoline)) => site.tail(*trampoline),
            None => rip,
        }
    }

    /// How often patches were removed: as long as this stays the same, so do those that were there.
    #[must_use]
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    /// What a guest that stopped at `rip` is to see as its place.
    #[must_use]
    pub fn place(&self, rip: u64) -> Place {
        if !self.ever.load(Ordering::Acquire) {
            return Place::Own;
        }
        let state = self.state.lock();
        match (find(&state.trampolines, rip), find(&state.former, rip)) {
            (Some((at, site)), _) => Place::At(site.place(at, rip)),
            (None, Some((at, site))) => Place::Former(site.place(at, rip)),
            (None, None) => Place::Own,
        }
    }

    /// The patch in whose trampoline a guest is that has not made its call yet.
    pub(crate) fn entering(&self, rip: u64) -> Option<Site> {
        if self.is_empty() {
            return None;
        }
        let state = self.state.lock();
        find(&state.trampolines, rip)
            .filter(|(at, site)| site.place(*at, rip) == site.start)
            .map(|(_, site)| site)
    }

    /// The start of the patched call that goes on at `next`.
    #[must_use]
    pub fn start(&self, next: u64) -> Option<u64> {
        let state = self.state.lock();
        let former = || state.former.values().find(|site| site.next == next);
        state.sites.get(&next).map(|(site, _)| site).or_else(former).map(|site| site.start)
    }

    /// Makes what was read from `addr` on what it would be without patches.
    pub fn hide(&self, addr: u64, bytes: &mut [u8]) {
        for (site, _) in self.overlapping(&(addr..addr.saturating_add(bytes.len() as u64))) {
            for (at, byte) in (site.start..).zip(site.original()) {
                let place = at.checked_sub(addr).and_then(|at| usize::try_from(at).ok());
                if let Some(place) = place.and_then(|place| bytes.get_mut(place)) {
                    *place = byte;
                }
            }
        }
    }
}

/// The trampoline that `rip` is in.
fn find(trampolines: &BTreeMap<u64, Site>, rip: u64) -> Option<(u64, Site)> {
    let (at, site) = trampolines.range(..=rip).next_back()?;
    (rip - at < TRAMPOLINE_LEN).then_some((*at, *site))
}

impl Site {
    /// Where a guest at `rip`, in the trampoline at `at`, is without the patch.
    const fn place(&self, at: u64, rip: u64) -> u64 {
        match self.shape {
            Shape::Number(_) => self.start,
            Shape::Compare(_) if rip < self.tail(at) => self.start,
            Shape::Compare(_) if rip == self.tail(at) => self.next,
            Shape::Compare(_) => self.end(),
        }
    }
}
