//! Where new mappings go, Linux `mm/mmap.c:vm_unmapped_area` and `arch/x86/mm/mmap.c`.
use std::ops::Range;

use sync::RangeMap;

use super::random_below;
use super::vma::{Vma, flag};
use crate::PAGE;

/// Linux `mmap_min_addr`.
pub(super) const MMAP_MIN_ADDR: u64 = 64 << 10;
/// The gap that is kept below a mapping that grows down.
pub(super) const STACK_GUARD_GAP: u64 = 256 * PAGE;
/// How far the stack's end is spread.
const STACK_SPREAD: u64 = 16 << 30;
/// How far the start of the search for free space is spread.
const MMAP_SPREAD: u64 = 1 << 40;
/// The least room for the stack to grow.
const MIN_STACK_ROOM: u64 = 128 << 20;
/// What `MAP_32BIT` allows.
const LOW: Range<u64> = 0x4000_0000..0x8000_0000;

/// The random addresses that an address space's layout hangs on.
#[derive(Clone, Debug)]
pub(super) struct Bases {
    /// Below this, free space is searched downwards.
    pub mmap: u64,
    /// The end of the stack.
    pub stack: u64,
    /// Where `MAP_32BIT` is searched.
    pub low: Range<u64>,
}

impl Bases {
    pub(super) fn random(user: &Range<u64>) -> Self {
        let pages = |spread: u64| random_below(spread / PAGE) * PAGE;
        // A platform may leave the guest less room than Linux does: then the spread shrinks with it.
        let room = user.end - user.start;
        let stack_spread = STACK_SPREAD.min(room / 64);
        let stack = (user.end & !(PAGE - 1)) - pages(stack_spread);
        let gap = stack_spread + MIN_STACK_ROOM + STACK_GUARD_GAP;
        let mmap = (user.end & !(PAGE - 1)).saturating_sub(gap + pages(MMAP_SPREAD.min(room / 16)));
        Self { mmap, stack, low: LOW.start + pages(0x0200_0000)..LOW.end }
    }
}

/// The first address that must stay free before a mapping.
pub(super) fn guarded_start(range: &Range<u64>, vma: &Vma) -> u64 {
    if vma.has(flag::GROWS_DOWN) { range.start.saturating_sub(STACK_GUARD_GAP) } else { range.start }
}

/// Tells whether a mapping may be made here by choice: nothing is there, nor a stack right above.
pub(super) fn is_free(vmas: &RangeMap<Vma>, range: &Range<u64>) -> bool {
    vmas.is_free(range.clone())
        && vmas.at_or_after(range.end).is_none_or(|(r, vma)| range.end <= guarded_start(&r, vma))
}

/// The highest free place of `len` bytes within a range.
pub(super) fn highest(vmas: &RangeMap<Vma>, within: &Range<u64>, len: u64) -> Option<u64> {
    // The limit that what lies above sets.
    let mut end = within.end;
    if let Some((r, vma)) = vmas.at_or_after(end) {
        end = end.min(guarded_start(&r, vma));
    }
    for (r, vma) in vmas.before_descending(within.end) {
        if end.checked_sub(len).is_some_and(|at| at >= r.end.max(within.start)) {
            break;
        }
        end = end.min(guarded_start(&r, vma));
        if end < within.start {
            return None;
        }
    }
    end.checked_sub(len).filter(|at| *at >= within.start)
}

/// The lowest free place of `len` bytes within a range.
pub(super) fn lowest(vmas: &RangeMap<Vma>, within: &Range<u64>, len: u64) -> Option<u64> {
    let mut at = within.start;
    for (r, vma) in vmas.overlapping(within.start..u64::MAX) {
        if at.checked_add(len)? <= guarded_start(&r, vma) {
            break;
        }
        at = at.max(r.end);
    }
    at.checked_add(len).filter(|end| *end <= within.end).map(|_| at)
}
