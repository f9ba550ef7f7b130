//! One name in one directory: the dentry cache, then the file system.
use std::sync::Arc;

use abi::Errno;

use crate::dentry::Target;
use crate::inode::Caching;
use crate::{Dentry, InodeOps, OpCx, SuperBlock};

/// How often a lookup starts again because the directory changed meanwhile.
const RETRIES: usize = 4;

/// Tells whether a cached dentry may be used.
fn is_fresh(cx: &OpCx<'_>, directory: &Arc<dyn InodeOps>, dentry: &Arc<Dentry>) -> bool {
    match dentry.target() {
        Target::Missing(stamp) => {
            directory.caching() == Caching::Cached || directory.is_still_missing(*stamp)
        }
        Target::Inode(inode) => match inode.caching() {
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
    let directory = dir.inode().ok_or(Errno::ENOENT)?;
    if let Some(known) = dir.cached(name) {
        if is_fresh(cx, directory, &known) {
            return Ok(known);
        }
        dir.forget_child(&known);
        sb.cache.release(&known);
    }
    for _ in 0..RETRIES {
        let generation = dir.generation();
        let stamp = directory.missing_stamp();
        let found = match directory.lookup(cx, name) {
            Ok(inode) => Target::Inode(inode),
            Err(Errno::ENOENT) if directory.never_makes_names() => return Err(Errno::ENOENT),
            Err(Errno::ENOENT) if directory.caching() == Caching::Cached => Target::Missing(0),
            Err(Errno::ENOENT) => match stamp {
                Some(stamp) => Target::Missing(stamp),
                None => return Ok(dir.unhashed(name, Target::Missing(0))),
            },
            Err(error) => return Err(error),
        };
        if let Some(dentry) = dir.insert(&sb.cache, name, found, generation) {
            return Ok(dentry);
        }
    }
    // A directory that never stands still: this answer was true a moment ago, and is not kept.
    match directory.lookup(cx, name) {
        Ok(inode) => Ok(dir.unhashed(name, Target::Inode(inode))),
        Err(Errno::ENOENT) => Ok(dir.unhashed(name, Target::Missing(0))),
        Err(error) => Err(error),
    }
}
