//! What a task does on its way out to the program, Linux `arch_do_signal_or_restart`.
use std::sync::Arc;

use abi::siginfo::{SA_NODEFER, SA_RESETHAND, SA_RESTART, SIG_DFL, SIG_IGN, SigAction};
use abi::{Errno, Signal};

use super::send::take_deliverable;
use super::{DefaultAction, SigInfo, default_action, force_signal, frame, stop};
use crate::{CurrentTask, ExitStatus};

/// restart_syscall(2).
const RESTART_SYSCALL: u64 = 219;
/// The length of `syscall` and of `int 0x80`.
const SYSCALL_LEN: u64 = 2;

/// How the system call that just returned wants to go on.
fn restart_of(cur: &CurrentTask) -> Option<Errno> {
    let regs = cur.regs();
    if regs.orig_rax.cast_signed() < 0 {
        return None;
    }
    let all =
        [Errno::ERESTARTSYS, Errno::ERESTARTNOINTR, Errno::ERESTARTNOHAND, Errno::ERESTART_RESTARTBLOCK];
    all.into_iter().find(|e| regs.rax == e.as_return())
}

/// Handles what is pending: stops, dies, enters handlers; else restarts an interrupted system call. To be called before
/// every return to the program. If the task or its group exits by this, [`CurrentTask::is_exiting`] tells.
pub fn deliver(cur: &mut CurrentTask) {
    loop {
        if cur.is_exiting() {
            return;
        }
        if super::is_killed(cur) {
            cur.exit_group(ExitStatus::Signaled { signal: Signal::SIGKILL, core: false });
            return;
        }
        let traced = cur.is_traced();
        if traced && cur.trace_traps() {
            continue;
        }
        if !traced && cur.group().signals().job.is_stopping() {
            stop::park(cur);
            continue;
        }
        let continued = cur.group().signals().job.continued();
        let Some(mut info) = take_deliverable(cur) else { break };
        if traced {
            let Some(wanted) = cur.trace_signal(info) else { continue };
            info = wanted;
        }
        let actions = cur.group().signals().actions();
        let action = actions.get(info.signal);
        match action.handler {
            SIG_IGN => {}
            SIG_DFL => do_default(cur, &info, continued),
            _ => {
                handle_restart(cur, &action);
                enter(cur, &action, &info);
            }
        }
    }
    // A tracer may have changed what the call is to do, or taken it away.
    if let Some(how) = restart_of(cur) {
        again(cur, how);
    }
    cur.signals().restore_mask();
}

/// `continued` is that of before the signal was taken.
fn do_default(cur: &mut CurrentTask, info: &SigInfo, continued: u64) {
    let group = Arc::clone(cur.group());
    match default_action(info.signal) {
        DefaultAction::Ignore | DefaultAction::Continue => {}
        DefaultAction::Stop => {
            let from_job_control = info.signal != Signal::SIGSTOP;
            let void = group.signals().job.continued() != continued;
            if !(void || from_job_control && group.is_in_orphaned_process_group()) {
                stop::begin(cur, info.signal);
            }
        }
        DefaultAction::Terminate | DefaultAction::Core => {
            if !group.signals().is_unkillable() {
                // There is no core file: RLIMIT_CORE is taken as 0.
                cur.exit_group(ExitStatus::Signaled { signal: info.signal, core: false });
            }
        }
    }
}

/// Makes the system call return `EINTR` to the handler's frame, or be made again after it.
fn handle_restart(cur: &mut CurrentTask, action: &SigAction) {
    match restart_of(cur) {
        Some(Errno::ERESTARTNOINTR) => again(cur, Errno::ERESTARTNOINTR),
        Some(Errno::ERESTARTSYS) if action.flags & SA_RESTART != 0 => again(cur, Errno::ERESTARTSYS),
        Some(_) => cur.regs_mut().rax = Errno::EINTR.as_return(),
        None => {}
    }
}

/// Points the registers at the system call instruction again.
fn again(cur: &mut CurrentTask, how: Errno) {
    let regs = cur.regs_mut();
    regs.rax = if how == Errno::ERESTART_RESTARTBLOCK { RESTART_SYSCALL } else { regs.orig_rax };
    regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
}

fn enter(cur: &mut CurrentTask, action: &SigAction, info: &SigInfo) {
    let mask = cur.signals().mask();
    let saved = cur.signals().take_saved_mask().unwrap_or(mask);
    if frame::push(cur, action, info, saved).is_err() {
        // Linux force_sigsegv: a handler of SIGSEGV that cannot be entered is not tried again.
        let actions = cur.group().signals().actions();
        if info.signal == Signal::SIGSEGV {
            actions.set(info.signal, SigAction::default());
        }
        cur.signals().set_mask(saved);
        force_signal(cur, SigInfo::kernel(Signal::SIGSEGV));
        return;
    }
    let mut blocked = mask.union(action.mask);
    if action.flags & SA_NODEFER == 0 {
        blocked.insert(info.signal);
    }
    super::change_mask(cur, blocked);
    if action.flags & SA_RESETHAND != 0 {
        let actions = cur.group().signals().actions();
        actions.set(info.signal, SigAction { handler: SIG_DFL, ..*action });
    }
    cur.trace_handler();
}
