//! Who writes a file and who executes it, Linux `i_writecount`: never both, `ETXTBSY`.
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use abi::Errno;

use crate::InodeOps;

/// Above zero how often a file is open for writing, below zero how often it is a running program.
#[derive(Debug, Default)]
pub struct WriteCount(AtomicI32);

impl WriteCount {
    /// Counts one more of a kind: 1 for a writer, -1 for a program.
    fn take(&self, kind: i32) -> Result<(), Errno> {
        let add = |n: i32| if n.signum() == -kind { None } else { n.checked_add(kind) };
        let taken = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        taken.map(drop).map_err(|_other_kind| Errno::ETXTBSY)
    }

    fn give_back(&self, kind: i32) {
        self.0.fetch_sub(kind, Ordering::SeqCst);
    }
}

/// One count of an inode, until dropped.
#[derive(Debug)]
pub(crate) struct WriteHold {
    inode: Arc<dyn InodeOps>,
    kind: i32,
}

impl WriteHold {
    fn take(inode: &Arc<dyn InodeOps>, kind: i32) -> Result<Option<Arc<Self>>, Errno> {
        let Some(count) = inode.write_count() else { return Ok(None) };
        count.take(kind)?;
        Ok(Some(Arc::new(Self { inode: Arc::clone(inode), kind })))
    }

    /// For who writes, Linux `get_write_access`; `None` where the inode does not count.
    pub(crate) fn writer(inode: &Arc<dyn InodeOps>) -> Result<Option<Arc<Self>>, Errno> {
        Self::take(inode, 1)
    }

    /// For a running program, Linux `deny_write_access`.
    pub(crate) fn program(inode: &Arc<dyn InodeOps>) -> Result<Option<Arc<Self>>, Errno> {
        Self::take(inode, -1)
    }

    /// Tells whether it is a writer's.
    pub(crate) const fn is_writer(&self) -> bool {
        self.kind > 0
    }
}

impl Drop for WriteHold {
    fn drop(&mut self) {
        if let Some(count) = self.inode.write_count() {
            count.give_back(self.kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_and_programs_exclude_each_other() {
        let count = WriteCount::default();
        for kind in [1, -1] {
            assert_eq!((count.take(kind), count.take(kind)), (Ok(()), Ok(())));
            assert_eq!(count.take(-kind), Err(Errno::ETXTBSY));
            count.give_back(kind);
            assert_eq!(count.take(-kind), Err(Errno::ETXTBSY));
            count.give_back(kind);
        }
        assert_eq!(count.0.into_inner(), 0);
    }
}
