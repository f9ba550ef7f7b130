//! Host threads for tasks, kept for the next when their task is gone: a new one costs a stack, its guards and a dozen calls.
use std::io;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;

use sync::{LockClass, Mutex};

/// The stack of a task's host thread; pages of it that are never touched take no memory. Unoptimized code takes more.
const STACK: usize = if cfg!(debug_assertions) { 2 << 20 } else { 256 << 10 };
/// How many threads are kept at most.
const KEPT: usize = 16;

/// What a task's host thread does.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The threads that have nothing to do. They end with this.
#[derive(Clone, Debug)]
pub(crate) struct Workers(Arc<Mutex<Vec<SyncSender<Job>>>>);

impl Default for Workers {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LockClass::Leaf, Vec::new())))
    }
}

impl Workers {
    /// Runs `job` on a thread of its own.
    ///
    /// # Errors
    /// That of making a thread, where none is idle.
    pub(crate) fn run(&self, mut job: Job) -> io::Result<()> {
        loop {
            let Some(idle) = self.0.lock().pop() else { break };
            match idle.try_send(job) {
                Ok(()) => return Ok(()),
                // A thread that panicked; the next will do.
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => job = back,
            }
        }
        let idle = Arc::downgrade(&self.0);
        thread::Builder::new().stack_size(STACK).spawn(move || work(job, &idle)).map(drop)
    }
}

fn work(first: Job, idle: &Weak<Mutex<Vec<SyncSender<Job>>>>) {
    let mut job = first;
    loop {
        job();
        let (sender, jobs) = sync_channel(1);
        let Some(others) = idle.upgrade() else { return };
        {
            let mut others = others.lock();
            if others.len() >= KEPT {
                return;
            }
            others.push(sender);
        }
        drop(others);
        match jobs.recv() {
            Ok(next) => job = next,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_used_again_and_ends_with_the_workers() {
        let workers = Workers::default();
        let (sender, receiver) = sync_channel(0);
        let mut seen = Vec::new();
        for _ in 0..2 {
            let sender = sender.clone();
            let job = move || sender.send(thread::current().id()).expect("it is received");
            workers.run(Box::new(job)).expect("a thread");
            seen.push(receiver.recv().expect("it is sent"));
            while workers.0.lock().is_empty() {
                thread::yield_now();
            }
        }
        assert_eq!(seen.first(), seen.last());
        let idle = Arc::downgrade(&workers.0);
        drop(workers);
        assert!(idle.upgrade().is_none());
    }
}
