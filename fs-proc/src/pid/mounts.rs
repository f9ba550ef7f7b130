//! `/proc/PID/{mounts,mountinfo,mountstats}`, proc(5).
use std::sync::Arc;

use abi::Errno;
use abi::fs::{MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_RELATIME};
use abi::stat::{major, minor};
use kernel::Task;
use vfs::{FsContext, Mount, Path};

/// A field in which white space and backslashes are written in octal.
fn escaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    for byte in field {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend(format!("\\{byte:03o}").bytes()),
            _ => out.push(*byte),
        }
    }
    out
}

fn mount_options(mount: &Mount) -> String {
    let flags = mount.flags();
    let mut out = String::from(if flags & MS_RDONLY == 0 { "rw" } else { "ro" });
    let names = [
        (MS_NOSUID, ",nosuid"),
        (MS_NODEV, ",nodev"),
        (MS_NOEXEC, ",noexec"),
        (MS_NOATIME, ",noatime"),
        (MS_NODIRATIME, ",nodiratime"),
        (MS_RELATIME, ",relatime"),
    ];
    for (flag, name) in names {
        if flags & flag != 0 {
            out.push_str(name);
        }
    }
    out
}

fn super_options(mount: &Mount) -> Vec<u8> {
    let mut out = Vec::from(if mount.sb().is_read_only() { &b"ro"[..] } else { b"rw" });
    let more = mount.sb().fs().options();
    if !more.is_empty() {
        out.push(b',');
        out.extend(more);
    }
    out
}

/// The mounts the task can reach from its root, with where they are.
fn reachable(task: &Task) -> Result<Vec<(Arc<Mount>, Vec<u8>)>, Errno> {
    let context = FsContext::of(task)?;
    let root = context.root();
    let place = |mount: Arc<Mount>| {
        let name = mount.root_path().name(&root);
        (!name.unreachable).then_some((mount, name.name))
    };
    Ok(context.namespace().mounts().into_iter().filter_map(place).collect())
}

/// What is mounted, from the root of its file system.
fn root_in_file_system(mount: &Arc<Mount>) -> Vec<u8> {
    let top = Path { mount: Arc::clone(mount), dentry: Arc::clone(mount.sb().root()) };
    let mut names = Vec::new();
    let mut at = Arc::clone(mount.root());
    while !Arc::ptr_eq(&at, &top.dentry) {
        let (parent, name) = at.place();
        let Some(parent) = parent else { break };
        names.push(name);
        at = parent;
    }
    let mut out: Vec<u8> = names.iter().rev().flat_map(|n| [b"/".as_slice(), n.as_ref()].concat()).collect();
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// `mounts`.
pub(super) fn mounts(task: &Task) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    for (mount, place) in reachable(task)? {
        let fs = mount.sb().fs();
        let mut options = mount_options(&mount).into_bytes();
        let more = fs.options();
        if !more.is_empty() {
            options.push(b',');
            options.extend(more);
        }
        let fields = [
            &escaped(mount.source())[..],
            &escaped(&place),
            fs.name().as_bytes(),
            &escaped(&options),
            b"0 0",
        ];
        out.extend(fields.join(&b' '));
        out.push(b'\n');
    }
    Ok(out)
}

/// `mountinfo`.
pub(super) fn mountinfo(task: &Task) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    for (mount, place) in reachable(task)? {
        let parent = mount.attached_on().map_or_else(|| mount.id(), |on| on.mount.id());
        let device = mount.sb().device();
        let head = format!("{} {parent} {}:{}", mount.id(), major(device), minor(device));
        let root = escaped(&root_in_file_system(&mount));
        let options = mount_options(&mount);
        let name = mount.sb().fs().name();
        let fields = [
            head.as_bytes(),
            &root,
            &escaped(&place),
            options.as_bytes(),
            b"-",
            name.as_bytes(),
            &escaped(mount.source()),
            &escaped(&super_options(&mount)),
        ];
        out.extend(fields.join(&b' '));
        out.push(b'\n');
    }
    Ok(out)
}

/// `mountstats`.
pub(super) fn mountstats(task: &Task) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    for (mount, place) in reachable(task)? {
        let name = mount.sb().fs().name().as_bytes();
        let (source, place) = (escaped(mount.source()), escaped(&place));
        let parts = [&b"device "[..], &source, b" mounted on ", &place, b" with fstype ", name, b"\n"];
        out.extend(parts.concat());
    }
    Ok(out)
}
