//! Capabilities: `capget(2)`, `capset(2)`.
use std::sync::Arc;

use abi::Errno;
use abi::sched::{
    CapData, CapHeader, LINUX_CAPABILITY_VERSION_1, LINUX_CAPABILITY_VERSION_2, LINUX_CAPABILITY_VERSION_3,
};
use kernel::CapSet;

use crate::Cx;
use crate::decode::UserPtr;

/// How many [`CapData`] the version has; Linux answers an unknown one with the version it prefers.
fn words(cx: &Cx<'_>, header: UserPtr<CapHeader>, value: CapHeader) -> Result<usize, Errno> {
    match value.version {
        LINUX_CAPABILITY_VERSION_1 => Ok(1),
        LINUX_CAPABILITY_VERSION_2 | LINUX_CAPABILITY_VERSION_3 => Ok(2),
        _ => {
            header.write(cx, &CapHeader { version: LINUX_CAPABILITY_VERSION_3, ..value })?;
            Err(Errno::EINVAL)
        }
    }
}

fn split(set: CapSet) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = set.0.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn join(low: u32, high: u32) -> CapSet {
    CapSet(u64::from(low) | u64::from(high) << 32).intersection(CapSet::FULL)
}

/// `capget(2)`
///
/// # Errors
/// `EFAULT`, `EINVAL` for an unknown version or a negative pid, `ESRCH`.
pub fn capget(cx: &mut Cx<'_>, header: UserPtr<CapHeader>, data: UserPtr<CapData>) -> Result<usize, Errno> {
    let value = header.read(cx)?;
    let words = match words(cx, header, value) {
        // Probing for the version is no error.
        Err(Errno::EINVAL) if data.is_null() => return Ok(0),
        words => words?,
    };
    if value.pid < 0 {
        return Err(Errno::EINVAL);
    }
    let creds = if value.pid == 0 || value.pid == cx.tid() {
        cx.credentials()
    } else {
        cx.kernel().task(value.pid).ok_or(Errno::ESRCH)?.credentials()
    };
    if data.is_null() {
        return Ok(0);
    }
    let effective = split(creds.cap_effective);
    let (permitted, inheritable) = (split(creds.cap_permitted), split(creds.cap_inheritable));
    for (i, ((effective, permitted), inheritable)) in
        effective.into_iter().zip(permitted).zip(inheritable).enumerate().take(words)
    {
        data.at(i)?.write(cx, &CapData { effective, permitted, inheritable })?;
    }
    Ok(0)
}

/// `capset(2)`
///
/// # Errors
/// `EFAULT`, `EINVAL` for an unknown version, `EPERM`.
pub fn capset(cx: &mut Cx<'_>, header: UserPtr<CapHeader>, data: UserPtr<CapData>) -> Result<usize, Errno> {
    let value = header.read(cx)?;
    let words = words(cx, header, value)?;
    if value.pid != 0 && value.pid != cx.tid() {
        return Err(Errno::EPERM);
    }
    let low = data.read(cx)?;
    let high = if words == 2 { data.at(1)?.read(cx)? } else { CapData::default() };
    let new = cx.credentials().capset(
        join(low.effective, high.effective),
        join(low.permitted, high.permitted),
        join(low.inheritable, high.inheritable),
    )?;
    cx.set_credentials(Arc::new(new));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_linux() {
        let set = CapSet(1 << 0 | 1 << 40);
        assert_eq!(split(set), [1, 1 << 8]);
        assert_eq!(join(1, 1 << 8), set);
        assert_eq!(join(0, u32::MAX).0 >> 41, 0);
    }
}
