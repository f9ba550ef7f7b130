//! The state directory: one folder a container, with its state, a lock and the control socket.
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use sandbox::spec::{Hooks, IdMappings};
use serde::{Deserialize, Serialize};

use crate::cgroup::Groups;

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// It is being made.
    Creating,
    /// Its program waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its programs are kept from running.
    Paused,
    /// Its program has ended.
    Stopped,
}

impl Status {
    /// As the OCI specification spells it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What is kept of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct State {
    /// Its name.
    pub(crate) id: String,
    /// Its bundle.
    pub(crate) bundle: PathBuf,
    /// Its root.
    pub(crate) rootfs: PathBuf,
    /// The container whose sandbox it is in, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sandbox: Option<String>,
    /// The sentry, or the process that ends as the container in another's sandbox ends: its process id, and when it started in the host's clock ticks (ids are used again).
    pub(crate) pid: i32,
    pub(crate) pid_start: u64,
    /// The gofer, likewise.
    pub(crate) gofer: i32,
    pub(crate) gofer_start: u64,
    /// When it was made, RFC 3339.
    pub(crate) created: String,
    /// Whether everything of it is there.
    pub(crate) complete: bool,
    /// Whether its program was started.
    pub(crate) started: bool,
    /// Whether its programs are kept from running.
    pub(crate) paused: bool,
    /// Who its users and groups are on the host, where they are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ids: Option<IdMappings>,
    /// Its control groups.
    pub(crate) groups: Groups,
    /// Who made it.
    pub(crate) owner: u32,
    /// Notes of the caller.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Programs that run as its life goes on.
    pub(crate) hooks: Hooks,
}

impl State {
    /// Records its processes.
    pub(crate) fn set_processes(&mut self, pid: i32, gofer: i32) {
        (self.pid, self.pid_start) = (pid, start_time(pid).unwrap_or(0));
        (self.gofer, self.gofer_start) = (gofer, start_time(gofer).unwrap_or(0));
    }

    /// What it is doing now.
    pub(crate) fn status(&self) -> Status {
        if self.pid == 0 {
            return Status::Creating;
        }
        if start_time(self.pid) != Some(self.pid_start) {
            return Status::Stopped;
        }
        match (self.complete, self.started, self.paused) {
            (false, ..) => Status::Creating,
            (true, _, true) => Status::Paused,
            (true, false, false) => Status::Created,
            (true, true, false) => Status::Running,
        }
    }
}

/// When a process started; none for one that is gone, or a zombie.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // Field 22 of proc(5), of which the first three are behind us.
    fields.nth(18)?.parse().ok()
}

/// The folder of a container.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Where it is.
    pub(crate) path: PathBuf,
    keep: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // What fails here is found by `delete`.
            let _left = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Checks a container's name.
///
/// # Errors
/// When it could not be the name of a folder.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    ensure!(
        !id.is_empty() && id.len() <= 255 && id.chars().all(fine) && id != "." && id != "..",
        "invalid container id {id:?}"
    );
    Ok(())
}

impl Folder {
    /// Makes the folder of a new container; removed again unless [`Folder::keep`] is called.
    ///
    /// # Errors
    /// When there is one already, or it cannot be made.
    pub(crate) fn create(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o711);
        builder.recursive(true).create(root).with_context(|| format!("make {}", root.display()))?;
        let path = root.join(id);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self { path, keep: false }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("container with id exists: {id}")
            }
            Err(error) => Err(error).with_context(|| format!("make {}", path.display())),
        }
    }

    /// The folder of a container that exists.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        ensure!(path.is_dir(), "container does not exist: {id}");
        Ok(Self { path, keep: true })
    }

    /// Lets it stay.
    pub(crate) const fn keep(&mut self) {
        self.keep = true;
    }

    /// Removes it.
    ///
    /// # Errors
    /// When something of it stays.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.keep = true;
        std::fs::remove_dir_all(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }

    /// Waits for the right to change the container; held until dropped.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub(crate) fn lock(&self) -> Result<Flock<File>> {
        let path = self.path.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).context("lock the container")
    }

    /// Reads the state.
    ///
    /// # Errors
    /// When there is none that makes sense.
    pub(crate) fn load(&self) -> Result<State> {
        let path = self.path.join("state.json");
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
    }

    /// Writes the state: a reader sees the old or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save(&self, state: &State) -> Result<()> {
        let (fresh, path) = (self.path.join("state.json.new"), self.path.join("state.json"));
        let mut file = File::create(&fresh).with_context(|| format!("write {}", fresh.display()))?;
        file.write_all(&serde_json::to_vec(state)?)?;
        std::fs::rename(&fresh, &path).with_context(|| format!("write {}", path.display()))
    }

    /// The file that the sentry records the exit status in.
    pub(crate) fn exit_record(&self) -> PathBuf {
        self.path.join("exit")
    }

    /// The file that the sentry counts in how often memory ran out inside.
    pub(crate) fn oom_record(&self) -> PathBuf {
        self.path.join("oom")
    }

    /// The exit status that the sentry recorded; 137 when it was killed before it could.
    pub(crate) fn exit_code(&self) -> i32 {
        let text = std::fs::read_to_string(self.exit_record()).unwrap_or_default();
        text.trim().parse().unwrap_or(137)
    }
}

/// Every container with a state that makes sense, by name.
pub(crate) fn all(root: &Path) -> Vec<State> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut states: Vec<State> = entries
        .filter_map(|entry| Folder::open(root, entry.file_name().to_str()?).ok()?.load().ok())
        .collect();
    states.sort_by(|a, b| a.id.cmp(&b.id));
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_folders() {
        for good in ["a", "web-1.2_x", "+"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a b", "é"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn our_own_start_time_is_known() {
        assert!(start_time(i32::try_from(std::process::id()).unwrap()).is_some());
        assert!(start_time(i32::MAX).is_none());
    }
}
