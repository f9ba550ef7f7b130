//! Who is whose parent, in which process group and session: the part of the task tree that knows ids only.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use abi::{Errno, Signal};

use crate::ExitStatus;
use crate::group::{ProcessGroup, Session};
use crate::ptrace::Link;

/// The sandbox's first process.
pub(crate) const INIT: i32 = 1;
/// Process ids end before this, Linux's default `kernel.pid_max`.
pub(crate) const PID_MAX: i32 = 32_768;
/// After the ids ran out, they start again here, Linux `RESERVED_PIDS`.
const RESERVED_PIDS: i32 = 300;

/// Where a process is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Some thread runs.
    Alive,
    /// All threads are gone; the parent is being told.
    Notifying,
    /// All threads are gone; tracers are to know of it before the parent.
    Held,
    /// Waits to be reaped.
    Zombie(ExitStatus),
}

/// A process.
#[derive(Debug)]
pub(crate) struct Node<G> {
    pub group: G,
    /// `None` for what was started from outside.
    pub parent: Option<i32>,
    /// The thread of the parent that made it.
    pub parent_thread: i32,
    pub children: Vec<i32>,
    pub process_group: Arc<ProcessGroup>,
    pub life: Life,
    /// Adopts the orphans among its descendants.
    pub subreaper: bool,
    /// Whether it called execve(2) since it was made, after which its parent may not move it (setpgid(2)).
    pub did_exec: bool,
    /// Sent to the parent at the end; 0 for none.
    pub exit_signal: i32,
}

/// All tasks and processes. `T` stands for a task, `G` for a thread group.
#[derive(Debug)]
pub(crate) struct Tree<T, G> {
    tasks: HashMap<i32, T>,
    nodes: BTreeMap<i32, Node<G>>,
    last_id: i32,
    /// Ids that were given and name nothing yet.
    reserved: BTreeSet<i32>,
    /// Threads that are traced, by id.
    pub traces: BTreeMap<i32, Link<T>>,
    /// Set once init ends: nothing is added any more, and what ends is not kept for a parent.
    pub draining: bool,
}

impl<T, G> Default for Tree<T, G> {
    fn default() -> Self {
        Self {
            tasks: HashMap::new(),
            nodes: BTreeMap::new(),
            last_id: 0,
            reserved: BTreeSet::new(),
            traces: BTreeMap::new(),
            draining: false,
        }
    }
}

impl<T: Clone, G: Clone> Tree<T, G> {
    fn is_taken(&self, id: i32) -> bool {
        let used = |n: &Node<G>| n.process_group.id() == id || n.process_group.session().id() == id;
        self.reserved.contains(&id)
            || self.tasks.contains_key(&id)
            || self.nodes.contains_key(&id)
            || self.nodes.values().any(used)
    }

    /// Finds an id that names nothing, and keeps it from others.
    ///
    /// # Errors
    /// `EAGAIN` where there is none.
    pub(crate) fn allocate_id(&mut self) -> Result<i32, Errno> {
        if self.draining
            || self.tasks.len() + self.reserved.len() >= usize::try_from(PID_MAX - 1).unwrap_or(0)
        {
            return Err(Errno::EAGAIN);
        }
        let mut id = self.last_id;
        for _ in 0..PID_MAX {
            id = if id + 1 >= PID_MAX { RESERVED_PIDS } else { id + 1 };
            if !self.is_taken(id) {
                self.last_id = id;
                self.reserved.insert(id);
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Gives back an id that nothing was made with.
    pub(crate) fn free_id(&mut self, id: i32) {
        self.reserved.remove(&id);
    }

    pub(crate) fn add_task(&mut self, tid: i32, task: T) {
        self.reserved.remove(&tid);
        self.tasks.insert(tid, task);
    }

    pub(crate) fn remove_task(&mut self, tid: i32) -> Option<T> {
        self.tasks.remove(&tid)
    }

    pub(crate) fn task(&self, tid: i32) -> Option<T> {
        self.tasks.get(&tid).cloned()
    }

    pub(crate) fn tasks(&self) -> Vec<T> {
        self.tasks.values().cloned().collect()
    }

    pub(crate) fn task_count(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn last_id(&self) -> i32 {
        self.last_id
    }

    /// Adds a process; it becomes a child of its parent.
    pub(crate) fn add_group(&mut self, tgid: i32, node: Node<G>) {
        if let Some(parent) = node.parent.and_then(|p| self.nodes.get_mut(&p)) {
            parent.children.push(tgid);
        }
        self.nodes.insert(tgid, node);
    }

    /// Takes a process out; its children must be gone.
    pub(crate) fn remove_group(&mut self, tgid: i32) -> Option<Node<G>> {
        let node = self.nodes.remove(&tgid)?;
        if let Some(parent) = node.parent.and_then(|p| self.nodes.get_mut(&p)) {
            parent.children.retain(|c| *c != tgid);
        }
        Some(node)
    }

    pub(crate) fn node(&self, tgid: i32) -> Option<&Node<G>> {
        self.nodes.get(&tgid)
    }

    pub(crate) fn node_mut(&mut self, tgid: i32) -> Option<&mut Node<G>> {
        self.nodes.get_mut(&tgid)
    }

    pub(crate) fn groups(&self) -> Vec<G> {
        self.nodes.values().map(|n| n.group.clone()).collect()
    }

    pub(crate) fn members(&self, pgid: i32) -> impl Iterator<Item = (i32, &Node<G>)> {
        self.nodes.iter().filter(move |(_, n)| n.process_group.id() == pgid).map(|(id, n)| (*id, n))
    }

    pub(crate) fn process_group(&self, pgid: i32) -> Option<Arc<ProcessGroup>> {
        self.members(pgid).next().map(|(_, n)| Arc::clone(&n.process_group))
    }

    pub(crate) fn session(&self, sid: i32) -> Option<Arc<Session>> {
        let mut all = self.nodes.values().map(|n| n.process_group.session());
        all.find(|s| s.id() == sid).map(Arc::clone)
    }

    /// Tells whether no living member of the process group has a parent outside it in the same session. The sandbox's init
    /// counts as any parent, as the init of a PID namespace does.
    pub(crate) fn is_orphaned(&self, pgid: i32) -> bool {
        !self.members(pgid).any(|(_, n)| {
            let parent = n.parent.and_then(|p| self.nodes.get(&p));
            n.life == Life::Alive
                && parent.is_some_and(|p| {
                    p.process_group.id() != pgid
                        && Arc::ptr_eq(p.process_group.session(), n.process_group.session())
                })
        })
    }

    /// Hides a zombie from its parent, which removes it next.
    pub(crate) fn detach(&mut self, tgid: i32) {
        let parent = self.nodes.get_mut(&tgid).and_then(|n| n.parent.take());
        if let Some(parent) = parent.and_then(|p| self.nodes.get_mut(&p)) {
            parent.children.retain(|c| *c != tgid);
        }
    }

    /// Who adopts the children of a process: the nearest subreaper among its ancestors, else init.
    fn reaper(&self, tgid: i32) -> Option<i32> {
        let mut ancestor = self.nodes.get(&tgid)?.parent;
        while let Some(id) = ancestor {
            let node = self.nodes.get(&id)?;
            if node.subreaper && node.life == Life::Alive {
                return Some(id);
            }
            ancestor = node.parent;
        }
        let init = self.nodes.get(&INIT).filter(|n| n.life == Life::Alive);
        init.filter(|_| tgid != INIT).map(|_| INIT)
    }

    /// Gives the children of a process that ends to whoever adopts them; gives the children's ids.
    pub(crate) fn reparent_children(&mut self, tgid: i32) -> Vec<i32> {
        let reaper = self.reaper(tgid);
        let children = self.nodes.get_mut(&tgid).map(|n| std::mem::take(&mut n.children)).unwrap_or_default();
        for child in &children {
            if let Some(node) = self.nodes.get_mut(child) {
                node.parent = reaper;
                node.parent_thread = reaper.unwrap_or(0);
                node.exit_signal = Signal::SIGCHLD.number();
            }
        }
        if let Some(reaper) = reaper.and_then(|r| self.nodes.get_mut(&r)) {
            reaper.children.extend(&children);
        }
        children
    }
}

#[cfg(test)]
mod tests;
