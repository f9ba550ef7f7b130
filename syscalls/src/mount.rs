//! Mounts: `mount(2)`, `umount2(2)`, `pivot_root(2)`.
use abi::Errno;

use crate::Cx;
use crate::decode::{Arg, UserPtr};

type Ptr = UserPtr<u8>;
/// How much of the options is read, a page.
const DATA_MAX: usize = 4096;

/// Copies a string in; the null pointer is an empty one.
fn string(cx: &Cx<'_>, at: Ptr) -> Result<Vec<u8>, Errno> {
    if at.is_null() {
        return Ok(Vec::new());
    }
    cx.memory()?.read_cstr(at.addr(), DATA_MAX).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })
}

/// `mount(2)`
///
/// # Errors
/// Those of mount(2).
pub fn mount(
    cx: &mut Cx<'_>,
    source: Ptr,
    target: Ptr,
    kind: Ptr,
    flags: u64,
    data: Ptr,
) -> Result<usize, Errno> {
    let (kind, source, data) = (string(cx, kind)?, string(cx, source)?, string(cx, data)?);
    let target = cx.path(target)?;
    // The upper half of the flags is Linux's own.
    let flags = Arg(flags).low();
    cx.vfs(|vfs| vfs.mount(&source, &target, &kind, flags, &data)).map(|()| 0)
}

/// `umount2(2)`
///
/// # Errors
/// Those of umount(2).
pub fn umount2(cx: &mut Cx<'_>, target: Ptr, flags: u32) -> Result<usize, Errno> {
    let target = cx.path(target)?;
    cx.vfs(|vfs| vfs.umount(&target, flags)).map(|()| 0)
}

/// `pivot_root(2)`
///
/// # Errors
/// Those of pivot_root(2).
pub fn pivot_root(cx: &mut Cx<'_>, new_root: Ptr, put_old: Ptr) -> Result<usize, Errno> {
    let (new_root, put_old) = (cx.path(new_root)?, cx.path(put_old)?);
    cx.vfs(|vfs| vfs.pivot_root(&new_root, &put_old)).map(|()| 0)
}
