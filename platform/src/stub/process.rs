//! Stub processes from birth to burial.
use std::collections::VecDeque;
use std::sync::Arc;

use super::control::Slot;
use super::lock::Mutex;
use super::mapper::Mapper;
use crate::sys;

/// How many ends that were meant are remembered, for a sentry that does not ask.
const REMEMBERED: usize = 1 << 16;

/// Stubs that were killed and are not yet reaped: killing is quick, dying is not, and nobody has to wait for it.
#[derive(Debug, Default)]
pub(crate) struct Graveyard {
    graves: Mutex<Vec<(i32, Slot)>>,
    /// Those whose end was meant, until the host tells of it.
    meant: Mutex<VecDeque<i32>>,
}

impl Graveyard {
    /// Remembers that the end of this process is meant.
    pub(crate) fn mean(&self, pid: i32) {
        let mut meant = self.meant.lock();
        meant.push_back(pid);
        if meant.len() > REMEMBERED {
            meant.pop_front();
        }
    }

    /// Tells, once, whether the end of this process was meant.
    pub(crate) fn was_meant(&self, pid: i32) -> bool {
        let mut meant = self.meant.lock();
        let at = meant.iter().position(|known| *known == pid);
        at.is_some_and(|at| meant.remove(at).is_some())
    }

    /// Kills a stub; its page is free once it is gone.
    fn bury(&self, pid: i32, slot: Slot) {
        self.mean(pid);
        sys::tgkill(pid, pid, libc::SIGKILL).ok();
        self.graves.lock().push((pid, slot));
        self.sweep(libc::WNOHANG);
    }

    /// Reaps those that are dead; with options 0 waits until all are.
    pub(crate) fn sweep(&self, options: i32) {
        let all = std::mem::take(&mut *self.graves.lock());
        let (dead, alive): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(pid, _)| !matches!(sys::wait(*pid, options), Ok(None)));
        self.graves.lock().extend(alive);
        drop(dead);
    }
}

impl Drop for Graveyard {
    fn drop(&mut self) {
        self.sweep(0);
    }
}

/// A live stub; killed when dropped.
#[derive(Debug)]
pub(crate) struct Stub {
    mapper: Option<Mapper>,
    graveyard: Arc<Graveyard>,
}

impl Stub {
    /// Takes charge of a process.
    pub(crate) const fn new(mapper: Mapper, graveyard: Arc<Graveyard>) -> Self {
        Self { mapper: Some(mapper), graveyard }
    }

    /// Its mapper.
    pub(crate) fn mapper(&mut self) -> &mut Mapper {
        self.mapper.as_mut().expect("taken by drop only")
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        if let Some(mapper) = self.mapper.take() {
            self.graveyard.bury(mapper.pid(), mapper.into_slot());
        }
    }
}
