//! The sentry's end of a mapper.
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::blob;
use super::control::{DATA_OFFSET, Operation, Slot};
use super::layout::{PAGE, REQUEST, TITLE, TITLE_BYTES};
use crate::{PlatformError, sys};

/// How long an answer may take before it is worth a look whether the stub is alive.
const PATIENCE_MS: u16 = 100;

/// A mapper and its page. Requests go one at a time, which the caller's lock sees to.
#[derive(Debug)]
pub(crate) struct Mapper {
    slot: Slot,
    pid: i32,
    number: u32,
    cpu: Option<usize>,
    /// The last request was made by a thread that looks for the answer.
    eager: bool,
}

/// For how many ticks a mapper looks for another request, and who made the last for its answer: around 25 µs.
const LOOK_TICKS: u64 = 1 << 16;

impl Mapper {
    /// The mapper of a process that was just cloned with this slot, and with a first request of number `number` in it.
    pub(crate) const fn new(slot: Slot, pid: i32, number: u32) -> Self {
        Self { slot, pid, number, cpu: None, eager: false }
    }

    /// The process.
    pub(crate) const fn pid(&self) -> i32 {
        self.pid
    }

    /// The page and eventfd.
    pub(crate) const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Gives the page and eventfd back.
    pub(crate) fn into_slot(self) -> Slot {
        self.slot
    }

    /// Hands a request over and does not wait for its answer, which [`Self::answer`] must fetch before the next request.
    pub(crate) fn post(&mut self, operations: &[Operation]) {
        self.follow();
        self.publish(operations);
    }

    /// As [`Self::post`], and leaves it to the host on which CPU the mapper works.
    pub(crate) fn post_unpinned(&mut self, operations: &[Operation]) {
        self.eager = false;
        self.publish(operations);
    }

    fn publish(&mut self, operations: &[Operation]) {
        self.number = self.number.wrapping_add(1);
        let look = if self.eager { LOOK_TICKS } else { 0 };
        self.slot.page().publish(self.number, operations, look);
        self.slot.page().wake();
    }

    /// Hands a request over and waits until it is done. The last operation may be one that makes a process or a thread,
    /// whose id is then the result.
    ///
    /// # Errors
    /// That of the first operation that failed, named `call`; [`PlatformError::StubDied`].
    pub(crate) fn request(
        &mut self,
        call: &'static str,
        operations: &[Operation],
    ) -> Result<i32, PlatformError> {
        self.post(operations);
        self.answer(call)
    }

    /// Has the host show the process by this text, as the command line of `/proc/PID/cmdline`, cut where it is too long.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub(crate) fn show_as(&mut self, text: &[u8]) -> Result<(), PlatformError> {
        const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // The last byte is not 0: that tells the host that the text was changed, and ends at its first 0
        // (Linux `get_mm_cmdline`).
        let room = usize::try_from(TITLE_BYTES).unwrap_or(0);
        let mut bytes = vec![0; room];
        bytes.iter_mut().zip(text.iter().take(room - 2)).for_each(|(to, from)| *to = *from);
        bytes.iter_mut().next_back().into_iter().for_each(|last| *last = 1);
        self.slot.page().put_data(&bytes);
        let copy = Operation {
            kind: blob::KIND_COPY,
            nr: 0,
            args: [TITLE, REQUEST + DATA_OFFSET, TITLE_BYTES, 0, 0, 0],
        };
        let number = |number: i32| u64::from(number.cast_unsigned());
        let (write, none) = (number(libc::PROT_READ | libc::PROT_WRITE), u64::MAX);
        self.post_unpinned(&[
            Operation::call(libc::SYS_mmap, [TITLE, PAGE, write, number(ANONYMOUS), none, 0]),
            copy,
            Operation::call(libc::SYS_mprotect, [TITLE, PAGE, number(libc::PROT_READ), 0, 0, 0]),
        ]);
        self.answer("mmap").map(drop)
    }

    /// Waits for the answer to the request posted last.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub(crate) fn answer(&self, call: &'static str) -> Result<i32, PlatformError> {
        let mut sum = 0_u64;
        loop {
            sum = sum.wrapping_add(self.wait_event()?);
            if sum >= blob::ANSWER_FAILED {
                let errno = i32::try_from(sum & 0xff).unwrap_or(libc::EIO);
                return Err(PlatformError::Host { call, source: io::Error::from_raw_os_error(errno) });
            }
            if sum >= blob::ANSWER_DONE {
                return Ok(0);
            }
            if sum >= 3 * blob::ANSWER_DIGIT {
                return Ok(i32::try_from(sum & 0xff_ffff).unwrap_or(0));
            }
        }
    }

    /// Moves the mapper to the CPU of the stubs of this thread: a wake-up across CPUs costs several times the request.
    fn follow(&mut self) {
        let place = crate::cpu::of_stubs();
        self.eager = place.is_some_and(|(_, apart)| apart);
        if let Some((cpu, _)) = place.filter(|(cpu, _)| self.cpu != Some(*cpu)) {
            crate::cpu::bind(self.pid, cpu);
            self.cpu = Some(cpu);
        }
    }

    fn wait_event(&self) -> Result<u64, PlatformError> {
        let mut count = [0_u8; 8];
        let start = sys::ticks();
        while self.eager && sys::ticks().saturating_sub(start) < LOOK_TICKS {
            // SAFETY: the slot holds the descriptor open for as long as it lives.
            let event = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.slot.event()) };
            if nix::unistd::read(event, &mut count).is_ok() {
                return Ok(u64::from_ne_bytes(count));
            }
            std::thread::yield_now();
        }
        loop {
            // SAFETY: the slot holds the descriptor open for as long as it lives.
            let event = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.slot.event()) };
            let mut fds = [PollFd::new(event, PollFlags::POLLIN)];
            match nix::poll::poll(&mut fds, PollTimeout::from(PATIENCE_MS)) {
                Ok(0) => self.check_alive()?,
                Ok(_) => match nix::unistd::read(event, &mut count) {
                    Ok(_) => return Ok(u64::from_ne_bytes(count)),
                    Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                    Err(error) => return Err(PlatformError::Host { call: "read", source: error.into() }),
                },
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(PlatformError::Host { call: "poll", source: error.into() }),
            }
        }
    }

    /// Tells a mapper that takes its time from one that was killed. Waiting for the process would not: it is no zombie
    /// before its other threads are reaped, by the threads that trace them.
    fn check_alive(&self) -> Result<(), PlatformError> {
        let died = PlatformError::StubDied { pid: self.pid, what: "its mapper ended" };
        let flags = [libc::PIDFD_THREAD, 0];
        for flags in flags {
            // SAFETY: pidfd_open takes numbers only.
            let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, flags) };
            match sys::check("pidfd_open", fd) {
                Ok(fd) => {
                    // SAFETY: the call just gave this descriptor to us.
                    let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) };
                    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                    let ended = matches!(nix::poll::poll(&mut fds, PollTimeout::ZERO), Ok(1));
                    debug_assert!(fd.as_raw_fd() >= 0);
                    return if ended { Err(died) } else { Ok(()) };
                }
                Err(error) if sys::errno_of(&error) == libc::EINVAL => {}
                Err(_) => return Err(died),
            }
        }
        Ok(())
    }
}
