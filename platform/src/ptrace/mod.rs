//! The back end on ptrace(2): guest threads are stub threads under `PTRACE_SYSEMU`. Runs wherever Linux does; the
//! reference that others are held against.
//!
//! What ptrace does not tell: whether a page fault was a load or a store ([`FaultAccess::Unknown`](crate::FaultAccess)).
//! What it does not stop: a system call of 32-bit code is made the SIGSEGV that a kernel without IA-32 emulation raises.

mod calls;
mod context;
mod decode;
mod space;
mod stop;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::cpu::Cpus;
use crate::stub::lock::Mutex;
use crate::stub::template::Template;
use crate::stub::{Flavor, layout};
use crate::{AddressSpace, FpuState, Platform, PlatformError, StubDeathHook};

/// The host calls that the back end makes after [`Ptrace::new`], for the filter of the process, with the reason of each.
pub const HOST_CALLS: &[(i64, &str)] = &[
    (libc::SYS_ptrace, "runs guest threads"),
    (libc::SYS_wait4, "waits for their stops, and reaps stubs"),
    (libc::SYS_tgkill, "interrupts guest threads, and kills stubs"),
    (libc::SYS_futex, "hands requests to stubs"),
    (libc::SYS_poll, "waits for their answers"),
    (libc::SYS_read, "takes the answers"),
    (libc::SYS_eventfd2, "makes the file a new stub answers by"),
    (libc::SYS_pidfd_open, "looks whether a slow stub is alive"),
    (libc::SYS_sched_setaffinity, "keeps a guest thread and the sentry's thread for it on one CPU"),
];

/// The back end.
#[derive(Debug)]
pub struct Ptrace(Arc<Shared>);

/// What all address spaces share.
pub(crate) struct Shared {
    template: Template,
    /// Guest threads that have a context.
    tracees: Mutex<HashSet<i32>>,
    cpus: Cpus,
    on_stub_death: OnceLock<StubDeathHook>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("template", &self.template).finish_non_exhaustive()
    }
}

impl Shared {
    /// Tells the hook, if `error` is about a death.
    fn notice<T>(&self, result: Result<T, PlatformError>) -> Result<T, PlatformError> {
        if let Err(error @ PlatformError::StubDied { .. }) = &result
            && let Some(hook) = self.on_stub_death.get()
        {
            hook(error);
        }
        result
    }
}

impl Ptrace {
    /// Starts the back end. To be called when the process has its final credentials, user and PID namespace and table of
    /// open files (stubs share all of these), and before it installs a seccomp filter; afterwards it needs
    /// [`HOST_CALLS`]. Starts no thread. The process must not leave its table of open files later.
    ///
    /// # Errors
    /// [`PlatformError::Unavailable`] on a processor without XSAVE; those of the host calls it takes.
    #[expect(clippy::new_ret_no_self, reason = "callers hold every back end by the trait")]
    pub fn new() -> Result<Arc<dyn Platform>, PlatformError> {
        let unavailable = |why: &str| PlatformError::Unavailable { platform: "ptrace", why: why.into() };
        if !std::is_x86_feature_detected!("xsave") {
            return Err(unavailable("the processor has no XSAVE"));
        }
        if crate::fpu::size() > crate::stub::blob::FPU_ROOM {
            return Err(unavailable("the processor has more FPU state than is known of"));
        }
        let template = Template::new(Flavor::Traced)?;
        let cpus = Cpus::allowed();
        Ok(Arc::new(Self(Arc::new(Shared {
            template,
            cpus,
            tracees: Mutex::default(),
            on_stub_death: OnceLock::new(),
        }))))
    }
}

impl Platform for Ptrace {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn host_calls(&self) -> &'static [(i64, &'static str)] {
        HOST_CALLS
    }

    fn user_range(&self) -> Range<u64> {
        layout::LOWEST..self.0.template.user_end()
    }

    fn initial_fpu(&self) -> FpuState {
        crate::fpu::initial()
    }

    fn vdso(&self) -> Option<u64> {
        self.0.template.vdso()
    }

    fn vdso_code(&self) -> &'static [u8] {
        crate::host::vdso_code()
    }

    fn vdso_parts(&self) -> Vec<Range<u64>> {
        self.0.template.vdso_parts()
    }

    fn on_stub_death(&self, hook: StubDeathHook) {
        self.0.on_stub_death.set(hook).ok();
    }

    fn child_ended(&self, id: i32, signal: i32) {
        let unmeant = if signal == crate::DEATH_SIGNAL {
            !self.0.template.was_meant(id)
        } else {
            self.0.tracees.lock().contains(&id)
        };
        if unmeant {
            let died = PlatformError::StubDied { pid: id, what: "it was killed from outside" };
            let _told = self.0.notice::<()>(Err(died));
        }
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        let (stub, _) = self.0.notice(self.0.template.fork())?;
        Ok(Arc::new(space::PtraceSpace::new(Arc::clone(&self.0), stub)))
    }
}
