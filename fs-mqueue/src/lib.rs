//! POSIX message queues, mq_overview(7), and the file system `mqueue` whose files they are.
//!
//! A sandbox has one instance, shared by all its mounts and by mq_open(2), as Linux has one an IPC namespace.
#![forbid(unsafe_code)]

mod account;
mod attributes;
mod queue;
mod root;

use std::sync::{Arc, OnceLock};

use abi::Errno;
use abi::time::Timespec;
use kernel::{Cap, RLIMIT_MSGQUEUE};
use vfs::{FileSystem, FileSystemType, InodeOps, OpCx, StatFs, register_filesystem};

pub use account::Charge;
pub use queue::{Limits, Notice, PRIO_MAX, Queue, Receiver};
pub use root::Root;

/// `MQUEUE_MAGIC`.
const MQUEUE_MAGIC: i64 = 0x1980_0202;
/// `/proc/sys/fs/mqueue/queues_max`.
pub const QUEUES_MAX: usize = 256;

/// The instance of this sandbox.
#[derive(Debug)]
pub struct Mqueue {
    root: Arc<Root>,
    device: u64,
}

static INSTANCE: OnceLock<Arc<Mqueue>> = OnceLock::new();

impl Mqueue {
    /// That instance, made at its first use; `now` is when.
    pub fn instance(now: Timespec) -> &'static Arc<Self> {
        INSTANCE.get_or_init(|| {
            let device = vfs::anonymous_device();
            Arc::new(Self { root: Root::new(device, now), device })
        })
    }

    /// Its directory.
    #[must_use]
    pub const fn directory(&self) -> &Arc<Root> {
        &self.root
    }
}

impl FileSystem for Mqueue {
    fn name(&self) -> &'static str {
        "mqueue"
    }
    fn root(&self) -> Arc<dyn InodeOps> {
        Arc::clone(&self.root) as Arc<dyn InodeOps>
    }
    fn stat_fs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { fs_type: MQUEUE_MAGIC, bsize: 4096, frsize: 4096, namelen: 255, ..StatFs::default() })
    }
    fn device(&self) -> u64 {
        self.device
    }
    fn is_virtual(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct MqueueType;

impl FileSystemType for MqueueType {
    fn name(&self) -> &'static str {
        "mqueue"
    }
    fn mount(&self, cx: &OpCx<'_>, _source: &[u8], _data: &[u8]) -> Result<Arc<dyn FileSystem>, Errno> {
        Ok(Arc::clone(Mqueue::instance(cx.now())) as Arc<dyn FileSystem>)
    }
}

/// Has mount(2) know mqueue.
pub fn register() {
    register_filesystem(Arc::new(MqueueType));
}

/// What the caller may have in all its queues.
fn byte_limit(cx: &OpCx<'_>) -> u64 {
    cx.task.map_or(u64::MAX, |task| task.group().limits().get(RLIMIT_MSGQUEUE).0)
}

/// Whether the limits of `/proc/sys/fs/mqueue` are not the caller's.
fn is_privileged(cx: &OpCx<'_>) -> bool {
    cx.creds.has_cap(Cap::SYS_RESOURCE)
}
