//! The mounts that make a container's root, as containerd describes them.
use std::ffi::CString;
use std::path::Path;

use anyhow::{Context, Result};
use containerd_shim::protos::types::mount::Mount;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Options that are flags of mount(2), and whether they set them.
const FLAGS: &[(&str, bool, MountFlags)] = &[
    ("ro", true, MountFlags::RDONLY),
    ("rw", false, MountFlags::RDONLY),
    ("bind", true, MountFlags::BIND),
    ("rbind", true, MountFlags::BIND.union(MountFlags::REC)),
    ("nosuid", true, MountFlags::NOSUID),
    ("suid", false, MountFlags::NOSUID),
    ("nodev", true, MountFlags::NODEV),
    ("dev", false, MountFlags::NODEV),
    ("noexec", true, MountFlags::NOEXEC),
    ("exec", false, MountFlags::NOEXEC),
    ("noatime", true, MountFlags::NOATIME),
    ("relatime", true, MountFlags::RELATIME),
    ("sync", true, MountFlags::SYNCHRONOUS),
];

/// Flags and data of mount(2).
fn parse(options: &[String]) -> (MountFlags, String) {
    let (mut flags, mut data) = (MountFlags::empty(), Vec::new());
    for option in options {
        match FLAGS.iter().find(|(name, ..)| name == option) {
            Some((_, set, flag)) => flags.set(*flag, *set),
            None if option == "defaults" => {}
            None => data.push(option.as_str()),
        }
    }
    (flags, data.join(","))
}

/// Mounts them one over the other; what was mounted stays if one fails.
///
/// # Errors
/// Those of mount(2).
pub(crate) fn mount_all(mounts: &[Mount], at: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(at).with_context(|| format!("make {}", at.display()))?;
    for one in mounts {
        let (flags, data) = parse(&one.options);
        let data = CString::new(data)?;
        let said = || format!("mount {} at {}", one.source, at.display());
        mount(&one.source, at, &one.type_, flags, Some(data.as_c_str())).with_context(said)?;
        let changes = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if flags.contains(MountFlags::BIND) && flags.intersects(changes) {
            // A bind takes no other flags the first time.
            rustix::mount::mount_remount(at, flags & (changes | MountFlags::BIND), c"").with_context(said)?;
        }
    }
    Ok(())
}

/// Unmounts all that is mounted there.
pub(crate) fn unmount_all(at: &Path) {
    while unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_flags_from_data() {
        let options = ["rbind", "ro", "lowerdir=/a:/b", "index=off"].map(str::to_owned);
        let (flags, data) = parse(&options);
        assert_eq!(flags, MountFlags::BIND | MountFlags::REC | MountFlags::RDONLY);
        assert_eq!(data, "lowerdir=/a:/b,index=off");
    }
}
