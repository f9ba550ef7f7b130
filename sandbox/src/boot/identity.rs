//! Who a process of the container is, from its description.
use std::sync::Arc;

use kernel::{CapSet, Credentials, IdMap, IdMaps, IdRange, Limits, Resource};

use crate::spec::{CAPABILITIES, IdMapping, IdMappings, Process};

/// The limits' names, by number.
const LIMITS: [&str; Resource::COUNT] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// The set of these names; names of capabilities that do not exist are left out, as runc does.
fn set(names: &[String]) -> CapSet {
    let number = |name: &String| {
        let name = name.strip_prefix("CAP_")?;
        CAPABILITIES.iter().position(|known| *known == name)
    };
    CapSet(names.iter().filter_map(number).fold(0, |bits, number| bits | 1 << number))
}

/// Which users and groups there are.
pub(super) fn maps(ids: &IdMappings) -> IdMaps {
    let range =
        |range: &IdMapping| IdRange { inside: range.container_id, outside: range.host_id, count: range.size };
    let map = |ranges: &[IdMapping]| IdMap::new(ranges.iter().map(range).collect());
    IdMaps { users: map(&ids.users), groups: map(&ids.groups) }
}

/// Checks that a process is of users and groups that there are; the words are runc's.
///
/// # Errors
/// What is missing.
pub(super) fn check(process: &Process, maps: &IdMaps) -> Result<(), String> {
    let user = &process.user;
    if !maps.users.contains(user.uid) {
        return Err("cannot set uid to unmapped user in user namespace".to_owned());
    }
    if !user.additional_gids.iter().chain([&user.gid]).all(|gid| maps.groups.contains(*gid)) {
        return Err("cannot set gid to unmapped user in user namespace".to_owned());
    }
    Ok(())
}

/// The credentials of a process.
pub(super) fn credentials(process: &Process) -> Credentials {
    let user = &process.user;
    let mut groups = user.additional_gids.clone();
    groups.sort_unstable();
    groups.dedup();
    let caps = process.capabilities.clone().unwrap_or_default();
    let (permitted, inheritable) = (set(&caps.permitted), set(&caps.inheritable));
    Credentials {
        groups: Arc::from(groups),
        cap_inheritable: inheritable,
        cap_permitted: permitted,
        cap_effective: set(&caps.effective).intersection(permitted),
        cap_bounding: set(&caps.bounding),
        cap_ambient: set(&caps.ambient).intersection(permitted).intersection(inheritable),
        no_new_privs: process.no_new_privileges,
        ..Credentials::user(user.uid, user.gid)
    }
}

/// The limits of a process.
///
/// # Errors
/// A name that is no limit, or a soft limit above its hard one.
pub(super) fn limits(process: &Process) -> Result<Limits, String> {
    let limits = Limits::default();
    for limit in &process.rlimits {
        let name = limit.kind.strip_prefix("RLIMIT_");
        let number = LIMITS.iter().position(|known| Some(*known) == name);
        let resource = number.and_then(|n| u32::try_from(n).ok()).and_then(Resource::new);
        let Some(resource) = resource else {
            return Err(format!("process.rlimits: {:?} is no limit", limit.kind));
        };
        if limit.soft > limit.hard {
            return Err(format!("process.rlimits: {}: soft is above hard", limit.kind));
        }
        limits.set_unchecked(resource, (limit.soft, limit.hard));
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Capabilities, Rlimit};
    use kernel::RLIMIT_NOFILE;

    #[test]
    fn reads_capabilities() {
        let names = vec!["CAP_CHOWN".to_owned(), "CAP_BPF".to_owned(), "CAP_NONE".to_owned()];
        let caps = Capabilities { effective: names.clone(), bounding: names, ..Capabilities::default() };
        let process = Process { capabilities: Some(caps), ..Process::default() };
        let credentials = credentials(&process);
        assert_eq!(credentials.cap_bounding, CapSet(1 | 1 << 39));
        assert_eq!(credentials.cap_effective, CapSet::EMPTY);
    }

    #[test]
    fn reads_limits() {
        let with = |kind: &str, soft| Process {
            rlimits: vec![Rlimit { kind: kind.to_owned(), soft, hard: 20 }],
            ..Process::default()
        };
        assert_eq!(limits(&with("RLIMIT_NOFILE", 10)).unwrap().get(RLIMIT_NOFILE), (10, 20));
        assert!(limits(&with("RLIMIT_NOFILE", 30)).is_err());
        assert!(limits(&with("RLIMIT_FOO", 10)).is_err());
    }
}
