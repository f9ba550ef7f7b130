//! Kernel parameters, as far as the sandbox's kernel has them.
use std::collections::BTreeMap;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{O_RDONLY, O_WRONLY};
use memmap::{IoDst, IoSrc};
use vfs::{At, LookupFlags, Vfs};

use super::container::words;
use super::report;

/// Where parameters are.
const DIR: &str = "/proc/sys";
/// The longest value that is looked at.
const MAX: usize = 4096;
/// Those that are set before there is a tree.
const NAMES: [&str; 2] = ["kernel.hostname", "kernel.domainname"];

/// Sets parameters in the container's proc; without one, nothing can tell what they are.
///
/// # Errors
/// Which one cannot be set, and why.
pub(super) fn set_all(vfs: &Vfs<'_>, parameters: &BTreeMap<String, String>) -> Result<(), String> {
    let found = vfs.resolve(&At::Cwd, DIR.as_bytes(), LookupFlags::FOLLOW);
    if !found.is_ok_and(|found| found.mount.sb().fs().name() == "proc") {
        return Ok(());
    }
    for (name, value) in parameters.iter().filter(|(name, _)| !NAMES.contains(&name.as_str())) {
        match set(vfs, name, value) {
            Ok(()) => {}
            // Managers of containers ask for these without being asked themselves.
            Err(Errno::ENOENT) if name.starts_with("net.") => {
                report::line(&format!("ignored: linux.sysctl: {name}: there is no network that has it"));
            }
            Err(errno) => return Err(format!("linux.sysctl: {name}: {}", words(errno))),
        }
    }
    Ok(())
}

fn set(vfs: &Vfs<'_>, name: &str, value: &str) -> Result<(), Errno> {
    let path = format!("{DIR}/{}", name.replace('.', "/"));
    let found = vfs.resolve(&At::Cwd, path.as_bytes(), LookupFlags::FOLLOW)?;
    let inode = found.inode()?;
    let mut text = vec![0; MAX];
    let file = Arc::clone(inode).open(&vfs.cx, O_RDONLY)?;
    let length = file.read_at(&vfs.cx, &mut IoDst::kernel(&mut text), 0)?;
    text.truncate(length);
    // What it is already, it can be.
    if String::from_utf8_lossy(&text).split_whitespace().eq(value.split_whitespace()) {
        return Ok(());
    }
    let file = Arc::clone(inode).open(&vfs.cx, O_WRONLY)?;
    let line = format!("{value}\n");
    file.write_at(&vfs.cx, &mut IoSrc::kernel(line.as_bytes()), 0).map(drop)
}
