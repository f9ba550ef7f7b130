//! Message queues: `msgget(2)`, `msgsnd(2)`, `msgrcv(2)`, `msgctl(2)`.
use std::collections::VecDeque;
use std::sync::Arc;

use abi::Errno;
use abi::ipc::{
    IPC_INFO, IPC_NOWAIT, IPC_RMID, IPC_SET, IPC_STAT, IpcPerm, MSG_COPY, MSG_EXCEPT, MSG_INFO, MSG_NOERROR,
    MSG_STAT, MSG_STAT_ANY, Msginfo, MsqidDs,
};
use kernel::Cap;
use sync::{LockClass, Mutex, PollEvents, WaitQueue};

use super::{Object, READ, Registry, WRITE, check, check_owner, seconds, set_perm};
use crate::Cx;
use crate::blocking::Wait;
use crate::decode::UserPtr;
use crate::process::id;

/// The longest message, Linux `MSGMAX`.
const MSGMAX: usize = 8192;
/// What a new queue holds, Linux `MSGMNB`.
const MSGMNB: u64 = 16_384;

#[derive(Debug)]
struct Message {
    kind: i64,
    text: Vec<u8>,
}

#[derive(Debug)]
struct State {
    perm: IpcPerm,
    messages: VecDeque<Message>,
    /// Bytes of all messages.
    bytes: u64,
    /// How many bytes it may hold, and how many messages.
    limit: u64,
    stime: i64,
    rtime: i64,
    ctime: i64,
    lspid: i32,
    lrpid: i32,
    removed: bool,
}

/// A queue.
#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: WaitQueue,
}

impl Object for Queue {
    fn perm(&self) -> IpcPerm {
        self.state.lock().perm
    }
}

static QUEUES: Registry<Queue> = Registry::new();

impl State {
    fn has_room(&self, len: usize) -> bool {
        self.bytes + len as u64 <= self.limit && (self.messages.len() as u64) < self.limit
    }

    /// Where the message is that msgrcv(2) takes.
    fn find(&self, kind: i64, except: bool) -> Option<usize> {
        let mut all = self.messages.iter();
        match kind {
            0 => (!self.messages.is_empty()).then_some(0),
            1.. => all.position(|m| (m.kind == kind) != except),
            // The lowest type up to the absolute value, the oldest of it.
            _ => {
                let most = kind.checked_neg().unwrap_or(i64::MAX);
                let fits = all.enumerate().filter(|(_, m)| m.kind <= most);
                fits.min_by_key(|(at, m)| (m.kind, *at)).map(|(at, _)| at)
            }
        }
    }

    fn take(&mut self, at: usize) -> Option<Message> {
        let message = self.messages.remove(at)?;
        self.bytes -= message.text.len() as u64;
        Some(message)
    }
}

/// `msgget(2)`
///
/// # Errors
/// `EEXIST`, `ENOENT`, `EACCES`, `ENOSPC`.
pub fn msgget(cx: &mut Cx<'_>, key: i32, flags: u32) -> Result<usize, Errno> {
    let ctime = seconds(cx);
    let make = |perm| {
        let state = State {
            perm,
            messages: VecDeque::new(),
            bytes: 0,
            limit: MSGMNB,
            stime: 0,
            rtime: 0,
            ctime,
            lspid: 0,
            lrpid: 0,
            removed: false,
        };
        Ok(Queue { state: Mutex::new(LockClass::FileLocks, state), changed: WaitQueue::new() })
    };
    id(QUEUES.find_or_make(cx, key, flags, |_| Ok(()), make)?)
}

/// Waits for the queue to change until `attempt` gives something else than `EAGAIN`. Calls on queues are never started
/// again after a signal, signal(7).
fn wait<T>(
    cx: &mut Cx<'_>,
    queue: &Queue,
    flags: u32,
    mut attempt: impl FnMut(&mut State) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let wait = Wait::unless(flags & u32::from(IPC_NOWAIT.cast_unsigned()) != 0);
    let result = cx.wait_on(&queue.changed, PollEvents::IN, wait, |_| {
        let mut state = queue.state.lock();
        if state.removed { Err(Errno::EIDRM) } else { attempt(&mut state) }
    });
    match result {
        Err(Errno::ERESTARTSYS) => Err(Errno::EINTR),
        Ok(value) => {
            queue.changed.notify(PollEvents::IN);
            Ok(value)
        }
        result => result,
    }
}

/// `msgsnd(2)`
///
/// # Errors
/// `EFAULT`, `EINVAL`, `EACCES`, `EAGAIN`, `EIDRM`, `EINTR`.
pub fn msgsnd(
    cx: &mut Cx<'_>,
    queue: i32,
    message: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> Result<usize, Errno> {
    let kind = message.read(cx)?;
    if len > MSGMAX || queue < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let mut text = vec![0; len];
    cx.memory()?.read_bytes(message.at(1)?.addr(), &mut text)?;
    let queue = QUEUES.get(queue)?;
    let (creds, pid, now) = (cx.credentials(), cx.tgid(), seconds(cx));
    let mut text = Some(text);
    wait(cx, &queue, flags, |state| {
        check(&creds, &state.perm, WRITE)?;
        if !state.has_room(len) {
            return Err(Errno::EAGAIN);
        }
        if let Some(text) = text.take() {
            state.bytes += len as u64;
            state.messages.push_back(Message { kind, text });
            (state.stime, state.lspid) = (now, pid);
        }
        Ok(0)
    })
}

/// `msgrcv(2)`: gives the length of the text.
///
/// # Errors
/// `EINVAL`, `EACCES`, `E2BIG`, `ENOMSG`, `EFAULT`, `EIDRM`, `EINTR`, `ENOSYS` for `MSG_COPY`.
pub fn msgrcv(
    cx: &mut Cx<'_>,
    queue: i32,
    message: UserPtr<i64>,
    room: usize,
    kind: i64,
    flags: u32,
) -> Result<usize, Errno> {
    if queue < 0 || i64::try_from(room).is_err() {
        return Err(Errno::EINVAL);
    }
    if flags & MSG_COPY != 0 {
        if flags & MSG_EXCEPT != 0 || flags & u32::from(IPC_NOWAIT.cast_unsigned()) == 0 {
            return Err(Errno::EINVAL);
        }
        return Err(cx.unsupported("msgrcv: MSG_COPY", Errno::ENOSYS));
    }
    let queue = QUEUES.get(queue)?;
    let (creds, pid, now) = (cx.credentials(), cx.tgid(), seconds(cx));
    let taken = wait(cx, &queue, flags, |state| {
        check(&creds, &state.perm, READ)?;
        let at = state.find(kind, flags & MSG_EXCEPT != 0).ok_or(Errno::EAGAIN)?;
        let len = state.messages.get(at).map_or(0, |m| m.text.len());
        if len > room && flags & MSG_NOERROR == 0 {
            return Err(Errno::E2BIG);
        }
        (state.rtime, state.lrpid) = (now, pid);
        state.take(at).ok_or(Errno::EAGAIN)
    });
    let taken = taken.map_err(|e| if e == Errno::EAGAIN { Errno::ENOMSG } else { e })?;
    let text = taken.text.get(..room).unwrap_or(&taken.text);
    message.write(cx, &taken.kind)?;
    cx.memory()?.write_bytes(message.at(1)?.addr(), text)?;
    Ok(text.len())
}

fn status(queue: &Queue) -> MsqidDs {
    let state = queue.state.lock();
    MsqidDs {
        perm: state.perm,
        stime: state.stime,
        rtime: state.rtime,
        ctime: state.ctime,
        cbytes: state.bytes,
        qnum: state.messages.len() as u64,
        qbytes: state.limit,
        lspid: state.lspid,
        lrpid: state.lrpid,
        ..MsqidDs::default()
    }
}

/// `msgctl(2)`
///
/// # Errors
/// `EINVAL`, `EACCES`, `EPERM`, `EFAULT`.
pub fn msgctl(cx: &mut Cx<'_>, number: i32, command: i32, buf: UserPtr<MsqidDs>) -> Result<usize, Errno> {
    let (creds, now) = (cx.credentials(), seconds(cx));
    match command {
        IPC_INFO | MSG_INFO => return info(cx, command, buf.cast()),
        MSG_STAT | MSG_STAT_ANY => {
            let (number, queue) = QUEUES.at(number)?;
            if command == MSG_STAT {
                check(&creds, &queue.perm(), READ)?;
            }
            buf.write(cx, &status(&queue))?;
            return id(number);
        }
        _ => {}
    }
    let queue = QUEUES.get(number)?;
    match command {
        IPC_STAT => {
            check(&creds, &queue.perm(), READ)?;
            buf.write(cx, &status(&queue))?;
            return Ok(0);
        }
        IPC_SET => {
            let new = buf.read(cx)?;
            check_owner(&creds, &queue.perm())?;
            if new.qbytes > MSGMNB && !creds.has_cap(Cap::SYS_RESOURCE) {
                return Err(Errno::EPERM);
            }
            let mut state = queue.state.lock();
            set_perm(&mut state.perm, &new.perm);
            // Bounded, for the messages are the sentry's memory.
            state.limit = new.qbytes.min(1 << 20);
            state.ctime = now;
        }
        IPC_RMID => {
            check_owner(&creds, &queue.perm())?;
            QUEUES.remove(number);
            queue.state.lock().removed = true;
        }
        _ => return Err(Errno::EINVAL),
    }
    queue.changed.notify(PollEvents::IN);
    Ok(0)
}

fn info(cx: &Cx<'_>, command: i32, to: UserPtr<Msginfo>) -> Result<usize, Errno> {
    let used = i32::try_from(QUEUES.len()).unwrap_or(i32::MAX);
    let mut value = Msginfo {
        msgpool: 512_000,
        msgmap: 16_384,
        msgmax: 8192,
        msgmnb: 16_384,
        msgmni: 32_000,
        msgssz: 16,
        msgtql: 16_384,
        msgseg: u16::MAX,
        pad: 0,
    };
    if command == MSG_INFO {
        let all: Vec<Arc<Queue>> = QUEUES.objects.lock().by_id.values().cloned().collect();
        let sum = |f: fn(&State) -> u64| all.iter().map(|q| f(&q.state.lock())).sum::<u64>();
        let narrow = |n| i32::try_from(n).unwrap_or(i32::MAX);
        value.msgpool = used;
        value.msgmap = narrow(sum(|s| s.messages.len() as u64));
        value.msgtql = narrow(sum(|s| s.bytes));
    }
    to.write(cx, &value)?;
    id(used.saturating_sub(1).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_chosen_by_type() {
        let messages = [5, 3, 9, 3].map(|kind| Message { kind, text: vec![0; 4] });
        let mut state = State {
            perm: IpcPerm::default(),
            messages: VecDeque::from(messages),
            bytes: 16,
            limit: 18,
            stime: 0,
            rtime: 0,
            ctime: 0,
            lspid: 0,
            lrpid: 0,
            removed: false,
        };
        assert_eq!([0, 3, 9, 4].map(|kind| state.find(kind, false)), [Some(0), Some(1), Some(2), None]);
        assert_eq!(
            [-4, -9, -2, i64::MIN].map(|kind| state.find(kind, false)),
            [Some(1), Some(1), None, Some(1)]
        );
        assert_eq!(state.find(5, true), Some(1));
        assert!(state.has_room(2) && !state.has_room(3));
        assert_eq!(state.take(1).map(|m| m.kind), Some(3));
        assert_eq!((state.bytes, state.find(3, false)), (12, Some(2)));
    }
}
