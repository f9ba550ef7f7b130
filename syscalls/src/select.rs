//! Waiting for several files, by sets of bits: `select(2)`, `pselect6(2)`.
use abi::time::{Timespec, Timeval};
use abi::{Errno, SigSet};
use sync::PollEvents;

use crate::Cx;
use crate::decode::UserPtr;
use crate::poll::{Ended, Watch, deadline, store_left, wait_for};

/// What each set asks for, Linux `POLLIN_SET`, `POLLOUT_SET`, `POLLEX_SET`.
const READ: PollEvents = PollEvents(0x41 | 0x80 | 0x10 | 0x8);
const WRITE: PollEvents = PollEvents(0x104 | 0x200 | 0x8);
const EXCEPT: PollEvents = PollEvents(0x2);

/// One of the three sets, and what of it is ready.
struct FdSet {
    at: u64,
    asked: Vec<u8>,
    ready: Vec<u8>,
}

fn bit(set: &[u8], fd: usize) -> bool {
    set.get(fd / 8).is_some_and(|byte| byte >> (fd % 8) & 1 != 0)
}

impl FdSet {
    fn read(cx: &Cx<'_>, at: u64, bytes: usize) -> Result<Self, Errno> {
        let mut asked = vec![0; if at == 0 { 0 } else { bytes }];
        cx.memory()?.read_bytes(at, &mut asked)?;
        Ok(Self { at, ready: vec![0; asked.len()], asked })
    }
    fn set(&mut self, fd: usize) {
        if let Some(byte) = self.ready.get_mut(fd / 8) {
            *byte |= 1 << (fd % 8);
        }
    }
}

/// select(2) with an end in the monotonic clock.
fn select_until(
    cx: &mut Cx<'_>,
    n: i32,
    addresses: [u64; 3],
    deadline_ns: Option<u64>,
) -> Result<usize, Errno> {
    let n = usize::try_from(n).map_err(|_negative| Errno::EINVAL)?;
    let table = cx.fds()?;
    // Bits beyond the table name nothing; Linux does not look at them.
    let n = n.min(table.capacity());
    let bytes = n.div_ceil(64) * 8;
    let [read, write, except] = addresses;
    let mut sets =
        [FdSet::read(cx, read, bytes)?, FdSet::read(cx, write, bytes)?, FdSet::read(cx, except, bytes)?];
    let mut watches = Vec::new();
    let mut watched = Vec::new();
    for fd in 0..n {
        let mut asked = PollEvents::NONE;
        for (set, events) in sets.iter().zip([READ, WRITE, EXCEPT]) {
            if bit(&set.asked, fd) {
                asked |= events;
            }
        }
        if !asked.is_empty() {
            let file = table.get(i32::try_from(fd).map_err(|_wide| Errno::EBADF)?)?;
            if file.status_flags() & abi::fs::O_PATH != 0 {
                return Err(Errno::EBADF);
            }
            watches.push(Watch::new(file, asked));
            watched.push(fd);
        }
    }
    let mut ready = 0;
    let ended = wait_for(cx, &mut watches, deadline_ns, |cx, watches| {
        ready = 0;
        for (watch, fd) in watches.iter().zip(&watched) {
            let events = watch.ready(cx);
            for (set, kind) in sets.iter_mut().zip([READ, WRITE, EXCEPT]) {
                if events.intersects(kind) && bit(&set.asked, *fd) {
                    set.set(*fd);
                    ready += 1;
                }
            }
        }
        ready > 0
    });
    if ready == 0 && ended == Ended::Interrupted {
        return Err(Errno::ERESTARTNOHAND);
    }
    for set in sets.iter().filter(|s| s.at != 0) {
        cx.memory()?.write_bytes(set.at, &set.ready)?;
    }
    Ok(ready)
}

/// `select(2)`
///
/// # Errors
/// `EBADF`, `EFAULT`, `EINVAL`, `EINTR`.
pub fn select(
    cx: &mut Cx<'_>,
    n: i32,
    read: u64,
    write: u64,
    except: u64,
    timeout: UserPtr<Timeval>,
) -> Result<usize, Errno> {
    let span = match timeout.read_if_some(cx)? {
        // Linux takes more than a second of microseconds here.
        Some(time) if time.usec >= 1_000_000 => {
            let sec = time.sec.saturating_add(time.usec / 1_000_000);
            Some(Timeval { sec, usec: time.usec % 1_000_000 }.to_ns()?)
        }
        time => time.map(Timeval::to_ns).transpose()?,
    };
    let deadline_ns = deadline(cx, span);
    let result = select_until(cx, n, [read, write, except], deadline_ns);
    store_left(cx, deadline_ns, |cx, left| {
        let _unwritable = timeout.write(cx, &Timeval::from_ns(left));
    });
    result
}

/// `pselect6(2)`; the last argument is the address of a set's address and size.
///
/// # Errors
/// `EBADF`, `EFAULT`, `EINVAL`, `EINTR`.
pub fn pselect6(
    cx: &mut Cx<'_>,
    n: i32,
    read: u64,
    write: u64,
    except: u64,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<[u64; 2]>,
) -> Result<usize, Errno> {
    let [set, size] = mask.read_if_some(cx)?.unwrap_or_default();
    let span = timeout.read_if_some(cx)?.map(Timespec::to_ns).transpose()?;
    let deadline_ns = deadline(cx, span);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    crate::signal::set_temporary_mask(cx, UserPtr::<SigSet>::new(set), size)?;
    let result = select_until(cx, n, [read, write, except], deadline_ns);
    let result = crate::signal::restore_mask(cx, result);
    store_left(cx, deadline_ns, |cx, left| {
        let _unwritable = timeout.write(cx, &Timespec::from_ns(left));
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_from_the_lowest() {
        assert!(bit(&[0, 2], 9) && !bit(&[0, 2], 8) && !bit(&[0, 2], 100));
        let mut set = FdSet { at: 0, asked: vec![0; 8], ready: vec![0; 8] };
        set.set(63);
        set.set(64);
        assert_eq!(set.ready, [0, 0, 0, 0, 0, 0, 0, 0x80]);
    }
}
