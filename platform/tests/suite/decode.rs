//! What the back end says of a fault is what the processor does: every opcode, prefix and `reg` field with an operand in
//! memory, first where nothing is mapped, then where loads succeed.
use super::common::*;
use super::new;
use abi::Registers;
use platform::{Access, AddressSpace, Context, FaultAccess, Trap};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const TARGET: u64 = NOTHING + 0x100;

struct Bench {
    memory: Memory,
    space: Arc<dyn AddressSpace>,
    context: Box<dyn Context>,
    /// Cases in which the processor loaded, and stored.
    seen: (u32, u32),
    wrong: Vec<String>,
}

impl Bench {
    fn run(&mut self) -> Option<FaultAccess> {
        let mut regs = Registers { rdi: TARGET, rsi: DATA, rcx: 1, rbx: DATA, rsp: DATA + 0x800, ..start() };
        match self.context.switch(&mut regs).unwrap() {
            Trap::Fault { addr, access } if addr & !(PAGE - 1) == NOTHING => Some(access),
            _ => None,
        }
    }

    fn check(&mut self, code: &[u8]) {
        let mut bytes = [0x90; 24];
        bytes[..code.len()].copy_from_slice(code);
        // Immediate operands; and an end, whatever the length.
        bytes[16..20].copy_from_slice(b"\x0f\x05\x0f\x05");
        self.memory.0.write_all_at(&bytes, 0).unwrap();
        self.space.unmap(NOTHING, PAGE).unwrap();
        let Some(told) = self.run().filter(|told| *told != FaultAccess::Unknown) else {
            return;
        };
        self.space.map(NOTHING, PAGE, self.memory.0.as_fd(), 3 * PAGE, Access::READ, false).unwrap();
        let stored = self.run().is_some();
        if stored {
            self.seen.1 += 1;
        } else {
            self.seen.0 += 1;
        }
        if told != if stored { FaultAccess::Write } else { FaultAccess::Read } {
            self.wrong.push(format!("{code:02x?}: said {told:?}, stored: {stored}"));
        }
    }
}

#[test]
fn agrees_with_the_processor() {
    let platform = new();
    let memory = Memory::new(b"");
    let space = memory.space(&platform);
    let context = space.clone().new_context().unwrap();
    let mut bench = Bench { memory, space, context, seen: (0, 0), wrong: Vec::new() };
    let prefixes: [&[u8]; 4] = [b"", b"\x66", b"\xf3", b"\xf2"];
    for opcode in 0..=255_u8 {
        for reg in 0..8_u8 {
            let modrm = reg << 3 | 7;
            for prefix in prefixes {
                let maps: [&[u8]; 4] = [b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a"];
                for map in maps {
                    bench.check(&[prefix, map, &[opcode, modrm]].concat());
                }
            }
            for pp in 0..4_u8 {
                bench.check(&[0xc5, 0xf8 | pp, opcode, modrm]);
                for map in 1..4_u8 {
                    for w in [0, 0x80] {
                        bench.check(&[0xc4, 0xe0 | map, w | 0x78 | pp, opcode, modrm]);
                    }
                }
                for map in [1, 2, 3, 5, 6] {
                    for w in [0, 0x80] {
                        bench.check(&[0x62, 0xf0 | map, w | 0x7c | pp, 0x48, opcode, modrm]);
                    }
                }
            }
        }
    }
    assert!(bench.wrong.is_empty(), "{} wrong: {:#?}", bench.wrong.len(), bench.wrong);
    assert!(bench.seen.0 > 5_000 && bench.seen.1 > 500, "{:?}", bench.seen);
}
