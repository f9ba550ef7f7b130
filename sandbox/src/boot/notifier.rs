//! The one thread that watches descriptors of the host for those who wait.
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use sync::{LockClass, Mutex, PollEvents, Wake};

/// The stack of the thread: it only passes events on.
const STACK: usize = 128 << 10;

/// Watches descriptors of the host.
pub(crate) struct Notifier {
    epoll: Epoll,
    watched: Mutex<Watched>,
}

/// The number given last, and who is told by number.
type Watched = (u64, HashMap<u64, Weak<dyn Wake>>);

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notifier")
    }
}

impl Notifier {
    /// Makes one; before the filter.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub(crate) fn new() -> nix::Result<Arc<Self>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Arc::new(Self { epoll, watched: Mutex::new(LockClass::Leaf, (0, HashMap::new())) }))
    }

    /// Starts the thread; after the filter.
    ///
    /// # Errors
    /// Those of clone(2).
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let this = Arc::clone(self);
        std::thread::Builder::new()
            .name("notifier".to_owned())
            .stack_size(STACK)
            .spawn(move || this.run())?;
        Ok(())
    }

    /// Calls `wake` whenever the descriptor becomes ready for more than it was, as long as both live.
    ///
    /// # Errors
    /// `EPERM` for a file that is always ready.
    pub(crate) fn watch(&self, fd: BorrowedFd<'_>, wake: &Arc<dyn Wake>) -> nix::Result<u64> {
        let ready = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLPRI;
        self.watch_for(fd, wake, ready)
    }

    /// Calls `wake` when the other end of a connection is gone, as long as both live; what comes over it wakes nobody.
    ///
    /// # Errors
    /// `EPERM` for what is no connection.
    pub(crate) fn watch_end(&self, fd: BorrowedFd<'_>, wake: &Arc<dyn Wake>) -> nix::Result<u64> {
        self.watch_for(fd, wake, EpollFlags::empty())
    }

    fn watch_for(&self, fd: BorrowedFd<'_>, wake: &Arc<dyn Wake>, ready: EpollFlags) -> nix::Result<u64> {
        let key = {
            let mut watched = self.watched.lock();
            watched.0 += 1;
            let key = watched.0;
            watched.1.insert(key, Arc::downgrade(wake));
            key
        };
        let flags = ready | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let added = self.epoll.add(fd, EpollEvent::new(flags, key));
        if added.is_err() {
            self.watched.lock().1.remove(&key);
        }
        added.map(|()| key)
    }

    /// Forgets a watch, whose descriptor is about to be closed. That alone would not take it out of the epoll set: another
    /// process, or another descriptor of ours, may hold the same open file.
    pub(crate) fn forget(&self, fd: BorrowedFd<'_>, key: u64) {
        // One that is not there needs nothing.
        let _gone = self.epoll.delete(fd);
        self.watched.lock().1.remove(&key);
    }

    fn run(&self) {
        let mut events = [EpollEvent::empty(); 16];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(error) => panic_report(error),
            };
            for event in events.iter().take(count) {
                let wake = self.watched.lock().1.get(&event.data()).and_then(Weak::upgrade);
                if let Some(wake) = wake {
                    wake.wake(poll_events(event.events()));
                }
            }
        }
    }
}

fn panic_report(error: nix::Error) -> ! {
    super::report::die(&format!("epoll_wait: {error}"))
}

/// The host's events as ours: the values are the same, each spelling of readable and writable included.
fn poll_events(flags: EpollFlags) -> PollEvents {
    let mut events = PollEvents(flags.bits().cast_unsigned() & 0x3fff);
    if events.intersects(PollEvents::IN) {
        events |= PollEvents::READABLE;
    }
    if events.intersects(PollEvents::OUT) {
        events |= PollEvents::WRITABLE;
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[derive(Default)]
    struct Nobody;

    impl Wake for Nobody {
        fn wake(&self, _: PollEvents) {}
    }

    /// Passes on what it is told.
    struct Tells(std::sync::mpsc::Sender<PollEvents>);

    impl Wake for Tells {
        fn wake(&self, events: PollEvents) {
            self.0.send(events).ok();
        }
    }

    #[test]
    fn of_a_connection_only_the_end_may_be_watched() {
        let notifier = Notifier::new().unwrap();
        notifier.start().unwrap();
        let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let tells: Arc<dyn Wake> = Arc::new(Tells(tell));
        notifier.watch_end(ours.as_fd(), &tells).unwrap();
        for _ in 0..3 {
            theirs.write_all(b"word").unwrap();
            ours.read_exact(&mut [0; 4]).unwrap();
        }
        theirs.shutdown(std::net::Shutdown::Both).unwrap();
        let first = told.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        assert!(first.intersects(PollEvents::HUP | PollEvents::RDHUP));
    }

    #[test]
    fn a_number_is_watched_again_while_another_descriptor_holds_the_file() {
        let notifier = Notifier::new().unwrap();
        let nobody: Arc<dyn Wake> = Arc::new(Nobody);
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        for _ in 0..3 {
            // The number that was given back is the next to be given.
            let again = reader.try_clone().unwrap();
            let key = notifier.watch(again.as_fd(), &nobody).unwrap();
            notifier.forget(again.as_fd(), key);
        }
    }
}
