//! The traits every back end implements.
use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use abi::{Registers, Signal};

use crate::patch::Patches;

/// What a mapping lets the guest do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// Loads succeed.
    pub read: bool,
    /// Stores succeed.
    pub write: bool,
    /// Instruction fetches succeed.
    pub execute: bool,
}

impl Access {
    /// Nothing succeeds.
    pub const NONE: Self = Self { read: false, write: false, execute: false };
    /// Loads only.
    pub const READ: Self = Self { read: true, write: false, execute: false };
    /// Loads and stores.
    pub const READ_WRITE: Self = Self { read: true, write: true, execute: false };
    /// Loads and instruction fetches.
    pub const READ_EXECUTE: Self = Self { read: true, write: false, execute: true };
    /// Loads, stores and instruction fetches.
    pub const ALL: Self = Self { read: true, write: true, execute: true };

    /// What both allow.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
            execute: self.execute && other.execute,
        }
    }

    /// Tells whether this allows all that `other` allows.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        (self.read || !other.read) && (self.write || !other.write) && (self.execute || !other.execute)
    }
}

/// What the guest was doing when it faulted, as far as the back end can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAccess {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
    /// A load or a store: the back end cannot tell. It is a store if the page was already mapped readable.
    Unknown,
}

/// Why the guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A system call: number in `orig_rax`, arguments in place, `rip` after the instruction, nothing executed yet.
    Syscall,
    /// An access that the address space's mappings do not allow; `rip` at the instruction. The access is the guest's
    /// address, page faults of non-canonical addresses excluded (those are [`Trap::Exception`] with `SIGSEGV`).
    Fault {
        /// The address accessed.
        addr: u64,
        /// The kind of access.
        access: FaultAccess,
    },
    /// A processor exception, as the signal Linux makes of it.
    Exception {
        /// The signal.
        signal: Signal,
        /// `si_code`.
        code: i32,
        /// `si_addr`.
        addr: u64,
    },
    /// [`Interrupt::interrupt`] was called since the last switch; the guest may have run or not.
    Interrupted,
}

/// Why the host side of a back end failed.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// A host call failed.
    #[error("{call}: {source}")]
    Host {
        /// The call.
        call: &'static str,
        /// Its error.
        #[source]
        source: std::io::Error,
    },
    /// The process that holds the address space is gone, or does what its code cannot do.
    #[error("the stub process {pid} of an address space died: {what}")]
    StubDied {
        /// Its host process id in the sentry's PID namespace.
        pid: i32,
        /// What was seen.
        what: &'static str,
    },
    /// A guest thread did what the code of its stub cannot do by itself, or does not answer: its process cannot go on.
    #[error("a guest thread of the stub process {pid} broke the stub's own code or memory")]
    StubBroken {
        /// Its host process id in the sentry's PID namespace.
        pid: i32,
    },
    /// The back end cannot work on this machine.
    #[error("platform {platform} is not available here: {why}")]
    Unavailable {
        /// The back end.
        platform: &'static str,
        /// The reason.
        why: String,
    },
}

/// The FPU, vector and protection-key state of a thread: an XSAVE area in the processor's standard (non-compacted)
/// format, as signal frames, `NT_X86_XSTATE` and core files hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FpuState(pub Box<[u8]>);

/// What to do about the death of a stub.
pub type StubDeathHook = Box<dyn Fn(&PlatformError) + Send + Sync>;

/// A mechanism that runs guest code.
pub trait Platform: Send + Sync + Debug {
    /// The name `--platform` takes.
    fn name(&self) -> &'static str;

    /// The host calls that the back end makes once it is started, for the filter of the process, with the reason of each.
    fn host_calls(&self) -> &'static [(i64, &'static str)];

    /// The addresses a guest may map, page-aligned; the back end keeps the rest.
    fn user_range(&self) -> Range<u64>;

    /// The state of a fresh thread's FPU.
    fn initial_fpu(&self) -> FpuState;

    /// The address at which every guest sees a vDSO, outside [`Platform::user_range`] and without any mapping made for
    /// it; `None` where the host's could not be kept. Its calls into the kernel arrive as [`Trap::Syscall`].
    fn vdso(&self) -> Option<u64> {
        None
    }

    /// What every guest sees there.
    fn vdso_code(&self) -> &'static [u8] {
        &[]
    }

    /// The mappings of that vDSO: of the data that its code reads, ascending, the code last.
    fn vdso_parts(&self) -> Vec<Range<u64>> {
        Vec::new()
    }

    /// Registers what to do when a stub is found dead that the sentry did not kill. It runs on the thread that found it,
    /// which gets the same error. Only the first call has an effect; a back end without stubs drops the hook.
    fn on_stub_death(&self, hook: StubDeathHook) {
        drop(hook);
    }

    /// Takes notice that the host told of the end of a child: by [`crate::DEATH_SIGNAL`] for a process, by `SIGCHLD` for a
    /// thread that is traced. If it is one that the back end did not end itself, the hook runs.
    fn child_ended(&self, id: i32, signal: i32) {
        let _ = (id, signal);
    }

    /// Makes an empty address space.
    ///
    /// # Errors
    /// Those of the host calls it takes.
    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError>;
}

/// A change of what an address space shows.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// [`AddressSpace::map`], without `populate`.
    Map {
        /// Where.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// What.
        file: BorrowedFd<'a>,
        /// From which offset.
        offset: u64,
        /// For what.
        access: Access,
    },
    /// [`AddressSpace::protect`].
    Protect {
        /// Where.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// For what.
        access: Access,
    },
}

/// The guest side of one `mm_struct`. Any thread of the sentry may call these at any time, also while guest threads of
/// the space run; each returns after the change is visible to all of them.
pub trait AddressSpace: Send + Sync + Debug {
    /// Maps `len` bytes of `file` from `offset` at `addr` (all multiples of the page size), shared with the file,
    /// over whatever was there. With `populate`, present pages of the file get page-table entries at once.
    ///
    /// # Errors
    /// Those of mmap(2) on the host.
    fn map(
        &self,
        addr: u64,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        access: Access,
        populate: bool,
    ) -> Result<(), PlatformError>;

    /// Unmaps the range; what is not mapped is no error.
    ///
    /// # Errors
    /// Those of munmap(2) on the host.
    fn unmap(&self, addr: u64, len: u64) -> Result<(), PlatformError>;

    /// Changes what the mappings in the range allow; what is not mapped stays so and is no error.
    ///
    /// # Errors
    /// Those of mprotect(2) on the host.
    fn protect(&self, addr: u64, len: u64, access: Access) -> Result<(), PlatformError>;

    /// Makes changes in their order, in as few steps as the back end can. When one fails, those behind it are not made.
    ///
    /// # Errors
    /// Those of the first change that failed.
    fn apply(&self, changes: &[Change<'_>]) -> Result<(), PlatformError> {
        for change in changes {
            match *change {
                Change::Map { addr, len, file, offset, access } => {
                    self.map(addr, len, file, offset, access, false)?;
                }
                Change::Protect { addr, len, access } => self.protect(addr, len, access)?,
            }
        }
        Ok(())
    }

    /// Has the host show the process that holds the space by these words, as far as it can; its process id in the sentry's
    /// PID namespace. `None` where no process holds it, or it has ended.
    fn show_as(&self, words: &[u8]) -> Option<i32> {
        let _ = words;
        None
    }

    /// The patches of system calls, for the owner of the memory to make; `None` where the back end has no use for any.
    fn patches(&self) -> Option<Arc<Patches>> {
        None
    }

    /// Tells whether [`Self::end`] may be called.
    fn ends(&self) -> bool {
        false
    }

    /// Says that no guest thread is left in this space, and that none will be: the back end gives it back at once. What it
    /// shows may be reached until it is gone, so `rest` is dropped then only.
    fn end(&self, rest: Box<dyn Any + Send>) {
        drop(rest);
    }

    /// Makes a guest thread's place in this space. To be called, used and dropped on the host thread that will serve
    /// that guest thread.
    ///
    /// # Errors
    /// Those of the host calls it takes.
    fn new_context(self: Arc<Self>) -> Result<Box<dyn Context>, PlatformError>;
}

/// One guest thread in one address space; stays on the host thread that made it.
pub trait Context: Debug {
    /// Runs the guest from `regs` until it traps, and leaves its registers there. `regs` may hold anything: the back end
    /// forces segment selectors and flags to what user space may have.
    ///
    /// # Errors
    /// [`PlatformError::StubDied`] when the stub was killed from outside, and those of the host calls it takes.
    fn switch(&mut self, regs: &mut Registers) -> Result<Trap, PlatformError>;

    /// Tells whether the last trap was a system call that would have come faster from a patched place.
    fn wants_patch(&self) -> bool {
        false
    }

    /// What getpid(2) and gettid(2) return to this thread from now on, in case the back end can answer them by itself;
    /// `None` if they are to trap.
    fn answer_ids(&mut self, ids: Option<(i32, i32)>) {
        let _ = ids;
    }

    /// The thread is about to wait for something that others of the sentry's threads do. Gives how long it is to look
    /// whether it is done, letting others have the CPU in between, before it sleeps.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    /// It has waited.
    fn rested(&self) {}

    /// The handle by which any thread stops the guest.
    fn interrupter(&self) -> Arc<dyn Interrupt>;

    /// Copies the FPU state out.
    ///
    /// # Errors
    /// Those of the host calls it takes.
    fn save_fpu(&mut self) -> Result<FpuState, PlatformError>;

    /// Replaces the FPU state. A state the processor would refuse (reserved bits, wrong size, a header that claims what
    /// the processor lacks) is `Ok(false)` and changes nothing.
    ///
    /// # Errors
    /// Those of the host calls it takes.
    fn load_fpu(&mut self, state: &FpuState) -> Result<bool, PlatformError>;
}

/// Stops a guest thread from another thread.
pub trait Interrupt: Send + Sync + Debug {
    /// Makes the running [`Context::switch`], or if none runs the next one, return [`Trap::Interrupted`] soon. Calls that
    /// come before it returns fold into one. After the context is dropped, does nothing.
    fn interrupt(&self);
}
