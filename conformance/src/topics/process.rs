//! fork(2), execve(2), wait4(2), exit(2), getpid(2), setsid(2).

use crate::case::{CaseResult, topic};
use crate::check::{check, check_eq, expect_errno};
use crate::child::{Ended, exec_helper, fork_child, in_child, wait_for, wait_options};
use crate::sys::{pipe, read, sys, syscall, write};
use std::os::fd::AsRawFd;

topic!(process: [
    exit_status_reaches_the_parent,
    wait_without_children_is_echild,
    wnohang_gives_zero,
    killed_child_reports_the_signal,
    getppid_is_the_parent,
    fork_copies_memory,
    exec_passes_arguments,
    exec_passes_environment,
    exec_closes_cloexec,
    exec_missing_is_enoent,
    exec_of_text_is_enoexec,
    exec_without_permission_is_eacces,
    setsid_of_leader_is_eperm,
    unknown_call_is_enosys,
]);

fn exit_status_reaches_the_parent() -> CaseResult {
    for code in [0, 1, 42, 255] {
        let pid = fork_child(|| code)?;
        check_eq!(wait_for(pid)?, Ended::Exited(code));
    }
    Ok(())
}

fn wait_without_children_is_echild() -> CaseResult {
    expect_errno!(wait_for(-1), libc::ECHILD);
    expect_errno!(wait_for(std::process::id() as i32), libc::ECHILD);
    Ok(())
}

fn wnohang_gives_zero() -> CaseResult {
    let (reader, writer) = pipe(0)?;
    let writer_fd = writer.as_raw_fd();
    let pid = fork_child(|| {
        let _ = sys!(close(writer_fd));
        i32::from(read(reader.as_raw_fd(), &mut [0; 1]) != Ok(0))
    })?;
    check_eq!(wait_options(pid, libc::WNOHANG)?.0, 0);
    drop(writer);
    check_eq!(wait_for(pid)?, Ended::Exited(0));
    Ok(())
}

fn killed_child_reports_the_signal() -> CaseResult {
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGUSR1] {
        let pid = fork_child(|| {
            let _ = sys!(pause());
            0
        })?;
        sys!(kill(pid, signal))?;
        check_eq!(wait_for(pid)?, Ended::Killed(signal));
    }
    Ok(())
}

fn getppid_is_the_parent() -> CaseResult {
    let me = std::process::id() as i64;
    let pid = fork_child(|| i32::from(sys!(getppid()) != Ok(me)))?;
    check_eq!(wait_for(pid)?, Ended::Exited(0));
    Ok(())
}

fn fork_copies_memory() -> CaseResult {
    let mut data = vec![1u8; 100_000];
    let pid = fork_child(|| {
        data.fill(2);
        i32::from(data.iter().any(|b| *b != 2))
    })?;
    check_eq!(wait_for(pid)?, Ended::Exited(0));
    check!(data.iter().all(|b| *b == 1), "the child's write is seen in the parent");
    Ok(())
}

/// What `guest helper ARGS..` prints, and how it ended.
fn helper_output(args: &[&str], env: &[&str]) -> CaseResult<(String, Ended)> {
    let (reader, writer) = pipe(libc::O_CLOEXEC)?;
    let pid = fork_child(|| match sys!(dup2(writer.as_raw_fd(), 1)) {
        Ok(_) => exec_helper(args, env).errno,
        Err(_) => 99,
    })?;
    drop(writer);
    let mut output = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(reader), &mut output)?;
    Ok((String::from_utf8_lossy(&output).into_owned(), wait_for(pid)?))
}

fn exec_passes_arguments() -> CaseResult {
    let (output, ended) = helper_output(&["echo", "one", "", "two words"], &[])?;
    check_eq!(ended, Ended::Exited(0));
    check_eq!(output, "one\n\ntwo words\n");
    Ok(())
}

fn exec_passes_environment() -> CaseResult {
    let (output, _) = helper_output(&["env"], &["A=1", "B=two words"])?;
    check_eq!(output, "A=1\nB=two words\n");
    Ok(())
}

fn exec_closes_cloexec() -> CaseResult {
    for (flags, status) in [(0, 0), (libc::O_CLOEXEC, 1)] {
        let (reader, _writer) = pipe(flags)?;
        let fd = reader.as_raw_fd().to_string();
        let (_, ended) = helper_output(&["fd-open", &fd], &[])?;
        check_eq!(ended, Ended::Exited(status));
    }
    Ok(())
}

fn exec_missing_is_enoent() -> CaseResult {
    let none: [*const libc::c_char; 1] = [std::ptr::null()];
    expect_errno!(sys!(execve(c"./missing".as_ptr(), none.as_ptr(), none.as_ptr())), libc::ENOENT);
    Ok(())
}

fn exec_of_text_is_enoexec() -> CaseResult {
    std::fs::write("script", "just text\n")?;
    sys!(chmod(c"script".as_ptr(), 0o755))?;
    let none: [*const libc::c_char; 1] = [std::ptr::null()];
    expect_errno!(sys!(execve(c"./script".as_ptr(), none.as_ptr(), none.as_ptr())), libc::ENOEXEC);
    Ok(())
}

fn exec_without_permission_is_eacces() -> CaseResult {
    std::fs::write("f", "#!/bin/sh\n")?;
    let none: [*const libc::c_char; 1] = [std::ptr::null()];
    expect_errno!(sys!(execve(c"./f".as_ptr(), none.as_ptr(), none.as_ptr())), libc::EACCES);
    expect_errno!(sys!(execve(c".".as_ptr(), none.as_ptr(), none.as_ptr())), libc::EACCES);
    Ok(())
}

fn setsid_of_leader_is_eperm() -> CaseResult {
    in_child(|| {
        let pid = sys!(getpid())?;
        check_eq!(sys!(setsid())?, pid);
        check_eq!(sys!(getsid(0))?, pid);
        check_eq!(sys!(getpgid(0))?, pid);
        expect_errno!(sys!(setsid()), libc::EPERM);
        let (_reader, writer) = pipe(0)?;
        check_eq!(write(writer.as_raw_fd(), b"x")?, 1);
        Ok(())
    })
}

fn unknown_call_is_enosys() -> CaseResult {
    expect_errno!(syscall(9999, &[]), libc::ENOSYS);
    expect_errno!(syscall(-7, &[]), libc::ENOSYS);
    expect_errno!(syscall(libc::SYS_close, &[u64::MAX]), libc::EBADF);
    Ok(())
}
