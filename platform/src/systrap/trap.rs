//! What a thread's event means.
use std::sync::atomic::Ordering;

use abi::{Registers, Signal};

use super::area::{Area, AreaSlot, STACK_TOP};
use super::code::{self, INTERRUPT, kind};
use crate::patch::{Patches, Place, Site};
use crate::registers::USER_CS;
use crate::vsyscall;
use crate::{FaultAccess, Trap};

/// `si_code` of signals that the kernel made without saying more.
const SI_KERNEL: i32 = 0x80;
/// `si_code` of a signal that a seccomp filter sent.
const SYS_SECCOMP: i32 = 1;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const GENERAL_PROTECTION: u32 = 13;
const PAGE_FAULT: u32 = 14;
const ERROR_WRITE: u32 = 2;
const ERROR_FETCH: u32 = 16;

/// An event, read from an area once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The guest trapped.
    Trap(Trap),
    /// A patched system call; it goes on at this address, whatever `rip` says.
    Patched(u64),
    /// A processor exception that `hlt` would be, behind a patched call.
    Halted,
    /// The thread was stopped by a signal of ours.
    Stopped,
    /// The thread did what its code cannot do by itself.
    Broken,
}

/// What a signal tells.
#[derive(Clone, Copy, Debug)]
struct Told {
    signal: i32,
    code: i32,
    addr: u64,
    trap: u32,
    error: u32,
    cr2: u64,
    arch: u32,
}

impl Told {
    fn load(area: &Area) -> Self {
        let word = |word: &std::sync::atomic::AtomicU32| word.load(Ordering::Relaxed);
        let call = area.call.load(Ordering::Relaxed);
        Self {
            signal: word(&area.signal).cast_signed(),
            code: word(&area.code).cast_signed(),
            addr: area.addr.load(Ordering::Relaxed),
            trap: word(&area.trap),
            error: word(&area.error),
            cr2: area.cr2.load(Ordering::Relaxed),
            arch: u32::try_from(call >> 32).unwrap_or(0),
        }
    }
}

/// Reads the event of a thread that ran the guest, whose registers `regs` then has.
pub(super) fn event(area: &Area, regs: &mut Registers) -> Event {
    match area.kind.load(Ordering::Relaxed) {
        kind::SYSCALL => {
            area.load_registers(regs);
            regs.orig_rax = regs.rax;
            regs.cs = USER_CS;
            Event::Patched(area.tail.load(Ordering::Relaxed))
        }
        kind::SIGNAL => {
            let selectors = area.selectors.load(Ordering::Relaxed);
            area.load_registers(regs);
            regs.orig_rax = u64::MAX;
            regs.gs_base = area.gs_base.load(Ordering::Relaxed);
            regs.cs = selectors & 0xffff;
            if regs.cs != USER_CS {
                // 32-bit code, which nothing on the way back could return to.
                return exception(Signal::SIGSEGV, SI_KERNEL, 0);
            }
            signal(Told::load(area), regs)
        }
        kind::LEAVING => match Told::load(area) {
            Told { signal: 0 | INTERRUPT, .. } => Event::Stopped,
            // An address that is not canonical.
            _ => exception(Signal::SIGSEGV, SI_KERNEL, 0),
        },
        _ => Event::Broken,
    }
}

/// The trap of an address that is not canonical, and of much else that user space must not do.
pub(super) const PROTECTION: Trap = Trap::Exception { signal: Signal::SIGSEGV, code: SI_KERNEL, addr: 0 };

const fn exception(signal: Signal, code: i32, addr: u64) -> Event {
    Event::Trap(Trap::Exception { signal, code, addr })
}

fn signal(told: Told, regs: &mut Registers) -> Event {
    match told.signal {
        INTERRUPT => Event::Stopped,
        libc::SIGSYS if told.code == SYS_SECCOMP && told.arch == AUDIT_ARCH_X86_64 => {
            match vsyscall::call(told.addr) {
                Some(call) => regs.orig_rax = call,
                None => regs.orig_rax = regs.rax,
            }
            Event::Trap(Trap::Syscall)
        }
        libc::SIGSYS => {
            // `int $0x80` or `sysenter`; both have two bytes.
            regs.rip = regs.rip.wrapping_sub(2);
            exception(Signal::SIGSEGV, SI_KERNEL, 0)
        }
        libc::SIGSEGV if told.trap == PAGE_FAULT => {
            let access = match told.error {
                error if error & ERROR_FETCH != 0 => FaultAccess::Execute,
                error if error & ERROR_WRITE != 0 => FaultAccess::Write,
                _ => FaultAccess::Read,
            };
            Event::Trap(Trap::Fault { addr: told.cr2, access })
        }
        libc::SIGSEGV if told.trap == GENERAL_PROTECTION => Event::Halted,
        libc::SIGSEGV => exception(Signal::SIGSEGV, SI_KERNEL, 0),
        libc::SIGBUS | libc::SIGTRAP | libc::SIGFPE | libc::SIGILL if told.code > 0 => {
            match Signal::new(told.signal) {
                Some(signal) => exception(signal, told.code, told.addr),
                None => Event::Broken,
            }
        }
        // Sent by somebody on the host, whom the guest does not see.
        libc::SIGBUS | libc::SIGTRAP | libc::SIGFPE | libc::SIGILL => Event::Stopped,
        _ => Event::Broken,
    }
}

/// Makes the registers of a thread that was stopped in a patched call, or on the way from it to the sentry, those that the
/// guest would have without the patch: those from before the call, or after it if it has its answer. Tells whether the
/// patch is no more.
pub(super) fn leave_patch(slot: &AreaSlot, patches: &Patches, regs: &mut Registers) -> bool {
    let region = slot.region();
    let at = regs.rip.wrapping_sub(region);
    if !(code::fast_offset()..code::saved_offset()).contains(&at) {
        let place = patches.place(regs.rip);
        if let Place::At(rip) | Place::Former(rip) = place {
            regs.rip = rip;
        }
        return matches!(place, Place::Former(_));
    }
    if code::has_answer(at) {
        regs.rip = regs.rcx;
        return false;
    }
    if regs.rsp == region + STACK_TOP - 8 {
        regs.eflags = slot.pushed_flags();
    }
    if (region..=region + STACK_TOP).contains(&regs.rsp) {
        regs.rsp = slot.area().entry_rsp.load(Ordering::Relaxed);
    }
    regs.rip = patches.start(regs.rcx).unwrap_or(regs.rcx);
    false
}

/// Makes the call of a trampoline that a guest with a GS base of its own could not leave.
pub(super) fn call_from(site: &Site, regs: &mut Registers) -> Trap {
    if let Some(number) = site.number() {
        regs.rax = number.into();
    }
    (regs.rip, regs.rcx, regs.r11, regs.orig_rax) = (site.next, site.next, regs.eflags, regs.rax);
    Trap::Syscall
}
