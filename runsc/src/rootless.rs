//! Sandboxes of users who are not root: the command line becomes root of a user namespace.
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::unistd::{getegid, geteuid};
use sandbox::launch::{Mapper, become_root_of};
use sandbox::spec::{IdMapping, IdMappings, Spec};

use crate::cli::{Global, Verb};
use crate::{ids, log};

/// Gives a user who is not root what a verb needs.
///
/// # Errors
/// When it cannot be had.
pub(crate) fn prepare(global: &mut Global, verb: &Verb) -> Result<()> {
    let asked = global.rootless.as_deref();
    ensure!(
        matches!(asked, None | Some("auto" | "true" | "false")),
        "--rootless={}: not auto, true or false",
        asked.unwrap_or_default()
    );
    if asked == Some("true") {
        // They belong to root.
        global.ignore_cgroups = true;
    }
    if geteuid().is_root() {
        return Ok(());
    }
    let bundle = match verb {
        Verb::Run(run) => Some(run.create.bundle.as_path()),
        Verb::Create(create) => Some(create.bundle.as_path()),
        Verb::Do(_) => None,
        // Others find what these have made.
        _ => return own_folder(&global.root, false),
    };
    ensure!(asked != Some("false"), "--rootless=false: only root can make a sandbox otherwise");
    global.ignore_cgroups = true;
    own_folder(&global.root, true)?;
    // What is wrong with the configuration is said by who uses it.
    let spec = bundle.and_then(|bundle| Spec::load(&std::path::absolute(bundle).ok()?).ok());
    let given = spec.as_ref().map(ids::given).transpose()?.flatten();
    global.mapped = given.is_some();
    let (ids, mapper) = match given {
        Some(ids) if is_own(&ids) => (ids, Mapper::Own),
        Some(ids) => (ids, Mapper::Helpers),
        None => subordinate().map_or_else(|| (own(), Mapper::Own), |ids| (ids, Mapper::Helpers)),
    };
    let became = match become_root_of(&ids, mapper) {
        // They may be missing, or forbidden.
        Err(error) if mapper == Mapper::Helpers && !global.mapped => {
            log::warn(&format!("the container has one id only: {error}"));
            become_root_of(&own(), Mapper::Own)
        }
        other => other,
    };
    became.context("--rootless: make a user namespace")
}

/// Checks that the state directory is the user's own, and makes it if it is wanted.
fn own_folder(root: &Path, wanted: bool) -> Result<()> {
    if wanted {
        let made = DirBuilder::new().mode(0o700).recursive(true).create(root);
        made.with_context(|| format!("make {}", root.display()))?;
    }
    let Ok(meta) = std::fs::symlink_metadata(root) else { return Ok(()) };
    let fine = meta.is_dir() && meta.uid() == geteuid().as_raw() && meta.mode() & 0o022 == 0;
    ensure!(fine, "{} is not a directory that only you can write to; --root names another", root.display());
    Ok(())
}

/// The user's own ids, as root.
fn own() -> IdMappings {
    let only = |host_id| vec![IdMapping { container_id: 0, host_id, size: 1 }];
    IdMappings { users: only(geteuid().as_raw()), groups: only(getegid().as_raw()) }
}

fn is_own(ids: &IdMappings) -> bool {
    *ids == own()
}

/// The user's own ids as root, and those that an administrator gave to the user; none without any.
fn subordinate() -> Option<IdMappings> {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let uid = geteuid().as_raw().to_string();
    let passwd = text("/etc/passwd");
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    });
    let names = [name.unwrap_or(&uid), &uid];
    let mut ids = own();
    ids.users.extend(ranges(&text("/etc/subuid"), names));
    ids.groups.extend(ranges(&text("/etc/subgid"), names));
    (ids.users.len() > 1 && ids.groups.len() > 1).then_some(ids)
}

/// The ranges that subuid(5) has for one of these names, from id 1 up.
fn ranges(text: &str, names: [&str; 2]) -> Vec<IdMapping> {
    let mut next = 1_u32;
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let (host_id, size) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let end = next.checked_add(size).filter(|_| names.contains(&name) && size > 0)?;
        Some(IdMapping { container_id: std::mem::replace(&mut next, end), host_id, size })
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_subordinate_ids() {
        let text =
            "# none\nother:1:2\nme:100000:65536\n7:200000:10\nme:x:1\nme:5:0\nme:4294967295:4294967295\n";
        let range = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        assert_eq!(ranges(text, ["me", "7"]), [range(1, 100_000, 65_536), range(65_537, 200_000, 10)]);
        assert!(ranges(text, ["nobody", "1"]).is_empty());
    }
}
