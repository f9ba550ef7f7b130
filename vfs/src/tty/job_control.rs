//! Who may use a terminal, Linux `drivers/tty/tty_jobctrl.c`.
use std::sync::Arc;

use abi::{Errno, Signal};
use kernel::{Cap, ControllingTty, Task};

use super::Tty;
use crate::OpCx;

/// What a process wants of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    /// Attributes, window size, foreground process group.
    Change,
}

impl Tty {
    /// Stops a background process that reads, changes, or with `TOSTOP` writes (Linux `__tty_check_change`, `job_control`).
    pub(super) fn check_background(&self, cx: &OpCx<'_>, access: Access) -> Result<(), Errno> {
        let Some(task) = cx.task else { return Ok(()) };
        let (session, foreground, tostop) = {
            let state = self.state.lock();
            let tostop = state.ldisc.termios.lflag & abi::termios::TOSTOP != 0;
            (state.session, state.foreground, tostop)
        };
        let group = task.group();
        let background = foreground.is_some_and(|f| f != group.process_group_id());
        if session != Some(group.session_id()) || !background || access == Access::Write && !tostop {
            return Ok(());
        }
        let signal = if access == Access::Read { Signal::SIGTTIN } else { Signal::SIGTTOU };
        let ignored = group.signals().actions().is_ignored(signal);
        let deaf = ignored || task.signals().mask().contains(signal);
        match access {
            Access::Read if deaf || group.is_in_orphaned_process_group() => Err(Errno::EIO),
            Access::Write | Access::Change if deaf => Ok(()),
            Access::Write | Access::Change if group.is_in_orphaned_process_group() => Err(Errno::EIO),
            Access::Read | Access::Write | Access::Change => {
                self.signal(Some(group.process_group_id()), signal);
                Err(Errno::ERESTARTSYS)
            }
        }
    }

    /// Makes the terminal the controlling one of the caller's session.
    fn adopt(self: &Arc<Self>, task: &Task) {
        let group = task.group();
        let Some(session) = group.session() else { return };
        {
            let mut state = self.state.lock();
            (state.session, state.foreground) = (Some(session.id()), Some(group.process_group_id()));
        }
        let tty: Arc<dyn ControllingTty> = Arc::<Self>::clone(self);
        drop(session.set_tty(Some(tty)));
    }

    /// What opening does for a session leader that has no terminal, where no session has this one.
    pub(super) fn adopt_if_free(self: &Arc<Self>, task: &Task) {
        let group = task.group();
        let leads = group.session_id() == group.tgid();
        let has_one = group.session().is_none_or(|s| s.tty().is_some());
        if leads && !has_one && self.state.lock().session.is_none() {
            self.adopt(task);
        }
    }

    /// `TIOCSCTTY`; `steal` is its argument.
    pub(super) fn set_controlling(self: &Arc<Self>, cx: &OpCx<'_>, steal: bool) -> Result<(), Errno> {
        let task = cx.task.ok_or(Errno::EPERM)?;
        let group = task.group();
        let session = group.session().ok_or(Errno::EPERM)?;
        let of = self.state.lock().session;
        let leads = session.id() == group.tgid();
        if leads && of == Some(session.id()) {
            return Ok(());
        }
        if !leads || session.tty().is_some() {
            return Err(Errno::EPERM);
        }
        if let Some(old) = of {
            if !steal || !cx.creds.has_cap(Cap::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            if let Some(old) = task.kernel().session(old) {
                drop(old.set_tty(None));
            }
        }
        self.adopt(task);
        Ok(())
    }

    /// `TIOCNOTTY`: a session leader gives the terminal up for its session.
    pub(super) fn give_up(&self, cx: &OpCx<'_>) -> Result<(), Errno> {
        let group = cx.task.ok_or(Errno::ENOTTY)?.group();
        self.check_controlling(cx)?;
        if group.session_id() != group.tgid() {
            // Linux takes it from this one process; here a terminal is the session's.
            return Err(Errno::ENOTTY);
        }
        let foreground = {
            let mut state = self.state.lock();
            state.session = None;
            state.foreground.take()
        };
        if let Some(session) = group.session() {
            drop(session.set_tty(None));
        }
        self.signal(foreground, Signal::SIGHUP);
        self.signal(foreground, Signal::SIGCONT);
        Ok(())
    }

    /// Checks that this is the caller's controlling terminal.
    pub(super) fn check_controlling(&self, cx: &OpCx<'_>) -> Result<i32, Errno> {
        let session = cx.task.map(|t| t.group().session_id()).ok_or(Errno::ENOTTY)?;
        let of = self.state.lock().session;
        if of == Some(session) { Ok(session) } else { Err(Errno::ENOTTY) }
    }

    /// `TIOCSPGRP`.
    pub(super) fn set_foreground(&self, cx: &OpCx<'_>, id: i32) -> Result<(), Errno> {
        self.check_background(cx, Access::Change)?;
        let session = self.check_controlling(cx)?;
        if id < 0 {
            return Err(Errno::EINVAL);
        }
        let kernel = cx.task.ok_or(Errno::ENOTTY)?.kernel();
        let group = kernel.process_group(id).ok_or(Errno::ESRCH)?;
        if group.session().id() != session {
            return Err(Errno::EPERM);
        }
        self.state.lock().foreground = Some(id);
        Ok(())
    }

    /// Makes the terminal the controlling one of a process that was started with it, by the runtime.
    pub fn give_to(self: &Arc<Self>, leader: &Task) {
        self.adopt(leader);
    }
}
