//! Just enough machine code.
use abi::elf::{self, Elf64Ehdr, Elf64Phdr};
use abi::sysno::nr;
use zerocopy::IntoBytes;

/// Where programs are.
const BASE: u64 = 0x40_0000;
/// Where a program has a page to write to.
const SCRATCH: u32 = 0x60_0000;

/// Machine code of a program that grows. `EAX` carries results from one piece to the next.
#[derive(Clone, Default)]
pub(crate) struct Asm(Vec<u8>);

impl Asm {
    pub(crate) fn new() -> Self {
        Self::default()
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn imm(self, opcode: &[u8], value: u32) -> Self {
        self.bytes(opcode).bytes(&value.to_le_bytes())
    }
    fn syscall(self, number: u64) -> Self {
        self.imm(&[0xb8], u32::try_from(number).expect("small")).bytes(&[0x0f, 0x05])
    }
    /// Appends other code.
    pub(crate) fn then(self, other: &Self) -> Self {
        self.bytes(&other.0)
    }
    /// Runs `other` where `EAX` is zero, and goes on behind it otherwise.
    pub(crate) fn if_zero(self, other: &Self) -> Self {
        let skip = u32::try_from(other.0.len()).expect("small");
        self.bytes(&[0x85, 0xc0]).imm(&[0x0f, 0x85], skip).then(other)
    }
    /// Runs `other` so often; `EBX` counts.
    pub(crate) fn repeat(self, times: u32, other: &Self) -> Self {
        let body = Self::new().then(other).bytes(&[0xff, 0xcb]);
        let back = u32::try_from(body.0.len() + 6).expect("small").wrapping_neg();
        self.imm(&[0xbb], times).then(&body).imm(&[0x0f, 0x85], back)
    }
    pub(crate) fn exit(self, code: u32) -> Self {
        self.imm(&[0xbf], code).syscall(nr::exit)
    }
    pub(crate) fn exit_group(self, code: u32) -> Self {
        self.imm(&[0xbf], code).syscall(nr::exit_group)
    }
    pub(crate) fn exit_eax(self) -> Self {
        self.bytes(&[0x89, 0xc7]).syscall(nr::exit)
    }
    pub(crate) fn fork(self) -> Self {
        self.syscall(nr::fork)
    }
    pub(crate) fn vfork(self) -> Self {
        self.syscall(nr::vfork)
    }
    pub(crate) fn thread(self) -> Self {
        self.syscall(nr::clone)
    }
    pub(crate) fn exec(self) -> Self {
        self.syscall(nr::execve)
    }
    pub(crate) fn load_files(self) -> Self {
        self.syscall(nr::uselib)
    }
    pub(crate) fn pause_for_ever(self) -> Self {
        let start = Self::new().syscall(nr::pause);
        let back = u8::try_from(start.0.len() + 2).expect("small").wrapping_neg();
        self.then(&start).bytes(&[0xeb, back])
    }
    /// Waits for any child; the status goes to the scratch page's second word.
    pub(crate) fn wait4_any(self) -> Self {
        self.imm(&[0xbf], u32::MAX).imm(&[0xbe], SCRATCH + 4).syscall(nr::wait4)
    }
    /// The exit code of the last wait.
    pub(crate) fn load_status(self) -> Self {
        self.imm(&[0x8b, 0x04, 0x25], SCRATCH + 4).bytes(&[0xc1, 0xe8, 8])
    }
    pub(crate) fn add_eax(self, value: u32) -> Self {
        self.imm(&[0x05], value)
    }
    pub(crate) fn store_scratch(self, value: u32) -> Self {
        self.imm(&[0xc7, 0x04, 0x25], SCRATCH).bytes(&value.to_le_bytes())
    }
    pub(crate) fn add_to_scratch(self) -> Self {
        self.imm(&[0x01, 0x04, 0x25], SCRATCH)
    }
    pub(crate) fn load_scratch(self) -> Self {
        self.imm(&[0x8b, 0x04, 0x25], SCRATCH)
    }
    pub(crate) fn store_to_null(self) -> Self {
        self.imm(&[0x89, 0x04, 0x25], 0)
    }

    /// The program as an ELF file.
    pub(crate) fn elf(&self) -> Vec<u8> {
        let headers = (size_of::<Elf64Ehdr>() + 2 * size_of::<Elf64Phdr>()) as u64;
        let mut ident = [0; 16];
        ident[..4].copy_from_slice(&elf::ELFMAG);
        ident[4..7].copy_from_slice(&[elf::ELFCLASS64, elf::ELFDATA2LSB, elf::EV_CURRENT]);
        let ehdr = Elf64Ehdr {
            e_ident: ident,
            e_type: elf::ET_EXEC,
            e_machine: elf::EM_X86_64,
            e_version: 1,
            e_entry: BASE + headers,
            e_phoff: size_of::<Elf64Ehdr>() as u64,
            e_shoff: 0,
            e_flags: 0,
            e_ehsize: 64,
            e_phentsize: 56,
            e_phnum: 2,
            e_shentsize: 0,
            e_shnum: 0,
            e_shstrndx: 0,
        };
        let size = headers + self.0.len() as u64;
        let load = |flags, vaddr: u64, filesz, memsz| Elf64Phdr {
            p_type: elf::PT_LOAD,
            p_flags: flags,
            p_offset: 0,
            p_vaddr: vaddr,
            p_paddr: vaddr,
            p_filesz: filesz,
            p_memsz: memsz,
            p_align: 4096,
        };
        let text = load(elf::PF_R | elf::PF_X, BASE, size, size);
        let data = load(elf::PF_R | elf::PF_W, u64::from(SCRATCH), 0, 4096);
        [ehdr.as_bytes(), text.as_bytes(), data.as_bytes(), &self.0].concat()
    }
}
