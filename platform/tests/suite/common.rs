//! Guests of a few instructions, in memory that the test sees too.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use abi::Registers;
use platform::{Access, AddressSpace, Context, Platform, Trap};

/// Where guests have their code.
pub const CODE: u64 = 0x40_0000;
/// Where they have a page of data.
pub const DATA: u64 = 0x50_0000;
/// Where nothing is mapped.
pub const NOTHING: u64 = 0x60_0000;
pub const PAGE: u64 = 4096;

/// A memory file: the first page is code, the second data.
#[derive(Debug)]
pub struct Memory(pub File);

impl Memory {
    pub fn new(code: &[u8]) -> Self {
        let fd = nix::sys::memfd::memfd_create(c"guest", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(16 * PAGE).unwrap();
        file.write_all_at(code, 0).unwrap();
        Self(file)
    }

    pub fn data(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, PAGE + offset).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// A space with the code and the data mapped.
    pub fn space(&self, platform: &Arc<dyn Platform>) -> Arc<dyn AddressSpace> {
        let space = platform.new_address_space().unwrap();
        space.map(CODE, PAGE, self.0.as_fd(), 0, Access::READ_EXECUTE, false).unwrap();
        space.map(DATA, PAGE, self.0.as_fd(), PAGE, Access::READ_WRITE, true).unwrap();
        space
    }
}

/// The registers of a fresh guest.
pub fn start() -> Registers {
    Registers { rip: CODE, rsp: DATA + PAGE, ..Registers::default() }
}

/// Runs the code from a fresh start to its first trap.
pub fn run(platform: &Arc<dyn Platform>, code: &[u8]) -> (Trap, Registers) {
    run_from(platform, code, start())
}

pub fn run_from(platform: &Arc<dyn Platform>, code: &[u8], mut regs: Registers) -> (Trap, Registers) {
    let memory = Memory::new(code);
    let mut context = memory.space(platform).new_context().unwrap();
    let trap = context.switch(&mut regs).unwrap();
    (trap, regs)
}

pub fn context(platform: &Arc<dyn Platform>, memory: &Memory) -> Box<dyn Context> {
    memory.space(platform).new_context().unwrap()
}
