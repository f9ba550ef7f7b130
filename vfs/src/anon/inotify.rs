//! Watching files, `inotify(7)`, Linux `fs/notify/inotify`.
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use memmap::IoDst;
use sync::{LockClass, Mutex, PollEvents, WaitQueue};

use crate::notify::Watcher;
use crate::notify::event::{IN_DELETE_SELF, IN_EXCL_UNLINK, IN_ISDIR, IN_UNMOUNT};
use crate::{FileOps, OpCx, Path};

/// Every condition that can be watched for.
const ALL_EVENTS: u32 = 0xfff;
/// Events were lost.
const IN_Q_OVERFLOW: u32 = 0x4000;
/// The watch is gone.
const IN_IGNORED: u32 = 0x8000;
/// Adds to the watch that is there.
const IN_MASK_ADD: u32 = 0x2000_0000;
/// Makes a watch that must not be there.
const IN_MASK_CREATE: u32 = 0x1000_0000;
/// The watch ends with its first event.
const IN_ONESHOT: u32 = 0x8000_0000;
/// `fs.inotify.max_queued_events`.
const MAX_EVENTS: usize = 16_384;
/// `fs.inotify.max_user_watches`.
const MAX_WATCHES: usize = 65_536;
/// `struct inotify_event` without its name.
const HEADER: usize = 16;
/// `FIONREAD`.
const FIONREAD: u32 = 0x541b;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: u32,
    cookie: u32,
    /// Empty for events of the watched file itself.
    name: Vec<u8>,
}

impl Event {
    /// The name's room: with its terminator, a multiple of the header's size.
    fn name_room(&self) -> usize {
        if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEADER) }
    }
    fn encode(&self) -> Vec<u8> {
        let room = self.name_room();
        let len = u32::try_from(room).unwrap_or(0);
        let mut out = Vec::with_capacity(HEADER + room);
        out.extend(self.wd.to_ne_bytes());
        for word in [self.mask, self.cookie, len] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(&self.name);
        out.resize(HEADER + room, 0);
        out
    }
}

/// A watched inode.
#[derive(Debug)]
struct Watch {
    inotify: Weak<Inotify>,
    wd: i32,
    mask: AtomicU32,
}

impl Watcher for Watch {
    fn event(&self, mask: u32, cookie: u32, name: Option<&[u8]>) {
        let wanted = self.mask.load(Ordering::SeqCst);
        if mask & wanted & IN_EXCL_UNLINK != 0 {
            return;
        }
        let mask = mask & !IN_EXCL_UNLINK;
        let gone = mask & (IN_DELETE_SELF | IN_UNMOUNT) != 0;
        let Some(inotify) = self.inotify.upgrade() else { return };
        if mask & wanted & ALL_EVENTS != 0 || mask & IN_UNMOUNT != 0 {
            inotify.queue(Event { wd: self.wd, mask, cookie, name: name.unwrap_or_default().to_vec() });
        } else if !gone {
            return;
        }
        if gone || wanted & IN_ONESHOT != 0 {
            // It may be gone already, by another thread.
            let _gone = inotify.remove(self.wd);
        }
    }
}

#[derive(Debug)]
struct Entry {
    path: Path,
    ino: u64,
    key: u64,
    watch: Arc<Watch>,
}

#[derive(Debug, Default)]
struct State {
    last_wd: i32,
    entries: BTreeMap<i32, Entry>,
    events: VecDeque<Event>,
    bytes: usize,
}

/// An inotify instance.
#[derive(Debug)]
pub struct Inotify {
    state: Mutex<State>,
    arrivals: WaitQueue,
    this: Weak<Self>,
}

impl Inotify {
    /// An instance that watches nothing.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            state: Mutex::new(LockClass::FileState, State::default()),
            arrivals: WaitQueue::new(),
            this: Weak::clone(this),
        })
    }

    fn queue(&self, event: Event) {
        {
            let mut state = self.state.lock();
            if state.events.back() == Some(&event) {
                return;
            }
            let event = match state.events.len() {
                n if n > MAX_EVENTS => return,
                MAX_EVENTS => Event { wd: -1, mask: IN_Q_OVERFLOW, cookie: 0, name: Vec::new() },
                _ => event,
            };
            state.bytes += HEADER + event.name_room();
            state.events.push_back(event);
        }
        self.arrivals.notify(PollEvents::READABLE);
    }

    /// inotify_add_watch(2) of what a path led to; the caller checked that it may be read.
    ///
    /// # Errors
    /// `EINVAL` without a condition, `EEXIST` for `IN_MASK_CREATE` of what is watched, `ENOSPC`.
    pub fn add(&self, path: &Path, mask: u32) -> Result<i32, Errno> {
        if mask & ALL_EVENTS == 0 || mask & IN_MASK_ADD != 0 && mask & IN_MASK_CREATE != 0 {
            return Err(Errno::EINVAL);
        }
        let ino = path.inode()?.metadata()?.ino;
        let kept = mask & (ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK);
        let (wd, watch) = {
            let mut state = self.state.lock();
            let same = |e: &&Entry| e.ino == ino && Arc::ptr_eq(e.path.mount.sb(), path.mount.sb());
            if let Some(entry) = state.entries.values().find(same) {
                if mask & IN_MASK_CREATE != 0 {
                    return Err(Errno::EEXIST);
                }
                let old = if mask & IN_MASK_ADD != 0 { entry.watch.mask.load(Ordering::SeqCst) } else { 0 };
                entry.watch.mask.store(old | kept, Ordering::SeqCst);
                return Ok(entry.watch.wd);
            }
            if state.entries.len() >= MAX_WATCHES {
                return Err(Errno::ENOSPC);
            }
            state.last_wd = state.last_wd.checked_add(1).ok_or(Errno::ENOSPC)?;
            let wd = state.last_wd;
            (wd, Arc::new(Watch { inotify: Weak::clone(&self.this), wd, mask: AtomicU32::new(kept) }))
        };
        let watcher: Arc<dyn Watcher> = Arc::<Watch>::clone(&watch);
        let key = path.mount.sb().watches.add(ino, watcher);
        self.state.lock().entries.insert(wd, Entry { path: path.clone(), ino, key, watch });
        Ok(wd)
    }

    /// inotify_rm_watch(2).
    ///
    /// # Errors
    /// `EINVAL` where there is no such watch.
    pub fn remove(&self, wd: i32) -> Result<(), Errno> {
        let entry = self.state.lock().entries.remove(&wd).ok_or(Errno::EINVAL)?;
        entry.path.mount.sb().watches.remove(entry.ino, entry.key);
        self.queue(Event { wd, mask: IN_IGNORED, cookie: 0, name: Vec::new() });
        Ok(())
    }
}

impl FileOps for Inotify {
    fn read_at(&self, _: &OpCx<'_>, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        let mut read = 0;
        loop {
            let event = {
                let mut state = self.state.lock();
                let Some(front) = state.events.front() else { break };
                let len = HEADER + front.name_room();
                if len > dst.remaining() {
                    return if read > 0 { Ok(read) } else { Err(Errno::EINVAL) };
                }
                state.bytes -= len;
                state.events.pop_front()
            };
            let Some(event) = event else { break };
            match dst.write(&event.encode()) {
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

    fn poll(&self, _: &OpCx<'_>) -> PollEvents {
        let empty = self.state.lock().events.is_empty();
        if empty { PollEvents::NONE } else { PollEvents::READABLE }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.arrivals)
    }

    fn ioctl(&self, cx: &OpCx<'_>, cmd: u32, arg: u64) -> Result<usize, Errno> {
        if cmd != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes = i32::try_from(self.state.lock().bytes).unwrap_or(i32::MAX);
        cx.mm()?.write_obj(arg, &bytes)?;
        Ok(0)
    }

    fn fdinfo(&self) -> Vec<u8> {
        let state = self.state.lock();
        let line = |(wd, e): (&i32, &Entry)| {
            let mask = e.watch.mask.load(Ordering::SeqCst);
            format!("inotify wd:{wd:x} ino:{:x} sdev:{:x} mask:{mask:x}\n", e.ino, e.path.mount.sb().device())
        };
        state.entries.iter().map(line).collect::<String>().into_bytes()
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        for entry in std::mem::take(&mut self.state.get_mut().entries).into_values() {
            entry.path.mount.sb().watches.remove(entry.ino, entry.key);
        }
    }
}

/// The bits of events that a directory's entry carries beside its condition.
const _: () = assert!(IN_ISDIR & ALL_EVENTS == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_padded_as_linux_pads_them() {
        let event = |name: &[u8]| Event { wd: 1, mask: 2, cookie: 3, name: name.to_vec() };
        assert_eq!(event(b"").encode().len(), HEADER);
        assert_eq!(event(b"a").encode().len(), 2 * HEADER);
        assert_eq!(event(&[b'x'; 15]).encode().len(), 2 * HEADER);
        assert_eq!(event(&[b'x'; 16]).encode().len(), 3 * HEADER);
    }

    #[test]
    fn equal_events_fold_and_a_full_queue_says_so() {
        let inotify = Inotify::new();
        let event = |cookie| Event { wd: 1, mask: 2, cookie, name: Vec::new() };
        inotify.queue(event(0));
        inotify.queue(event(0));
        assert_eq!(inotify.state.lock().events.len(), 1);
        for n in 1..20_000 {
            inotify.queue(event(n));
        }
        let state = inotify.state.lock();
        assert_eq!(state.events.len(), MAX_EVENTS + 1);
        assert_eq!(state.events.back().map(|e| e.mask), Some(IN_Q_OVERFLOW));
    }
}
