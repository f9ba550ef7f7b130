//! The classic BPF of seccomp(2), Linux `net/core/filter.c` and `kernel/seccomp.c:seccomp_check_filter`.
use abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SeccompData;

/// The most instructions of a program, Linux `BPF_MAXINSNS`.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `struct sock_filter`: one instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip where a condition holds.
    pub jt: u8,
    /// How many where it does not.
    pub jf: u8,
    /// A constant.
    pub k: u32,
}

const SCRATCH_WORDS: usize = 16;

// The classes, and what the other bits of a code say (linux/bpf_common.h).
const LD_ABS: u16 = 0x20;
const LD_LEN: u16 = 0x80;
const LD_IMM: u16 = 0x00;
const LD_MEM: u16 = 0x60;
const LDX_LEN: u16 = 0x81;
const LDX_IMM: u16 = 0x01;
const LDX_MEM: u16 = 0x61;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const JA: u16 = 0x05;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;
const TAX: u16 = 0x07;
const TXA: u16 = 0x87;
const CLASS: u16 = 0x07;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const SOURCE_X: u16 = 0x08;
const OPERATION: u16 = 0xf0;

/// A program that was checked: it ends, and reads only what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Box<[Instruction]>);

fn is_arithmetic(operation: u16) -> bool {
    matches!(operation, 0x00 | 0x10 | 0x20 | 0x30 | 0x40 | 0x50 | 0x60 | 0x70 | 0x80 | 0xa0)
}

fn is_jump(operation: u16) -> bool {
    matches!(operation, 0x10 | 0x20 | 0x30 | 0x40)
}

/// Checks one instruction; `at` is its place, `count` how many there are.
fn check(instruction: Instruction, at: usize, count: usize) -> bool {
    let Instruction { code, jt, jf, k } = instruction;
    let reaches = |skip: u32| {
        usize::try_from(skip)
            .ok()
            .and_then(|skip| at.checked_add(skip)?.checked_add(1))
            .is_some_and(|to| to < count)
    };
    let scratch = k < u32::try_from(SCRATCH_WORDS).unwrap_or(0);
    match code {
        LD_ABS => k.is_multiple_of(4) && k < SeccompData::SIZE,
        LD_LEN | LDX_LEN | LD_IMM | LDX_IMM | RET_K | RET_A | TAX | TXA => true,
        LD_MEM | LDX_MEM | ST | STX => scratch,
        JA => reaches(k),
        _ if code & !(OPERATION | SOURCE_X | CLASS) != 0 => false,
        _ if code & CLASS == JMP && is_jump(code & OPERATION) => reaches(jt.into()) && reaches(jf.into()),
        _ if code & CLASS == ALU && is_arithmetic(code & OPERATION) => {
            let (operation, constant) = (code & OPERATION, code & SOURCE_X == 0);
            match operation {
                // Division by a constant nothing; shifts by more than there are bits.
                0x30 if constant => k != 0,
                0x60 | 0x70 if constant => k < 32,
                0x80 => constant,
                _ => true,
            }
        }
        _ => false,
    }
}

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    /// `EINVAL` for one that Linux would not take.
    pub fn new(instructions: Vec<Instruction>) -> Result<Self, Errno> {
        let count = instructions.len();
        if count == 0 || count > MAX_INSTRUCTIONS {
            return Err(Errno::EINVAL);
        }
        let sound = instructions.iter().enumerate().all(|(at, one)| check(*one, at, count));
        let ends = instructions.last().is_some_and(|last| matches!(last.code, RET_K | RET_A));
        if !sound || !ends || !initializes_scratch(&instructions) {
            return Err(Errno::EINVAL);
        }
        Ok(Self(instructions.into()))
    }

    /// How many instructions it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether it has none; no checked program is so.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs it over a call; gives what it returns.
    #[must_use]
    pub fn run(&self, data: &SeccompData) -> u32 {
        let (mut a, mut x, mut scratch) = (0_u32, 0_u32, [0_u32; SCRATCH_WORDS]);
        let mut at = 0_usize;
        // Every jump goes forward, and the last instruction returns.
        while let Some(&Instruction { code, jt, jf, k }) = self.0.get(at) {
            at += 1;
            let place = usize::try_from(k).unwrap_or(usize::MAX);
            match code {
                LD_ABS => a = data.word(k),
                LD_LEN => a = SeccompData::SIZE,
                LDX_LEN => x = SeccompData::SIZE,
                LD_IMM => a = k,
                LDX_IMM => x = k,
                LD_MEM => a = scratch.get(place).copied().unwrap_or(0),
                LDX_MEM => x = scratch.get(place).copied().unwrap_or(0),
                ST | STX => {
                    if let Some(word) = scratch.get_mut(place) {
                        *word = if code == ST { a } else { x };
                    }
                }
                JA => at = at.saturating_add(place),
                RET_K => return k,
                RET_A => return a,
                TAX => x = a,
                TXA => a = x,
                _ => {
                    let operand = if code & SOURCE_X != 0 { x } else { k };
                    if code & CLASS == JMP {
                        let holds = match code & OPERATION {
                            0x10 => a == operand,
                            0x20 => a > operand,
                            0x30 => a >= operand,
                            _ => a & operand != 0,
                        };
                        at = at.saturating_add(usize::from(if holds { jt } else { jf }));
                    } else if let Some(value) = arithmetic(code & OPERATION, a, operand) {
                        a = value;
                    } else {
                        // Division by nothing ends the program with 0.
                        return 0;
                    }
                }
            }
        }
        0
    }
}

fn arithmetic(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(operand),
        0x10 => a.wrapping_sub(operand),
        0x20 => a.wrapping_mul(operand),
        0x30 => a.checked_div(operand)?,
        0x40 => a | operand,
        0x50 => a & operand,
        0x60 => a.wrapping_shl(operand),
        0x70 => a.wrapping_shr(operand),
        0x80 => a.wrapping_neg(),
        _ => a ^ operand,
    })
}

/// Tells whether no word of the scratch memory is read that may not have been written, Linux `check_load_and_stores`.
fn initializes_scratch(instructions: &[Instruction]) -> bool {
    let mut arriving = vec![u16::MAX; instructions.len()];
    let mut valid = 0_u16;
    for (at, &Instruction { code, jt, jf, k }) in instructions.iter().enumerate() {
        valid &= arriving.get(at).copied().unwrap_or(0);
        let bit = 1_u16.checked_shl(k).unwrap_or(0);
        let mut arrive = |skip: u32| {
            let to = usize::try_from(skip).unwrap_or(usize::MAX).saturating_add(at).saturating_add(1);
            if let Some(mask) = arriving.get_mut(to) {
                *mask &= valid;
            }
        };
        match code {
            ST | STX => valid |= bit,
            LD_MEM | LDX_MEM if valid & bit == 0 => return false,
            JA => {
                arrive(k);
                valid = u16::MAX;
            }
            _ if code & CLASS == JMP => {
                arrive(jt.into());
                arrive(jf.into());
                valid = u16::MAX;
            }
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(list: &[(u16, u8, u8, u32)]) -> Result<Program, Errno> {
        Program::new(list.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect())
    }

    fn data(nr: u32, first: u64) -> SeccompData {
        SeccompData {
            nr,
            arch: super::super::ARCH_X86_64,
            ip: 0x1234_5678_9abc,
            args: [first, 0, 0, 0, 0, 0],
        }
    }

    #[test]
    fn looks_at_the_call() {
        let one =
            program(&[(LD_ABS, 0, 0, 0), (0x15, 0, 1, 39), (RET_K, 0, 0, 7), (RET_K, 0, 0, 9)]).unwrap();
        assert_eq!((one.run(&data(39, 0)), one.run(&data(40, 0))), (7, 9));
        let high = program(&[(LD_ABS, 0, 0, 20), (RET_A, 0, 0, 0)]).unwrap();
        assert_eq!(high.run(&data(0, 5 << 32 | 6)), 5);
        let address = program(&[(LD_ABS, 0, 0, 12), (RET_A, 0, 0, 0)]).unwrap();
        assert_eq!(address.run(&data(0, 0)), 0x1234);
    }

    #[test]
    fn calculates() {
        let run = |code, a, k| {
            program(&[(LD_IMM, 0, 0, a), (code, 0, 0, k), (RET_A, 0, 0, 0)]).unwrap().run(&data(0, 0))
        };
        assert_eq!(run(0x04, u32::MAX, 2), 1);
        assert_eq!(run(0x14, 1, 2), u32::MAX);
        assert_eq!(run(0x34, 9, 2), 4);
        assert_eq!(run(0x64, 1, 31), 1 << 31);
        assert_eq!(run(0xa4, 6, 3), 5);
        assert_eq!(run(0x84, 1, 0), u32::MAX);
        let by_x =
            program(&[(LD_IMM, 0, 0, 5), (LDX_IMM, 0, 0, 0), (0x3c, 0, 0, 0), (RET_K, 0, 0, 1)]).unwrap();
        assert_eq!(by_x.run(&data(0, 0)), 0, "division by nothing");
    }

    #[test]
    fn refuses_what_is_not_sound() {
        let bad: &[&[(u16, u8, u8, u32)]] = &[
            &[],
            &[(LD_ABS, 0, 0, 0)],
            &[(LD_ABS, 0, 0, 2), (RET_K, 0, 0, 0)],
            &[(LD_ABS, 0, 0, 64), (RET_K, 0, 0, 0)],
            &[(JA, 0, 0, 1), (RET_K, 0, 0, 0)],
            &[(0x15, 1, 0, 0), (RET_K, 0, 0, 0)],
            &[(LD_MEM, 0, 0, 0), (RET_K, 0, 0, 0)],
            &[(ST, 0, 0, 16), (RET_K, 0, 0, 0)],
            &[(0x34, 0, 0, 0), (RET_K, 0, 0, 0)],
            &[(0x64, 0, 0, 32), (RET_K, 0, 0, 0)],
            &[(0x28, 0, 0, 0), (RET_K, 0, 0, 0)],
            &[(0x94, 0, 0, 1), (RET_K, 0, 0, 0)],
            &[(0x8004, 0, 0, 1), (RET_K, 0, 0, 0)],
        ];
        for list in bad {
            assert_eq!(program(list), Err(Errno::EINVAL), "{list:?}");
        }
        let long = vec![(LD_IMM, 0, 0, 0); MAX_INSTRUCTIONS];
        assert!(program(&long).is_err());
        assert!(program(&[(ST, 0, 0, 3), (LD_MEM, 0, 0, 3), (RET_A, 0, 0, 0)]).is_ok());
    }

    #[test]
    fn a_word_written_on_one_way_only_is_not_readable() {
        let half = [(LD_ABS, 0, 0, 0), (0x15, 0, 1, 1), (ST, 0, 0, 0), (LD_MEM, 0, 0, 0), (RET_A, 0, 0, 0)];
        assert!(program(&half).is_err());
    }
}
