//! rename(2) in an overlay.
use std::sync::Arc;

use abi::Errno;
use abi::fs::{RENAME_EXCHANGE, RENAME_NOREPLACE};
use vfs::{InodeOps, OpCx};

use crate::OPAQUE;
use crate::change::put_whiteout;
use crate::inode::{OverlayInode, Place, is_whiteout};

impl OverlayInode {
    pub(crate) fn rename_to(
        &self,
        cx: &OpCx<'_>,
        name: &[u8],
        new_dir: &Arc<Self>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE) != 0 {
            return Err(Errno::EINVAL);
        }
        let child = self.find(cx, name)?;
        let target = match new_dir.find(cx, new_name) {
            Err(Errno::ENOENT) => None,
            other => Some(other?),
        };
        let exchange = flags & RENAME_EXCHANGE != 0;
        if flags & RENAME_NOREPLACE != 0 && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if target.as_ref().is_some_and(|t| Arc::ptr_eq(t, &child)) {
            return Ok(());
        }
        child.copy_up_tree(cx, 0)?;
        match &target {
            Some(target) if exchange => target.copy_up_tree(cx, 0)?,
            Some(target) if target.is_dir() => target.check_empty(cx)?,
            _ if exchange => return Err(Errno::ENOENT),
            _ => {}
        }
        let (old, new) = (self.copy_up(None)?, new_dir.copy_up(None)?);
        let lower = (self.lower_has(cx, name)?, new_dir.lower_has(cx, new_name)?);
        self.with_both(new_dir, || {
            if exchange {
                return old.rename(cx, name, &new, new_name, RENAME_EXCHANGE);
            }
            self.rename_upper(cx, (name, &old), (new_dir, new_name, &new), &child, lower)
        })?;
        let fs = self.fs()?;
        if let (Some(target), true) = (&target, exchange) {
            let place = Place { parent: self.myself(&fs), name: name.to_vec(), removed: false };
            // Dropped without the lock, as the last reference to a directory may be.
            let old = std::mem::replace(&mut *target.place.lock(), place);
            drop(old);
        } else if let Some(target) = target.filter(|t| t.layers.read().upper.is_none()) {
            target.place.lock().removed = true;
        }
        let place = Place { parent: Some(Arc::clone(new_dir)), name: new_name.to_vec(), removed: false };
        let old = std::mem::replace(&mut *child.place.lock(), place);
        drop(old);
        Ok(())
    }

    /// Runs `f` with both directories locked.
    fn with_both<R>(&self, other: &Arc<Self>, f: impl FnOnce() -> R) -> R {
        let (a, b): (&Self, &Self) = (self, other.as_ref());
        if std::ptr::eq(a, b) {
            let _one = a.change.lock();
            return f();
        }
        let (first, second) =
            if std::ptr::from_ref(a).addr() < std::ptr::from_ref(b).addr() { (a, b) } else { (b, a) };
        let _first = first.change.lock();
        let _second = second.change.lock_nested();
        f()
    }

    fn rename_upper(
        &self,
        cx: &OpCx<'_>,
        (name, old): (&[u8], &Arc<dyn InodeOps>),
        (new_dir, new_name, new): (&Arc<Self>, &[u8], &Arc<dyn InodeOps>),
        child: &Self,
        (uncovers, hides): (bool, bool),
    ) -> Result<(), Errno> {
        let fs = self.fs()?;
        let own = fs.cx();
        let there = new_dir.upper_entry(&own, new_name)?;
        if child.is_dir() && hides {
            let upper = child.layers.read().upper.clone().ok_or(Errno::EIO)?;
            upper.set_xattr(&own, OPAQUE, b"y", 0)?;
        }
        // A directory cannot replace a whiteout, nor one that has whiteouts in it.
        if there.is_some_and(|t| t.is_dir() || child.is_dir() && is_whiteout(t.as_ref())) {
            new_dir.drop_upper(cx, &fs, new, new_name)?;
        }
        old.rename(cx, name, new, new_name, 0)?;
        if uncovers {
            put_whiteout(&fs, old, name)?;
        }
        Ok(())
    }
}
