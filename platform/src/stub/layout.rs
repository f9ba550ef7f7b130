//! Addresses of a stub's own region.
use std::ops::Range;

/// The size of a page.
pub(crate) const PAGE: u64 = 4096;
/// Where the stub's region starts: guests may map what lies below.
pub(crate) const BASE: u64 = 0x7fff_c000_0000;
/// The end of user space.
pub(crate) const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// The lowest address that a guest may map: the host's own `vm.mmap_min_addr` is not above it by default.
pub(crate) const LOWEST: u64 = 0x1_0000;
/// The code and its constants, see [`super::blob`].
pub(crate) const CODE: u64 = BASE;
/// The page of requests, which the stub can only read.
pub(crate) const REQUEST: u64 = BASE + 0x1_0000;
/// The page of the words under which the host shows the process, see [`super::mapper::Mapper::show_as`].
pub(crate) const TITLE: u64 = BASE + 0x1_1000;
/// How many bytes of it there are.
pub(crate) const TITLE_BYTES: u64 = 512;
/// The vDSO's data pages and code.
pub(crate) const VDSO: u64 = BASE + 0x2_0000;
/// Where the regions of trapping guest threads start, see [`crate::systrap`].
pub(crate) const REGIONS: u64 = BASE + 0x10_0000;
/// Where they end at the latest.
pub(crate) const REGIONS_END: u64 = 0x7fff_fff0_0000;
/// Where a template puts the vDSO aside while it clears its memory, below whatever the kernel places by itself.
pub(crate) const ASIDE: u64 = 0x2000_0000;

/// What is left of `all` without `holes`, ascending.
pub(crate) fn without(all: Range<u64>, holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = holes.to_vec();
    sorted.sort_by_key(|hole| hole.start);
    let mut rest = Vec::new();
    let mut from = all.start;
    for hole in sorted {
        if hole.start > from {
            rest.push(from..hole.start.min(all.end));
        }
        from = from.max(hole.end);
    }
    if from < all.end {
        rest.push(from..all.end);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "lists of ranges are what it takes and gives")]
    fn holes_are_left_out() {
        assert_eq!(without(0..10, &[5..6, 2..3]), [0..2, 3..5, 6..10]);
        assert_eq!(without(0..10, &[0..3, 3..10]), []);
        assert_eq!(without(0..10, &[]), [0..10]);
        assert_eq!(without(0..10, &[8..12]), [0..8]);
    }
}
