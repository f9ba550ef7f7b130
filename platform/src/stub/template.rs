//! The process that all stubs are forked from.
use std::arch::asm;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::control::{Control, Operation, Slot};
use super::layout::{ASIDE, BASE, CODE, PAGE, REQUEST, TASK_SIZE, VDSO, without};
use super::lock::Mutex;
use super::mapper::Mapper;
use super::process::{Graveyard, Stub};
use super::{Flavor, blob};
use crate::systrap::area::{AreaSlot, Areas};
use crate::systrap::{code as thread, region};
use crate::{PlatformError, host, sys};

/// The signal that the host sends to the sentry for each stub that ends: a real-time one, as those do not merge. It is
/// ignored unless the main thread has it blocked, and waits then.
pub const DEATH_SIGNAL: i32 = 40;

const SHARE: i32 = libc::CLONE_FILES | libc::CLONE_FS;
const CLEAR_SIGNAL_HANDLERS: u64 = 1 << 32;
const MOVE_TO: u64 = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED).cast_unsigned() as u64;
const FIXED: u64 = (libc::MAP_SHARED | libc::MAP_FIXED).cast_unsigned() as u64;
const READ: u64 = libc::PROT_READ.cast_unsigned() as u64;
const READ_EXECUTE: u64 = (libc::PROT_READ | libc::PROT_EXEC).cast_unsigned() as u64;
pub(crate) const THREAD_FLAGS: i32 =
    SHARE | libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD | libc::CLONE_SYSVSEM;

/// The operation by which a mapper makes a guest thread, parked; its answer is the thread's id.
pub(crate) const NEW_THREAD: Operation = Operation {
    kind: blob::KIND_THREAD,
    nr: libc::SYS_clone,
    args: [THREAD_FLAGS.cast_unsigned() as u64, 0, 0, 0, 0, 0],
};

/// The template, and the stub that it makes ahead of need.
#[derive(Debug)]
pub(crate) struct Template {
    state: Mutex<State>,
    control: Arc<Control>,
    /// Where the threads of trapping stubs have their areas.
    areas: Option<Arc<Areas>>,
    graveyard: Arc<Graveyard>,
    vdso: Option<u64>,
    user_end: u64,
    code: File,
}

#[derive(Debug)]
struct State {
    process: Stub,
    /// The stub whose fork is under way: the template owes an answer.
    ahead: Option<Seed>,
}

/// What a stub starts with.
#[derive(Debug)]
struct Seed {
    slot: Slot,
    /// Its first thread's.
    area: Option<AreaSlot>,
}

impl Template {
    /// Makes the template. It must be able to outlive the calling thread, and the process must not yet be under a filter
    /// that a stub should not have.
    ///
    /// # Errors
    /// Those of the host calls it takes.
    pub(crate) fn new(flavor: Flavor) -> Result<Self, PlatformError> {
        let control = Control::new()?;
        let areas = match flavor {
            Flavor::Traced => None,
            Flavor::Trapping => Some(Areas::new()?),
        };
        let code = blob::create(flavor)?;
        let size = usize::try_from(blob::SIZE).unwrap_or(0);
        let copy = sys::map_shared(code.as_raw_fd(), size, libc::PROT_READ | libc::PROT_EXEC)?;
        sys::ignore(DEATH_SIGNAL)?;
        let graveyard = Arc::new(Graveyard::default());
        let made = spawn(&control, &graveyard, copy);
        // SAFETY: the intermediate process, which ran this copy in our memory, is gone; the template has its own.
        unsafe { sys::unmap(copy, size) };
        let (mut mapper, page) = made?;
        let place = Place { copy: copy.addr() as u64, page };
        let (vdso, user_end) = settle(&mut mapper, flavor, &control, &code, &place)?;
        let process = Stub::new(mapper, Arc::clone(&graveyard));
        let state = Mutex::new(State { process, ahead: None });
        Ok(Self { state, control, areas, graveyard, vdso, user_end, code })
    }

    /// The stubs' code.
    pub(crate) fn code(&self) -> &File {
        &self.code
    }

    /// Where the threads of trapping stubs have their areas.
    pub(crate) const fn areas(&self) -> Option<&Arc<Areas>> {
        self.areas.as_ref()
    }

    /// Tells, once, whether the end of this process was meant.
    pub(crate) fn was_meant(&self, pid: i32) -> bool {
        self.graveyard.was_meant(pid)
    }

    /// Where stubs keep the host's vDSO.
    pub(crate) const fn vdso(&self) -> Option<u64> {
        self.vdso
    }

    /// The mappings of that vDSO, the code last. The stubs may have moved them, all by the same distance.
    pub(crate) fn vdso_parts(&self) -> Vec<Range<u64>> {
        let parts = host::vdso_ranges();
        let Some((code, kept)) = parts.last().zip(self.vdso()) else { return Vec::new() };
        let moved = |at: u64| at.wrapping_sub(code.start).wrapping_add(kept);
        parts.iter().map(|part| moved(part.start)..moved(part.end)).collect()
    }

    /// The end of what guests may map.
    pub(crate) const fn user_end(&self) -> u64 {
        self.user_end
    }

    /// Gives a fresh stub whose mapper already has the making of a guest thread as its first request, and that thread's
    /// slot if it traps; and starts the next.
    ///
    /// # Errors
    /// Those of clone(2); `EAGAIN` when there are too many stubs.
    pub(crate) fn fork(&self) -> Result<(Stub, Option<AreaSlot>), PlatformError> {
        self.graveyard.sweep(libc::WNOHANG);
        let mut state = self.state.lock();
        let ahead =
            state.ahead.take().and_then(|seed| Some((state.process.mapper().answer("clone").ok()?, seed)));
        let (pid, seed) = match ahead {
            Some(made) => made,
            None => {
                let seed = self.start(&mut state)?;
                (state.process.mapper().answer("clone")?, seed)
            }
        };
        state.ahead = self.start(&mut state).ok();
        Ok((self.grow(seed.slot, pid), seed.area))
    }

    fn grow(&self, slot: Slot, pid: i32) -> Stub {
        Stub::new(Mapper::new(slot, pid, 1), Arc::clone(&self.graveyard))
    }

    fn start(&self, state: &mut State) -> Result<Seed, PlatformError> {
        let slot = self.control.take()?;
        let area = match &self.areas {
            Some(areas) => Some(areas.take(super::layout::REGIONS)?),
            None => None,
        };
        match &area {
            Some(area) => slot.page().publish(1, &region::new_thread(&self.code, area), 0),
            None => slot.page().publish(1, &[NEW_THREAD], 0),
        }
        state.process.mapper().post_unpinned(&[new_process(&slot)]);
        Ok(Seed { slot, area })
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if let Some(seed) = state.ahead.take()
            && let Ok(pid) = state.process.mapper().answer("clone")
        {
            drop(self.grow(seed.slot, pid));
        }
    }
}

/// The operation by which a template makes a stub with this page.
fn new_process(slot: &Slot) -> Operation {
    let flags = SHARE | libc::CLONE_PARENT;
    let number = |fd: i32| u64::from(fd.cast_unsigned());
    Operation {
        kind: blob::KIND_PROCESS,
        nr: libc::SYS_clone,
        args: [number(flags), 0, number(slot.control().fd()), 0, number(slot.event()), slot.offset()],
    }
}

/// Makes the template by way of an intermediate process, which leaves behind what a child would inherit from this thread
/// and must not use in other memory: its signal handlers and its registration for restartable sequences. The result is
/// the template's mapper, and where its request page lies in the memory that it still shares the shape of with ours.
fn spawn(
    control: &Arc<Control>,
    graveyard: &Graveyard,
    code: *mut u8,
) -> Result<(Mapper, u64), PlatformError> {
    let (first, second) = (control.take()?, control.take()?);
    first.page().publish(1, &[new_process(&second)], 0);
    let page = std::ptr::from_ref(first.page()).addr() as u64;
    let pid = clone_into(code, page, first.event())?;
    let mut intermediate = Mapper::new(first, pid, 1);
    let template = intermediate.answer("clone");
    graveyard.mean(pid);
    intermediate.post(&[Operation::call(libc::SYS_exit_group, [0; 6])]);
    sys::wait(pid, 0)?;
    Ok((Mapper::new(second, template?, 0), page))
}

/// clone3(2) of a process in this one's memory that runs the stub code.
fn clone_into(code: *mut u8, page: u64, event: i32) -> Result<i32, PlatformError> {
    let flags = u64::from((libc::CLONE_VM | libc::CLONE_FILES).cast_unsigned()) | CLEAR_SIGNAL_HANDLERS;
    // The template and all stubs are siblings of this process, and inherit its signal.
    let arguments: [u64; 8] = [flags, 0, 0, 0, u64::from(DEATH_SIGNAL.cast_unsigned()), 0, 0, 0];
    let result: i64;
    // SAFETY: the child uses no stack and no memory of ours but the code and its request page, both of which outlive it;
    // it never returns from the jump. The parent sees an ordinary system call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov r15, r13",
            "xor r13d, r13d",
            "jmp r12",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") arguments.as_ptr(),
            in("rsi") size_of_val(&arguments),
            in("r12") code,
            in("r13") page,
            in("r14") i64::from(event),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if result < 0 {
        let source = std::io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO));
        return Err(PlatformError::Host { call: "clone3", source });
    }
    Ok(i32::try_from(result).unwrap_or(0))
}

/// Where a template has the code and its request page while it is still in the memory that it inherited.
struct Place {
    copy: u64,
    page: u64,
}

/// Makes the template leave the memory it inherited for the layout of a stub. Gives where it keeps the vDSO, and the end
/// of what guests may map.
fn settle(
    mapper: &mut Mapper,
    flavor: Flavor,
    control: &Arc<Control>,
    code: &File,
    place: &Place,
) -> Result<(Option<u64>, u64), PlatformError> {
    let Place { copy, page } = *place;
    let call = Operation::call;
    let prctl =
        |option: i32, value| call(libc::SYS_prctl, [option.cast_unsigned().into(), value, 0, 0, 0, 0]);
    let set_mask = libc::SIG_SETMASK.cast_unsigned().into();
    mapper.request(
        "prctl",
        &[
            call(libc::SYS_rt_sigprocmask, [set_mask, copy + blob::ALL_SIGNALS, 0, 8, 0, 0]),
            // A tracer's guests must be open to it; what others do to die must not fill the host with core files.
            prctl(libc::PR_SET_DUMPABLE, (flavor == Flavor::Traced).into()),
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1),
        ],
    )?;
    // Where the host's kernel does not offer this, it shows stubs by the sentry's name.
    let names = [
        libc::PR_SET_MM.cast_unsigned().into(),
        libc::PR_SET_MM_MAP.cast_unsigned().into(),
        copy + blob::MEMORY_MAP,
        blob::MEMORY_MAP_BYTES,
        0,
        0,
    ];
    let _not_offered = mapper.request("prctl", &[call(libc::SYS_prctl, names)]);
    mapper.request("rt_sigaction", &ignore_signals(copy + blob::IGNORE))?;
    if flavor == Flavor::Trapping {
        mapper.request("rt_sigaction", &take_signals(copy + blob::THREAD_PAGE + thread::ACTION_OFFSET))?;
    }
    let parts = host::vdso_ranges();
    let aside = move_to(parts, ASIDE);
    // Where the host seals its vDSO (`CONFIG_MSEAL_SYSTEM_MAPPINGS`) it stays, and bounds what guests may map.
    let movable = mapper.request("mremap", &aside).is_ok();
    let mut keep = vec![copy..copy + blob::SIZE, page..page + PAGE];
    let (kept, moves) =
        if movable { (at(parts, ASIDE), move_to(&at(parts, ASIDE), VDSO)) } else { (parts.to_vec(), vec![]) };
    keep.extend(kept);
    let unmap =
        |range: &Range<u64>| call(libc::SYS_munmap, [range.start, range.end - range.start, 0, 0, 0, 0]);
    let fd = |fd: i32| u64::from(fd.cast_unsigned());
    let mut operations: Vec<Operation> = without(0..TASK_SIZE, &keep).iter().map(unmap).collect();
    let resume = i64::try_from(CODE + blob::resume_offset()).unwrap_or(0);
    operations.extend([
        call(libc::SYS_mmap, [CODE, blob::SIZE, READ_EXECUTE, FIXED, fd(code.as_raw_fd()), 0]),
        call(libc::SYS_mmap, [REQUEST, PAGE, READ, FIXED, fd(control.fd()), mapper.slot().offset()]),
        Operation { kind: blob::KIND_JUMP, nr: resume, args: [REQUEST, 0, 0, 0, 0, 0] },
        unmap(&(copy..copy + blob::SIZE)),
        unmap(&(page..page + PAGE)),
    ]);
    operations.extend(moves);
    let mode = libc::SECCOMP_SET_MODE_FILTER.into();
    operations.push(call(libc::SYS_seccomp, [mode, 0, CODE + blob::FILTER_PROGRAM, 0, 0, 0]));
    mapper.request("template", &operations)?;
    let first = parts.first().map_or(BASE, |part| part.start);
    let last = parts.last().map(|part| part.start);
    Ok(if movable { (last.map(|last| VDSO + (last - first)), BASE) } else { (last, first.min(BASE)) })
}

/// Ignores what somebody on the host, a terminal for one, may send to the sentry's process group. The signals of faults
/// keep their actions, which a fault would reset; a thread that is traced reports every signal all the same.
fn ignore_signals(action: u64) -> Vec<Operation> {
    const FAULTS: [i32; 6] =
        [libc::SIGILL, libc::SIGTRAP, libc::SIGBUS, libc::SIGFPE, libc::SIGSEGV, libc::SIGSYS];
    let ignored = |signal: &i32| !FAULTS.contains(signal) && ![libc::SIGKILL, libc::SIGSTOP].contains(signal);
    (1..=64).filter(ignored).map(|signal| set_action(signal, action)).collect()
}

/// Lets the threads' code take the signals that tell of traps.
fn take_signals(action: u64) -> Vec<Operation> {
    thread::TAKEN.iter().map(|signal| set_action(*signal, action)).collect()
}

fn set_action(signal: i32, action: u64) -> Operation {
    let number = u64::from(signal.cast_unsigned());
    Operation::call(libc::SYS_rt_sigaction, [number, action, 0, 8, 0, 0])
}

/// The ranges, with the first at `base` and the distances kept: the vDSO's code finds its data relative to itself.
fn at(parts: &[Range<u64>], base: u64) -> Vec<Range<u64>> {
    let first = parts.first().map_or(0, |part| part.start);
    parts.iter().map(|part| base + (part.start - first)..base + (part.end - first)).collect()
}

fn move_to(parts: &[Range<u64>], base: u64) -> Vec<Operation> {
    let one = |(old, new): (&Range<u64>, Range<u64>)| {
        let len = old.end - old.start;
        Operation::call(libc::SYS_mremap, [old.start, len, len, MOVE_TO, new.start, 0])
    };
    parts.iter().zip(at(parts, base)).map(one).collect()
}
