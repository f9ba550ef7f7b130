//! wait4(2), waitid(2), Linux `kernel/exit.c:do_wait`.
use std::sync::Arc;
use std::thread;

use abi::sched::{WALL, WCLONE, WCONTINUED, WEXITED, WNOTHREAD, WNOWAIT, WSTOPPED};
use abi::siginfo::{CLD_CONTINUED, CLD_DUMPED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, CLD_TRAPPED};
use abi::{Errno, Signal};

use super::{CurrentTask, Task, Usage, WaitArgs, WaitResult, WaitTarget};
use crate::ptrace::{Link, has_zombie_threads};
use crate::tree::{Life, Node, Tree};
use crate::{CONTINUED_STATUS, ExitStatus, ThreadGroup, stopped_status};

/// What one look at the children found.
enum Found {
    Nothing {
        eligible: bool,
    },
    /// A child is about to become a zombie.
    Soon,
    Child(Arc<ThreadGroup>, Event),
    /// A thread that the caller's process traces.
    Tracee(Link<Arc<Task>>, Event),
}

#[derive(Clone, Copy)]
enum Event {
    Ended(ExitStatus),
    Stopped(Signal),
    /// With the signal and event of the stop.
    Trapped(i32),
    Continued,
}

/// Tells whether the call waits for this child.
fn is_eligible(args: &WaitArgs, caller: i32, id: i32, node: &Node<Arc<ThreadGroup>>) -> bool {
    let wanted = match &args.target {
        WaitTarget::Any => true,
        WaitTarget::Pid(pid) => *pid == id,
        WaitTarget::ProcessGroup(pgid) => node.process_group.id() == *pgid,
        WaitTarget::Group(group) => Arc::ptr_eq(group, &node.group),
    };
    // "Clone" children are those that send something else than SIGCHLD.
    let is_clone = node.exit_signal != Signal::SIGCHLD.number();
    let kind = args.options & WALL != 0 || is_clone == (args.options & WCLONE != 0);
    let own = args.options & WNOTHREAD == 0 || node.parent_thread == caller;
    wanted && kind && own
}

/// What a child has to tell; of its stops, one that is `traced` by its parent tells otherwise. Stops and continuations count as told from now on, unless `WNOWAIT` is set.
fn event_of(options: u32, node: &Node<Arc<ThreadGroup>>, traced: bool) -> Option<Event> {
    let consume = options & WNOWAIT == 0;
    match node.life {
        Life::Zombie(status) => (options & WEXITED != 0).then_some(Event::Ended(status)),
        Life::Notifying | Life::Held => None,
        Life::Alive => {
            let stopped =
                if options & WSTOPPED != 0 && !traced { node.group.stop_report(consume) } else { None };
            let continued = || options & WCONTINUED != 0 && node.group.continue_report(consume);
            stopped.map(Event::Stopped).or_else(|| continued().then_some(Event::Continued))
        }
    }
}

/// Tells whether the call waits for this thread that is traced.
fn is_wanted(
    tree: &Tree<Arc<Task>, Arc<ThreadGroup>>,
    args: &WaitArgs,
    tid: i32,
    link: &Link<Arc<Task>>,
) -> bool {
    let tgid = link.tracee.tgid();
    match &args.target {
        WaitTarget::Any => true,
        WaitTarget::Pid(pid) => *pid == tid,
        WaitTarget::ProcessGroup(pgid) => tree.node(tgid).is_some_and(|n| n.process_group.id() == *pgid),
        WaitTarget::Group(group) => tid == tgid && Arc::ptr_eq(group, link.tracee.group()),
    }
}

/// What a traced thread has to tell.
fn tracee_event(
    tree: &Tree<Arc<Task>, Arc<ThreadGroup>>,
    options: u32,
    tid: i32,
    link: &Link<Arc<Task>>,
) -> Option<Event> {
    let ends = options & WEXITED != 0;
    if link.zombie.is_some() {
        // How the process ends is how its threads do, once that is decided.
        let status = link.tracee.group().exit_status().or(link.zombie);
        return status.filter(|_| ends).map(Event::Ended);
    }
    let group = link.tracee.group();
    match tree.node(tid).map(|n| n.life) {
        // The leader goes last.
        Some(Life::Held | Life::Zombie(_)) if has_zombie_threads(tree, tid) => None,
        Some(Life::Held) => group.state.lock().ended.filter(|_| ends).map(Event::Ended),
        Some(Life::Zombie(status)) => ends.then_some(Event::Ended(status)),
        Some(Life::Notifying) => None,
        Some(Life::Alive) | None => link.tracee.trace_report(options & WNOWAIT == 0).map(Event::Trapped),
    }
}

/// `si_code`, `si_status`, and the number that wait4(2) stores.
fn told(event: Event) -> (i32, i32, i32) {
    match event {
        Event::Ended(end @ ExitStatus::Exited(code)) => (CLD_EXITED, code & 0xff, end.raw()),
        Event::Ended(end @ ExitStatus::Signaled { signal, core }) => {
            (if core { CLD_DUMPED } else { CLD_KILLED }, signal.number(), end.raw())
        }
        Event::Stopped(signal) => (CLD_STOPPED, signal.number(), stopped_status(signal)),
        Event::Trapped(code) => (CLD_TRAPPED, code, code << 8 | 0x7f),
        Event::Continued => (CLD_CONTINUED, Signal::SIGCONT.number(), CONTINUED_STATUS),
    }
}

impl CurrentTask {
    /// Looks once for a child that has something to tell; `None` where there is none yet. To wait, register at
    /// [`ThreadGroup::child_events`] first.
    ///
    /// # Errors
    /// `ECHILD` where there is nobody to wait for.
    pub fn wait(&self, args: &WaitArgs) -> Result<Option<WaitResult>, Errno> {
        loop {
            match self.look(args) {
                Found::Child(group, event) => return Ok(Some(self.collect(args, &group, event))),
                Found::Tracee(link, event) => return Ok(Some(self.collect_tracee(args, &link, event))),
                // The thread that exits sends its parent the signal, and nothing else, before it is a zombie.
                Found::Soon => thread::yield_now(),
                Found::Nothing { eligible: true } => return Ok(None),
                Found::Nothing { eligible: false } => return Err(Errno::ECHILD),
            }
        }
    }

    fn look(&self, args: &WaitArgs) -> Found {
        let mut tree = self.kernel().tree.lock();
        let Some(own) = tree.node(self.tgid()) else { return Found::Nothing { eligible: false } };
        let (mut eligible, mut soon, mut found) = (false, false, None);
        for id in &own.children {
            let Some(node) = tree.node(*id).filter(|n| is_eligible(args, self.tid(), *id, n)) else {
                continue;
            };
            eligible = true;
            let traced = tree.traces.get(id).is_some_and(|l| l.tracer.tgid() == self.tgid());
            soon |= node.life == Life::Notifying && args.options & WEXITED != 0;
            found = event_of(args.options, node, traced).map(|event| (*id, Arc::clone(&node.group), event));
            if found.is_some() {
                break;
            }
        }
        match found {
            Some((id, group, event)) => {
                if matches!(event, Event::Ended(_)) && args.options & WNOWAIT == 0 {
                    // Nobody else finds it any more; `collect` removes it.
                    tree.detach(id);
                }
                Found::Child(group, event)
            }
            None if soon => Found::Soon,
            None => self.look_at_tracees(&mut tree, args, eligible),
        }
    }

    /// Looks at the threads that the caller's process traces, Linux `ptrace_do_wait`. They need no option to be waited for.
    fn look_at_tracees(
        &self,
        tree: &mut Tree<Arc<Task>, Arc<ThreadGroup>>,
        args: &WaitArgs,
        mut eligible: bool,
    ) -> Found {
        let mut found = None;
        for (tid, link) in &tree.traces {
            let own = if args.options & WNOTHREAD == 0 {
                link.tracer.tgid() == self.tgid()
            } else {
                Arc::ptr_eq(&link.tracer, self.task())
            };
            if !own || !is_wanted(tree, args, *tid, link) {
                continue;
            }
            eligible = true;
            if let Some(event) = tracee_event(tree, args.options, *tid, link) {
                found = Some((link.clone(), event));
                break;
            }
        }
        match found {
            None => Found::Nothing { eligible },
            Some((link, event)) => {
                if matches!(event, Event::Ended(_)) && args.options & WNOWAIT == 0 {
                    let tid = link.tracee.tid();
                    let child = tree.node(tid).is_some_and(|n| matches!(n.life, Life::Zombie(_)));
                    if child {
                        tree.detach(tid);
                        return Found::Child(Arc::clone(link.tracee.group()), event);
                    }
                    self.kernel().take_link(tree, tid);
                }
                Found::Tracee(link, event)
            }
        }
    }

    /// Says what a traced thread told; after its end, others may hear of it.
    fn collect_tracee(&self, args: &WaitArgs, link: &Link<Arc<Task>>, event: Event) -> WaitResult {
        let task = &link.tracee;
        let (code, status, raw) = told(event);
        let ended = matches!(event, Event::Ended(_));
        let usage = if ended { task.usage() } else { Usage::default() };
        let result = WaitResult { pid: task.tid(), uid: task.credentials().uid, code, status, raw, usage };
        if ended && args.options & WNOWAIT == 0 {
            self.kernel().forget_link(link, None);
        }
        result
    }

    /// Says what the child told; removes a zombie.
    fn collect(&self, args: &WaitArgs, group: &Arc<ThreadGroup>, event: Event) -> WaitResult {
        let usage = group.usage().plus(group.children_usage());
        let (code, status, raw) = told(event);
        let result = WaitResult {
            pid: group.tgid(),
            uid: group.credentials().uid,
            code,
            status,
            raw,
            usage: if matches!(event, Event::Ended(_)) { usage } else { Usage::default() },
        };
        if matches!(event, Event::Ended(_)) && args.options & WNOWAIT == 0 {
            let mut state = self.group().state.lock();
            state.children = state.children.plus(usage);
            drop(state);
            self.kernel().reap(group.tgid());
        }
        result
    }
}
