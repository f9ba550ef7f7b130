//! What callers of a memory manager pass and get.
use std::ops::Range;
use std::sync::Arc;

use abi::Signal;

use crate::Mappable;

/// The resource limits that memory calls check, in bytes; the default is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmLimits {
    /// `RLIMIT_AS`.
    pub address_space: u64,
    /// `RLIMIT_DATA`.
    pub data: u64,
    /// `RLIMIT_MEMLOCK`; `u64::MAX` for a caller with `CAP_IPC_LOCK`.
    pub memlock: u64,
}

impl Default for MmLimits {
    fn default() -> Self {
        Self { address_space: u64::MAX, data: u64::MAX, memlock: u64::MAX }
    }
}

/// The file of a mapping.
#[derive(Clone, Debug)]
pub struct MmapFile {
    /// The contents.
    pub mappable: Arc<dyn Mappable>,
    /// The file offset of the first byte; must be a multiple of the page size.
    pub offset: u64,
    /// Whether a shared mapping may be made writable: the file is open for writing.
    pub may_write: bool,
    /// Whether the mapping may be made executable: the file's mount allows it.
    pub may_exec: bool,
}

/// The arguments of mmap(2).
#[derive(Clone, Debug, Default)]
pub struct MmapArgs {
    /// Where, or near where.
    pub addr: u64,
    /// How many bytes.
    pub len: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// `MAP_*`.
    pub flags: u32,
    /// The file, unless `MAP_ANONYMOUS` is set.
    pub file: Option<MmapFile>,
    /// What the caller may use.
    pub limits: MmLimits,
    /// What `/proc/PID/maps` shows in place of a path, such as `[vdso]`.
    pub name: Option<&'static str>,
}

/// Where the parts of a program are, as Linux's `mm_struct` keeps them for `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of mm_struct and of PR_SET_MM in prctl(2)")]
pub struct MmLayout {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}

/// The signal that an access which cannot be resolved raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSignal {
    /// `SIGSEGV` or `SIGBUS`.
    pub signal: Signal,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub addr: u64,
}

impl FaultSignal {
    /// `si_code` of `SIGSEGV`: nothing is mapped there.
    pub const SEGV_MAPERR: i32 = 1;
    /// `si_code` of `SIGSEGV`: the mapping does not allow that access.
    pub const SEGV_ACCERR: i32 = 2;
    /// `si_code` of `SIGBUS`: the file or the memory ends before.
    pub const BUS_ADRERR: i32 = 2;
}

/// What a futex waits at, equal for all who see the same word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FutexKey {
    /// A word of one address space, waited at with `FUTEX_PRIVATE_FLAG`.
    Private {
        /// The number of the memory manager.
        mm: u64,
        /// The address.
        addr: u64,
    },
    /// A word of one address space that no other shares, waited at without that flag.
    Unshared {
        /// The number of the memory manager.
        mm: u64,
        /// The address.
        addr: u64,
    },
    /// A word of a shared page of the memory file.
    Memory {
        /// The offset in the memory file.
        offset: u64,
    },
    /// A word of a shared host file.
    File {
        /// The file's device.
        dev: u64,
        /// The file's inode number.
        ino: u64,
        /// The offset in the file.
        offset: u64,
    },
}

/// The operations of `FUTEX_WAKE_OP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    /// Stores the operand.
    Set,
    /// Adds it.
    Add,
    /// Sets its bits.
    Or,
    /// Clears its bits.
    AndNot,
    /// Flips its bits.
    Xor,
}

/// One line of `/proc/PID/maps` and what `/proc/PID/smaps` adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmaInfo {
    /// The addresses.
    pub range: Range<u64>,
    /// `PROT_*`.
    pub prot: u32,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// The file offset of the first byte.
    pub offset: u64,
    /// The file's device, Linux's encoding, or 0.
    pub dev: u64,
    /// The file's inode number, or 0.
    pub ino: u64,
    /// The file's path or a name such as `[heap]`; may be empty.
    pub name: Vec<u8>,
    /// Bytes that memory backs.
    pub rss: u64,
    /// Those of them that no file has.
    pub anonymous: u64,
    /// Bytes that are locked.
    pub locked: u64,
    /// The two-letter flags of `VmFlags`.
    pub vm_flags: Vec<&'static str>,
}

/// What `/proc/PID/status` and `/proc/PID/statm` show, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmStatus {
    /// `VmPeak`.
    pub peak: u64,
    /// `VmSize`.
    pub size: u64,
    /// `VmLck`.
    pub locked: u64,
    /// `VmHWM`.
    pub peak_rss: u64,
    /// `RssAnon`.
    pub rss_anon: u64,
    /// `RssFile`.
    pub rss_file: u64,
    /// `RssShmem`.
    pub rss_shmem: u64,
    /// `VmData`.
    pub data: u64,
    /// `VmStk`.
    pub stack: u64,
    /// `VmExe`.
    pub exe: u64,
    /// `VmLib`.
    pub lib: u64,
}

impl MmStatus {
    /// `VmRSS`.
    #[must_use]
    pub const fn rss(&self) -> u64 {
        self.rss_anon + self.rss_file + self.rss_shmem
    }
}
