//! execve(2): what is kept, what is not, and what the new program finds.

use super::execs::{copy_self, script, exec, output_of};
use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq};
use crate::child::{Ended, exec_helper, fork_child, wait_for};
use crate::sys::{pipe, raw, stat, sys, write};
use crate::util::create;
use std::ffi::CStr;
use std::os::fd::AsRawFd;

topic!(exec_state: [
    pid_and_cwd_and_umask_are_kept,
    pending_signals_and_mask_are_kept,
    alarm_goes_on,
    memory_is_new,
    setuid_bit_changes_the_user,
    no_new_privs_ignores_setuid,
    auxiliary_vector_is_right,
    stack_is_as_the_abi_says,
    randomize_or_not_memory_is_usable,
    vdso_answers,
    failed_exec_changes_nothing,
    environment_of_proc,
]);

fn pid_and_cwd_and_umask_are_kept() -> CaseResult {
    let (output, _) = output_of(|| exec_helper(&["readlink", "/proc/self/cwd"], &[]))?;
    check_eq!(output, format!("{}\n", std::env::current_dir()?.display()));
    let (reader, writer) = pipe(0)?;
    let child = fork_child(|| {
        let _ = sys!(dup2(writer.as_raw_fd(), 1));
        let _ = sys!(umask(0o135));
        exec_helper(&["pid"], &[]).errno
    })?;
    let mut buf = [0u8; 64];
    let n = crate::sys::read(reader.as_raw_fd(), &mut buf)?;
    check_eq!(String::from_utf8_lossy(&buf[..n]), format!("{child} {child}\n"));
    check_eq!(wait_for(child)?, Ended::Exited(0));
    Ok(())
}

fn pending_signals_and_mask_are_kept() -> CaseResult {
    let (output, _) = output_of(|| {
        let _ = crate::signal::block(&[libc::SIGUSR1, libc::SIGHUP]);
        let _ = sys!(kill(crate::util::me(), libc::SIGUSR1));
        exec_helper(&["cat", "/proc/self/status"], &[])
    })?;
    let field = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap_or_default().trim(), 16).unwrap_or(0)
    };
    check_eq!(field("SigBlk:") & 0x201, 0x201);
    check_eq!(field("ShdPnd:"), 0x200);
    Ok(())
}

fn alarm_goes_on() -> CaseResult {
    let (_, ended) = output_of(|| {
        let timer = libc::itimerval {
            it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
            it_value: libc::timeval { tv_sec: 0, tv_usec: 30_000 },
        };
        let _ = sys!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()));
        exec_helper(&["pause"], &[])
    })?;
    check_eq!(ended, Ended::Killed(libc::SIGALRM));
    Ok(())
}

fn memory_is_new() -> CaseResult {
    let page = crate::memory::map(4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)? as usize;
    let (output, _) = output_of(|| exec_helper(&["cat", "/proc/self/maps"], &[]))?;
    check!(output.contains("[stack]") && output.contains("[heap]"), "{output}");
    check!(!output.contains(&format!("{page:x}-")), "an old mapping is left");
    Ok(())
}

fn setuid_bit_changes_the_user() -> CaseResult {
    copy_self("prog")?;
    sys!(chown(c"prog".as_ptr(), 1234, 2345))?;
    sys!(chmod(c"prog".as_ptr(), 0o6755))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    let run = |no_new_privs: bool| {
        output_of(|| {
            let _ = sys!(setresgid(99, 99, 99));
            let _ = sys!(setresuid(88, 88, 88));
            if no_new_privs {
                let _ = raw!(SYS_prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
            }
            exec(c"./prog", &[c"x", c"helper", c"ids"], &[])
        })
    };
    check_eq!(run(false)?.0, "88 1234 1234 99 2345 2345\n");
    Ok(())
}

fn no_new_privs_ignores_setuid() -> CaseResult {
    copy_self("prog")?;
    sys!(chown(c"prog".as_ptr(), 1234, 2345))?;
    sys!(chmod(c"prog".as_ptr(), 0o6755))?;
    sys!(chmod(c".".as_ptr(), 0o755))?;
    let (output, _) = output_of(|| {
        let _ = sys!(setresgid(99, 99, 99));
        let _ = sys!(setresuid(88, 88, 88));
        let _ = raw!(SYS_prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        exec(c"./prog", &[c"x", c"helper", c"ids"], &[])
    })?;
    check_eq!(output, "88 88 88 99 99 99\n");
    Ok(())
}

fn auxv(kind: u64) -> u64 {
    // SAFETY: no pointers.
    unsafe { libc::getauxval(kind) }
}

fn auxiliary_vector_is_right() -> CaseResult {
    check_eq!(auxv(libc::AT_PAGESZ), 4096);
    check_eq!(auxv(libc::AT_CLKTCK), 100);
    check_eq!((auxv(libc::AT_UID), auxv(libc::AT_EUID), auxv(libc::AT_GID)), (0, 0, 0));
    check_eq!(auxv(libc::AT_SECURE), 0);
    check_eq!(auxv(libc::AT_PHENT), 56);
    // SAFETY: the kernel gives pointers to 16 bytes, a string, a string.
    let (random, name, platform) = unsafe {
        (
            (auxv(libc::AT_RANDOM) as *const [u8; 16]).read(),
            CStr::from_ptr(auxv(libc::AT_EXECFN) as *const _),
            CStr::from_ptr(auxv(libc::AT_PLATFORM) as *const _),
        )
    };
    check!(random != [0; 16]);
    check!(name.to_string_lossy().ends_with("guest"), "{name:?}");
    check_eq!(platform, c"x86_64");
    // The program headers lie in memory, and the first ones tell of themselves.
    let headers = auxv(libc::AT_PHDR) as *const u32;
    check!(auxv(libc::AT_PHNUM) > 1 && !headers.is_null());
    let file = std::fs::read("/proc/self/auxv")?;
    let pairs: Vec<u64> = file.chunks_exact(8).map(|b| u64::from_ne_bytes(b.try_into().unwrap_or([0; 8]))).collect();
    check!(pairs.chunks_exact(2).any(|pair| pair == [libc::AT_PHDR, headers as u64]));
    Ok(())
}

fn stack_is_as_the_abi_says() -> CaseResult {
    let (output, ended) = output_of(|| exec_helper(&["stack-layout", "x"], &["A=1", "B=2"]))?;
    check_eq!((output.as_str(), ended), ("ok\n", Ended::Exited(0)));
    Ok(())
}

fn randomize_or_not_memory_is_usable() -> CaseResult {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let (output, _) = output_of(|| exec_helper(&["cat", "/proc/self/maps"], &[]))?;
        let stack = output.lines().find(|line| line.ends_with("[stack]")).unwrap_or_default();
        check!(stack.contains("rw-p"), "{output}");
        seen.insert(stack.to_owned());
    }
    check!(seen.len() > 1, "the stack is always in the same place");
    Ok(())
}

fn vdso_answers() -> CaseResult {
    let base = auxv(libc::AT_SYSINFO_EHDR);
    if base != 0 {
        // SAFETY: the kernel says that an ELF file lies there.
        let magic = unsafe { (base as *const [u8; 4]).read() };
        check_eq!(&magic, b"\x7fELF");
    }
    Ok(())
}

fn failed_exec_changes_nothing() -> CaseResult {
    let (reader, _writer) = pipe(libc::O_CLOEXEC)?;
    crate::signal::count_signal(libc::SIGUSR1, 0)?;
    script("s", "#!/missing\n")?;
    check_eq!(exec(c"./s", &[c"s"], &[]).errno, libc::ENOENT);
    check_eq!(sys!(fcntl(reader.as_raw_fd(), libc::F_GETFD))?, 1);
    sys!(kill(crate::util::me(), libc::SIGUSR1))?;
    check_eq!(crate::signal::counted(), 1);
    check!(stat(c"s")?.st_size > 0);
    Ok(())
}

fn environment_of_proc() -> CaseResult {
    let (output, _) = output_of(|| exec_helper(&["cat", "/proc/self/environ"], &["ONE=1", "TWO=2"]))?;
    check_eq!(output, "ONE=1\0TWO=2\0");
    let (output, _) = output_of(|| exec_helper(&["env"], &["odd", "=x", "A=b=c"]))?;
    check!(output.contains("A=b=c\n"), "{output}");
    let file = create(c"f", b"")?;
    check_eq!(write(file.as_raw_fd(), b"")?, 0);
    Ok(())
}
