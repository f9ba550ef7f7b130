//! One name in one directory: the dentry cache, then the file system.
use std::sync::Arc;

use abi::Errno;

use crate::inode::Caching;
use crate::{Dentry, OpCx, SuperBlock};

/// How often a lookup starts again because the directory changed meanwhile.
const RETRIES: usize = 4;

/// Tells whether a cached dentry may be used.
fn is_fresh(cx: &OpCx<'_>, dentry: &Arc<Dentry>) -> bool {
    match dentry.inode() {
        // A missing name is kept only where the directory is cached for good.
        None => true,
        Some(inode) => match inode.caching() {
            Caching::Cached => true,
            Caching::Revalidate | Caching::Never => dentry.is_mountpoint() || inode.revalidate(cx),
        },
    }
}

/// Finds `name` in the directory `dir`; a dentry without an inode tells that it is missing.
///
/// # Errors
/// `ENOTDIR`, `EIO` and what else the file system fails with; `ENOENT` only where no names are ever made.
pub(crate) fn child(
    cx: &OpCx<'_>,
    sb: &Arc<SuperBlock>,
    dir: &Arc<Dentry>,
    name: &[u8],
) -> Result<Arc<Dentry>, Errno> {
    if let Some(known) = dir.cached(name) {
        if is_fresh(cx, &known) {
            return Ok(known);
        }
        dir.forget_child(&known);
        sb.cache.release(&known);
    }
    let directory = dir.inode().ok_or(Errno::ENOENT)?;
    for _ in 0..RETRIES {
        let generation = dir.generation();
        let found = match directory.lookup(cx, name) {
            Ok(inode) => Some(inode),
            Err(Errno::ENOENT) if directory.never_makes_names() => return Err(Errno::ENOENT),
            Err(Errno::ENOENT) if directory.caching() == Caching::Cached => None,
            Err(Errno::ENOENT) => return Ok(dir.unhashed(name, None)),
            Err(error) => return Err(error),
        };
        if let Some(dentry) = dir.insert(&sb.cache, name, found, generation) {
            return Ok(dentry);
        }
    }
    // A directory that never stands still: this answer was true a moment ago, and is not kept.
    match directory.lookup(cx, name) {
        Ok(inode) => Ok(dir.unhashed(name, Some(inode))),
        Err(Errno::ENOENT) => Ok(dir.unhashed(name, None)),
        Err(error) => Err(error),
    }
}
