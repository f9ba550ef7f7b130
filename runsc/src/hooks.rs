//! Runs hooks, programs of the host that get the container's state on standard input.
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sandbox::spec::Hook;

use crate::container::oci_state;
use crate::log;
use crate::state::{State, Status};

/// Runs programs one after the other.
///
/// # Errors
/// When one fails.
pub(crate) fn run(kind: &str, hooks: &[Hook], state: &State, status: Status) -> Result<()> {
    for hook in hooks {
        one(hook, state, status).with_context(|| format!("{kind} hook {}", hook.path.display()))?;
    }
    Ok(())
}

/// Runs programs whose failure changes nothing any more.
pub(crate) fn run_all(kind: &str, hooks: &[Hook], state: &State, status: Status) {
    for hook in hooks {
        if let Err(error) = one(hook, state, status) {
            log::warn(&format!("{kind} hook {}: {error:#}", hook.path.display()));
        }
    }
}

fn one(hook: &Hook, state: &State, status: Status) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    if !hook.env.is_empty() {
        command.env_clear().envs(hook.env.iter().filter_map(|pair| pair.split_once('=')));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).current_dir(&state.bundle);
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A hook need not read it.
        let _unread = input.write_all(oci_state(state, status).to_string().as_bytes());
    }
    let Some(seconds) = hook.timeout else {
        let status = child.wait()?;
        ensure!(status.success(), "{status}");
        return Ok(());
    };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{status}");
            return Ok(());
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("not done after {seconds} s");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
