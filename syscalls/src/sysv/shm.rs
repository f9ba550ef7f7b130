//! Shared memory: `shmget(2)`, `shmat(2)`, `shmdt(2)`, `shmctl(2)`.
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::O_RDWR;
use abi::ipc::{
    IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, IpcPerm, SHM_DEST, SHM_EXEC, SHM_HUGETLB, SHM_INFO, SHM_LOCK,
    SHM_RDONLY, SHM_REMAP, SHM_RND, SHM_STAT, SHM_STAT_ANY, SHM_UNLOCK, ShmidDs, Shminfo,
};
use abi::mman::{MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE};
use memmap::{Backing, Mappable, MappingKey, MemoryManager, MmapArgs, MmapFile, PAGE};
use sync::{LockClass, Mutex};
use vfs::{InodeOps, OpCx, SetAttr};

use super::{Object, READ, Registry, WRITE, check, check_owner, seconds, set_perm};
use crate::Cx;
use crate::decode::UserPtr;
use crate::process::id;

/// Linux `SHMMAX` and `SHMALL`.
const SHMMAX: u64 = u64::MAX - (1 << 24);

/// Where a segment is attached: a memory manager and the address of its first byte.
type Place = (usize, u64);

#[derive(Debug)]
struct State {
    perm: IpcPerm,
    /// How many bytes of each attachment are mapped.
    attached: HashMap<Place, u64>,
    atime: i64,
    dtime: i64,
    ctime: i64,
    lpid: i32,
}

/// A segment.
#[derive(Debug)]
struct Segment {
    size: u64,
    cpid: i32,
    memory: Arc<dyn Mappable>,
    state: Mutex<State>,
}

impl Object for Segment {
    fn perm(&self) -> IpcPerm {
        self.state.lock().perm
    }
}

static SEGMENTS: Registry<Segment> = Registry::new();

/// A segment as mappings see it: they count how often it is attached.
#[derive(Debug)]
struct Attachment {
    id: i32,
    segment: Arc<Segment>,
}

fn place(key: &MappingKey) -> Place {
    (Weak::as_ptr(&key.mm).addr(), key.addr.wrapping_sub(key.offset))
}

impl Mappable for Attachment {
    fn translate(&self, offset: u64, len: u64, write: bool) -> Result<Backing, Errno> {
        self.segment.memory.translate(offset, len, write)
    }
    fn add_mapping(&self, key: MappingKey) {
        *self.segment.state.lock().attached.entry(place(&key)).or_insert(0) += key.len;
        self.segment.memory.add_mapping(key);
    }
    fn remove_mapping(&self, key: &MappingKey) {
        self.segment.memory.remove_mapping(key);
        let mut state = self.segment.state.lock();
        if let Some(bytes) = state.attached.get_mut(&place(key)) {
            *bytes = bytes.saturating_sub(key.len);
            if *bytes == 0 {
                state.attached.remove(&place(key));
            }
        }
    }
    fn identity(&self) -> (u64, u64, Vec<u8>) {
        let (device, ..) = self.segment.memory.identity();
        let key = self.segment.perm().key.cast_unsigned();
        (device, u64::from(self.id.cast_unsigned()), format!("/SYSV{key:08x} (deleted)").into_bytes())
    }
}

/// Forgets removed segments that nobody has attached any more.
fn collect() {
    let gone: Vec<_> = {
        let mut objects = SEGMENTS.objects.lock();
        let unused = |s: &Arc<Segment>| {
            let state = s.state.lock();
            state.perm.mode & SHM_DEST != 0 && state.attached.is_empty()
        };
        let ids: Vec<i32> = objects.by_id.iter().filter(|(_, s)| unused(s)).map(|(id, _)| *id).collect();
        ids.iter().filter_map(|id| objects.by_id.remove(id)).collect()
    };
    drop(gone);
}

fn find(number: i32) -> Result<Arc<Segment>, Errno> {
    collect();
    SEGMENTS.get(number)
}

/// `shmget(2)`
///
/// # Errors
/// `EINVAL`, `EEXIST`, `ENOENT`, `EACCES`, `ENOSPC`, `ENOMEM`.
pub fn shmget(cx: &mut Cx<'_>, key: i32, size: u64, flags: u32) -> Result<usize, Errno> {
    collect();
    let (ctime, cpid) = (seconds(cx), cx.tgid());
    let found = SEGMENTS.find_or_make(
        cx,
        key,
        flags,
        |segment| if size > segment.size { Err(Errno::EINVAL) } else { Ok(()) },
        |perm| {
            if size == 0 || size > SHMMAX {
                return Err(Errno::EINVAL);
            }
            if flags & SHM_HUGETLB != 0 {
                return Err(cx.unsupported("shmget: SHM_HUGETLB", Errno::EINVAL));
            }
            let memory = memory(cx, size)?;
            let attached = HashMap::new();
            let state = State { perm, attached, atime: 0, dtime: 0, ctime, lpid: 0 };
            Ok(Segment { size, cpid, memory, state: Mutex::new(LockClass::Leaf, state) })
        },
    )?;
    id(found)
}

/// The contents of a new segment: a file in memory.
fn memory(cx: &Cx<'_>, size: u64) -> Result<Arc<dyn Mappable>, Errno> {
    let creds = cx.credentials();
    let op = OpCx::of_task(cx, &creds);
    let inode = crate::memfd::shm(cx, &op)?.anonymous_file(&op, 0o600)?;
    let rounded = size.checked_next_multiple_of(PAGE).ok_or(Errno::ENOMEM)?;
    inode.set_attr(&op, &SetAttr { size: Some(rounded), ..SetAttr::default() })?;
    inode.open(&op, O_RDWR)?.mappable(&op)
}

/// `shmat(2)`: gives the address.
///
/// # Errors
/// `EINVAL`, `EACCES`, `ENOMEM`.
pub fn shmat(cx: &mut Cx<'_>, number: i32, addr: u64, flags: u32) -> Result<usize, Errno> {
    let addr = if flags & SHM_RND != 0 { addr & !(PAGE - 1) } else { addr };
    if !addr.is_multiple_of(PAGE) || addr == 0 && flags & SHM_REMAP != 0 {
        return Err(Errno::EINVAL);
    }
    let segment = find(number)?;
    let (read_only, exec) = (flags & SHM_RDONLY != 0, flags & SHM_EXEC != 0);
    let wanted = READ | if read_only { 0 } else { WRITE } | u32::from(exec);
    check(&cx.credentials(), &segment.perm(), wanted)?;
    let prot = PROT_READ | if read_only { 0 } else { PROT_WRITE } | if exec { PROT_EXEC } else { 0 };
    let place = match (addr, flags & SHM_REMAP != 0) {
        (0, _) => 0,
        (_, true) => MAP_FIXED,
        (_, false) => MAP_FIXED | MAP_FIXED_NOREPLACE,
    };
    let mappable = Arc::new(Attachment { id: number, segment: Arc::clone(&segment) });
    let file = MmapFile { mappable, offset: 0, may_write: !read_only, may_exec: true };
    let args = MmapArgs {
        addr,
        len: segment.size,
        prot,
        flags: MAP_SHARED | place,
        file: Some(file),
        limits: crate::mm::limits(cx),
        name: None,
    };
    let at = cx.memory()?.mmap(args).map_err(|e| if e == Errno::EEXIST { Errno::EINVAL } else { e })?;
    let mut state = segment.state.lock();
    (state.atime, state.lpid) = (seconds(cx), cx.tgid());
    drop(state);
    usize::try_from(at).map_err(|_wide| Errno::ENOMEM)
}

/// The segment attached at an address, and how many bytes of it from there are mapped.
fn attached_at(mm: &Arc<MemoryManager>, addr: u64) -> Option<Arc<Segment>> {
    let all: Vec<_> = SEGMENTS.objects.lock().by_id.values().cloned().collect();
    let place = (Arc::as_ptr(mm).addr(), addr);
    all.into_iter().find(|segment| segment.state.lock().attached.contains_key(&place))
}

/// `shmdt(2)`
///
/// # Errors
/// `EINVAL` where no segment is attached.
pub fn shmdt(cx: &mut Cx<'_>, addr: u64) -> Result<usize, Errno> {
    if !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let mm = cx.memory()?;
    let segment = attached_at(mm, addr).ok_or(Errno::EINVAL)?;
    let end = addr.saturating_add(segment.size.next_multiple_of(PAGE));
    // What was mapped over a part of it stays.
    for vma in mm.vmas() {
        let inside = vma.range.start >= addr && vma.range.end <= end;
        if inside && vma.name.starts_with(b"/SYSV") && vma.range.start.wrapping_sub(vma.offset) == addr {
            mm.munmap(vma.range.start, vma.range.end - vma.range.start)?;
        }
    }
    {
        let mut state = segment.state.lock();
        (state.dtime, state.lpid) = (seconds(cx), cx.tgid());
    }
    collect();
    Ok(0)
}

fn status(segment: &Segment) -> ShmidDs {
    let state = segment.state.lock();
    ShmidDs {
        perm: state.perm,
        segsz: segment.size,
        atime: state.atime,
        dtime: state.dtime,
        ctime: state.ctime,
        cpid: segment.cpid,
        lpid: state.lpid,
        nattch: state.attached.len() as u64,
        ..ShmidDs::default()
    }
}

/// `shmctl(2)`
///
/// # Errors
/// `EINVAL`, `EACCES`, `EPERM`, `EFAULT`.
pub fn shmctl(cx: &mut Cx<'_>, number: i32, command: i32, buf: UserPtr<ShmidDs>) -> Result<usize, Errno> {
    collect();
    let (creds, now) = (cx.credentials(), seconds(cx));
    match command {
        IPC_INFO | SHM_INFO => return info(cx, command, buf.addr()),
        SHM_STAT | SHM_STAT_ANY => {
            let (number, segment) = SEGMENTS.at(number)?;
            if command == SHM_STAT {
                check(&creds, &segment.perm(), READ)?;
            }
            buf.write(cx, &status(&segment))?;
            return id(number);
        }
        _ => {}
    }
    let segment = SEGMENTS.get(number)?;
    match command {
        IPC_STAT => {
            check(&creds, &segment.perm(), READ)?;
            buf.write(cx, &status(&segment))?;
        }
        IPC_SET => {
            let new = buf.read(cx)?;
            check_owner(&creds, &segment.perm())?;
            let mut state = segment.state.lock();
            set_perm(&mut state.perm, &new.perm);
            state.ctime = now;
        }
        IPC_RMID => {
            check_owner(&creds, &segment.perm())?;
            {
                let mut state = segment.state.lock();
                state.perm.mode |= SHM_DEST;
                // Nobody finds it by its key any more.
                state.perm.key = abi::ipc::IPC_PRIVATE;
            }
            collect();
        }
        // Memory of the sandbox is never swapped out by itself.
        SHM_LOCK | SHM_UNLOCK => check_owner(&creds, &segment.perm())?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// `struct shm_info` and `struct shminfo64`.
fn info(cx: &Cx<'_>, command: i32, to: u64) -> Result<usize, Errno> {
    let used = SEGMENTS.len();
    if command == IPC_INFO {
        let limits = Shminfo {
            shmmax: SHMMAX,
            shmmin: 1,
            shmmni: 4096,
            shmseg: 4096,
            shmall: SHMMAX,
            ..Shminfo::default()
        };
        UserPtr::new(to).write(cx, &limits)?;
    } else {
        let all: Vec<_> = SEGMENTS.objects.lock().by_id.values().cloned().collect();
        let pages: u64 = all.iter().map(|s| s.size.div_ceil(PAGE)).sum();
        // used_ids, shm_tot, shm_rss, shm_swp, swap_attempts, swap_successes.
        UserPtr::new(to).write(cx, &[used as u64, pages, 0, 0, 0, 0])?;
    }
    Ok(used.saturating_sub(1))
}
