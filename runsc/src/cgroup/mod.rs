//! Control groups of the host, for the processes of a sandbox.
mod layout;
mod limits;
mod stats;

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sandbox::spec::Resources;
use serde::{Deserialize, Serialize};

pub(crate) use stats::{OomEvents, stats, stats_inside};

/// How long a group whose processes just ended may take to be empty.
const EMPTYING: Duration = Duration::from_secs(2);

/// A group in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The controller of a version 1 hierarchy; empty for version 2.
    pub(crate) controller: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
}

/// The groups of a container, one a hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Groups(pub(crate) Vec<Group>);

impl Groups {
    /// The groups that a container with this path has; none is made yet.
    ///
    /// # Errors
    /// When the host has no control groups, or the path makes no sense.
    pub(crate) fn planned(path: &str) -> Result<Self> {
        let groups = Self(layout::groups(path)?);
        if groups.0.is_empty() {
            bail!("the host has no control groups mounted; --ignore-cgroups does without");
        }
        Ok(groups)
    }

    /// Makes them; on failure none of them is left.
    ///
    /// # Errors
    /// When the host does not let us make them or set a limit.
    pub(crate) fn create(&self, resources: &Resources) -> Result<()> {
        let made = self.make().and_then(|()| self.apply(resources));
        if made.is_err() {
            // The first error is the one to tell.
            let _left = self.remove();
        }
        made
    }

    fn make(&self) -> Result<()> {
        for group in &self.0 {
            make_dir(group).with_context(|| format!("make {}", group.dir.display()))?;
        }
        Ok(())
    }

    /// Sets limits; what is not named stays.
    ///
    /// # Errors
    /// When the host refuses one.
    pub(crate) fn apply(&self, resources: &Resources) -> Result<()> {
        limits::apply(self, resources)
    }

    /// The files that a process writes `0` to, to become a member of each group.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(crate) fn doors(&self) -> Result<Vec<OwnedFd>> {
        let open = |group: &Group| {
            // A write to `tasks` by a process about itself needs no lock of the whole host; version 2 has no such file.
            let name = if group.controller.is_empty() { "cgroup.procs" } else { "tasks" };
            let path = group.dir.join(name);
            let file = File::options().write(true).open(&path);
            file.map(OwnedFd::from).with_context(|| format!("open {}", path.display()))
        };
        self.0.iter().map(open).collect()
    }

    /// The folder of the group with this controller; of version 2 where that is what there is.
    pub(crate) fn with(&self, controller: &str) -> Option<&Path> {
        let found = self.0.iter().find(|group| group.controller.is_empty() || group.controller == controller);
        found.map(|group| group.dir.as_path())
    }

    /// Whether they are of version 2.
    pub(crate) fn unified(&self) -> bool {
        self.0.iter().any(|group| group.controller.is_empty())
    }

    /// Removes the groups; no error for those that are gone.
    ///
    /// # Errors
    /// When one stays.
    pub(crate) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + EMPTYING;
        for group in &self.0 {
            loop {
                match std::fs::remove_dir(&group.dir) {
                    Ok(()) => break,
                    Err(error) if error.kind() == ErrorKind::NotFound => break,
                    // A process that was just killed is still a member until its parent collects it.
                    Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(error) => {
                        return Err(error).with_context(|| format!("remove {}", group.dir.display()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Makes a group and those above it. A new group of `cpuset` has no processors until it is given those of its parent.
fn make_dir(group: &Group) -> std::io::Result<()> {
    if group.dir.is_dir() {
        return Ok(());
    }
    let Some(parent) = group.dir.parent() else { return Ok(()) };
    make_dir(&Group { controller: group.controller.clone(), dir: parent.to_path_buf() })?;
    if group.controller.is_empty() {
        layout::delegate(parent);
    }
    match std::fs::create_dir(&group.dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if group.controller == "cpuset" {
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let (own, above) = (group.dir.join(name), parent.join(name));
            if std::fs::read_to_string(&own)?.trim().is_empty() {
                std::fs::write(&own, std::fs::read_to_string(&above)?.trim())?;
            }
        }
    }
    Ok(())
}
