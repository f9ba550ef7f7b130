//! What a guest thread of a stub shares with the sentry.
//!
//! All of it can be written by every thread of the guest process. The sentry reads each value once, and believes none.
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::Registers;

use crate::stub::layout::PAGE;
use crate::stub::lock::Mutex;
use crate::{PlatformError, sys};

/// The distance of two threads' regions, and their alignment.
pub(super) const STRIDE: u64 = 0x2_0000;
/// Offset of the area in a region, behind the page of code.
pub(super) const AREA: u64 = 0x1000;
/// Offset of the room for the FPU state.
pub(super) const FPU: u64 = 0x2000;
/// Its size.
pub(super) const FPU_ROOM: usize = 0x3000;
/// Offset of the signal stack, which has room for two frames with the largest FPU state.
pub(super) const STACK_BOTTOM: u64 = 0x5000;
/// Offset of its end.
pub(super) const STACK_TOP: u64 = AREA + SLOT;
/// The size of a slot in the file of areas.
pub(super) const SLOT: u64 = 0x1_0000;
/// How much of the signal stack a thread uses by itself.
const STACK_USED: u64 = 0x2000;
/// How many threads there may be at a time, in all stubs.
const SLOTS: u32 = 32768;

/// Offsets in an area, for the code of threads.
pub(super) mod offset {
    use super::Area;
    use std::mem::offset_of;

    pub(in super::super) const COMMAND: usize = offset_of!(Area, command);
    pub(in super::super) const INTERRUPT: usize = offset_of!(Area, interrupt);
    pub(in super::super) const SPIN_TICKS: usize = offset_of!(Area, spin_ticks);
    pub(in super::super) const SENTRY_ASLEEP: usize = offset_of!(Area, sentry_asleep);
    pub(in super::super) const POLITE_TICKS: usize = offset_of!(Area, polite_ticks);
    pub(in super::super) const RESULT: usize = offset_of!(Area, result);
    pub(in super::super) const EVENT: usize = offset_of!(Area, event);
    pub(in super::super) const STUB_ASLEEP: usize = offset_of!(Area, stub_asleep);
    pub(in super::super) const KIND: usize = offset_of!(Area, kind);
    pub(in super::super) const SIGNAL: usize = offset_of!(Area, signal);
    pub(in super::super) const CODE: usize = offset_of!(Area, code);
    pub(in super::super) const ERROR: usize = offset_of!(Area, error);
    pub(in super::super) const HOGGED: usize = offset_of!(Area, hogged);
    pub(in super::super) const TRAP: usize = offset_of!(Area, trap);
    pub(in super::super) const ADDR: usize = offset_of!(Area, addr);
    pub(in super::super) const CR2: usize = offset_of!(Area, cr2);
    pub(in super::super) const CALL: usize = offset_of!(Area, call);
    pub(in super::super) const REGISTERS: usize = offset_of!(Area, registers);
    pub(in super::super) const FS_BASE: usize = offset_of!(Area, fs_base);
    pub(in super::super) const GS_BASE: usize = offset_of!(Area, gs_base);
    pub(in super::super) const ENTRY_RSP: usize = offset_of!(Area, entry_rsp);
    pub(in super::super) const STACK: usize = offset_of!(Area, stack);
    pub(in super::super) const ENTRIES: usize = offset_of!(Area, entries);
    pub(in super::super) const TAIL: usize = offset_of!(Area, tail);
    pub(in super::super) const ANSWERS: usize = offset_of!(Area, answers);
    pub(in super::super) const PID: usize = offset_of!(Area, pid);
    pub(in super::super) const TID: usize = offset_of!(Area, tid);
}

/// The first page of a slot. What the sentry writes and what the thread writes lie on cache lines of their own.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(super) struct Area {
    /// Written by the sentry: a number that changes with each, and in its low bits what to do. A futex of the thread.
    pub(super) command: AtomicU32,
    /// Written by the sentry: the guest is not to run.
    pub(super) interrupt: AtomicU32,
    /// Written by the sentry: how long the thread waits for a command before it sleeps, in ticks of the time stamp counter.
    pub(super) spin_ticks: AtomicU64,
    /// Written by the sentry: its thread sleeps on `event`, or is about to.
    pub(super) sentry_asleep: AtomicU32,
    _line: u32,
    /// Written by the sentry: after how many ticks of that the thread lets others run in between.
    pub(super) polite_ticks: AtomicU64,
    /// Written by the sentry: what a patched call returns, where nothing else changed. On the command's cache line; those
    /// of the registers stay with the thread then.
    pub(super) result: AtomicU64,
    _rest: [u32; 6],
    /// Written by the thread: the last command that is done, for a resumption by a trap. A futex of the sentry.
    pub(super) event: AtomicU32,
    /// Written by the thread: it sleeps on `command`, or is about to.
    pub(super) stub_asleep: AtomicU32,
    /// Why there is an event.
    pub(super) kind: AtomicU32,
    /// The signal's number.
    pub(super) signal: AtomicU32,
    /// `si_code`.
    pub(super) code: AtomicU32,
    /// The processor's error code.
    pub(super) error: AtomicU32,
    /// The processor's exception.
    pub(super) trap: AtomicU32,
    /// Written by the thread: something else had its CPU for long while it looked for a command.
    pub(super) hogged: AtomicU32,
    /// `si_addr`.
    pub(super) addr: AtomicU64,
    /// The address of a page fault.
    pub(super) cr2: AtomicU64,
    /// `si_syscall` and `si_arch` of a SIGSYS.
    pub(super) call: AtomicU64,
    _pad2: u64,
    /// In the order of `struct sigcontext`.
    pub(super) registers: [AtomicU64; 18],
    /// The code segment, in the low 16 bits.
    pub(super) selectors: AtomicU64,
    pub(super) fs_base: AtomicU64,
    pub(super) gs_base: AtomicU64,
    /// The guest's stack pointer while a patched call is being taken.
    pub(super) entry_rsp: AtomicU64,
    /// The `stack_t` of the signal stack.
    pub(super) stack: [AtomicU64; 3],
    /// Where patched calls go, found by way of the GS base, which is the area's address: those of any number, getpid, and
    /// gettid.
    pub(super) entries: [AtomicU64; 3],
    /// Where the guest goes on after a patched call, which is not where it believes to be.
    pub(super) tail: AtomicU64,
    /// Written by the sentry: whether the answers hold.
    pub(super) answers: AtomicU64,
    /// What getpid(2) and gettid(2) return.
    pub(super) pid: AtomicU64,
    pub(super) tid: AtomicU64,
}

impl Area {
    /// Takes the registers over into `regs`, without segment bases.
    pub(super) fn load_registers(&self, regs: &mut Registers) {
        let [r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags] =
            &self.registers;
        let load = |register: &AtomicU64| register.load(Ordering::Relaxed);
        *regs = Registers {
            r15: load(r15),
            r14: load(r14),
            r13: load(r13),
            r12: load(r12),
            rbp: load(rbp),
            rbx: load(rbx),
            r11: load(r11),
            r10: load(r10),
            r9: load(r9),
            r8: load(r8),
            rax: load(rax),
            rcx: load(rcx),
            rdx: load(rdx),
            rsi: load(rsi),
            rdi: load(rdi),
            rip: load(rip),
            eflags: load(eflags),
            rsp: load(rsp),
            fs_base: load(&self.fs_base),
            ..*regs
        };
    }

    /// Stores registers, with `gs_base` as the thread is to have it.
    pub(super) fn store_registers(&self, regs: &Registers, gs_base: u64) {
        let values = [
            regs.r8,
            regs.r9,
            regs.r10,
            regs.r11,
            regs.r12,
            regs.r13,
            regs.r14,
            regs.r15,
            regs.rdi,
            regs.rsi,
            regs.rbp,
            regs.rbx,
            regs.rdx,
            regs.rax,
            regs.rcx,
            regs.rsp,
            regs.rip,
            regs.eflags,
        ];
        for (place, value) in self.registers.iter().zip(values) {
            place.store(value, Ordering::Relaxed);
        }
        self.fs_base.store(regs.fs_base, Ordering::Relaxed);
        self.gs_base.store(gs_base, Ordering::Relaxed);
    }
}

/// The file of all areas.
#[derive(Debug)]
pub(crate) struct Areas {
    file: File,
    slots: *mut u8,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    used: u32,
    returned: Vec<u32>,
}

// SAFETY: `slots` points to shared memory that lives as long as the value and is reached through atomics only.
unsafe impl Send for Areas {}
// SAFETY: as above.
unsafe impl Sync for Areas {}

fn size() -> usize {
    usize::try_from(u64::from(SLOTS) * SLOT).unwrap_or(usize::MAX)
}

impl Areas {
    /// Makes the file and maps it.
    pub(crate) fn new() -> Result<Arc<Self>, PlatformError> {
        let file = sys::memfd(c"stub threads", 0)?;
        file.set_len(size() as u64).map_err(|source| PlatformError::Host { call: "ftruncate", source })?;
        let slots = sys::map_shared(file.as_raw_fd(), size(), libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(Arc::new(Self { file, slots, free: Mutex::default() }))
    }

    /// The file's descriptor, which stubs share.
    pub(super) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Takes a free slot, for a thread whose region is to be at `region`.
    ///
    /// # Errors
    /// `EAGAIN` when all are taken.
    pub(crate) fn take(self: &Arc<Self>, region: u64) -> Result<AreaSlot, PlatformError> {
        let mut free = self.free.lock();
        let index = match free.returned.pop() {
            Some(index) => index,
            None if free.used < SLOTS => {
                free.used += 1;
                free.used - 1
            }
            None => {
                let source = std::io::Error::from_raw_os_error(libc::EAGAIN);
                return Err(PlatformError::Host { call: "thread slot", source });
            }
        };
        drop(free);
        let slot = AreaSlot { index, region, areas: Arc::clone(self) };
        slot.prepare();
        Ok(slot)
    }
}

impl Drop for Areas {
    fn drop(&mut self) {
        // SAFETY: every slot holds the areas alive, so none is left to use its memory.
        unsafe { sys::unmap(self.slots, size()) };
    }
}

/// One thread's slot.
#[derive(Debug)]
pub(crate) struct AreaSlot {
    index: u32,
    region: u64,
    areas: Arc<Areas>,
}

impl AreaSlot {
    fn at(&self, offset: u64) -> *mut u8 {
        let from = u64::from(self.index) * SLOT + offset;
        // SAFETY: the index is below SLOTS and the offset below SLOT, so this lies in the one mapping.
        unsafe { self.areas.slots.add(usize::try_from(from).unwrap_or(0)) }
    }

    /// The area.
    pub(super) fn area(&self) -> &Area {
        // SAFETY: the mapping lives as long as the areas; any bytes are a valid page of atomics.
        unsafe { &*self.at(0).cast::<Area>() }
    }

    /// The room for the FPU state, in words.
    pub(super) fn fpu(&self) -> &[AtomicU64; FPU_ROOM / 8] {
        // SAFETY: as above, and the room lies in the slot.
        unsafe { &*self.at(FPU - AREA).cast() }
    }

    /// Where the slot lies in the file.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.index) * SLOT
    }

    /// The file of all areas.
    pub(super) fn areas(&self) -> &Arc<Areas> {
        &self.areas
    }

    /// Where the thread's region is in the stub.
    pub(super) const fn region(&self) -> u64 {
        self.region
    }

    /// Lets the thread answer getpid(2) and gettid(2) by itself, or ask.
    pub(super) fn answer(&self, ids: Option<(i32, i32)>) {
        let area = self.area();
        let (pid, tid) = ids.unwrap_or_default();
        let number = |id: i32| u64::from(id.cast_unsigned());
        area.pid.store(number(pid), Ordering::Relaxed);
        area.tid.store(number(tid), Ordering::Relaxed);
        area.answers.store(ids.is_some().into(), Ordering::Relaxed);
        let fast = super::code::fast_offset();
        let offsets = if ids.is_some() { super::code::answer_offsets() } else { [fast; 2] };
        for (entry, offset) in area.entries.iter().zip([fast, offsets[0], offsets[1]]) {
            entry.store(self.region + offset, Ordering::SeqCst);
        }
    }

    /// The flags that a thread put on its stack when it entered for a patched call.
    pub(super) fn pushed_flags(&self) -> u64 {
        // SAFETY: the stack's last word lies in the slot, and is only read as a word.
        unsafe { &*self.at(SLOT - 8).cast::<AtomicU64>() }.load(Ordering::Relaxed)
    }

    /// For a new thread; all else is zero.
    fn prepare(&self) {
        let area = self.area();
        area.store_registers(&Registers::default(), 0);
        for word in [
            &area.command,
            &area.interrupt,
            &area.sentry_asleep,
            &area.event,
            &area.stub_asleep,
            &area.kind,
            &area.signal,
            &area.hogged,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        area.spin_ticks.store(0, Ordering::Relaxed);
        let stack = [self.region + STACK_BOTTOM, 0, STACK_TOP - STACK_BOTTOM];
        for (place, value) in area.stack.iter().zip(stack) {
            place.store(value, Ordering::Relaxed);
        }
        self.answer(None);
    }
}

impl AreaSlot {
    /// Leaves nothing of what a stub wrote, and gives the memory back that threads do not need by themselves: the pages
    /// that each uses are cleared, which the next finds present.
    fn clear(&self) {
        let rest = PAGE..SLOT - STACK_USED;
        let punched = sys::punch_hole(&self.areas.file, self.offset() + rest.start, rest.end - rest.start);
        let stored = if punched.is_ok() { [0..rest.start, rest.end..SLOT] } else { [0..SLOT, 0..0] };
        for offset in stored.into_iter().flat_map(|range| range.step_by(8)) {
            // SAFETY: the word lies in the slot, which is aligned, and is reached through atomics only.
            unsafe { &*self.at(offset).cast::<AtomicU64>() }.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for AreaSlot {
    fn drop(&mut self) {
        self.clear();
        self.areas.free.lock().returned.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_nothing_of_its_former_user() {
        let areas = Areas::new().unwrap();
        let bytes = |slot: &AreaSlot| {
            let word = |offset| {
                // SAFETY: as in `clear`.
                unsafe { &*slot.at(offset).cast::<AtomicU64>() }
            };
            (0..SLOT).step_by(8).map(word).collect::<Vec<_>>().into_iter()
        };
        let fresh = areas.take(0x1_0000).unwrap();
        let expected: Vec<u64> = bytes(&fresh).map(|word| word.load(Ordering::Relaxed)).collect();
        bytes(&fresh).for_each(|word| word.store(!0, Ordering::Relaxed));
        drop(fresh);
        let again = areas.take(0x1_0000).unwrap();
        assert_eq!(again.offset(), 0, "the same");
        let found: Vec<u64> = bytes(&again).map(|word| word.load(Ordering::Relaxed)).collect();
        assert!(found == expected);
    }
}
