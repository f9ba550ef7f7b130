//! Talks to a program on a terminal: sends, and waits for what must appear.

use crate::run;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A program whose terminal we hold the other end of.
#[derive(Debug)]
pub(crate) struct Session {
    child: Child,
    master: File,
    chunks: Receiver<Vec<u8>>,
    /// All that it printed so far.
    pub(crate) transcript: String,
    seen: usize,
}

impl Session {
    /// Starts a program as the leader of a session whose terminal is new.
    ///
    /// # Errors
    /// When there is no terminal, or the program does not start.
    pub(crate) fn start(inner: &Command) -> Result<Self> {
        let size = nix::pty::Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size), None).context("openpty")?;
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(pty.slave);
        let child = command.spawn().context("start setsid")?;
        drop(command);
        let master = File::from(pty.master);
        let mut reader = master.try_clone()?;
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut buf = vec![0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buf) {
                if sender.send(buf.iter().take(n).copied().collect()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, master, chunks, transcript: String::new(), seen: 0 })
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.master.write_all(text.as_bytes())?)
    }

    /// Waits until this text appears after what was expected last.
    ///
    /// # Errors
    /// At the deadline, or at the end of the output.
    pub(crate) fn expect(&mut self, text: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let fresh = self.transcript.get(self.seen..).unwrap_or_default();
            if let Some(at) = fresh.find(text) {
                self.seen += at + text.len();
                return Ok(());
            }
            match self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.transcript.push_str(&String::from_utf8_lossy(&chunk)),
                Err(_) => bail!("{text:?} did not appear; the terminal shows:\n{}", self.transcript),
            }
        }
    }

    /// Waits for the program's end: its exit code.
    ///
    /// # Errors
    /// At the deadline.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<i32> {
        let (status, killed) = run::wait_deadline(&mut self.child, limit)?;
        if killed {
            bail!("did not end; the terminal shows:\n{}", self.transcript);
        }
        Ok(run::code_of(status))
    }
}
