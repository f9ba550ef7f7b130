//! An address space: one stub process.
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use super::Shared;
use super::context::PtraceContext;
use crate::stub::control::Operation;
use crate::stub::layout::{LOWEST, PAGE};
use crate::stub::lock::Mutex;
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

    /// Refuses ranges that reach into the stub's own region, before they reach its mapper.
    fn check(&self, call: &'static str, addr: u64, len: u64) -> Result<(), PlatformError> {
        let end = addr.checked_add(len);
        let inside = addr >= LOWEST && end.is_some_and(|end| end <= self.shared.template.user_end());
        if inside && addr.is_multiple_of(PAGE) {
            return Ok(());
        }
        let source = std::io::Error::from_raw_os_error(libc::EINVAL);
        Err(PlatformError::Host { call, source })
    }
}

fn protection(access: Access) -> u64 {
    let bit = |on: bool, flag: i32| if on { u64::from(flag.cast_unsigned()) } else { 0 };
    bit(access.read, libc::PROT_READ)
        | bit(access.write, libc::PROT_WRITE)
        | bit(access.execute, libc::PROT_EXEC)
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
        let populate = if populate { libc::MAP_POPULATE } else { 0 };
        let flags = u64::from((libc::MAP_SHARED | libc::MAP_FIXED | populate).cast_unsigned());
        let file = u64::from(file.as_raw_fd().cast_unsigned());
        self.request(
            "mmap",
            Operation::call(libc::SYS_mmap, [addr, len, protection(access), flags, file, offset]),
        )
    }

    fn unmap(&self, addr: u64, len: u64) -> Result<(), PlatformError> {
        self.check("munmap", addr, len)?;
        self.request("munmap", Operation::call(libc::SYS_munmap, [addr, len, 0, 0, 0, 0]))
    }

    fn protect(&self, addr: u64, len: u64, access: Access) -> Result<(), PlatformError> {
        self.check("mprotect", addr, len)?;
        let call = Operation::call(libc::SYS_mprotect, [addr, len, protection(access), 0, 0, 0]);
        match self.request("mprotect", call) {
            // What is not mapped is skipped, and reported when the rest is done.
            Err(error) if crate::sys::errno_of(&error) == libc::ENOMEM => Ok(()),
            other => other,
        }
    }

    fn new_context(self: Arc<Self>) -> Result<Box<dyn Context>, PlatformError> {
        let thread = self.new_thread();
        let tid = self.shared.notice(thread)?;
        let context = PtraceContext::new(Arc::clone(&self), tid);
        Ok(Box::new(self.shared.notice(context)?))
    }
}
