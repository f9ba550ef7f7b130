//! The patches of one address space.
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{JUMP_LEN, Shape, Site, TRAMPOLINE_LEN};
use crate::stub::lock::Mutex;

/// What stands at an address of patched code, as the guest is to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing of ours.
    Own,
    /// The guest is at this address, having executed nothing of the patch.
    At(u64),
}

/// The patches of one address space: which sites have which trampolines. Shared by the owner of the memory, who makes
/// them, and the back end, who has to know where a guest is that stopped in the middle of one.
#[derive(Debug, Default)]
pub struct Patches {
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// By the address behind the `syscall`.
    sites: BTreeMap<u64, (Site, u64)>,
    /// By the trampoline's address.
    trampolines: BTreeMap<u64, Site>,
    /// The addresses behind those that cannot be patched.
    refused: HashSet<u64>,
    /// No more patches are to be made.
    closed: bool,
}

/// How many system calls that cannot be patched are remembered.
const MOST_REFUSED: usize = 1024;

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
        self.any.store(true, Ordering::Release);
    }

    /// Takes the patches of another address space over, whose memory was copied.
    pub fn copy_from(&self, other: &Self) {
        if !other.is_empty() {
            let state = other.state.lock().clone();
            *self.state.lock() = state;
            self.any.store(true, Ordering::Release);
        }
    }

    /// The patches whose jumps overlap a range, with their trampolines.
    #[must_use]
    pub fn overlapping(&self, range: &Range<u64>) -> Vec<(Site, u64)> {
        if self.is_empty() {
            return Vec::new();
        }
        let near = range.start..=range.end.saturating_add(super::BEFORE);
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
        }
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

    /// What a guest that stopped at `rip` is to see as its place.
    #[must_use]
    pub fn place(&self, rip: u64) -> Place {
        if self.is_empty() {
            return Place::Own;
        }
        let state = self.state.lock();
        let found = state.trampolines.range(..=rip).next_back().filter(|(at, _)| rip - *at < TRAMPOLINE_LEN);
        let Some((at, site)) = found else { return Place::Own };
        match site.shape {
            Shape::Number(_) => Place::At(site.start),
            Shape::Compare(_) if rip < site.tail(*at) => Place::At(site.start),
            Shape::Compare(_) if rip == site.tail(*at) => Place::At(site.next),
            Shape::Compare(_) => Place::At(site.end()),
        }
    }

    /// The start of the patched call that goes on at `next`.
    #[must_use]
    pub fn start(&self, next: u64) -> Option<u64> {
        self.state.lock().sites.get(&next).map(|(site, _)| site.start)
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
