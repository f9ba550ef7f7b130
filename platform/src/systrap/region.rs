//! How a guest thread of a stub comes to be.
use std::fs::File;
use std::os::fd::AsRawFd;

use super::area::{AREA, AreaSlot, SLOT};
use super::code;
use crate::stub::blob;
use crate::stub::control::Operation;
use crate::stub::layout::PAGE;
use crate::stub::template::THREAD_FLAGS;

/// The operations by which a mapper makes the thread of this slot; the answer is its id. The thread then waits for a
/// command, and can make no host call but those of its hand-off.
pub(crate) fn new_thread(code: &File, slot: &AreaSlot) -> [Operation; 3] {
    let fd = |fd: i32| u64::from(fd.cast_unsigned());
    let bits = |bits: i32| u64::from(bits.cast_unsigned());
    let flags = bits(libc::MAP_SHARED | libc::MAP_FIXED);
    let region = slot.region();
    let execute = bits(libc::PROT_READ | libc::PROT_EXEC);
    let write = bits(libc::PROT_READ | libc::PROT_WRITE);
    let start = region + code::start_offset();
    [
        Operation::call(
            libc::SYS_mmap,
            [region, PAGE, execute, flags, fd(code.as_raw_fd()), blob::THREAD_PAGE],
        ),
        Operation::call(
            libc::SYS_mmap,
            [region + AREA, SLOT, write, flags, fd(slot.areas().fd()), slot.offset()],
        ),
        Operation {
            kind: blob::KIND_TRAPPING_THREAD,
            nr: libc::SYS_clone,
            args: [bits(THREAD_FLAGS), 0, 0, 0, start, region],
        },
    ]
}
