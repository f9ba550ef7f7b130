//! One queue: its messages, who waits, who is to be told.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use abi::siginfo::SI_MESGQ;
use abi::{Errno, Signal};
use kernel::signal::{SigFields, SigInfo, send_to_group};
use kernel::{Metadata, ThreadGroup};
use memmap::IoDst;
use sync::{LockClass, Mutex, PollEvents, WaitQueue};
use vfs::{Caching, FileOps, InodeOps, OpCx, SetAttr};

use crate::account::{Account, Charge};
use crate::attributes::Attributes;

/// Priorities are below this, `MQ_PRIO_MAX`.
pub const PRIO_MAX: u32 = 32_768;
/// What a message and a priority cost a user beside the text, Linux `sizeof(struct msg_msg)` and
/// `sizeof(struct posix_msg_tree_node)`.
const MESSAGE_COST: u64 = 48;
const PRIORITY_COST: u64 = 48;
/// What a queue without attributes gets, and what everybody may have: `/proc/sys/fs/mqueue`.
pub(crate) const MSG_MAX: i64 = 10;
pub(crate) const MSGSIZE_MAX: i64 = 8192;
/// What the privileged may have, Linux `HARD_MSGMAX`, `HARD_MSGSIZEMAX`.
const HARD_MSG_MAX: i64 = 65_536;
const HARD_MSGSIZE_MAX: i64 = 16 << 20;

/// How much a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages.
    pub messages: usize,
    /// Bytes of each.
    pub size: usize,
}

impl Limits {
    /// Those of a queue whose maker names none.
    pub const DEFAULT: Self = Self { messages: 10, size: 8192 };

    /// Those that mq_open(2) was given, Linux `mq_attr_ok`.
    ///
    /// # Errors
    /// `EINVAL` for what is not positive, or more than the caller may ask for.
    pub fn checked(messages: i64, size: i64, privileged: bool) -> Result<Self, Errno> {
        let most = if privileged { (HARD_MSG_MAX, HARD_MSGSIZE_MAX) } else { (MSG_MAX, MSGSIZE_MAX) };
        if messages <= 0 || size <= 0 || messages > most.0 || size > most.1 {
            return Err(Errno::EINVAL);
        }
        let number = |n: i64| usize::try_from(n).or(Err(Errno::EINVAL));
        Ok(Self { messages: number(messages)?, size: number(size)? })
    }

    /// What such a queue counts for, getrlimit(2) `RLIMIT_MSGQUEUE`.
    pub(crate) fn bytes(self) -> u64 {
        let messages = self.messages as u64;
        messages * (MESSAGE_COST + self.size as u64) + messages.min(u64::from(PRIO_MAX)) * PRIORITY_COST
    }
}

/// Who is told when a message comes to the empty queue, mq_notify(3).
#[derive(Clone, Debug)]
pub struct Notice {
    /// The process.
    pub owner: Weak<ThreadGroup>,
    /// The signal that it gets; `None` for no more than the registration.
    pub signal: Option<Signal>,
    /// `si_value`.
    pub value: u64,
}

#[derive(Debug, Default)]
struct State {
    /// By priority; no list is empty.
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: usize,
    bytes: u64,
    /// Receivers that sleep. As many messages as there are of them are theirs already.
    receivers: usize,
    notice: Option<Notice>,
}

impl State {
    /// Messages that are no waiting receiver's.
    const fn free(&self) -> usize {
        self.count.saturating_sub(self.receivers)
    }

    fn take(&mut self) -> Option<(Vec<u8>, u32)> {
        let mut last = self.messages.last_entry()?;
        let priority = *last.key();
        let text = last.get_mut().pop_front()?;
        if last.get().is_empty() {
            last.remove();
        }
        self.count -= 1;
        self.bytes -= text.len() as u64;
        Some((text, priority))
    }
}

/// A queue: its inode, and what is open of it.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    attributes: Attributes,
    state: Mutex<State>,
    changed: WaitQueue,
    _charge: Charge,
    /// What senders hold until there is room.
    under_way: Arc<Account>,
}

impl Queue {
    pub(crate) fn new(
        limits: Limits,
        attributes: Attributes,
        charge: Charge,
        under_way: Arc<Account>,
    ) -> Arc<Self> {
        Arc::new(Self {
            limits,
            attributes,
            state: Mutex::new(LockClass::FileState, State::default()),
            changed: WaitQueue::new(),
            _charge: charge,
            under_way,
        })
    }

    /// How much it holds.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// How many messages are in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.lock().free()
    }

    /// Who is told when messages come or go.
    #[must_use]
    pub const fn changes(&self) -> &WaitQueue {
        &self.changed
    }

    pub(crate) fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Lets a sender hold a message of this length, until the answer is dropped.
    ///
    /// # Errors
    /// `ENOMEM` where all senders of the sandbox hold too much.
    pub fn hold(&self, len: usize) -> Result<Charge, Errno> {
        self.under_way.charge(0, len as u64, u64::MAX).or(Err(Errno::ENOMEM))
    }

    /// Puts a message in, and takes it out of `text`.
    ///
    /// # Errors
    /// `EAGAIN` while the queue is full.
    pub fn send(&self, cx: &OpCx<'_>, text: &mut Vec<u8>, priority: u32) -> Result<(), Errno> {
        let told = {
            let mut state = self.state.lock();
            if state.count >= self.limits.messages {
                return Err(Errno::EAGAIN);
            }
            // The queue is empty, and the message is not for a receiver that waits.
            let told = (state.count == state.receivers).then(|| state.notice.take()).flatten();
            state.count += 1;
            state.bytes += text.len() as u64;
            state.messages.entry(priority).or_default().push_back(std::mem::take(text));
            told
        };
        self.touch(cx);
        self.changed.notify(PollEvents::READABLE);
        if let Some(notice) = told {
            tell(cx, &notice);
        }
        Ok(())
    }

    /// Takes the first message of the highest priority; `waited` for a receiver that [`Self::wait`] counts.
    ///
    /// # Errors
    /// `EAGAIN` while there is none.
    pub fn receive(&self, cx: &OpCx<'_>, waited: bool) -> Result<(Vec<u8>, u32), Errno> {
        let taken = {
            let mut state = self.state.lock();
            if !waited && state.free() == 0 {
                return Err(Errno::EAGAIN);
            }
            state.take().ok_or(Errno::EAGAIN)?
        };
        self.touch(cx);
        self.changed.notify(PollEvents::WRITABLE);
        Ok(taken)
    }

    /// Counts a receiver as waiting, until the answer is dropped.
    #[must_use]
    pub fn wait(&self) -> Receiver<'_> {
        self.state.lock().receivers += 1;
        Receiver(self)
    }

    /// Registers who is told.
    ///
    /// # Errors
    /// `EBUSY` where somebody is.
    pub fn register(&self, notice: Notice) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.notice.as_ref().is_some_and(|there| there.owner.strong_count() > 0) {
            return Err(Errno::EBUSY);
        }
        state.notice = Some(notice);
        Ok(())
    }

    /// Takes the registration of this process back, if it has it.
    pub fn unregister(&self, owner: &Arc<ThreadGroup>) {
        let mut state = self.state.lock();
        let own = state.notice.take_if(|notice| std::ptr::eq(notice.owner.as_ptr(), Arc::as_ptr(owner)));
        drop(state);
        drop(own);
    }

    fn touch(&self, cx: &OpCx<'_>) {
        let now = cx.now();
        self.attributes.change(|meta| (meta.atime, meta.mtime, meta.ctime) = (now, now, now));
    }
}

/// A receiver that waits.
#[derive(Debug)]
pub struct Receiver<'a>(&'a Queue);

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        let free = {
            let mut state = self.0.state.lock();
            state.receivers -= 1;
            state.free() > 0
        };
        // A message that was for this one is anybody's now.
        if free {
            self.0.changed.notify(PollEvents::READABLE);
        }
    }
}

/// Sends the signal of a notice, in the sender's name.
fn tell(cx: &OpCx<'_>, notice: &Notice) {
    let (Some(owner), Some(signal)) = (notice.owner.upgrade(), notice.signal) else { return };
    let pid = cx.task.map_or(0, kernel::Task::tgid);
    let fields = SigFields::Queue { pid, uid: cx.creds.uid, value: notice.value };
    // One that finds no room is lost, as on Linux.
    let _lost = send_to_group(&owner, SigInfo { signal, code: SI_MESGQ, errno: 0, fields });
}

impl InodeOps for Queue {
    fn metadata(&self) -> Result<Metadata, Errno> {
        Ok(self.attributes.get())
    }
    fn file_type(&self) -> u32 {
        abi::stat::S_IFREG
    }
    fn set_attr(&self, cx: &OpCx<'_>, attr: &SetAttr) -> Result<(), Errno> {
        self.attributes.set(cx, attr)
    }
    fn caching(&self) -> Caching {
        Caching::Never
    }
    fn open(self: Arc<Self>, _cx: &OpCx<'_>, _flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(self)
    }
}

impl FileOps for Queue {
    fn read_at(&self, _cx: &OpCx<'_>, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        let text = {
            let state = self.state.lock();
            let owner = state.notice.as_ref().and_then(|notice| notice.owner.upgrade());
            let told = state.notice.as_ref().filter(|_| owner.is_some());
            let kind = u8::from(told.is_some_and(|notice| notice.signal.is_none()));
            let signal = told.and_then(|notice| notice.signal).map_or(0, Signal::number);
            let pid = owner.map_or(0, |owner| owner.tgid());
            format!("QSIZE:{:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n", state.bytes)
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = text.as_bytes().get(from..).unwrap_or_default();
        dst.write_from(rest.len(), &mut |room| {
            let n = rest.len().min(room.len());
            let (now, later) = rest.split_at(n);
            room.get_mut(..n).unwrap_or_default().copy_from_slice(now);
            rest = later;
            Ok(n)
        })
    }
    fn size(&self) -> Result<u64, Errno> {
        Ok(self.attributes.get().size)
    }
    fn poll(&self, _cx: &OpCx<'_>) -> PollEvents {
        let state = self.state.lock();
        let mut events = PollEvents::default();
        if state.free() > 0 {
            events |= PollEvents::READABLE;
        }
        if state.count < self.limits.messages {
            events |= PollEvents::WRITABLE;
        }
        events
    }
    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.changed)
    }
    fn flush(&self, cx: &OpCx<'_>) -> Result<(), Errno> {
        if let Some(task) = cx.task {
            self.unregister(task.group());
        }
        Ok(())
    }
}
