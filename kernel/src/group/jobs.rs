//! Sessions and process groups: setsid(2), setpgid(2).
use std::sync::Arc;

use abi::Errno;

use super::{ProcessGroup, Session, ThreadGroup};
use crate::Kernel;

impl ThreadGroup {
    /// setsid(2); gives the new session's id.
    ///
    /// # Errors
    /// `EPERM` where there is a process group with the process's id.
    pub fn setsid(&self) -> Result<i32, Errno> {
        let id = self.tgid;
        let mut tree = self.kernel.tree.lock();
        if tree.process_group(id).is_some() || tree.session(id).is_some() {
            return Err(Errno::EPERM);
        }
        let node = tree.node_mut(id).ok_or(Errno::EPERM)?;
        let old = std::mem::replace(&mut node.process_group, ProcessGroup::new(id, Session::new(id)));
        drop(tree);
        drop(old);
        Ok(id)
    }

    /// setpgid(2) as called by this process; 0 stands for its own id, and for the process's id as the group's.
    ///
    /// # Errors
    /// `EINVAL`, `ESRCH`, `EACCES`, `EPERM`, as setpgid(2) says.
    pub fn setpgid(&self, pid: i32, pgid: i32) -> Result<(), Errno> {
        let pid = if pid == 0 { self.tgid } else { pid };
        let pgid = if pgid == 0 { pid } else { pgid };
        if pgid < 0 {
            return Err(Errno::EINVAL);
        }
        let mut tree = self.kernel.tree.lock();
        let own = tree.node(self.tgid).ok_or(Errno::ESRCH)?;
        let own_session = Arc::clone(own.process_group.session());
        let Some(target) = tree.node(pid) else {
            // A thread that leads no process is there, yet cannot be moved.
            return Err(if tree.task(pid).is_some() { Errno::EINVAL } else { Errno::ESRCH });
        };
        let session = Arc::clone(target.process_group.session());
        if target.parent == Some(self.tgid) {
            if !Arc::ptr_eq(&session, &own_session) {
                return Err(Errno::EPERM);
            }
            if target.did_exec {
                return Err(Errno::EACCES);
            }
        } else if pid != self.tgid {
            return Err(Errno::ESRCH);
        }
        if session.id() == pid {
            return Err(Errno::EPERM);
        }
        let group = match tree.process_group(pgid) {
            Some(group) if Arc::ptr_eq(group.session(), &session) => group,
            None if pgid == pid => ProcessGroup::new(pgid, session),
            _ => return Err(Errno::EPERM),
        };
        let node = tree.node_mut(pid).ok_or(Errno::ESRCH)?;
        let old = std::mem::replace(&mut node.process_group, group);
        drop(tree);
        drop(old);
        Ok(())
    }
}

impl Kernel {
    /// The process group of a process, getpgid(2).
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn getpgid(&self, tid: i32) -> Result<i32, Errno> {
        let tgid = self.task(tid).map(|t| t.tgid()).ok_or(Errno::ESRCH)?;
        self.process_group_of(tgid).map(|p| p.id()).ok_or(Errno::ESRCH)
    }

    /// The session of a process, getsid(2).
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn getsid(&self, tid: i32) -> Result<i32, Errno> {
        let tgid = self.task(tid).map(|t| t.tgid()).ok_or(Errno::ESRCH)?;
        self.process_group_of(tgid).map(|p| p.session().id()).ok_or(Errno::ESRCH)
    }
}
