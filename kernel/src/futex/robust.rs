//! Robust futexes: what a thread leaves locked when it exits, Linux `kernel/futex/core.c:exit_robust_list`.
use abi::Errno;
use memmap::MemoryManager;

use super::Futexes;

/// How many entries of a list are looked at, Linux `ROBUST_LIST_LIMIT`.
const LIMIT: usize = 2048;
/// The word's bits that hold the owner's thread id.
pub(super) const FUTEX_TID_MASK: u32 = 0x3fff_ffff;
/// Set when the owner died.
pub(super) const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
/// Set while others wait.
pub(super) const FUTEX_WAITERS: u32 = 0x8000_0000;

/// The list a thread registered with set_robust_list(2): the address of its `struct robust_list_head`, or 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RobustList(pub u64);

impl Futexes {
    /// Marks every futex on the list that `tid` still owns as left by a dead owner, and wakes one waiter of each.
    /// A list that cannot be read ends the walk, as in Linux.
    pub fn exit_robust_list(&self, mm: &MemoryManager, list: RobustList, tid: u32) {
        if list.0 != 0 {
            // The thread is gone: there is nobody to tell of an unreadable list.
            let _unreadable = self.walk(mm, list.0, tid);
        }
    }

    fn walk(&self, mm: &MemoryManager, head: u64, tid: u32) -> Result<(), Errno> {
        let [first, offset, pending]: [u64; 3] = mm.read_obj(head)?;
        let mut entry = first;
        for _ in 0..LIMIT {
            // The lowest bit marks priority-inheriting futexes.
            let at = entry & !1;
            if at == head {
                break;
            }
            let next: u64 = mm.read_obj(at)?;
            if at != pending & !1 {
                self.owner_died(mm, at.wrapping_add(offset), tid, entry & 1 != 0)?;
            }
            entry = next;
        }
        if pending & !1 != 0 {
            self.owner_died(mm, (pending & !1).wrapping_add(offset), tid, pending & 1 != 0)?;
        }
        Ok(())
    }

    /// Who waits for a priority-inheriting futex is woken by [`Self::exit_pi`].
    fn owner_died(&self, mm: &MemoryManager, addr: u64, tid: u32, pi: bool) -> Result<(), Errno> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let mut value = mm.atomic_load_u32(addr)?;
        // Another thread may change the word meanwhile, yet not for ever: each change costs it a system call or a race.
        for _ in 0..LIMIT {
            if value & FUTEX_TID_MASK != tid {
                return Ok(());
            }
            let dead = value & FUTEX_WAITERS | FUTEX_OWNER_DIED;
            match mm.compare_exchange_u32(addr, value, dead)? {
                Ok(_) => break,
                Err(now) => value = now,
            }
        }
        if value & FUTEX_WAITERS != 0 && !pi {
            self.wake(mm, addr, false, 1, u32::MAX)?;
            self.wake(mm, addr, true, 1, u32::MAX)?;
        }
        Ok(())
    }
}
