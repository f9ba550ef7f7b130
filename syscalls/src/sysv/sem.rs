//! Semaphores: `semget(2)`, `semop(2)`, `semctl(2)`.
use std::collections::BTreeMap;

use abi::Errno;
use abi::ipc::{
    GETALL, GETNCNT, GETPID, GETVAL, GETZCNT, IPC_INFO, IPC_NOWAIT, IPC_RMID, IPC_SET, IPC_STAT, IpcPerm,
    SEM_INFO, SEM_STAT, SEM_STAT_ANY, SEM_UNDO, SETALL, SETVAL, Sembuf, SemidDs, Seminfo,
};
use abi::time::Timespec;
use kernel::{Kernel, ProcessId};
use sync::{LockClass, Mutex, PollEvents, WaitQueue};

use super::{Object, READ, Registry, WRITE, check, check_owner, seconds, set_perm};
use crate::Cx;
use crate::blocking::Wait;
use crate::decode::{Arg, UserPtr};
use crate::process::id;

/// Linux `SEMMSL`, `SEMOPM`, `SEMVMX`.
const SEMMSL: i32 = 32_000;
const SEMOPM: usize = 500;
const SEMVMX: i32 = 32_767;

#[derive(Clone, Copy, Debug, Default)]
struct Semaphore {
    value: i32,
    /// Who changed it last.
    pid: i32,
}

#[derive(Debug)]
struct State {
    perm: IpcPerm,
    sems: Vec<Semaphore>,
    /// What the end of a process adds, by process and semaphore.
    undo: BTreeMap<(ProcessId, u16), i32>,
    /// Which threads wait: for which semaphore, and whether for zero.
    waiting: Vec<((ProcessId, i32), u16, bool)>,
    otime: i64,
    ctime: i64,
    removed: bool,
}

/// A set of semaphores.
#[derive(Debug)]
struct Set {
    state: Mutex<State>,
    changed: WaitQueue,
}

impl Object for Set {
    fn perm(&self) -> IpcPerm {
        self.state.lock().perm
    }
}

static SETS: Registry<Set> = Registry::new();

/// Why operations cannot be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocked {
    /// By this semaphore; whether it is to become zero, and whether the caller does not wait.
    On(u16, bool, bool),
    /// For good.
    Failed(Errno),
}

impl State {
    /// Does all operations or none.
    fn apply(&mut self, ops: &[Sembuf], process: ProcessId) -> Result<(), Blocked> {
        let mut values: Vec<i32> = self.sems.iter().map(|s| s.value).collect();
        let mut undo = self.undo.clone();
        for op in ops {
            let value = values.get_mut(usize::from(op.num)).ok_or(Blocked::Failed(Errno::EFBIG))?;
            let nowait = op.flags & IPC_NOWAIT != 0;
            let delta = i32::from(op.op);
            if delta == 0 {
                if *value != 0 {
                    return Err(Blocked::On(op.num, true, nowait));
                }
                continue;
            }
            let new = *value + delta;
            if new < 0 {
                return Err(Blocked::On(op.num, false, nowait));
            }
            if new > SEMVMX {
                return Err(Blocked::Failed(Errno::ERANGE));
            }
            *value = new;
            if op.flags & SEM_UNDO != 0 {
                let back = undo.entry((process, op.num)).or_insert(0);
                *back -= delta;
                if !(-SEMVMX - 1..=SEMVMX).contains(back) {
                    return Err(Blocked::Failed(Errno::ERANGE));
                }
            }
        }
        for op in ops {
            if let Some(sem) = self.sems.get_mut(usize::from(op.num)) {
                sem.pid = process.tgid;
            }
        }
        for (sem, value) in self.sems.iter_mut().zip(values) {
            sem.value = value;
        }
        self.undo = undo;
        Ok(())
    }

    /// The end of a process gives back what it took with `SEM_UNDO`; tells whether anything changed.
    fn end_of(&mut self, process: ProcessId) -> bool {
        let own: Vec<(u16, i32)> = self
            .undo
            .range((process, 0)..=(process, u16::MAX))
            .map(|((_, num), delta)| (*num, *delta))
            .collect();
        for (num, delta) in &own {
            self.undo.remove(&(process, *num));
            if let Some(sem) = self.sems.get_mut(usize::from(*num)) {
                sem.value = (sem.value + delta).clamp(0, SEMVMX);
                sem.pid = process.tgid;
            }
        }
        !own.is_empty()
    }
}

/// Has the ends of processes give back what they took.
pub(crate) fn register(kernel: &Kernel) {
    kernel.on_exit(Box::new(|group| {
        let sets: Vec<_> = SETS.objects.lock().by_id.values().cloned().collect();
        for set in sets {
            if set.state.lock().end_of(group.process_id()) {
                set.changed.notify(PollEvents::IN);
            }
        }
    }));
}

/// `semget(2)`
///
/// # Errors
/// `EINVAL`, `EEXIST`, `ENOENT`, `EACCES`, `ENOSPC`.
pub fn semget(cx: &mut Cx<'_>, key: i32, count: i32, flags: u32) -> Result<usize, Errno> {
    if !(0..=SEMMSL).contains(&count) {
        return Err(Errno::EINVAL);
    }
    let wanted = usize::try_from(count).unwrap_or(0);
    let ctime = seconds(cx);
    let found = SETS.find_or_make(
        cx,
        key,
        flags,
        |set| if wanted > set.state.lock().sems.len() { Err(Errno::EINVAL) } else { Ok(()) },
        |perm| {
            if wanted == 0 {
                return Err(Errno::EINVAL);
            }
            let state = State {
                perm,
                sems: vec![Semaphore::default(); wanted],
                undo: BTreeMap::new(),
                waiting: Vec::new(),
                otime: 0,
                ctime,
                removed: false,
            };
            Ok(Set { state: Mutex::new(LockClass::FileLocks, state), changed: WaitQueue::new() })
        },
    )?;
    id(found)
}

/// `semop(2)`
///
/// # Errors
/// As [`semtimedop`].
pub fn semop(cx: &mut Cx<'_>, set: i32, ops: UserPtr<Sembuf>, count: usize) -> Result<usize, Errno> {
    semtimedop(cx, set, ops, count, UserPtr::new(0))
}

/// `semtimedop(2)`
///
/// # Errors
/// `EINVAL`, `E2BIG`, `EFAULT`, `EFBIG`, `EACCES`, `ERANGE`, `EAGAIN`, `EIDRM`, `EINTR`.
pub fn semtimedop(
    cx: &mut Cx<'_>,
    set: i32,
    ops: UserPtr<Sembuf>,
    count: usize,
    timeout: UserPtr<Timespec>,
) -> Result<usize, Errno> {
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    if count > SEMOPM {
        return Err(Errno::E2BIG);
    }
    let ops = ops.read_vec(cx, count)?;
    let span = timeout.read_if_some(cx)?.map(Timespec::to_ns).transpose()?;
    let wait = span.map_or(Wait::Forever, |span| Wait::Until(cx.now_ns().saturating_add(span)));
    let set = SETS.get(set)?;
    let wanted = if ops.iter().any(|op| op.op != 0) { WRITE } else { READ };
    {
        let state = set.state.lock();
        if ops.iter().any(|op| usize::from(op.num) >= state.sems.len()) {
            return Err(Errno::EFBIG);
        }
        check(&cx.credentials(), &state.perm, wanted)?;
    }
    let (process, now) = (cx.group().process_id(), seconds(cx));
    let thread = (process, cx.tid());
    let result = cx.wait_on(&set.changed, PollEvents::IN, wait, |_| {
        let mut state = set.state.lock();
        state.waiting.retain(|(waiter, ..)| *waiter != thread);
        if state.removed {
            return Err(Errno::EIDRM);
        }
        match state.apply(&ops, process) {
            Ok(()) => {
                state.otime = now;
                Ok(true)
            }
            Err(Blocked::Failed(errno)) => Err(errno),
            Err(Blocked::On(_, _, true)) => Ok(false),
            Err(Blocked::On(num, zero, false)) => {
                state.waiting.push((thread, num, zero));
                Err(Errno::EAGAIN)
            }
        }
    });
    set.state.lock().waiting.retain(|(waiter, ..)| *waiter != thread);
    match result {
        Ok(true) => {
            if wanted == WRITE {
                set.changed.notify(PollEvents::IN);
            }
            Ok(0)
        }
        Ok(false) => Err(Errno::EAGAIN),
        // Never started again, signal(7).
        Err(Errno::ERESTARTSYS) => Err(Errno::EINTR),
        Err(errno) => Err(errno),
    }
}

fn status(state: &State) -> SemidDs {
    SemidDs {
        perm: state.perm,
        otime: state.otime,
        ctime: state.ctime,
        nsems: state.sems.len() as u64,
        ..SemidDs::default()
    }
}

/// `semctl(2)`
///
/// # Errors
/// `EINVAL`, `EACCES`, `EPERM`, `EFAULT`, `ERANGE`.
pub fn semctl(cx: &mut Cx<'_>, set: i32, num: i32, command: i32, arg: u64) -> Result<usize, Errno> {
    match command {
        IPC_INFO | SEM_INFO => return info(cx, command, UserPtr::new(arg)),
        SEM_STAT | SEM_STAT_ANY => {
            let (number, set) = SETS.at(set)?;
            let state = status(&set.state.lock());
            if command == SEM_STAT {
                check(&cx.credentials(), &state.perm, READ)?;
            }
            UserPtr::new(arg).write(cx, &state)?;
            return id(number);
        }
        _ => {}
    }
    let number = set;
    let set = SETS.get(set)?;
    let (creds, now) = (cx.credentials(), seconds(cx));
    let perm = set.perm();
    match command {
        IPC_RMID => {
            check_owner(&creds, &perm)?;
            SETS.remove(number);
            set.state.lock().removed = true;
            set.changed.notify(PollEvents::IN);
            Ok(0)
        }
        IPC_SET => {
            let new = UserPtr::<SemidDs>::new(arg).read(cx)?;
            check_owner(&creds, &perm)?;
            let mut state = set.state.lock();
            set_perm(&mut state.perm, &new.perm);
            state.ctime = now;
            Ok(0)
        }
        IPC_STAT => {
            check(&creds, &perm, READ)?;
            let state = status(&set.state.lock());
            UserPtr::new(arg).write(cx, &state)?;
            Ok(0)
        }
        GETALL => {
            check(&creds, &perm, READ)?;
            let values: Vec<u16> =
                set.state.lock().sems.iter().map(|s| u16::try_from(s.value).unwrap_or(0)).collect();
            cx.memory()?.write_bytes(arg, zerocopy::IntoBytes::as_bytes(values.as_slice()))?;
            Ok(0)
        }
        SETALL => set_all(cx, &set, &creds, UserPtr::new(arg), now),
        GETVAL | GETPID | GETNCNT | GETZCNT | SETVAL => one(cx, &set, num, command, arg),
        _ => Err(Errno::EINVAL),
    }
}

fn set_all(
    cx: &Cx<'_>,
    set: &Set,
    creds: &kernel::Credentials,
    values: UserPtr<u16>,
    now: i64,
) -> Result<usize, Errno> {
    let (perm, count) = {
        let state = set.state.lock();
        (state.perm, state.sems.len())
    };
    check(creds, &perm, WRITE)?;
    let values = values.read_vec(cx, count)?;
    if values.iter().any(|v| i32::from(*v) > SEMVMX) {
        return Err(Errno::ERANGE);
    }
    {
        let mut state = set.state.lock();
        for (sem, value) in state.sems.iter_mut().zip(values) {
            *sem = Semaphore { value: i32::from(value), pid: cx.tgid() };
        }
        state.undo.clear();
        state.ctime = now;
    }
    set.changed.notify(PollEvents::IN);
    Ok(0)
}

/// The commands on one semaphore.
fn one(cx: &Cx<'_>, set: &Set, num: i32, command: i32, arg: u64) -> Result<usize, Errno> {
    let (creds, now) = (cx.credentials(), seconds(cx));
    let wanted = if command == SETVAL { WRITE } else { READ };
    let value = Arg(arg).low().cast_signed();
    if command == SETVAL && !(0..=SEMVMX).contains(&value) {
        return Err(Errno::ERANGE);
    }
    let result = {
        let mut state = set.state.lock();
        let waiting = |zero| {
            let on = |w: &&((ProcessId, i32), u16, bool)| i32::from(w.1) == num && w.2 == zero;
            i32::try_from(state.waiting.iter().filter(on).count()).unwrap_or(i32::MAX)
        };
        let (for_more, for_zero) = (waiting(false), waiting(true));
        check(&creds, &state.perm, wanted)?;
        let at = usize::try_from(num).map_err(|_negative| Errno::EINVAL)?;
        let sem = state.sems.get_mut(at).ok_or(Errno::EINVAL)?;
        match command {
            GETVAL => sem.value,
            GETPID => sem.pid,
            GETNCNT => for_more,
            GETZCNT => for_zero,
            _ => {
                *sem = Semaphore { value, pid: cx.tgid() };
                state.undo.retain(|(_, other), _| i32::from(*other) != num);
                state.ctime = now;
                0
            }
        }
    };
    if command == SETVAL {
        set.changed.notify(PollEvents::IN);
    }
    id(result)
}

fn info(cx: &Cx<'_>, command: i32, to: UserPtr<Seminfo>) -> Result<usize, Errno> {
    let used = i32::try_from(SETS.len()).unwrap_or(i32::MAX);
    let usage = command == SEM_INFO;
    let value = Seminfo {
        semmap: 1_024_000_000,
        semmni: 32_000,
        semmns: 1_024_000_000,
        semmnu: 1_024_000_000,
        semmsl: SEMMSL,
        semopm: 500,
        semume: 500,
        semusz: if usage { used } else { 20 },
        semvmx: SEMVMX,
        semaem: SEMVMX,
    };
    to.write(cx, &value)?;
    id(used.saturating_sub(1).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(values: &[i32]) -> State {
        State {
            perm: IpcPerm::default(),
            sems: values.iter().map(|value| Semaphore { value: *value, pid: 0 }).collect(),
            undo: BTreeMap::new(),
            waiting: Vec::new(),
            otime: 0,
            ctime: 0,
            removed: false,
        }
    }

    fn values(state: &State) -> Vec<i32> {
        state.sems.iter().map(|s| s.value).collect()
    }

    fn process(tgid: i32) -> ProcessId {
        ProcessId { namespace: 0, tgid }
    }

    #[test]
    fn operations_are_all_or_none() {
        let mut set = state(&[1, 0]);
        let op = |num, op, flags| Sembuf { num, op, flags };
        assert_eq!(set.apply(&[op(0, -1, 0), op(1, -1, 0)], process(7)), Err(Blocked::On(1, false, false)));
        assert_eq!(values(&set), [1, 0]);
        assert_eq!(set.apply(&[op(0, 0, IPC_NOWAIT)], process(7)), Err(Blocked::On(0, true, true)));
        assert_eq!(set.apply(&[op(0, i16::MAX, 0)], process(7)), Err(Blocked::Failed(Errno::ERANGE)));
        assert_eq!(set.apply(&[op(0, -1, SEM_UNDO), op(1, 3, 0), op(0, 0, 0)], process(7)), Ok(()));
        assert_eq!(values(&set), [0, 3]);
    }

    #[test]
    fn the_end_of_a_process_gives_back() {
        let mut set = state(&[2]);
        set.apply(&[Sembuf { num: 0, op: -2, flags: SEM_UNDO }], process(7)).expect("possible");
        let elsewhere = ProcessId { namespace: 1, tgid: 7 };
        assert!(!set.end_of(process(8)) && !set.end_of(elsewhere));
        assert!(set.end_of(process(7)) && !set.end_of(process(7)));
        assert_eq!(values(&set), [2]);
    }
}
