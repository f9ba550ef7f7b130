//! What queues promise to hold, by user: `RLIMIT_MSGQUEUE`, getrlimit(2).
use std::collections::HashMap;
use std::sync::Arc;

use abi::Errno;
use sync::{LockClass, Mutex};

/// What all queues of the sandbox together may promise: messages are the sentry's own memory, and a program may be free to
/// raise its limit.
const ALL_BYTES: u64 = 64 << 20;

/// The promises of each user.
#[derive(Debug)]
pub(crate) struct Account(Mutex<HashMap<u32, u64>>);

/// A promise, taken back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    account: Arc<Account>,
    uid: u32,
    bytes: u64,
}

impl Account {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(LockClass::Leaf, HashMap::new())))
    }

    /// Promises `bytes` for a user who may have `limit`.
    ///
    /// # Errors
    /// `EMFILE` beyond the limit.
    pub(crate) fn charge(self: &Arc<Self>, uid: u32, bytes: u64, limit: u64) -> Result<Charge, Errno> {
        let mut by_user = self.0.lock();
        let all: u64 = by_user.values().sum();
        let own = by_user.get(&uid).copied().unwrap_or(0);
        let sum = own.checked_add(bytes).filter(|sum| *sum <= limit).ok_or(Errno::EMFILE)?;
        if bytes > ALL_BYTES.saturating_sub(all) {
            return Err(Errno::EMFILE);
        }
        by_user.insert(uid, sum);
        Ok(Charge { account: Arc::clone(self), uid, bytes })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut by_user = self.account.0.lock();
        let left = by_user.get(&self.uid).map_or(0, |sum| sum.saturating_sub(self.bytes));
        if left == 0 {
            by_user.remove(&self.uid);
        } else {
            by_user.insert(self.uid, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_by_user_and_taken_back() {
        let account = Account::new();
        let first = account.charge(1, 600, 1000).unwrap();
        assert_eq!(account.charge(1, 500, 1000).unwrap_err(), Errno::EMFILE);
        let other = account.charge(2, 500, 1000).unwrap();
        drop(first);
        assert!(account.charge(1, 1000, 1000).is_ok());
        assert_eq!(account.charge(3, ALL_BYTES, u64::MAX).unwrap_err(), Errno::EMFILE);
        drop(other);
        assert!(account.charge(3, ALL_BYTES, u64::MAX).is_ok());
        assert!(account.0.lock().is_empty());
    }
}
