//! The system's names: `uname(2)`, `sethostname(2)`, `setdomainname(2)`.
use abi::Errno;
use abi::resource::Utsname;
use kernel::Cap;

use crate::Cx;
use crate::decode::UserPtr;

/// The version of Linux that programs see.
pub const RELEASE: &[u8] = b"6.18.0-sentrybox";
/// What `uname -v` shows.
pub const VERSION: &[u8] = b"#1 SMP PREEMPT_DYNAMIC";
/// The longest name, Linux `__NEW_UTS_LEN`.
const NAME_MAX: usize = 64;

/// `uname(2)`
///
/// # Errors
/// `EFAULT`.
pub fn uname(cx: &mut Cx<'_>, buf: UserPtr<Utsname>) -> Result<usize, Errno> {
    let names = cx.kernel().uts().names();
    let value = Utsname {
        sysname: Utsname::field(b"Linux"),
        nodename: Utsname::field(&names.hostname),
        release: Utsname::field(RELEASE),
        version: Utsname::field(VERSION),
        machine: Utsname::field(b"x86_64"),
        domainname: Utsname::field(&names.domainname),
    };
    buf.write(cx, &value)?;
    Ok(0)
}

fn name(cx: &Cx<'_>, from: UserPtr<u8>, len: i32) -> Result<Vec<u8>, Errno> {
    if !cx.credentials().has_cap(Cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = usize::try_from(len).ok().filter(|len| *len <= NAME_MAX).ok_or(Errno::EINVAL)?;
    from.read_vec(cx, len)
}

/// `sethostname(2)`
///
/// # Errors
/// `EPERM`, `EINVAL`, `EFAULT`.
pub fn sethostname(cx: &mut Cx<'_>, from: UserPtr<u8>, len: i32) -> Result<usize, Errno> {
    let name = name(cx, from, len)?;
    cx.kernel().uts().set_hostname(&name);
    Ok(0)
}

/// `setdomainname(2)`
///
/// # Errors
/// `EPERM`, `EINVAL`, `EFAULT`.
pub fn setdomainname(cx: &mut Cx<'_>, from: UserPtr<u8>, len: i32) -> Result<usize, Errno> {
    let name = name(cx, from, len)?;
    cx.kernel().uts().set_domainname(&name);
    Ok(0)
}
