//! A container that exists.
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::control::{self, Channel, Request, Response};
use sandbox::spec::OCI_VERSION;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::state::{Folder, State, Status, start_time};

/// How long a killed process may take to end.
const DYING: Duration = Duration::from_secs(10);

/// A container that exists.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its folder.
    pub(crate) folder: Folder,
    /// Its state when it was looked up.
    pub(crate) state: State,
}

impl Container {
    /// Looks it up.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn open(global: &Global, id: &str) -> Result<Self> {
        let folder = Folder::open(&global.root, id)?;
        let state = folder.load()?;
        Ok(Self { folder, state })
    }

    /// The process id of its sentry.
    ///
    /// # Errors
    /// When it is in the sandbox of another container that is gone.
    pub(crate) fn sentry(&self) -> Result<i32> {
        let Some(first) = &self.state.sandbox else { return Ok(self.state.pid) };
        let root = self.folder.path.parent().context("the state has no folder")?;
        Ok(Folder::open(root, first)?.load()?.pid)
    }

    /// Connects to its sentry.
    ///
    /// # Errors
    /// When it has none that answers.
    pub(crate) fn connect(&self) -> Result<Channel> {
        control::connect_in(&self.folder.path)
            .with_context(|| format!("container {} is not running", self.state.id))
    }

    /// Asks its sentry.
    ///
    /// # Errors
    /// When it does not answer, or answers with an error.
    pub(crate) fn ask(&self, request: &Request) -> Result<Response> {
        self.ask_with(request, &[])
    }

    /// The same, with descriptors.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) fn ask_with(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Response> {
        let channel = self.connect()?;
        channel.send(request, fds)?;
        match channel.receive()?.0 {
            Response::Error(message) => bail!("{message}"),
            answer => Ok(answer),
        }
    }

    /// Ends its processes, whatever they do, and waits until they are gone.
    ///
    /// # Errors
    /// When one stays.
    pub(crate) fn destroy(&self) -> Result<()> {
        let state = &self.state;
        if state.sandbox.is_some() {
            self.end_in_sandbox();
        }
        for (pid, start) in [(state.pid, state.pid_start), (state.gofer, state.gofer_start)] {
            end(pid, start).with_context(|| format!("end process {pid} of {}", state.id))?;
        }
        Ok(())
    }
}

impl Container {
    /// Has the sentry that serves other containers too end this one, and waits a while until it has.
    fn end_in_sandbox(&self) {
        let Ok(channel) = self.connect() else { return };
        let Ok(limit) = PollTimeout::try_from(DYING) else { return };
        if channel.send(&Request::End, &[]).is_ok() {
            // In any case its end follows from that of the processes that stand for it.
            let _told = poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], limit);
        }
    }
}

/// Kills the process that started then, and waits until it is gone.
fn end(pid: i32, start: u64) -> Result<()> {
    let alive = || pid > 0 && start_time(pid) == Some(start);
    let deadline = Instant::now() + DYING;
    while alive() {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() > deadline {
            bail!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The state as the OCI specification has it.
pub(crate) fn oci_state(state: &State, status: Status) -> Value {
    let pid = if status == Status::Stopped { 0 } else { state.pid };
    json!({
        "ociVersion": OCI_VERSION,
        "id": state.id,
        "status": status,
        "pid": pid,
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": state.created,
        "annotations": state.annotations,
    })
}
