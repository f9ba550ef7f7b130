//! Guest memory: the memory file, VMAs, PMAs, faults and user-memory access.

mod anonymous;
#[expect(unsafe_code, reason = "maps a page of a file and recovers from its truncation")]
mod host_word;
mod io;
mod mappable;
mod mappings;
mod memory_file;
mod mm;

pub use anonymous::zero_memory;
pub use io::{IoDst, IoSrc, IoVec};
pub use mappable::{Backing, FileRange, HostMemory, Mappable, MappingKey};
pub use mappings::Mappings;
pub use memory_file::MemoryFile;
pub use mm::{
    AtomicOp, FaultSignal, FutexKey, MemoryManager, MmLayout, MmLimits, MmStatus, MmapArgs, MmapFile, VmaInfo,
};

/// The page size of guests and of the host.
pub const PAGE: u64 = 4096;
