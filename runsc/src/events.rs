//! Where the events of a container are told.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;

use crate::cli::Global;
use crate::log;

/// The annotation by which a container is excepted.
const ANNOTATION: &str = "dev.sentrybox.events";

/// Opens the file, if a container's events are to be told. Which file that is, is said on the command line only: who
/// writes annotations is not to choose files of the host.
///
/// # Errors
/// When it cannot be opened, is neither a file nor a FIFO, or the annotation means nothing.
pub(crate) fn file(
    global: &Global,
    id: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<Option<OwnedFd>> {
    let wanted = match annotations.get(ANNOTATION).map(String::as_str) {
        None => true,
        Some("on") => {
            if global.events_log.is_none() {
                log::warn(&format!("ignored: annotation {ANNOTATION}=on: there is no --events-log"));
            }
            true
        }
        Some("off") => false,
        Some(other) => bail!("annotation {ANNOTATION}: {other:?} is neither on nor off"),
    };
    let Some(path) = global.events_log.as_ref().filter(|_| wanted) else { return Ok(None) };
    let path = match path.to_str() {
        Some(text) => PathBuf::from(text.replace("%ID%", id)),
        None => path.clone(),
    };
    open(&path).with_context(|| format!("--events-log {}", path.display())).map(Some)
}

/// Opens it such that a write never waits for a reader.
fn open(path: &Path) -> Result<OwnedFd> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits();
    let mut options = File::options();
    options.append(true).create(true).mode(0o600).custom_flags(flags);
    let file = match options.open(path) {
        // A FIFO that nobody reads yet: what is told until then stays in it.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => options.read(true).open(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no such folder"),
        other => other?,
    };
    let kind = file.metadata()?.file_type();
    ensure!(kind.is_file() || kind.is_fifo(), "neither a file nor a FIFO");
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_does_not_wait() {
        let dir = std::env::temp_dir().join(format!("runsc-events-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let fifo = dir.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open(&fifo).is_ok());
        assert!(open(&dir.join("file")).is_ok());
        assert!(open(&dir.join("none/file")).is_err());
        assert!(open(Path::new("/dev/null")).is_err());
        assert!(open(&dir).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
