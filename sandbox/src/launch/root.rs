//! The roots that gofer and sentry see.
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

/// Where a new root is put together, in a mount namespace of one's own; any directory that exists everywhere will do.
pub(super) const WORKSHOP: &str = "/tmp";
const NONE: Option<&str> = None;

fn restricted() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

/// Keeps mounts that are made from now on from the host, whose own still come.
pub(super) fn follow_host() -> io::Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
    Ok(())
}

/// Cuts the mount namespace off from the host's, and puts an empty file system at the workshop.
pub(super) fn begin(flags: MsFlags) -> io::Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some("root"), WORKSHOP, Some("tmpfs"), restricted() | flags, Some("mode=755,size=64k"))?;
    Ok(())
}

/// Mounts an overlay of host directories that nobody else sees, overlayfs(5); not part of any tree afterwards.
pub(super) fn overlay(options: &str) -> io::Result<OwnedFd> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    // Directories below the workshop are found before it is covered.
    mount(Some("overlay"), WORKSHOP, Some("overlay"), MsFlags::empty(), Some(options))?;
    let tree = crate::sys::clone_mounts(Path::new(WORKSHOP), false);
    umount2(WORKSHOP, MntFlags::MNT_DETACH)?;
    tree
}

/// Opens /proc/self/fd in a proc that shows this process's PID namespace and nothing of the host's kernel, and that no
/// tree has afterwards.
pub(super) fn own_files() -> io::Result<OwnedFd> {
    let at = format!("{WORKSHOP}/proc");
    std::fs::create_dir(&at)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match mount(Some("proc"), at.as_str(), Some("proc"), restricted(), Some("subset=pid")) {
        Ok(()) => {}
        // In a user namespace where parts of proc are hidden there can be no other; what it has of others is not theirs to see.
        Err(nix::Error::EPERM) => {
            std::fs::remove_dir(&at)?;
            return Ok(nix::fcntl::open("/proc/self/fd", flags, Mode::empty())?);
        }
        Err(error) => return Err(error.into()),
    }
    let fd = nix::fcntl::open(format!("{at}/self/fd").as_str(), flags, Mode::empty())?;
    umount2(at.as_str(), MntFlags::MNT_DETACH)?;
    std::fs::remove_dir(&at)?;
    Ok(fd)
}

/// Makes the workshop the root, and lets go of everything else.
pub(super) fn enter() -> io::Result<()> {
    nix::unistd::chdir(WORKSHOP)?;
    // With both the same, the old root lies over the new one, where umount finds it: no folder is needed for it.
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// Makes the root read-only.
pub(super) fn freeze() -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | restricted();
    mount(NONE, "/", NONE, flags, NONE)?;
    Ok(())
}

/// Moves this process into an empty, read-only root, in the mount namespace that it has for itself.
pub(crate) fn become_empty() -> io::Result<()> {
    begin(MsFlags::MS_RDONLY)?;
    enter()
}

/// File systems that show the host's kernel, not files.
const KERNEL_VIEWS: [&str; 18] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// Takes away mounts below a directory that show the host's kernel. A device node that is mounted by itself may stay: it is
/// looked at and never opened.
pub(super) fn drop_kernel_views(below: &Path, nodes: &[PathBuf]) -> io::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    // Those below others first, as long as their paths lead to them.
    for point in kernel_views(&table, &format!("{}/", below.display())).into_iter().rev() {
        if nodes.iter().any(|node| node.as_os_str() == point.as_str()) {
            continue;
        }
        // In a user namespace what the host has mounted stays; it can be covered.
        if umount2(point.as_str(), MntFlags::MNT_DETACH) == Err(nix::Error::EINVAL) {
            cover(Path::new(&point))?;
        }
    }
    Ok(())
}

/// Puts nothing over what is at a path, if anything is.
fn cover(point: &Path) -> io::Result<()> {
    let flags = restricted() | MsFlags::MS_RDONLY;
    match std::fs::symlink_metadata(point) {
        Ok(found) if found.is_dir() => {
            mount(Some("none"), point, Some("tmpfs"), flags, Some("size=4k,mode=755"))?;
        }
        Ok(_) => {
            let empty = Path::new(WORKSHOP).join("empty");
            std::fs::write(&empty, "")?;
            mount(Some(&empty), point, NONE, MsFlags::MS_BIND, NONE)?;
        }
        // It was below another.
        Err(_) => {}
    }
    Ok(())
}

fn kernel_views(table: &str, below: &str) -> Vec<String> {
    let view = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let kind = right.split(' ').next()?;
        let point = left.split(' ').nth(4)?;
        (KERNEL_VIEWS.contains(&kind) && point.starts_with(below)).then(|| unescape(point))
    };
    table.lines().filter_map(view).collect()
}

/// Undoes what mountinfo does to blanks and backslashes.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012"]
        .iter()
        .zip([" ", "\t", "\n"])
        .fold(text.to_owned(), |t, (f, to)| t.replace(f, to))
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_views_of_the_kernel() {
        let table = "22 1 0:20 / / rw - ext4 /dev/vda rw\n\
                     30 22 0:21 / /tmp/0/proc rw shared:5 - proc proc rw\n\
                     31 22 0:22 / /tmp/0/a\\040b rw - sysfs sysfs rw\n\
                     32 22 0:23 / /tmp/0/home rw - ext4 /dev/vdb rw\n\
                     33 22 0:24 / /proc rw - proc proc rw\n";
        assert_eq!(kernel_views(table, "/tmp/0/"), ["/tmp/0/proc", "/tmp/0/a b"]);
    }
}
