//! Runs hooks of the host, and tells them about the container.
use anyhow::{Context, Result};
use sandbox::hook;
use sandbox::spec::Hook;

use crate::container::oci_state;
use crate::log;
use crate::state::{State, Status};

/// Runs programs one after the other.
///
/// # Errors
/// When one fails.
pub(crate) fn run(kind: &str, hooks: &[Hook], state: &State, status: Status) -> Result<()> {
    for hook in hooks {
        one(hook, state, status).with_context(|| format!("{kind} hook {}", hook.path.display()))?;
    }
    Ok(())
}

/// Runs programs whose failure changes nothing any more.
pub(crate) fn run_all(kind: &str, hooks: &[Hook], state: &State, status: Status) {
    for hook in hooks {
        if let Err(error) = one(hook, state, status) {
            log::warn(&format!("{kind} hook {}: {error:#}", hook.path.display()));
        }
    }
}

fn one(hook: &Hook, state: &State, status: Status) -> Result<()> {
    Ok(hook::run(hook, &state.bundle, &oci_state(state, status).to_string())?)
}
