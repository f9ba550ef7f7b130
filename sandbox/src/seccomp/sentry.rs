//! What the sentry may ask of the host. What the platform needs is the platform's own list.
use super::{Is, Rule};

/// Flags of a clone that makes a thread.
const THREAD: u64 =
    (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD)
        .cast_unsigned() as u64;

/// `PR_SET_VMA`: the C library names its memory.
const PR_SET_VMA: u32 = 0x5356_4d41;

/// The rules.
pub(crate) fn rules() -> Vec<Rule> {
    [MEMORY, THREADS, FILES, SOCKETS].concat()
}

const MEMORY: &[Rule] = &[
    Rule::any(libc::SYS_mmap, "heap, thread stacks, windows of the memory file and of donated files"),
    Rule::any(libc::SYS_munmap, "likewise"),
    Rule::any(libc::SYS_mprotect, "guard pages; heaps grow"),
    Rule::any(libc::SYS_mremap, "large vectors grow"),
    Rule::any(libc::SYS_madvise, "freed memory goes back; windows"),
    Rule::any(libc::SYS_brk, "the heap"),
    Rule::any(libc::SYS_fallocate, "freed guest memory goes back"),
];

const THREADS: &[Rule] = &[
    Rule::with(libc::SYS_clone, "threads", &[(0, Is::Has(THREAD))]),
    Rule::any(libc::SYS_clone3, "threads; the C library uses it first, its arguments are in memory"),
    Rule::any(libc::SYS_set_robust_list, "every new thread"),
    Rule::any(libc::SYS_rseq, "every new thread"),
    Rule::any(libc::SYS_sigaltstack, "every new thread: the guard against overflow of its stack"),
    Rule::any(libc::SYS_rt_sigprocmask, "every new thread"),
    Rule::any(libc::SYS_rt_sigaction, "recovery of accesses to truncated files"),
    Rule::any(libc::SYS_rt_sigreturn, "likewise"),
    Rule::any(libc::SYS_sched_getaffinity, "the size of a thread's stack; how many CPUs there are"),
    Rule::any(libc::SYS_sched_yield, "contended locks"),
    Rule::any(libc::SYS_gettid, "locks, and the report of a panic"),
    Rule::any(libc::SYS_getpid, "the report of a panic: abort"),
    Rule::any(libc::SYS_restart_syscall, "a wait goes on after a freezer or a debugger stopped it"),
    Rule::any(libc::SYS_exit, "threads end"),
    Rule::any(libc::SYS_exit_group, "the sandbox ends"),
    Rule::with(libc::SYS_prctl, "names of threads", &[(0, Is::Equal(libc::PR_SET_NAME.cast_unsigned()))]),
    Rule::with(libc::SYS_prctl, "names of memory", &[(0, Is::Equal(PR_SET_VMA))]),
    Rule::any(libc::SYS_clock_gettime, "where the vDSO cannot tell"),
    Rule::any(libc::SYS_getrandom, "the guest's random numbers, hash tables"),
];

const FILES: &[Rule] = &[
    Rule::any(libc::SYS_write, "streams, donated files, the report"),
    Rule::any(libc::SYS_preadv2, "streams, without waiting"),
    Rule::any(libc::SYS_pwritev2, "streams, without waiting"),
    Rule::any(libc::SYS_pread64, "donated files"),
    Rule::any(libc::SYS_pwrite64, "donated files"),
    Rule::any(libc::SYS_lseek, "streams that are files; holes of donated files"),
    Rule::any(libc::SYS_fstat, "what a descriptor is"),
    Rule::with(
        libc::SYS_newfstatat,
        "likewise, as glibc's fstat calls it",
        &[(3, Is::Equal(libc::AT_EMPTY_PATH.cast_unsigned()))],
    ),
    Rule::any(libc::SYS_statx, "likewise, with times"),
    Rule::with(libc::SYS_kcmp, "which streams share a position", &[(2, Is::Equal(0))]),
    Rule::any(libc::SYS_ftruncate, "donated files"),
    Rule::any(libc::SYS_fsync, "donated files"),
    Rule::any(libc::SYS_fdatasync, "donated files"),
    Rule::any(libc::SYS_close, "descriptors that are done with"),
    Rule::with(libc::SYS_fcntl, "another handle", &[(1, Is::Equal(libc::F_DUPFD_CLOEXEC.cast_unsigned()))]),
    Rule::with(libc::SYS_fcntl, "checks of the C library", &[(1, Is::Equal(libc::F_GETFD.cast_unsigned()))]),
    Rule::with(libc::SYS_fcntl, "how a stream is open", &[(1, Is::Equal(libc::F_GETFL.cast_unsigned()))]),
    Rule::with(libc::SYS_ioctl, "a terminal's size", &[(1, Is::Equal(0x5413))]),
    Rule::with(libc::SYS_ioctl, "what can be read", &[(1, Is::Equal(0x541b))]),
    Rule::any(libc::SYS_epoll_wait, "the one thread that watches host descriptors"),
    Rule::any(libc::SYS_epoll_ctl, "likewise"),
];

const SOCKETS: &[Rule] = &[
    Rule::any(libc::SYS_accept4, "control connections"),
    Rule::any(libc::SYS_recvmsg, "requests with descriptors; answers of the gofer"),
    Rule::any(libc::SYS_sendmsg, "answers; requests to the gofer"),
    Rule::any(libc::SYS_recvfrom, "streams that are sockets"),
    Rule::any(libc::SYS_sendto, "streams that are sockets"),
    Rule::any(libc::SYS_getsockopt, "who connects"),
    Rule::with(
        libc::SYS_setsockopt,
        "the deadline for the gofer of another container",
        &[
            (1, Is::Equal(libc::SOL_SOCKET.cast_unsigned())),
            (2, Is::Equal(libc::SO_RCVTIMEO.cast_unsigned())),
        ],
    ),
    Rule::with(
        libc::SYS_setsockopt,
        "likewise",
        &[
            (1, Is::Equal(libc::SOL_SOCKET.cast_unsigned())),
            (2, Is::Equal(libc::SO_SNDTIMEO.cast_unsigned())),
        ],
    ),
    Rule::any(libc::SYS_shutdown, "wakes a thread that waits for the other side"),
];
