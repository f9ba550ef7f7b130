//! Tells the command line that programs were ended for want of memory.
use std::os::fd::OwnedFd;

use kernel::Kernel;
use sync::{LockClass, Mutex};

/// Has the file hold how often that was, in decimal; who waits for it watches the file.
pub(super) fn record(kernel: &Kernel, file: OwnedFd) {
    let count = Mutex::new(LockClass::Leaf, 0_u64);
    kernel.on_out_of_memory(Box::new(move || {
        let now = {
            let mut count = count.lock();
            *count += 1;
            *count
        };
        // There is no other place to tell it. Of two at a time, one number stays: more than before.
        let _unrecorded = nix::sys::uio::pwrite(&file, format!("{now:020}").as_bytes(), 0);
    }));
}
