//! Guests of a few instructions, run by a real platform in memory that a memory manager resolves faults for.
use std::sync::Arc;

use crate::{FaultSignal, MemoryFile, MemoryManager, MmapArgs, PAGE};
use abi::Registers;
use abi::mman::{MAP_ANONYMOUS, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE};
use platform::ptrace::Ptrace;
use platform::{Context, Platform, Trap};

/// `1: mov %rsi,(%rdi); add $4096,%rdi; dec %rcx; jnz 1b; syscall`
const STORES: &[u8] = b"\x48\x89\x37\x48\x81\xc7\x00\x10\x00\x00\x48\xff\xc9\x75\xf1\x0f\x05";
/// The same with `mov (%rdi),%rax; add %rax,%rbx`.
const LOADS: &[u8] = b"\x48\x8b\x07\x48\x01\xc3\x48\x81\xc7\x00\x10\x00\x00\x48\xff\xc9\x75\xee\x0f\x05";

struct Guest {
    mm: Arc<MemoryManager>,
    context: Box<dyn Context>,
    stores: u64,
    loads: u64,
}

fn anonymous(mm: &MemoryManager, len: u64, prot: u32) -> u64 {
    mm.mmap(MmapArgs { len, prot, flags: MAP_PRIVATE | MAP_ANONYMOUS, ..MmapArgs::default() }).unwrap()
}

impl Guest {
    fn new(file: &Arc<MemoryFile>, platform: &Arc<dyn Platform>) -> Self {
        let mm = MemoryManager::new(Arc::clone(file), Arc::clone(platform)).unwrap();
        let stores = anonymous(&mm, PAGE, PROT_READ | PROT_EXEC);
        let loads = stores + 64;
        assert_eq!(mm.write_bytes_force(stores, STORES), Ok(STORES.len()));
        assert_eq!(mm.write_bytes_force(loads, LOADS), Ok(LOADS.len()));
        let context = mm.address_space().new_context().unwrap();
        Self { mm, context, stores, loads }
    }
    fn fork(&self) -> Self {
        let mm = self.mm.fork().unwrap();
        let context = mm.address_space().new_context().unwrap();
        Self { mm, context, ..*self }
    }
    fn run(&mut self, mut regs: Registers) -> Result<(Registers, u32), FaultSignal> {
        let mut faults = 0;
        loop {
            match self.context.switch(&mut regs).unwrap() {
                Trap::Syscall => return Ok((regs, faults)),
                Trap::Fault { addr, access } => self.mm.resolve_fault(addr, access)?,
                other => panic!("{other:?} at {:x}", regs.rip),
            }
            faults += 1;
            assert!(faults < 100_000, "no progress");
        }
    }
    fn store(&mut self, at: u64, pages: u64, value: u64) -> Result<u32, FaultSignal> {
        let regs = Registers { rip: self.stores, rdi: at, rcx: pages, rsi: value, ..Registers::default() };
        self.run(regs).map(|(_, faults)| faults)
    }
    fn sum(&mut self, at: u64, pages: u64) -> Result<u64, FaultSignal> {
        let regs = Registers { rip: self.loads, rdi: at, rcx: pages, ..Registers::default() };
        self.run(regs).map(|(regs, _)| regs.rbx)
    }
}

#[test]
fn a_guest_and_its_child() {
    let file = MemoryFile::new().unwrap();
    let platform = Ptrace::new().unwrap();
    let mut parent = Guest::new(&file, &platform);
    let at = anonymous(&parent.mm, 600 * PAGE, PROT_READ | PROT_WRITE);
    assert_eq!(parent.sum(at, 600), Ok(0));
    parent.store(at, 600, 3).unwrap();
    assert_eq!(parent.sum(at, 600), Ok(1800));
    assert_eq!(parent.mm.read_obj::<u64>(at + 599 * PAGE), Ok(3));
    let mut child = parent.fork();
    assert_eq!(child.sum(at, 600), Ok(1800));
    child.store(at + 10 * PAGE, 20, 4).unwrap();
    parent.store(at + 25 * PAGE, 10, 5).unwrap();
    assert_eq!((parent.sum(at, 600), child.sum(at, 600)), (Ok(1820), Ok(1820)));
    parent.mm.write_obj(at, &100u64).unwrap();
    assert_eq!((parent.sum(at, 1), child.sum(at, 1)), (Ok(100), Ok(3)));
    child.mm.mprotect(at, PAGE, PROT_READ, crate::MmLimits::default()).unwrap();
    assert_eq!(child.store(at, 1, 1).map_err(|s| s.code), Err(FaultSignal::SEGV_ACCERR));
    child.mm.munmap(at, 600 * PAGE).unwrap();
    assert_eq!(child.store(at, 1, 1).map_err(|s| s.code), Err(FaultSignal::SEGV_MAPERR));
    drop((parent, child));
    assert_eq!(file.usage_bytes(), 0);
}
