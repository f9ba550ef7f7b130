//! Signals that are read, signalfd(2), Linux `fs/signalfd.c`.
use std::sync::Arc;

use abi::siginfo::SI_TIMER;
use abi::{Errno, SigSet};
use kernel::ThreadGroup;
use kernel::signal::{self, SigFields, SigInfo};
use memmap::IoDst;
use sync::{LockClass, Mutex, PollEvents, WaitQueue};
use zerocopy::{Immutable, IntoBytes};

use crate::{FileOps, OpCx};

/// `struct signalfd_siginfo`.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
struct SignalfdSiginfo {
    signo: u32,
    errno: i32,
    code: i32,
    pid: u32,
    uid: u32,
    fd: i32,
    tid: u32,
    band: u32,
    overrun: u32,
    trapno: u32,
    status: i32,
    int: i32,
    ptr: u64,
    utime: u64,
    stime: u64,
    addr: u64,
    addr_lsb: u16,
    pad2: u16,
    syscall: i32,
    call_addr: u64,
    arch: u32,
    pad: [u8; 28],
}
const RECORD: usize = size_of::<SignalfdSiginfo>();
const _: () = assert!(RECORD == 128);

/// The low half of a `sigval`, its `int`.
fn int_of(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

fn record(info: &SigInfo) -> SignalfdSiginfo {
    let signo = info.signal.number().cast_unsigned();
    let base = SignalfdSiginfo { signo, errno: info.errno, code: info.code, ..SignalfdSiginfo::default() };
    match info.fields {
        SigFields::Kill { pid, uid } => SignalfdSiginfo { pid: pid.cast_unsigned(), uid, ..base },
        SigFields::Queue { pid, uid, value } => {
            SignalfdSiginfo { pid: pid.cast_unsigned(), uid, ptr: value, int: int_of(value), ..base }
        }
        SigFields::Timer { id, overrun, value } => SignalfdSiginfo {
            tid: id.cast_unsigned(),
            overrun: overrun.cast_unsigned(),
            ptr: value,
            int: int_of(value),
            ..base
        },
        SigFields::Child { pid, uid, status, utime, stime } => SignalfdSiginfo {
            pid: pid.cast_unsigned(),
            uid,
            status,
            utime: utime.cast_unsigned(),
            stime: stime.cast_unsigned(),
            ..base
        },
        SigFields::Fault { addr } => SignalfdSiginfo { addr, ..base },
        SigFields::Poll { band, fd } => {
            SignalfdSiginfo { fd, band: int_of(band.cast_unsigned()).cast_unsigned(), ..base }
        }
        // What a program made up is shown as rt_sigqueueinfo(2) has it, but for what pretends to be a timer.
        SigFields::Raw([ids, value, ..]) if info.code != SI_TIMER => SignalfdSiginfo {
            pid: int_of(ids).cast_unsigned(),
            uid: int_of(ids >> 32).cast_unsigned(),
            ptr: value,
            int: int_of(value),
            ..base
        },
        SigFields::Raw(_) => base,
    }
}

/// A signalfd.
#[derive(Debug)]
pub struct SignalFd {
    mask: Mutex<SigSet>,
    /// Whose signals announce themselves; a process that inherits the file reads its own signals.
    group: Arc<ThreadGroup>,
}

impl SignalFd {
    /// A signalfd for these signals.
    #[must_use]
    pub fn new(group: &Arc<ThreadGroup>, mask: SigSet) -> Arc<Self> {
        let mask = mask.difference(SigSet::UNBLOCKABLE);
        Arc::new(Self { mask: Mutex::new(LockClass::Leaf, mask), group: Arc::clone(group) })
    }

    /// Replaces the signals.
    pub fn set_mask(&self, mask: SigSet) {
        *self.mask.lock() = mask.difference(SigSet::UNBLOCKABLE);
        self.group.signals().arrivals().notify(PollEvents::READABLE);
    }
}

impl FileOps for SignalFd {
    fn read_at(&self, cx: &OpCx<'_>, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() < RECORD {
            return Err(Errno::EINVAL);
        }
        let task = cx.task.ok_or(Errno::EAGAIN)?;
        let mask = *self.mask.lock();
        let mut read = 0;
        while dst.remaining() >= RECORD {
            let Some(info) = signal::dequeue(task, mask) else { break };
            match dst.write(record(&info).as_bytes()) {
                Ok(n) => read += n,
                Err(_) if read > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if read == 0 { Err(Errno::EAGAIN) } else { Ok(read) }
    }

    fn stream(&self) -> bool {
        true
    }

    fn noop_seek(&self) -> bool {
        true
    }

    fn poll(&self, cx: &OpCx<'_>) -> PollEvents {
        let mask = *self.mask.lock();
        let ready = cx.task.is_some_and(|t| !signal::pending(t).intersection(mask).is_empty());
        if ready { PollEvents::READABLE } else { PollEvents::NONE }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.group.signals().arrivals())
    }

    fn fdinfo(&self) -> Vec<u8> {
        format!("sigmask:\t{:016x}\n", self.mask.lock().0).into_bytes()
    }
}
