//! Users and groups: `getuid(2)`, `setresuid(2)`, `setgroups(2)`, and their kin.
use std::sync::Arc;

use abi::Errno;
use kernel::{Credentials, IdMap};

use crate::Cx;
use crate::decode::UserPtr;

/// Linux `NGROUPS_MAX`.
const NGROUPS_MAX: usize = 65_536;

fn change(cx: &Cx<'_>, new: Credentials) -> usize {
    let old = cx.credentials();
    let ids = |c: &Credentials| (c.euid, c.egid, c.fsuid, c.fsgid);
    if ids(&old) != ids(&new) {
        // Linux `commit_creds`: whoever could look into the process before may not be allowed to any more.
        cx.group().set_dumpable(0);
    }
    cx.set_credentials(Arc::new(new));
    0
}

macro_rules! getters {
    ($($name:ident $field:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "(2)`")]
        ///
        /// # Errors
        /// None.
        pub fn $name(cx: &mut Cx<'_>) -> Result<usize, Errno> {
            Ok(cx.credentials().$field as usize)
        }
    )*};
}
getters! { getuid uid geteuid euid getgid gid getegid egid }

/// Linux `make_kuid`: whether each exists, where -1 stands for none.
fn exist(map: &IdMap, ids: &[u32]) -> bool {
    ids.iter().all(|id| *id == u32::MAX || map.contains(*id))
}

macro_rules! setters {
    ($kind:ident: $($name:ident ($($id:ident),*))*) => {$(
        #[doc = concat!("`", stringify!($name), "(2)`")]
        ///
        /// # Errors
        /// `EPERM`, `EINVAL`.
        pub fn $name(cx: &mut Cx<'_>, $($id: u32),*) -> Result<usize, Errno> {
            if !exist(&cx.kernel().id_maps().$kind, &[$($id),*]) {
                return Err(Errno::EINVAL);
            }
            let new = cx.credentials().$name($($id),*)?;
            Ok(change(cx, new))
        }
    )*};
}
setters! { users: setuid(uid) setreuid(ruid, euid) setresuid(ruid, euid, suid) }
setters! { groups: setgid(gid) setregid(rgid, egid) setresgid(rgid, egid, sgid) }

/// `setfsuid(2)`: gives the old id, changed or not.
///
/// # Errors
/// None.
pub fn setfsuid(cx: &mut Cx<'_>, uid: u32) -> Result<usize, Errno> {
    let old = cx.credentials();
    if exist(&cx.kernel().id_maps().users, &[uid]) {
        change(cx, old.setfsuid(uid));
    }
    Ok(old.fsuid as usize)
}

/// `setfsgid(2)`: gives the old id, changed or not.
///
/// # Errors
/// None.
pub fn setfsgid(cx: &mut Cx<'_>, gid: u32) -> Result<usize, Errno> {
    let old = cx.credentials();
    if exist(&cx.kernel().id_maps().groups, &[gid]) {
        change(cx, old.setfsgid(gid));
    }
    Ok(old.fsgid as usize)
}

/// `getresuid(2)`
///
/// # Errors
/// `EFAULT`.
pub fn getresuid(
    cx: &mut Cx<'_>,
    ruid: UserPtr<u32>,
    euid: UserPtr<u32>,
    suid: UserPtr<u32>,
) -> Result<usize, Errno> {
    let creds = cx.credentials();
    ruid.write(cx, &creds.uid)?;
    euid.write(cx, &creds.euid)?;
    suid.write(cx, &creds.suid)?;
    Ok(0)
}

/// `getresgid(2)`
///
/// # Errors
/// `EFAULT`.
pub fn getresgid(
    cx: &mut Cx<'_>,
    rgid: UserPtr<u32>,
    egid: UserPtr<u32>,
    sgid: UserPtr<u32>,
) -> Result<usize, Errno> {
    let creds = cx.credentials();
    rgid.write(cx, &creds.gid)?;
    egid.write(cx, &creds.egid)?;
    sgid.write(cx, &creds.sgid)?;
    Ok(0)
}

/// `getgroups(2)`
///
/// # Errors
/// `EINVAL` for a negative or too small size, `EFAULT`.
pub fn getgroups(cx: &mut Cx<'_>, size: i32, list: UserPtr<u32>) -> Result<usize, Errno> {
    let size = usize::try_from(size).map_err(|_negative| Errno::EINVAL)?;
    let groups = Arc::clone(&cx.credentials().groups);
    if size == 0 {
        return Ok(groups.len());
    }
    if groups.len() > size {
        return Err(Errno::EINVAL);
    }
    for (i, group) in groups.iter().enumerate() {
        list.at(i)?.write(cx, group)?;
    }
    Ok(groups.len())
}

/// `setgroups(2)`
///
/// # Errors
/// `EPERM`, `EINVAL`, `EFAULT`.
pub fn setgroups(cx: &mut Cx<'_>, size: i32, list: UserPtr<u32>) -> Result<usize, Errno> {
    if !cx.credentials().has_cap(kernel::Cap::SETGID) {
        return Err(Errno::EPERM);
    }
    let size = usize::try_from(size).map_err(|_negative| Errno::EINVAL)?;
    if size > NGROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let groups = list.read_vec(cx, size)?;
    if !groups.iter().all(|group| cx.kernel().id_maps().groups.contains(*group)) {
        return Err(Errno::EINVAL);
    }
    let new = cx.credentials().setgroups(&groups)?;
    Ok(change(cx, new))
}
