//! The end of a process: orphans, the terminal, and telling the parent, Linux `kernel/exit.c:exit_notify`.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::Signal;
use abi::siginfo::{CLD_EXITED, CLD_KILLED, SIG_IGN};
use sync::{PollEvents, Waiter, Wake};

use crate::ptrace::{foreign_tracer, has_zombie_threads};
use crate::signal::{SigFields, SigInfo, send_to_group, send_to_process_group};
use crate::tree::{INIT, Life};
use crate::{Event, ExitStatus, Kernel, Session, Task, ThreadGroup};

/// How long init's end waits for the other processes, which all were told to exit, before it gives up on them.
const DRAIN: Duration = Duration::from_secs(10);

/// What is left to do once the tree's lock is given back.
#[derive(Default)]
struct Consequences {
    /// Children that lost their parent.
    children: Vec<Arc<ThreadGroup>>,
    /// Process groups that became orphaned.
    orphaned: Vec<i32>,
    /// The session that lost its leader.
    session: Option<Arc<Session>>,
}

impl Kernel {
    /// A thread is gone: its id becomes free, unless it is the process's or a tracer waits for it. Children that it made hear
    /// of it, and so does who traces it; whom it traces is free.
    pub(crate) fn thread_gone(&self, task: &Arc<Task>, is_leader: bool, status: ExitStatus) {
        let tgid = task.tgid();
        let mut kept = false;
        let children: Vec<Arc<ThreadGroup>> = {
            let mut tree = self.tree.lock();
            if !is_leader {
                kept = self.keep_for_tracer(&mut tree, task, status);
            }
            if !is_leader && !kept {
                tree.remove_task(task.tid());
            }
            let ids = tree.node(tgid).map(|n| n.children.clone()).unwrap_or_default();
            let mut affected = Vec::new();
            for id in ids {
                if let Some(child) = tree.node_mut(id).filter(|c| c.parent_thread == task.tid()) {
                    child.parent_thread = tgid;
                    affected.push(Arc::clone(&child.group));
                }
            }
            affected
        };
        let uid = task.credentials().uid;
        for child in &children {
            tell_of_parents_death(child, tgid, uid);
        }
        if kept {
            self.tell_tracer_of_exit(task, status);
        }
        self.release_tracees(task);
    }

    /// All threads of a process are gone.
    pub(crate) fn end_group(&self, group: &Arc<ThreadGroup>, status: ExitStatus) {
        let tgid = group.tgid();
        if tgid == INIT {
            self.drain();
        }
        group.timers().clear();
        // The program may be written again before anyone hears of the end.
        let exe = group.state.lock().exe.take();
        drop(exe);
        if let Some(observer) = self.observer() {
            observer.tell(group, &Event::Exit(status));
        }
        let hooks = self.exit_hooks.lock().clone();
        for hook in hooks {
            hook(group);
        }
        let consequences = self.take_leave(group);
        if let Some(tty) = consequences.session.and_then(|s| s.set_tty(None)) {
            tty.hang_up();
        }
        for pgid in consequences.orphaned {
            for signal in [Signal::SIGHUP, Signal::SIGCONT] {
                // A group whose members are all gone meanwhile needs no signal.
                let _gone = send_to_process_group(self, pgid, SigInfo::kernel(signal));
            }
        }
        for child in &consequences.children {
            if self.is_zombie(child.tgid()) {
                self.announce(child);
            }
        }
        group.state.lock().ended = Some(status);
        self.announce(group);
        group.set_ended(status);
    }

    /// Gives the children away and finds out what follows from the end of the process.
    fn take_leave(&self, group: &Arc<ThreadGroup>) -> Consequences {
        let tgid = group.tgid();
        let mut tree = self.tree.lock();
        let mut out = Consequences::default();
        let Some(node) = tree.node(tgid) else { return out };
        let session = Arc::clone(node.process_group.session());
        let mut candidates = BTreeSet::from([node.process_group.id()]);
        candidates.extend(node.children.iter().filter_map(|c| tree.node(*c)).map(|c| c.process_group.id()));
        candidates.retain(|pgid| !tree.is_orphaned(*pgid));
        if let Some(node) = tree.node_mut(tgid) {
            node.life = Life::Notifying;
        }
        let children = tree.reparent_children(tgid);
        out.children = children.iter().filter_map(|c| tree.node(*c)).map(|n| Arc::clone(&n.group)).collect();
        let has_stopped = |pgid: i32| tree.members(pgid).any(|(_, n)| n.group.is_stopped());
        out.orphaned =
            candidates.into_iter().filter(|pgid| tree.is_orphaned(*pgid) && has_stopped(*pgid)).collect();
        out.session = (session.id() == tgid).then_some(session);
        out
    }

    fn is_zombie(&self, tgid: i32) -> bool {
        self.tree.lock().node(tgid).is_some_and(|n| matches!(n.life, Life::Zombie(_)))
    }

    /// Tells the parent of a process that has ended, and makes it a zombie or, where nobody wants it, removes it. The
    /// parent gets its signal first: a signal handler must find the child, and a program that waited must have the signal.
    /// Tracers hear of it before: of its threads', and if they are in another process than the parent, of the leader's.
    pub(crate) fn announce(&self, group: &Arc<ThreadGroup>) {
        let tgid = group.tgid();
        let Some(status) = group.state.lock().ended else { return };
        loop {
            let (parent, exit_signal, traced) = {
                let mut tree = self.tree.lock();
                let wait = !tree.draining;
                let threads = wait && has_zombie_threads(&tree, tgid);
                let tracer = foreign_tracer(&tree, tgid).filter(|_| wait && !threads);
                let traced = tree.traces.contains_key(&tgid);
                let Some(node) = tree.node_mut(tgid) else { return };
                node.life = if threads || tracer.is_some() { Life::Held } else { Life::Notifying };
                if node.life == Life::Held {
                    let leader = group.leader().filter(|_| tracer.is_some());
                    drop(tree);
                    leader.iter().for_each(|leader| self.tell_tracer_of_exit(leader, status));
                    return;
                }
                (node.parent, node.exit_signal, traced)
            };
            let parent_group = parent.and_then(|p| self.thread_group(p));
            let wanted =
                parent_group.as_ref().is_some_and(|p| signal_parent(p, group, exit_signal, status) || traced);
            let mut tree = self.tree.lock();
            let draining = tree.draining;
            match tree.node_mut(tgid) {
                None => return,
                // The parent ended meanwhile: another one is to be told.
                Some(node) if node.parent != parent => continue,
                Some(node) if wanted && !draining => node.life = Life::Zombie(status),
                Some(_) => {
                    let link = tree.traces.remove(&tgid);
                    tree.remove_group(tgid);
                    let leader = tree.remove_task(tgid);
                    drop(tree);
                    drop(leader);
                    link.iter().for_each(|link| self.forget_link(link, None));
                    group.forget_leader();
                    self.group_events.notify(PollEvents::IN);
                }
            }
            if let Some(parent) = parent_group {
                parent.child_events().notify(PollEvents::IN);
            }
            return;
        }
    }

    /// Init ends: every other process is killed, and none is kept.
    fn drain(&self) {
        let waiter = Waiter::new();
        let key = self.group_events.register(PollEvents::IN, Arc::clone(&waiter) as Arc<dyn Wake>);
        self.tree.lock().draining = true;
        self.kill_all();
        let since = Instant::now();
        loop {
            let others: Vec<Arc<ThreadGroup>> =
                self.thread_groups().into_iter().filter(|g| g.tgid() != INIT).collect();
            for zombie in others.iter().filter(|g| self.is_zombie(g.tgid())) {
                self.reap(zombie.tgid());
            }
            if others.iter().all(|g| self.thread_group(g.tgid()).is_none()) {
                break;
            }
            let Some(left) = DRAIN.checked_sub(since.elapsed()) else {
                tracing::error!("processes did not exit though they were killed");
                break;
            };
            waiter.wait(Some(left));
        }
        self.group_events.unregister(key);
    }

    /// Removes a process that has ended.
    pub(crate) fn reap(&self, tgid: i32) {
        let removed = {
            let mut tree = self.tree.lock();
            let link = tree.traces.remove(&tgid);
            (tree.remove_group(tgid), tree.remove_task(tgid), link)
        };
        if let (Some(node), ..) = &removed {
            node.group.forget_leader();
        }
        removed.2.iter().for_each(|link| self.forget_link(link, None));
        drop(removed);
        self.group_events.notify(PollEvents::IN);
    }
}

/// Sends what a child asked for with `PR_SET_PDEATHSIG`.
fn tell_of_parents_death(child: &Arc<ThreadGroup>, parent: i32, uid: u32) {
    for task in child.threads() {
        if let Some(signal) = Signal::new(task.parent_death_signal()) {
            // A queue that is full loses a real-time signal, as in Linux.
            let _full = send_to_group(child, SigInfo::kill(signal, parent, uid));
        }
    }
}

/// Sends the parent the signal of a child that has ended; tells whether the parent will want to wait for it.
fn signal_parent(
    parent: &Arc<ThreadGroup>,
    child: &Arc<ThreadGroup>,
    exit_signal: i32,
    status: ExitStatus,
) -> bool {
    let signal = Signal::new(exit_signal);
    let actions = parent.signals().actions();
    let is_chld = signal == Some(Signal::SIGCHLD);
    let wanted = !(is_chld && actions.reaps_children());
    let ignored = is_chld && actions.get(Signal::SIGCHLD).handler == SIG_IGN;
    if let Some(signal) = signal.filter(|_| !ignored) {
        let (utime, stime) = child.cpu_ticks();
        let (code, number) = match status {
            ExitStatus::Exited(code) => (CLD_EXITED, code & 0xff),
            ExitStatus::Signaled { signal, core } => (CLD_KILLED + i32::from(core), signal.number()),
        };
        let uid = child.credentials().uid;
        let fields = SigFields::Child { pid: child.tgid(), uid, status: number, utime, stime };
        // A queue that is full loses a real-time signal, as in Linux.
        let _full = send_to_group(parent, SigInfo { signal, code, errno: 0, fields });
    }
    wanted
}
