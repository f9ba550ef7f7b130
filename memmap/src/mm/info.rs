//! What `/proc/PID` shows of memory.
use std::ops::Range;
use std::sync::Arc;

use abi::Errno;
use abi::mman::{PROT_EXEC, PROT_READ, PROT_WRITE};

use super::locked::State;
use super::pma::{Place, intersect};
use super::vma::{Vma, flag};
use super::{MemoryManager, MmStatus, VmaInfo};
use crate::memory_file::Presence;
use crate::{FileRange, PAGE};

/// `VmFlags` of `/proc/PID/smaps`, for the flags of a mapping.
const FLAG_NAMES: [(u32, &str); 14] = [
    (flag::MAY_WRITE, "mw"),
    (flag::MAY_EXEC, "me"),
    (flag::GROWS_DOWN, "gd"),
    (flag::LOCKED, "lo"),
    (flag::SEQ_READ, "sr"),
    (flag::RAND_READ, "rr"),
    (flag::DONT_COPY, "dc"),
    (flag::ACCOUNT, "ac"),
    (flag::NO_RESERVE, "nr"),
    (flag::WIPE_ON_FORK, "wf"),
    (flag::DONT_DUMP, "dd"),
    (flag::HUGE_PAGE, "hg"),
    (flag::NO_HUGE_PAGE, "nh"),
    (flag::MERGEABLE, "mg"),
];

/// The longest name of anonymous memory, Linux `ANON_VMA_NAME_MAX_LEN`.
const MAX_NAME: usize = 80;

fn vm_flags(vma: &Vma) -> Vec<&'static str> {
    let prot = [(PROT_READ, "rd"), (PROT_WRITE, "wr"), (PROT_EXEC, "ex")];
    let prot = prot.into_iter().filter(|(bit, _)| vma.prot & bit != 0).map(|(_, name)| name);
    let shared = vma.shared.then_some("sh");
    let others = FLAG_NAMES.into_iter().filter(|(bit, _)| vma.has(*bit)).map(|(_, name)| name);
    prot.chain(shared).chain(["mr"]).chain(others).collect()
}

/// The name of a mapping that no file names.
fn name_without_file(state: &State, range: &Range<u64>, vma: &Vma) -> Vec<u8> {
    let layout = &state.layout;
    if let (true, Some(name)) = (vma.has(flag::SPECIAL), &vma.name) {
        return name.to_vec();
    }
    if range.start < layout.brk && range.end > layout.start_brk {
        return b"[heap]".to_vec();
    }
    if range.contains(&layout.start_stack) && vma.has(flag::GROWS_DOWN) {
        return b"[stack]".to_vec();
    }
    vma.name.as_ref().map_or_else(Vec::new, |name| [b"[anon:", &name[..], b"]"].concat())
}

/// The pages of one mapping.
struct Pages {
    /// In the memory file, and whether they are no file's.
    memory: Vec<(FileRange, bool)>,
    /// Bytes of host files.
    host: u64,
}

fn pages(state: &State, range: &Range<u64>) -> Pages {
    let mut pages = Pages { memory: Vec::new(), host: 0 };
    for (run, pma) in state.pmas.overlapping(range.clone()) {
        let part = intersect(&run, range);
        let len = part.end - part.start;
        match pma.place {
            Place::Memory(start) => {
                let start = start + (part.start - run.start);
                pages.memory.push((FileRange { start, end: start + len }, pma.private));
            }
            Place::Host(..) => pages.host += len,
        }
    }
    pages
}

/// Bytes that are present, of those that are no file's and of the others.
fn present(presence: &mut Presence<'_>, pages: &Pages) -> (u64, u64) {
    let (mut private, mut others) = (0, 0);
    for (run, is_private) in &pages.memory {
        let sum = if *is_private { &mut private } else { &mut others };
        presence.for_each(*run, &mut |part: FileRange| *sum += part.len());
    }
    (private, others)
}

impl MemoryManager {
    fn list(&self, with_pages: bool) -> Vec<VmaInfo> {
        let mut found = Vec::new();
        {
            let state = self.state.read();
            for (range, vma) in state.vmas.iter() {
                let name =
                    if vma.file.is_some() { Vec::new() } else { name_without_file(&state, &range, vma) };
                let pages = with_pages.then(|| pages(&state, &range));
                found.push((range, vma.clone(), name, pages));
            }
        }
        let mut presence = Presence::new(&self.memory_file);
        // Files and the host are asked without the lock.
        let info = |(range, vma, name, pages): (Range<u64>, Vma, Vec<u8>, Option<Pages>)| {
            let (dev, ino, path) = vma.file.as_ref().map_or((0, 0, name), |file| file.identity());
            let name = match &vma.name {
                Some(name) if vma.has(flag::ANON_SHMEM) => [b"[anon_shmem:", &name[..], b"]"].concat(),
                _ => path,
            };
            let (anonymous, others) = pages.as_ref().map_or((0, 0), |p| present(&mut presence, p));
            let rss = anonymous + others + pages.as_ref().map_or(0, |p| p.host);
            VmaInfo {
                prot: vma.prot,
                shared: vma.shared,
                offset: if vma.file.is_some() { vma.offset } else { 0 },
                dev,
                ino,
                name,
                rss,
                anonymous,
                locked: if vma.has(flag::LOCKED) { rss } else { 0 },
                vm_flags: vm_flags(&vma),
                range,
            }
        };
        found.into_iter().map(info).collect()
    }

    /// The mappings as `/proc/PID/maps` lists them; what is told of their pages is 0.
    #[must_use]
    pub fn vmas(&self) -> Vec<VmaInfo> {
        self.list(false)
    }

    /// The mappings with what is known of their pages, as `/proc/PID/smaps` lists them.
    #[must_use]
    pub fn vmas_with_pages(&self) -> Vec<VmaInfo> {
        self.list(true)
    }

    /// The sums that `/proc/PID/status` shows.
    #[must_use]
    pub fn status(&self) -> MmStatus {
        let mut status = MmStatus::default();
        let mut all = Vec::new();
        {
            let state = self.state.read();
            (status.peak, status.size) = (state.peak, state.total);
            (status.locked, status.data) = (state.locked, state.data);
            let layout = &state.layout;
            let mut exec = 0;
            for (range, vma) in state.vmas.iter() {
                let len = range.end - range.start;
                if vma.has(flag::GROWS_DOWN) {
                    status.stack += len;
                } else if vma.prot & (PROT_EXEC | PROT_WRITE) == PROT_EXEC {
                    exec += len;
                }
                all.push((pages(&state, &range), vma.file.is_some() && vma.shared));
            }
            let end_code = layout.end_code.checked_next_multiple_of(PAGE).unwrap_or(layout.end_code);
            status.exe = end_code.saturating_sub(layout.start_code & !(PAGE - 1)).min(exec);
            status.lib = exec - status.exe;
        }
        let mut presence = Presence::new(&self.memory_file);
        for (pages, shared) in all {
            let (private, others) = present(&mut presence, &pages);
            status.rss_anon += private;
            *(if shared { &mut status.rss_shmem } else { &mut status.rss_file }) += others;
            status.rss_file += pages.host;
        }
        let mut state = self.state.write();
        state.peak_rss = state.peak_rss.max(status.rss());
        status.peak_rss = state.peak_rss;
        status
    }

    /// `PR_SET_VMA_ANON_NAME` of prctl(2): names anonymous memory, or takes the name away.
    ///
    /// # Errors
    /// `EINVAL` for an address that is no page's, a range that wraps, or a name that is too long or holds what must not be
    /// shown; `ENOMEM` when a part is not mapped (the rest was named); `EBADF` for a file.
    pub fn set_anon_name(&self, addr: u64, len: u64, name: Option<&[u8]>) -> Result<(), Errno> {
        let allowed = |b: &u8| (0x20..=0x7e).contains(b) && !b"\\`$[]".contains(b);
        if !addr.is_multiple_of(PAGE) || name.is_some_and(|n| n.len() >= MAX_NAME || !n.iter().all(allowed)) {
            return Err(Errno::EINVAL);
        }
        let len = len.checked_next_multiple_of(PAGE).ok_or(Errno::EINVAL)?;
        let range = addr..addr.checked_add(len).ok_or(Errno::EINVAL)?;
        let name: Option<Arc<[u8]>> = name.map(Arc::from);
        let mut locked = self.lock();
        let (mut end, mut hole) = (range.start, false);
        let parts: Vec<_> = locked
            .state
            .vmas
            .overlapping(range.clone())
            .map(|(r, vma)| (intersect(&r, &range), vma.file.is_none() || vma.has(flag::ANON_SHMEM)))
            .collect();
        for (part, anonymous) in parts {
            hole |= part.start > end;
            end = part.end;
            if !anonymous {
                return Err(Errno::EBADF);
            }
            locked.change_vmas(part, |vma| vma.name.clone_from(&name));
        }
        if hole || end < range.end { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}
