//! Futexes, `futex(2)`, Linux `kernel/futex/`.
//!
//! A waiter queues itself first and looks at the futex's value after, so that no lock is held while user memory is
//! touched. If the value then differs and a wake-up was spent on it meanwhile, it passes the wake-up on.

mod pi;
mod queue;
mod robust;

use std::fmt;

use abi::Errno;
use memmap::{AtomicOp, FutexKey, MemoryManager};
use smallvec::SmallVec;

use self::queue::Queues;
use crate::{BlockResult, CurrentTask};

pub use robust::RobustList;

/// The most futexes that one futex_waitv(2) may name.
pub const FUTEX_WAITV_MAX: usize = 128;

/// One futex to wait for.
#[derive(Clone, Copy, Debug)]
pub struct FutexWait {
    /// The address of the 32-bit word, aligned.
    pub addr: u64,
    /// The word's expected value.
    pub value: u32,
    /// Whether only threads of this memory use it (`FUTEX_PRIVATE_FLAG`).
    pub private: bool,
    /// Which wake-ups count; not zero.
    pub bitset: u32,
}

/// `FUTEX_WAKE_OP`, decoded: how the second word is changed and compared.
#[derive(Clone, Copy, Debug)]
pub struct WakeOp {
    /// The change.
    pub op: AtomicOp,
    /// Its operand.
    pub operand: u32,
    /// The comparison of the old value, `FUTEX_OP_CMP_*`.
    pub compare: u32,
    /// What the old value is compared with.
    pub compare_with: i32,
}

impl WakeOp {
    /// Decodes `val3` of `FUTEX_WAKE_OP`, Linux `futex_atomic_op_inuser`.
    ///
    /// # Errors
    /// `ENOSYS` for an operation or comparison that Linux does not know.
    pub fn decode(encoded: u32) -> Result<Self, Errno> {
        let signed12 = |bits: u32| ((bits << 20).cast_signed()) >> 20;
        let mut operand = signed12(encoded >> 12 & 0xfff).cast_unsigned();
        if encoded >> 31 != 0 {
            operand = 1 << (operand & 31);
        }
        let op = match encoded >> 28 & 7 {
            0 => AtomicOp::Set,
            1 => AtomicOp::Add,
            2 => AtomicOp::Or,
            3 => AtomicOp::AndNot,
            4 => AtomicOp::Xor,
            _ => return Err(Errno::ENOSYS),
        };
        let compare = encoded >> 24 & 15;
        if compare > 5 {
            return Err(Errno::ENOSYS);
        }
        Ok(Self { op, operand, compare, compare_with: signed12(encoded & 0xfff) })
    }

    fn holds(self, old: u32) -> bool {
        let (old, with) = (old.cast_signed(), self.compare_with);
        match self.compare {
            0 => old == with,
            1 => old != with,
            2 => old < with,
            3 => old <= with,
            4 => old > with,
            _ => old >= with,
        }
    }
}

/// The futexes of a sandbox.
pub struct Futexes {
    queues: Queues<FutexKey>,
    pi: pi::PiQueues,
}

impl fmt::Debug for Futexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Futexes")
    }
}

impl Default for Futexes {
    fn default() -> Self {
        Self::new()
    }
}

fn key(mm: &MemoryManager, addr: u64, private: bool) -> Result<FutexKey, Errno> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    mm.futex_key(addr, private)
}

impl Futexes {
    /// No futex yet.
    #[must_use]
    pub fn new() -> Self {
        Self { queues: Queues::new(), pi: pi::PiQueues::new() }
    }

    /// Waits until any of `waits` is woken; tells which. `deadline_ns` is in the monotonic clock.
    ///
    /// # Errors
    /// `EAGAIN` where a word has another value, `ETIMEDOUT`, `ERESTARTSYS` for a signal, `EFAULT`, `EINVAL`.
    pub fn wait(
        &self,
        cur: &CurrentTask,
        waits: &[FutexWait],
        deadline_ns: Option<u64>,
    ) -> Result<usize, Errno> {
        let mm = cur.mm().ok_or(Errno::EFAULT)?;
        let mut sleepers = SmallVec::<[_; 1]>::new();
        let mut failed = None;
        for wait in waits {
            let queued = key(&mm, wait.addr, wait.private)
                .map(|key| self.queues.enqueue(key, wait.bitset, cur.waiter().clone()));
            let outcome = queued.and_then(|s| {
                sleepers.push(s);
                mm.atomic_load_u32(wait.addr)
            });
            failed = match outcome {
                Ok(value) if value == wait.value => continue,
                Ok(_) => Some(Errno::EAGAIN),
                Err(e) => Some(e),
            };
            break;
        }
        let result = match failed {
            Some(error) => Err(error),
            None => loop {
                if sleepers.iter().any(|s| s.is_woken()) {
                    break Ok(());
                }
                match cur.block(deadline_ns) {
                    BlockResult::Woken => {}
                    BlockResult::TimedOut => break Err(Errno::ETIMEDOUT),
                    BlockResult::Interrupted => break Err(Errno::ERESTARTSYS),
                }
            },
        };
        self.leave(&mm, waits, &sleepers, result)
    }

    /// Takes all sleepers back. A wake-up that came beats a timeout or a signal; with a wrong value it is passed on.
    fn leave(
        &self,
        mm: &MemoryManager,
        waits: &[FutexWait],
        sleepers: &[std::sync::Arc<queue::Sleeper<FutexKey>>],
        result: Result<(), Errno>,
    ) -> Result<usize, Errno> {
        let mut woken = None;
        for (at, (sleeper, wait)) in sleepers.iter().zip(waits).enumerate() {
            if self.queues.dequeue(sleeper) {
                continue;
            }
            let keep = !matches!(result, Err(Errno::EAGAIN | Errno::EFAULT | Errno::EINVAL));
            if keep && woken.is_none() {
                woken = Some(at);
            } else if let Ok(key) = key(mm, wait.addr, wait.private) {
                self.queues.wake(&key, 1, wait.bitset);
            }
        }
        match (woken, result) {
            (Some(at), _) => Ok(at),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(Errno::EAGAIN),
        }
    }

    /// Wakes up to `n` waiters of the futex at `addr`; tells how many.
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address, `EFAULT`.
    pub fn wake(
        &self,
        mm: &MemoryManager,
        addr: u64,
        private: bool,
        n: usize,
        bitset: u32,
    ) -> Result<usize, Errno> {
        Ok(self.queues.wake(&key(mm, addr, private)?, n, bitset))
    }

    /// `FUTEX_REQUEUE` and, with `expected`, `FUTEX_CMP_REQUEUE`: wakes up to `n.0` waiters of `from` and moves up to `n.1`
    /// more to `to`; tells how many were woken, and how many moved.
    ///
    /// # Errors
    /// `EAGAIN` where the first word is not as expected, `EINVAL`, `EFAULT`.
    pub fn requeue(
        &self,
        mm: &MemoryManager,
        (from, to): (u64, u64),
        private: bool,
        n: (usize, usize),
        expected: Option<u32>,
    ) -> Result<(usize, usize), Errno> {
        let (from_key, to_key) = (key(mm, from, private)?, key(mm, to, private)?);
        if let Some(expected) = expected
            && mm.atomic_load_u32(from)? != expected
        {
            return Err(Errno::EAGAIN);
        }
        Ok(self.queues.requeue(&from_key, &to_key, n.0, n.1))
    }

    /// `FUTEX_WAKE_OP`: changes the second word, wakes up to `n.0` waiters of the first, and if the second's old value was
    /// as asked, up to `n.1` of the second; tells how many were woken.
    ///
    /// # Errors
    /// `EINVAL`, `EFAULT`.
    pub fn wake_op(
        &self,
        mm: &MemoryManager,
        (first, second): (u64, u64),
        private: bool,
        n: (usize, usize),
        op: WakeOp,
    ) -> Result<usize, Errno> {
        let (first_key, second_key) = (key(mm, first, private)?, key(mm, second, private)?);
        let old = mm.fetch_op_u32(second, op.op, op.operand)?;
        let mut woken = self.queues.wake(&first_key, n.0, u32::MAX);
        if op.holds(old) {
            woken += self.queues.wake(&second_key, n.1, u32::MAX);
        }
        Ok(woken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_op_decodes_as_linux_does() {
        // FUTEX_OP(FUTEX_OP_ADD, -1, FUTEX_OP_CMP_GT, 1)
        let op = WakeOp::decode(1 << 28 | 4 << 24 | 0xfff << 12 | 1).expect("known");
        assert_eq!((op.operand, op.compare_with), (u32::MAX, 1));
        assert!(op.holds(2) && !op.holds(1) && !op.holds(u32::MAX));
        // FUTEX_OP_OPARG_SHIFT makes the operand a bit number.
        assert_eq!(WakeOp::decode(8 << 28 | 5 << 12).expect("known").operand, 32);
        assert_eq!(WakeOp::decode(5 << 28).map(|_| ()), Err(Errno::ENOSYS));
        assert_eq!(WakeOp::decode(6 << 24).map(|_| ()), Err(Errno::ENOSYS));
    }
}
