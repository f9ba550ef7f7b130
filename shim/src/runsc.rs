//! Runs `runsc`.
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::options::Options;
use crate::reaper::reaper;
use crate::streams::Standard;

/// The most of an answer that is read.
const MOST: u64 = 16 << 20;
/// The least time between two reports of use that nobody asked for.
const NEVER: &str = "8760h";

/// How `runsc` is called for one container.
#[derive(Clone, Debug)]
pub(crate) struct Runsc {
    options: Options,
    root: PathBuf,
    bundle: PathBuf,
    id: String,
}

impl Runsc {
    /// For the container of this name and bundle.
    pub(crate) fn new(options: Options, namespace: &str, bundle: &Path, id: &str) -> Self {
        Self { root: options.state(namespace), options, bundle: bundle.to_path_buf(), id: id.to_owned() }
    }

    /// The container's bundle.
    pub(crate) fn bundle(&self) -> &Path {
        &self.bundle
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("runsc.log")
    }

    /// The command line up to the verb.
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(self.options.binary());
        command.arg("--root").arg(&self.root);
        command.arg("--log").arg(self.log()).args(["--log-format", "json"]);
        for (name, value) in &self.options.runsc_config {
            match value.as_str() {
                "true" => command.arg(format!("--{name}")),
                "false" => continue,
                value => command.arg(format!("--{name}={value}")),
            };
        }
        command.arg(verb).current_dir(&self.bundle).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        command
    }

    /// Runs a command to its end.
    fn run(&self, command: &mut Command) -> Result<()> {
        // What went wrong before is not what goes wrong now.
        let _none = std::fs::remove_file(self.log());
        let (child, ended) = reaper().spawn(command).with_context(|| self.options.binary().to_owned())?;
        drop(child);
        match ended.recv().context("runsc is lost")? {
            0 => Ok(()),
            code => bail!("{}", self.complaint().unwrap_or_else(|| format!("runsc ends with {code}"))),
        }
    }

    /// The last error that `runsc` logged.
    fn complaint(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.log()).ok()?;
        let entries = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let errors = entries.filter(|entry| entry.pointer("/level").and_then(Value::as_str) == Some("error"));
        errors.into_iter().find_map(|entry| entry.pointer("/msg")?.as_str().map(str::to_owned))
    }

    /// Runs a command, and reads what it says.
    fn ask(&self, command: &mut Command) -> Result<String> {
        let _none = std::fs::remove_file(self.log());
        command.stdout(Stdio::piped());
        let (mut child, ended) = reaper().spawn(command).with_context(|| self.options.binary().to_owned())?;
        let mut text = String::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MOST).read_to_string(&mut text).context("runsc")?;
        }
        drop(child);
        match ended.recv().context("runsc is lost")? {
            0 => Ok(text),
            code => bail!("{}", self.complaint().unwrap_or_else(|| format!("runsc ends with {code}"))),
        }
    }

    /// Creates the container; the id of the process that ends as it ends.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn create(&self, streams: Standard, console: Option<&Path>) -> Result<u32> {
        let pid_file = self.bundle.join("init.pid");
        let mut command = self.command("create");
        command.arg("--bundle").arg(&self.bundle).arg("--pid-file").arg(&pid_file);
        streams.give(&mut command, console);
        self.run(command.arg(&self.id))?;
        read_pid(&pid_file)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn start(&self) -> Result<()> {
        self.run(self.command("start").arg(&self.id))
    }

    /// Runs another process in it; the id of the process that ends as it ends, and its own in the container.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn exec(
        &self,
        name: &str,
        process: &[u8],
        streams: Standard,
        console: Option<&Path>,
    ) -> Result<(u32, u32)> {
        let file = |kind: &str| self.bundle.join(format!("exec-{name}.{kind}"));
        let (spec, outside, inside) = (file("json"), file("pid"), file("inside"));
        std::fs::write(&spec, process).with_context(|| format!("write {}", spec.display()))?;
        let mut command = self.command("exec");
        command.arg("--process").arg(&spec).arg("--detach").arg("--pid-file").arg(&outside);
        command.arg("--internal-pid-file").arg(&inside);
        streams.give(&mut command, console);
        let ran = self.run(command.arg(&self.id));
        let pids = ran.and_then(|()| Ok((read_pid(&outside)?, read_pid(&inside)?)));
        for path in [spec, outside, inside] {
            // Not there where that failed.
            let _none = std::fs::remove_file(path);
        }
        pids
    }

    /// Sends a signal: to its first process, to another by its id in the container, or to all.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn kill(&self, signal: u32, process: Option<u32>, all: bool) -> Result<()> {
        let mut command = self.command("kill");
        if let Some(pid) = process {
            command.arg(format!("--pid={pid}"));
        }
        if all {
            command.arg("--all");
        }
        self.run(command.arg(&self.id).arg(signal.to_string()))
    }

    /// Removes it, and ends it first if it runs.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn delete(&self) -> Result<()> {
        self.run(self.command("delete").arg("--force").arg(&self.id))
    }

    /// Pauses or resumes it.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        self.run(self.command(if frozen { "pause" } else { "resume" }).arg(&self.id))
    }

    /// Changes its limits, as the JSON of the specification has them.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn update(&self, resources: &[u8]) -> Result<()> {
        let path = self.bundle.join("resources.json");
        std::fs::write(&path, resources).with_context(|| format!("write {}", path.display()))?;
        self.run(self.command("update").arg("--resources").arg(&path).arg(&self.id))
    }

    /// What it uses, an event in JSON.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn stats(&self) -> Result<String> {
        self.ask(self.command("events").arg("--stats").arg(&self.id))
    }

    /// Its processes of the host.
    ///
    /// # Errors
    /// When `runsc` says so.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let text = self.ask(self.command("ps").args(["--format", "json"]).arg(&self.id))?;
        serde_json::from_str(&text).context("runsc ps")
    }

    /// Calls `oom` whenever a process of the container was killed for want of memory, until it ends.
    ///
    /// # Errors
    /// When `runsc` cannot be started.
    pub(crate) fn watch_memory(&self, oom: impl Fn() + Send + 'static) -> Result<()> {
        let mut command = self.command("events");
        command.args(["--interval", NEVER]).arg(&self.id).stdout(Stdio::piped());
        let (mut child, ended) = reaper().spawn(&mut command)?;
        let Some(stdout) = child.stdout.take() else { bail!("no events") };
        let read = move || {
            use std::io::BufRead;
            let lines = std::io::BufReader::new(stdout).lines().map_while(std::result::Result::ok);
            let events = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            for event in events {
                if event.pointer("/type").and_then(Value::as_str) == Some("oom") {
                    oom();
                }
            }
            // It ends with the container.
            let _code = ended.recv();
        };
        std::thread::Builder::new().name("memory".to_owned()).spawn(read)?;
        Ok(())
    }
}

fn read_pid(path: &Path) -> Result<u32> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("read {}", path.display()))
}
