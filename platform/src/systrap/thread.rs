//! A guest thread of a stub: commands to it, and its events.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::area::{Area, AreaSlot, FPU_ROOM};
use super::code::{POLITE_TICKS, command, kind};
use super::interrupt::Interrupter;
use super::space::Life;
use crate::{FpuState, PlatformError, fpu, sys};

/// A thread that waits for a command.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) tid: i32,
    pub(super) slot: Arc<AreaSlot>,
    /// The last command.
    command: u32,
    /// The one before, which is the thread's event until it has done the last.
    previous: u32,
    /// Whether its event was seen. One that was not may still come.
    answered: bool,
    /// How the last wait was done.
    waiting: Waiting,
    /// The FPU state in the slot is the one that the guest is to go on with.
    loads: bool,
    looked: Looked,
}

/// How a wait is done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// How long to look for the event before sleeping, in ticks of the time stamp counter.
    pub(super) sentry_ticks: u64,
    /// How long the thread is to look for the next command.
    pub(super) stub_ticks: u64,
}

/// How the event of the last command was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// By looking, or after a sleep.
    Freely,
    /// By looking, and something else than guest threads and their like had the CPU for long.
    Hogged,
}

/// How long something has to have the CPU to be a hog, in ticks: around half a millisecond.
const HOG_TICKS: u64 = 1 << 20;

impl Thread {
    pub(super) const fn new(tid: i32, slot: Arc<AreaSlot>) -> Self {
        Self {
            tid,
            slot,
            command: 0,
            previous: 0,
            answered: true,
            waiting: Waiting { sentry_ticks: 0, stub_ticks: 0 },
            loads: false,
            looked: Looked::Freely,
        }
    }

    pub(super) fn area(&self) -> &Area {
        self.slot.area()
    }

    /// How the last event was found.
    pub(super) const fn looked(&self) -> Looked {
        self.looked
    }

    /// Tells whether the thread is where it takes commands, as far as the sentry knows.
    pub(super) const fn is_waiting(&self) -> bool {
        self.answered
    }

    /// Runs the guest, from the registers in the area, until there is an event. `before_sleep` is called where that does not
    /// come soon.
    ///
    /// # Errors
    /// When the stub died, or does not answer to an interrupt.
    pub(super) fn resume(
        &mut self,
        waiting: Waiting,
        life: &Life,
        interrupter: &Interrupter,
        before_sleep: &mut dyn FnMut(),
    ) -> Result<(), PlatformError> {
        self.waiting = waiting;
        self.area().spin_ticks.store(waiting.stub_ticks, Ordering::Relaxed);
        self.issue(if self.loads { command::RESUME_LOADED } else { command::RESUME });
        if !self.spin(waiting.sentry_ticks) {
            before_sleep();
            self.sleep(life, |since| {
                interrupter.is_pending().then(|| *since.get_or_insert_with(Instant::now))
            })?;
        }
        // A thread that was stopped on its way may not have come to it.
        self.loads &= self.area().kind.load(Ordering::Relaxed) == kind::LEAVING;
        Ok(())
    }

    /// Copies the FPU state out.
    ///
    /// # Errors
    /// When the stub died or does not answer.
    pub(super) fn save_fpu(&mut self, life: &Life) -> Result<FpuState, PlatformError> {
        let size = fpu::size().min(FPU_ROOM);
        if std::mem::take(&mut self.loads) {
            self.run(command::LOAD_FPU, life)?;
        }
        // What the processor does not write of the header must be zero.
        for word in self.slot.fpu().iter().skip(512 / 8).take(8) {
            word.store(0, Ordering::Relaxed);
        }
        self.run(command::SAVE_FPU, life)?;
        let words = self.slot.fpu().iter();
        let mut bytes: Vec<u8> = words
            .take(size.div_ceil(8))
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .collect();
        bytes.truncate(size);
        fpu::mark(&mut bytes);
        Ok(FpuState(bytes.into_boxed_slice()))
    }

    /// Replaces the FPU state by one that the processor takes, from the next run of the guest on.
    pub(super) fn load_fpu(&mut self, state: &[u8]) {
        for (word, bytes) in self.slot.fpu().iter().zip(state.chunks(8)) {
            let mut value = [0; 8];
            if let Some(place) = value.get_mut(..bytes.len()) {
                place.copy_from_slice(bytes);
            }
            word.store(u64::from_le_bytes(value), Ordering::Relaxed);
        }
        self.loads = true;
    }

    fn run(&mut self, command: u32, life: &Life) -> Result<(), PlatformError> {
        self.issue(command);
        if !self.spin(self.waiting.sentry_ticks) {
            self.sleep(life, |since| Some(*since.get_or_insert_with(Instant::now)))?;
        }
        if self.area().kind.load(Ordering::Relaxed) == kind::DONE { Ok(()) } else { Err(broken(life.pid())) }
    }

    fn issue(&mut self, command: u32) {
        if self.answered {
            self.previous = self.command;
        }
        self.command = (self.command & !command::MASK).wrapping_add(command::MASK + 1) | command;
        self.answered = false;
        let area = self.area();
        // The exchange is a full barrier, as that of the thread before it looks at the command a last time.
        area.command.swap(self.command, Ordering::SeqCst);
        if area.stub_asleep.load(Ordering::SeqCst) != 0 {
            sys::futex_wake(&area.command);
        }
    }

    fn has_event(&mut self) -> bool {
        self.answered = self.area().event.load(Ordering::Acquire) == self.command;
        self.answered
    }

    /// Looks for the event for so long, and lets others have the CPU meanwhile.
    fn spin(&mut self, ticks: u64) -> bool {
        if ticks == 0 {
            return self.has_event();
        }
        let start = sys::ticks();
        let mut last = start;
        self.looked = Looked::Freely;
        loop {
            if self.has_event() {
                return true;
            }
            std::hint::spin_loop();
            let now = sys::ticks();
            if now.saturating_sub(last) > HOG_TICKS {
                self.looked = Looked::Hogged;
            }
            last = now;
            let waited = now.saturating_sub(start);
            if waited > ticks {
                return false;
            }
            if waited > POLITE_TICKS {
                std::thread::yield_now();
            }
        }
    }

    /// Sleeps until there is an event. `hurry` tells since when an answer is due, if one is.
    fn sleep(
        &mut self,
        life: &Life,
        hurry: impl Fn(&mut Option<Instant>) -> Option<Instant>,
    ) -> Result<(), PlatformError> {
        let mut since = None;
        loop {
            self.area().sentry_asleep.swap(1, Ordering::SeqCst);
            let seen = self.area().event.load(Ordering::SeqCst);
            if seen == self.command {
                break;
            }
            // A guest that wrote to the words of its hand-off: the right answer will not come.
            if seen != self.previous {
                return Err(broken(life.pid()));
            }
            if life.has_ended() {
                return Err(PlatformError::StubDied { pid: life.pid(), what: "it ended" });
            }
            let timeout = hurry(&mut since).map(|since| life.patience().saturating_sub(since.elapsed()));
            if timeout == Some(Duration::ZERO) {
                return Err(broken(life.pid()));
            }
            wait(&self.area().event, seen, timeout);
        }
        self.area().sentry_asleep.store(0, Ordering::Relaxed);
        self.answered = true;
        Ok(())
    }
}

fn wait(word: &AtomicU32, seen: u32, timeout: Option<Duration>) {
    sys::futex_wait(word, seen, timeout);
}

/// The error for a thread that does what its code would not.
pub(super) fn broken(pid: i32) -> PlatformError {
    PlatformError::StubBroken { pid }
}
