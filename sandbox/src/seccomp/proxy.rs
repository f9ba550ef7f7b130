//! What a process that stays behind may ask of the host.
use super::{Is, Rule};

/// `TIOCGWINSZ`, of the 32 bits that a request of ioctl(2) has.
const TIOCGWINSZ: u32 = 0x5413;

/// The rules.
pub(crate) fn rules() -> Vec<Rule> {
    RULES.to_vec()
}

const RULES: &[Rule] = &[
    Rule::any(libc::SYS_mmap, "heap"),
    Rule::any(libc::SYS_munmap, "likewise"),
    Rule::any(libc::SYS_mremap, "large vectors grow"),
    Rule::any(libc::SYS_madvise, "freed memory goes back"),
    Rule::any(libc::SYS_brk, "the heap"),
    Rule::any(libc::SYS_futex, "locks"),
    Rule::any(libc::SYS_rt_sigprocmask, "signals come as events"),
    Rule::any(libc::SYS_signalfd4, "likewise"),
    Rule::any(libc::SYS_rt_sigaction, "a panic's abort"),
    Rule::any(libc::SYS_gettid, "likewise"),
    Rule::any(libc::SYS_getpid, "likewise"),
    Rule::any(libc::SYS_tgkill, "likewise"),
    Rule::any(libc::SYS_poll, "waits for signals and for the program's end"),
    Rule::any(libc::SYS_restart_syscall, "a wait goes on after a freezer or a debugger stopped it"),
    Rule::any(libc::SYS_read, "signals"),
    Rule::any(libc::SYS_recvmsg, "what the sentry tells"),
    Rule::any(libc::SYS_sendmsg, "what the sentry is told"),
    Rule::with(libc::SYS_ioctl, "the size of the terminal", &[(1, Is::Equal(TIOCGWINSZ))]),
    Rule::any(libc::SYS_write, "the report; that it is ready"),
    Rule::any(libc::SYS_close, "it is ready"),
    Rule::any(libc::SYS_clock_gettime, "where the vDSO cannot tell"),
    Rule::any(libc::SYS_sigaltstack, "the process ends"),
    Rule::any(libc::SYS_exit_group, "likewise"),
];
