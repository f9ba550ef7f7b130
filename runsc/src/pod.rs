//! Which containers share a sandbox, as those say who make pods: annotations of containerd's CRI plugin and of CRI-O, which
//! podman sets too.
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use crate::cli::Global;
use crate::container::Container;
use crate::state::Status;

/// Names of the annotations: what the container is, and whose sandbox it is for.
const ANNOTATIONS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
];

/// The container whose sandbox a container with these annotations is for; none if it gets its own.
///
/// # Errors
/// When they contradict themselves.
pub(crate) fn sandbox_of(annotations: &BTreeMap<String, String>) -> Result<Option<&String>> {
    for (kind, id) in ANNOTATIONS {
        match annotations.get(kind).map(String::as_str) {
            None => {}
            Some("sandbox") => return Ok(None),
            Some("container") => {
                let id = annotations.get(id).with_context(|| format!("annotation {id} is missing"))?;
                return Ok(Some(id));
            }
            Some(other) => bail!("annotation {kind}: {other:?} is neither sandbox nor container"),
        }
    }
    Ok(None)
}

/// Whether a container with these annotations belongs to a pod.
pub(crate) fn is_pod(annotations: &BTreeMap<String, String>) -> bool {
    ANNOTATIONS.iter().any(|(kind, _)| annotations.contains_key(*kind))
}

/// The container whose sandbox another is to be created in.
///
/// # Errors
/// When it is none, or does not run.
pub(crate) fn open(global: &Global, id: &str) -> Result<Container> {
    let first = Container::open(global, id).with_context(|| format!("the sandbox {id}"))?;
    if let Some(other) = &first.state.sandbox {
        bail!("container {id} is itself in the sandbox of {other}");
    }
    let status = first.state.status();
    ensure!(matches!(status, Status::Created | Status::Running), "the sandbox {id} does not run");
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<String>> {
        let map = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        sandbox_of(&map).map(|id| id.cloned())
    }

    #[test]
    fn reads_annotations() {
        let kind = "io.kubernetes.cri.container-type";
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[(kind, "sandbox"), ("io.kubernetes.cri.sandbox-id", "a")]).unwrap(), None);
        let container = [(kind, "container"), ("io.kubernetes.cri.sandbox-id", "a")];
        assert_eq!(of(&container).unwrap().as_deref(), Some("a"));
        let crio =
            [("io.kubernetes.cri-o.ContainerType", "container"), ("io.kubernetes.cri-o.SandboxID", "b")];
        assert_eq!(of(&crio).unwrap().as_deref(), Some("b"));
        assert!(of(&[(kind, "container")]).is_err());
        assert!(of(&[(kind, "pod")]).is_err());
    }
}
