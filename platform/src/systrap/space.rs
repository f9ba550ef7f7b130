//! An address space: one stub process.
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Shared;
use super::area::{AreaSlot, STRIDE};
use super::context::SystrapContext;
use super::region;
use super::thread::Thread;
use crate::patch::Patches;
use crate::stub::control::{MAX_OPERATIONS, Operation};
use crate::stub::layout::{REGIONS, REGIONS_END};
use crate::stub::lock::Mutex;
use crate::stub::mapping;
use crate::stub::process::Stub;
use crate::{Access, AddressSpace, Change, Context, PlatformError, sys};

/// The address space.
#[derive(Debug)]
pub(super) struct SystrapSpace {
    shared: Arc<Shared>,
    life: Life,
    patches: Option<Arc<Patches>>,
    state: Mutex<State>,
}

/// Whether a stub's process lives.
#[derive(Debug)]
pub(super) struct Life {
    pid: i32,
    ended: AtomicBool,
    patience: Duration,
}

impl Life {
    /// Its process.
    pub(super) const fn pid(&self) -> i32 {
        self.pid
    }

    /// How long its threads may take over what they have to do at once.
    pub(super) const fn patience(&self) -> Duration {
        self.patience
    }

    /// Tells whether it has been seen to end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct State {
    stub: Stub,
    /// The slot of the first thread, whose making is the first request, while its answer is still to be taken.
    starting: Option<Arc<AreaSlot>>,
    /// Threads that no context has.
    spare: Vec<Thread>,
    /// How many threads there are.
    threads: u64,
}

impl State {
    fn settle(&mut self) -> Result<(), PlatformError> {
        if let Some(slot) = self.starting.take() {
            let tid = self.stub.mapper().answer("clone")?;
            self.spare.push(Thread::new(tid, slot));
        }
        Ok(())
    }
}

impl SystrapSpace {
    pub(super) fn new(shared: Arc<Shared>, mut stub: Stub, area: AreaSlot) -> Self {
        let life =
            Life { pid: stub.mapper().pid(), ended: AtomicBool::new(false), patience: shared.patience };
        let area = Arc::new(area);
        stub.keep(Arc::clone(&area));
        let state = State { stub, starting: Some(area), spare: Vec::new(), threads: 1 };
        let patches = shared.patching.then(Arc::default);
        Self { shared, life, patches, state: Mutex::new(state) }
    }

    pub(super) const fn pid(&self) -> i32 {
        self.life.pid
    }

    pub(super) const fn life(&self) -> &Life {
        &self.life
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn patches_of(&self) -> Option<&Patches> {
        self.patches.as_deref()
    }

    /// The host told that the process ended, which nobody meant. Gives its wait status, once.
    pub(super) fn end(&self) -> Option<i32> {
        let mut state = self.state.lock();
        let status = state.stub.reap();
        self.life.ended.store(true, Ordering::SeqCst);
        for area in state.stub.areas() {
            sys::futex_wake(&area.area().event);
        }
        status
    }

    /// Keeps a thread for the next context, if it is known to wait.
    pub(super) fn give_back(&self, thread: Thread) {
        if thread.is_waiting() {
            self.state.lock().spare.push(thread);
        }
    }

    fn request(&self, call: &'static str, operation: Operation) -> Result<(), PlatformError> {
        self.request_all(call, &[operation])
    }

    fn request_all(&self, call: &'static str, operations: &[Operation]) -> Result<(), PlatformError> {
        let mut state = self.state.lock();
        if self.life.has_ended() {
            return Err(PlatformError::StubDied { pid: self.pid(), what: "it ended" });
        }
        state.settle()?;
        for part in operations.chunks(MAX_OPERATIONS) {
            state.stub.mapper().request(call, part)?;
        }
        Ok(())
    }

    fn new_thread(&self) -> Result<Thread, PlatformError> {
        let mut state = self.state.lock();
        state.settle()?;
        if let Some(thread) = state.spare.pop() {
            return Ok(thread);
        }
        let at = REGIONS + state.threads * STRIDE;
        let areas = self.shared.template.areas().filter(|_| at + STRIDE <= REGIONS_END);
        let Some(areas) = areas else {
            let source = std::io::Error::from_raw_os_error(libc::EAGAIN);
            return Err(PlatformError::Host { call: "thread region", source });
        };
        let slot = Arc::new(areas.take(at)?);
        state.stub.keep(Arc::clone(&slot));
        state.threads += 1;
        let tid =
            state.stub.mapper().request("clone", &region::new_thread(self.shared.template.code(), &slot))?;
        Ok(Thread::new(tid, slot))
    }

    /// Refuses ranges that reach into the stub's own region.
    fn check(&self, call: &'static str, addr: u64, len: u64) -> Result<(), PlatformError> {
        mapping::check(call, mapping::range(addr, len), self.shared.template.user_end())
    }
}

impl AddressSpace for SystrapSpace {
    fn map(
        &self,
        addr: u64,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        access: Access,
        populate: bool,
    ) -> Result<(), PlatformError> {
        self.check("mmap", addr, len)?;
        self.request("mmap", mapping::map(addr, len, file, offset, access, populate))
    }

    fn apply(&self, changes: &[Change<'_>]) -> Result<(), PlatformError> {
        let mut operations = Vec::with_capacity(changes.len());
        for change in changes {
            operations.push(match *change {
                Change::Map { addr, len, file, offset, access } => {
                    self.check("mmap", addr, len)?;
                    mapping::map(addr, len, file, offset, access, false)
                }
                Change::Protect { addr, len, access } => {
                    self.check("mprotect", addr, len)?;
                    mapping::protect(addr, len, access)
                }
            });
        }
        self.request_all("mmap", &operations)
    }

    fn unmap(&self, addr: u64, len: u64) -> Result<(), PlatformError> {
        self.check("munmap", addr, len)?;
        self.request("munmap", mapping::unmap(addr, len))
    }

    fn protect(&self, addr: u64, len: u64, access: Access) -> Result<(), PlatformError> {
        self.check("mprotect", addr, len)?;
        match self.request("mprotect", mapping::protect(addr, len, access)) {
            // What is not mapped is skipped, and reported when the rest is done.
            Err(error) if sys::errno_of(&error) == libc::ENOMEM => Ok(()),
            other => other,
        }
    }

    fn show_as(&self, words: &[u8]) -> Option<i32> {
        let mut state = self.state.lock();
        if self.life.has_ended() || state.settle().is_err() {
            return None;
        }
        state.stub.mapper().show_as(words).ok()?;
        Some(self.pid())
    }

    fn patches(&self) -> Option<Arc<Patches>> {
        self.patches.clone()
    }

    fn new_context(self: Arc<Self>) -> Result<Box<dyn Context>, PlatformError> {
        let thread = self.new_thread()?;
        Ok(Box::new(SystrapContext::new(self, thread)))
    }
}

impl Drop for SystrapSpace {
    fn drop(&mut self) {
        self.shared.forget(self.life.pid);
    }
}
