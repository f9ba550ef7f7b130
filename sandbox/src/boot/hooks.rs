//! Hooks that run in the container, before its program does.
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use abi::Signal;
use kernel::signal::{SigInfo, send_from_outside};
use kernel::{ExitStatus, ThreadGroup};
use nix::unistd::{Whence, lseek};

use super::container::{Container, Program};
use crate::spec::{Hook, Process};

/// Programs that run before the container's own, and what they are given.
#[derive(Debug)]
pub(super) struct StartHooks {
    hooks: Vec<Hook>,
    /// The container's state, and nothing.
    files: Option<(OwnedFd, OwnedFd)>,
}

impl StartHooks {
    /// Takes what came with the order to start.
    pub(super) fn new(hooks: Vec<Hook>, fds: Vec<OwnedFd>) -> Self {
        let mut fds = fds.into_iter();
        Self { hooks, files: fds.next().zip(fds.next()) }
    }

    /// Runs them one after the other, as the container's user and in its working directory.
    ///
    /// # Errors
    /// Which one fails, and how.
    pub(super) fn run(&self, container: &Container, process: &Process) -> Result<(), String> {
        for hook in &self.hooks {
            self.one(container, process, hook)
                .map_err(|why| format!("startContainer hook {}: {why}", hook.path.display()))?;
        }
        Ok(())
    }

    fn one(&self, container: &Container, process: &Process, hook: &Hook) -> Result<(), String> {
        let (state, null) = self.files.as_ref().ok_or("the state is missing")?;
        lseek(state, 0, Whence::SeekSet).map_err(|error| error.to_string())?;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| error.to_string());
        let own = Process {
            terminal: false,
            console_size: None,
            args: if hook.args.is_empty() {
                vec![hook.path.display().to_string()]
            } else {
                hook.args.clone()
            },
            env: if hook.env.is_empty() { process.env.clone() } else { hook.env.clone() },
            ..process.clone()
        };
        let program = Program::At(&hook.path);
        let prepared =
            container.prepare_program(own, program, vec![copy(state)?, copy(null)?, copy(null)?])?;
        let started = container.start(prepared, None)?;
        match wait(container, &started.group, hook.timeout) {
            Some(ExitStatus::Exited(0)) => Ok(()),
            Some(status) => Err(format!("exit status: {}", status.shell_code())),
            None => Err(format!("not done after {} s", hook.timeout.unwrap_or_default())),
        }
    }
}

/// Waits for its end; none when that took too long, and was brought about.
fn wait(container: &Container, group: &Arc<ThreadGroup>, seconds: Option<u64>) -> Option<ExitStatus> {
    let status = container.kernel.wait_exit_for(group, seconds.map(Duration::from_secs));
    if status.is_none() {
        // It may have ended meanwhile.
        let _gone = send_from_outside(group, SigInfo::kill(Signal::SIGKILL, 0, 0));
        let _killed = container.kernel.wait_exit(group);
    }
    status
}
