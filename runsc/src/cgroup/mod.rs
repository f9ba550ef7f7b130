//! Control groups of the host, for the processes of a sandbox.
mod layout;
mod limits;
mod stats;
mod systemd;

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sandbox::spec::Resources;
use serde::{Deserialize, Serialize};

use systemd::{Manager, Scope};

pub(crate) use stats::{OomEvents, stats, stats_inside};
pub(crate) use systemd::{Keeper, keep_scope};

/// How long a group whose processes just ended may take to be empty.
const EMPTYING: Duration = Duration::from_secs(2);

/// A group in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The controller of a version 1 hierarchy; empty for version 2, [`layout::TRACKER`] for what systemd looks at.
    pub(crate) controller: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
}

/// The groups of a container, one a hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups {
    all: Vec<Group>,
    /// The scope that they belong to, where systemd makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
}

impl From<Vec<Group>> for Groups {
    fn from(all: Vec<Group>) -> Self {
        Self { all, scope: None }
    }
}

impl Groups {
    /// The groups that a container with this path has; none is made yet.
    ///
    /// # Errors
    /// When the host has no control groups, or the path makes no sense.
    pub(crate) fn planned(path: &str, by_systemd: bool) -> Result<Self> {
        let scope = by_systemd.then(|| Scope::parse(path)).transpose()?;
        let mut all = layout::groups(&scope.as_ref().map_or_else(|| path.to_owned(), Scope::path))?;
        if all.is_empty() {
            bail!("the host has no control groups mounted; --ignore-cgroups does without");
        }
        if let Some(scope) = &scope {
            all.extend(layout::trackers(&scope.path())?);
        }
        Ok(Self { all, scope })
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Makes them; on failure none of them is left. What is returned keeps them until processes are in them.
    ///
    /// # Errors
    /// When the host or systemd does not let us make them or set a limit.
    pub(crate) fn create(&self, resources: &Resources) -> Result<Option<Keeper>> {
        let start = |scope| Manager::connect()?.start(scope, resources, self.unified());
        let keeper = self.scope.as_ref().map(start).transpose()?;
        let made = self.make().and_then(|()| limits::apply(self, resources));
        if made.is_err() {
            drop(keeper);
            // The first error is the one to tell.
            let _left = self.remove();
            return made.map(|()| None);
        }
        Ok(keeper)
    }

    fn make(&self) -> Result<()> {
        for group in self.all.iter().filter(|group| group.controller != layout::TRACKER) {
            make_dir(group).with_context(|| format!("make {}", group.dir.display()))?;
        }
        Ok(())
    }

    /// Sets limits; what is not named stays.
    ///
    /// # Errors
    /// When the host or systemd refuses one.
    pub(crate) fn apply(&self, resources: &Resources) -> Result<()> {
        if let Some(scope) = &self.scope {
            Manager::connect()?.update(scope, resources, self.unified())?;
        }
        limits::apply(self, resources)
    }

    /// The files that a process writes `0` to, to become a member of each group.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(crate) fn doors(&self) -> Result<Vec<OwnedFd>> {
        let open = |group: &Group| {
            // A write to `tasks` by a process about itself needs no lock of the whole host; version 2 has no such file.
            let tasks = group.dir.join("tasks");
            let path = if tasks.exists() { tasks } else { group.dir.join("cgroup.procs") };
            let file = File::options().write(true).open(&path);
            file.map(OwnedFd::from).with_context(|| format!("open {}", path.display()))
        };
        // systemd does not make its scope in each hierarchy that it could look at.
        let is_there = |group: &&Group| group.controller != layout::TRACKER || group.dir.is_dir();
        self.all.iter().filter(is_there).map(open).collect()
    }

    /// The folder of the group with this controller; of version 2 where that is what there is.
    pub(crate) fn with(&self, controller: &str) -> Option<&Path> {
        let found =
            self.all.iter().find(|group| group.controller.is_empty() || group.controller == controller);
        found.map(|group| group.dir.as_path())
    }

    /// Whether they are of version 2.
    pub(crate) fn unified(&self) -> bool {
        self.all.iter().any(|group| group.controller.is_empty())
    }

    /// Removes the groups; no error for those that are gone.
    ///
    /// # Errors
    /// When one stays.
    pub(crate) fn remove(&self) -> Result<()> {
        if let Some(scope) = &self.scope
            && let Err(error) = Manager::connect().and_then(|mut manager| manager.stop(scope))
        {
            // A scope without processes, or without groups, ends by itself.
            crate::log::warn(&format!("{error:#}"));
        }
        let deadline = Instant::now() + EMPTYING;
        for group in &self.all {
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
