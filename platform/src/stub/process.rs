//! Stub processes from birth to burial.
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use super::control::Slot;
use super::lock::Mutex;
use super::mapper::Mapper;
use crate::sys;
use crate::systrap::area::AreaSlot;

/// How many ends that were meant are remembered, for a sentry that does not ask.
const REMEMBERED: usize = 1 << 16;

/// Stubs that were killed and are not yet reaped: killing is quick, dying is not, and nobody has to wait for it.
#[derive(Debug, Default)]
pub(crate) struct Graveyard {
    graves: Mutex<Vec<Grave>>,
    /// Those whose end was meant, until the host tells of it.
    meant: Mutex<VecDeque<i32>>,
}

/// A process that was killed, and what it can still write to.
#[derive(Debug)]
struct Grave {
    pid: i32,
    _slot: Slot,
    _areas: Vec<Arc<AreaSlot>>,
    _rest: Option<Box<dyn Any + Send>>,
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

    /// Tells, once, whether the end of this process was meant, which has come. Nothing is kept for it any more.
    pub(crate) fn was_meant(&self, pid: i32) -> bool {
        let meant = {
            let mut meant = self.meant.lock();
            let at = meant.iter().position(|known| *known == pid);
            at.is_some_and(|at| meant.remove(at).is_some())
        };
        if meant {
            self.sweep(libc::WNOHANG);
        }
        meant
    }

    /// Kills a stub; its page and its areas are free once it is gone.
    fn bury(&self, grave: Grave) {
        self.mean(grave.pid);
        sys::tgkill(grave.pid, grave.pid, libc::SIGKILL).ok();
        self.graves.lock().push(grave);
    }

    /// Reaps those that are dead; with options 0 waits until all are.
    pub(crate) fn sweep(&self, options: i32) {
        let all = std::mem::take(&mut *self.graves.lock());
        let (dead, alive): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|grave| !matches!(sys::wait(grave.pid, options), Ok(None)));
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
    /// Those of its guest threads that have one.
    areas: Vec<Arc<AreaSlot>>,
    /// It has died by itself, and was waited for.
    reaped: bool,
    graveyard: Arc<Graveyard>,
}

impl Stub {
    /// Takes charge of a process.
    pub(crate) const fn new(mapper: Mapper, graveyard: Arc<Graveyard>) -> Self {
        Self { mapper: Some(mapper), areas: Vec::new(), reaped: false, graveyard }
    }

    /// Its mapper.
    pub(crate) fn mapper(&mut self) -> &mut Mapper {
        self.mapper.as_mut().expect("nobody asks the mapper of a stub that was killed")
    }

    /// Keeps the area of one of its threads for as long as the process can write to it.
    pub(crate) fn keep(&mut self, area: Arc<AreaSlot>) {
        self.areas.push(area);
    }

    /// The areas of its threads.
    pub(crate) fn areas(&self) -> &[Arc<AreaSlot>] {
        &self.areas
    }

    /// Waits for the process, which is known to have ended: gives its wait status, once.
    pub(crate) fn reap(&mut self) -> Option<i32> {
        if self.reaped {
            return None;
        }
        let pid = self.mapper.as_ref()?.pid();
        let status = sys::wait(pid, libc::WNOHANG).ok().flatten();
        self.reaped = status.is_some();
        status
    }
}

impl Stub {
    /// Kills the process, whose mapper is not to be asked for anything any more; `rest` is dropped once it is gone.
    pub(crate) fn kill(&mut self, rest: Option<Box<dyn Any + Send>>) {
        let areas = std::mem::take(&mut self.areas);
        if let Some(mapper) = self.mapper.take().filter(|_| !self.reaped) {
            let pid = mapper.pid();
            self.graveyard.bury(Grave { pid, _slot: mapper.into_slot(), _areas: areas, _rest: rest });
        }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.kill(None);
        self.graveyard.sweep(libc::WNOHANG);
    }
}
