//! Timers: the sandbox's alarm clock, and timers that send signals.

mod posix;
mod queue;
mod table;

pub use posix::{Notify, PosixTimer, TimerClock, TimerSpec};
pub use queue::{Expire, Timer, TimerQueue};
pub use table::{GroupTimers, IntervalTimer};
