//! seccomp(2): strict mode, filters, what each action does, and who inherits.

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, exec_helper, fork_child, in_child, wait_for};
use crate::sys::{SysError, errno, raw, sys, syscall};
use crate::util::{me, status_field};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

topic!(seccomp: [
    an_errno_is_returned_and_the_rest_works,
    arguments_can_be_looked_at,
    a_trap_is_a_signal_that_tells_the_call,
    killing_the_process,
    killing_a_thread_leaves_the_others,
    strict_mode_allows_four_calls,
    filters_stay_over_fork_and_exec,
    the_strictest_filter_wins,
    filters_need_no_new_privs_or_a_capability,
    programs_that_are_not_sound_are_refused,
    actions_and_modes_are_told,
    proc_status_tells_mode_and_count,
    a_filter_for_all_threads,
    trace_without_a_tracer_is_enosys,
    errno_is_bounded,
    ids_are_asked_about_as_well,
]);

const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const ERRNO: u32 = 0x0005_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRACE: u32 = 0x7ff0_0000;

const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const JUMP_EQUAL: u16 = 0x15;

type Program = Vec<libc::sock_filter>;

fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// This action for a call, all others allowed.
fn for_call(nr: i64, action: u32) -> Program {
    vec![op(LOAD, 0, 0, 0), op(JUMP_EQUAL, 0, 1, nr as u32), op(RETURN, 0, 0, action), op(RETURN, 0, 0, ALLOW)]
}

fn load(program: &Program, flags: u32) -> Result<i64, SysError> {
    let fprog = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    syscall(libc::SYS_seccomp, &[1, u64::from(flags), (&raw const fprog) as u64])
}

fn no_new_privs() -> CaseResult {
    sys!(prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    Ok(())
}

/// Runs a body under a filter in a child.
fn filtered(program: Program, body: impl FnOnce() -> CaseResult) -> CaseResult {
    in_child(|| {
        no_new_privs()?;
        check_eq!(load(&program, 0)?, 0);
        body()
    })
}

fn an_errno_is_returned_and_the_rest_works() -> CaseResult {
    filtered(for_call(libc::SYS_getppid, ERRNO | 77), || {
        check_eq!(raw!(SYS_getppid()).map_err(|e| e.errno), Err(77));
        check_eq!(raw!(SYS_getpid())?, i64::from(me()));
        Ok(())
    })
}

fn arguments_can_be_looked_at() -> CaseResult {
    // dup(1000) fails with 99; any other dup is made.
    let program = vec![
        op(LOAD, 0, 0, 0),
        op(JUMP_EQUAL, 0, 3, libc::SYS_dup as u32),
        op(LOAD, 0, 0, 16),
        op(JUMP_EQUAL, 0, 1, 1000),
        op(RETURN, 0, 0, ERRNO | 99),
        op(RETURN, 0, 0, ALLOW),
    ];
    filtered(program, || {
        check_eq!(raw!(SYS_dup(1000)).map_err(|e| e.errno), Err(99));
        check_eq!(raw!(SYS_dup(1001)).map_err(|e| e.errno), Err(libc::EBADF));
        Ok(())
    })
}

static SEEN: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

extern "C" fn on_sigsys(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo_t of 128 bytes.
    let words = unsafe { std::slice::from_raw_parts(info.cast::<u64>(), 4) };
    SEEN[0].store(words[0] >> 32, Ordering::SeqCst);
    SEEN[1].store(words[1] & 0xffff_ffff, Ordering::SeqCst);
    SEEN[2].store(words[2], Ordering::SeqCst);
    SEEN[3].store(words[3], Ordering::SeqCst);
    // SAFETY: the kernel passes a ucontext_t.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let ip = registers[libc::REG_RIP as usize] as u64;
    SEEN[4].store(u64::from(ip == words[2] && registers[libc::REG_RAX as usize] == libc::SYS_getppid), Ordering::SeqCst);
    registers[libc::REG_RAX as usize] = 4242;
}

fn a_trap_is_a_signal_that_tells_the_call() -> CaseResult {
    filtered(for_call(libc::SYS_getppid, TRAP | 5), || {
        // SAFETY: all zeroes is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigsys as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        sys!(sigaction(libc::SIGSYS, &action, std::ptr::null_mut()))?;
        // The handler says what the call returns.
        check_eq!(raw!(SYS_getppid())?, 4242);
        let seen: Vec<u64> = SEEN.iter().map(|word| word.load(Ordering::SeqCst)).collect();
        // si_errno, si_code (SYS_SECCOMP), si_syscall and si_arch.
        check_eq!(seen[0], 5);
        check_eq!(seen[1], 1);
        check!(seen[2] != 0);
        check_eq!(seen[3], 0xc000_003e << 32 | libc::SYS_getppid as u64);
        check_eq!(seen[4], 1);
        Ok(())
    })
}

fn killed_by(action: u32) -> Result<Ended, SysError> {
    let child = fork_child(|| {
        let prepared = no_new_privs().is_ok() && load(&for_call(libc::SYS_getppid, action), 0).is_ok();
        if prepared && raw!(SYS_getppid()).is_ok() { 1 } else { 2 }
    })?;
    wait_for(child)
}

fn killing_the_process() -> CaseResult {
    for action in [KILL_PROCESS, KILL_THREAD, TRAP] {
        check_eq!(killed_by(action)?, Ended::Killed(libc::SIGSYS));
    }
    check_eq!(killed_by(LOG)?, Ended::Exited(1));
    Ok(())
}

fn killing_a_thread_leaves_the_others() -> CaseResult {
    in_child(|| {
        no_new_privs()?;
        let (reader, writer) = crate::sys::pipe(0)?;
        use std::os::fd::AsRawFd;
        let end = writer.as_raw_fd();
        // Its memory is left to the process: the thread ends without a word to the library.
        let _thread = std::thread::spawn(move || {
            let _ = load(&for_call(libc::SYS_getppid, KILL_THREAD), 0);
            let _ = crate::sys::write(end, b"x");
            let _ = raw!(SYS_getppid());
            let _ = crate::sys::write(end, b"y");
        });
        check_eq!(crate::sys::read(reader.as_raw_fd(), &mut [0; 1])?, 1);
        // The thread is gone once it is no longer listed.
        while std::fs::read_dir("/proc/self/task")?.count() > 1 {
            std::thread::yield_now();
        }
        drop(writer);
        check_eq!(crate::sys::read(reader.as_raw_fd(), &mut [0; 1])?, 0);
        check!(raw!(SYS_getppid()).is_ok());
        Ok(())
    })
}

fn strict_mode_allows_four_calls() -> CaseResult {
    let child = fork_child(|| {
        if syscall(libc::SYS_seccomp, &[0, 0, 0]).is_err() {
            return 1;
        }
        let _ = crate::sys::write(-1, b"x");
        let _ = syscall(libc::SYS_exit, &[3]);
        4
    })?;
    check_eq!(wait_for(child)?, Ended::Exited(3));
    let child = fork_child(|| {
        let _ = sys!(prctl(libc::PR_SET_SECCOMP, 1, 0, 0, 0));
        i32::from(raw!(SYS_getppid()).is_ok())
    })?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGKILL));
    Ok(())
}

fn filters_stay_over_fork_and_exec() -> CaseResult {
    filtered(for_call(libc::SYS_getppid, ERRNO | 50), || {
        let child = fork_child(|| match raw!(SYS_getppid()) {
            Err(error) => error.errno,
            Ok(_) => 1,
        })?;
        check_eq!(wait_for(child)?, Ended::Exited(50));
        Ok(())
    })?;
    // The program writes to its output, which is forbidden.
    let child = fork_child(|| {
        let prepared = no_new_privs().is_ok() && load(&for_call(libc::SYS_write, KILL_PROCESS), 0).is_ok();
        if prepared { exec_helper(&["echo", "x"], &[]).errno } else { 1 }
    })?;
    check_eq!(wait_for(child)?, Ended::Killed(libc::SIGSYS));
    Ok(())
}

fn the_strictest_filter_wins() -> CaseResult {
    filtered(for_call(libc::SYS_getppid, ERRNO | 60), || {
        load(&for_call(libc::SYS_getppid, LOG), 0)?;
        check_eq!(raw!(SYS_getppid()).map_err(|e| e.errno), Err(60));
        // Of equals the newest says which errno.
        load(&for_call(libc::SYS_getppid, ERRNO | 61), 0)?;
        check_eq!(raw!(SYS_getppid()).map_err(|e| e.errno), Err(61));
        Ok(())
    })
}

fn filters_need_no_new_privs_or_a_capability() -> CaseResult {
    in_child(|| {
        let program = for_call(libc::SYS_getppid, ALLOW);
        sys!(setresuid(1000, 1000, 1000))?;
        expect_errno!(load(&program, 0), libc::EACCES);
        no_new_privs()?;
        load(&program, 0)?;
        check!(sys!(prctl(libc::PR_SET_SECCOMP, 2, std::ptr::null::<u8>(), 0, 0)).is_err());
        check_eq!(errno(), libc::EFAULT);
        Ok(())
    })
}

fn programs_that_are_not_sound_are_refused() -> CaseResult {
    in_child(|| {
        no_new_privs()?;
        let bad = [
            vec![op(LOAD, 0, 0, 0)],
            vec![op(LOAD, 0, 0, 2), op(RETURN, 0, 0, ALLOW)],
            vec![op(LOAD, 0, 0, 64), op(RETURN, 0, 0, ALLOW)],
            vec![op(JUMP_EQUAL, 5, 0, 0), op(RETURN, 0, 0, ALLOW)],
            vec![op(0x60, 0, 0, 0), op(RETURN, 0, 0, ALLOW)],
            vec![op(0x34, 0, 0, 0), op(RETURN, 0, 0, ALLOW)],
            vec![op(0x94, 0, 0, 3), op(RETURN, 0, 0, ALLOW)],
            vec![op(0x28, 0, 0, 0), op(RETURN, 0, 0, ALLOW)],
        ];
        for program in &bad {
            expect_errno!(load(program, 0), libc::EINVAL);
        }
        expect_errno!(load(&Vec::new(), 0), libc::EINVAL);
        expect_errno!(load(&vec![op(RETURN, 0, 0, ALLOW); 4097], 0), libc::EINVAL);
        expect_errno!(load(&for_call(0, ALLOW), 1 << 20), libc::EINVAL);
        expect_errno!(syscall(libc::SYS_seccomp, &[99, 0, 0]), libc::EINVAL);
        expect_errno!(syscall(libc::SYS_seccomp, &[0, 1, 0]), libc::EINVAL);
        expect_errno!(syscall(libc::SYS_seccomp, &[1, 0, 8]), libc::EFAULT);
        Ok(())
    })
}

fn actions_and_modes_are_told() -> CaseResult {
    for action in [ALLOW, LOG, ERRNO, TRAP, KILL_THREAD, KILL_PROCESS] {
        check_eq!(syscall(libc::SYS_seccomp, &[2, 0, (&raw const action) as u64])?, 0);
    }
    let unknown = 0x1234_0000_u32;
    expect_errno!(syscall(libc::SYS_seccomp, &[2, 0, (&raw const unknown) as u64]), libc::EOPNOTSUPP);
    expect_errno!(syscall(libc::SYS_seccomp, &[2, 1, (&raw const unknown) as u64]), libc::EINVAL);
    filtered(for_call(libc::SYS_getppid, ALLOW), || {
        check_eq!(sys!(prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0))?, 2);
        // There is no way back, nor to strict mode.
        expect_errno!(syscall(libc::SYS_seccomp, &[0, 0, 0]), libc::EINVAL);
        Ok(())
    })
}

fn proc_status_tells_mode_and_count() -> CaseResult {
    let before: u32 = status_field("Seccomp_filters")?.parse().unwrap_or(0);
    filtered(for_call(libc::SYS_getppid, ALLOW), || {
        load(&for_call(libc::SYS_getppid, ALLOW), 0)?;
        check_eq!(status_field("Seccomp")?, "2");
        check_eq!(status_field("Seccomp_filters")?, (before + 2).to_string());
        Ok(())
    })
}

fn a_filter_for_all_threads() -> CaseResult {
    in_child(|| {
        no_new_privs()?;
        use std::os::fd::AsRawFd;
        let (reader, writer) = crate::sys::pipe(0)?;
        let gate = reader.as_raw_fd();
        let thread = std::thread::spawn(move || {
            let _ = crate::sys::read(gate, &mut [0; 1]);
            raw!(SYS_getppid()).map_err(|error| error.errno)
        });
        check_eq!(load(&for_call(libc::SYS_getppid, ERRNO | 42), 1)?, 0);
        crate::sys::write(writer.as_raw_fd(), b"x")?;
        check_eq!(thread.join().map_err(|_| "the thread panicked")?, Err(42));
        Ok(())
    })
}

fn trace_without_a_tracer_is_enosys() -> CaseResult {
    filtered(for_call(libc::SYS_getppid, TRACE), || {
        expect_errno!(raw!(SYS_getppid()), libc::ENOSYS);
        Ok(())
    })
}

fn errno_is_bounded() -> CaseResult {
    filtered(for_call(libc::SYS_getppid, ERRNO | 0xffff), || {
        check_eq!(raw!(SYS_getppid()).map_err(|e| e.errno), Err(4095));
        Ok(())
    })
}

fn ids_are_asked_about_as_well() -> CaseResult {
    // A sandbox may answer these without a trap, but not past a filter; nor in a thread that gets one from another.
    for nr in [libc::SYS_getpid, libc::SYS_gettid] {
        in_child(|| {
            no_new_privs()?;
            for _ in 0..100 {
                check!(syscall(nr, &[]).is_ok());
            }
            let started = Arc::new(AtomicU64::new(0));
            let mark = Arc::clone(&started);
            let thread = std::thread::spawn(move || {
                // Makes no other call, until this one fails.
                while syscall(nr, &[]).is_ok() {
                    mark.store(1, Ordering::SeqCst);
                }
            });
            while started.load(Ordering::SeqCst) == 0 {
                std::hint::spin_loop();
            }
            check_eq!(load(&for_call(nr, ERRNO | 33), 1)?, 0);
            check_eq!(syscall(nr, &[]).map_err(|e| e.errno), Err(33));
            thread.join().map_err(|_| "the thread panicked")?;
            Ok(())
        })?;
    }
    Ok(())
}
