//! How the sentry gives up what it could do to the host.
use std::ffi::CStr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use platform::Platform;

use super::{BootError, host};
use crate::{launch, seccomp};

/// Leaves the host's files and gives up every capability; afterwards the process is nobody in an empty place.
pub(crate) fn leave_host(name: &CStr) -> Result<(), BootError> {
    let nix = |what| move |error: nix::Error| host(what)(error.into());
    nix::sys::prctl::set_name(name).map_err(nix("name the process"))?;
    launch::become_empty().map_err(host("enter an empty root"))?;
    // Every guest file that is a host file is a descriptor here.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(nix("getrlimit"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(nix("setrlimit"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(nix("setrlimit"))?;
    launch::drop_all_capabilities().map_err(host("drop capabilities"))?;
    nix::sys::prctl::set_no_new_privs().map_err(nix("no_new_privs"))
}

/// Lets this process trace its stubs, which have its user and, as it has, no capability: they must be dumpable.
pub(super) fn allow_stubs() -> Result<(), BootError> {
    nix::sys::prctl::set_dumpable(true).map_err(|error| host("dumpable")(error.into()))
}

/// Installs the filter; before the first thread.
pub(super) fn filter(platform: &dyn Platform) -> Result<(), BootError> {
    let mut rules = seccomp::sentry::rules();
    rules.extend(platform.host_calls().iter().map(|(nr, why)| seccomp::Rule::any(*nr, why)));
    Ok(seccomp::install(&rules)?)
}
