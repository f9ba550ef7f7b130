//! clone(2), clone3(2), vfork(2), threads: what is shared, what is not, how they end.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq};
use crate::child::{Ended, exec_helper, fork_child, wait_for};
use crate::memory::{RW, anonymous, peek, poke, post, shared_words, wait_for_word};
use crate::signal::{block, blocked, holds};
use crate::sys::{raw, read, sys};
use crate::util::me;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

topic!(threads: [
    thread_has_its_own_tid_and_the_same_pid,
    threads_share_memory_and_descriptors,
    signal_mask_is_of_the_thread,
    many_threads,
    exit_of_the_leader_leaves_threads_running,
    exit_group_ends_all,
    exec_in_a_thread_takes_the_leaders_pid,
    fatal_signal_ends_all_threads,
]);

pub(super) fn gettid() -> i32 {
    raw!(SYS_gettid()).map_or(-1, |tid| tid as i32)
}

pub(super) fn join<T>(thread: std::thread::JoinHandle<T>) -> CaseResult<T> {
    thread.join().map_err(|_| "the thread panicked".into())
}

fn thread_has_its_own_tid_and_the_same_pid() -> CaseResult {
    let main = gettid();
    check_eq!(main, me());
    let (tid, pid) = join(std::thread::spawn(|| (gettid(), raw!(SYS_getpid()))))?;
    check!(tid != main);
    check_eq!(pid?, i64::from(me()));
    Ok(())
}

fn threads_share_memory_and_descriptors() -> CaseResult {
    let (reader, writer) = crate::sys::pipe(0)?;
    let fd = writer.as_raw_fd();
    let page = anonymous(1, RW)? as usize;
    join(std::thread::spawn(move || {
        poke(page as *mut u8, 3, 77);
        let _ = crate::sys::write(fd, b"hi");
        let _ = sys!(chdir(c"/".as_ptr()));
        let _ = sys!(umask(0o123));
    }))?;
    check_eq!(peek(page as *const u8, 3), 77);
    check_eq!(read(reader.as_raw_fd(), &mut [0; 8])?, 2);
    check_eq!(std::env::current_dir()?, std::path::Path::new("/"));
    check_eq!(sys!(umask(0))?, 0o123);
    Ok(())
}

fn signal_mask_is_of_the_thread() -> CaseResult {
    block(&[libc::SIGUSR2])?;
    let seen = join(std::thread::spawn(|| {
        // Inherited, then changed here only.
        let inherited = blocked();
        let _ = block(&[libc::SIGHUP]);
        inherited
    }))??;
    check!(holds(&seen, libc::SIGUSR2));
    check!(!holds(&blocked()?, libc::SIGHUP));
    Ok(())
}

fn many_threads() -> CaseResult {
    static SUM: AtomicU32 = AtomicU32::new(0);
    let threads: Vec<_> = (0..64)
        .map(|i| {
            std::thread::spawn(move || {
                for _ in 0..100 {
                    SUM.fetch_add(i, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for thread in threads {
        join(thread)?;
    }
    check_eq!(SUM.load(Ordering::Relaxed), 100 * (63 * 64 / 2));
    Ok(())
}

fn exit_of_the_leader_leaves_threads_running() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        let leader = me();
        std::thread::spawn(move || {
            let path = format!("/proc/{leader}/stat");
            // Until the leader is a zombie.
            while !std::fs::read_to_string(&path).is_ok_and(|stat| stat.contains(") Z ")) {
                let _ = sys!(sched_yield());
            }
            words[0].store(1, Ordering::SeqCst);
            // SAFETY: ends the process.
            unsafe { libc::_exit(42) };
        });
        let _ = raw!(SYS_exit(7));
        0
    })?;
    // The process has ended when its last thread has, with what exit_group said.
    check_eq!(wait_for(child)?, Ended::Exited(42));
    check_eq!(words[0].load(Ordering::SeqCst), 1);
    let child = fork_child(|| {
        let _ = raw!(SYS_exit(7));
        0
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(7));
    Ok(())
}

fn exit_group_ends_all() -> CaseResult {
    let child = fork_child(|| {
        for _ in 0..4 {
            std::thread::spawn(|| {
                loop {
                    let _ = sys!(pause());
                }
            });
        }
        // From another thread than the first.
        std::thread::spawn(|| raw!(SYS_exit_group(9)));
        loop {
            let _ = sys!(pause());
        }
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(9));
    Ok(())
}

fn exec_in_a_thread_takes_the_leaders_pid() -> CaseResult {
    let (reader, writer) = crate::sys::pipe(0)?;
    let child = fork_child(|| {
        let fd = writer.as_raw_fd();
        std::thread::spawn(move || {
            let _ = sys!(dup2(fd, 1));
            exec_helper(&["pid"], &[])
        });
        loop {
            let _ = sys!(pause());
        }
    })?;
    drop(writer);
    let mut output = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(reader), &mut output)?;
    check_eq!(output, format!("{child} {child}\n"));
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn fatal_signal_ends_all_threads() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        for _ in 0..3 {
            std::thread::spawn(|| {
                post(&words[0]);
                loop {
                    let _ = sys!(sched_yield());
                }
            });
        }
        loop {
            let _ = sys!(pause());
        }
    })?;
    wait_for_word(&words[0], 3);
    sys!(kill(child, libc::SIGTERM))?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGTERM));
    Ok(())
}
