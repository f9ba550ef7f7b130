//! exit(2): a task gives back what it has; the last of a process tells the parent.
use std::sync::Arc;

use abi::ptrace::event;
use memmap::MemoryManager;
use sync::PollEvents;

use super::{CurrentTask, Mode, Task};
use crate::signal;
use crate::{ExitStatus, FdTable, ThreadGroup, close_file};

impl CurrentTask {
    /// Ends the task; the host thread returns from this with nothing left to do.
    pub(crate) fn finish(mut self) {
        let own = ExitStatus::Exited(self.exit_code.unwrap_or(0));
        self.set_exiting();
        if self.is_traced() {
            // What killed it has done so.
            signal::forget_kill(&self);
            let status = self.group().exit_status().unwrap_or(own);
            self.trace_event(event::EXIT, u64::from(status.raw().cast_unsigned()));
        }
        signal::pass_on(&self);
        self.release_memory();
        let Self { task, context, .. } = self;
        task.state.lock().interrupt = None;
        drop(context);
        task.give_back();
        task.cpu.enter(Mode::Idle, task.kernel().clock().monotonic_ns());
        leave_group(&task, own);
    }

    /// Lets go of the memory, as exit(2) and execve(2) do (Linux `mm_release`): robust futexes, the word of
    /// `CLONE_CHILD_CLEARTID`, and the parent in vfork(2). The memory itself stays.
    pub(crate) fn release_memory(&self) {
        let (robust, clear, vfork, mm, shared) = {
            let mut state = self.state.lock();
            let shared = state.mm.as_ref().is_some_and(|m| Arc::strong_count(m) > 1);
            let mm = state.mm.as_ref().map(|m| Arc::clone(m.mm()));
            let robust = std::mem::take(&mut state.robust_list);
            (robust, std::mem::take(&mut state.clear_child_tid), state.vfork_parent.take(), mm, shared)
        };
        if let Some(mm) = mm {
            self.kernel().futexes().exit_robust_list(&mm, robust, self.tid().cast_unsigned());
            self.kernel().futexes().exit_pi(self);
            // Linux does the same only where somebody is left who could see it.
            if clear != 0 && shared {
                self.clear_word(&mm, clear);
            }
        }
        if let Some(parent) = vfork {
            parent.release();
        }
    }

    fn clear_word(&self, mm: &MemoryManager, addr: u64) {
        // The thread is gone: there is nobody to tell of a word that cannot be written.
        let _unwritable = mm.write_obj(addr, &0u32);
        let _unmapped = self.kernel().futexes().wake(mm, addr, false, 1, u32::MAX);
    }
}

impl Task {
    /// Gives back descriptors, memory and the resources of upper crates. Takes no lock while it does.
    pub(crate) fn give_back(&self) {
        let (fd_table, mm, slots) = {
            let mut state = self.state.lock();
            (state.fd_table.take(), state.mm.take(), std::mem::take(&mut state.slots))
        };
        if let Some(mm) = mm {
            // The last task of a memory knows best how much there was.
            if Arc::strong_count(&mm) == 1 {
                self.group().note_rss(mm.mm().status().peak_rss);
            }
        }
        if let Some(table) = fd_table {
            self.leave_fd_table(&table);
        }
        for resource in slots.into_iter().flatten() {
            resource.on_exit();
        }
    }

    /// One task fewer uses the table: closes its files where it was the last.
    pub(crate) fn leave_fd_table(&self, table: &FdTable) {
        for file in table.release() {
            // close(2)'s error has nobody to go to.
            let _error = close_file(self, file);
        }
    }
}

/// Takes the task out of its group; the last one ends the process.
fn leave_group(task: &Arc<Task>, own: ExitStatus) {
    let group = Arc::clone(task.group());
    let kernel = Arc::clone(group.kernel());
    group.signals().forget_task(task.signals());
    let is_leader = task.tid() == group.tgid();
    let (is_last, status, exec_by) = {
        let mut state = group.state.lock();
        state.threads.retain(|t| !Arc::ptr_eq(t, task));
        state.past = state.past.plus(task.cpu.usage(0));
        let is_last = state.threads.is_empty();
        // Where no exit_group(2) or signal decided, the last thread does (Linux since 6.0, `synchronize_group_exit`).
        let status = state.exit.unwrap_or(own);
        let exec_by = if state.threads.len() == 1 { state.exec_by.clone() } else { None };
        (is_last, status, exec_by)
    };
    if let Some(exec_by) = exec_by {
        exec_by.waiter().wake_up();
    }
    kernel.thread_gone(task, is_leader, status);
    if is_last {
        kernel.end_group(&group, status);
    } else {
        group.thread_left();
    }
}

impl ThreadGroup {
    /// Notes how the process ended, and tells those who wait for it.
    pub(crate) fn set_ended(&self, status: ExitStatus) {
        self.state.lock().ended = Some(status);
        self.exit_events().notify(PollEvents::IN);
    }
}
