//! Reading directories: `getdents64(2)`.
use abi::Errno;
use abi::fs::{Dirent64Head, dirent_type};
use vfs::{DirEntry, DirSink, FileDescription};
use zerocopy::IntoBytes;

use crate::Cx;
use crate::decode::{Fd, UserPtr};

/// The most bytes of entries that one call gives.
const CHUNK: usize = 64 << 10;

/// Collects entries in their wire form.
#[derive(Debug)]
struct Sink {
    bytes: Vec<u8>,
    room: usize,
    /// An entry was told that did not fit.
    full: bool,
    /// The form of getdents64(2) rather than of getdents(2).
    wide: bool,
}

impl DirSink for Sink {
    fn add(&mut self, entry: &DirEntry<'_>) -> bool {
        // In both forms there are 18 bytes before the name, or 19; getdents(2) has the type at the end.
        let len = Dirent64Head::record_len(entry.name.len());
        let (Ok(reclen), true) = (u16::try_from(len), self.bytes.len() + len <= self.room) else {
            self.full = true;
            return false;
        };
        let end = self.bytes.len() + len;
        let head = Dirent64Head::new(entry.ino, entry.next, reclen, dirent_type(entry.file_type));
        if self.wide {
            self.bytes.extend_from_slice(head.as_bytes());
            self.bytes.extend_from_slice(entry.name);
            self.bytes.resize(end, 0);
        } else {
            self.bytes.extend_from_slice(head.as_bytes().get(..18).unwrap_or_default());
            self.bytes.extend_from_slice(entry.name);
            self.bytes.resize(end - 1, 0);
            self.bytes.push(dirent_type(entry.file_type));
        }
        true
    }
}

fn read(cx: &Cx<'_>, fd: Fd, buf: UserPtr<u8>, len: u32, wide: bool) -> Result<usize, Errno> {
    let file = cx.file(fd)?;
    let description = FileDescription::from_file(&file).ok_or(Errno::ENOTDIR)?;
    let room = usize::try_from(len).unwrap_or(CHUNK).min(CHUNK);
    let mut sink = Sink { bytes: Vec::new(), room, full: false, wide };
    let before = description.position();
    description.read_directory(cx, &mut sink)?;
    if sink.bytes.is_empty() && sink.full {
        return Err(Errno::EINVAL);
    }
    if let Err(errno) = cx.memory()?.write_bytes(buf.addr(), &sink.bytes) {
        // What was not stored is told again.
        description.with_position(|position| *position = before);
        return Err(errno);
    }
    Ok(sink.bytes.len())
}

/// `getdents64(2)`
///
/// # Errors
/// `EBADF`, `ENOTDIR`, `ENOENT` for a removed directory, `EINVAL` for too little room, `EFAULT`.
pub fn getdents64(cx: &mut Cx<'_>, fd: Fd, buf: UserPtr<u8>, len: u32) -> Result<usize, Errno> {
    read(cx, fd, buf, len, true)
}

/// `getdents(2)`
///
/// # Errors
/// As [`getdents64`].
pub fn getdents(cx: &mut Cx<'_>, fd: Fd, buf: UserPtr<u8>, len: u32) -> Result<usize, Errno> {
    read(cx, fd, buf, len, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_linux_s() {
        let entry = DirEntry { ino: 7, next: 9, file_type: 0o040_000, name: b"abcde" };
        let mut sink = Sink { bytes: Vec::new(), room: 40, full: false, wide: true };
        assert!(sink.add(&entry) && !sink.add(&entry) && sink.full);
        assert_eq!(sink.bytes.len(), 32);
        assert_eq!(sink.bytes[16..25], [32, 0, 4, b'a', b'b', b'c', b'd', b'e', 0]);
        let mut sink = Sink { bytes: Vec::new(), room: 40, full: false, wide: false };
        assert!(sink.add(&entry));
        assert_eq!((sink.bytes[18], sink.bytes[31], sink.bytes.len()), (b'a', 4, 32));
    }
}
