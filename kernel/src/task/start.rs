//! Giving a task its host thread.
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use abi::{Errno, Registers};
use memmap::MemoryManager;
use platform::{FpuState, PlatformError};

use super::{CurrentTask, Mode, Task};

/// What a program's thread begins with.
#[derive(Debug)]
pub(crate) struct Start {
    pub regs: Registers,
    /// The FPU state, where it is not the initial one.
    pub fpu: Option<FpuState>,
}

/// A host thread that is ready to run its task. Dropping this without [`Self::go`] ends the thread.
#[derive(Debug)]
pub(crate) struct Ready {
    go: SyncSender<()>,
}

impl Ready {
    /// Lets the task run.
    pub(crate) fn go(self) {
        // The thread waits for this and for nothing else.
        self.go.send(()).expect("the thread waits");
    }
}

/// The error of clone(2) for a host call that failed.
pub(crate) fn host_error(error: &PlatformError) -> Errno {
    tracing::warn!(%error, "the host has no room for a thread or an address space");
    match error {
        PlatformError::Host { source, .. } if source.raw_os_error() == Some(libc_enomem()) => Errno::ENOMEM,
        _ => Errno::EAGAIN,
    }
}

const fn libc_enomem() -> i32 {
    Errno::ENOMEM.raw() as i32
}

/// Makes the task's host thread and, on it, its place in the address space. The task does not run yet.
///
/// # Errors
/// `EAGAIN` and `ENOMEM` where the host refuses.
pub(crate) fn prepare(task: &Arc<Task>, mm: &Arc<MemoryManager>, start: Start) -> Result<Ready, Errno> {
    let (ready_tx, ready_rx) = sync_channel(1);
    let (go_tx, go_rx) = sync_channel(1);
    let kernel = Arc::clone(task.kernel());
    let (task, space) = (Arc::clone(task), mm.address_space());
    let body = move || {
        let context = space.new_context();
        let made = context.and_then(|mut context| {
            if let Some(fpu) = &start.fpu {
                // The state was saved from another thread of this platform: the processor takes it.
                let _taken = context.load_fpu(fpu)?;
            }
            task.state.lock().interrupt = Some(context.interrupter());
            Ok(context)
        });
        match made {
            Ok(context) => serve(CurrentTask::new(task, start.regs, context), &ready_tx, &go_rx),
            Err(error) => drop(ready_tx.send(Err(host_error(&error)))),
        }
    };
    if let Err(error) = kernel.workers.run(Box::new(body)) {
        tracing::warn!(%error, "the host has no room for a thread");
        return Err(Errno::EAGAIN);
    }
    ready_rx.recv().unwrap_or(Err(Errno::EAGAIN))?;
    Ok(Ready { go: go_tx })
}

/// Ends the sandbox where a task's thread panics: half a kernel is worse than none. The panic hook has reported already.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

fn serve(cur: CurrentTask, ready: &SyncSender<Result<(), Errno>>, go: &Receiver<()>) {
    let _abort = AbortOnPanic;
    if ready.send(Ok(())).is_ok() && go.recv().is_ok() {
        cur.cpu.enter(Mode::System, cur.kernel().clock().monotonic_ns());
        cur.run();
    }
}
