//! A platform that runs nothing: its address spaces record what is mapped, page by page, and play the guest's part.
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use abi::Errno;
use abi::mman::{MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use platform::{Access, AddressSpace, Context, FaultAccess, FpuState, Platform, PlatformError};
use sync::{LockClass, Mutex};

use crate::{
    FaultSignal, HostMemory, Mappable, MappingKey, Mappings, MemoryFile, MemoryManager, MmapArgs, PAGE,
};

/// What one page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub fd: RawFd,
    pub offset: u64,
    pub access: Access,
}

#[derive(Debug)]
pub(crate) struct FakePlatform {
    spaces: Mutex<Vec<Arc<FakeSpace>>>,
}

#[derive(Debug)]
pub(crate) struct FakeSpace {
    pages: Mutex<BTreeMap<u64, Shown>>,
}

impl Platform for FakePlatform {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn host_calls(&self) -> &'static [(i64, &'static str)] {
        &[]
    }
    fn user_range(&self) -> Range<u64> {
        PAGE..0x7fff_ffff_f000
    }
    fn initial_fpu(&self) -> FpuState {
        FpuState(Box::default())
    }
    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        let space = Arc::new(FakeSpace { pages: Mutex::new(LockClass::Leaf, BTreeMap::new()) });
        self.spaces.lock().push(Arc::clone(&space));
        Ok(space)
    }
}

fn pages(addr: u64, len: u64) -> impl Iterator<Item = u64> {
    assert!(addr.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0);
    (0..len / PAGE).map(move |i| addr + i * PAGE)
}

impl AddressSpace for FakeSpace {
    fn map(
        &self,
        addr: u64,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        access: Access,
        _populate: bool,
    ) -> Result<(), PlatformError> {
        let mut map = self.pages.lock();
        for page in pages(addr, len) {
            map.insert(page, Shown { fd: file.as_raw_fd(), offset: offset + (page - addr), access });
        }
        Ok(())
    }
    fn unmap(&self, addr: u64, len: u64) -> Result<(), PlatformError> {
        let end = addr + len;
        self.pages.lock().retain(|page, _| *page < addr || *page >= end);
        Ok(())
    }
    fn protect(&self, addr: u64, len: u64, access: Access) -> Result<(), PlatformError> {
        for (_, shown) in self.pages.lock().range_mut(addr..addr + len) {
            shown.access = access;
        }
        Ok(())
    }
    fn new_context(self: Arc<Self>) -> Result<Box<dyn Context>, PlatformError> {
        Err(PlatformError::Unavailable { platform: "fake", why: "it runs nothing".to_owned() })
    }
}

impl FakeSpace {
    pub(crate) fn shown(&self, addr: u64) -> Option<Shown> {
        self.pages.lock().get(&(addr & !(PAGE - 1))).copied()
    }
    pub(crate) fn count(&self) -> usize {
        self.pages.lock().len()
    }
}

/// A process of one thread whose accesses are what the tests say.
#[derive(Debug)]
pub(crate) struct Guest {
    pub mm: Arc<MemoryManager>,
    pub space: Arc<FakeSpace>,
    pub platform: Arc<FakePlatform>,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self::with_file(MemoryFile::new().expect("memfd"))
    }
    pub(crate) fn with_file(file: Arc<MemoryFile>) -> Self {
        let platform = Arc::new(FakePlatform { spaces: Mutex::new(LockClass::Leaf, Vec::new()) });
        let mm = MemoryManager::new(file, Arc::clone(&platform) as Arc<dyn Platform>).expect("a space");
        Self::of(mm, platform)
    }
    fn of(mm: Arc<MemoryManager>, platform: Arc<FakePlatform>) -> Self {
        let space = Arc::clone(platform.spaces.lock().last().expect("made before"));
        Self { mm, space, platform }
    }
    pub(crate) fn fork(&self) -> Self {
        let mm = self.mm.fork().expect("fork");
        Self::of(mm, Arc::clone(&self.platform))
    }
    pub(crate) fn anonymous(&self, len: u64) -> u64 {
        let prot = PROT_READ | PROT_WRITE;
        self.mm
            .mmap(MmapArgs { len, prot, flags: MAP_PRIVATE | MAP_ANONYMOUS, ..MmapArgs::default() })
            .expect("room")
    }

    /// Faults until the access is allowed, and gives where the byte is.
    fn touch(&self, addr: u64, access: FaultAccess, blind: bool) -> Result<Shown, FaultSignal> {
        let need = match access {
            FaultAccess::Write => Access { write: true, ..Access::NONE },
            FaultAccess::Execute => Access { execute: true, ..Access::NONE },
            _ => Access::READ,
        };
        for _ in 0..1000 {
            if let Some(shown) = self.space.shown(addr).filter(|s| s.access.contains(need)) {
                return Ok(shown);
            }
            self.mm.resolve_fault(addr, if blind { FaultAccess::Unknown } else { access })?;
        }
        panic!("no progress at {addr:#x}");
    }
    fn io(&self, shown: Shown, addr: u64, store: Option<u8>) -> u8 {
        let at = shown.offset + addr % PAGE;
        let file = self.mm.memory_file();
        let mut byte = [0];
        if shown.fd == file.fd().as_raw_fd() {
            match store {
                Some(value) => file.write_at(at, &[value]),
                None => file.read_at(at, &mut byte),
            }
        } else {
            // SAFETY-free access to the host file, as its page cache gives it.
            let path = format!("/proc/self/fd/{}", shown.fd);
            let file = std::fs::File::options().read(true).write(store.is_some()).open(path).expect("open");
            use std::os::unix::fs::FileExt;
            match store {
                Some(value) => file.write_all_at(&[value], at).expect("store"),
                None => drop(file.read_at(&mut byte, at).expect("load")),
            }
        }
        byte[0]
    }
    pub(crate) fn load(&self, addr: u64) -> Result<u8, FaultSignal> {
        Ok(self.io(self.touch(addr, FaultAccess::Read, false)?, addr, None))
    }
    pub(crate) fn store(&self, addr: u64, value: u8) -> Result<(), FaultSignal> {
        self.io(self.touch(addr, FaultAccess::Write, false)?, addr, Some(value));
        Ok(())
    }
    pub(crate) fn store_blind(&self, addr: u64, value: u8) -> Result<(), FaultSignal> {
        self.io(self.touch(addr, FaultAccess::Write, true)?, addr, Some(value));
        Ok(())
    }
    pub(crate) fn execute(&self, addr: u64) -> Result<(), FaultSignal> {
        self.touch(addr, FaultAccess::Execute, false).map(|_| ())
    }
}

/// A host file of the given contents that can be truncated.
#[derive(Debug)]
pub(crate) struct HostFile {
    pub memory: Arc<HostMemory>,
    pub keys: Mappings,
}

impl HostFile {
    pub(crate) fn new(contents: &[u8]) -> Arc<Self> {
        let fd =
            nix::sys::memfd::memfd_create("host", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("memfd");
        nix::unistd::write(&fd, contents).expect("written");
        let memory = Arc::new(HostMemory { fd, writable: true });
        Arc::new(Self { memory, keys: Mappings::new() })
    }
    pub(crate) fn size(&self) -> u64 {
        nix::sys::stat::fstat(&self.memory.fd).expect("stat").st_size.unsigned_abs()
    }
    pub(crate) fn truncate(&self, size: i64) {
        nix::unistd::ftruncate(&self.memory.fd, size).expect("truncated");
        self.keys.invalidate(size.unsigned_abs().next_multiple_of(PAGE), u64::MAX / 2);
    }
}

impl Mappable for HostFile {
    fn translate(&self, offset: u64, len: u64, _write: bool) -> Result<crate::Backing, Errno> {
        let end = self.size().next_multiple_of(PAGE);
        if offset >= end {
            return Err(Errno::EFAULT);
        }
        let len = len.min(end - offset);
        Ok(crate::Backing::Host { file: Arc::clone(&self.memory), offset, len })
    }
    fn add_mapping(&self, key: MappingKey) {
        self.keys.add(key);
    }
    fn remove_mapping(&self, key: &MappingKey) {
        self.keys.remove(key);
    }
    fn identity(&self) -> (u64, u64, Vec<u8>) {
        (8, 77, b"/lib/x.so".to_vec())
    }
}
