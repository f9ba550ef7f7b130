//! clone(2), Linux `kernel/fork.c:copy_process`.
use std::sync::Arc;

use abi::ptrace::event;
use abi::sigframe::StackT;
use abi::{Errno, Signal};

use super::{CloneArgs, CurrentTask, MmUser, Scheduling, Start, Task, TaskState, VforkParent, prepare};
use crate::futex::RobustList;
use crate::ptrace;
use crate::signal::{self, GroupSignals, TaskSignals};
use crate::slot::{SlotId, Slots, put};
use crate::task::start::Ready;
use crate::tree::{INIT, Life, Node};
use crate::{Cap, CloneFlags, Credentials, FdTable, RLIM_INFINITY, RLIMIT_NPROC, ThreadGroup};

/// The end of what a program may use as its FS base, Linux `TASK_SIZE_MAX`.
const TASK_SIZE_MAX: u64 = 0x7fff_ffff_f000;

/// Checks the combinations of flags that clone(2) refuses.
fn check_flags(args: &CloneArgs, is_init: bool) -> Result<(), Errno> {
    let flags = args.flags;
    let has = |flag| flags.contains(flag);
    let bad = has(CloneFlags::NEWNS | CloneFlags::FS)
        || has(CloneFlags::NEWUSER | CloneFlags::FS)
        || has(CloneFlags::THREAD) && !has(CloneFlags::SIGHAND)
        || has(CloneFlags::SIGHAND) && !has(CloneFlags::VM)
        || has(CloneFlags::SIGHAND | CloneFlags::CLEAR_SIGHAND)
        || has(CloneFlags::THREAD) && flags.intersects(CloneFlags::NEWUSER | CloneFlags::NEWPID)
        || has(CloneFlags::PARENT) && is_init
        || has(CloneFlags::PIDFD | CloneFlags::DETACHED)
        || flags.difference(CloneFlags::ALL) != CloneFlags::default()
        || !(0..=64).contains(&args.exit_signal);
    if bad {
        return Err(Errno::EINVAL);
    }
    if has(CloneFlags::SETTLS) && args.tls >= TASK_SIZE_MAX {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Namespaces are shared by the whole sandbox: a new one is refused as a kernel refuses it that was built without.
///
/// # Errors
/// `EPERM` for a caller who may not make one anywhere, `EINVAL`.
pub(crate) fn check_namespaces(credentials: &Credentials, flags: CloneFlags) -> Result<(), Errno> {
    let wanted = CloneFlags(flags.0 & CloneFlags::NAMESPACES.0);
    if wanted == CloneFlags::default() {
        return Ok(());
    }
    if !wanted.contains(CloneFlags::NEWUSER) && !credentials.has_cap(Cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    Err(Errno::EINVAL)
}

/// What a tracer may want to be told of a call, Linux `kernel_clone`.
fn trace_event(args: &CloneArgs) -> Option<i32> {
    if args.flags.contains(CloneFlags::UNTRACED) {
        None
    } else if args.flags.contains(CloneFlags::VFORK) {
        Some(event::VFORK)
    } else if args.exit_signal == Signal::SIGCHLD.number() {
        Some(event::FORK)
    } else {
        Some(event::CLONE)
    }
}

impl CurrentTask {
    /// clone3(2): makes a thread or a process; gives its id. With `CLONE_VFORK` returns when the child lets go of the memory.
    ///
    /// # Errors
    /// Those of clone(2); `ERESTARTNOINTR` where a signal is to be delivered first.
    pub fn clone_task(&mut self, args: CloneArgs) -> Result<i32, Errno> {
        check_flags(&args, self.tgid() == INIT)?;
        let credentials = self.credentials();
        check_namespaces(&credentials, args.flags)
            .inspect_err(|_| self.kernel().unsupported("clone: namespaces"))?;
        if args.flags.contains(CloneFlags::INTO_CGROUP) {
            self.kernel().unsupported("clone: CLONE_INTO_CGROUP");
            return Err(Errno::EINVAL);
        }
        self.check_task_limit(&credentials)?;
        if signal::has_work(self) {
            return Err(Errno::ERESTARTNOINTR);
        }
        let kernel = Arc::clone(self.kernel());
        let event = trace_event(&args).filter(|event| self.has_event(*event));
        let followed = self.is_traced() && (event.is_some() || args.flags.contains(CloneFlags::PTRACE));
        let tid = kernel.tree.lock().allocate_id()?;
        let cloned = self.clone_as(tid, &args, followed);
        if cloned.is_err() {
            kernel.tree.lock().free_id(tid);
        }
        let vfork = cloned?;
        let message = u64::from(tid.cast_unsigned());
        if let Some(event) = event {
            self.trace_event(event, message);
        }
        if let Some(vfork) = vfork {
            self.wait_for_vfork(&vfork);
            if vfork.is_released() {
                self.trace_event(event::VFORK_DONE, message);
            }
        }
        Ok(tid)
    }

    /// The container's limit (Linux `cgroup_can_fork`), and `RLIMIT_NPROC` (`is_rlimit_overlimit` in `copy_process`).
    fn check_task_limit(&self, credentials: &Credentials) -> Result<(), Errno> {
        let most = self.kernel().quota().tasks();
        if most != u64::MAX && self.kernel().task_count() as u64 >= most {
            return Err(Errno::EAGAIN);
        }
        let (limit, _) = self.group().limits().get(RLIMIT_NPROC);
        let exempt = credentials.uid == 0
            || credentials.has_cap(Cap::SYS_RESOURCE)
            || credentials.has_cap(Cap::SYS_ADMIN);
        if limit == RLIM_INFINITY || exempt {
            return Ok(());
        }
        let tasks = self.kernel().tasks();
        let own = tasks.iter().filter(|t| t.credentials().uid == credentials.uid).count();
        if own as u64 >= limit { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    fn clone_as(
        &mut self,
        tid: i32,
        args: &CloneArgs,
        followed: bool,
    ) -> Result<Option<Arc<VforkParent>>, Errno> {
        let flags = args.flags;
        let parent_mm = self.mm().ok_or(Errno::ENOMEM)?;
        let vfork = flags.contains(CloneFlags::VFORK).then(|| VforkParent::new(self.waiter()));
        let fpu = self.save_fpu().map_err(|_host| Errno::EAGAIN)?;
        let child = self.make_child(tid, args, vfork.clone())?;
        let mm = child.mm().ok_or(Errno::ENOMEM)?;
        let mut regs = self.regs;
        (regs.rax, regs.orig_rax) = (0, u64::MAX);
        if args.stack != 0 {
            regs.rsp = args.stack;
        }
        if flags.contains(CloneFlags::SETTLS) {
            regs.fs_base = args.tls;
        }
        let ready = prepare(&child, &mm, Start { regs, fpu: Some(fpu) });
        let published = ready.and_then(|ready| self.publish(&child, args, followed, ready));
        let ready = match published {
            Ok(ready) => ready,
            Err(error) => {
                child.give_back();
                if child.tid() == child.tgid() {
                    child.group().forget_leader();
                }
                return Err(error);
            }
        };
        // Linux does not tell of addresses that cannot be written either.
        if flags.contains(CloneFlags::PARENT_SETTID) {
            let _unwritable = parent_mm.write_obj(args.parent_tid, &tid);
        }
        if flags.contains(CloneFlags::CHILD_SETTID) {
            let _unwritable = mm.write_obj(args.child_tid, &tid);
        }
        if !flags.contains(CloneFlags::THREAD) {
            child.group().watch_cpu_limit();
        }
        ready.go();
        Ok(vfork)
    }

    /// Makes the child, which nobody sees yet.
    fn make_child(
        &self,
        tid: i32,
        args: &CloneArgs,
        vfork_parent: Option<Arc<VforkParent>>,
    ) -> Result<Arc<Task>, Errno> {
        let flags = args.flags;
        let (mm, fd_table, slots, mut scheduling, name, credentials, seccomp) = {
            let state = self.state.lock();
            let mm = state.mm.clone().ok_or(Errno::ENOMEM)?;
            let fd_table = state.fd_table.clone().ok_or(Errno::ENOMEM)?;
            let scheduling = state.scheduling.clone();
            let (slots, seccomp) = (state.slots.clone(), state.seccomp.clone());
            (mm, fd_table, slots, scheduling, state.name, Arc::clone(&state.credentials), seccomp)
        };
        if scheduling.reset_on_fork {
            let nice = scheduling.nice.max(0);
            scheduling = Scheduling { policy: 0, priority: 0, nice, reset_on_fork: false, ..scheduling };
        }
        let mm = if flags.contains(CloneFlags::VM) { mm } else { MmUser::new(mm.mm().fork()?) };
        let fd_table = if flags.contains(CloneFlags::FILES) { fd_table } else { fd_table.fork() };
        fd_table.acquire();
        let slots = clone_slots(slots, flags).inspect_err(|_| self.leave_fd_table(&fd_table))?;
        let clear_child_tid = if flags.contains(CloneFlags::CHILD_CLEARTID) { args.child_tid } else { 0 };
        let state = TaskState {
            name,
            credentials,
            fd_table: Some(fd_table),
            mm: Some(mm),
            vfork_parent,
            slots,
            robust_list: RobustList::default(),
            clear_child_tid,
            parent_death_signal: 0,
            scheduling,
            seccomp,
            interrupt: None,
        };
        let signals = TaskSignals::new(self.signals().mask());
        // A thread of the same memory that does not borrow its parent's stack has no alternate stack (sigaltstack(2)).
        let own_stack = flags.contains(CloneFlags::VM) && !flags.contains(CloneFlags::VFORK);
        signals.set_alt_stack(if own_stack { StackT::default() } else { self.signals().alt_stack() });
        if flags.contains(CloneFlags::THREAD) {
            return Ok(Task::new(tid, self.group(), signals, state));
        }
        let group = self.make_group(tid, flags);
        let task = Task::new(tid, &group, signals, state);
        let mut state = group.state.lock();
        state.leader = Some(Arc::clone(&task));
        state.threads.push(Arc::clone(&task));
        drop(state);
        Ok(task)
    }

    fn make_group(&self, tgid: i32, flags: CloneFlags) -> Arc<ThreadGroup> {
        let parent = self.group();
        let actions = parent.signals().actions();
        let actions = if flags.contains(CloneFlags::SIGHAND) {
            actions
        } else if flags.contains(CloneFlags::CLEAR_SIGHAND) {
            actions.reset(true)
        } else {
            actions.fork()
        };
        let group = ThreadGroup::new(self.kernel(), tgid, GroupSignals::new(actions), parent.limits().fork());
        group.set_dumpable(parent.dumpable());
        group.set_personality(parent.personality());
        group.set_oom_score_adj(parent.oom_score_adj());
        group.set_coredump_filter(parent.coredump_filter());
        if let Some(exe) = parent.exe() {
            group.set_exe(exe);
        }
        group
    }

    /// Shows the child to everybody, if the parent may still have one.
    fn publish(
        &self,
        child: &Arc<Task>,
        args: &CloneArgs,
        followed: bool,
        ready: Ready,
    ) -> Result<Ready, Errno> {
        let pidfd = if args.flags.contains(CloneFlags::PIDFD) {
            Some(self.install_pidfd(child, args)?)
        } else {
            None
        };
        let published = self.publish_in_tree(child, args, followed);
        if let (Err(_), Some((table, fd))) = (&published, &pidfd) {
            // Another thread that closed it already did what is wanted.
            let _closed = table.remove(*fd);
        }
        published.map(|()| ready)
    }

    /// With `followed`, the caller's tracer traces the child.
    fn publish_in_tree(&self, child: &Arc<Task>, args: &CloneArgs, followed: bool) -> Result<(), Errno> {
        let kernel = self.kernel();
        let mut tree = kernel.tree.lock();
        if tree.draining {
            return Err(Errno::ENOMEM);
        }
        let mut state = self.group().state.lock();
        if state.exit.is_some() || state.exec_by.is_some() {
            return Err(Errno::ERESTARTNOINTR);
        }
        if args.flags.contains(CloneFlags::THREAD) {
            state.threads.push(Arc::clone(child));
            drop(state);
            tree.add_task(child.tid(), Arc::clone(child));
            if followed {
                ptrace::follow(&mut tree, self, child);
            }
            return Ok(());
        }
        drop(state);
        let own = tree.node(self.tgid()).ok_or(Errno::EAGAIN)?;
        let (parent, parent_thread, exit_signal) = if args.flags.contains(CloneFlags::PARENT) {
            (own.parent, own.parent_thread, own.exit_signal)
        } else {
            (Some(self.tgid()), self.tid(), args.exit_signal)
        };
        let node = Node {
            group: Arc::clone(child.group()),
            parent,
            parent_thread,
            children: Vec::new(),
            process_group: Arc::clone(&own.process_group),
            life: Life::Alive,
            subreaper: false,
            did_exec: false,
            exit_signal,
        };
        tree.add_group(child.tid(), node);
        tree.add_task(child.tid(), Arc::clone(child));
        if followed {
            ptrace::follow(&mut tree, self, child);
        }
        Ok(())
    }

    /// Gives the parent the descriptor that `CLONE_PIDFD` asks for.
    fn install_pidfd(&self, child: &Arc<Task>, args: &CloneArgs) -> Result<(Arc<FdTable>, i32), Errno> {
        let factory = self.kernel().pidfd_factory().ok_or(Errno::EINVAL)?;
        let (table, mm) = (self.fd_table().ok_or(Errno::EMFILE)?, self.mm().ok_or(Errno::EFAULT)?);
        let file = factory(child.group())?;
        let fd = table.install(file, true, self.group().limits().get(crate::RLIMIT_NOFILE).0)?;
        if let Err(error) = mm.write_obj(args.pidfd, &fd) {
            let _closed = table.remove(fd);
            return Err(error);
        }
        Ok((table, fd))
    }

    /// Sleeps until the child lets go of the memory; only death ends this early.
    fn wait_for_vfork(&self, vfork: &VforkParent) {
        let clock = self.kernel().clock();
        self.cpu.enter(super::Mode::Idle, clock.monotonic_ns());
        while !vfork.is_released() && !self.is_exiting() && !signal::is_killed(self) {
            self.waiter().wait_for(self.context.rest(), None);
            self.context.rested();
        }
        self.cpu.enter(super::Mode::System, clock.monotonic_ns());
    }
}

impl CurrentTask {
    /// unshare(2).
    ///
    /// # Errors
    /// `EINVAL` for unknown flags, what only a single-threaded process can have for itself, and new namespaces;
    /// `EPERM` for those without `CAP_SYS_ADMIN`.
    pub fn unshare(&self, flags: CloneFlags) -> Result<(), Errno> {
        let of_threads = CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM;
        let others = CloneFlags::FS | CloneFlags::FILES | CloneFlags::SYSVSEM | CloneFlags::NAMESPACES;
        if flags.difference(of_threads | others) != CloneFlags::default() {
            return Err(Errno::EINVAL);
        }
        if flags.intersects(of_threads) && self.group().thread_count() > 1 {
            return Err(Errno::EINVAL);
        }
        check_namespaces(&self.credentials(), flags)
            .inspect_err(|_| self.kernel().unsupported("unshare: namespaces"))?;
        if flags.contains(CloneFlags::FS) {
            self.unshare_slot(SlotId::Fs)?;
        }
        if flags.contains(CloneFlags::FILES) {
            self.unshare_fd_table();
        }
        Ok(())
    }

    /// Replaces a resource by a copy of its own.
    fn unshare_slot(&self, id: SlotId) -> Result<(), Errno> {
        let shared = self.state.lock().slots.get(id as usize).and_then(Clone::clone);
        let Some(shared) = shared else { return Ok(()) };
        let own = shared.on_clone(CloneFlags::default())?;
        let old = put(&mut self.state.lock().slots, id, own);
        if let Some(old) = old {
            old.on_exit();
        }
        Ok(())
    }
}

/// Asks each resource what the child gets. A failure gives back what was given already.
fn clone_slots(slots: Slots, flags: CloneFlags) -> Result<Slots, Errno> {
    let mut out: Slots = Slots::default();
    for (from, to) in slots.into_iter().zip(out.iter_mut()) {
        match from.map(|resource| resource.on_clone(flags)).transpose() {
            Ok(given) => *to = given,
            Err(error) => {
                out.into_iter().flatten().for_each(|resource| resource.on_exit());
                return Err(error);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: CloneFlags) -> Result<(), Errno> {
        check_flags(&CloneArgs { flags, ..CloneArgs::default() }, false)
    }

    #[test]
    fn combinations_linux_refuses() {
        assert_eq!(check(CloneFlags::default()), Ok(()));
        assert_eq!(check(CloneFlags::THREAD), Err(Errno::EINVAL));
        assert_eq!(check(CloneFlags::THREAD | CloneFlags::SIGHAND), Err(Errno::EINVAL));
        assert_eq!(check(CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM), Ok(()));
        assert_eq!(check(CloneFlags::NEWNS | CloneFlags::FS), Err(Errno::EINVAL));
        assert_eq!(check(CloneFlags(1 << 40)), Err(Errno::EINVAL));
        let tls = CloneArgs { flags: CloneFlags::SETTLS, tls: 1 << 63, ..CloneArgs::default() };
        assert_eq!(check_flags(&tls, false), Err(Errno::EPERM));
        let parent = CloneArgs { flags: CloneFlags::PARENT, ..CloneArgs::default() };
        assert_eq!(check_flags(&parent, true), Err(Errno::EINVAL));
        assert_eq!(check_flags(&parent, false), Ok(()));
    }

    #[test]
    fn namespaces_are_refused() {
        assert_eq!(check_namespaces(&Credentials::root(), CloneFlags::FS), Ok(()));
        assert_eq!(check_namespaces(&Credentials::root(), CloneFlags::NEWNS), Err(Errno::EINVAL));
        assert_eq!(check_namespaces(&Credentials::user(1, 1), CloneFlags::NEWNS), Err(Errno::EPERM));
    }
}
