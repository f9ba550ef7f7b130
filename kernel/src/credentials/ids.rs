//! Changing ids: the setuid(2) family, setgroups(2).
use std::sync::Arc;

use abi::Errno;

use super::securebits::{KEEP_CAPS, NO_SETUID_FIXUP};
use super::{Cap, CapSet, Credentials};

/// Stays as it is, in setresuid(2) and its kin.
const UNCHANGED: u32 = u32::MAX;
/// Linux `NGROUPS_MAX`.
const NGROUPS_MAX: usize = 65_536;

impl Credentials {
    /// The capability rules for a change of user ids, Linux `security/commoncap.c:cap_emulate_setxuid`.
    fn fix_caps(mut self, old: &Self) -> Self {
        if old.securebit(NO_SETUID_FIXUP) {
            return self;
        }
        let was_root = old.uid == 0 || old.euid == 0 || old.suid == 0;
        let is_root = self.uid == 0 || self.euid == 0 || self.suid == 0;
        if was_root && !is_root {
            if !old.securebit(KEEP_CAPS) {
                self.cap_permitted = CapSet::EMPTY;
                self.cap_effective = CapSet::EMPTY;
            }
            self.cap_ambient = CapSet::EMPTY;
        }
        if old.euid == 0 && self.euid != 0 {
            self.cap_effective = CapSet::EMPTY;
        } else if old.euid != 0 && self.euid == 0 {
            self.cap_effective = self.cap_permitted;
        }
        self
    }

    /// setuid(2).
    ///
    /// # Errors
    /// `EINVAL` for -1, `EPERM`.
    pub fn setuid(&self, uid: u32) -> Result<Self, Errno> {
        if uid == UNCHANGED {
            return Err(Errno::EINVAL);
        }
        let mut new = self.clone();
        if self.has_cap(Cap::SETUID) {
            (new.uid, new.suid) = (uid, uid);
        } else if uid != self.uid && uid != self.suid {
            return Err(Errno::EPERM);
        }
        (new.euid, new.fsuid) = (uid, uid);
        Ok(new.fix_caps(self))
    }

    /// setreuid(2).
    ///
    /// # Errors
    /// `EPERM`.
    pub fn setreuid(&self, ruid: u32, euid: u32) -> Result<Self, Errno> {
        let may = self.has_cap(Cap::SETUID);
        let mut new = self.clone();
        if ruid != UNCHANGED {
            if !may && ruid != self.uid && ruid != self.euid {
                return Err(Errno::EPERM);
            }
            new.uid = ruid;
        }
        if euid != UNCHANGED {
            if !may && euid != self.uid && euid != self.euid && euid != self.suid {
                return Err(Errno::EPERM);
            }
            new.euid = euid;
        }
        if ruid != UNCHANGED || (euid != UNCHANGED && euid != self.uid) {
            new.suid = new.euid;
        }
        new.fsuid = new.euid;
        Ok(new.fix_caps(self))
    }

    /// setresuid(2).
    ///
    /// # Errors
    /// `EPERM`.
    pub fn setresuid(&self, ruid: u32, euid: u32, suid: u32) -> Result<Self, Errno> {
        let known = |id| id == UNCHANGED || id == self.uid || id == self.euid || id == self.suid;
        let all_known = known(ruid) && known(euid) && known(suid);
        if !all_known && !self.has_cap(Cap::SETUID) {
            return Err(Errno::EPERM);
        }
        let pick = |id, old| if id == UNCHANGED { old } else { id };
        let mut new = self.clone();
        (new.uid, new.euid, new.suid) = (pick(ruid, self.uid), pick(euid, self.euid), pick(suid, self.suid));
        new.fsuid = new.euid;
        Ok(new.fix_caps(self))
    }

    /// setfsuid(2), which never fails: what is not allowed changes nothing.
    #[must_use]
    pub fn setfsuid(&self, uid: u32) -> Self {
        let known = uid == self.uid || uid == self.euid || uid == self.suid || uid == self.fsuid;
        let allowed = known || self.has_cap(Cap::SETUID);
        if uid == UNCHANGED || !allowed {
            return self.clone();
        }
        let mut new = Self { fsuid: uid, ..self.clone() };
        if !self.securebit(NO_SETUID_FIXUP) {
            if self.fsuid == 0 && uid != 0 {
                new.cap_effective = self.cap_effective.difference(CapSet::FS);
            } else if self.fsuid != 0 && uid == 0 {
                new.cap_effective = self.cap_effective.union(self.cap_permitted.intersection(CapSet::FS));
            }
        }
        new
    }

    /// setgid(2).
    ///
    /// # Errors
    /// `EINVAL` for -1, `EPERM`.
    pub fn setgid(&self, gid: u32) -> Result<Self, Errno> {
        if gid == UNCHANGED {
            return Err(Errno::EINVAL);
        }
        let mut new = self.clone();
        if self.has_cap(Cap::SETGID) {
            (new.gid, new.sgid) = (gid, gid);
        } else if gid != self.gid && gid != self.sgid {
            return Err(Errno::EPERM);
        }
        (new.egid, new.fsgid) = (gid, gid);
        Ok(new)
    }

    /// setregid(2).
    ///
    /// # Errors
    /// `EPERM`.
    pub fn setregid(&self, rgid: u32, egid: u32) -> Result<Self, Errno> {
        let may = self.has_cap(Cap::SETGID);
        let mut new = self.clone();
        if rgid != UNCHANGED {
            if !may && rgid != self.gid && rgid != self.egid {
                return Err(Errno::EPERM);
            }
            new.gid = rgid;
        }
        if egid != UNCHANGED {
            if !may && egid != self.gid && egid != self.egid && egid != self.sgid {
                return Err(Errno::EPERM);
            }
            new.egid = egid;
        }
        if rgid != UNCHANGED || (egid != UNCHANGED && egid != self.gid) {
            new.sgid = new.egid;
        }
        new.fsgid = new.egid;
        Ok(new)
    }

    /// setresgid(2).
    ///
    /// # Errors
    /// `EPERM`.
    pub fn setresgid(&self, rgid: u32, egid: u32, sgid: u32) -> Result<Self, Errno> {
        let known = |id| id == UNCHANGED || id == self.gid || id == self.egid || id == self.sgid;
        let all_known = known(rgid) && known(egid) && known(sgid);
        if !all_known && !self.has_cap(Cap::SETGID) {
            return Err(Errno::EPERM);
        }
        let pick = |id, old| if id == UNCHANGED { old } else { id };
        let mut new = self.clone();
        (new.gid, new.egid, new.sgid) = (pick(rgid, self.gid), pick(egid, self.egid), pick(sgid, self.sgid));
        new.fsgid = new.egid;
        Ok(new)
    }

    /// setfsgid(2), which never fails: what is not allowed changes nothing.
    #[must_use]
    pub fn setfsgid(&self, gid: u32) -> Self {
        let known = gid == self.gid || gid == self.egid || gid == self.sgid || gid == self.fsgid;
        let allowed = known || self.has_cap(Cap::SETGID);
        if gid == UNCHANGED || !allowed {
            return self.clone();
        }
        Self { fsgid: gid, ..self.clone() }
    }

    /// setgroups(2).
    ///
    /// # Errors
    /// `EPERM` without `CAP_SETGID`, `EINVAL` for more than `NGROUPS_MAX` or a group -1.
    pub fn setgroups(&self, groups: &[u32]) -> Result<Self, Errno> {
        if !self.has_cap(Cap::SETGID) {
            return Err(Errno::EPERM);
        }
        if groups.len() > NGROUPS_MAX || groups.contains(&UNCHANGED) {
            return Err(Errno::EINVAL);
        }
        let mut groups = groups.to_vec();
        groups.sort_unstable();
        Ok(Self { groups: Arc::from(groups), ..self.clone() })
    }
}
