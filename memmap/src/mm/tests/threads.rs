//! Threads that change, fault on, copy and fork one address space at the same time.
use std::sync::Arc;
use std::thread;

use abi::mman::{
    MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, MREMAP_FIXED, MREMAP_MAYMOVE,
    PROT_READ, PROT_WRITE,
};
use platform::FaultAccess;

use super::fake::{Guest, HostFile};
use crate::{Mappable, MmLimits, MmapArgs, MmapFile, PAGE};

const BASE: u64 = 0x3000_0000_0000;
const PAGES: u64 = 64;

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn map(guest: &Guest, file: &Arc<HostFile>, n: &mut Numbers) {
    let (page, len) = (n.below(PAGES), 1 + n.below(8));
    let kind = if n.below(2) == 0 { MAP_PRIVATE } else { MAP_SHARED };
    let mappable = Arc::clone(file) as Arc<dyn Mappable>;
    let file = MmapFile { mappable, offset: n.below(4) * PAGE, may_write: true, may_exec: true };
    let file = (n.below(2) == 0).then_some(file);
    let anonymous = if file.is_none() { MAP_ANONYMOUS } else { 0 };
    let prot = PROT_READ | if n.below(4) > 0 { PROT_WRITE } else { 0 };
    let flags = kind | anonymous | MAP_FIXED;
    let args =
        MmapArgs { addr: BASE + page * PAGE, len: len * PAGE, prot, flags, file, ..MmapArgs::default() };
    guest.mm.mmap(args).expect("room");
}

/// One of many steps. What the calls answer depends on the others; that they come back and leave things sound is what counts.
fn step(guest: &Guest, file: &Arc<HostFile>, n: &mut Numbers) {
    let addr = BASE + n.below(PAGES) * PAGE;
    let len = (1 + n.below(6)) * PAGE;
    let mut buf = [7; 5000];
    match n.below(12) {
        0 | 1 => map(guest, file, n),
        2 => guest.mm.munmap(addr, len).expect("no limit"),
        3 => drop(guest.mm.mprotect(addr, len, PROT_READ, MmLimits::default())),
        4 => drop(guest.mm.mprotect(addr, len, PROT_READ | PROT_WRITE, MmLimits::default())),
        5 => {
            let (to, flags) = (BASE + (PAGES + 10 + n.below(20)) * PAGE, MREMAP_FIXED | MREMAP_MAYMOVE);
            let _moved = guest.mm.mremap(addr, len, len, flags, to, MmLimits::default());
        }
        6 => drop(guest.mm.madvise(addr, len, MADV_DONTNEED)),
        7 => drop(guest.mm.read_bytes_partial(addr + 100, &mut buf)),
        8 => drop(guest.mm.write_bytes_partial(addr + 100, &buf)),
        9 => drop(guest.mm.resolve_fault(addr, FaultAccess::Write)),
        10 => drop(guest.mm.fetch_op_u32(addr, crate::AtomicOp::Add, 1)),
        _ if n.below(10) == 0 => {
            let child = guest.mm.fork().expect("fork");
            let _written = child.write_bytes_partial(addr, &buf);
        }
        _ if n.below(10) == 0 => {
            file.keys.invalidate(n.below(8) * PAGE, PAGE);
            assert!(guest.mm.vmas().iter().all(|v| !v.range.is_empty()));
        }
        _ => drop(guest.mm.resolve_fault(addr, FaultAccess::Unknown)),
    }
}

#[test]
fn threads_get_along() {
    let guest = Guest::new();
    let file = HostFile::new(&vec![1; 12 * 4096]);
    thread::scope(|scope| {
        for seed in 0..4 {
            let (guest, file) = (&guest, &file);
            scope.spawn(move || {
                let mut n = Numbers(seed);
                for _ in 0..3000 {
                    step(guest, file, &mut n);
                }
            });
        }
    });
    let memory = Arc::clone(guest.mm.memory_file());
    drop(guest);
    assert_eq!(memory.usage_bytes(), 0);
    assert!(file.keys.is_empty());
}
