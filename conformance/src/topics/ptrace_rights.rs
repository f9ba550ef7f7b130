//! ptrace(2): who may trace whom, and tracers that mean no good: they may fail, and nobody else suffers.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, fork_child, in_child, self_exe, wait_for};
use crate::memory::{post, shared_words, wait_for_word};
use crate::sys::{raw, sys};
use crate::tracer::{EVENT_STOP, end, event, go, idle, message, next, peek_word, ptrace, stop, traced_with, wait_status};
use crate::util::me;

topic!(ptrace_rights: [
    another_user_is_refused,
    the_same_user_if_dumpable,
    the_own_process_is_refused,
    traceme_twice_is_refused,
    memory_by_process_vm_needs_the_same,
    set_user_id_programs_gain_nothing,
    set_user_id_programs_gain_under_a_strong_tracer,
    each_traces_the_other,
    garbage_requests,
    garbage_registers,
    tracees_die_under_requests,
    many_tracees_of_one_that_goes,
    a_traced_tracer,
]);

fn become_user() -> CaseResult {
    sys!(setresgid(1000, 1000, 1000))?;
    sys!(setresuid(1000, 1000, 1000))?;
    Ok(())
}

fn another_user_is_refused() -> CaseResult {
    let child = idle()?;
    in_child(|| {
        become_user()?;
        expect_errno!(ptrace(libc::PTRACE_ATTACH, child, 0, 0), libc::EPERM);
        expect_errno!(ptrace(libc::PTRACE_SEIZE, child, 0, 0), libc::EPERM);
        Ok(())
    })?;
    end(child)
}

fn the_same_user_if_dumpable() -> CaseResult {
    let words = shared_words()?;
    let child = fork_child(|| {
        let good = become_user().is_ok();
        post(&words[0]);
        wait_for_word(&words[1], 1);
        let _ = sys!(prctl(libc::PR_SET_DUMPABLE, 1));
        post(&words[0]);
        wait_for_word(&words[1], 2);
        i32::from(!good)
    })?;
    wait_for_word(&words[0], 1);
    in_child(|| {
        become_user()?;
        expect_errno!(ptrace(libc::PTRACE_SEIZE, child, 0, 0), libc::EPERM);
        post(&words[1]);
        wait_for_word(&words[0], 2);
        check_eq!(ptrace(libc::PTRACE_SEIZE, child, 0, 0)?, 0);
        post(&words[1]);
        check_eq!(wait_status(child, 0)?, (child, 0));
        Ok(())
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn the_own_process_is_refused() -> CaseResult {
    expect_errno!(ptrace(libc::PTRACE_ATTACH, me(), 0, 0), libc::EPERM);
    let parent = me();
    let from_a_thread = std::thread::spawn(move || ptrace(libc::PTRACE_SEIZE, parent, 0, 0)).join();
    let Ok(from_a_thread) = from_a_thread else { crate::check::fail!("the thread panicked") };
    expect_errno!(from_a_thread, libc::EPERM);
    Ok(())
}

fn traceme_twice_is_refused() -> CaseResult {
    let child = fork_child(|| {
        let first = ptrace(libc::PTRACE_TRACEME, 0, 0, 0).is_ok();
        let second = ptrace(libc::PTRACE_TRACEME, 0, 0, 0).map_or_else(|error| error.errno, |_| 0);
        i32::from(!(first && second == libc::EPERM))
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn memory_by_process_vm_needs_the_same() -> CaseResult {
    let child = idle()?;
    in_child(|| {
        become_user()?;
        let mut byte = 0u8;
        let vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        expect_errno!(sys!(process_vm_readv(child, &vector, 1, &vector, 1, 0)), libc::EPERM);
        expect_errno!(sys!(process_vm_writev(child, &vector, 1, &vector, 1, 0)), libc::EPERM);
        Ok(())
    })?;
    end(child)
}

/// A copy of this program that makes who executes it root.
fn set_user_id_copy() -> CaseResult {
    std::fs::copy(std::ffi::OsStr::new(self_exe().to_str().unwrap_or_default()), "program")?;
    sys!(chmod(c"program".as_ptr(), 0o4755))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    Ok(())
}

fn execute_copy() -> i32 {
    if become_user().is_err() {
        return 99;
    }
    let argv = [c"program".as_ptr(), c"helper".as_ptr(), c"pause".as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null()];
    sys!(execve(c"program".as_ptr(), argv.as_ptr(), envp.as_ptr())).map_or_else(|error| error.errno, |_| 0)
}

fn effective_user(pid: i32) -> CaseResult<String> {
    let line = crate::tracer::status_line(pid, "Uid")?;
    Ok(line.split_whitespace().nth(1).unwrap_or_default().to_owned())
}

fn set_user_id_programs_gain_nothing() -> CaseResult {
    set_user_id_copy()?;
    in_child(|| {
        // The tracer is no better than the program.
        let child = fork_child(|| {
            if become_user().is_err() || sys!(prctl(libc::PR_SET_DUMPABLE, 1)).is_err() {
                return 98;
            }
            let _ = ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            execute_copy()
        })?;
        become_user()?;
        check_eq!(stop(child)?, libc::SIGTRAP);
        check_eq!(effective_user(child)?, "1000");
        sys!(kill(child, libc::SIGKILL))?;
        check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
        Ok(())
    })
}

fn set_user_id_programs_gain_under_a_strong_tracer() -> CaseResult {
    set_user_id_copy()?;
    let child = traced_with(libc::PTRACE_O_TRACEEXEC, execute_copy)?;
    check_eq!(next(libc::PTRACE_CONT, child, 0)?, event(libc::PTRACE_EVENT_EXEC));
    // The right to trace everybody is what counts.
    let capabilities = crate::tracer::status_line(me(), "CapEff")?;
    let strong = u64::from_str_radix(&capabilities, 16).unwrap_or(0) & 1 << 19 != 0;
    check_eq!(effective_user(child)?, if strong { "0" } else { "1000" });
    end(child)
}

fn each_traces_the_other() -> CaseResult {
    let words = shared_words()?;
    let first = fork_child(|| {
        wait_for_word(&words[1], 1);
        let other = words[0].load(std::sync::atomic::Ordering::SeqCst) as i32;
        let _ = ptrace(libc::PTRACE_SEIZE, other, 0, 0);
        let _ = ptrace(libc::PTRACE_INTERRUPT, other, 0, 0);
        let _ = stop(other);
        post(&words[2]);
        let _ = stop(other);
        0
    })?;
    let second = fork_child(|| {
        let _ = ptrace(libc::PTRACE_SEIZE, first, 0, 0);
        post(&words[1]);
        let _ = ptrace(libc::PTRACE_INTERRUPT, first, 0, 0);
        loop {
            let _ = stop(first);
        }
    })?;
    words[0].store(second as u32, std::sync::atomic::Ordering::SeqCst);
    end(first)?;
    end(second)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number of any size.
    fn word(&mut self) -> u64 {
        let shift = self.next() % 64;
        self.next() >> shift
    }
}

fn garbage_requests() -> CaseResult {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20 {
        let child = traced_with(0, || 0)?;
        for _ in 0..200 {
            let request = match random.next() % 3 {
                0 => random.next() % 40,
                1 => 0x4200 + random.next() % 24,
                _ => random.next() & 0xffff_ffff,
            };
            // Not those by which the case itself would become another's tracee, or lose the child to a wait for ever.
            if request != 0 {
                let _ = ptrace(request as u32, child, random.word(), random.word());
            }
        }
        let _ = sys!(kill(child, libc::SIGKILL));
        loop {
            let (_, status) = wait_status(child, libc::__WALL)?;
            if !libc::WIFSTOPPED(status) {
                break;
            }
            // It may have been told to stop as it exits.
            let _ = go(libc::PTRACE_CONT, child, 0);
        }
    }
    check_eq!(raw!(SYS_getpid())?, i64::from(me()));
    Ok(())
}

fn garbage_registers() -> CaseResult {
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..60 {
        let child = traced_with(0, || 0)?;
        for index in 0..27 {
            if random.next().is_multiple_of(3) {
                let _ = ptrace(libc::PTRACE_POKEUSER, child, 8 * index, random.word());
            }
        }
        let request = [libc::PTRACE_CONT, libc::PTRACE_SINGLESTEP, libc::PTRACE_SYSCALL][round % 3];
        for _ in 0..5 {
            if go(request, child, 0).is_err() {
                break;
            }
            let (_, status) = wait_status(child, libc::__WALL)?;
            if !libc::WIFSTOPPED(status) {
                break;
            }
        }
        let _ = sys!(kill(child, libc::SIGKILL));
        let _ = wait_status(child, libc::__WALL);
    }
    Ok(())
}

fn tracees_die_under_requests() -> CaseResult {
    for round in 0..30 {
        // Some stop once more as they exit, and answer again.
        let options = [0, libc::PTRACE_O_TRACEEXIT][round % 2];
        let child = traced_with(options, || 0)?;
        let killer = fork_child(|| {
            for _ in 0..round {
                let _ = sys!(sched_yield());
            }
            i32::from(sys!(kill(child, libc::SIGKILL)).is_err())
        })?;
        let mut state = [0u8; 512];
        for _ in 0..300 {
            let results = [
                ptrace(libc::PTRACE_GETFPREGS, child, 0, state.as_mut_ptr() as u64),
                ptrace(libc::PTRACE_SETFPREGS, child, 0, state.as_ptr() as u64),
                peek_word(child, state.as_ptr() as u64).map(|_| 0),
            ];
            for error in results.into_iter().filter_map(Result::err) {
                check!([libc::ESRCH, libc::EIO].contains(&error.errno), "{error:?}");
            }
        }
        check_eq!(wait_for(killer)?, Ended::Exited(0));
        loop {
            let (_, status) = wait_status(child, libc::__WALL)?;
            if !libc::WIFSTOPPED(status) {
                check_eq!(status, libc::SIGKILL);
                break;
            }
            let _ = go(libc::PTRACE_CONT, child, 0);
        }
    }
    Ok(())
}

fn many_tracees_of_one_that_goes() -> CaseResult {
    let words = shared_words()?;
    let mut children = Vec::new();
    for _ in 0..12 {
        children.push(fork_child(|| {
            wait_for_word(&words[0], 1);
            6
        })?);
    }
    let tracer = fork_child(|| {
        let mut good = true;
        for child in &children {
            good &= ptrace(libc::PTRACE_SEIZE, *child, 0, 0).is_ok();
            good &= ptrace(libc::PTRACE_INTERRUPT, *child, 0, 0).is_ok();
        }
        good &= stop(children[3]).is_ok_and(|code| code == (EVENT_STOP << 8 | libc::SIGTRAP));
        i32::from(!good)
    })?;
    check_eq!(wait_for(tracer)?, Ended::Exited(0));
    post(&words[0]);
    for child in children {
        check_eq!(wait_for(child)?, Ended::Exited(6));
    }
    Ok(())
}

fn a_traced_tracer() -> CaseResult {
    // The middle one traces its child, and is traced while it does.
    let middle = traced_with(libc::PTRACE_O_TRACEFORK, || {
        let inner = traced_with(libc::PTRACE_O_TRACEEXIT, || 3);
        let Ok(inner) = inner else { return 1 };
        let told = next(libc::PTRACE_CONT, inner, 0).is_ok_and(|s| s == event(libc::PTRACE_EVENT_EXIT));
        let _ = go(libc::PTRACE_CONT, inner, 0);
        let ended = wait_for(inner) == Ok(Ended::Exited(3));
        i32::from(!(told && ended))
    })?;
    check_eq!(next(libc::PTRACE_CONT, middle, 0)?, event(libc::PTRACE_EVENT_FORK));
    // Nobody can have two.
    let inner = message(middle)? as i32;
    check_eq!(stop(inner)?, libc::SIGSTOP);
    go(libc::PTRACE_DETACH, inner, 0)?;
    go(libc::PTRACE_CONT, middle, 0)?;
    loop {
        let (_, status) = wait_status(middle, 0)?;
        if !libc::WIFSTOPPED(status) {
            check_eq!(status, 0);
            return Ok(());
        }
        go(libc::PTRACE_CONT, middle, 0)?;
    }
}
