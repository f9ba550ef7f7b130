//! How the sentry gives up what it could do to the host.
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use platform::Platform;

use super::{BootError, host};
use crate::{launch, seccomp};

/// Leaves the host's files and gives up every capability; afterwards the process is nobody in an empty place.
pub(super) fn leave_host() -> Result<(), BootError> {
    let nix = |what| move |error: nix::Error| host(what)(error.into());
    nix::sys::prctl::set_name(c"runsc-sentry").map_err(nix("name the process"))?;
    launch::become_empty().map_err(host("enter an empty root"))?;
    // Every guest file that is a host file is a descriptor here.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(nix("getrlimit"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(nix("setrlimit"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(nix("setrlimit"))?;
    launch::drop_all_capabilities().map_err(host("drop capabilities"))?;
    nix::sys::prctl::set_no_new_privs().map_err(nix("no_new_privs"))?;
    // The stubs are traced by this process, which has their user and no capability: they must be dumpable.
    nix::sys::prctl::set_dumpable(true).map_err(nix("dumpable"))
}

/// Installs the filter; before the first thread.
pub(super) fn filter(platform: &dyn Platform) -> Result<(), BootError> {
    let mut rules = seccomp::sentry::rules();
    rules.extend(platform.host_calls().iter().map(|(nr, why)| seccomp::Rule::any(*nr, why)));
    Ok(seccomp::install(&rules)?)
}
