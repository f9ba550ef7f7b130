//! Where the host's hierarchies of control groups are.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Group;

/// Controllers of version 1 that limit or count something here. The others (`devices`, `freezer`, `perf_event`) have
/// nothing to say about a sandbox: no program in it opens a device of the host, and it is paused by its own kernel.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "blkio", "pids", "hugetlb", "net_cls"];

/// Stands in place of a controller for a hierarchy by which systemd knows what belongs to a unit.
pub(super) const TRACKER: &str = "name=systemd";

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Its controllers; empty for version 2.
    controllers: Vec<String>,
    /// Which group is mounted.
    root: String,
    /// Where.
    point: PathBuf,
}

/// The hierarchies of a table of mounts, /proc/self/mountinfo.
fn hierarchies(table: &str) -> Vec<Hierarchy> {
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let fields: Vec<&str> = left.split(' ').collect();
        let (root, point) = (fields.get(3)?, fields.get(4)?);
        let mut right = right.split(' ');
        let controllers = match right.next()? {
            "cgroup2" => Vec::new(),
            "cgroup" => {
                let options = right.nth(1)?;
                let ours = options.split(',').filter(|option| CONTROLLERS.contains(option));
                ours.map(str::to_owned).collect()
            }
            _ => return None,
        };
        Some(Hierarchy { controllers, root: (*root).to_owned(), point: PathBuf::from(point) })
    };
    let all: Vec<Hierarchy> = table.lines().filter_map(parse).collect();
    let first = all.iter().any(|h| !h.controllers.is_empty());
    let mut kept: Vec<Hierarchy> = Vec::new();
    for hierarchy in all {
        // In the hybrid layout the hierarchy of version 2 has no controllers.
        let used = hierarchy.controllers.is_empty() != first;
        if used && !kept.iter().any(|other| other.controllers == hierarchy.controllers) {
            kept.push(hierarchy);
        }
    }
    kept
}

/// The group of this process in a hierarchy, from /proc/self/cgroup.
fn own<'a>(table: &'a str, hierarchy: &Hierarchy) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let of_it = match hierarchy.controllers.first() {
            None => names.is_empty(),
            Some(controller) => names.split(',').any(|name| name == controller),
        };
        of_it.then_some(path)
    })
}

/// The groups that a path of a configuration names: from the root of each hierarchy where it is absolute, else from the
/// group of this process.
///
/// # Errors
/// A path that leads upwards.
pub(super) fn groups(path: &str) -> Result<Vec<Group>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("mounts")?;
    let membership = std::fs::read_to_string("/proc/self/cgroup").context("control groups")?;
    groups_in(path, &table, &membership)
}

fn groups_in(path: &str, table: &str, membership: &str) -> Result<Vec<Group>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    ensure!(!parts.contains(&".."), "linux.cgroupsPath: {path:?} leads upwards");
    ensure!(!parts.is_empty(), "linux.cgroupsPath: {path:?} names no group");
    let mut groups = Vec::new();
    for hierarchy in hierarchies(table) {
        let mut dir = hierarchy.point.clone();
        if !path.starts_with('/')
            && let Some(own) = own(membership, &hierarchy)
        {
            let below = Path::new(own).strip_prefix(&hierarchy.root).unwrap_or(Path::new(own));
            dir.push(below.strip_prefix("/").unwrap_or(below));
        }
        dir.extend(&parts);
        // Controllers that are mounted together share one folder.
        let controllers =
            if hierarchy.controllers.is_empty() { vec![String::new()] } else { hierarchy.controllers };
        groups.extend(controllers.into_iter().map(|controller| Group { controller, dir: dir.clone() }));
    }
    Ok(groups)
}

/// The groups, in hierarchies without a controller, that systemd may have at an absolute path beside those with one.
///
/// # Errors
/// When the table of mounts cannot be read.
pub(super) fn trackers(path: &str) -> Result<Vec<Group>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("mounts")?;
    Ok(trackers_in(path, &table))
}

fn trackers_in(path: &str, table: &str) -> Vec<Group> {
    let hybrid = hierarchies(table).iter().any(|hierarchy| !hierarchy.controllers.is_empty());
    let point = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let tracks = right.starts_with("cgroup2 ") || right.split([' ', ',']).any(|option| option == TRACKER);
        (hybrid && tracks).then(|| left.split(' ').nth(4).map(PathBuf::from)).flatten()
    };
    let below = path.trim_start_matches('/');
    let group = |point: PathBuf| Group { controller: TRACKER.to_owned(), dir: point.join(below) };
    table.lines().filter_map(point).map(group).collect()
}

/// Lets groups below this one of version 2 have every controller that it has.
pub(super) fn delegate(dir: &Path) {
    let controllers = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One that cannot be had is missed where a limit needs it.
        let _refused = std::fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 30 0:29 /outer /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
    const OWN: &str = "4:memory:/outer/inner\n3:cpu,cpuacct:/a\n1:name=systemd:/x\n0::/\n";

    fn dirs(path: &str, table: &str) -> Vec<(String, String)> {
        let groups = groups_in(path, table, OWN).unwrap();
        groups.into_iter().map(|g| (g.controller, g.dir.display().to_string())).collect()
    }

    fn pair(controller: &str, dir: &str) -> (String, String) {
        (controller.to_owned(), dir.to_owned())
    }

    #[test]
    fn absolute_paths_start_at_each_hierarchy() {
        let both = "/sys/fs/cgroup/cpu,cpuacct/docker/c1";
        let want =
            [pair("cpu", both), pair("cpuacct", both), pair("memory", "/sys/fs/cgroup/memory/docker/c1")];
        assert_eq!(dirs("/docker/c1", HYBRID), want);
    }

    #[test]
    fn relative_paths_start_at_our_own_group() {
        let found = dirs("c1", HYBRID);
        assert_eq!(found.last(), Some(&pair("memory", "/sys/fs/cgroup/memory/inner/c1")));
        assert_eq!(found.first(), Some(&pair("cpu", "/sys/fs/cgroup/cpu,cpuacct/a/c1")));
    }

    #[test]
    fn version_2_alone_is_used() {
        let table = "31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(dirs("/k/c1", table), [pair("", "/sys/fs/cgroup/k/c1")]);
    }

    #[test]
    fn systemd_tracks_beside_the_controllers() {
        let dirs = |table: &str| -> Vec<String> {
            trackers_in("/s.slice/x.scope", table)
                .iter()
                .map(|group| group.dir.display().to_string())
                .collect()
        };
        let want = ["/sys/fs/cgroup/unified/s.slice/x.scope", "/sys/fs/cgroup/systemd/s.slice/x.scope"];
        assert_eq!(dirs(HYBRID), want);
        assert!(dirs("31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").is_empty());
    }

    #[test]
    fn paths_do_not_lead_upwards() {
        assert!(groups_in("/a/../../b", HYBRID, OWN).is_err());
        assert!(groups_in("/", HYBRID, OWN).is_err());
    }
}
