//! Signals for readiness: `F_SETOWN`, `F_SETSIG` and `O_ASYNC` of `fcntl(2)`.
use std::fmt;
use std::sync::{Arc, Weak};

use abi::Signal;
use kernel::signal::{SigInfo, send_to_group, send_to_process_group, send_to_task};
use kernel::{Kernel, Task};
use sync::{LockClass, Mutex, PollEvents, WaitKey, WaitQueue, Wake};

use crate::FileDescription;

/// Who gets the signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    #[default]
    None,
    /// One thread, `F_OWNER_TID`.
    Thread(i32),
    /// One process, `F_OWNER_PID`.
    Process(i32),
    /// A process group, `F_OWNER_PGRP`.
    ProcessGroup(i32),
}

#[derive(Default)]
struct State {
    owner: Owner,
    /// `F_SETSIG`; 0 for `SIGIO` without details.
    signal: i32,
    kernel: Weak<Kernel>,
}

/// Sends the signals.
struct Sender(Mutex<State>);

impl Wake for Sender {
    fn wake(&self, _events: PollEvents) {
        let (owner, signal, kernel) = {
            let state = self.0.lock();
            (state.owner, state.signal, state.kernel.upgrade())
        };
        let Some(kernel) = kernel else { return };
        let signal = Signal::new(signal).unwrap_or(Signal::SIGIO);
        let info = SigInfo::kernel(signal);
        // Whoever is gone gets no signal; that is not the file's concern.
        let _gone = match owner {
            Owner::None => Ok(()),
            Owner::Thread(tid) => kernel.task(tid).map_or(Ok(()), |task| send_to_task(&task, info)),
            Owner::Process(tgid) => {
                kernel.thread_group(tgid).map_or(Ok(()), |group| send_to_group(&group, info))
            }
            Owner::ProcessGroup(id) => send_to_process_group(&kernel, id, info),
        };
    }
}

#[derive(Default)]
struct Registration {
    sender: Option<Arc<Sender>>,
    key: Option<WaitKey>,
}

/// The owner of an open file description. Without one it is an empty lock.
pub(crate) struct AsyncOwner(Mutex<Registration>);

impl Default for AsyncOwner {
    fn default() -> Self {
        Self(Mutex::new(LockClass::Task, Registration::default()))
    }
}

impl fmt::Debug for AsyncOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsyncOwner")
    }
}

impl AsyncOwner {
    fn with_state<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut registration = self.0.lock();
        let sender = registration
            .sender
            .get_or_insert_with(|| Arc::new(Sender(Mutex::new(LockClass::Leaf, State::default()))));
        let mut state = sender.0.lock();
        f(&mut state)
    }

    /// `O_ASYNC` was set or cleared.
    pub(crate) fn enable(&self, file: &FileDescription, task: &Task, on: bool) {
        let Some(queue) = file.ops().wait_queue() else { return };
        if !on {
            self.disable(Some(queue));
            return;
        }
        self.with_state(|state| state.kernel = Arc::downgrade(task.kernel()));
        let mut registration = self.0.lock();
        if registration.key.is_none()
            && let Some(sender) = registration.sender.clone()
        {
            let key = queue.register(PollEvents::READABLE | PollEvents::WRITABLE, sender);
            registration.key = Some(key);
        }
    }

    pub(crate) fn disable(&self, queue: Option<&WaitQueue>) {
        let key = self.0.lock().key.take();
        if let (Some(key), Some(queue)) = (key, queue) {
            queue.unregister(key);
        }
    }
}

impl FileDescription {
    /// `F_GETOWN` and `F_GETOWN_EX`.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner.with_state(|state| state.owner)
    }
    /// `F_SETOWN` and `F_SETOWN_EX`.
    pub fn set_owner(&self, owner: Owner) {
        self.owner.with_state(|state| state.owner = owner);
    }
    /// `F_GETSIG`.
    #[must_use]
    pub fn owner_signal(&self) -> i32 {
        self.owner.with_state(|state| state.signal)
    }
    /// `F_SETSIG`; the caller checked that it is 0 or a signal.
    pub fn set_owner_signal(&self, signal: i32) {
        self.owner.with_state(|state| state.signal = signal);
    }
}
