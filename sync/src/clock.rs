//! Clocks, `clock_gettime(2)`.
use std::fmt::Debug;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of time. All values are nanoseconds.
pub trait Clock: Send + Sync + Debug {
    /// `CLOCK_MONOTONIC`.
    fn monotonic_ns(&self) -> u64;
    /// `CLOCK_REALTIME`, since the epoch.
    fn realtime_ns(&self) -> u64;
    /// Another clock of clock_gettime(2), by its number, where there are more than the two.
    fn other_ns(&self, clock: i32) -> Option<u64> {
        let _ = clock;
        None
    }
}

/// The host's clocks; monotonic time counts from the making of this value.
#[derive(Debug)]
pub struct HostClock {
    start: Instant,
}

impl HostClock {
    /// A clock that starts at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
    fn realtime_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
