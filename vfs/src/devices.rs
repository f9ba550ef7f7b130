//! Character devices of memory, `null(4)`, `full(4)`, `random(4)`.
use std::sync::Arc;

use abi::Errno;
use kernel::Kernel;
use memmap::{IoDst, IoSrc, Mappable, MemoryFile};

use crate::{CharDevice, FileOps, OpCx, register_char_device};

/// The major number of memory devices.
const MEM_MAJOR: u32 = 1;
/// How much is made at once.
const CHUNK: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

#[derive(Debug)]
struct MemFile {
    kind: Kind,
    memory: Arc<MemoryFile>,
}

impl FileOps for MemFile {
    fn read_at(&self, cx: &OpCx<'_>, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        match self.kind {
            Kind::Null => Ok(0),
            Kind::Zero | Kind::Full => dst.write_zeros(dst.remaining()),
            Kind::Random => {
                let kernel = cx.task.ok_or(Errno::EIO)?.kernel();
                dst.write_from(dst.remaining().min(CHUNK), &mut |into| {
                    kernel.fill_random(into);
                    Ok(into.len())
                })
            }
        }
    }

    fn write_at(&self, _: &OpCx<'_>, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        if self.kind == Kind::Full && src.remaining() > 0 {
            return Err(Errno::ENOSPC);
        }
        let n = src.remaining();
        src.limit(0);
        Ok(n)
    }

    /// A position means nothing.
    fn seek(&self, _: &OpCx<'_>, _: u64, _: i64, _: u32) -> Result<u64, Errno> {
        Ok(0)
    }

    fn mappable(&self, _: &OpCx<'_>) -> Result<Arc<dyn Mappable>, Errno> {
        if self.kind == Kind::Zero { Ok(memmap::zero_memory(&self.memory)) } else { Err(Errno::ENODEV) }
    }
}

#[derive(Debug)]
struct MemDevices {
    memory: Arc<MemoryFile>,
}

impl CharDevice for MemDevices {
    fn open(&self, _: &OpCx<'_>, minor: u32, _: u32) -> Result<Arc<dyn FileOps>, Errno> {
        let kind = match minor {
            3 => Kind::Null,
            5 => Kind::Zero,
            7 => Kind::Full,
            8 | 9 => Kind::Random,
            _ => return Err(Errno::ENXIO),
        };
        Ok(Arc::new(MemFile { kind, memory: Arc::clone(&self.memory) }))
    }
}

/// Registers `null`, `zero`, `full`, `random` and `urandom`.
pub fn register(kernel: &Kernel) {
    let memory = Arc::clone(kernel.memory_file());
    register_char_device(MEM_MAJOR, 0, 255, Arc::new(MemDevices { memory }));
}
