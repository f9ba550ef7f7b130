//! clone(2), clone3(2), vfork(2): flags, stacks, identifiers, TLS.

use super::threads::{gettid, join};
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, exec_helper, fork_child, in_child, wait_for};
use crate::memory::{RW, anonymous, post, shared_words, wait_for_word};
use crate::signal::{block, set_of};
use crate::sys::{SysError, owned, raw, sys, zeroed};
use crate::util::{me, poll_one};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

topic!(clones: [
    clone_checks_flags,
    clone3_checks_arguments,
    clone3_gives_a_pidfd,
    parent_and_child_tid_are_written,
    child_stack_is_used,
    clone_vm_without_thread_shares_memory,
    clone_files_and_fs_share,
    exit_signal_other_than_sigchld,
    vfork_suspends_the_parent_until_exec,
    vfork_suspends_the_parent_until_exit,
    set_tls_by_arch_prctl,
    tls_is_of_the_thread,
    thread_name_in_proc,
    tid_of_dead_thread_is_gone,
    fork_in_a_thread_copies_one_thread,
    process_limit_is_eagain,
    clone_args_with_set_tid_needs_capability,
]);

fn clone(flags: i32, stack: u64) -> Result<i64, SysError> {
    raw!(SYS_clone(flags, stack, 0, 0, 0))
}

fn clone_checks_flags() -> CaseResult {
    expect_errno!(clone(libc::CLONE_SIGHAND, 0), libc::EINVAL);
    expect_errno!(clone(libc::CLONE_THREAD, 0), libc::EINVAL);
    expect_errno!(clone(libc::CLONE_THREAD | libc::CLONE_SIGHAND, 0), libc::EINVAL);
    expect_errno!(clone(libc::CLONE_FS | libc::CLONE_NEWNS, 0), libc::EINVAL);
    Ok(())
}

/// `struct clone_args`, the first and the last version.
#[repr(C)]
#[derive(Clone, Copy)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const PLAIN: CloneArgs = CloneArgs {
    flags: 0,
    pidfd: 0,
    child_tid: 0,
    parent_tid: 0,
    exit_signal: libc::SIGCHLD as u64,
    stack: 0,
    stack_size: 0,
    tls: 0,
    set_tid: 0,
    set_tid_size: 0,
    cgroup: 0,
};

fn clone3(args: &CloneArgs, size: usize) -> Result<i64, SysError> {
    let pid = raw!(SYS_clone3(std::ptr::from_ref(args), size))?;
    if pid == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(5) };
    }
    Ok(pid)
}

fn clone3_checks_arguments() -> CaseResult {
    expect_errno!(clone3(&PLAIN, 63), libc::EINVAL);
    expect_errno!(clone3(&PLAIN, 5000), libc::E2BIG);
    expect_errno!(clone3(&CloneArgs { exit_signal: 65, ..PLAIN }, 88), libc::EINVAL);
    expect_errno!(clone3(&CloneArgs { flags: 0xff, ..PLAIN }, 88), libc::EINVAL);
    expect_errno!(clone3(&CloneArgs { stack: 4096, ..PLAIN }, 88), libc::EINVAL);
    expect_errno!(clone3(&CloneArgs { stack_size: 4096, ..PLAIN }, 88), libc::EINVAL);
    expect_errno!(raw!(SYS_clone3(8, 88)), libc::EFAULT);
    let pid = clone3(&PLAIN, 64)?;
    check_eq!(wait_for(pid as i32)?, Ended::Exited(5));
    Ok(())
}

fn clone3_gives_a_pidfd() -> CaseResult {
    let mut fd = -1i32;
    let args = CloneArgs { flags: libc::CLONE_PIDFD as u64, pidfd: (&raw mut fd) as u64, ..PLAIN };
    let pid = clone3(&args, 88)? as i32;
    let fd = owned(i64::from(fd));
    check_eq!(poll_one(fd.as_raw_fd(), libc::POLLIN, -1)?, libc::POLLIN);
    check_eq!(wait_for(pid)?, Ended::Exited(5));
    Ok(())
}

fn parent_and_child_tid_are_written() -> CaseResult {
    let words = shared_words()?;
    let args = CloneArgs {
        flags: (libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID) as u64,
        parent_tid: words[0].as_ptr() as u64,
        child_tid: words[1].as_ptr() as u64,
        ..PLAIN
    };
    let pid = clone3(&args, 88)?;
    check_eq!(words[0].load(Ordering::SeqCst), pid as u32);
    check_eq!(wait_for(pid as i32)?, Ended::Exited(5));
    check_eq!(words[1].load(Ordering::SeqCst), pid as u32);
    Ok(())
}

extern "C" fn on_new_stack(argument: *mut libc::c_void) -> i32 {
    let here = 0u8;
    let base = argument as usize;
    i32::from(!(base..base + 65_536).contains(&(&raw const here as usize)))
}

fn child_stack_is_used() -> CaseResult {
    let stack = anonymous(16, RW)?;
    let top = stack.wrapping_add(65_536);
    let pid = sys!(clone(on_new_stack, top.cast(), libc::SIGCHLD, stack.cast()))? as i32;
    check_eq!(wait_for(pid)?, Ended::Exited(0));
    Ok(())
}

static WRITTEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn write_and_exit(_: *mut libc::c_void) -> i32 {
    WRITTEN.store(123, Ordering::SeqCst);
    let _ = sys!(dup2(0, 345));
    let _ = sys!(chdir(c"/".as_ptr()));
    0
}

fn clone_vm_without_thread_shares_memory() -> CaseResult {
    let stack = anonymous(16, RW)?.wrapping_add(65_536).cast();
    let pid =
        sys!(clone(write_and_exit, stack, libc::CLONE_VM | libc::SIGCHLD, std::ptr::null_mut()))? as i32;
    check_eq!(wait_for(pid)?, Ended::Exited(0));
    check_eq!(WRITTEN.load(Ordering::SeqCst), 123);
    // Nothing else was shared.
    expect_errno!(sys!(fcntl(345, libc::F_GETFD)), libc::EBADF);
    check!(std::env::current_dir()? != std::path::Path::new("/"));
    Ok(())
}

fn clone_files_and_fs_share() -> CaseResult {
    let stack = anonymous(16, RW)?.wrapping_add(65_536).cast();
    let flags = libc::CLONE_FILES | libc::CLONE_FS | libc::SIGCHLD;
    let pid = sys!(clone(write_and_exit, stack, flags, std::ptr::null_mut()))? as i32;
    check_eq!(wait_for(pid)?, Ended::Exited(0));
    check_eq!(WRITTEN.load(Ordering::SeqCst), 0);
    sys!(fcntl(345, libc::F_GETFD))?;
    check_eq!(std::env::current_dir()?, std::path::Path::new("/"));
    Ok(())
}

fn exit_signal_other_than_sigchld() -> CaseResult {
    block(&[libc::SIGUSR1])?;
    let pid = clone3(&CloneArgs { exit_signal: libc::SIGUSR1 as u64, ..PLAIN }, 88)? as i32;
    let mut info: libc::siginfo_t = zeroed();
    sys!(sigwaitinfo(&set_of(&[libc::SIGUSR1]), &mut info))?;
    // SAFETY: the exit of a child fills it in.
    check_eq!(unsafe { info.si_pid() }, pid);
    // A child that does not say SIGCHLD is waited for only when asked for.
    expect_errno!(wait_for(pid), libc::ECHILD);
    let mut status = 0;
    check_eq!(sys!(waitpid(pid, &mut status, libc::__WCLONE))?, i64::from(pid));
    Ok(())
}

/// vfork(2) that runs `body` on a stack of its own, so that it is safe to call functions in the child.
fn vfork_on_stack(body: extern "C" fn(*mut libc::c_void) -> i32) -> CaseResult<i32> {
    let stack = anonymous(64, RW)?.wrapping_add(64 * 4096).cast();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    Ok(sys!(clone(body, stack, flags, std::ptr::null_mut()))? as i32)
}

extern "C" fn mark_and_exec(_: *mut libc::c_void) -> i32 {
    for _ in 0..1000 {
        let _ = sys!(sched_yield());
    }
    WRITTEN.store(5, Ordering::SeqCst);
    exec_helper(&["exit", "3"], &[]).errno
}

fn vfork_suspends_the_parent_until_exec() -> CaseResult {
    let pid = vfork_on_stack(mark_and_exec)?;
    check_eq!(WRITTEN.load(Ordering::SeqCst), 5);
    check_eq!(wait_for(pid)?, Ended::Exited(3));
    Ok(())
}

extern "C" fn mark_and_exit(_: *mut libc::c_void) -> i32 {
    for _ in 0..1000 {
        let _ = sys!(sched_yield());
    }
    WRITTEN.store(6, Ordering::SeqCst);
    4
}

fn vfork_suspends_the_parent_until_exit() -> CaseResult {
    let pid = vfork_on_stack(mark_and_exit)?;
    check_eq!(WRITTEN.load(Ordering::SeqCst), 6);
    check_eq!(wait_for(pid)?, Ended::Exited(4));
    Ok(())
}

fn set_tls_by_arch_prctl() -> CaseResult {
    const GET_FS: i32 = 0x1003;
    const SET_GS: i32 = 0x1001;
    const GET_GS: i32 = 0x1004;
    let mut value = 0u64;
    raw!(SYS_arch_prctl(GET_FS, &raw mut value))?;
    let by_fs: u64;
    // SAFETY: the first word of the thread block is its own address in this ABI.
    unsafe { std::arch::asm!("mov {}, fs:[0]", out(reg) by_fs) };
    check_eq!(value, by_fs);
    let data = [0x1122_3344_5566_7788u64, 2];
    raw!(SYS_arch_prctl(SET_GS, data.as_ptr()))?;
    let by_gs: u64;
    // SAFETY: GS is based at `data`.
    unsafe { std::arch::asm!("mov {}, gs:[0]", out(reg) by_gs) };
    check_eq!(by_gs, data[0]);
    raw!(SYS_arch_prctl(GET_GS, &raw mut value))?;
    check_eq!(value, data.as_ptr() as u64);
    expect_errno!(raw!(SYS_arch_prctl(SET_GS, u64::MAX)), libc::EPERM);
    expect_errno!(raw!(SYS_arch_prctl(0x9999, 0)), libc::EINVAL);
    // It survives a system call and a fork.
    let child = fork_child(|| {
        let by_gs: u64;
        // SAFETY: as above, in the copy.
        unsafe { std::arch::asm!("mov {}, gs:[8]", out(reg) by_gs) };
        i32::from(by_gs != 2)
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn tls_is_of_the_thread() -> CaseResult {
    thread_local!(static LOCAL: std::cell::Cell<i32> = const { std::cell::Cell::new(1) });
    LOCAL.set(2);
    let other = join(std::thread::spawn(|| {
        let before = LOCAL.get();
        LOCAL.set(3);
        before
    }))?;
    check_eq!((other, LOCAL.get()), (1, 2));
    Ok(())
}

fn thread_name_in_proc() -> CaseResult {
    let seen = join(std::thread::spawn(|| -> CaseResult<(String, String)> {
        raw!(SYS_prctl(libc::PR_SET_NAME, c"a-name-of-more-than-fifteen".as_ptr()))?;
        let tid = gettid();
        let comm = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm"))?;
        let mut name = [0u8; 16];
        raw!(SYS_prctl(libc::PR_GET_NAME, name.as_mut_ptr()))?;
        Ok((comm, String::from_utf8_lossy(&name).into_owned()))
    }))??;
    check_eq!(seen, ("a-name-of-more-\n".to_owned(), "a-name-of-more-\0".to_owned()));
    check!(std::fs::read_to_string("/proc/self/comm")? != seen.0);
    Ok(())
}

fn tid_of_dead_thread_is_gone() -> CaseResult {
    let words = shared_words()?;
    let thread = std::thread::spawn(move || {
        words[0].store(gettid() as u32, Ordering::SeqCst);
        post(&words[1]);
        wait_for_word(&words[2], 1);
    });
    wait_for_word(&words[1], 1);
    let tid = words[0].load(Ordering::SeqCst) as i32;
    check_eq!(std::fs::read_dir("/proc/self/task")?.count(), 2);
    check!(std::fs::metadata(format!("/proc/self/task/{tid}")).is_ok());
    raw!(SYS_tgkill(me(), tid, 0))?;
    post(&words[2]);
    join(thread)?;
    // What wakes the joiner comes a little before the end.
    while raw!(SYS_tgkill(me(), tid, 0)).is_ok() {
        sys!(sched_yield())?;
    }
    check_eq!(std::fs::read_dir("/proc/self/task")?.count(), 1);
    Ok(())
}

fn fork_in_a_thread_copies_one_thread() -> CaseResult {
    join(std::thread::spawn(|| {
        in_child(|| {
            check_eq!(std::fs::read_dir("/proc/self/task")?.count(), 1);
            check_eq!(gettid(), raw!(SYS_getpid())? as i32);
            Ok(())
        })
    }))?
}

fn process_limit_is_eagain() -> CaseResult {
    in_child(|| {
        sys!(setresuid(54_399, 54_399, 54_399))?;
        let limit = libc::rlimit { rlim_cur: 3, rlim_max: 3 };
        sys!(setrlimit(libc::RLIMIT_NPROC, &limit))?;
        let mut children = Vec::new();
        let refused = loop {
            match fork_child(|| sys!(pause()).map_or(1, |_| 0)) {
                Ok(child) => children.push(child),
                Err(error) => break error.errno,
            }
            check!(children.len() < 10);
        };
        check_eq!((refused, children.len()), (libc::EAGAIN, 2));
        for child in children {
            sys!(kill(child, libc::SIGKILL))?;
            wait_for(child)?;
        }
        Ok(())
    })
}

fn clone_args_with_set_tid_needs_capability() -> CaseResult {
    in_child(|| {
        sys!(setresuid(1000, 1000, 1000))?;
        let tid = 30_000i32;
        let args = CloneArgs { set_tid: (&raw const tid) as u64, set_tid_size: 1, ..PLAIN };
        expect_errno!(clone3(&args, 88), libc::EPERM);
        expect_errno!(clone3(&CloneArgs { set_tid_size: 100, ..args }, 88), libc::EINVAL);
        Ok(())
    })
}
