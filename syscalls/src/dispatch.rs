//! From a trapped system call to its handler and back.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use abi::sysno::ALL;
use kernel::{CurrentTask, Kernel, Syscalls};

use crate::Cx;
use crate::decode::Arg;
use crate::entries::TABLE;
use crate::strace::{Strace, StraceOptions};
use crate::table::{Entry, Support};

/// How many numbers the index spans: one more than the highest there is.
const SPAN: usize = 512;

/// The place of each number in [`TABLE`], one more than its index; 0 for none.
static INDEX: [u16; SPAN] = index();

#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "evaluated by the compiler")]
const fn index() -> [u16; SPAN] {
    let mut index = [0; SPAN];
    let mut at = 0;
    while at < ALL.len() {
        index[ALL[at] as usize] = at as u16 + 1;
        at += 1;
    }
    index
}

/// The entry of a number.
#[must_use]
pub fn entry(nr: u32) -> Option<&'static Entry> {
    let at = usize::from(*INDEX.get(usize::try_from(nr).ok()?)?);
    TABLE.get(at.checked_sub(1)?)
}

/// Every call with how much of it works, for people.
pub fn support_table() -> impl Iterator<Item = (u64, &'static str, Support)> {
    TABLE.iter().map(|e| (e.nr, e.name, e.support))
}

/// What the embedder chooses.
#[derive(Debug, Default)]
pub struct Options {
    /// Shows calls, if wanted.
    pub strace: Option<StraceOptions>,
    /// Whether calls are shown now; to be changed while programs run, who are then told by [`kernel::Task::reconsider`].
    pub traced: Arc<AtomicBool>,
}

/// Makes this table the one that the kernel's threads call.
pub fn install(kernel: &Kernel, options: Options) {
    crate::pidfd::register(kernel);
    crate::sysv::sem::register(kernel);
    kernel
        .set_syscalls(Arc::new(Dispatch { strace: options.strace.map(Strace::new), traced: options.traced }));
}

/// Numbers of calls that the platform may answer.
const GETPID: u64 = 39;
const GETTID: u64 = 186;

#[derive(Debug)]
struct Dispatch {
    strace: Option<Strace>,
    traced: Arc<AtomicBool>,
}

impl Dispatch {
    /// What shows a call, if it is shown now.
    fn tracer(&self, nr: u64) -> Option<&Strace> {
        let strace = self.strace.as_ref()?;
        (self.traced.load(Ordering::Relaxed) && strace.wants(nr)).then_some(strace)
    }
}

impl Syscalls for Dispatch {
    fn begin(&self, cur: &mut CurrentTask) {
        // Who is to see every call must be asked for every call.
        let seen = [GETPID, GETTID].iter().any(|nr| self.tracer(*nr).is_some());
        let seccomp = cur.seccomp();
        let asked = ![GETPID, GETTID].iter().all(|nr| seccomp.always_allows(Arg(*nr).low()));
        let ids = (cur.tgid(), cur.tid());
        cur.answer_ids((!seen && !asked && !cur.is_traced()).then_some(ids));
    }

    fn call(&self, cur: &mut CurrentTask) {
        let nr = Arg(cur.regs().syscall_number()).low();
        let args = cur.regs().syscall_args();
        let Some(entry) = entry(nr) else {
            cur.kernel().unsupported("unknown system call");
            cur.regs_mut().set_syscall_return(error(Errno::ENOSYS));
            return;
        };
        let mut cx = Cx::new(cur, entry.name);
        let result = match self.tracer(entry.nr) {
            None => (entry.call)(&mut cx, args.map(Arg)),
            Some(strace) => strace.around(&mut cx, entry, args),
        };
        let value = match result {
            Ok(value) => value as u64,
            Err(errno) => {
                if matches!(errno, Errno::EPERM | Errno::EACCES) {
                    crate::observe::refused(&cx, entry, args, errno);
                }
                error(errno)
            }
        };
        cur.regs_mut().set_syscall_return(value);
    }
}

/// A failure as the register shows it.
fn error(errno: Errno) -> u64 {
    (-i64::from(errno.raw())).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_line_of_its_name() {
        let numbers: Vec<u64> = TABLE.iter().map(|e| e.nr).collect();
        assert_eq!(numbers, ALL);
        for e in TABLE {
            assert_eq!(abi::sysno::syscall_name(e.nr), Some(e.name));
            assert_eq!(entry(u32::try_from(e.nr).expect("small")).map(|f| f.nr), Some(e.nr));
        }
        assert!(entry(335).is_none() && entry(u32::MAX).is_none() && entry(511).is_none());
    }

    #[test]
    fn errors_are_negative() {
        assert_eq!(error(Errno::EPERM), u64::MAX);
        assert_eq!(error(Errno::ERESTARTSYS), (-512i64).cast_unsigned());
    }
}
