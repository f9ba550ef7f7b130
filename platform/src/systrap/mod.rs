//! The back end on seccomp: guest threads are stub threads whose system calls and faults are signals that their own code
//! takes, hands to the sentry through shared memory, and returns from without the host.
//!
//! A trap by signal costs one signal of the host, and the hand-off: nothing while the partner looks for it, two futex calls
//! and two context switches where it sleeps.

pub(crate) mod area;
pub(crate) mod code;
mod context;
mod interrupt;
mod pace;
pub(crate) mod region;
mod space;
mod thread;
mod trap;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::cpu::Cpus;
use crate::stub::lock::Mutex;
use crate::stub::template::Template;
use crate::stub::{Flavor, layout};
use crate::{AddressSpace, FpuState, Platform, PlatformError, StubDeathHook};
use space::SystrapSpace;

/// The host calls that the back end makes after [`Systrap::new`], for the filter of the process, with the reason of each.
pub const HOST_CALLS: &[(i64, &str)] = &[
    (libc::SYS_futex, "hands over to guest threads and mappers"),
    (libc::SYS_tgkill, "interrupts guest threads, and kills stubs"),
    (libc::SYS_wait4, "reaps stubs"),
    (libc::SYS_fallocate, "clears the areas of threads that are gone"),
    (libc::SYS_poll, "waits for mappers' answers"),
    (libc::SYS_read, "takes the answers"),
    (libc::SYS_eventfd2, "makes the file a new stub answers by"),
    (libc::SYS_pidfd_open, "looks whether a slow stub is alive"),
    (libc::SYS_sched_setaffinity, "keeps a guest thread and the sentry's thread for it where they meet fast"),
];

/// How the back end works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// System calls are patched where they are made, so that the next needs no signal.
    pub patching: bool,
    /// How long a guest thread may take over something that does not run the guest, before it is taken for broken.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { patching: true, patience: Duration::from_secs(10) }
    }
}

/// The back end.
#[derive(Debug)]
pub struct Systrap(Arc<Shared>);

/// What all address spaces share.
pub(crate) struct Shared {
    template: Template,
    spaces: Mutex<HashMap<i32, Weak<SystrapSpace>>>,
    cpus: Cpus,
    crowd: Arc<pace::Crowd>,
    patching: bool,
    patience: Duration,
    on_stub_death: OnceLock<StubDeathHook>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("template", &self.template).finish_non_exhaustive()
    }
}

impl Shared {
    /// The space of this process is gone.
    fn forget(&self, pid: i32) {
        self.spaces.lock().remove(&pid);
    }

    fn tell(&self, error: &PlatformError) {
        if let Some(hook) = self.on_stub_death.get() {
            hook(error);
        }
    }
}

impl Systrap {
    /// Starts the back end; what [`crate::ptrace::Ptrace::new`] asks of its caller holds here too.
    ///
    /// # Errors
    /// [`PlatformError::Unavailable`] on a processor without XSAVE, or where user space may not set its segment bases
    /// (Linux before 5.9); those of the host calls it takes.
    #[expect(clippy::new_ret_no_self, reason = "callers hold every back end by the trait")]
    pub fn new(options: Options) -> Result<Arc<dyn Platform>, PlatformError> {
        let unavailable = |why: &str| PlatformError::Unavailable { platform: "systrap", why: why.into() };
        if !std::is_x86_feature_detected!("xsave") {
            return Err(unavailable("the processor has no XSAVE"));
        }
        if crate::fpu::size() > area::FPU_ROOM {
            return Err(unavailable("the processor has more FPU state than is known of"));
        }
        // SAFETY: getauxval reads what the kernel gave the process.
        if unsafe { libc::getauxval(libc::AT_HWCAP2) } & crate::host::HWCAP2_FSGSBASE == 0 {
            return Err(unavailable("the kernel does not let programs set their segment bases"));
        }
        let template = Template::new(Flavor::Trapping)?;
        let cpus = Cpus::allowed();
        Ok(Arc::new(Self(Arc::new(Shared {
            template,
            spaces: Mutex::default(),
            cpus,
            crowd: Arc::default(),
            patching: options.patching,
            patience: options.patience,
            on_stub_death: OnceLock::new(),
        }))))
    }
}

impl Platform for Systrap {
    fn name(&self) -> &'static str {
        "systrap"
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
        if signal != crate::DEATH_SIGNAL || self.0.template.was_meant(id) {
            return;
        }
        let space = self.0.spaces.lock().get(&id).and_then(Weak::upgrade);
        let status = space.as_ref().and_then(|space| space.end());
        // A guest that ruins what its stub needs to take a signal is killed by the host, and that is its own end only.
        let by_itself = |status| libc::WIFSIGNALED(status) && libc::WTERMSIG(status) != libc::SIGKILL;
        if !status.is_some_and(by_itself) {
            self.0.tell(&PlatformError::StubDied { pid: id, what: "it was killed from outside" });
        }
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        let (stub, area) = self.0.template.fork().inspect_err(|error| {
            if matches!(error, PlatformError::StubDied { .. }) {
                self.0.tell(error);
            }
        })?;
        let area = area.expect("a template for trapping threads gives an area with each stub");
        let space = Arc::new(SystrapSpace::new(Arc::clone(&self.0), stub, area));
        self.0.spaces.lock().insert(space.pid(), Arc::downgrade(&space));
        Ok(space)
    }
}

/// The offset in a thread's area of where a patched call goes whose number is this, if it is known.
pub(crate) fn entry(number: Option<u32>) -> u32 {
    let index = match number.map(i64::from) {
        Some(libc::SYS_getpid) => 1,
        Some(libc::SYS_gettid) => 2,
        _ => 0,
    };
    u32::try_from(area::offset::ENTRIES + 8 * index).unwrap_or(0)
}
