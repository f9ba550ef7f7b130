//! The end of threads and processes: `exit(2)`, `exit_group(2)`.
use abi::Errno;
use kernel::ExitStatus;

use crate::Cx;

/// `exit(2)`
///
/// # Errors
/// None.
pub fn exit(cx: &mut Cx<'_>, code: i32) -> Result<usize, Errno> {
    cx.cur.exit(code);
    Ok(0)
}

/// `exit_group(2)`
///
/// # Errors
/// None.
pub fn exit_group(cx: &mut Cx<'_>, code: i32) -> Result<usize, Errno> {
    cx.cur.exit_group(ExitStatus::Exited(code));
    Ok(0)
}
