//! getrlimit(2), prlimit(2), sched_*(2), getcpu(2), uname(2), sysinfo(2), getrandom(2), personality(2), getpriority(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, exec_helper, fork_child, in_child, wait_for};
use crate::memory::{PAGE, RW, anonymous};
use crate::signal::{count_signal, counted};
use crate::sys::{SysError, raw, sys};
use crate::util::{me, timespec};

topic!(limits: [
    limits_are_inherited_and_kept_by_exec,
    soft_limit_moves_below_the_hard_one,
    raising_the_hard_limit_needs_the_capability,
    prlimit_of_another_process,
    prlimit_checks,
    cpu_limit_is_sigxcpu_then_kill,
    core_limit_of_zero,
    data_limit_stops_brk,
    stack_limit_is_told_by_proc,
    affinity_is_a_mask_of_existing_cpus,
    affinity_checks,
    getcpu_is_one_of_them,
    scheduling_policy_of_new_processes,
    priorities,
    nice_of_others,
    sched_yield_and_intervals,
]);

fn limit(resource: u32) -> Result<(u64, u64), SysError> {
    let mut got = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    raw!(SYS_prlimit64(0, resource, 0, &raw mut got))?;
    Ok((got.rlim_cur, got.rlim_max))
}

fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<i64, SysError> {
    let new = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    raw!(SYS_prlimit64(0, resource, &raw const new, 0))
}

fn limits_are_inherited_and_kept_by_exec() -> CaseResult {
    in_child(|| {
        set_limit(libc::RLIMIT_NOFILE, 77, 88)?;
        in_child(|| {
            check_eq!(limit(libc::RLIMIT_NOFILE)?, (77, 88));
            Ok(())
        })?;
        let (output, _) =
            super::execs::output_of(|| exec_helper(&["cat", "/proc/self/limits"], &[]))?;
        let line = output.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        check_eq!(words, ["Max", "open", "files", "77", "88", "files"]);
        Ok(())
    })
}

fn soft_limit_moves_below_the_hard_one() -> CaseResult {
    in_child(|| {
        set_limit(libc::RLIMIT_NOFILE, 50, 100)?;
        set_limit(libc::RLIMIT_NOFILE, 100, 100)?;
        expect_errno!(set_limit(libc::RLIMIT_NOFILE, 101, 100), libc::EINVAL);
        set_limit(libc::RLIMIT_NOFILE, 0, 100)?;
        check_eq!(limit(libc::RLIMIT_NOFILE)?, (0, 100));
        let mut got = libc::rlimit { rlim_cur: 9, rlim_max: 9 };
        raw!(SYS_getrlimit(libc::RLIMIT_NOFILE, &raw mut got))?;
        check_eq!((got.rlim_cur, got.rlim_max), (0, 100));
        Ok(())
    })
}

fn raising_the_hard_limit_needs_the_capability() -> CaseResult {
    in_child(|| {
        set_limit(libc::RLIMIT_NOFILE, 50, 50)?;
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(set_limit(libc::RLIMIT_NOFILE, 50, 51), libc::EPERM);
        set_limit(libc::RLIMIT_NOFILE, 40, 40)?;
        Ok(())
    })
}

fn prlimit_of_another_process() -> CaseResult {
    let child = fork_child(|| sys!(pause()).map_or(1, |_| 0))?;
    let new = libc::rlimit { rlim_cur: 33, rlim_max: 44 };
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    raw!(SYS_prlimit64(child, libc::RLIMIT_NOFILE, &raw const new, &raw mut old))?;
    check_eq!((old.rlim_cur, old.rlim_max), limit(libc::RLIMIT_NOFILE)?);
    raw!(SYS_prlimit64(child, libc::RLIMIT_NOFILE, 0, &raw mut old))?;
    check_eq!((old.rlim_cur, old.rlim_max), (33, 44));
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(raw!(SYS_prlimit64(child, libc::RLIMIT_NOFILE, 0, &raw mut old)), libc::EPERM);
        Ok(())
    })?;
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    expect_errno!(raw!(SYS_prlimit64(child, libc::RLIMIT_NOFILE, 0, 0)), libc::ESRCH);
    Ok(())
}

fn prlimit_checks() -> CaseResult {
    expect_errno!(limit(16), libc::EINVAL);
    expect_errno!(raw!(SYS_prlimit64(0, libc::RLIMIT_NOFILE, 8, 0)), libc::EFAULT);
    expect_errno!(raw!(SYS_getrlimit(99, 8)), libc::EINVAL);
    for resource in 0..16 {
        let (soft, hard) = limit(resource)?;
        check!(soft <= hard, "resource {resource}: {soft} above {hard}");
    }
    Ok(())
}

fn cpu_limit_is_sigxcpu_then_kill() -> CaseResult {
    let child = fork_child(|| {
        let _ = count_signal(libc::SIGXCPU, 0);
        let _ = set_limit(libc::RLIMIT_CPU, 1, 2);
        while counted() == 0 {}
        // The first one came after a second of work, as the ticks of the clock count it.
        i32::from(!crate::util::clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID).is_ok_and(|ns| ns >= 300_000_000))
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn core_limit_of_zero() -> CaseResult {
    let child = fork_child(|| {
        let _ = set_limit(libc::RLIMIT_CORE, 0, 0);
        let _ = sys!(kill(me(), libc::SIGABRT));
        0
    })?;
    let mut status = 0;
    sys!(waitpid(child, &mut status, 0))?;
    check!(libc::WIFSIGNALED(status));
    check_eq!(libc::WTERMSIG(status), libc::SIGABRT);
    check_eq!(std::fs::read_dir(".")?.count(), 0);
    Ok(())
}

fn data_limit_stops_brk() -> CaseResult {
    in_child(|| {
        let start = raw!(SYS_brk(0))? as usize;
        set_limit(libc::RLIMIT_DATA, 1 << 20, 1 << 20)?;
        check_eq!(raw!(SYS_brk(start + (16 << 20)))? as usize, start);
        // Private memory counts as data too.
        expect_errno!(anonymous((16 << 20) / PAGE, RW), libc::ENOMEM);
        Ok(())
    })
}

fn stack_limit_is_told_by_proc() -> CaseResult {
    let (soft, _) = limit(libc::RLIMIT_STACK)?;
    let text = std::fs::read_to_string("/proc/self/limits")?;
    let line = text.lines().find(|line| line.starts_with("Max stack size")).unwrap_or_default();
    let shown = if soft == u64::MAX { "unlimited".to_owned() } else { soft.to_string() };
    check_eq!(line.split_whitespace().nth(3), Some(shown.as_str()));
    Ok(())
}

pub(super) fn affinity() -> Result<(i64, [u64; 16]), SysError> {
    let mut mask = [0u64; 16];
    let size = raw!(SYS_sched_getaffinity(0, 128, mask.as_mut_ptr()))?;
    Ok((size, mask))
}

fn affinity_is_a_mask_of_existing_cpus() -> CaseResult {
    let (size, mask) = affinity()?;
    check!(size >= 8 && size % 8 == 0 && mask != [0; 16]);
    in_child(|| {
        let first = mask[0] & mask[0].wrapping_neg();
        raw!(SYS_sched_setaffinity(0, 8, &raw const first))?;
        let (_, now) = affinity()?;
        check_eq!(now[0], first);
        // Children inherit it.
        in_child(|| {
            check_eq!(affinity()?.1[0], first);
            Ok(())
        })?;
        raw!(SYS_sched_setaffinity(0, 128, mask.as_ptr()))?;
        check_eq!(affinity()?.1, mask);
        Ok(())
    })
}

fn affinity_checks() -> CaseResult {
    let mut mask = [0u64; 16];
    expect_errno!(raw!(SYS_sched_setaffinity(0, 128, mask.as_ptr())), libc::EINVAL);
    expect_errno!(raw!(SYS_sched_getaffinity(0, 7, mask.as_mut_ptr())), libc::EINVAL);
    expect_errno!(raw!(SYS_sched_getaffinity(32_111, 128, mask.as_mut_ptr())), libc::ESRCH);
    expect_errno!(raw!(SYS_sched_setaffinity(0, 128, 8)), libc::EFAULT);
    Ok(())
}

fn getcpu_is_one_of_them() -> CaseResult {
    let (mut cpu, mut node) = (u32::MAX, u32::MAX);
    raw!(SYS_getcpu(&raw mut cpu, &raw mut node, 0))?;
    let (_, mask) = affinity()?;
    check!(mask[cpu as usize / 64] >> (cpu % 64) & 1 == 1, "cpu {cpu} is not in {:x}", mask[0]);
    check!(node < 1024);
    check!(sys!(sched_getcpu())? < 1024);
    Ok(())
}

fn scheduling_policy_of_new_processes() -> CaseResult {
    check_eq!(raw!(SYS_sched_getscheduler(0))?, i64::from(libc::SCHED_OTHER));
    let mut parameter = 7i32;
    raw!(SYS_sched_getparam(0, &raw mut parameter))?;
    check_eq!(parameter, 0);
    in_child(|| {
        let zero = 0i32;
        raw!(SYS_sched_setscheduler(0, libc::SCHED_BATCH, &raw const zero))?;
        check_eq!(raw!(SYS_sched_getscheduler(0))?, i64::from(libc::SCHED_BATCH));
        let one = 1i32;
        expect_errno!(raw!(SYS_sched_setscheduler(0, libc::SCHED_OTHER, &raw const one)), libc::EINVAL);
        expect_errno!(raw!(SYS_sched_setscheduler(0, 99, &raw const zero)), libc::EINVAL);
        expect_errno!(raw!(SYS_sched_getscheduler(32_112)), libc::ESRCH);
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(raw!(SYS_sched_setscheduler(0, libc::SCHED_FIFO, &raw const one)), libc::EPERM);
        Ok(())
    })?;
    check_eq!(raw!(SYS_sched_get_priority_max(libc::SCHED_FIFO))?, 99);
    check_eq!(raw!(SYS_sched_get_priority_min(libc::SCHED_FIFO))?, 1);
    check_eq!(raw!(SYS_sched_get_priority_max(libc::SCHED_OTHER))?, 0);
    expect_errno!(raw!(SYS_sched_get_priority_max(99)), libc::EINVAL);
    Ok(())
}

fn priorities() -> CaseResult {
    // The call itself gives 20 less the nice value.
    in_child(|| {
        check_eq!(raw!(SYS_getpriority(libc::PRIO_PROCESS, 0))?, 20);
        raw!(SYS_setpriority(libc::PRIO_PROCESS, 0, 5))?;
        check_eq!(raw!(SYS_getpriority(libc::PRIO_PROCESS, 0))?, 15);
        raw!(SYS_setpriority(libc::PRIO_PROCESS, 0, 100))?;
        check_eq!(raw!(SYS_getpriority(libc::PRIO_PROCESS, 0))?, 1);
        in_child(|| {
            check_eq!(raw!(SYS_getpriority(libc::PRIO_PROCESS, 0))?, 1);
            Ok(())
        })?;
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(raw!(SYS_setpriority(libc::PRIO_PROCESS, 0, 0)), libc::EACCES);
        expect_errno!(raw!(SYS_setpriority(9, 0, 0)), libc::EINVAL);
        expect_errno!(raw!(SYS_getpriority(libc::PRIO_PROCESS, 32_113)), libc::ESRCH);
        Ok(())
    })
}

fn nice_of_others() -> CaseResult {
    let child = fork_child(|| sys!(pause()).map_or(1, |_| 0))?;
    raw!(SYS_setpriority(libc::PRIO_PROCESS, child, 3))?;
    check_eq!(raw!(SYS_getpriority(libc::PRIO_PROCESS, child))?, 17);
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(raw!(SYS_setpriority(libc::PRIO_PROCESS, child, 4)), libc::EPERM);
        Ok(())
    })?;
    sys!(kill(child, libc::SIGKILL))?;
    wait_for(child)?;
    Ok(())
}

fn sched_yield_and_intervals() -> CaseResult {
    raw!(SYS_sched_yield())?;
    let mut ts = timespec(0);
    raw!(SYS_sched_rr_get_interval(0, &raw mut ts))?;
    expect_errno!(raw!(SYS_sched_rr_get_interval(32_114, &raw mut ts)), libc::ESRCH);
    Ok(())
}

pub(super) fn text(field: &[i8]) -> String {
    field.iter().take_while(|b| **b != 0).map(|b| char::from(*b as u8)).collect()
}
