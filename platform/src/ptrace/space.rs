//! An address space: one stub process.
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::Shared;
use super::context::PtraceContext;
use crate::stub::control::Operation;
use crate::stub::lock::Mutex;
use crate::stub::mapping;
use crate::stub::process::Stub;
use crate::stub::template::NEW_THREAD;
use crate::{Access, AddressSpace, Context, PlatformError};

/// The address space.
#[derive(Debug)]
pub(super) struct PtraceSpace {
    shared: Arc<Shared>,
    pid: i32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stub: Stub,
    /// The answer to the first request, which every stub starts with, is still to be taken.
    starting: bool,
    /// A thread that no context has taken.
    spare: Option<i32>,
}

impl State {
    fn settle(&mut self) -> Result<(), PlatformError> {
        if self.starting {
            self.spare = Some(self.stub.mapper().answer("clone")?);
            self.starting = false;
        }
        Ok(())
    }
}

impl PtraceSpace {
    pub(super) fn new(shared: Arc<Shared>, mut stub: Stub) -> Self {
        let pid = stub.mapper().pid();
        Self { shared, pid, state: Mutex::new(State { stub, starting: true, spare: None }) }
    }

    pub(super) const fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn request(&self, call: &'static str, operation: Operation) -> Result<(), PlatformError> {
        let result = self.request_quietly(call, operation);
        self.shared.notice(result)
    }

    fn request_quietly(&self, call: &'static str, operation: Operation) -> Result<(), PlatformError> {
        let mut state = self.state.lock();
        state.settle()?;
        state.stub.mapper().request(call, &[operation])?;
        Ok(())
    }

    fn new_thread(&self) -> Result<i32, PlatformError> {
        let mut state = self.state.lock();
        state.settle()?;
        match state.spare.take() {
            Some(tid) => Ok(tid),
            None => state.stub.mapper().request("clone", &[NEW_THREAD]),
        }
    }

    /// Refuses ranges that reach into the stub's own region.
    fn check(&self, call: &'static str, addr: u64, len: u64) -> Result<(), PlatformError> {
        mapping::check(call, mapping::range(addr, len), self.shared.template.user_end())
    }
}

impl AddressSpace for PtraceSpace {
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

    fn unmap(&self, addr: u64, len: u64) -> Result<(), PlatformError> {
        self.check("munmap", addr, len)?;
        self.request("munmap", mapping::unmap(addr, len))
    }

    fn protect(&self, addr: u64, len: u64, access: Access) -> Result<(), PlatformError> {
        self.check("mprotect", addr, len)?;
        match self.request("mprotect", mapping::protect(addr, len, access)) {
            // What is not mapped is skipped, and reported when the rest is done.
            Err(error) if crate::sys::errno_of(&error) == libc::ENOMEM => Ok(()),
            other => other,
        }
    }

    fn show_as(&self, words: &[u8]) -> Option<i32> {
        let mut state = self.state.lock();
        state.settle().and_then(|()| state.stub.mapper().show_as(words)).ok()?;
        Some(self.pid)
    }

    fn new_context(self: Arc<Self>) -> Result<Box<dyn Context>, PlatformError> {
        let thread = self.new_thread();
        let tid = self.shared.notice(thread)?;
        let context = PtraceContext::new(Arc::clone(&self), tid);
        Ok(Box::new(self.shared.notice(context)?))
    }
}
