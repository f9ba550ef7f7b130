//! The lock of this crate.
#![expect(clippy::disallowed_types, reason = "`sync` is of this crate's level; these locks are leaves")]
use std::sync::{MutexGuard, PoisonError};

/// A lock under which no other lock is taken.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Makes a lock.
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Takes the lock, waiting for it. A thread that panicked with it ends the process anyway.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
