//! What the command line says, and the log file.
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result};
pub(crate) use sandbox::timestamp;

use crate::cli::{Global, LogFormat};

/// Verbs that start a sandbox.
const VERBS: [&str; 3] = ["create", "run", "do"];

/// The log file and its format.
static LOG: OnceLock<(File, LogFormat)> = OnceLock::new();

/// Opens the log file.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn init(global: &Global) -> Result<()> {
    let file = match (&global.log_fd, &global.log) {
        (Some(number), _) => Some(sandbox::duplicate(*number).context("--log-fd")?.into()),
        (None, Some(path)) => Some(append(path)?),
        (None, None) => None,
    };
    if let Some(file) = file {
        // Called once.
        let _first = LOG.set((file, global.log_format));
    }
    Ok(())
}

/// The file for reports of a command and its sandbox. In a directory it is one of its own; `%ID%`, `%COMMAND%` and
/// `%TIMESTAMP%` are replaced, as gVisor does.
pub(crate) fn debug_file(global: &Global, id: &str) -> Option<PathBuf> {
    let given = global.debug_log.as_ref()?;
    let command = std::env::args().find(|arg| VERBS.contains(&arg.as_str())).unwrap_or_default();
    let now = timestamp(SystemTime::now());
    let stamp: String = now.chars().filter(char::is_ascii_digit).take(20).collect();
    let mut text = given.to_str()?.to_owned();
    if text.ends_with('/') || given.is_dir() {
        text = format!("{}/runsc.log.%TIMESTAMP%.%COMMAND%.txt", text.trim_end_matches('/'));
    }
    Some(text.replace("%ID%", id).replace("%COMMAND%", &command).replace("%TIMESTAMP%", &stamp).into())
}

/// The file that processes of a sandbox report to, where one was named.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn report(global: &Global, id: &str) -> Result<Option<File>> {
    debug_file(global, id).or_else(|| global.log.clone()).map(|path| append(&path)).transpose()
}

/// Whether they report in JSON.
pub(crate) fn reports_json(global: &Global) -> bool {
    global.debug_log.is_none() && global.log.is_some() && global.log_format == LogFormat::Json
}

/// Opens a file that lines are appended to.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn append(path: &std::path::Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| format!("open log {}", path.display()))
}

/// Shows a result on standard output.
pub(crate) fn say(text: &str) {
    // A reader that has gone away has what it wants.
    let _unread = writeln!(std::io::stdout(), "{text}");
}

/// Shows an error on standard error: one line.
pub(crate) fn complain(error: &anyhow::Error) {
    let _unread = writeln!(std::io::stderr(), "runsc: {}", line(error));
}

/// Shows an error, and logs it.
pub(crate) fn fail(error: &anyhow::Error) {
    complain(error);
    write("error", &line(error));
}

/// Logs a warning; nobody is bothered with it who did not ask for a log.
pub(crate) fn warn(text: &str) {
    write("warning", text);
}

fn line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

fn write(level: &str, message: &str) {
    let Some((file, format)) = LOG.get() else { return };
    // To the second, as runc has it.
    let time = timestamp(SystemTime::now());
    let time = format!("{}Z", time.get(..19).unwrap_or_default());
    let line = match format {
        LogFormat::Json => serde_json::json!({"level": level, "msg": message, "time": time}).to_string(),
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}"),
    };
    let mut file = file;
    // There is no other place to report to.
    let _unwritten = writeln!(file, "{line}");
}
