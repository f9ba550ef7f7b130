//! Whether an instruction that faulted on data was loading or storing, which ptrace does not tell.
//!
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, appendix A. What is rare or unclear stays
//! [`FaultAccess::Unknown`]. The guest may change the instruction meanwhile; what it gains is a wrong answer to its own
//! fault.
use abi::Registers;

use crate::FaultAccess::{self, Read, Unknown, Write};

/// Opcodes of one map, as ranges, whose memory operand is stored to.
type Stores = &'static [(u8, u8)];

/// The one-byte opcodes that store to their operand, beside those that [`one_byte`] treats by itself.
const ONE_BYTE: Stores = &[
    (0x00, 0x01),
    (0x08, 0x09),
    (0x10, 0x11),
    (0x18, 0x19),
    (0x20, 0x21),
    (0x28, 0x29),
    (0x30, 0x31),
    (0x86, 0x89),
    (0x8c, 0x8c),
    (0xc0, 0xc1),
    (0xc6, 0xc7),
    (0xd0, 0xd3),
    (0xfe, 0xfe),
];
/// Those after 0F, also in VEX and EVEX encodings.
const TWO_BYTE: Stores = &[
    (0x11, 0x11),
    (0x13, 0x13),
    (0x17, 0x17),
    (0x29, 0x29),
    (0x2b, 0x2b),
    (0x7e, 0x7f),
    (0x91, 0x91),
    (0xc3, 0xc3),
    (0xd6, 0xd6),
    (0xe7, 0xe7),
];
/// Those after 0F that exist in no other encoding.
const TWO_BYTE_LEGACY: Stores =
    &[(0x90, 0x9f), (0xa4, 0xa5), (0xab, 0xad), (0xb0, 0xb1), (0xb3, 0xb3), (0xbb, 0xbb), (0xc0, 0xc1)];
/// Those after 0F 3A.
const MAP_3: Stores = &[(0x14, 0x17), (0x19, 0x19), (0x1b, 0x1b), (0x1d, 0x1d), (0x39, 0x39), (0x3b, 0x3b)];
/// Those after 0F 38, in VEX and EVEX encodings only.
const MAP_2_VECTOR: Stores = &[(0x2e, 0x2f), (0x63, 0x63), (0x8a, 0x8b), (0x8e, 0x8e), (0xa0, 0xa3)];
/// Those after 0F 38 in an EVEX encoding with an F3 prefix: truncating moves.
const MAP_2_TRUNCATE: Stores = &[(0x10, 0x15), (0x20, 0x25), (0x30, 0x35)];

/// What the prefixes say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    Operand,
    Repeat,
    RepeatNot,
}

/// The kind of access to `addr` by the instruction whose first bytes are `code`.
pub(super) fn access(code: [u8; 8], addr: u64, regs: &Registers) -> FaultAccess {
    classify(&code, addr, regs).unwrap_or(Unknown)
}

fn classify(code: &[u8], addr: u64, regs: &Registers) -> Option<FaultAccess> {
    let mut prefix = Prefix::None;
    let mut bytes = code.iter().copied();
    let mut opcode = bytes.next()?;
    loop {
        match opcode {
            0x66 if prefix == Prefix::None => prefix = Prefix::Operand,
            0xf3 => prefix = Prefix::Repeat,
            0xf2 => prefix = Prefix::RepeatNot,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 => {}
            _ => break,
        }
        opcode = bytes.next()?;
    }
    if (0x40..=0x4f).contains(&opcode) {
        opcode = bytes.next()?;
    }
    match opcode {
        0x0f => {
            let second = bytes.next()?;
            let third = bytes.next();
            match second {
                0x38 => map_2_legacy(third?, prefix),
                0x3a => Some(stores(MAP_3, third?)),
                _ => two_byte(second, third.unwrap_or(0), prefix),
            }
        }
        0xc5 => vector(1, bytes.next()? & 3, bytes.next()?, bytes.next()?),
        0xc4 => {
            let map = bytes.next()? & 0x1f;
            vector(map, bytes.next()? & 3, bytes.next()?, bytes.next()?)
        }
        0x62 => {
            let (map, pp, _) = (bytes.next()? & 7, bytes.next()? & 3, bytes.next()?);
            let opcode = bytes.next()?;
            match (map, pp) {
                (2, 2) if stores(MAP_2_TRUNCATE, opcode) == Write => Some(Write),
                (5, _) => Some(if matches!(opcode, 0x11 | 0x7e) { Write } else { Read }),
                _ => vector(map, pp, opcode, bytes.next()?),
            }
        }
        _ => one_byte(opcode, bytes.next().unwrap_or(0), addr, regs),
    }
}

fn stores(list: Stores, opcode: u8) -> FaultAccess {
    let listed = list.iter().any(|(first, last)| (*first..=*last).contains(&opcode));
    if listed { Write } else { Read }
}

/// The middle field of a ModRM byte.
const fn reg(modrm: u8) -> u8 {
    modrm >> 3 & 7
}

/// A store to the stack beside an access elsewhere.
fn push(addr: u64, regs: &Registers) -> FaultAccess {
    if (1..=8).contains(&regs.rsp.wrapping_sub(addr)) { Write } else { Read }
}

fn one_byte(opcode: u8, modrm: u8, addr: u64, regs: &Registers) -> Option<FaultAccess> {
    let write_if = |store: bool| Some(if store { Write } else { Read });
    let within = |base: u64| addr.wrapping_sub(base) < 8;
    match opcode {
        // Pushes, calls, `enter`; pops and returns.
        0x50..=0x57 | 0x68 | 0x6a | 0x9c | 0xc8 | 0xe8 => Some(Write),
        0x58..=0x5f | 0x9d | 0xc2 | 0xc3 | 0xc9 | 0xca | 0xcb | 0xcf | 0xd7 => Some(Read),
        0x80 | 0x81 | 0x83 => write_if(reg(modrm) != 7),
        0x8f => write_if(!within(regs.rsp)),
        0xa0 | 0xa1 | 0xa6 | 0xa7 | 0xac..=0xaf => Some(Read),
        0xa2 | 0xa3 | 0xaa | 0xab => Some(Write),
        0xa4 | 0xa5 => {
            (within(regs.rdi) != within(regs.rsi)).then_some(()).and_then(|()| write_if(within(regs.rdi)))
        }
        0xd9 => write_if(matches!(reg(modrm), 2 | 3 | 6 | 7)),
        0xdb => write_if(matches!(reg(modrm), 1..=3 | 7)),
        0xdd => write_if(matches!(reg(modrm), 1..=3 | 6 | 7)),
        0xdf => write_if(matches!(reg(modrm), 1..=3 | 6 | 7)),
        0xf6 | 0xf7 => write_if(matches!(reg(modrm), 2 | 3)),
        0xff => match reg(modrm) {
            0 | 1 => Some(Write),
            2 | 6 => Some(push(addr, regs)),
            4 => Some(Read),
            _ => None,
        },
        0x00..=0x3b if opcode & 7 < 4 => Some(stores(ONE_BYTE, opcode)),
        0x63
        | 0x69
        | 0x6b
        | 0x84..=0x8c
        | 0x8e
        | 0xc0
        | 0xc1
        | 0xc6
        | 0xc7
        | 0xd0..=0xd3
        | 0xd8
        | 0xda
        | 0xdc
        | 0xde
        | 0xfe => Some(stores(ONE_BYTE, opcode)),
        _ => None,
    }
}

fn two_byte(opcode: u8, modrm: u8, prefix: Prefix) -> Option<FaultAccess> {
    let write_if = |store: bool| Some(if store { Write } else { Read });
    match opcode {
        0x7e => write_if(prefix != Prefix::Repeat),
        0xa0 | 0xa8 | 0xf7 => Some(Write),
        0xae => match reg(modrm) {
            // `ptwrite`.
            4 if prefix == Prefix::Repeat => Some(Read),
            0 | 3 | 4 => Some(Write),
            6 if prefix == Prefix::None => Some(Write),
            1 | 2 | 5 | 7 => Some(Read),
            _ => None,
        },
        0xba => write_if(reg(modrm) != 4),
        0xc7 => match reg(modrm) {
            1 | 4 | 5 => Some(Write),
            3 => Some(Read),
            _ => None,
        },
        // Prefetches, hints, system instructions.
        0x00..=0x0f | 0x18..=0x1f | 0x30..=0x3f | 0xff => None,
        _ if stores(TWO_BYTE_LEGACY, opcode) == Write => Some(Write),
        0x91 => None,
        _ => Some(stores(TWO_BYTE, opcode)),
    }
}

fn map_2_legacy(opcode: u8, prefix: Prefix) -> Option<FaultAccess> {
    match opcode {
        0xf1 if prefix != Prefix::RepeatNot => Some(Write),
        0xf9 => Some(Write),
        0x00..=0xdf | 0xf0 | 0xf1 | 0xf6 => Some(Read),
        _ => None,
    }
}

/// `map` as VEX and EVEX number it; `pp` their prefix field.
fn vector(map: u8, pp: u8, opcode: u8, modrm: u8) -> Option<FaultAccess> {
    match (map, opcode) {
        (1, 0x7e) => Some(if pp == 2 { Read } else { Write }),
        (1, 0xae) => Some(if reg(modrm) == 3 { Write } else { Read }),
        (1, _) => Some(stores(TWO_BYTE, opcode)),
        // `sttilecfg`, `tilestored`.
        (2, 0x49) => Some(if pp == 1 { Write } else { Read }),
        (2, 0x4b) => Some(if pp == 2 { Write } else { Read }),
        (2, _) => Some(stores(MAP_2_VECTOR, opcode)),
        (3, _) => Some(stores(MAP_3, opcode)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &[u8]) -> FaultAccess {
        let mut first = [0x90; 8];
        first[..code.len()].copy_from_slice(code);
        let regs = Registers { rsp: 0x8000, rdi: 0x1000, rsi: 0x2000, ..Registers::default() };
        access(first, 0x1004, &regs)
    }

    #[test]
    fn loads() {
        let loads: [&[u8]; 16] = [
            b"\x8b\x04\x25",             // mov m,%eax
            b"\x48\x8b\x07",             // mov (%rdi),%rax
            b"\x48\x3b\x07",             // cmp (%rdi),%rax
            b"\x48\x39\x07",             // cmp %rax,(%rdi)
            b"\x83\x3f\x01",             // cmpl $1,(%rdi)
            b"\xf6\x07\x01",             // testb $1,(%rdi)
            b"\x0f\xb6\x07",             // movzbl (%rdi),%eax
            b"\xf3\x0f\x6f\x07",         // movdqu (%rdi),%xmm0
            b"\x0f\x10\x07",             // movups (%rdi),%xmm0
            b"\xf3\x0f\x7e\x07",         // movq (%rdi),%xmm0
            b"\xc5\xfe\x6f\x07",         // vmovdqu (%rdi),%ymm0
            b"\x62\xf1\xfe\x48\x6f\x07", // vmovdqu64 (%rdi),%zmm0
            b"\xc4\xe2\x7d\x58\x07",     // vpbroadcastd (%rdi),%ymm0
            b"\xdd\x07",                 // fldl (%rdi)
            b"\xff\x27",                 // jmp *(%rdi)
            b"\xff\x37",                 // push (%rdi)
        ];
        for code in loads {
            assert_eq!(of(code), Read, "{code:02x?}");
        }
    }

    #[test]
    fn stores_and_both() {
        let stores: [&[u8]; 20] = [
            b"\x89\x07",                 // mov %eax,(%rdi)
            b"\x66\x89\x07",             // mov %ax,(%rdi)
            b"\x41\x88\x07",             // mov %al,(%r15)
            b"\x48\xc7\x07",             // movq $imm,(%rdi)
            b"\xf0\x0f\xb1\x07",         // lock cmpxchg %eax,(%rdi)
            b"\xf0\x48\xff\x07",         // lock incq (%rdi)
            b"\x48\x01\x07",             // add %rax,(%rdi)
            b"\x83\x07\x01",             // addl $1,(%rdi)
            b"\x87\x07",                 // xchg %eax,(%rdi)
            b"\xf3\x48\xab",             // rep stosq
            b"\xf3\xa4",                 // rep movsb, at its destination
            b"\x0f\x29\x07",             // movaps %xmm0,(%rdi)
            b"\xf3\x0f\x7f\x07",         // movdqu %xmm0,(%rdi)
            b"\x66\x0f\xd6\x07",         // movq %xmm0,(%rdi)
            b"\xc5\xfe\x7f\x07",         // vmovdqu %ymm0,(%rdi)
            b"\x62\xf1\xfe\x48\x7f\x07", // vmovdqu64 %zmm0,(%rdi)
            b"\x0f\x94\x07",             // sete (%rdi)
            b"\xdd\x1f",                 // fstpl (%rdi)
            b"\x0f\xae\x27",             // xsave (%rdi)
            b"\x55",                     // push %rbp
        ];
        for code in stores {
            assert_eq!(of(code), Write, "{code:02x?}");
        }
    }

    #[test]
    fn what_is_unclear_stays_so() {
        assert_eq!(of(b"\x66\x66\x66\x66\x66\x66\x66\x66"), Unknown);
        assert_eq!(of(b"\x0f\x0b"), Unknown);
        let regs = Registers { rsi: 0x1000, rdi: 0x1004, ..Registers::default() };
        assert_eq!(access([0xa4; 8], 0x1004, &regs), Unknown, "either operand");
    }
}
