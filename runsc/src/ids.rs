//! Who the users and groups of a container are on the host.
use anyhow::{Result, bail, ensure};
use sandbox::spec::{IdMappings, Mount, Namespace, Spec};

use crate::container::Container;
use crate::namespaces;

/// The ids of a container with a user namespace; none where its ids are the host's.
///
/// # Errors
/// When the configuration contradicts itself, or names a user namespace that is not of its pod.
pub(crate) fn of(spec: &Spec, first: Option<&Container>) -> Result<Option<IdMappings>> {
    let path = namespace(spec).and_then(|namespace| namespace.path.as_deref());
    match path.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => namespaces::ids_of_pod(path, first),
        None => given(spec),
    }
}

fn namespace(spec: &Spec) -> Option<&Namespace> {
    spec.linux.as_ref()?.namespaces.iter().find(|namespace| namespace.kind == "user")
}

/// The ids of a container with a user namespace of its own.
///
/// # Errors
/// When the configuration contradicts itself.
pub(crate) fn given(spec: &Spec) -> Result<Option<IdMappings>> {
    let (Some(linux), Some(_)) = (&spec.linux, namespace(spec)) else { return Ok(None) };
    let ids = IdMappings { users: linux.uid_mappings.clone(), groups: linux.gid_mappings.clone() };
    ensure!(
        ids != IdMappings::default(),
        "user namespaces enabled, but no namespace path to join nor mappings to apply specified"
    );
    for (name, ranges) in [("uidMappings", &ids.users), ("gidMappings", &ids.groups)] {
        let root = ranges.iter().any(|range| range.container_id == 0 && range.size > 0);
        ensure!(root, "linux.{name}: the container's id 0 is not mapped");
    }
    Ok(Some(ids))
}

/// Who the owners of a mount's files are shown as; none where they are shown as they are.
///
/// # Errors
/// When the configuration does not say.
pub(crate) fn of_mount(mount: &Mount, container: Option<&IdMappings>) -> Result<Option<IdMappings>> {
    let at = mount.destination.display();
    let ids = IdMappings { users: mount.uid_mappings.clone(), groups: mount.gid_mappings.clone() };
    let asked = mount.has("idmap") || mount.has("ridmap");
    if ids == IdMappings::default() {
        return match container {
            _ if !asked => Ok(None),
            Some(container) => Ok(Some(container.clone())),
            None => bail!("mount at {at}: idmap without mappings, of the mount or of a user namespace"),
        };
    }
    ensure!(mount.is_bind(), "mount at {at}: only bind mounts can have mappings");
    ensure!(
        !ids.users.is_empty() && !ids.groups.is_empty(),
        "mount at {at}: uidMappings and gidMappings go together"
    );
    Ok(Some(ids))
}
