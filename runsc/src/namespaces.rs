//! Namespaces that a configuration names by a path.
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use sandbox::launch::open_namespace;
use sandbox::spec::{IdMappings, Namespace, Spec};

use crate::container::Container;
use crate::{log, pod};

/// Whether a path shows a namespace of a process.
fn is_of(path: &Path, pid: i32, kind: &str) -> bool {
    let file = match kind {
        "network" => "net",
        "mount" => "mnt",
        other => other,
    };
    let of = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let its = of(Path::new(&format!("/proc/{pid}/ns/{file}")));
    its.is_some() && its == of(path)
}

/// Looks at each that is named; the network namespace that a new sandbox is to live in, if there is one.
///
/// # Errors
/// When there is no such namespace, or the container cannot be in it.
pub(crate) fn join(spec: &Spec, first: Option<&Container>) -> Result<Option<OwnedFd>> {
    let mut network = None;
    for namespace in spec.linux.iter().flat_map(|linux| &linux.namespaces) {
        let Some(path) = namespace.path.as_deref().filter(|path| !path.as_os_str().is_empty()) else {
            continue;
        };
        let what = || format!("linux.namespaces: {} {}", namespace.kind, path.display());
        let fd = open_namespace(path, &namespace.kind).with_context(what)?;
        if namespace.kind == "network" && first.is_none() {
            network = Some(fd);
        } else {
            share(spec, namespace, path, first).with_context(what)?;
        }
    }
    Ok(network)
}

/// Checks that the container will be in this namespace, as far as one outside can be one inside.
fn share(spec: &Spec, namespace: &Namespace, path: &Path, first: Option<&Container>) -> Result<()> {
    let kind = namespace.kind.as_str();
    let of_sandbox = first.is_some_and(|first| is_of(path, first.state.pid, kind));
    match kind {
        // What the sandbox has of these, all its containers have.
        "ipc" | "uts" | "network" | "user" if of_sandbox => Ok(()),
        "network" => bail!("the sandbox of the pod lives in another"),
        "user" => bail!("only the user namespace of the same pod can be joined"),
        // Those who make pods may make such namespaces themselves, for all containers of a pod.
        "ipc" | "uts" if pod::is_pod(&spec.annotations) => {
            log::warn(&format!("ignored: linux.namespaces: {kind} {}: the pod has its own", path.display()));
            Ok(())
        }
        "pid" if of_sandbox => {
            log::warn("ignored: linux.namespaces: pid: each container of a pod has process ids of its own");
            Ok(())
        }
        "cgroup" | "time" => {
            log::warn(&format!(
                "ignored: linux.namespaces: {kind} {}: the sandbox has its own",
                path.display()
            ));
            Ok(())
        }
        _ => bail!("not of a container in the same sandbox"),
    }
}

/// Who the users and groups are of a container that joins the user namespace of its pod.
///
/// # Errors
/// When the namespace is another.
pub(crate) fn ids_of_pod(path: &Path, first: Option<&Container>) -> Result<Option<IdMappings>> {
    let first = first.filter(|first| is_of(path, first.state.pid, "user"));
    let first = first.with_context(|| {
        format!("linux.namespaces: user {}: only that of the same pod can be joined", path.display())
    })?;
    Ok(first.state.ids.clone())
}

/// Checks that a container names each kind once.
///
/// # Errors
/// When it does not.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for namespace in spec.linux.iter().flat_map(|linux| &linux.namespaces) {
        ensure!(seen.insert(&namespace.kind), "malformed spec file: duplicated ns {:?}", namespace.kind);
    }
    Ok(())
}
