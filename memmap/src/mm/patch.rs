//! Patched system calls: which may be, and the memory of their jumps and trampolines.
//!
//! Trampolines lie in areas that are no mapping of the guest's: nothing lists them, and a mapping of the guest's that wants
//! their place gets it. A page of text is replaced by a copy with the jump in it, so that a thread that runs in it sees all
//! of the jump or nothing.
use std::ops::Range;

use abi::Errno;
use platform::patch::{AFTER, AREA_LEN, BEFORE, JUMP_BYTES, JUMP_LEN, Site, TRAMPOLINE_LEN, WINDOW_LEN};
use platform::{Access, FaultAccess};

use super::MemoryManager;
use super::locked::Locked;
use super::pma::{Place, Pma};
use crate::{FileRange, PAGE};

/// How far a new area is kept from mappings, so that none soon wants its place.
const DISTANCE: u64 = 16 << 20;
/// The most areas there may be.
const MOST_AREAS: usize = 64;

/// Part of the address space for the trampolines of what is near.
#[derive(Debug)]
pub(super) struct Area {
    base: u64,
    pages: Vec<Page>,
}

#[derive(Debug)]
struct Page {
    addr: u64,
    memory: FileRange,
    /// Others may have the same page: it is copied before it is changed.
    shared: bool,
    /// The address space shows it.
    shown: bool,
    /// Where there are trampolines.
    used: Vec<u64>,
}

impl Area {
    fn range(&self) -> Range<u64> {
        self.base..self.base + AREA_LEN
    }

    /// Its pages.
    pub(super) fn memory(&self) -> impl Iterator<Item = FileRange> {
        self.pages.iter().map(|page| page.memory)
    }

    /// A place for a trampoline in `window`.
    fn find(&self, window: &Range<u64>) -> Option<u64> {
        let mut at = window.start;
        while at < window.end {
            let page = at & !(PAGE - 1);
            let used = self.pages.iter().find(|p| p.addr == page).map_or(&[][..], |p| &p.used);
            let clash = used.iter().find(|u| at < **u + TRAMPOLINE_LEN && **u < at + TRAMPOLINE_LEN);
            match clash {
                None if at + TRAMPOLINE_LEN <= page + PAGE => return Some(at),
                None => at = page + PAGE,
                Some(used) => at = used + TRAMPOLINE_LEN,
            }
        }
        None
    }
}

impl MemoryManager {
    /// Patches the `syscall` instruction that ends at `next` and was made with this number, if it was made often enough and
    /// it can be: in the text of a file that the guest cannot write to. Costs a copy of the page of text, charged to the guest, and space in a page of trampolines.
    pub fn patch_syscall(&self, next: u64, number: u64) {
        let Some(patches) = &self.patches else { return };
        if !patches.count(next) {
            return;
        }
        let mut bytes = [0; WINDOW_LEN];
        let around = next.checked_sub(BEFORE).ok_or(Errno::EFAULT);
        let site = around
            .and_then(|start| self.read_bytes(start, &mut bytes))
            .ok()
            .and_then(|()| Site::decode(next, number, &bytes));
        let done = site.and_then(|site| self.lock().patch(&site));
        if done.is_none() {
            patches.refuse(next);
        }
    }

    /// Takes all patches back, and makes no more.
    pub fn forbid_patches(&self) {
        if let Some(patches) = &self.patches {
            patches.close();
            self.lock().unpatch(patches.all().into_iter().map(|(site, _)| site));
        }
    }
}

impl Locked<'_> {
    fn patch(&mut self, site: &Site) -> Option<()> {
        // Another thread may have been faster, or have closed them.
        let patches = self.mm.patches.as_ref().filter(|patches| patches.wants(site.next))?;
        let page = site.start & !(PAGE - 1);
        let (in_vma, vma) = self.state.vmas.get(page)?;
        let access = vma.access();
        let text = vma.file.is_some() && !vma.shared && access.execute && !access.write;
        if !text || site.next + AFTER > in_vma.end || site.start + JUMP_LEN > page + PAGE {
            return None;
        }
        let (trampoline, jump) = self.add_trampoline(site)?;
        patches.add(*site, trampoline);
        if self.change_text(site.start, Some(site.original()), jump).is_err() {
            patches.remove(site);
            return None;
        }
        Some(())
    }

    /// Takes patches back: the guest's own bytes stand there again.
    pub(super) fn unpatch(&mut self, sites: impl IntoIterator<Item = Site>) {
        let Some(patches) = &self.mm.patches else { return };
        for site in sites {
            // What cannot be changed back stays a patch that works.
            if self.change_text(site.start, None, site.original()).is_ok() {
                patches.remove(&site);
            }
        }
    }

    /// As [`Self::unpatch`], of all in a range of text that is to change.
    pub(super) fn unpatch_range(&mut self, range: &Range<u64>) {
        if let Some(patches) = self.mm.patches.as_ref().filter(|patches| !patches.is_empty()) {
            self.unpatch(patches.overlapping(range).into_iter().map(|(site, _)| site));
        }
    }

    /// Pages in a range are gone, with the patches in them.
    pub(super) fn forget_patches(&mut self, range: &Range<u64>) {
        let Some(patches) = self.mm.patches.as_ref().filter(|patches| !patches.is_empty()) else { return };
        for (site, trampoline) in patches.overlapping(range) {
            patches.remove(&site);
            for page in self.state.trampolines.iter_mut().flat_map(|area| &mut area.pages) {
                page.used.retain(|used| *used != trampoline);
            }
        }
    }

    /// Replaces a page of text by a copy with these bytes at `at`, if `expected` stands there or nothing is expected.
    fn change_text(
        &mut self,
        at: u64,
        expected: Option<[u8; JUMP_BYTES]>,
        bytes: [u8; JUMP_BYTES],
    ) -> Result<(), Errno> {
        let page = at & !(PAGE - 1);
        self.fill(page, false)?;
        let Some((range, pma)) = self.state.pmas.get(page) else { return Err(Errno::EFAULT) };
        let (place, offset) = (pma.place.clone(), page - range.start);
        let copy = self.mm.memory_file.allocate_to_fill(PAGE)?;
        let copied = match place {
            Place::Memory(start) => {
                self.mm.memory_file.copy(start + offset, copy.start, PAGE);
                Ok(())
            }
            Place::Host(file, start) => self.copy_host(&file, start + offset, copy, at - page),
        };
        let mut found = [0; JUMP_BYTES];
        self.mm.memory_file.read_at(copy.start + (at - page), &mut found);
        // The guest may have changed it since it made the call.
        let copied =
            copied.and(if expected.is_none_or(|bytes| bytes == found) { Ok(()) } else { Err(Errno::EFAULT) });
        if let Err(error) = copied {
            self.garbage.add_range(copy);
            return Err(error);
        }
        self.note_store(page);
        self.mm.memory_file.write_at(copy.start + (at - page), &bytes);
        let place = Place::Memory(copy.start);
        let pma = Pma { place, private: true, writable: true, shown: Access::NONE };
        self.replace_pmas(page..page + PAGE, pma);
        self.show(page, false)
    }

    fn add_trampoline(&mut self, site: &Site) -> Option<(u64, [u8; JUMP_BYTES])> {
        let find = |area: &Area| {
            let at = area.find(&site.window(area.base))?;
            Some((at, site.jump(at)?))
        };
        let found = self.state.trampolines.iter().enumerate().find_map(|(i, area)| Some((i, find(area)?)));
        let (index, (at, jump)) = match found {
            Some(found) => found,
            None => {
                let base = self.area_near(site.start)?;
                let area = Area { base, pages: Vec::new() };
                let found = find(&area)?;
                self.state.trampolines.push(area);
                (self.state.trampolines.len() - 1, found)
            }
        };
        let code = site.trampoline(at)?;
        let file = &self.mm.memory_file;
        let area = self.state.trampolines.get_mut(index)?;
        let addr = at & !(PAGE - 1);
        if !area.pages.iter().any(|page| page.addr == addr) {
            let memory = file.allocate(PAGE).ok()?;
            area.pages.push(Page { addr, memory, shared: false, shown: false, used: Vec::new() });
        }
        let page = area.pages.iter_mut().find(|page| page.addr == addr)?;
        if page.shared {
            let copy = file.allocate_to_fill(PAGE).ok()?;
            file.copy(page.memory.start, copy.start, PAGE);
            self.garbage.add_range(page.memory);
            (page.memory, page.shared, page.shown) = (copy, false, false);
        }
        file.write_at(page.memory.start + (at - addr), &code);
        page.used.push(at);
        if !page.shown {
            let (space, start) = (&self.mm.space, page.memory.start);
            page.shown = space.map(addr, PAGE, file.fd(), start, Access::READ_EXECUTE, true).is_ok();
        }
        page.shown.then_some((at, jump))
    }

    /// A free place for an area that a jump at `near` reaches.
    fn area_near(&self, near: u64) -> Option<u64> {
        if self.state.trampolines.len() >= MOST_AREAS {
            return None;
        }
        const REACH: u64 = (1 << 31) - (1 << 20);
        let user = &self.mm.user;
        let vmas = &self.state.vmas;
        let free = |base: u64| {
            let room = base.saturating_sub(PAGE)..base + AREA_LEN + PAGE;
            vmas.is_free(room.clone())
                && !self.state.trampolines.iter().any(|area| area.range().contains(&base))
                && room.start >= user.start
                && room.end <= user.end
        };
        let aligned = |at: u64| at & !(AREA_LEN - 1);
        // Above all that is mapped by choice of place, below the stack.
        let above = aligned(self.mm.bases.mmap.saturating_add(DISTANCE));
        if above.abs_diff(near) < REACH && free(above) {
            return Some(above);
        }
        // Below the program, as far from it as there is room.
        let low = near.saturating_sub(REACH).max(user.start + PAGE);
        [DISTANCE, 2 * AREA_LEN].into_iter().find_map(|distance| {
            let starts = vmas.before_descending(near).map(|(range, _)| range.start);
            let mut bases = starts.map(|start| aligned(start.saturating_sub(distance)));
            bases.by_ref().take_while(|base| *base >= low).find(|base| free(*base))
        })
    }

    /// Gives the place of trampolines to a mapping.
    pub(super) fn evict_trampolines(&mut self, range: &Range<u64>) {
        if self.state.trampolines.is_empty() {
            return;
        }
        let hit = |area: &Area| area.base < range.end && area.base + AREA_LEN > range.start;
        let (gone, kept) = std::mem::take(&mut self.state.trampolines).into_iter().partition(hit);
        self.state.trampolines = kept;
        let gone: Vec<Area> = gone;
        for area in gone {
            if let Some(patches) = &self.mm.patches {
                self.unpatch(patches.entered_in(&area.range()));
            }
            let hidden = area.pages.is_empty() || self.hide(area.range());
            for page in area.pages.into_iter().filter(|_| hidden) {
                self.garbage.add_range(page.memory);
            }
        }
    }

    /// Shows a page of trampolines that a child has from its parent; false if `page` is none.
    pub(super) fn show_trampoline(&mut self, page: u64, access: FaultAccess) -> bool {
        if matches!(access, FaultAccess::Write) {
            return false;
        }
        let (space, file) = (&self.mm.space, &self.mm.memory_file);
        let pages = self.state.trampolines.iter_mut().flat_map(|area| &mut area.pages);
        let Some(found) = pages.into_iter().find(|p| p.addr == page) else { return false };
        // Another thread may have been faster.
        found.shown = found.shown
            || space.map(page, PAGE, file.fd(), found.memory.start, Access::READ_EXECUTE, true).is_ok();
        found.shown
    }

    /// Gives a child the same trampolines, and the same patches.
    pub(super) fn copy_trampolines(&mut self, child: &mut Locked<'_>) {
        let (Some(ours), Some(theirs)) = (&self.mm.patches, &child.mm.patches) else { return };
        theirs.copy_from(ours);
        for area in &mut self.state.trampolines {
            let mut copy = Area { base: area.base, pages: Vec::new() };
            for page in &mut area.pages {
                self.mm.memory_file.inc_ref(page.memory);
                page.shared = true;
                copy.pages.push(Page { used: page.used.clone(), shared: true, shown: false, ..*page });
            }
            child.state.trampolines.push(copy);
        }
    }
}
