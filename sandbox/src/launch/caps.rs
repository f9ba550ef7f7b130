//! Capabilities of the processes of a sandbox.
use std::io;

use caps::{CapSet, Capability, CapsHashSet};

/// What the gofer keeps, each with the reason.
const GOFER: [(Capability, &str); 5] = [
    (Capability::CAP_CHOWN, "a container changes owners of its files"),
    (Capability::CAP_DAC_OVERRIDE, "the sentry checks permissions, not the host"),
    (Capability::CAP_DAC_READ_SEARCH, "likewise"),
    (Capability::CAP_FOWNER, "likewise, for modes, times and sticky folders"),
    (Capability::CAP_FSETID, "a container keeps set-group-id bits"),
];

fn other(error: caps::errors::CapsError) -> io::Error {
    io::Error::other(error.to_string())
}

/// Takes every capability that is not in the list out of the bounding set, and clears what exec could pass on.
fn bound_to(keep: &CapsHashSet) -> io::Result<()> {
    for capability in caps::runtime::thread_all_supported() {
        if !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(other)?;
        }
    }
    caps::runtime::ambient_set_supported().and_then(|()| caps::clear(None, CapSet::Ambient)).ok();
    caps::clear(None, CapSet::Inheritable).map_err(other)
}

/// Keeps what the gofer needs, once this process executes its program; until then it has what it had.
pub(super) fn keep_for_gofer() -> io::Result<()> {
    bound_to(&GOFER.iter().map(|(capability, _)| *capability).collect())
}

/// Gives up every capability of this process, in all five sets.
///
/// # Errors
/// Those of capset(2) and prctl(2).
pub(crate) fn drop_all() -> io::Result<()> {
    bound_to(&CapsHashSet::new())?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(other)?;
    }
    Ok(())
}
