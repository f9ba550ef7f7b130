//! Filters of system calls, seccomp(2): those that programs install, and the profile of a container.
mod bpf;

use std::fmt;
use std::sync::Arc;

use abi::ptrace::event;
use abi::{Errno, Signal};

pub use bpf::{Instruction, MAX_INSTRUCTIONS, Program};

use crate::ptrace::watch;
use crate::signal::{self, SigFields, SigInfo};
use crate::{Cap, CurrentTask, Event, ExitStatus, Task};

/// `AUDIT_ARCH_X86_64`.
pub const ARCH_X86_64: u32 = 0xc000_003e;

/// `SECCOMP_RET_*`: what a filter wants.
pub mod action {
    /// The process dies.
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    /// The thread dies.
    pub const KILL_THREAD: u32 = 0;
    /// `SIGSYS`.
    pub const TRAP: u32 = 0x0003_0000;
    /// The call fails with the errno of the low bits.
    pub const ERRNO: u32 = 0x0005_0000;
    /// A supervisor decides.
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    /// A tracer decides.
    pub const TRACE: u32 = 0x7ff0_0000;
    /// The call is made, and reported.
    pub const LOG: u32 = 0x7ffc_0000;
    /// The call is made.
    pub const ALLOW: u32 = 0x7fff_0000;
    /// Every one that is supported.
    pub const ALL: [u32; 7] = [KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, TRACE, LOG, ALLOW];
    /// The bits that say what.
    pub const MASK: u32 = 0xffff_0000;
}

/// The highest errno that a filter can give.
const MAX_ERRNO: u32 = 4095;
/// The most instructions of all filters of a thread, Linux `MAX_INSNS_PER_PATH`, and what each filter counts beside them.
const MAX_PATH: usize = (1 << 18) / 8;
const PER_FILTER: usize = 4;

/// `struct seccomp_data`: a call as filters see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeccompData {
    /// The call's number.
    pub nr: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The address behind the instruction.
    pub ip: u64,
    /// The arguments.
    pub args: [u64; 6],
}

impl SeccompData {
    /// Its size in bytes.
    pub const SIZE: u32 = 64;

    /// The 32 bits at an offset that is a multiple of 4.
    #[must_use]
    pub fn word(&self, offset: u32) -> u32 {
        let half = |value: u64| {
            let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
            u32::from_le_bytes(if offset & 4 == 0 { [a, b, c, d] } else { [e, f, g, h] })
        };
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 | 12 => half(self.ip),
            _ => {
                let index = usize::try_from(offset.saturating_sub(16) / 8).unwrap_or(usize::MAX);
                half(self.args.get(index).copied().unwrap_or(0))
            }
        }
    }
}

/// Decides over calls; what upper crates have for filters is one as well.
pub trait Decide: Send + Sync {
    /// `SECCOMP_RET_*` and its data for a call.
    fn decide(&self, data: &SeccompData) -> u32;

    /// Tells whether every call of this number is made, whatever its arguments and wherever it comes from: it need not be
    /// asked about.
    fn always_allows(&self, nr: u32) -> bool {
        let _ = nr;
        false
    }
}

impl fmt::Debug for dyn Decide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decide")
    }
}

impl Decide for Program {
    fn decide(&self, data: &SeccompData) -> u32 {
        self.run(data)
    }
}

/// The mode of a thread, as `/proc/PID/status` shows it.
#[derive(Clone, Debug, Default)]
pub enum Seccomp {
    /// Every call is made.
    #[default]
    Disabled,
    /// read(2), write(2), exit(2) and rt_sigreturn(2) only.
    Strict,
    /// Filters decide, the newest first.
    Filter(Arc<FilterList>),
}

/// A filter, and those that were there before it.
#[derive(Debug)]
pub struct FilterList {
    decide: Arc<dyn Decide>,
    /// Whether what it forbids is reported, `SECCOMP_FILTER_FLAG_LOG`.
    log: bool,
    older: Option<Arc<Self>>,
    count: u32,
    /// Instructions of the whole list, as Linux counts them.
    size: usize,
}

impl Drop for FilterList {
    fn drop(&mut self) {
        // By a loop: a list can be long, and the stack is small.
        let mut next = self.older.take();
        while let Some(mut list) = next.and_then(Arc::into_inner) {
            next = list.older.take();
        }
    }
}

impl FilterList {
    /// A filter on top of others; `size` is how many instructions it has.
    ///
    /// # Errors
    /// `ENOMEM` where the list grows too long.
    pub fn new(
        decide: Arc<dyn Decide>,
        size: usize,
        log: bool,
        older: Option<Arc<Self>>,
    ) -> Result<Arc<Self>, Errno> {
        let below = older.as_ref().map_or(0, |older| older.size.saturating_add(PER_FILTER));
        let size = below.saturating_add(size);
        if size > MAX_PATH {
            return Err(Errno::ENOMEM);
        }
        let count = older.as_ref().map_or(0, |older| older.count).saturating_add(1);
        Ok(Arc::new(Self { decide, log, older, count, size }))
    }

    /// What the strictest filter wants, and whether that is to be reported.
    fn decide(&self, data: &SeccompData) -> (u32, bool) {
        let (mut result, mut log) = (action::ALLOW, false);
        let mut next = Some(self);
        while let Some(list) = next {
            let wanted = list.decide.decide(data);
            let rank = |value: u32| (value & action::MASK).cast_signed();
            if rank(wanted) < rank(result) {
                (result, log) = (wanted, list.log);
            }
            next = list.older.as_deref();
        }
        (result, log)
    }

    fn descends_from(&self, other: Option<&Arc<Self>>) -> bool {
        let Some(other) = other else { return true };
        let mut next = Some(self);
        while let Some(list) = next {
            if std::ptr::eq(list, Arc::as_ptr(other)) {
                return true;
            }
            next = list.older.as_deref();
        }
        false
    }
}

impl Seccomp {
    /// 0, 1 or 2, `PR_GET_SECCOMP`.
    #[must_use]
    pub const fn mode(&self) -> u8 {
        match self {
            Self::Disabled => 0,
            Self::Strict => 1,
            Self::Filter(_) => 2,
        }
    }

    /// Tells whether every call of this number is made.
    #[must_use]
    pub fn always_allows(&self, nr: u32) -> bool {
        let Self::Filter(list) = self else { return self.mode() == 0 };
        let mut next = Some(list.as_ref());
        while let Some(list) = next {
            if !list.decide.always_allows(nr) {
                return false;
            }
            next = list.older.as_deref();
        }
        true
    }

    /// How many filters there are.
    #[must_use]
    pub fn filters(&self) -> u32 {
        if let Self::Filter(list) = self { list.count } else { 0 }
    }
}

impl Task {
    /// The mode of the thread.
    #[must_use]
    pub fn seccomp(&self) -> Seccomp {
        self.state.lock().seccomp.clone()
    }

    /// Replaces the mode, without asking whether that is allowed: for who starts a process from outside.
    pub fn set_seccomp(&self, seccomp: Seccomp) {
        let on = seccomp.mode() != 0;
        let old = std::mem::replace(&mut self.state.lock().seccomp, seccomp);
        self.tracing.watch(watch::FILTERED, on);
        drop(old);
        self.reconsider();
    }
}

impl CurrentTask {
    /// `SECCOMP_SET_MODE_STRICT`.
    ///
    /// # Errors
    /// `EINVAL` where another mode is in force.
    pub fn seccomp_strict(&self) -> Result<(), Errno> {
        if matches!(self.seccomp(), Seccomp::Filter(_)) {
            return Err(Errno::EINVAL);
        }
        self.set_seccomp(Seccomp::Strict);
        Ok(())
    }

    /// `SECCOMP_SET_MODE_FILTER`; with `all_threads` (`SECCOMP_FILTER_FLAG_TSYNC`) every thread of the process gets the
    /// same filters. Gives 0, or the id of a thread that cannot have them.
    ///
    /// # Errors
    /// `EACCES` without `no_new_privs` and `CAP_SYS_ADMIN`, `EINVAL` in strict mode, `ENOMEM` for too many filters.
    pub fn seccomp_filter(&self, program: Program, log: bool, all_threads: bool) -> Result<i32, Errno> {
        let credentials = self.credentials();
        if !credentials.no_new_privs && !credentials.has_cap(Cap::SYS_ADMIN) {
            return Err(Errno::EACCES);
        }
        let older = match self.seccomp() {
            Seccomp::Disabled => None,
            Seccomp::Strict => return Err(Errno::EINVAL),
            Seccomp::Filter(list) => Some(list),
        };
        let others = if all_threads { self.group().threads() } else { Vec::new() };
        for other in others.iter().filter(|other| !Arc::ptr_eq(other, self.task())) {
            let fits = match other.seccomp() {
                Seccomp::Disabled => true,
                Seccomp::Strict => false,
                Seccomp::Filter(theirs) => older.as_ref().is_some_and(|own| own.descends_from(Some(&theirs))),
            };
            if !fits {
                return Ok(other.tid());
            }
        }
        let size = program.len();
        let list = FilterList::new(Arc::new(program), size, log, older)?;
        for other in &others {
            if credentials.no_new_privs {
                other.set_no_new_privs();
            }
            other.set_seccomp(Seccomp::Filter(Arc::clone(&list)));
        }
        self.set_seccomp(Seccomp::Filter(list));
        Ok(0)
    }

    /// Asks the filters about the call in the registers; tells whether it is to be made. Where not, the registers have
    /// what it returns, or the thread is about to die.
    pub(crate) fn may_call(&mut self) -> bool {
        self.ask_filters(false)
    }

    /// As [`Self::may_call`]; a call that a tracer was asked about is not shown to it again.
    fn ask_filters(&mut self, asked: bool) -> bool {
        let number = self.regs.syscall_number().to_le_bytes();
        let [a, b, c, d, ..] = number;
        let nr = u32::from_le_bytes([a, b, c, d]);
        let list = match self.seccomp() {
            Seccomp::Disabled => return true,
            Seccomp::Strict => {
                // read, write, exit, rt_sigreturn.
                let fine = matches!(nr, 0 | 1 | 60 | 15);
                if !fine {
                    self.exit_group(ExitStatus::Signaled { signal: Signal::SIGKILL, core: false });
                }
                return fine;
            }
            Seccomp::Filter(list) => list,
        };
        let data = SeccompData { nr, arch: ARCH_X86_64, ip: self.regs.rip, args: self.regs.syscall_args() };
        let (wanted, log) = list.decide(&data);
        let (what, low) = (wanted & action::MASK, wanted & !action::MASK);
        if what == action::LOG || log && what != action::ALLOW {
            tracing::info!(pid = self.tgid(), nr, action = format_args!("{what:#x}"), "seccomp");
        }
        if !matches!(what, action::ALLOW | action::LOG)
            && let Some(observer) = self.kernel().observer()
        {
            observer.tell(self.group(), &Event::Filtered { nr, action: wanted });
        }
        match what {
            action::ALLOW | action::LOG => return true,
            action::ERRNO => {
                let errno = i64::from(low.min(MAX_ERRNO));
                self.regs.set_syscall_return((-errno).cast_unsigned());
            }
            action::TRAP => self.trap_seccomp(&data, low),
            action::TRACE if asked => return true,
            action::TRACE if self.has_event(event::SECCOMP) => {
                self.trace_event(event::SECCOMP, low.into());
                // The tracer may have made another call of it, or none.
                let made = !signal::is_killed(self) && !self.is_leaving() && self.wants_call();
                return made && self.ask_filters(true);
            }
            action::TRACE => self.regs.set_syscall_return(Errno::ENOSYS.as_return()),
            // There is no supervisor to ask.
            action::USER_NOTIF => {
                self.kernel().unsupported("seccomp: SECCOMP_RET_USER_NOTIF");
                self.regs.set_syscall_return(Errno::ENOSYS.as_return());
            }
            action::KILL_THREAD if self.group().thread_count() > 1 => self.exit(0),
            _ => self.exit_group(ExitStatus::Signaled { signal: Signal::SIGSYS, core: false }),
        }
        false
    }

    /// `SIGSYS`, the call's number in the registers where it was (Linux `force_sig_seccomp`).
    fn trap_seccomp(&mut self, data: &SeccompData, reason: u32) {
        let wide = u64::from(data.nr) | u64::from(data.arch) << 32;
        let mut fields = [0; 14];
        (fields[0], fields[1]) = (data.ip, wide);
        self.regs.rax = u64::from(data.nr);
        self.regs.orig_rax = u64::MAX;
        let info = SigInfo {
            signal: Signal::SIGSYS,
            code: abi::siginfo::SYS_SECCOMP,
            errno: reason.cast_signed(),
            fields: SigFields::Raw(fields),
        };
        signal::force_signal(self, info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Always(u32);

    impl Decide for Always {
        fn decide(&self, _: &SeccompData) -> u32 {
            self.0
        }
    }

    fn list(actions: &[u32]) -> Arc<FilterList> {
        let grown = actions.iter().fold(None, |older, wanted| {
            Some(FilterList::new(Arc::new(Always(*wanted)), 1, false, older).unwrap())
        });
        grown.unwrap()
    }

    #[test]
    fn the_strictest_filter_decides_and_of_equals_the_newest() {
        let data = SeccompData { nr: 0, arch: ARCH_X86_64, ip: 0, args: [0; 6] };
        let decide = |actions: &[u32]| list(actions).decide(&data).0;
        assert_eq!(decide(&[action::ALLOW, action::LOG]), action::LOG);
        assert_eq!(decide(&[action::ERRNO | 1, action::ERRNO | 2]), action::ERRNO | 2);
        assert_eq!(decide(&[action::KILL_PROCESS, action::KILL_THREAD, action::ALLOW]), action::KILL_PROCESS);
        assert_eq!(decide(&[action::TRAP, action::ERRNO]), action::TRAP);
    }

    #[test]
    fn lists_are_bounded() {
        let mut top = list(&[action::ALLOW]);
        let grown = loop {
            match FilterList::new(Arc::new(Always(0)), MAX_INSTRUCTIONS, false, Some(Arc::clone(&top))) {
                Ok(next) => top = next,
                Err(error) => break error,
            }
        };
        assert_eq!(grown, Errno::ENOMEM);
        assert!(top.count < 16);
    }

    #[test]
    fn words_lie_where_seccomp_data_has_them() {
        let data = SeccompData { nr: 1, arch: 2, ip: 3 << 32 | 4, args: [5, 6, 7, 8, 9, 10 << 32 | 11] };
        let words = (0..16).map(|index| data.word(index * 4)).collect::<Vec<_>>();
        assert_eq!(words, [1, 2, 4, 3, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0, 11, 10]);
    }
}
