//! Resource limits, `getrlimit(2)`.
use abi::Errno;
use sync::{LockClass, Mutex};

use crate::Credentials;
use crate::credentials::Cap;
use crate::tree::PID_MAX;

/// No limit.
pub const RLIM_INFINITY: u64 = u64::MAX;
/// However high `RLIMIT_NOFILE` is asked to be, Linux `sysctl_nr_open`.
pub(crate) const NR_OPEN: u64 = 1 << 20;

/// A limited resource, `RLIMIT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource(u8);

impl Resource {
    /// How many there are, Linux `RLIM_NLIMITS`.
    pub const COUNT: usize = 16;

    /// The resource with this number.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| usize::from(*n) < Self::COUNT).map(Self)
    }
    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

#[expect(missing_docs, reason = "the names are those of getrlimit(2)")]
mod resources {
    use super::Resource;
    pub const RLIMIT_CPU: Resource = Resource(0);
    pub const RLIMIT_FSIZE: Resource = Resource(1);
    pub const RLIMIT_DATA: Resource = Resource(2);
    pub const RLIMIT_STACK: Resource = Resource(3);
    pub const RLIMIT_CORE: Resource = Resource(4);
    pub const RLIMIT_RSS: Resource = Resource(5);
    pub const RLIMIT_NPROC: Resource = Resource(6);
    pub const RLIMIT_NOFILE: Resource = Resource(7);
    pub const RLIMIT_MEMLOCK: Resource = Resource(8);
    pub const RLIMIT_AS: Resource = Resource(9);
    pub const RLIMIT_LOCKS: Resource = Resource(10);
    pub const RLIMIT_SIGPENDING: Resource = Resource(11);
    pub const RLIMIT_MSGQUEUE: Resource = Resource(12);
    pub const RLIMIT_NICE: Resource = Resource(13);
    pub const RLIMIT_RTPRIO: Resource = Resource(14);
    pub const RLIMIT_RTTIME: Resource = Resource(15);
}
pub use resources::*;

/// A soft and a hard limit: what is enforced, and how far that may be raised.
pub type Limit = (u64, u64);

/// The limits of a process.
#[derive(Debug)]
pub struct Limits {
    limits: Mutex<[Limit; Resource::COUNT]>,
}

/// Half of the tasks that there can be, as Linux `fork_init` has it (kernel/fork.c).
const HALF_OF_TASKS: u64 = PID_MAX.cast_unsigned() as u64 / 2;

impl Default for Limits {
    /// Those of Linux's first process, Linux `INIT_RLIMITS` and `fork_init`.
    fn default() -> Self {
        let limits =
            Self { limits: Mutex::new(LockClass::Leaf, [(RLIM_INFINITY, RLIM_INFINITY); Resource::COUNT]) };
        let special = [
            (RLIMIT_STACK, (8 << 20, RLIM_INFINITY)),
            (RLIMIT_CORE, (0, RLIM_INFINITY)),
            (RLIMIT_NPROC, (HALF_OF_TASKS, HALF_OF_TASKS)),
            (RLIMIT_SIGPENDING, (HALF_OF_TASKS, HALF_OF_TASKS)),
            (RLIMIT_NOFILE, (1024, 4096)),
            (RLIMIT_MEMLOCK, (8 << 20, 8 << 20)),
            (RLIMIT_MSGQUEUE, (819_200, 819_200)),
            (RLIMIT_NICE, (0, 0)),
            (RLIMIT_RTPRIO, (0, 0)),
        ];
        for (resource, limit) in special {
            limits.set_unchecked(resource, limit);
        }
        limits
    }
}

impl Limits {
    /// The soft and the hard limit on a resource.
    #[must_use]
    pub fn get(&self, resource: Resource) -> Limit {
        self.limits.lock().get(usize::from(resource.0)).copied().unwrap_or_default()
    }

    /// Sets a limit without checks, at boot.
    pub fn set_unchecked(&self, resource: Resource, limit: Limit) {
        if let Some(place) = self.limits.lock().get_mut(usize::from(resource.0)) {
            *place = limit;
        }
    }

    /// Sets a limit, prlimit(2); gives the old one.
    ///
    /// # Errors
    /// `EINVAL` where the soft limit is above the hard one, `EPERM` where a hard limit is raised without
    /// `CAP_SYS_RESOURCE`, or `RLIMIT_NOFILE` above what the kernel can.
    pub fn set(&self, resource: Resource, new: Limit, credentials: &Credentials) -> Result<Limit, Errno> {
        if new.0 > new.1 {
            return Err(Errno::EINVAL);
        }
        if resource == RLIMIT_NOFILE && new.1 > NR_OPEN {
            return Err(Errno::EPERM);
        }
        let may_raise = credentials.has_cap(Cap::SYS_RESOURCE);
        let mut limits = self.limits.lock();
        let place = limits.get_mut(usize::from(resource.0)).ok_or(Errno::EINVAL)?;
        if new.1 > place.1 && !may_raise {
            return Err(Errno::EPERM);
        }
        Ok(std::mem::replace(place, new))
    }

    /// A copy, for fork(2).
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { limits: Mutex::new(LockClass::Leaf, *self.limits.lock()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_a_hard_limit_takes_a_capability() {
        let limits = Limits::default();
        let user = Credentials::user(1000, 1000);
        assert_eq!(limits.set(RLIMIT_NOFILE, (10, 5000), &user), Err(Errno::EPERM));
        assert_eq!(limits.set(RLIMIT_NOFILE, (11, 10), &user), Err(Errno::EINVAL));
        assert_eq!(limits.set(RLIMIT_NOFILE, (10, 10), &user), Ok((1024, 4096)));
        assert!(limits.set(RLIMIT_NOFILE, (10, 5000), &Credentials::root()).is_ok());
        assert_eq!(limits.fork().get(RLIMIT_NOFILE), (10, 5000));
    }
}
