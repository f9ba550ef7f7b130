//! wait4(2), waitid(2), Linux `kernel/exit.c:do_wait`.
use std::sync::Arc;
use std::thread;

use abi::sched::{WALL, WCLONE, WCONTINUED, WEXITED, WNOTHREAD, WNOWAIT, WSTOPPED};
use abi::siginfo::{CLD_CONTINUED, CLD_DUMPED, CLD_EXITED, CLD_KILLED, CLD_STOPPED};
use abi::{Errno, Signal};

use super::{CurrentTask, Usage, WaitArgs, WaitResult, WaitTarget};
use crate::tree::{Life, Node};
use crate::{CONTINUED_STATUS, ExitStatus, ThreadGroup, stopped_status};

/// What one look at the children found.
enum Found {
    Nothing {
        eligible: bool,
    },
    /// A child is about to become a zombie.
    Soon,
    Child(Arc<ThreadGroup>, Event),
}

#[derive(Clone, Copy)]
enum Event {
    Ended(ExitStatus),
    Stopped(Signal),
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

/// What a child has to tell. Stops and continuations count as told from now on, unless `WNOWAIT` is set.
fn event_of(options: u32, node: &Node<Arc<ThreadGroup>>) -> Option<Event> {
    let consume = options & WNOWAIT == 0;
    match node.life {
        Life::Zombie(status) => (options & WEXITED != 0).then_some(Event::Ended(status)),
        Life::Notifying => None,
        Life::Alive => {
            let stopped = if options & WSTOPPED != 0 { node.group.stop_report(consume) } else { None };
            let continued = || options & WCONTINUED != 0 && node.group.continue_report(consume);
            stopped.map(Event::Stopped).or_else(|| continued().then_some(Event::Continued))
        }
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
            soon |= node.life == Life::Notifying && args.options & WEXITED != 0;
            found = event_of(args.options, node).map(|event| (*id, Arc::clone(&node.group), event));
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
            None => Found::Nothing { eligible },
        }
    }

    /// Says what the child told; removes a zombie.
    fn collect(&self, args: &WaitArgs, group: &Arc<ThreadGroup>, event: Event) -> WaitResult {
        let usage = group.usage().plus(group.children_usage());
        let (code, status, raw) = match event {
            Event::Ended(end @ ExitStatus::Exited(code)) => (CLD_EXITED, code & 0xff, end.raw()),
            Event::Ended(end @ ExitStatus::Signaled { signal, core }) => {
                (if core { CLD_DUMPED } else { CLD_KILLED }, signal.number(), end.raw())
            }
            Event::Stopped(signal) => (CLD_STOPPED, signal.number(), stopped_status(signal)),
            Event::Continued => (CLD_CONTINUED, Signal::SIGCONT.number(), CONTINUED_STATUS),
        };
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
