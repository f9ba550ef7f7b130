//! Readiness of many files, epoll(7), Linux `fs/eventpoll.c`.
//!
//! Each watched file has an item, registered at the file's wait queue. A notification puts the item on the ready list; what
//! is on the list is asked again when it is collected, so the list may hold too much but never too little. No lock is held
//! while a file is asked.
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use kernel::{File, Task};
use sync::{LockClass, Mutex, PollEvents, WaitKey, WaitQueue, Wake};

use crate::{FileDescription, FileOps, OpCx};

/// `EPOLLEXCLUSIVE`.
pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
/// `EPOLLWAKEUP`, which does nothing without the capability for it.
pub const EPOLLWAKEUP: u32 = 1 << 29;
/// `EPOLLONESHOT`.
pub const EPOLLONESHOT: u32 = 1 << 30;
/// `EPOLLET`.
pub const EPOLLET: u32 = 1 << 31;
/// Bits that are not conditions.
const PRIVATE: u32 = EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET;
/// What may be asked for together with [`EPOLLEXCLUSIVE`].
const EXCLUSIVE_OK: u32 =
    0x1 | 0x4 | 0x8 | 0x10 | 0x2000 | 0x40 | 0x100 | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
/// How deep epoll instances may watch each other, Linux `EP_MAX_NESTS`.
const MAX_NESTS: usize = 4;

/// What is reported unasked.
fn with_always(interest: Interest) -> Interest {
    Interest { events: interest.events | PollEvents::ALWAYS.0, ..interest }
}

/// What is watched for: conditions, private bits, and the data that is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// `EPOLL*`.
    pub events: u32,
    /// `epoll_data_t`.
    pub data: u64,
}

#[derive(Debug)]
struct Item {
    epoll: Weak<Epoll>,
    file: Weak<dyn File>,
    interest: Mutex<Interest>,
    key: Mutex<Option<WaitKey>>,
    /// Whether it is on the ready list.
    listed: AtomicBool,
    /// Taken out by `EPOLL_CTL_DEL`, though still on the ready list.
    removed: AtomicBool,
}

impl Item {
    fn list(self: &Arc<Self>) {
        let Some(epoll) = self.epoll.upgrade() else { return };
        if !self.listed.swap(true, Ordering::SeqCst) {
            epoll.ready.lock().push_back(Arc::clone(self));
        }
        epoll.events.notify(PollEvents::READABLE);
    }

    fn wanted(&self) -> PollEvents {
        PollEvents(self.interest.lock().events & !PRIVATE)
    }

    /// What of the wanted conditions holds now.
    fn poll(&self, task: &Task) -> PollEvents {
        let wanted = self.wanted();
        match self.file.upgrade() {
            Some(file) if !wanted.is_empty() && !self.removed.load(Ordering::SeqCst) => {
                file.poll(task) & wanted
            }
            _ => PollEvents::NONE,
        }
    }

    fn detach(&self) {
        self.removed.store(true, Ordering::SeqCst);
        let key = self.key.lock().take();
        if let (Some(file), Some(key)) = (self.file.upgrade(), key)
            && let Some(queue) = file.wait_queue()
        {
            queue.unregister(key);
        }
    }
}

/// What a watched file's wait queue calls.
struct Listing(Weak<Item>);

impl Wake for Listing {
    fn wake(&self, events: PollEvents) {
        // What the item does not want is no edge either.
        if let Some(item) = self.0.upgrade()
            && item.wanted().intersects(events)
        {
            item.list();
        }
    }
}

/// Names a watched file: the descriptor it was added by, and the open file description.
type Key = (i32, usize);

fn key_of(fd: i32, file: &Arc<dyn File>) -> Key {
    (fd, Arc::as_ptr(file).cast::<()>().addr())
}

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    items: Mutex<BTreeMap<Key, Arc<Item>>>,
    ready: Mutex<VecDeque<Arc<Item>>>,
    events: WaitQueue,
}

/// Serialises what could make epoll instances watch each other in a circle.
static NESTING: Mutex<()> = Mutex::new(LockClass::Sandbox, ());

/// The epoll instance behind an open file, if it is one.
fn epoll_of(file: &dyn File) -> Option<&Epoll> {
    file.downcast_ref::<FileDescription>()?.ops().downcast_ref::<Epoll>()
}

impl Epoll {
    /// An instance that watches nothing.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            items: Mutex::new(LockClass::Epoll, BTreeMap::new()),
            ready: Mutex::new(LockClass::Leaf, VecDeque::new()),
            events: WaitQueue::new(),
        })
    }

    /// `EPOLL_CTL_ADD`.
    ///
    /// # Errors
    /// `EPERM` for a file that is always ready, `EEXIST`, `EINVAL` for itself or a bad combination of bits, `ELOOP` for a
    /// circle or too deep a nesting.
    pub fn add(
        self: &Arc<Self>,
        task: &Task,
        fd: i32,
        file: &Arc<dyn File>,
        interest: Interest,
    ) -> Result<(), Errno> {
        let queue = file.wait_queue().ok_or(Errno::EPERM)?;
        let inner = epoll_of(file.as_ref());
        if inner.is_some_and(|e| std::ptr::eq(e, Arc::as_ptr(self))) {
            return Err(Errno::EINVAL);
        }
        if interest.events & EPOLLEXCLUSIVE != 0 && (inner.is_some() || interest.events & !EXCLUSIVE_OK != 0)
        {
            return Err(Errno::EINVAL);
        }
        let _nesting = inner.map(|_| NESTING.lock());
        if let Some(inner) = inner
            && (inner.reaches(self, 0)? || self.depth_above() + inner.depth_below(0) > MAX_NESTS)
        {
            return Err(Errno::ELOOP);
        }
        let item = self.insert(fd, file, interest)?;
        let wake: Arc<dyn Wake> = Arc::new(Listing(Arc::downgrade(&item)));
        *item.key.lock() = Some(queue.register(PollEvents::ALL, wake));
        if item.removed.load(Ordering::SeqCst) {
            item.detach();
        }
        if !item.poll(task).is_empty() {
            item.list();
        }
        Ok(())
    }

    fn insert(
        self: &Arc<Self>,
        fd: i32,
        file: &Arc<dyn File>,
        interest: Interest,
    ) -> Result<Arc<Item>, Errno> {
        let key = key_of(fd, file);
        let item = Arc::new(Item {
            epoll: Arc::downgrade(self),
            file: Arc::downgrade(file),
            interest: Mutex::new(LockClass::Leaf, with_always(interest)),
            key: Mutex::new(LockClass::Leaf, None),
            listed: AtomicBool::new(false),
            removed: AtomicBool::new(false),
        });
        let mut items = self.items.lock();
        // Files whose last descriptor is closed leave by themselves.
        items.retain(|_, i| i.file.strong_count() > 0);
        if items.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        items.insert(key, Arc::clone(&item));
        Ok(item)
    }

    fn find(&self, fd: i32, file: &Arc<dyn File>) -> Result<Arc<Item>, Errno> {
        self.items.lock().get(&key_of(fd, file)).cloned().ok_or(Errno::ENOENT)
    }

    /// `EPOLL_CTL_MOD`.
    ///
    /// # Errors
    /// `ENOENT`, `EINVAL` where `EPOLLEXCLUSIVE` is or was asked for.
    pub fn modify(
        &self,
        task: &Task,
        fd: i32,
        file: &Arc<dyn File>,
        interest: Interest,
    ) -> Result<(), Errno> {
        let item = self.find(fd, file)?;
        {
            let mut now = item.interest.lock();
            if (now.events | interest.events) & EPOLLEXCLUSIVE != 0 {
                return Err(Errno::EINVAL);
            }
            *now = with_always(interest);
        }
        if !item.poll(task).is_empty() {
            item.list();
        }
        Ok(())
    }

    /// `EPOLL_CTL_DEL`.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn remove(&self, fd: i32, file: &Arc<dyn File>) -> Result<(), Errno> {
        let item = self.items.lock().remove(&key_of(fd, file)).ok_or(Errno::ENOENT)?;
        item.detach();
        Ok(())
    }

    /// Hands what is ready, at most `max`, to `give` with its number, and tells how many it took; level-triggered files
    /// stay on the list, behind the others. What `give` refuses stays too, and ends it.
    ///
    /// # Errors
    /// What `give` says of the first one.
    pub fn collect(
        &self,
        task: &Task,
        max: usize,
        mut give: impl FnMut(usize, Interest) -> Result<(), Errno>,
    ) -> Result<usize, Errno> {
        let mut given = 0;
        let mut refused = Ok(());
        let mut again = Vec::new();
        let mut left = self.ready.lock().len();
        while given < max && left > 0 {
            left -= 1;
            let Some(item) = self.ready.lock().pop_front() else { break };
            // Before the file is asked, so that what happens after is told again.
            item.listed.store(false, Ordering::SeqCst);
            let ready = item.poll(task);
            if ready.is_empty() {
                continue;
            }
            let data = item.interest.lock().data;
            refused = give(given, Interest { events: ready.0, data });
            if refused.is_err() {
                again.push(item);
                break;
            }
            given += 1;
            let mut interest = item.interest.lock();
            if interest.events & EPOLLONESHOT != 0 {
                interest.events &= PRIVATE;
            } else if interest.events & EPOLLET == 0 {
                drop(interest);
                again.push(item);
            }
        }
        let mut ready = self.ready.lock();
        for item in again {
            if !item.listed.swap(true, Ordering::SeqCst) {
                ready.push_back(item);
            }
        }
        if given == 0 { refused.map(|()| 0) } else { Ok(given) }
    }

    /// Tells whether anything is ready; what is not leaves the list.
    fn is_ready(&self, task: &Task) -> bool {
        let mut left = self.ready.lock().len();
        while left > 0 {
            left -= 1;
            let Some(item) = self.ready.lock().pop_front() else { return false };
            item.listed.store(false, Ordering::SeqCst);
            if !item.poll(task).is_empty() {
                if !item.listed.swap(true, Ordering::SeqCst) {
                    self.ready.lock().push_front(item);
                }
                return true;
            }
        }
        false
    }

    fn watched(&self) -> Vec<Arc<dyn File>> {
        self.items.lock().values().filter_map(|i| i.file.upgrade()).collect()
    }

    /// Tells whether this instance watches `target`, through others.
    fn reaches(&self, target: &Arc<Self>, depth: usize) -> Result<bool, Errno> {
        if depth > MAX_NESTS {
            return Err(Errno::ELOOP);
        }
        for file in self.watched() {
            if let Some(inner) = epoll_of(file.as_ref())
                && (std::ptr::eq(inner, Arc::as_ptr(target)) || inner.reaches(target, depth + 1)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn depth_below(&self, depth: usize) -> usize {
        if depth > MAX_NESTS {
            return depth;
        }
        let watched = self.watched();
        let inner = watched.iter().filter_map(|f| epoll_of(f.as_ref()));
        1 + inner.map(|e| e.depth_below(depth + 1)).max().unwrap_or(0)
    }

    /// How many instances are above: they wait in this one's queue, which does not tell, so one is assumed if any.
    fn depth_above(&self) -> usize {
        usize::from(!self.events.is_empty())
    }
}

impl FileOps for Epoll {
    fn stream(&self) -> bool {
        true
    }

    fn noop_seek(&self) -> bool {
        true
    }

    fn poll(&self, cx: &OpCx<'_>) -> PollEvents {
        let ready = cx.task.is_some_and(|task| self.is_ready(task));
        if ready { PollEvents::READABLE } else { PollEvents::NONE }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.events)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for item in std::mem::take(self.items.get_mut()).into_values() {
            item.detach();
        }
    }
}
