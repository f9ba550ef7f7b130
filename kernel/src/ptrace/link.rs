//! Who traces whom: how it begins, and how it ends. Linux `kernel/ptrace.c`.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::ptrace::option;
use abi::siginfo::CLD_EXITED;
use abi::{Errno, Signal};

use super::state::watch;
use crate::signal::{self, SigInfo, send_to_group, send_to_task};
use crate::tree::{Life, Tree};
use crate::{Cap, CurrentTask, ExitStatus, Kernel, Task, ThreadGroup};

/// A thread that is traced, in the task tree by its id.
#[derive(Clone, Debug)]
pub(crate) struct Link<T> {
    pub tracee: T,
    pub tracer: T,
    /// Set once the thread is gone, if it does not lead its process: its tracer waits for it as for a child.
    pub zombie: Option<ExitStatus>,
}

/// How a thread comes to be traced by one that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// `PTRACE_ATTACH`: it is stopped by `SIGSTOP`.
    Stop,
    /// `PTRACE_SEIZE` with these options: it runs on.
    Seize(u32),
}

type TaskTree = Tree<Arc<Task>, Arc<ThreadGroup>>;

/// Tells whether a thread may look into another and change it, Linux `ptrace_may_access` with `PTRACE_MODE_ATTACH_REALCREDS`.
#[must_use]
pub fn may_access(caller: &Task, target: &Task) -> bool {
    if caller.tgid() == target.tgid() {
        return true;
    }
    let (mine, theirs) = (caller.credentials(), target.credentials());
    mine.has_cap(Cap::SYS_PTRACE)
        || theirs.ids_are_all(mine.uid, mine.gid)
            && target.group().dumpable() == 1
            && theirs.cap_permitted.is_subset(mine.cap_permitted)
}

fn is_thread(task: &Arc<Task>) -> bool {
    task.group().state.lock().threads.iter().any(|t| Arc::ptr_eq(t, task))
}

/// Makes a thread traced. To be called with the tree's lock.
fn link(tree: &mut TaskTree, tracee: &Arc<Task>, tracer: &Arc<Task>, options: u32, seized: bool) {
    let entry = Link { tracee: Arc::clone(tracee), tracer: Arc::clone(tracer), zombie: None };
    tree.traces.insert(tracee.tid(), entry);
    let mut state = tracee.tracing.lock();
    (state.tracer, state.options) = (Some(Arc::clone(tracer)), options);
    tracee.tracing.watch(watch::TRACED | if seized { watch::SEIZED } else { 0 }, true);
}

impl Task {
    /// Makes the thread one that nobody traces; it goes on, with this signal if it is stopped and there is one. To be called
    /// after its [`Link`] is gone, without locks.
    fn untrace(&self, signal: Option<i32>) {
        let tracer = {
            let mut state = self.tracing.lock();
            (state.options, state.trap, state.notify) = (0, false, false);
            if let (Some(stop), Some(signal)) = (state.stop.as_mut(), signal) {
                stop.go.get_or_insert(signal);
            }
            self.tracing.watch(!watch::FILTERED, false);
            self.tracing.heeded.store(0, Ordering::SeqCst);
            state.tracer.take()
        };
        drop(tracer);
        self.reconsider();
    }

    /// Its tracer sees it now in all it does: nothing of it is answered out of sight, and no patch is there to be found.
    fn begin_tracing(&self) {
        if let Some(mm) = self.mm() {
            mm.forbid_patches();
        }
        self.reconsider();
    }

    /// Tells whether a tracer may not have the privileges that the program would gain, Linux `ptracer_capable`.
    pub(crate) fn has_weak_tracer(&self) -> bool {
        self.is_traced() && self.tracer().is_some_and(|t| !t.credentials().has_cap(Cap::SYS_PTRACE))
    }
}

impl CurrentTask {
    /// `PTRACE_ATTACH`, `PTRACE_SEIZE`.
    ///
    /// # Errors
    /// `ESRCH`; `EPERM` for a thread of the same process, one that is traced already or gone, and one that the caller may not
    /// access.
    pub fn attach(&self, tid: i32, how: Attach) -> Result<(), Errno> {
        let kernel = Arc::clone(self.kernel());
        let target = kernel.task(tid).ok_or(Errno::ESRCH)?;
        {
            let mut tree = kernel.tree.lock();
            let taken = tree.traces.contains_key(&tid);
            let own = target.tgid() == self.tgid();
            if own || taken || !may_access(self, &target) || !is_thread(&target) {
                return Err(Errno::EPERM);
            }
            let (options, seized) = match how {
                Attach::Stop => (0, false),
                Attach::Seize(options) => (options, true),
            };
            link(&mut tree, &target, self.task(), options, seized);
        }
        if how == Attach::Stop {
            // SIGSTOP is a standard signal, and those are never refused.
            let _sent = send_to_task(&target, SigInfo::kernel(Signal::SIGSTOP));
        }
        target.begin_tracing();
        Ok(())
    }

    /// `PTRACE_TRACEME`: the parent's thread that made the process traces it.
    ///
    /// # Errors
    /// `EPERM` for a thread that is traced already, and where the parent has fewer capabilities or is outside the container.
    pub fn trace_me(&self) -> Result<(), Errno> {
        let kernel = Arc::clone(self.kernel());
        let mut tree = kernel.tree.lock();
        if tree.traces.contains_key(&self.tid()) {
            return Err(Errno::EPERM);
        }
        let parent_thread = tree.node(self.tgid()).filter(|n| n.parent.is_some()).map(|n| n.parent_thread);
        let tracer = tree.task(parent_thread.ok_or(Errno::EPERM)?).ok_or(Errno::EPERM)?;
        let theirs = tracer.credentials();
        if !self.credentials().cap_permitted.is_subset(theirs.cap_permitted)
            && !theirs.has_cap(Cap::SYS_PTRACE)
        {
            return Err(Errno::EPERM);
        }
        // A parent that is about to go traces nobody any more.
        if is_thread(&tracer) {
            link(&mut tree, self.task(), &tracer, 0, false);
            drop(tree);
            self.begin_tracing();
        }
        Ok(())
    }
}

/// A child is made under the eyes of its parent's tracer, who traces it as well: it stops at once. To be called with the
/// tree's lock. Linux `ptrace_init_task`.
pub(crate) fn follow(tree: &mut TaskTree, parent: &Task, child: &Arc<Task>) {
    let Some(tracer) = tree.traces.get(&parent.tid()).map(|l| Arc::clone(&l.tracer)) else { return };
    let (options, seized) = (parent.tracing.lock().options, parent.tracing.watches(watch::SEIZED));
    link(tree, child, &tracer, options, seized);
    if seized {
        child.ask_for_trap();
    } else {
        signal::add_first_stop(child);
    }
}

/// A thread takes over the id of its process in execve(2), whose leader is gone. To be called with the tree's lock.
pub(crate) fn rename(tree: &mut TaskTree, task: &Arc<Task>, old: i32, new: i32) -> Option<Link<Arc<Task>>> {
    let gone = tree.traces.remove(&new);
    if let Some(link) = tree.traces.remove(&old).filter(|l| Arc::ptr_eq(&l.tracee, task)) {
        tree.traces.insert(new, link);
    }
    gone
}

/// Tells whether threads of a process that ended wait for their tracers.
pub(crate) fn has_zombie_threads(tree: &TaskTree, tgid: i32) -> bool {
    tree.traces.values().any(|l| l.zombie.is_some() && l.tracee.tgid() == tgid)
}

/// The tracer of a process's leader, where it is in another process than the parent.
pub(crate) fn foreign_tracer(tree: &TaskTree, tgid: i32) -> Option<Arc<Task>> {
    let tracer = &tree.traces.get(&tgid)?.tracer;
    let parent = tree.node(tgid).and_then(|n| n.parent);
    (parent != Some(tracer.tgid())).then(|| Arc::clone(tracer))
}

impl Kernel {
    /// A thread that does not lead its process is gone. Tells whether its tracer waits for it: its id stays taken.
    pub(crate) fn keep_for_tracer(&self, tree: &mut TaskTree, task: &Arc<Task>, status: ExitStatus) -> bool {
        let draining = tree.draining;
        let Some(link) = tree.traces.get_mut(&task.tid()).filter(|l| Arc::ptr_eq(&l.tracee, task)) else {
            return false;
        };
        link.zombie = Some(status);
        if draining {
            tree.traces.remove(&task.tid());
        }
        !draining
    }

    /// Tells the tracer of a thread that is gone.
    pub(crate) fn tell_tracer_of_exit(&self, task: &Arc<Task>, status: ExitStatus) {
        let Some(tracer) = task.tracer() else { return };
        let (utime, stime) = task.cpu_times().ticks();
        let (code, number) = match status {
            ExitStatus::Exited(code) => (CLD_EXITED, code & 0xff),
            ExitStatus::Signaled { signal, .. } => (abi::siginfo::CLD_KILLED, signal.number()),
        };
        let ids = (task.tid(), task.credentials().uid);
        signal::tell_of_end(tracer.group(), code, ids, number, (utime, stime));
    }

    /// A thread is gone, or about to be: those it traced are traced by nobody any more. Linux `exit_ptrace`.
    pub(crate) fn release_tracees(&self, tracer: &Arc<Task>) {
        let gone: Vec<Link<Arc<Task>>> = {
            let mut tree = self.tree.lock();
            let ids: Vec<i32> = tree
                .traces
                .iter()
                .filter(|(_, l)| Arc::ptr_eq(&l.tracer, tracer))
                .map(|(id, _)| *id)
                .collect();
            ids.iter().filter_map(|id| self.take_link(&mut tree, *id)).collect()
        };
        for link in gone {
            let tracee = link.tracee;
            let kill = tracee.tracing.lock().options & option::EXITKILL != 0;
            tracee.untrace(None);
            if kill {
                // SIGKILL is never refused.
                let _sent = send_to_group(tracee.group(), SigInfo::kernel(Signal::SIGKILL));
            }
            self.settle(tracee.tgid());
        }
    }

    /// Takes a link out, with the id of a thread that is gone.
    pub(crate) fn take_link(&self, tree: &mut TaskTree, tid: i32) -> Option<Link<Arc<Task>>> {
        let link = tree.traces.remove(&tid)?;
        if link.zombie.is_some() {
            // The task stays, by the link.
            let _task = tree.remove_task(tid);
        }
        Some(link)
    }

    /// A link is gone: forgets the tracer, and tells the parent of a process that ended, if nobody else is to hear of it
    /// first. To be called without locks.
    pub(crate) fn forget_link(&self, link: &Link<Arc<Task>>, signal: Option<i32>) {
        link.tracee.untrace(signal);
        self.settle(link.tracee.tgid());
    }

    fn settle(&self, tgid: i32) {
        let held = {
            let tree = self.tree.lock();
            tree.node(tgid).filter(|n| n.life == Life::Held).map(|n| Arc::clone(&n.group))
        };
        if let Some(group) = held {
            self.announce(&group);
        }
    }
}
