//! The sentry's accesses to guest memory. They obey the mappings' protections as Linux's `copy_to_user` does.
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;
use abi::mman::PROT_WRITE;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::fill::read_host;
use super::locked::State;
use super::pma::{Place, intersect};
use super::types::AtomicOp;
use super::vma::Vma;
use super::{FutexKey, MemoryManager};
use crate::{HostMemory, PAGE, host_word};

/// What an access is allowed to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Read,
    Write,
    /// Loads whatever the protections, for ptrace(2) and `/proc/PID/mem`.
    ForceRead,
    /// Stores whatever the protections, if only this address space sees it.
    ForceWrite,
}

impl Want {
    const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ForceWrite)
    }

    fn allowed(self, vma: &Vma) -> bool {
        match self {
            Self::Read => vma.access().read,
            Self::Write => vma.prot & PROT_WRITE != 0,
            Self::ForceRead => true,
            Self::ForceWrite => vma.prot & PROT_WRITE != 0 || !vma.shared,
        }
    }
}

/// Where bytes were found.
enum Found<R> {
    /// In the memory file: what the access gave. It was made under the lock, so that the pages could not go meanwhile.
    Memory(R),
    /// In a host file, from this offset for this many bytes. To be accessed without the lock: a file's bytes may be
    /// accessed even if they are no longer mapped.
    Host(Arc<HostMemory>, u64, usize),
}

impl State {
    /// Accesses up to `len` bytes from `addr` that are in one run and present with the rights it takes.
    fn find<R, F: FnOnce(u64, usize) -> R>(
        &self,
        addr: u64,
        len: usize,
        want: Want,
        f: F,
    ) -> Result<Found<R>, F> {
        let (Some((in_vma, vma)), Some((in_pma, pma))) = (self.vmas.get(addr), self.pmas.get(addr)) else {
            return Err(f);
        };
        if !want.allowed(vma) || (want.writes() && !pma.writable) {
            return Err(f);
        }
        let run = intersect(&in_vma, &in_pma);
        let len = usize::try_from(run.end - addr).unwrap_or(usize::MAX).min(len);
        Ok(match &pma.place {
            Place::Memory(start) => Found::Memory(f(start + (addr - in_pma.start), len)),
            Place::Host(file, start) => Found::Host(Arc::clone(file), start + (addr - in_pma.start), len),
        })
    }
}

/// Writes to a host file no more than a store to its mapping could: nothing behind its end.
fn write_host(file: &HostMemory, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let stat = nix::sys::stat::fstat(&file.fd).map_err(|_io| Errno::EFAULT)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if offset >= size.checked_next_multiple_of(PAGE).unwrap_or(size) {
        return Err(Errno::EFAULT);
    }
    let inside = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
    let mut done = 0;
    while let Some(rest) = bytes.get(done..inside).filter(|r| !r.is_empty()) {
        let at = i64::try_from(offset + done as u64).map_err(|_far| Errno::EFAULT)?;
        match nix::sys::uio::pwrite(file.fd.as_fd(), rest, at) {
            Ok(0) => return Err(Errno::EFAULT),
            Ok(n) => done += n,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_io) => return Err(Errno::EFAULT),
        }
    }
    // What is behind the end within the last page is lost, as it is when a guest stores it.
    Ok(bytes.len())
}

/// A count if anything was done, else the error.
fn short_count(done: usize, error: Errno) -> Result<usize, Errno> {
    if done > 0 { Ok(done) } else { Err(error) }
}

fn all(done: usize, wanted: usize) -> Result<(), Errno> {
    if done == wanted { Ok(()) } else { Err(Errno::EFAULT) }
}

impl MemoryManager {
    /// Linux `access_ok`.
    fn check_range(&self, addr: u64, len: usize) -> Result<(), Errno> {
        let end = addr.checked_add(len as u64).ok_or(Errno::EFAULT)?;
        if end <= self.user.end { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Accesses up to `len` bytes from `addr`, at least one, as many as are in one run.
    fn access<R>(
        &self,
        addr: u64,
        len: usize,
        want: Want,
        f: impl FnOnce(u64, usize) -> R,
    ) -> Result<Found<R>, Errno> {
        let f = match self.state.read().find(addr, len, want, f) {
            Ok(found) => return Ok(found),
            Err(f) => f,
        };
        let mut locked = self.lock();
        let page = addr & !(PAGE - 1);
        if !locked.find_or_grow(page) {
            return Err(Errno::EFAULT);
        }
        let allowed = locked.state.vmas.get(page).is_some_and(|(_, vma)| want.allowed(vma));
        if !allowed {
            return Err(Errno::EFAULT);
        }
        if want == Want::ForceWrite {
            locked.unpatch_range(&(addr..addr.saturating_add(len as u64)));
        }
        let fault = |error| if error == Errno::ENOMEM { error } else { Errno::EFAULT };
        if locked.fill(page, want.writes()).map_err(fault)? {
            locked.show(page, false)?;
        }
        locked.state.find(addr, len, want, f).map_err(|_f| Errno::EFAULT)
    }

    fn read_some(&self, addr: u64, into: &mut [u8], want: Want) -> Result<usize, Errno> {
        let file = &self.memory_file;
        let len = into.len();
        let found = self.access(addr, len, want, |offset, n| {
            let part = into.get_mut(..n).unwrap_or_default();
            file.read_at(offset, part);
            part.len()
        })?;
        match found {
            Found::Memory(n) => Ok(n),
            Found::Host(file, offset, n) => {
                // One page at a time, to tell the last page of the file, which ends in zeros, from what is behind it.
                let n = n.min(usize::try_from(PAGE - addr % PAGE).unwrap_or(n));
                let part = into.get_mut(..n).unwrap_or_default();
                let done = read_host(&file, offset, part).map_err(|_io| Errno::EFAULT)?;
                if done == 0 {
                    check_inside(&file, offset)?;
                }
                part.get_mut(done..).unwrap_or_default().fill(0);
                Ok(n)
            }
        }
    }

    fn write_some(&self, addr: u64, from: &[u8], want: Want) -> Result<usize, Errno> {
        let file = &self.memory_file;
        let found = self.access(addr, from.len(), want, |offset, n| {
            let part = from.get(..n).unwrap_or_default();
            file.write_at(offset, part);
            part.len()
        })?;
        match found {
            Found::Memory(n) => Ok(n),
            Found::Host(file, offset, n) => write_host(&file, offset, from.get(..n).unwrap_or_default()),
        }
    }

    fn read_all(&self, addr: u64, into: &mut [u8], want: Want) -> Result<usize, Errno> {
        self.check_range(addr, into.len())?;
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|r| !r.is_empty()) {
            match self.read_some(addr + done as u64, rest, want) {
                Ok(n) => done += n,
                Err(error) => return short_count(done, error),
            }
        }
        Ok(done)
    }

    fn write_all(&self, addr: u64, from: &[u8], want: Want) -> Result<usize, Errno> {
        self.check_range(addr, from.len())?;
        let mut done = 0;
        while let Some(rest) = from.get(done..).filter(|r| !r.is_empty()) {
            match self.write_some(addr + done as u64, rest, want) {
                Ok(n) => done += n,
                Err(error) => return short_count(done, error),
            }
        }
        Ok(done)
    }

    /// Loads `into.len()` bytes.
    ///
    /// # Errors
    /// `EFAULT` when not all can be loaded, `ENOMEM`.
    pub fn read_bytes(&self, addr: u64, into: &mut [u8]) -> Result<(), Errno> {
        all(self.read_all(addr, into, Want::Read)?, into.len())
    }

    /// Loads up to `into.len()` bytes and tells how many: less than all if what comes next cannot be loaded.
    ///
    /// # Errors
    /// `EFAULT` when there is something to load and not one byte can be; `ENOMEM`.
    pub fn read_bytes_partial(&self, addr: u64, into: &mut [u8]) -> Result<usize, Errno> {
        self.read_all(addr, into, Want::Read)
    }

    /// Stores all bytes.
    ///
    /// # Errors
    /// `EFAULT` when not all can be stored (those before the first that cannot be have been), `ENOMEM`.
    pub fn write_bytes(&self, addr: u64, from: &[u8]) -> Result<(), Errno> {
        all(self.write_all(addr, from, Want::Write)?, from.len())
    }

    /// Stores bytes and tells how many: less than all if what comes next cannot be stored.
    ///
    /// # Errors
    /// `EFAULT` when there is something to store and not one byte can be; `ENOMEM`.
    pub fn write_bytes_partial(&self, addr: u64, from: &[u8]) -> Result<usize, Errno> {
        self.write_all(addr, from, Want::Write)
    }

    /// Loads bytes as ptrace(2) and `/proc/PID/mem` do, whatever the protections; tells how many.
    ///
    /// # Errors
    /// `EFAULT` where nothing is mapped, `ENOMEM`.
    pub fn read_bytes_force(&self, addr: u64, into: &mut [u8]) -> Result<usize, Errno> {
        if let Some(done) = self.read_vdso(addr, into) {
            return Ok(done);
        }
        let done = self.read_all(addr, into, Want::ForceRead)?;
        if let Some(patches) = &self.patches {
            patches.hide(addr, into.get_mut(..done).unwrap_or_default());
        }
        Ok(done)
    }

    /// Loads from the vDSO, which is no mapping made here.
    fn read_vdso(&self, addr: u64, into: &mut [u8]) -> Option<usize> {
        let offset = usize::try_from(addr.checked_sub(self.platform.vdso()?)?).ok()?;
        let found = self.platform.vdso_code().get(offset..).filter(|found| !found.is_empty())?;
        let len = found.len().min(into.len());
        into.get_mut(..len)?.copy_from_slice(found.get(..len)?);
        Some(len)
    }

    /// Stores bytes as ptrace(2) and `/proc/PID/mem` do, whatever the protections of private mappings; tells how many.
    ///
    /// # Errors
    /// `EFAULT` where nothing is mapped, or something shared and read-only; `ENOMEM`.
    pub fn write_bytes_force(&self, addr: u64, from: &[u8]) -> Result<usize, Errno> {
        self.write_all(addr, from, Want::ForceWrite)
    }

    /// Stores zeros.
    ///
    /// # Errors
    /// `EFAULT` when not all can be stored, `ENOMEM`.
    pub fn zero_bytes(&self, addr: u64, len: u64) -> Result<(), Errno> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut done = 0;
        while done < len {
            let n = usize::try_from(len - done).unwrap_or(ZEROS.len()).min(ZEROS.len());
            let at = addr.checked_add(done).ok_or(Errno::EFAULT)?;
            self.write_bytes(at, ZEROS.get(..n).unwrap_or(&ZEROS))?;
            done += n as u64;
        }
        Ok(())
    }

    /// Makes memory ready to be stored to, and tells how many bytes from `addr` are.
    ///
    /// # Errors
    /// `EFAULT` when not one is; `ENOMEM`.
    pub fn prepare_write(&self, addr: u64, len: usize) -> Result<usize, Errno> {
        self.check_range(addr, len)?;
        let mut done = 0;
        while done < len {
            match self.access(addr + done as u64, len - done, Want::Write, |_, n| n) {
                Ok(Found::Memory(n) | Found::Host(_, _, n)) => done += n,
                Err(error) => return short_count(done, error),
            }
        }
        Ok(done)
    }

    /// Loads a value.
    ///
    /// # Errors
    /// `EFAULT` when not all of it can be loaded, `ENOMEM`.
    pub fn read_obj<T: FromBytes>(&self, addr: u64) -> Result<T, Errno> {
        let mut bytes = smallvec::SmallVec::<[u8; 256]>::from_elem(0, size_of::<T>());
        self.read_bytes(addr, &mut bytes)?;
        T::read_from_bytes(&bytes).map_err(|_size| Errno::EFAULT)
    }

    /// Stores a value.
    ///
    /// # Errors
    /// `EFAULT` when not all of it can be stored, `ENOMEM`.
    pub fn write_obj<T: IntoBytes + Immutable>(&self, addr: u64, value: &T) -> Result<(), Errno> {
        self.write_bytes(addr, value.as_bytes())
    }

    /// Loads a string that ends with a zero byte, which is not part of the result. `max` is the most bytes with it.
    ///
    /// # Errors
    /// `ENAMETOOLONG` when there is none within `max` bytes, `EFAULT` when it cannot be loaded to its end, `ENOMEM`.
    pub fn read_cstr(&self, addr: u64, max: usize) -> Result<Vec<u8>, Errno> {
        let mut string = Vec::new();
        let mut chunk = [0; 256];
        while string.len() < max {
            let at = addr.checked_add(string.len() as u64).ok_or(Errno::EFAULT)?;
            let want = chunk.len().min(max - string.len());
            // Not across a page's end: what comes after the string's end need not be there, nor be made to be.
            let want = want.min(usize::try_from(PAGE - at % PAGE).unwrap_or(want));
            let part = chunk.get_mut(..want).unwrap_or_default();
            let n = self.read_bytes_partial(at, part)?;
            let part = part.get(..n).unwrap_or_default();
            match part.iter().position(|b| *b == 0) {
                Some(end) => {
                    string.extend_from_slice(part.get(..end).unwrap_or_default());
                    return Ok(string);
                }
                None => string.extend_from_slice(part),
            }
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Accesses a word by `f`, or by `host` where it is in a host file.
    fn with_word<R>(
        &self,
        addr: u64,
        want: Want,
        f: impl FnOnce(&AtomicU32) -> R,
        host: impl FnOnce(&HostMemory, u64) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        self.check_range(addr, 4)?;
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let file = &self.memory_file;
        match self.access(addr, 4, want, |offset, _| file.with_word(offset, f))? {
            Found::Memory(result) => result,
            Found::Host(file, offset, _) => host(&file, offset),
        }
    }

    /// Loads a word at once.
    ///
    /// # Errors
    /// `EFAULT`, `EINVAL` for an address that is no multiple of 4, `ENOMEM`.
    pub fn atomic_load_u32(&self, addr: u64) -> Result<u32, Errno> {
        // The host's own pread copies an aligned word at once.
        let host = |_: &HostMemory, _| self.read_obj(addr);
        self.with_word(addr, Want::Read, |word| word.load(Ordering::SeqCst), host)
    }

    /// Stores `new` if the word is `expected`; gives the old value, as `Ok` if it was.
    ///
    /// # Errors
    /// `EFAULT`, `EINVAL` for an address that is no multiple of 4, `ENOMEM`, `EAGAIN` when others change a word of a file
    /// all the time.
    pub fn compare_exchange_u32(
        &self,
        addr: u64,
        expected: u32,
        new: u32,
    ) -> Result<Result<u32, u32>, Errno> {
        let exchange =
            |word: &AtomicU32| word.compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst);
        let host = |file: &HostMemory, offset| {
            host_word::update(file, offset, |old| (old == expected).then_some(new))
        };
        self.with_word(addr, Want::Write, exchange, host)
    }

    /// Changes a word at once; gives the old value.
    ///
    /// # Errors
    /// `EFAULT`, `EINVAL` for an address that is no multiple of 4, `ENOMEM`, `EAGAIN` when others change a word of a file
    /// all the time.
    pub fn fetch_op_u32(&self, addr: u64, op: AtomicOp, operand: u32) -> Result<u32, Errno> {
        let change = |old: u32| match op {
            AtomicOp::Set => operand,
            AtomicOp::Add => old.wrapping_add(operand),
            AtomicOp::Or => old | operand,
            AtomicOp::AndNot => old & !operand,
            AtomicOp::Xor => old ^ operand,
        };
        let host = |file: &HostMemory, offset| {
            host_word::update(file, offset, |old| Some(change(old))).map(|old| old.unwrap_or_else(|old| old))
        };
        let memory = |word: &AtomicU32| match op {
            AtomicOp::Set => word.swap(operand, Ordering::SeqCst),
            AtomicOp::Add => word.fetch_add(operand, Ordering::SeqCst),
            AtomicOp::Or => word.fetch_or(operand, Ordering::SeqCst),
            AtomicOp::AndNot => word.fetch_and(!operand, Ordering::SeqCst),
            AtomicOp::Xor => word.fetch_xor(operand, Ordering::SeqCst),
        };
        self.with_word(addr, Want::Write, memory, host)
    }

    /// What the futex at `addr` is known by: its place in this address space if `private` (`FUTEX_PRIVATE_FLAG`) or if no
    /// other shares the page, else its place in what is shared.
    ///
    /// # Errors
    /// `EFAULT`, `EINVAL` for an address that is no multiple of 4, `ENOMEM`.
    pub fn futex_key(&self, addr: u64, private: bool) -> Result<FutexKey, Errno> {
        self.check_range(addr, 4)?;
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if private {
            return Ok(FutexKey::Private { mm: self.id, addr });
        }
        let found = self.access(addr, 4, Want::Read, |offset, _| offset)?;
        let (file, in_file) = {
            let state = self.state.read();
            let (range, vma) = state.vmas.get(addr).ok_or(Errno::EFAULT)?;
            (vma.file.clone().filter(|_| vma.shared), vma.offset_of(range.start, addr))
        };
        // The file is asked without the lock.
        Ok(match (found, file) {
            (_, None) => FutexKey::Unshared { mm: self.id, addr },
            (Found::Memory(offset), Some(_)) => FutexKey::Memory { offset },
            (Found::Host(..), Some(file)) => {
                let (dev, ino, _) = file.identity();
                FutexKey::File { dev, ino, offset: in_file }
            }
        })
    }
}

/// Tells whether a host file's last page is not before that of `offset`.
fn check_inside(file: &HostMemory, offset: u64) -> Result<(), Errno> {
    let stat = nix::sys::stat::fstat(&file.fd).map_err(|_io| Errno::EFAULT)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let end = size.checked_next_multiple_of(PAGE).unwrap_or(size);
    if offset < end { Ok(()) } else { Err(Errno::EFAULT) }
}
