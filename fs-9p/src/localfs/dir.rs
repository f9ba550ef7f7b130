//! Listing directories.

use super::{LocalFs, LocalHandle};
use crate::host::{errno, retry};
use crate::proto::mode;
use crate::server::Entry;
use abi::Errno;
use nix::dir::{self, Dir, OwningIter, Type};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat;
use std::os::fd::AsFd;

/// A directory that is being listed. A place in it is how many entries came before, so that going on where the last
/// call ended takes no seek; any other place is found by starting again.
#[derive(Debug)]
pub struct Listing {
    entries: OwningIter,
    position: u64,
    /// An entry that the last call had no room for.
    pending: Option<dir::Entry>,
}

const fn kind_of(kind: Option<Type>) -> u8 {
    match kind {
        Some(Type::Fifo) => 1,
        Some(Type::CharacterDevice) => 2,
        Some(Type::Directory) => 4,
        Some(Type::BlockDevice) => 6,
        Some(Type::File) => 8,
        Some(Type::Symlink) => 10,
        Some(Type::Socket) => 12,
        None => 0,
    }
}

impl Listing {
    fn next(&mut self) -> Result<Option<dir::Entry>, Errno> {
        if let Some(entry) = self.pending.take() {
            return Ok(Some(entry));
        }
        self.entries.next().transpose().map_err(errno)
    }
}

impl LocalFs {
    fn start_listing(&self, handle: &LocalHandle, offset: u64) -> Result<Listing, Errno> {
        // A descriptor of its own: that of the handle has a position that other listings share.
        let fd = self.reopen(handle.fd.as_fd(), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let entries = Dir::from_fd(fd).map_err(errno)?.into_iter();
        let mut listing = Listing { entries, position: 0, pending: None };
        while listing.position < offset && listing.next()?.is_some() {
            listing.position += 1;
        }
        Ok(listing)
    }

    /// Tells entries from a place on.
    pub(super) fn list(
        &self,
        handle: &LocalHandle,
        offset: u64,
        with_attr: bool,
        sink: &mut dyn FnMut(&Entry<'_>) -> bool,
    ) -> Result<(), Errno> {
        if handle.kind != mode::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        // Taken out, so that no lock is held while the directory is read; a second thread starts a listing of its own.
        let kept = handle.listing.lock().take();
        let mut listing = match kept {
            Some(kept) if kept.position == offset && offset != 0 => kept,
            _ => self.start_listing(handle, offset)?,
        };
        while let Some(entry) = listing.next()? {
            let name = entry.file_name();
            let attr = with_attr.then(|| {
                let found = retry(|| stat::fstatat(&handle.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW));
                found.ok().map(|stat| handle.tree.attr(&stat))
            });
            let told = Entry {
                offset: listing.position + 1,
                kind: kind_of(entry.file_type()),
                ino: entry.ino(),
                name: name.to_bytes(),
                attr: attr.flatten().filter(|_| name != c".."),
            };
            if !sink(&told) {
                listing.pending = Some(entry);
                break;
            }
            listing.position += 1;
        }
        let old = handle.listing.lock().replace(listing);
        drop(old);
        Ok(())
    }
}
