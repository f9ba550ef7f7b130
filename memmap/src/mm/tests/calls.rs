//! mremap(2), madvise(2), mlock(2), msync(2), mincore(2), and what is shown of mappings.
use abi::Errno;
use abi::mman::{
    MADV_DONTNEED, MADV_FREE, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
    MADV_REMOVE, MADV_WILLNEED, MAP_ANONYMOUS, MAP_FIXED, MAP_LOCKED, MAP_PRIVATE, MAP_SHARED, MCL_CURRENT,
    MCL_FUTURE, MCL_ONFAULT, MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, MS_ASYNC, MS_INVALIDATE,
    MS_SYNC, PROT_NONE, PROT_READ, PROT_WRITE,
};

use super::fake::Guest;
use crate::{FaultSignal, MmLayout, MmLimits, MmapArgs, PAGE};

const NO_LIMITS: MmLimits = MmLimits { address_space: u64::MAX, data: u64::MAX, memlock: u64::MAX };

fn remap(g: &Guest, addr: u64, old: u64, new: u64, flags: u32, to: u64) -> Result<u64, Errno> {
    g.mm.mremap(addr, old * PAGE, new * PAGE, flags, to, NO_LIMITS)
}

#[test]
fn remapping_grows_moves_and_shrinks() {
    let g = Guest::new();
    let at = g.anonymous(8 * PAGE);
    g.mm.munmap(at + 4 * PAGE, 4 * PAGE).expect("unmap");
    g.store(at + 3 * PAGE, 3).expect("store");
    assert_eq!(remap(&g, at, 4, 6, 0, 0), Ok(at));
    assert_eq!(g.load(at + 5 * PAGE), Ok(0));
    assert_eq!(g.load(at + 3 * PAGE), Ok(3));
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    g.mm.mmap(MmapArgs { addr: at + 7 * PAGE, len: PAGE, flags, ..MmapArgs::default() }).expect("map");
    assert_eq!(remap(&g, at, 6, 600, 0, 0), Err(Errno::ENOMEM));
    let moved = remap(&g, at, 6, 600, MREMAP_MAYMOVE, 0).expect("moved");
    assert_ne!(moved, at);
    assert!(g.load(at).is_err());
    assert_eq!((g.load(moved + 3 * PAGE), g.load(moved + 599 * PAGE)), (Ok(3), Ok(0)));
    assert_eq!(remap(&g, moved, 600, 4, 0, 0), Ok(moved));
    assert!(g.load(moved + 4 * PAGE).is_err());
    assert_eq!(remap(&g, moved, 5, 6, MREMAP_MAYMOVE, 0), Err(Errno::EFAULT));
    let to = 0x1000_0000;
    assert_eq!(remap(&g, moved, 4, 4, MREMAP_FIXED, to), Err(Errno::EINVAL));
    assert_eq!(remap(&g, moved, 4, 4, MREMAP_FIXED | MREMAP_MAYMOVE, moved + PAGE), Err(Errno::EINVAL));
    assert_eq!(remap(&g, moved, 4, 4, MREMAP_FIXED | MREMAP_MAYMOVE, to), Ok(to));
    assert_eq!(g.load(to + 3 * PAGE), Ok(3));
    let flags = MREMAP_MAYMOVE | MREMAP_DONTUNMAP;
    let copy = remap(&g, to, 4, 4, flags, 0).expect("moved");
    assert_eq!((g.load(to + 3 * PAGE), g.load(copy + 3 * PAGE)), (Ok(0), Ok(3)));
    assert_eq!(remap(&g, to, 0, 4, MREMAP_MAYMOVE, 0), Err(Errno::EINVAL));
    assert_eq!(remap(&g, 0x2000_0000, 1, 4, MREMAP_MAYMOVE, 0), Err(Errno::EFAULT));
}

#[test]
fn remapping_shared_memory_doubles_it() {
    let g = Guest::new();
    let prot = PROT_READ | PROT_WRITE;
    let flags = MAP_SHARED | MAP_ANONYMOUS;
    let at = g.mm.mmap(MmapArgs { len: 2 * PAGE, prot, flags, ..MmapArgs::default() }).expect("map");
    let second = remap(&g, at, 0, 2, MREMAP_MAYMOVE, 0).expect("mapped");
    g.store(at + PAGE, 5).expect("store");
    assert_eq!(g.load(second + PAGE), Ok(5));
    let grown = remap(&g, second, 2, 3, MREMAP_MAYMOVE, 0).expect("grown");
    assert_eq!(g.load(grown + 2 * PAGE).expect_err("a signal").code, FaultSignal::BUS_ADRERR);
    g.mm.madvise(at, 2 * PAGE, MADV_REMOVE).expect("advice");
    assert_eq!((g.load(grown + PAGE), g.load(at + PAGE)), (Ok(0), Ok(0)));
}

#[test]
fn advice() {
    let g = Guest::new();
    let at = g.anonymous(6 * PAGE);
    g.store(at, 1).expect("store");
    g.mm.madvise(at, PAGE, MADV_DONTNEED).expect("advice");
    assert_eq!(g.load(at), Ok(0));
    g.mm.munmap(at + 2 * PAGE, PAGE).expect("unmap");
    g.store(at + 3 * PAGE, 1).expect("store");
    assert_eq!(g.mm.madvise(at, 6 * PAGE, MADV_FREE), Err(Errno::ENOMEM));
    assert_eq!(g.load(at + 3 * PAGE), Ok(0));
    assert_eq!(g.mm.madvise(at, PAGE, 5), Err(Errno::EINVAL));
    assert_eq!(g.mm.madvise(at + 1, PAGE, MADV_WILLNEED), Err(Errno::EINVAL));
    assert_eq!(g.mm.madvise(at, 0, MADV_WILLNEED), Ok(()));
    assert_eq!(g.mm.madvise(at, PAGE, MADV_REMOVE), Err(Errno::EINVAL));
    g.mm.madvise(at + 3 * PAGE, 3 * PAGE, MADV_POPULATE_WRITE).expect("advice");
    assert!(g.space.shown(at + 5 * PAGE).expect("shown").access.write);
    assert_eq!(g.mm.madvise(at + PAGE, 3 * PAGE, MADV_POPULATE_READ), Err(Errno::ENOMEM));
    g.mm.mprotect(at + 3 * PAGE, PAGE, PROT_READ, NO_LIMITS).expect("protect");
    assert_eq!(g.mm.madvise(at + 3 * PAGE, PAGE, MADV_POPULATE_WRITE), Err(Errno::EINVAL));
}

#[test]
fn guards() {
    let g = Guest::new();
    let at = g.anonymous(4 * PAGE);
    g.store(at + PAGE, 1).expect("store");
    g.mm.madvise(at + PAGE, PAGE, MADV_GUARD_INSTALL).expect("advice");
    assert_eq!(g.load(at + PAGE).expect_err("a signal").code, FaultSignal::SEGV_MAPERR);
    assert_eq!(g.mm.write_bytes_partial(at + PAGE - 2, b"abcd"), Ok(2));
    assert_eq!(g.load(at + 2 * PAGE), Ok(0));
    let child = g.fork();
    assert!(child.load(at + PAGE).is_err());
    g.mm.madvise(at, 4 * PAGE, MADV_GUARD_REMOVE).expect("advice");
    assert_eq!(g.load(at + PAGE), Ok(0));
}

#[test]
fn locking_counts() {
    let g = Guest::new();
    let at = g.anonymous(4 * PAGE);
    let limit = |pages: u64| MmLimits { memlock: pages * PAGE, ..NO_LIMITS };
    assert_eq!(g.mm.mlock(at, PAGE, 0, limit(0)), Err(Errno::EPERM));
    assert_eq!(g.mm.mlock(at, PAGE, 2, limit(9)), Err(Errno::EINVAL));
    assert_eq!(g.mm.mlock(at + 5, PAGE, 0, limit(1)), Err(Errno::ENOMEM));
    assert_eq!(g.mm.mlock(at + 5, PAGE, 0, limit(2)), Ok(()));
    assert_eq!(g.mm.mlock(at, 2 * PAGE, 0, limit(2)), Ok(()));
    assert_eq!((g.mm.status().locked, g.space.count()), (2 * PAGE, 2));
    assert_eq!(g.mm.status().rss_anon, 2 * PAGE);
    assert_eq!(g.mm.madvise(at, PAGE, MADV_DONTNEED), Err(Errno::EINVAL));
    assert_eq!(g.mm.mlock(at, 9 * PAGE, 0, NO_LIMITS), Err(Errno::ENOMEM));
    assert_eq!(g.mm.msync(at, PAGE, MS_INVALIDATE), Err(Errno::EBUSY));
    assert_eq!(g.mm.munlock(at, 4 * PAGE), Ok(()));
    assert_eq!(g.mm.status().locked, 0);
    assert_eq!(g.mm.mlockall(MCL_ONFAULT, NO_LIMITS), Err(Errno::EINVAL));
    assert_eq!(g.mm.mlockall(MCL_CURRENT | MCL_FUTURE, limit(3)), Err(Errno::ENOMEM));
    assert_eq!(g.mm.mlockall(MCL_CURRENT | MCL_FUTURE, limit(5)), Ok(()));
    assert_eq!(g.mm.status().locked, 4 * PAGE);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    let args = MmapArgs { len: 2 * PAGE, flags, limits: limit(5), ..MmapArgs::default() };
    assert_eq!(g.mm.mmap(args.clone()), Err(Errno::EAGAIN));
    g.mm.munlockall().expect("unlocked");
    g.mm.mmap(args.clone()).expect("map");
    assert_eq!(
        g.mm.mmap(MmapArgs { flags: flags | MAP_LOCKED, limits: limit(0), ..args }),
        Err(Errno::EPERM)
    );
    assert_eq!(g.mm.status().locked, 0);
}

#[test]
fn msync_and_mincore() {
    let g = Guest::new();
    let at = g.anonymous(4 * PAGE);
    assert_eq!(g.mm.msync(at, PAGE, MS_SYNC | MS_ASYNC), Err(Errno::EINVAL));
    assert_eq!(g.mm.msync(at + 1, PAGE, MS_SYNC), Err(Errno::EINVAL));
    assert_eq!(g.mm.msync(at, 5 * PAGE, MS_SYNC), Err(Errno::ENOMEM));
    assert_eq!(g.mm.msync(at, 4 * PAGE, MS_SYNC), Ok(()));
    g.store(at + 2 * PAGE, 1).expect("store");
    let vec = g.anonymous(PAGE);
    assert_eq!(g.mm.mincore(at, 4 * PAGE, vec), Ok(()));
    let mut seen = [9; 5];
    g.mm.read_bytes(vec, &mut seen).expect("read");
    assert_eq!(seen, [0, 0, 1, 0, 0]);
    assert_eq!(g.mm.mincore(at, PAGE, 8), Err(Errno::EFAULT));
    assert_eq!(g.mm.mincore(at + 1, PAGE, vec), Err(Errno::EINVAL));
    assert_eq!(g.mm.mincore(1 << 40, PAGE, vec), Err(Errno::ENOMEM));
    let rss: u64 = g.mm.vmas_with_pages().iter().map(|v| v.rss).sum();
    assert_eq!((rss, g.mm.status().rss_anon), (2 * PAGE, 2 * PAGE));
}

#[test]
fn mappings_merge_and_have_names() {
    let g = Guest::new();
    let at = 0x7000_0000_0000;
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    let map = |page: u64, prot| {
        let args = MmapArgs { addr: at + page * PAGE, len: PAGE, prot, flags, ..MmapArgs::default() };
        g.mm.mmap(args).expect("map");
    };
    map(0, PROT_READ);
    map(2, PROT_READ);
    assert_eq!(g.mm.vmas().len(), 2);
    map(1, PROT_READ);
    assert_eq!(g.mm.vmas().len(), 1);
    g.mm.mprotect(at + PAGE, PAGE, PROT_NONE, NO_LIMITS).expect("protect");
    assert_eq!(g.mm.vmas().len(), 3);
    g.mm.mprotect(at, 3 * PAGE, PROT_NONE, NO_LIMITS).expect("protect");
    assert_eq!(g.mm.vmas().len(), 1);
    g.mm.set_anon_name(at, PAGE, Some(b"arena")).expect("named");
    assert_eq!(g.mm.set_anon_name(at, PAGE, Some(b"a[b")), Err(Errno::EINVAL));
    let start = 0x5000_0000_0000;
    g.mm.set_brk_start(start);
    g.mm.brk(start + 10, NO_LIMITS);
    g.mm.map_stack(8 << 20, true).expect("stack");
    let args = MmapArgs { len: PAGE, flags: MAP_SHARED | MAP_ANONYMOUS, ..MmapArgs::default() };
    g.mm.mmap(args).expect("map");
    let names: Vec<_> = g.mm.vmas().iter().map(|v| String::from_utf8_lossy(&v.name).into_owned()).collect();
    assert_eq!(names, ["[heap]", "[anon:arena]", "", "/dev/zero (deleted)", "[stack]"]);
    g.mm.set_layout(MmLayout { start_code: 1, ..g.mm.layout() });
    assert_eq!((g.mm.layout().start_code, g.mm.layout().brk), (1, start + 10));
}
