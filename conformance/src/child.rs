//! Child processes of a case.

use crate::case::{CaseResult, Failure};
use crate::sys::{SysError, pipe, sys};
use std::os::fd::AsRawFd;

static SELF_EXE: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();

/// Remembers the path of this program while the working directory is still that of its start.
pub(crate) fn remember_self(argv0: &str) -> std::io::Result<()> {
    let path = std::path::absolute(argv0)?;
    let _ = SELF_EXE.set(path);
    Ok(())
}

/// How a child ended, from a wait status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// exit(2) with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Stopped by this signal.
    Stopped(i32),
    /// Continued.
    Continued,
}

impl Ended {
    /// Decodes what wait4(2) wrote.
    pub(crate) fn from_status(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            Self::Exited(libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            Self::Killed(libc::WTERMSIG(status))
        } else if libc::WIFSTOPPED(status) {
            Self::Stopped(libc::WSTOPSIG(status))
        } else {
            Self::Continued
        }
    }
}

/// Forks; the child runs `body` and exits with what it returns. A panic in the child is exit status 101.
pub(crate) fn fork_child(body: impl FnOnce() -> i32) -> Result<i32, SysError> {
    let pid = sys!(fork())?;
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(101);
        // SAFETY: ends this process at once, as a forked child must.
        unsafe { libc::_exit(code) };
    }
    Ok(pid as i32)
}

/// Waits for one child, whatever interrupts.
pub(crate) fn wait_for(pid: i32) -> Result<Ended, SysError> {
    wait_options(pid, 0).map(|(_, ended)| ended)
}

/// wait4(2) with options, again after EINTR: the pid (0 with WNOHANG and nothing to report), and how it ended.
pub(crate) fn wait_options(pid: i32, options: i32) -> Result<(i32, Ended), SysError> {
    loop {
        let mut status = 0;
        match sys!(waitpid(pid, &mut status, options)) {
            Ok(got) => return Ok((got as i32, Ended::from_status(status))),
            Err(error) if error.errno == libc::EINTR => {}
            Err(error) => return Err(error),
        }
    }
}

/// Runs assertions in a forked child (to change credentials, limits, the working directory, ..) and hands on their failure.
pub(crate) fn in_child(body: impl FnOnce() -> CaseResult) -> CaseResult {
    let (reader, writer) = pipe(libc::O_CLOEXEC)?;
    let pid = fork_child(|| match body() {
        Ok(()) => 0,
        Err(Failure(message)) => {
            let bytes = message.as_bytes();
            let _ = crate::sys::write(writer.as_raw_fd(), &bytes[..bytes.len().min(4000)]);
            1
        }
    })?;
    drop(writer);
    let ended = wait_for(pid)?;
    match ended {
        Ended::Exited(0) => Ok(()),
        Ended::Exited(1) => {
            let mut buf = [0u8; 4096];
            let n = crate::sys::read(reader.as_raw_fd(), &mut buf)?;
            Err(Failure(String::from_utf8_lossy(&buf[..n]).into_owned()))
        }
        other => Err(Failure(format!("the child ended by {other:?}"))),
    }
}

/// The path of this program, to execute it with `helper NAME` arguments.
pub(crate) fn self_exe() -> std::ffi::CString {
    let path = SELF_EXE.get().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
    std::ffi::CString::new(path.unwrap_or_default()).unwrap_or_default()
}

/// Executes `guest helper ARGS..` in place of this process; returns only on failure.
pub(crate) fn exec_helper(args: &[&str], env: &[&str]) -> SysError {
    let exe = self_exe();
    let cstr = |s: &str| std::ffi::CString::new(s).unwrap_or_default();
    let mut argv = vec![exe.clone(), cstr("helper")];
    argv.extend(args.iter().map(|arg| cstr(arg)));
    let envp: Vec<_> = env.iter().map(|var| cstr(var)).collect();
    let pointers = |list: &[std::ffi::CString]| {
        let mut all: Vec<*const libc::c_char> = list.iter().map(|s| s.as_ptr()).collect();
        all.push(std::ptr::null());
        all
    };
    let (argv_ptrs, envp_ptrs) = (pointers(&argv), pointers(&envp));
    match sys!(execve(exe.as_ptr(), argv_ptrs.as_ptr(), envp_ptrs.as_ptr())) {
        Err(error) => error,
        Ok(_) => SysError { call: "execve", line: line!(), errno: 0 },
    }
}
