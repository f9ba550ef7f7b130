//! Waiting for several files: `poll(2)`, `ppoll(2)`.
use std::sync::Arc;

use abi::fs::O_PATH;
use abi::time::Timespec;
use abi::uio::Pollfd;
use abi::{Errno, SigSet};
use kernel::{BlockResult, File, RLIMIT_NOFILE, RestartBlock};
use sync::{PollEvents, WaitKey};

use crate::Cx;
use crate::decode::{Fd, UserPtr};

/// One file with what is asked of it. While it lives the thread may be registered at the file.
pub(crate) struct Watch {
    file: Arc<dyn File>,
    asked: PollEvents,
    key: Option<WaitKey>,
}

impl Watch {
    pub(crate) fn new(file: Arc<dyn File>, asked: PollEvents) -> Self {
        Self { file, asked: asked | PollEvents::ALWAYS, key: None }
    }
    /// What of that which is asked for is there.
    pub(crate) fn ready(&self, cx: &Cx<'_>) -> PollEvents {
        self.file.poll(cx) & self.asked
    }
    fn register(&mut self, cx: &Cx<'_>) {
        if let Some(queue) = self.file.wait_queue() {
            self.key = Some(queue.register(self.asked, cx.cur.waiter().clone()));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let (Some(queue), Some(key)) = (self.file.wait_queue(), self.key) {
            queue.unregister(key);
        }
    }
}

/// How a wait for files ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Something is ready, or the time is up.
    Done,
    /// A signal came.
    Interrupted,
}

/// Waits until `look` says that something is ready, the deadline, or a signal. `look` is called after the thread is
/// registered, so that nothing falls between.
pub(crate) fn wait_for(
    cx: &mut Cx<'_>,
    watches: &mut [Watch],
    deadline_ns: Option<u64>,
    mut look: impl FnMut(&Cx<'_>, &[Watch]) -> bool,
) -> Ended {
    if look(cx, watches) || deadline_ns == Some(0) {
        return Ended::Done;
    }
    for watch in &mut *watches {
        watch.register(cx);
    }
    loop {
        if look(cx, watches) {
            return Ended::Done;
        }
        match cx.cur.block(deadline_ns) {
            BlockResult::Woken => {}
            BlockResult::TimedOut => {
                look(cx, watches);
                return Ended::Done;
            }
            BlockResult::Interrupted => return Ended::Interrupted,
        }
    }
}

/// The deadline of a time span; 0 stands for not waiting at all.
pub(crate) fn deadline(cx: &Cx<'_>, span_ns: Option<u64>) -> Option<u64> {
    span_ns.map(|span| if span == 0 { 0 } else { cx.now_ns().saturating_add(span) })
}

/// poll(2) with an end in the monotonic clock.
pub(crate) fn poll_until(
    cx: &mut Cx<'_>,
    fds: UserPtr<Pollfd>,
    count: u64,
    deadline_ns: Option<u64>,
) -> Result<usize, Errno> {
    match poll_once(cx, fds, count, deadline_ns)? {
        (0, Ended::Interrupted) => {
            cx.set_restart(RestartBlock::Poll { fds: fds.addr(), count, deadline_ns });
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        (ready, _) => Ok(ready),
    }
}

fn poll_once(
    cx: &mut Cx<'_>,
    fds: UserPtr<Pollfd>,
    count: u64,
    deadline_ns: Option<u64>,
) -> Result<(usize, Ended), Errno> {
    if count > cx.limit(RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    let count = usize::try_from(count).map_err(|_wide| Errno::EINVAL)?;
    let mut entries = fds.read_vec(cx, count)?;
    let table = cx.fds()?;
    let mut watches = Vec::new();
    // For each entry, which watch answers it, or what is known without.
    let mut place = Vec::with_capacity(count);
    for entry in &entries {
        if entry.fd < 0 {
            place.push(Err(PollEvents::NONE));
            continue;
        }
        match table.get(Fd(entry.fd).0) {
            Ok(file) if file.status_flags() & O_PATH == 0 => {
                place.push(Ok(watches.len()));
                watches.push(Watch::new(file, PollEvents(u32::from(entry.events))));
            }
            _ => place.push(Err(PollEvents::NVAL)),
        }
    }
    let mut ready = 0;
    let ended = wait_for(cx, &mut watches, deadline_ns, |cx, watches| {
        ready = 0;
        for (entry, place) in entries.iter_mut().zip(&place) {
            let events = match place {
                Ok(at) => watches.get(*at).map_or(PollEvents::NONE, |w| w.ready(cx)),
                Err(known) => *known,
            };
            entry.revents = u16::try_from(events.0 & 0xffff).unwrap_or(0);
            ready += usize::from(entry.revents != 0);
        }
        ready > 0
    });
    for (i, entry) in entries.iter().enumerate() {
        // The rest of the entry is the program's, which may change it meanwhile.
        UserPtr::<u16>::new(fds.at(i)?.addr() + 6).write(cx, &entry.revents)?;
    }
    Ok((ready, ended))
}

/// `poll(2)`
///
/// # Errors
/// `EFAULT`, `EINVAL`, `EINTR`.
pub fn poll(cx: &mut Cx<'_>, fds: UserPtr<Pollfd>, count: u32, timeout_ms: i32) -> Result<usize, Errno> {
    let span = u64::try_from(timeout_ms).ok().map(|ms| ms * 1_000_000);
    let deadline_ns = deadline(cx, span);
    poll_until(cx, fds, u64::from(count), deadline_ns)
}

/// Stores how much of a time span is left, as Linux does; a place that cannot be written is let be.
pub(crate) fn store_left(cx: &Cx<'_>, deadline_ns: Option<u64>, store: impl FnOnce(&Cx<'_>, u64)) {
    if let Some(at) = deadline_ns
        && cx.group().personality() & STICKY_TIMEOUTS == 0
    {
        store(cx, at.saturating_sub(cx.now_ns()));
    }
}

/// personality(2): the time left is not stored.
const STICKY_TIMEOUTS: u32 = 0x0400_0000;

/// `ppoll(2)`
///
/// # Errors
/// `EFAULT`, `EINVAL`, `EINTR`.
pub fn ppoll(
    cx: &mut Cx<'_>,
    fds: UserPtr<Pollfd>,
    count: u32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<SigSet>,
    mask_size: usize,
) -> Result<usize, Errno> {
    let span = timeout.read_if_some(cx)?.map(Timespec::to_ns).transpose()?;
    let deadline_ns = deadline(cx, span);
    crate::signal::set_temporary_mask(cx, mask, mask_size)?;
    let result = match poll_once(cx, fds, u64::from(count), deadline_ns) {
        Ok((0, Ended::Interrupted)) => Err(Errno::ERESTARTNOHAND),
        result => result.map(|(ready, _)| ready),
    };
    let result = crate::signal::restore_mask(cx, result);
    store_left(cx, deadline_ns, |cx, left| {
        let _unwritable = timeout.write(cx, &Timespec::from_ns(left));
    });
    result
}
