//! Descriptors under way between sockets, `SCM_RIGHTS`, and the end of those that nobody can receive any more.
//!
//! A socket that is under way keeps what waits in its own queue. Sockets that are under way only in each other's queues are
//! garbage, found as Linux does (`unix_gc`, net/unix/garbage.c before 6.10): a socket all of whose references are under way
//! is a candidate; candidates with a reference in the queue of one that is none are live, and so is what waits in a live
//! one's queue.
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use kernel::File;
use sync::{LockClass, Mutex};
use vfs::FileDescription;

use super::file::UnixFile;
use super::message::Message;
use super::socket::UnixSocket;

/// Descriptors of one message.
#[derive(Debug, Default)]
pub(super) struct Rights(Vec<Arc<dyn File>>);

impl Rights {
    /// Sends them on their way; the caller holds no lock.
    pub(super) fn new(files: Vec<Arc<dyn File>>) -> Self {
        for file in &files {
            if socket_of(file).is_some() {
                let mut registry = REGISTRY.lock();
                let fresh = || InFlight { file: Arc::downgrade(file), count: 0 };
                registry.sockets.get_or_insert_default().entry(key(file)).or_insert_with(fresh).count += 1;
            }
        }
        let rights = Self(files);
        if !rights.0.is_empty() {
            collect_in_time();
        }
        rights
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// They have arrived.
    pub(super) fn take(&mut self) -> Vec<Arc<dyn File>> {
        let files = std::mem::take(&mut self.0);
        for file in &files {
            if socket_of(file).is_some() {
                let mut registry = REGISTRY.lock();
                let Some(sockets) = &mut registry.sockets else { continue };
                if let Some(known) = sockets.get_mut(&key(file)) {
                    known.count -= 1;
                    if known.count == 0 {
                        sockets.remove(&key(file));
                    }
                }
            }
        }
        files
    }

    /// The files themselves.
    pub(super) fn files(&self) -> &[Arc<dyn File>] {
        &self.0
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        let files = self.take();
        if !files.is_empty() {
            discard(files);
        }
    }
}

thread_local! {
    /// What this thread is letting go of, if it is.
    static DYING: RefCell<Option<Vec<Arc<dyn File>>>> = const { RefCell::new(None) };
}

/// Lets go of files one by one: a socket's end lets go of what waits in its queue, and a guest can make chains of any length.
fn discard(files: Vec<Arc<dyn File>>) {
    let outermost = DYING.with_borrow_mut(|dying| match dying {
        Some(dying) => {
            dying.extend(files);
            false
        }
        None => {
            *dying = Some(files);
            true
        }
    });
    if outermost {
        while let Some(file) = DYING.with_borrow_mut(|dying| dying.as_mut().and_then(Vec::pop)) {
            drop(file);
        }
        DYING.set(None);
    }
}

/// A socket that is under way.
#[derive(Debug)]
struct InFlight {
    file: Weak<dyn File>,
    /// In how many messages.
    count: usize,
}

/// The sockets that are under way, by [`key`].
#[derive(Debug)]
struct Registry {
    sockets: Option<HashMap<usize, InFlight>>,
    /// What may be looked at before garbage is looked for again.
    credit: usize,
}

static REGISTRY: Mutex<Registry> = Mutex::new(LockClass::InFlight, Registry { sockets: None, credit: 0 });

/// How many sockets under way are looked at, on average, for each message with descriptors and each socket that ends.
const LOOKS: usize = 16;

fn key(file: &Arc<dyn File>) -> usize {
    Arc::as_ptr(file).cast::<()>().addr()
}

fn socket_of(file: &Arc<dyn File>) -> Option<&Arc<UnixSocket>> {
    let ops = FileDescription::from_file(file)?.ops();
    ops.downcast_ref::<UnixFile>().map(UnixFile::unix_socket)
}

/// Looks for garbage if that is due: work that was done to make garbage pays for it. The caller holds no lock.
pub(super) fn collect_in_time() {
    let due = {
        let mut registry = REGISTRY.lock();
        let under_way = registry.sockets.as_ref().map_or(0, HashMap::len);
        registry.credit = registry.credit.saturating_add(LOOKS);
        let due = under_way > 0 && registry.credit >= under_way;
        if due {
            registry.credit = 0;
        }
        due
    };
    if due {
        collect();
    }
}

/// A socket all of whose references are under way.
#[derive(Debug)]
struct Candidate {
    file: Arc<dyn File>,
    /// References under way that are not in the queue of a candidate.
    outside: usize,
    /// Candidates in its queue.
    holds: Vec<usize>,
}

/// Ends the sockets that nobody can receive any more.
fn collect() {
    // Nothing arrives while this is held, so that no candidate gets another reference.
    let registry = REGISTRY.lock();
    let under_way = registry.sockets.iter().flatten();
    let mut candidates: HashMap<usize, Candidate> = under_way
        .filter(|(_, known)| known.file.strong_count() == known.count)
        .filter_map(|(key, known)| {
            Some((*key, Candidate { file: known.file.upgrade()?, outside: known.count, holds: Vec::new() }))
        })
        .collect();
    let mut trash = Trash::default();
    let mut held: HashMap<usize, Vec<usize>> = HashMap::new();
    for (key, candidate) in &candidates {
        let Some(socket) = socket_of(&candidate.file) else { continue };
        let mut waiting = Vec::new();
        socket.each_waiting_file(&mut trash.sockets, &mut |file| {
            let file = self::key(file);
            if candidates.contains_key(&file) {
                waiting.push(file);
            }
        });
        held.insert(*key, waiting);
    }
    for (key, waiting) in held {
        for file in &waiting {
            if let Some(file) = candidates.get_mut(file) {
                file.outside = file.outside.saturating_sub(1);
            }
        }
        if let Some(candidate) = candidates.get_mut(&key) {
            candidate.holds = waiting;
        }
    }
    let mut live: Vec<usize> =
        candidates.iter().filter(|(_, c)| c.outside > 0).map(|(key, _)| *key).collect();
    while let Some(key) = live.pop() {
        if let Some(candidate) = candidates.remove(&key) {
            live.extend(candidate.holds);
            trash.files.push(candidate.file);
        }
    }
    for (_, garbage) in candidates {
        if let Some(socket) = socket_of(&garbage.file) {
            trash.messages.extend(socket.empty_queue(&mut trash.sockets));
        }
        trash.files.push(garbage.file);
    }
    drop(registry);
    drop(trash);
}

/// What may end when it is let go of: that takes the registry's lock.
#[derive(Debug, Default)]
struct Trash {
    files: Vec<Arc<dyn File>>,
    sockets: Vec<Arc<UnixSocket>>,
    messages: Vec<Message>,
}
