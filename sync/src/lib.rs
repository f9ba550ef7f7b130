//! Ordered locks, wait queues, clocks and range maps: what every layer of the sentry shares.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_types, reason = "the one place where raw locks are wrapped")]

pub mod clock;
mod lock;
pub mod range_map;
mod wait;

pub use clock::{Clock, HostClock};
pub use lock::{LockClass, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use range_map::RangeMap;
pub use wait::{PollEvents, WaitKey, WaitQueue, Waiter, Wake};
