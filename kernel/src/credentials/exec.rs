//! What execve(2) makes of credentials, `capabilities(7)` "Transformation of capabilities during execve()".
use abi::Errno;

use super::securebits::{KEEP_CAPS, NOROOT};
use super::{CapSet, Credentials};

/// Capabilities of a file, `security.capability`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCaps {
    /// Given, within the bounding set.
    pub permitted: CapSet,
    /// Given where the task has them inheritable.
    pub inheritable: CapSet,
    /// Whether what is permitted becomes effective.
    pub effective: bool,
}

/// What a file's attributes say of the credentials of those who execute it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecFile {
    /// The owner, where the set-user-id bit is in force.
    pub setuid: Option<u32>,
    /// The group, where the set-group-id bit is in force.
    pub setgid: Option<u32>,
    /// The file's capabilities, where it has some that are in force.
    pub caps: Option<FileCaps>,
}

impl Credentials {
    /// Gives the credentials after execve(2), and whether the program gained privileges (`AT_SECURE`).
    ///
    /// # Errors
    /// `EPERM` where the file's effective capabilities cannot all be given.
    pub fn exec_transform(&self, file: &ExecFile) -> Result<(Self, bool), Errno> {
        let file = if self.no_new_privs { ExecFile::default() } else { *file };
        let mut new = self.clone();
        new.euid = file.setuid.unwrap_or(self.euid);
        new.egid = file.setgid.unwrap_or(self.egid);
        let changed_ids = new.euid != self.euid || new.egid != self.egid;
        let (mut caps, mut has_caps) = (file.caps.unwrap_or_default(), file.caps.is_some());
        if !self.securebit(NOROOT) && (new.uid == 0 || new.euid == 0) {
            // A set-user-id root file with capabilities of its own, run by somebody else, gives only those.
            let own_caps_win = file.caps.is_some() && new.uid != 0 && new.euid == 0;
            if !own_caps_win {
                caps =
                    FileCaps { permitted: CapSet::FULL, inheritable: CapSet::FULL, effective: new.euid == 0 };
                has_caps = true;
            }
        }
        let given = caps.permitted.intersection(self.cap_bounding);
        new.cap_permitted = given.union(caps.inheritable.intersection(self.cap_inheritable));
        if let Some(own) = file.caps
            && own.effective
            && !own.permitted.is_subset(new.cap_permitted)
        {
            return Err(Errno::EPERM);
        }
        if changed_ids || file.caps.is_some() {
            new.cap_ambient = CapSet::EMPTY;
        }
        new.cap_permitted = new.cap_permitted.union(new.cap_ambient);
        new.cap_effective = if has_caps && caps.effective { new.cap_permitted } else { new.cap_ambient };
        (new.suid, new.fsuid) = (new.euid, new.euid);
        (new.sgid, new.fsgid) = (new.egid, new.egid);
        new.securebits &= !KEEP_CAPS;
        let gained_caps =
            new.uid != 0 && (has_caps && caps.effective || !new.cap_permitted.is_subset(new.cap_ambient));
        let secure = new.euid != new.uid || new.egid != new.gid || gained_caps;
        Ok((new, secure))
    }
}
