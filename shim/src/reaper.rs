//! Collects children. The shim is a subreaper: what `runsc` leaves behind becomes its child, so one thread waits for all.
use std::collections::{HashMap, VecDeque};
use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};
use sync::{LockClass, Mutex, PollEvents, WaitQueue, Waiter, Wake};

/// How many ends are remembered of children that nobody has asked for yet.
const UNCLAIMED: usize = 1024;

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<u32, Sender<u32>>,
    /// Ended before somebody asked, or never asked for.
    unclaimed: VecDeque<(u32, u32)>,
}

/// Waits for every child.
#[derive(Debug)]
pub(crate) struct Reaper {
    state: Mutex<State>,
    /// Told of a new child.
    children: WaitQueue,
}

/// The one there is.
pub(crate) fn reaper() -> &'static Reaper {
    static REAPER: OnceLock<Reaper> = OnceLock::new();
    REAPER.get_or_init(|| {
        let thread = std::thread::Builder::new().name("reaper".to_owned());
        // Without it nothing ends; the first command says so by never ending either.
        thread.spawn(|| reaper().run()).expect("a shim that has just started can have a thread");
        Reaper { state: Mutex::new(LockClass::Leaf, State::default()), children: WaitQueue::new() }
    })
}

/// As a shell shows it: the exit code, or 128 and the signal.
fn code(status: WaitStatus) -> u32 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u32::try_from(code).ok()).unwrap_or(255)
}

impl Reaper {
    fn run(&self) {
        let waiter = Waiter::new();
        let key = self.children.register(PollEvents::ALL, Arc::clone(&waiter) as Arc<dyn Wake>);
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => {
                    let Ok(pid) = u32::try_from(pid.as_raw_nonzero().get()) else { continue };
                    self.ended(pid, code(status));
                }
                Ok(None) | Err(Errno::INTR) => {}
                Err(Errno::CHILD) => {
                    waiter.wait(None);
                }
                Err(_) => break,
            }
        }
        self.children.unregister(key);
    }

    fn ended(&self, pid: u32, code: u32) {
        let mut state = self.state.lock();
        match state.waiting.remove(&pid) {
            Some(waiting) => {
                drop(state);
                // Nobody may wait any more.
                let _unheard = waiting.send(code);
            }
            None => {
                state.unclaimed.push_back((pid, code));
                if state.unclaimed.len() > UNCLAIMED {
                    state.unclaimed.pop_front();
                }
            }
        }
    }

    /// Starts a program; its exit code will be received.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<(Child, Receiver<u32>)> {
        let (sender, receiver) = channel();
        // With the lock held, so that its end cannot be told before it is known. An older child of the same number has been
        // collected.
        let child = {
            let mut state = self.state.lock();
            let child = command.spawn()?;
            state.unclaimed.retain(|(pid, _)| *pid != child.id());
            state.waiting.insert(child.id(), sender);
            child
        };
        self.children.notify(PollEvents::ALL);
        Ok((child, receiver))
    }

    /// The exit code of a process that a program left behind, to be received.
    pub(crate) fn adopt(&self, pid: u32) -> Receiver<u32> {
        let (sender, receiver) = channel();
        let mut state = self.state.lock();
        match state.unclaimed.iter().rposition(|(other, _)| *other == pid) {
            Some(at) => {
                let ended = state.unclaimed.remove(at);
                if let Some((_, code)) = ended {
                    // The receiver is right here.
                    let _heard = sender.send(code);
                }
            }
            None => drop(state.waiting.insert(pid, sender)),
        }
        drop(state);
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_how_children_end() {
        let mut command = Command::new("sh");
        let (_, ended) = reaper().spawn(command.args(["-c", "exit 7"])).expect("sh");
        assert_eq!(ended.recv(), Ok(7));
        let mut command = Command::new("sh");
        let (_, ended) = reaper().spawn(command.args(["-c", "kill -9 $$"])).expect("sh");
        assert_eq!(ended.recv(), Ok(137));
    }
}
