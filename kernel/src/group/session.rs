//! Sessions, process groups and their terminal, `credentials(7)`, `setsid(2)`.
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use sync::{LockClass, Mutex};

/// The terminal of a session, as the kernel needs it.
pub trait ControllingTty: Any + Send + Sync + Debug {
    /// The process group in the foreground.
    fn foreground(&self) -> Option<i32>;
    /// The session's leader is gone: tells the foreground process group, and gives the terminal up.
    fn hang_up(&self);
    /// The device number, in Linux's encoding.
    fn device(&self) -> u64;
}

/// A session.
#[derive(Debug)]
pub struct Session {
    id: i32,
    tty: Mutex<Option<Arc<dyn ControllingTty>>>,
}

impl Session {
    pub(crate) fn new(id: i32) -> Arc<Self> {
        Arc::new(Self { id, tty: Mutex::new(LockClass::Leaf, None) })
    }

    /// The session id, which is its leader's process id.
    #[must_use]
    pub const fn id(&self) -> i32 {
        self.id
    }

    /// The controlling terminal.
    #[must_use]
    pub fn tty(&self) -> Option<Arc<dyn ControllingTty>> {
        self.tty.lock().clone()
    }

    /// Gives the session a controlling terminal, or none; gives the one it had.
    pub fn set_tty(&self, tty: Option<Arc<dyn ControllingTty>>) -> Option<Arc<dyn ControllingTty>> {
        std::mem::replace(&mut *self.tty.lock(), tty)
    }
}

/// A process group.
#[derive(Debug)]
pub struct ProcessGroup {
    id: i32,
    session: Arc<Session>,
}

impl ProcessGroup {
    pub(crate) fn new(id: i32, session: Arc<Session>) -> Arc<Self> {
        Arc::new(Self { id, session })
    }

    /// The process group id.
    #[must_use]
    pub const fn id(&self) -> i32 {
        self.id
    }

    /// The session it is in.
    #[must_use]
    pub const fn session(&self) -> &Arc<Session> {
        &self.session
    }
}
