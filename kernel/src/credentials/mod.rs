//! Who a task is, `credentials(7)`, `capabilities(7)`.
mod caps;
mod exec;
mod ids;

use std::sync::Arc;

use abi::Errno;

pub use caps::{Cap, CapSet};
pub use exec::{ExecFile, FileCaps};

/// Bits of `PR_SET_SECUREBITS`.
#[expect(missing_docs, reason = "the names are those of capabilities(7)")]
pub mod securebits {
    pub const NOROOT: u32 = 1;
    pub const NOROOT_LOCKED: u32 = 2;
    pub const NO_SETUID_FIXUP: u32 = 4;
    pub const NO_SETUID_FIXUP_LOCKED: u32 = 8;
    pub const KEEP_CAPS: u32 = 16;
    pub const KEEP_CAPS_LOCKED: u32 = 32;
    pub const NO_CAP_AMBIENT_RAISE: u32 = 64;
    pub const NO_CAP_AMBIENT_RAISE_LOCKED: u32 = 128;
    pub const ALL: u32 = 0xff;
    pub const LOCKS: u32 = 0xaa;
}

/// The identity of a task; never changed in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Saved set-user id.
    pub suid: u32,
    /// User id for files.
    pub fsuid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Saved set-group id.
    pub sgid: u32,
    /// Group id for files.
    pub fsgid: u32,
    /// Supplementary groups, ascending.
    pub groups: Arc<[u32]>,
    /// Capabilities that survive execve(2) of files that want them.
    pub cap_inheritable: CapSet,
    /// Capabilities that may be made effective.
    pub cap_permitted: CapSet,
    /// Capabilities in force.
    pub cap_effective: CapSet,
    /// Capabilities that execve(2) may give.
    pub cap_bounding: CapSet,
    /// Capabilities that survive execve(2) of ordinary files.
    pub cap_ambient: CapSet,
    /// [`securebits`]; `KEEP_CAPS` among them.
    pub securebits: u32,
    /// Whether execve(2) can give no privileges.
    pub no_new_privs: bool,
}

impl Credentials {
    /// The user 0 with every capability.
    #[must_use]
    pub fn root() -> Self {
        Self {
            cap_permitted: CapSet::FULL,
            cap_effective: CapSet::FULL,
            cap_bounding: CapSet::FULL,
            ..Self::user(0, 0)
        }
    }

    /// A user without capabilities.
    #[must_use]
    pub fn user(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups: Arc::from([]),
            cap_inheritable: CapSet::EMPTY,
            cap_permitted: CapSet::EMPTY,
            cap_effective: CapSet::EMPTY,
            cap_bounding: CapSet::EMPTY,
            cap_ambient: CapSet::EMPTY,
            securebits: 0,
            no_new_privs: false,
        }
    }

    /// Tells whether a capability is in force.
    #[must_use]
    pub const fn has_cap(&self, cap: Cap) -> bool {
        self.cap_effective.has(cap)
    }

    /// Tells whether the file system group or a supplementary group is this one (Linux `in_group_p`).
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.binary_search(&gid).is_ok()
    }

    /// Tells whether the effective group or a supplementary group is this one (Linux `in_egroup_p`).
    #[must_use]
    pub fn in_egroup(&self, gid: u32) -> bool {
        self.egid == gid || self.groups.binary_search(&gid).is_ok()
    }

    pub(crate) const fn securebit(&self, bit: u32) -> bool {
        self.securebits & bit != 0
    }

    /// capset(2).
    ///
    /// # Errors
    /// `EPERM` for what the rules of capset(2) do not allow.
    pub fn capset(&self, effective: CapSet, permitted: CapSet, inheritable: CapSet) -> Result<Self, Errno> {
        let inheritable_limit = if self.has_cap(Cap::SETPCAP) {
            CapSet::FULL
        } else {
            self.cap_inheritable.union(self.cap_permitted)
        };
        let allowed = inheritable.is_subset(inheritable_limit)
            && inheritable.is_subset(self.cap_inheritable.union(self.cap_bounding))
            && permitted.is_subset(self.cap_permitted)
            && effective.is_subset(permitted);
        if !allowed {
            return Err(Errno::EPERM);
        }
        let cap_ambient = self.cap_ambient.intersection(permitted).intersection(inheritable);
        Ok(Self {
            cap_effective: effective,
            cap_permitted: permitted,
            cap_inheritable: inheritable,
            cap_ambient,
            ..self.clone()
        })
    }

    /// `PR_CAPBSET_DROP`.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SETPCAP`.
    pub fn drop_bounding(&self, cap: Cap) -> Result<Self, Errno> {
        if !self.has_cap(Cap::SETPCAP) {
            return Err(Errno::EPERM);
        }
        Ok(Self { cap_bounding: self.cap_bounding.without(cap), ..self.clone() })
    }

    /// `PR_CAP_AMBIENT_RAISE`.
    ///
    /// # Errors
    /// `EPERM` where the capability is not both permitted and inheritable, or the securebits forbid it.
    pub fn raise_ambient(&self, cap: Cap) -> Result<Self, Errno> {
        let held = self.cap_permitted.has(cap) && self.cap_inheritable.has(cap);
        if !held || self.securebit(securebits::NO_CAP_AMBIENT_RAISE) {
            return Err(Errno::EPERM);
        }
        Ok(Self { cap_ambient: self.cap_ambient.with(cap), ..self.clone() })
    }

    /// `PR_SET_SECUREBITS`, Linux `security/commoncap.c:cap_task_prctl`.
    ///
    /// # Errors
    /// `EPERM` where a locked bit would change, a lock would open, or without `CAP_SETPCAP`; unknown bits too.
    pub fn set_securebits(&self, bits: u32) -> Result<Self, Errno> {
        let locked = (self.securebits & securebits::LOCKS) >> 1;
        let changes_locked = locked & (self.securebits ^ bits) != 0;
        let opens_lock = self.securebits & securebits::LOCKS & !bits != 0;
        if changes_locked || opens_lock || bits & !securebits::ALL != 0 || !self.has_cap(Cap::SETPCAP) {
            return Err(Errno::EPERM);
        }
        Ok(Self { securebits: bits, ..self.clone() })
    }

    /// `PR_SET_KEEPCAPS`.
    ///
    /// # Errors
    /// `EPERM` where the bit is locked.
    pub fn set_keep_caps(&self, keep: bool) -> Result<Self, Errno> {
        if self.securebit(securebits::KEEP_CAPS_LOCKED) {
            return Err(Errno::EPERM);
        }
        let rest = self.securebits & !securebits::KEEP_CAPS;
        Ok(Self { securebits: rest | if keep { securebits::KEEP_CAPS } else { 0 }, ..self.clone() })
    }

    /// Tells whether a process with these credentials may be traced or inspected by `other` because all ids are equal,
    /// Linux `__ptrace_may_access`.
    #[must_use]
    pub const fn ids_are_all(&self, uid: u32, gid: u32) -> bool {
        let users = self.uid == uid && self.euid == uid && self.suid == uid;
        users && self.gid == gid && self.egid == gid && self.sgid == gid
    }
}

#[cfg(test)]
mod tests;
