//! Owner, permissions and times of an inode.
use abi::Errno;
use abi::time::Timespec;
use sync::{LockClass, Mutex};
use vfs::{Metadata, OpCx, SetAttr, SetTime};

#[derive(Debug)]
pub(crate) struct Attributes(Mutex<Metadata>);

impl Attributes {
    /// From what does not change, and `mode`, `uid` and `gid`; made `now`.
    pub(crate) fn new(meta: Metadata, now: Timespec) -> Self {
        let meta = Metadata { atime: now, mtime: now, ctime: now, btime: now, blksize: 4096, ..meta };
        Self(Mutex::new(LockClass::Inode, meta))
    }

    pub(crate) fn get(&self) -> Metadata {
        *self.0.lock()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Metadata)) {
        change(&mut self.0.lock());
    }

    /// Changes what can be changed, Linux `simple_setattr`; a size is taken and means nothing.
    pub(crate) fn set(&self, cx: &OpCx<'_>, attr: &SetAttr) -> Result<(), Errno> {
        let now = cx.now();
        let time = |time| match time {
            SetTime::Now => now,
            SetTime::At(at) => at,
        };
        let mut meta = self.0.lock();
        if let Some(mode) = attr.mode {
            meta.mode = meta.mode & abi::stat::S_IFMT | mode & 0o7777;
        }
        meta.uid = attr.uid.unwrap_or(meta.uid);
        meta.gid = attr.gid.unwrap_or(meta.gid);
        meta.atime = attr.atime.map_or(meta.atime, time);
        meta.mtime = attr.mtime.map_or(meta.mtime, time);
        meta.ctime = now;
        Ok(())
    }
}
