//! What the gofer may ask of the host.
use super::{Is, Rule};

/// The rules.
pub(crate) fn rules() -> Vec<Rule> {
    [PROCESS, WALKS, FILES, CHANGES].concat()
}

const PROCESS: &[Rule] = &[
    Rule::any(libc::SYS_mmap, "heap, thread stacks"),
    Rule::any(libc::SYS_munmap, "likewise"),
    Rule::any(libc::SYS_mprotect, "guard pages; heaps grow"),
    Rule::any(libc::SYS_mremap, "large vectors grow"),
    Rule::any(libc::SYS_madvise, "freed memory goes back"),
    Rule::any(libc::SYS_brk, "the heap"),
    Rule::any(libc::SYS_clone3, "threads"),
    Rule::any(libc::SYS_clone, "threads"),
    Rule::any(libc::SYS_set_robust_list, "every new thread"),
    Rule::any(libc::SYS_rseq, "every new thread"),
    Rule::any(libc::SYS_sigaltstack, "every new thread"),
    Rule::any(libc::SYS_rt_sigprocmask, "every new thread"),
    Rule::any(libc::SYS_rt_sigaction, "a panic's abort"),
    Rule::any(libc::SYS_rt_sigreturn, "likewise"),
    Rule::any(libc::SYS_sched_getaffinity, "the size of a thread's stack; which CPUs there are"),
    Rule::with(libc::SYS_sched_setaffinity, "a thread waits where requests come from", &[(0, Is::Equal(0))]),
    Rule::any(libc::SYS_sched_yield, "contended locks"),
    Rule::any(libc::SYS_futex, "locks"),
    Rule::any(libc::SYS_gettid, "a panic's abort"),
    Rule::any(libc::SYS_getpid, "likewise"),
    Rule::any(libc::SYS_tgkill, "likewise"),
    Rule::any(libc::SYS_restart_syscall, "a wait goes on after a freezer or a debugger stopped it"),
    Rule::any(libc::SYS_exit, "threads end"),
    Rule::any(libc::SYS_exit_group, "the gofer ends"),
    Rule::any(libc::SYS_prctl, "names of threads and memory"),
    Rule::any(libc::SYS_clock_gettime, "where the vDSO cannot tell"),
    Rule::any(libc::SYS_getrandom, "hash tables"),
    Rule::any(libc::SYS_recvfrom, "requests"),
    Rule::any(libc::SYS_getsockopt, "what kind of socket the connection is"),
    Rule::any(libc::SYS_sendmsg, "answers, with donated descriptors"),
    Rule::any(libc::SYS_shutdown, "a connection ends"),
    Rule::any(libc::SYS_poll, "waits for requests"),
    Rule::any(libc::SYS_ppoll, "waits for requests"),
];

const WALKS: &[Rule] = &[
    Rule::any(libc::SYS_openat, "single steps from a folder"),
    Rule::any(libc::SYS_openat2, "steps that stay below a folder"),
    Rule::any(libc::SYS_newfstatat, "attributes"),
    Rule::any(libc::SYS_fstat, "attributes"),
    Rule::any(libc::SYS_statx, "attributes"),
    Rule::any(libc::SYS_readlinkat, "symbolic links"),
    Rule::any(libc::SYS_getdents64, "folders"),
    Rule::any(libc::SYS_fstatfs, "statfs"),
    Rule::any(libc::SYS_close, "files that are done with"),
    Rule::any(libc::SYS_fcntl, "another handle; how a file is open"),
    Rule::any(libc::SYS_dup, "another handle"),
    Rule::any(libc::SYS_fgetxattr, "extended attributes"),
    Rule::any(libc::SYS_flistxattr, "extended attributes"),
    Rule::any(libc::SYS_getxattr, "extended attributes of files that cannot be opened"),
    Rule::any(libc::SYS_listxattr, "likewise"),
    Rule::any(libc::SYS_lgetxattr, "extended attributes of links"),
    Rule::any(libc::SYS_llistxattr, "likewise"),
];

const FILES: &[Rule] = &[
    Rule::any(libc::SYS_read, "requests; files that are not donated"),
    Rule::any(libc::SYS_write, "the report; files that are not donated"),
    Rule::any(libc::SYS_readv, "requests"),
    Rule::any(libc::SYS_writev, "answers"),
    Rule::any(libc::SYS_pread64, "files that are not donated"),
    Rule::any(libc::SYS_pwrite64, "files that are not donated"),
    Rule::any(libc::SYS_lseek, "folders, from a position"),
    Rule::any(libc::SYS_fsync, "fsync"),
    Rule::any(libc::SYS_fdatasync, "fdatasync"),
    Rule::any(libc::SYS_ftruncate, "sizes"),
    Rule::any(libc::SYS_fallocate, "fallocate"),
    Rule::any(libc::SYS_flock, "locks that other processes of the host see"),
];

const CHANGES: &[Rule] = &[
    Rule::any(libc::SYS_mkdirat, "mkdir"),
    Rule::any(libc::SYS_mknodat, "FIFOs and sockets"),
    Rule::any(libc::SYS_symlinkat, "symlink"),
    Rule::any(libc::SYS_linkat, "link"),
    Rule::any(libc::SYS_unlinkat, "unlink, rmdir"),
    Rule::any(libc::SYS_renameat, "rename"),
    Rule::any(libc::SYS_renameat2, "rename with flags"),
    Rule::any(libc::SYS_fchmod, "modes"),
    Rule::any(libc::SYS_fchmodat, "modes"),
    Rule::any(libc::SYS_fchmodat2, "modes of files that cannot be opened"),
    Rule::any(libc::SYS_geteuid, "whether a new file has the right owner already"),
    Rule::any(libc::SYS_getegid, "likewise"),
    Rule::any(libc::SYS_fchown, "owners"),
    Rule::any(libc::SYS_fchownat, "owners"),
    Rule::any(libc::SYS_utimensat, "times"),
    Rule::any(libc::SYS_fsetxattr, "extended attributes"),
    Rule::any(libc::SYS_fremovexattr, "extended attributes"),
];
