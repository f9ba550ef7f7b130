//! `RLIMIT_CPU`, Linux `kernel/time/posix-cpu-timers.c:check_process_timers`.
use std::sync::{Arc, Weak};

use abi::Signal;

use super::ThreadGroup;
use crate::signal::{SigInfo, send_to_group};
use crate::timer::{Expire, Timer};
use crate::{RLIM_INFINITY, RLIMIT_CPU};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// How long a look at the time used waits at least, and at most (the process may start more threads meanwhile).
const WAIT_NS: std::ops::RangeInclusive<u64> = 1_000_000..=SECOND;

/// Watches the processor time of a process whose time is limited.
#[derive(Debug)]
pub(crate) struct CpuLimit {
    group: Weak<ThreadGroup>,
    timer: Timer,
}

impl CpuLimit {
    fn new(group: &Arc<ThreadGroup>) -> Arc<Self> {
        let queue = group.kernel().timers().clone();
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            group: Arc::downgrade(group),
            timer: queue.timer(Weak::<Self>::clone(this)),
        })
    }

    /// Looks again when the process could have reached `at_ns` of processor time.
    fn watch(&self, group: &ThreadGroup, used_ns: u64, at_ns: u64) {
        let threads = u64::try_from(group.thread_count().max(1)).unwrap_or(1);
        let wait = (at_ns.saturating_sub(used_ns) / threads).clamp(*WAIT_NS.start(), *WAIT_NS.end());
        self.timer.set(Some(group.kernel().clock().monotonic_ns().saturating_add(wait)));
    }
}

impl Expire for CpuLimit {
    fn expired(&self) {
        let Some(group) = self.group.upgrade().filter(|g| !g.is_exiting()) else { return };
        let (soft, hard) = group.limits().get(RLIMIT_CPU);
        let used = group.cpu_times().total_ns();
        if hard != RLIM_INFINITY && used >= hard.saturating_mul(SECOND) {
            // SIGKILL is never refused.
            let _sent = send_to_group(&group, SigInfo::kernel(Signal::SIGKILL));
            return;
        }
        if soft == RLIM_INFINITY {
            return;
        }
        let mut next = soft.saturating_mul(SECOND);
        if used >= next {
            // SIGXCPU is a standard signal, and those are never refused. It comes again each second.
            let _sent = send_to_group(&group, SigInfo::kernel(Signal::SIGXCPU));
            next = (used / SECOND + 1).saturating_mul(SECOND);
        }
        self.watch(&group, used, next);
    }
}

impl ThreadGroup {
    /// `RLIMIT_CPU` was set, or came from the parent: starts to watch the time, if it is limited.
    pub fn watch_cpu_limit(self: &Arc<Self>) {
        if self.limits().get(RLIMIT_CPU).0 != RLIM_INFINITY {
            self.cpu_limit.get_or_init(|| CpuLimit::new(self)).expired();
        }
    }
}
