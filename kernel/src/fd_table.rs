//! Descriptor tables, Linux `files_struct`.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use abi::Errno;
use sync::{LockClass, Mutex, MutexGuard};

use crate::limits::NR_OPEN;
use crate::{File, Task};

#[derive(Clone, Debug)]
struct Entry {
    file: Arc<dyn File>,
    cloexec: bool,
}

#[derive(Clone, Debug, Default)]
struct Entries {
    /// By descriptor; the last one is open.
    list: Vec<Option<Entry>>,
    /// No descriptor below this is free.
    lowest_free: usize,
}

impl Entries {
    fn get(&self, fd: i32) -> Result<&Entry, Errno> {
        let at = usize::try_from(fd).map_err(|_negative| Errno::EBADF)?;
        self.list.get(at).and_then(Option::as_ref).ok_or(Errno::EBADF)
    }

    fn find_free(&self, from: usize) -> usize {
        let from = from.max(self.lowest_free);
        let free = self.list.iter().skip(from).position(Option::is_none);
        free.map_or(self.list.len().max(from), |at| from + at)
    }

    fn put(&mut self, at: usize, entry: Entry) -> Option<Entry> {
        if self.list.len() <= at {
            self.list.resize_with(at + 1, || None);
        }
        if at == self.lowest_free {
            self.lowest_free = at + 1;
        }
        self.list.get_mut(at).and_then(|slot| slot.replace(entry))
    }

    fn take(&mut self, at: usize) -> Option<Entry> {
        let entry = self.list.get_mut(at)?.take()?;
        self.lowest_free = self.lowest_free.min(at);
        while self.list.last().is_some_and(Option::is_none) {
            self.list.pop();
        }
        Some(entry)
    }

    fn take_all(&mut self, which: impl Fn(usize, &Entry) -> bool) -> Vec<Arc<dyn File>> {
        let open = self.list.iter().enumerate();
        let chosen: Vec<usize> =
            open.filter_map(|(at, e)| e.as_ref().filter(|e| which(at, e)).map(|_| at)).collect();
        chosen.into_iter().filter_map(|at| self.take(at)).map(|e| e.file).collect()
    }
}

/// The descriptors of a process, or of what shares them by `CLONE_FILES`.
#[derive(Debug)]
pub struct FdTable {
    entries: Mutex<Entries>,
    /// How many tasks use it: the files close with the last of them, not with the last reader of `/proc/PID/fd`.
    users: AtomicUsize,
}

impl Default for FdTable {
    fn default() -> Self {
        Self::from_entries(Entries::default())
    }
}

impl FdTable {
    /// A table without descriptors.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn from_entries(entries: Entries) -> Self {
        Self { entries: Mutex::new(LockClass::FdTable, entries), users: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock()
    }

    /// The file behind a descriptor.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get(&self, fd: i32) -> Result<Arc<dyn File>, Errno> {
        self.lock().get(fd).map(|e| Arc::clone(&e.file))
    }

    /// The file behind a descriptor, and whether execve(2) closes it.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get_with_flags(&self, fd: i32) -> Result<(Arc<dyn File>, bool), Errno> {
        self.lock().get(fd).map(|e| (Arc::clone(&e.file), e.cloexec))
    }

    /// Sets whether execve(2) closes a descriptor.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_cloexec(&self, fd: i32, cloexec: bool) -> Result<(), Errno> {
        let at = usize::try_from(fd).map_err(|_negative| Errno::EBADF)?;
        let mut entries = self.lock();
        let entry = entries.list.get_mut(at).and_then(Option::as_mut).ok_or(Errno::EBADF)?;
        entry.cloexec = cloexec;
        Ok(())
    }

    /// Gives the file the lowest free descriptor. `limit` is `RLIMIT_NOFILE`.
    ///
    /// # Errors
    /// `EMFILE` where that is not below the limit.
    pub fn install(&self, file: Arc<dyn File>, cloexec: bool, limit: u64) -> Result<i32, Errno> {
        self.install_from(0, file, cloexec, limit)
    }

    /// Gives the file the lowest free descriptor that is at least `min`, as `F_DUPFD` does.
    ///
    /// # Errors
    /// `EINVAL` where `min` is negative or not below the limit, `EMFILE`.
    pub fn install_from(
        &self,
        min: i32,
        file: Arc<dyn File>,
        cloexec: bool,
        limit: u64,
    ) -> Result<i32, Errno> {
        let limit = limit.min(NR_OPEN);
        let min = usize::try_from(min).map_err(|_negative| Errno::EINVAL)?;
        if min > 0 && min as u64 >= limit {
            return Err(Errno::EINVAL);
        }
        let mut entries = self.lock();
        let at = entries.find_free(min);
        if at as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        let fd = i32::try_from(at).map_err(|_large| Errno::EMFILE)?;
        let old = entries.put(at, Entry { file, cloexec });
        drop(entries);
        drop(old);
        Ok(fd)
    }

    /// Gives the file this very descriptor, as dup2(2) does; gives the file that had it, which the caller closes
    /// (see [`close_file`]).
    ///
    /// # Errors
    /// `EBADF` where it is negative or not below the limit.
    pub fn install_at(
        &self,
        fd: i32,
        file: Arc<dyn File>,
        cloexec: bool,
        limit: u64,
    ) -> Result<Option<Arc<dyn File>>, Errno> {
        let at = usize::try_from(fd).map_err(|_negative| Errno::EBADF)?;
        if at as u64 >= limit.min(NR_OPEN) {
            return Err(Errno::EBADF);
        }
        let old = self.lock().put(at, Entry { file, cloexec });
        Ok(old.map(|e| e.file))
    }

    /// Frees a descriptor; gives its file, which the caller closes (see [`close_file`]).
    ///
    /// # Errors
    /// `EBADF`.
    pub fn remove(&self, fd: i32) -> Result<Arc<dyn File>, Errno> {
        let at = usize::try_from(fd).map_err(|_negative| Errno::EBADF)?;
        self.lock().take(at).map(|e| e.file).ok_or(Errno::EBADF)
    }

    /// Frees the descriptors `first..=last`; gives their files, which the caller closes.
    pub fn remove_range(&self, first: u32, last: u32) -> Vec<Arc<dyn File>> {
        self.lock().take_all(|at, _| (u64::from(first)..=u64::from(last)).contains(&(at as u64)))
    }

    /// Has execve(2) close the descriptors `first..=last`.
    pub fn set_cloexec_range(&self, first: u32, last: u32) {
        let mut entries = self.lock();
        for (at, entry) in entries.list.iter_mut().enumerate() {
            if let Some(entry) = entry
                && (u64::from(first)..=u64::from(last)).contains(&(at as u64))
            {
                entry.cloexec = true;
            }
        }
    }

    /// Frees the descriptors that execve(2) closes; gives their files, which the caller closes.
    pub fn exec_close(&self) -> Vec<Arc<dyn File>> {
        self.lock().take_all(|_, e| e.cloexec)
    }

    /// A copy of the table, for clone(2) without `CLONE_FILES`.
    #[must_use]
    pub fn fork(&self) -> Arc<Self> {
        let entries = self.lock().clone();
        Arc::new(Self::from_entries(entries))
    }

    /// Every open descriptor, ascending.
    #[must_use]
    pub fn fds(&self) -> Vec<i32> {
        let entries = self.lock();
        let open = entries.list.iter().enumerate().filter(|(_, e)| e.is_some());
        open.filter_map(|(at, _)| i32::try_from(at).ok()).collect()
    }

    /// Every open descriptor with its file, ascending.
    #[must_use]
    pub fn files(&self) -> Vec<(i32, Arc<dyn File>)> {
        let entries = self.lock();
        let open = entries.list.iter().enumerate().filter_map(|(at, e)| Some((at, e.as_ref()?)));
        open.filter_map(|(at, e)| Some((i32::try_from(at).ok()?, Arc::clone(&e.file)))).collect()
    }

    /// How many places the table has, `FDSize` of `/proc/PID/status`.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.lock().list.len().next_multiple_of(64).max(64)
    }

    /// Tells whether more than one task uses the table.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.users.load(Ordering::Acquire) > 1
    }

    /// One more task uses the table.
    pub(crate) fn acquire(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// One task fewer uses the table; gives the files to close where it was the last.
    pub(crate) fn release(&self) -> Vec<Arc<dyn File>> {
        if self.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.lock().take_all(|_, _| true)
        } else {
            Vec::new()
        }
    }
}

/// Closes a file that was taken out of a table, close(2).
///
/// # Errors
/// Those of [`File::flush`]. The file is closed all the same.
pub fn close_file(task: &Task, file: Arc<dyn File>) -> Result<(), Errno> {
    let result = file.flush(task);
    drop(file);
    result
}
