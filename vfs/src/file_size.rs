//! The limit of file sizes, `RLIMIT_FSIZE` of `getrlimit(2)`.
use abi::{Errno, Signal};
use kernel::signal::{SigInfo, send_to_task};
use kernel::{RLIMIT_FSIZE, Task};

/// Raises `SIGXFSZ` in a task that wrote or grew beyond its limit.
pub(crate) fn exceeded(task: &Task) {
    if let Some(shared) = task.kernel().task(task.tid()) {
        // A task that is exiting gets no signals; the call still fails.
        let _gone = send_to_task(&shared, SigInfo::kernel(Signal::SIGXFSZ));
    }
}

/// Checks a new size of a regular file, truncate(2).
///
/// # Errors
/// `EFBIG`, after raising `SIGXFSZ`.
pub(crate) fn check(task: Option<&Task>, old: u64, new: u64) -> Result<(), Errno> {
    let Some(task) = task else { return Ok(()) };
    if new > old && new > task.group().limits().get(RLIMIT_FSIZE).0 {
        exceeded(task);
        return Err(Errno::EFBIG);
    }
    Ok(())
}
