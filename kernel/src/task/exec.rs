//! execve(2), Linux `fs/exec.c:begin_new_exec`.
use std::sync::Arc;

use abi::ptrace::event;
use abi::sigframe::StackT;
use abi::{Errno, Registers, Signal};
use memmap::MemoryManager;

use super::start::host_error;
use super::{CurrentTask, MmUser, Mode};
use crate::loader::{LoadContext, LoadedImage, load};
use crate::ptrace;
use crate::slot::Slots;
use crate::spawn::{initial_registers, program_name};
use crate::{Credentials, ExecImage, ExecStrings, OpenInterpreter, RLIMIT_STACK, close_file};

impl CurrentTask {
    /// Replaces the program. The file is opened and checked for permission already. Everything that can fail is done before
    /// the old program is given up.
    ///
    /// # Errors
    /// Those of execve(2).
    pub fn exec(
        &mut self,
        image: ExecImage,
        strings: ExecStrings,
        open: OpenInterpreter<'_>,
    ) -> Result<(), Errno> {
        let kernel = Arc::clone(self.kernel());
        let old_tid = u64::from(self.tid().cast_unsigned());
        let mm = MemoryManager::new(Arc::clone(kernel.memory_file()), Arc::clone(kernel.platform()))?;
        let name = program_name(&image.path);
        let credentials = self.credentials();
        let cx = LoadContext {
            task: &self.task,
            mm: &mm,
            open,
            credentials: &credentials,
            host: *kernel.host(),
            stack_limit: self.group().limits().get(RLIMIT_STACK).0,
            plain: self.has_weak_tracer(),
        };
        let loaded = load(&cx, image, strings)?;
        let context = mm.address_space().new_context().map_err(|e| host_error(&e))?;
        self.kill_other_threads()?;
        // From here on there is no way back.
        self.state.lock().interrupt = Some(context.interrupter());
        self.release_memory();
        self.context = context;
        self.regs =
            Registers { orig_rax: self.regs.orig_rax, rax: self.regs.rax, ..initial_registers(&loaded) };
        self.become_program(mm, name, loaded);
        if self.is_traced() {
            self.forbid_patches();
        }
        self.begin_program();
        self.trace_event(event::EXEC, old_tid);
        Ok(())
    }

    /// Makes this the only thread of its process, and its leader.
    ///
    /// # Errors
    /// `EAGAIN` where another thread is at the same, or the process exits.
    fn kill_other_threads(&mut self) -> Result<(), Errno> {
        let group = Arc::clone(self.group());
        let others = {
            let mut state = group.state.lock();
            if state.exit.is_some() || state.exec_by.is_some() || self.is_exiting() {
                return Err(Errno::EAGAIN);
            }
            state.exec_by = Some(Arc::clone(&self.task));
            let others: Vec<_> =
                state.threads.iter().filter(|t| !Arc::ptr_eq(t, &self.task)).map(Arc::clone).collect();
            others.iter().for_each(|t| t.set_exiting());
            others
        };
        others.iter().for_each(|t| t.interrupt());
        self.cpu.enter(Mode::Idle, self.kernel().clock().monotonic_ns());
        while group.thread_count() > 1 {
            self.waiter().wait();
        }
        self.cpu.enter(Mode::System, self.kernel().clock().monotonic_ns());
        self.become_leader();
        let mut state = group.state.lock();
        state.exec_by = None;
        if state.exit.is_some() { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// Takes over the process's id from a leader that is gone (Linux `de_thread`).
    fn become_leader(&self) {
        let (group, tgid, own) = (self.group(), self.tgid(), self.tid());
        let mut tree = self.kernel().tree.lock();
        if let Some(node) = tree.node_mut(tgid) {
            node.did_exec = true;
            node.exit_signal = Signal::SIGCHLD.number();
        }
        if own == tgid {
            return;
        }
        let children = tree.node(tgid).map(|n| n.children.clone()).unwrap_or_default();
        for child in children {
            if let Some(child) = tree.node_mut(child) {
                child.parent_thread = tgid;
            }
        }
        tree.remove_task(own);
        let old_task = tree.remove_task(tgid);
        tree.add_task(tgid, Arc::clone(&self.task));
        self.set_tid(tgid);
        let old_leader = {
            let mut state = group.state.lock();
            state.leader.replace(Arc::clone(&self.task))
        };
        let old_link = ptrace::rename(&mut tree, &self.task, own, tgid);
        drop(tree);
        if let Some(link) = old_link {
            self.kernel().forget_link(&link, None);
        }
        drop((old_task, old_leader));
    }

    /// Resets what belongs to the program.
    fn become_program(&mut self, mm: Arc<MemoryManager>, name: [u8; 16], loaded: LoadedImage) {
        let group = Arc::clone(self.group());
        let (old_mm, old_slots, shared_fds) = {
            let mut state = self.state.lock();
            state.name = name;
            if loaded.secure {
                state.parent_death_signal = 0;
            }
            let shared = state.fd_table.clone().filter(|t| t.is_shared());
            (state.mm.replace(MmUser::new(mm)), std::mem::take(&mut state.slots), shared)
        };
        if let Some(old) = old_mm.filter(|old| Arc::strong_count(old) == 1) {
            group.note_rss(old.mm().status().peak_rss);
        }
        let mut slots = Slots::default();
        for (from, to) in old_slots.into_iter().zip(slots.iter_mut()) {
            *to = from.map(|resource| resource.on_exec());
        }
        self.state.lock().slots = slots;
        if let Some(shared) = shared_fds {
            self.unshare_fd_table_from(&shared);
        }
        for file in self.fd_table().map(|t| t.exec_close()).unwrap_or_default() {
            // close(2)'s error has nobody to go to.
            let _error = close_file(self, file);
        }
        let old = self.credentials();
        group.set_dumpable(u8::from(old.euid == old.uid && old.egid == old.gid));
        self.take_over(loaded.credentials, loaded.plain_credentials);
        group.set_exe(loaded.executable);
        let signals = group.signals();
        signals.set_actions(signals.actions().reset(true));
        self.signals().set_alt_stack(StackT::default());
        group.timers().clear_posix();
    }

    /// Takes the program's credentials over: the plain ones, where a tracer is there that may not have more. None comes
    /// while this decides.
    fn take_over(&self, credentials: Credentials, plain: Credentials) {
        let tree = self.kernel().tree.lock();
        let credentials = if self.has_weak_tracer() { plain } else { credentials };
        self.set_credentials(Arc::new(credentials));
        drop(tree);
    }

    /// unshare(2) with `CLONE_FILES`: gives the task a copy of a table that others use too.
    pub fn unshare_fd_table(&self) {
        if let Some(shared) = self.fd_table().filter(|t| t.is_shared()) {
            self.unshare_fd_table_from(&shared);
        }
    }

    fn unshare_fd_table_from(&self, shared: &Arc<crate::FdTable>) {
        let own = shared.fork();
        own.acquire();
        let old = self.state.lock().fd_table.replace(own);
        if let Some(old) = old {
            self.leave_fd_table(&old);
        }
    }
}
