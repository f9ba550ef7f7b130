//! Runs hooks, programs of the host that get the container's state on standard input.
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::spec::Hook;

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It cannot be run.
    #[error(transparent)]
    Host(#[from] std::io::Error),
    /// It says that it failed, or was killed.
    #[error("{0}")]
    Status(ExitStatus),
    /// It took longer than it may, and was killed.
    #[error("not done after {0} s")]
    Timeout(u64),
}

/// Runs a hook in a directory, and waits for its end.
///
/// # Errors
/// [`HookError`].
pub fn run(hook: &Hook, dir: &Path, state: &str) -> Result<(), HookError> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    if !hook.env.is_empty() {
        command.env_clear().envs(hook.env.iter().filter_map(|pair| pair.split_once('=')));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).current_dir(dir);
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A hook need not read it.
        let _unread = input.write_all(state.as_bytes());
    }
    let succeeded =
        |status: ExitStatus| if status.success() { Ok(()) } else { Err(HookError::Status(status)) };
    let Some(seconds) = hook.timeout else { return succeeded(child.wait()?) };
    let deadline = Instant::now().checked_add(Duration::from_secs(seconds));
    loop {
        if let Some(status) = child.try_wait()? {
            return succeeded(status);
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            child.kill()?;
            child.wait()?;
            return Err(HookError::Timeout(seconds));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
