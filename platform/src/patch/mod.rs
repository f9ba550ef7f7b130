//! Patched system calls: a jump in place of a `syscall` instruction, to a trampoline that enters the stub's code without a
//! signal.
//!
//! This module says what a patch looks like and knows those of an address space; who owns the guest's memory makes them.
//! A patch is a jump of five bytes, in one of two shapes:
//!
//! - over `mov $nr, %eax` right before the `syscall`, which stays: who jumps to the `syscall` itself traps as ever;
//! - over the `syscall` and the first three bytes of a `cmp $imm, %rax` behind it. Who goes on at the `cmp`, because it
//!   made the call before the patch or jumps there from elsewhere, finds `hlt`: the jump's distance is chosen so. Its
//!   fault is a sign to go on in the trampoline, where the `cmp` stands again.

mod sites;

use std::ops::Range;

pub use sites::{Patches, Place};

/// The bytes of a jump.
pub const JUMP_BYTES: usize = 5;
/// The same, for addresses.
pub const JUMP_LEN: u64 = JUMP_BYTES as u64;
/// How many bytes decide about a patch.
pub const WINDOW_LEN: usize = 14;
/// The bytes before the end of a `syscall` instruction, and those from there on, that decide about a patch.
pub const BEFORE: u64 = 8;
/// See [`BEFORE`].
pub const AFTER: u64 = 6;
/// The most bytes of a trampoline.
pub const TRAMPOLINE_LEN: u64 = 40;
/// Trampolines of one address space's part lie in an area of this size, aligned to it.
pub const AREA_LEN: u64 = 0x1_0000;

const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// How many bytes the call has with the `mov` before it.
const NUMBERED_LEN: u64 = 7;
/// Prefixes that make a `mov` to `eax` one to `r8d`, or one of 64 or of 16 bits.
const OTHER_MOV: [u8; 9] = [0x41, 0x43, 0x45, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x66];
/// What stands behind a patched `syscall` instruction.
const HLT: u64 = 0xf4;

/// A system call that can be patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where the jump goes.
    pub start: u64,
    /// The address behind the `syscall` instruction.
    pub next: u64,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The call's number.
    Number(u32),
    /// What `rax` is compared with afterwards.
    Compare(u32),
}

impl Site {
    /// Looks at a `syscall` instruction that ends at `next`, and was executed with this number: its [`BEFORE`] bytes, and
    /// the [`AFTER`] bytes behind it. What is executed is known from the instruction on; bytes before it that look like a
    /// `mov` of another number are none.
    #[must_use]
    pub fn decode(next: u64, number: u64, bytes: &[u8; WINDOW_LEN]) -> Option<Self> {
        let [before, m, a, b, c, d, s0, s1, c0, c1, w, x, y, z] = *bytes;
        if [s0, s1] != SYSCALL {
            return None;
        }
        if [c0, c1] == [0x48, 0x3d] {
            let shape = Shape::Compare(u32::from_le_bytes([w, x, y, z]));
            return Some(Self { start: next - 2, next, shape });
        }
        let moved = u32::from_le_bytes([a, b, c, d]);
        let is_mov = m == 0xb8 && !OTHER_MOV.contains(&before) && u64::from(moved) == number;
        is_mov.then_some(Self { start: next - NUMBERED_LEN, next, shape: Shape::Number(moved) })
    }

    /// The number that the patched call has whatever `rax` is.
    pub(crate) const fn number(&self) -> Option<u32> {
        match self.shape {
            Shape::Number(number) => Some(number),
            Shape::Compare(_) => None,
        }
    }

    /// The bytes that the jump replaces.
    #[must_use]
    pub const fn original(&self) -> [u8; JUMP_BYTES] {
        match self.shape {
            Shape::Number(number) => {
                let [a, b, c, d] = number.to_le_bytes();
                [0xb8, a, b, c, d]
            }
            Shape::Compare(_) => [SYSCALL[0], SYSCALL[1], 0x48, 0x3d, self.compared()[0]],
        }
    }

    const fn compared(&self) -> [u8; 4] {
        match self.shape {
            Shape::Number(_) => [0; 4],
            Shape::Compare(with) => with.to_le_bytes(),
        }
    }

    /// Where in an area that starts at `area` a trampoline may start.
    #[must_use]
    pub fn window(&self, area: u64) -> Range<u64> {
        match self.shape {
            Shape::Number(_) => area..area + AREA_LEN - TRAMPOLINE_LEN,
            Shape::Compare(_) => {
                let from = self.start.wrapping_add(JUMP_LEN).wrapping_add(HLT << 8).wrapping_sub(area);
                let start = area + from % AREA_LEN;
                start..(start + 0x100).min(area + AREA_LEN - TRAMPOLINE_LEN)
            }
        }
    }

    /// The jump to a trampoline at `at`, if it is near enough, and where the shape wants it.
    #[must_use]
    pub fn jump(&self, at: u64) -> Option<[u8; JUMP_BYTES]> {
        let distance = distance(self.start + JUMP_LEN, at)?;
        let [a, b, c, d] = distance.to_le_bytes();
        match self.shape {
            Shape::Compare(_) if u64::from(b) != HLT => None,
            Shape::Number(_) | Shape::Compare(_) => Some([0xe9, a, b, c, d]),
        }
    }

    /// A trampoline at `at`: the number, the address to go on at for the guest's eyes in `rcx`, the address to go on at in
    /// `r11`, and to the thread's code.
    #[must_use]
    pub fn trampoline(&self, at: u64) -> Option<Vec<u8>> {
        let mut code = Code { at, bytes: Vec::new() };
        match self.shape {
            Shape::Number(number) => {
                code.put(&[0xb8]);
                code.put(&number.to_le_bytes());
                code.put_relative(&[0x48, 0x8d, 0x0d], self.next)?;
                code.put(&[0x49, 0x89, 0xcb]);
                code.enter(crate::systrap::entry(Some(number)));
            }
            Shape::Compare(_) => {
                code.put_relative(&[0x48, 0x8d, 0x0d], self.next)?;
                code.put_relative(&[0x4c, 0x8d, 0x1d], self.tail(at))?;
                code.enter(crate::systrap::entry(None));
                debug_assert_eq!(code.bytes.len() as u64, self.tail(0), "the tail is where it is said to be");
                code.put(&[0x48, 0x3d]);
                code.put(&self.compared());
                code.put_relative(&[0xe9], self.end())?;
            }
        }
        Some(code.bytes)
    }

    /// The end of the instructions that the jump and what follows it stand for.
    const fn end(&self) -> u64 {
        match self.shape {
            Shape::Number(_) => self.next,
            Shape::Compare(_) => self.next + AFTER,
        }
    }

    /// Where the trampoline at `at` goes on after the call.
    const fn tail(&self, at: u64) -> u64 {
        match self.shape {
            Shape::Number(_) => self.next,
            Shape::Compare(_) => at + 7 + 7 + 8,
        }
    }
}

fn distance(from: u64, to: u64) -> Option<i32> {
    i32::try_from(to.wrapping_sub(from).cast_signed()).ok()
}

struct Code {
    at: u64,
    bytes: Vec<u8>,
}

impl Code {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An instruction that ends with a distance to `to` from its end.
    fn put_relative(&mut self, opcode: &[u8], to: u64) -> Option<()> {
        self.put(opcode);
        let end = self.at + self.bytes.len() as u64 + 4;
        self.put(&distance(end, to)?.to_le_bytes());
        Some(())
    }

    /// `jmp *%gs:entry`.
    fn enter(&mut self, entry: u32) {
        self.put(&[0x65, 0xff, 0x24, 0x25]);
        self.put(&entry.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
