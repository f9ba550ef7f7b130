//! Open files: plain reading, writing and listing, and extended attributes.

use super::{Fid, reply};
use crate::proto::{Attr, AttrDirents, Data, Dirents, IO_HEADER, Qid, Str, Tmessage, open};
use abi::Errno;

/// A file that a directory lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// The file.
    pub qid: Qid,
    /// Where to go on after it.
    pub offset: u64,
    /// `DT_REG` and its kin.
    pub kind: u8,
    /// Its name.
    pub name: Vec<u8>,
    /// Its attributes, when the server told them.
    pub attr: Option<Attr>,
}

/// What a directory holds.
#[derive(Debug)]
pub struct Listed {
    /// Its first entries, as [`Dirents`] reads them.
    pub entries: Vec<u8>,
    /// The open directory, where there may be more.
    pub rest: Option<Fid>,
}

impl Fid {
    /// open(2), with flags of [`open`](crate::proto::open).
    ///
    /// # Errors
    /// The server's, `EIO`.
    pub fn open(&self, flags: u32) -> Result<Qid, Errno> {
        let answer = self.client().call(&Tmessage::Tlopen { fid: self.number(), flags })?;
        reply!(answer, Rlopen { qid, .. } => qid)
    }

    /// Makes a regular file in this directory and opens it as this fid.
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, the server's, `EIO`.
    pub fn create(&self, name: &[u8], flags: u32, mode: u32, gid: u32) -> Result<Qid, Errno> {
        let request = Tmessage::Tlcreate { fid: self.number(), name: Str(name), flags, mode, gid };
        reply!(self.client().call(&request)?, Rlcreate { qid, .. } => qid)
    }

    fn io_size(&self) -> usize {
        usize::try_from(self.client().msize().saturating_sub(IO_HEADER)).unwrap_or(0)
    }

    /// pread(2): fewer bytes than asked for only at the end of the file or when a message holds no more.
    ///
    /// # Errors
    /// The server's, `EIO`.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let count = u32::try_from(buf.len().min(self.io_size())).unwrap_or(0);
        let answer = self.client().call(&Tmessage::Tread { fid: self.number(), offset, count })?;
        let data = reply!(answer, Rread { data } => data)?;
        let room = buf.get_mut(..data.len()).ok_or(Errno::EIO)?;
        room.copy_from_slice(&data);
        Ok(room.len())
    }

    /// pwrite(2): as many bytes as a message holds.
    ///
    /// # Errors
    /// The server's, `EIO`.
    pub fn write(&self, data: &[u8], offset: u64) -> Result<usize, Errno> {
        let data = data.get(..self.io_size()).unwrap_or(data);
        let request = Tmessage::Twrite { fid: self.number(), offset, data: Data(data) };
        let count = reply!(self.client().call(&request)?, Rwrite { count } => count)?;
        usize::try_from(count).ok().filter(|count| *count <= data.len()).ok_or(Errno::EIO)
    }

    /// fsync(2), or fdatasync(2).
    ///
    /// # Errors
    /// The server's, `EIO`.
    pub fn sync(&self, data_only: bool) -> Result<(), Errno> {
        let request = Tmessage::Tfsync { fid: self.number(), datasync: u32::from(data_only) };
        reply!(self.client().call(&request)?, Rfsync {} => ())
    }

    /// Entries of this open directory after the place `offset`; none at its end. With the extension each has its
    /// attributes, if `with_attr` asks for them.
    ///
    /// # Errors
    /// `ENOTDIR`, the server's, `EIO`.
    pub fn read_dir(&self, offset: u64, with_attr: bool) -> Result<Vec<ListedFile>, Errno> {
        let (fid, count) = (self.number(), u32::try_from(self.io_size()).unwrap_or(0));
        if with_attr && self.client().extended() {
            let answer = self.client().call(&Tmessage::Treaddirattr { fid, offset, count })?;
            let data = reply!(answer, Rreaddirattr { data } => data)?;
            let entries = AttrDirents::new(data).map(|entry| {
                let entry = entry.map_err(|_hostile| Errno::EIO)?;
                let attr = Some(entry.attr).filter(|attr| attr.valid != 0);
                let entry = entry.entry;
                let (qid, offset, kind, name) = (entry.qid, entry.offset, entry.kind, entry.name.to_vec());
                Ok(ListedFile { qid, offset, kind, name, attr })
            });
            return entries.collect();
        }
        let data = self.read_entries(offset)?;
        let entries = Dirents::new(Data(&data)).map(|entry| {
            let entry = entry.map_err(|_hostile| Errno::EIO)?;
            let (qid, offset, kind, name) = (entry.qid, entry.offset, entry.kind, entry.name.to_vec());
            Ok(ListedFile { qid, offset, kind, name, attr: None })
        });
        entries.collect()
    }

    /// The entries of this directory, which is not open, from the first on: as many as one message holds.
    ///
    /// # Errors
    /// `ENOTDIR`, the server's, `EIO`.
    pub fn list(&self) -> Result<Listed, Errno> {
        if !self.client().extended() {
            let (rest, _) = self.walk(&[])?;
            rest.open(open::O_RDONLY | open::O_DIRECTORY)?;
            let entries = rest.read_entries(0)?;
            return Ok(Listed { entries, rest: Some(rest) });
        }
        let new = self.client().new_fid()?;
        let count = u32::try_from(self.io_size()).unwrap_or(0);
        let request = Tmessage::Tlist { fid: self.number(), newfid: new.number(), count };
        let answer = self.client().call(&request);
        match answer.and_then(|answer| reply!(answer, Rlist { more, data } => (more, data.to_vec()))) {
            Ok((more, entries)) => {
                let rest = if more == 0 {
                    new.never_was();
                    None
                } else {
                    Some(new)
                };
                Ok(Listed { entries, rest })
            }
            Err(errno) => {
                new.never_was();
                Err(errno)
            }
        }
    }

    /// Entries of this open directory after the place `offset`, as [`Dirents`] reads them; none at its end.
    ///
    /// # Errors
    /// `ENOTDIR`, the server's, `EIO`.
    pub fn read_entries(&self, offset: u64) -> Result<Vec<u8>, Errno> {
        let (fid, count) = (self.number(), u32::try_from(self.io_size()).unwrap_or(0));
        let answer = self.client().call(&Tmessage::Treaddir { fid, offset, count })?;
        reply!(answer, Rreaddir { data } => data.to_vec())
    }

    /// getxattr(2), or listxattr(2) when the name is empty.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`, `ERANGE` when the value is longer than `limit`, the server's, `EIO`.
    pub fn get_xattr(&self, name: &[u8], limit: usize) -> Result<Vec<u8>, Errno> {
        if self.client().extended() {
            let size = u32::try_from(limit.min(self.io_size())).unwrap_or(0);
            let request = Tmessage::Tgetxattr { fid: self.number(), name: Str(name), size };
            let answer = self.client().call(&request)?;
            return reply!(answer, Rgetxattr { value } => value.to_vec());
        }
        let new = self.client().new_fid()?;
        let request = Tmessage::Txattrwalk { fid: self.number(), newfid: new.number(), name: Str(name) };
        let size =
            self.client().call(&request).and_then(|answer| reply!(answer, Rxattrwalk { size } => size));
        let size = match size {
            Ok(size) => usize::try_from(size).ok().filter(|size| *size <= limit).ok_or(Errno::ERANGE)?,
            Err(errno) => {
                new.never_was();
                return Err(errno);
            }
        };
        let mut value = vec![0; size];
        let mut have = 0;
        while let Some(room) = value.get_mut(have..).filter(|room| !room.is_empty()) {
            match new.read(room, u64::try_from(have).unwrap_or(u64::MAX))? {
                0 => return Err(Errno::EIO),
                got => have += got,
            }
        }
        Ok(value)
    }

    /// setxattr(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EEXIST`, `ENODATA`, `EROFS`, `ENOSPC`, the server's, `EIO`.
    pub fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        if self.client().extended() {
            let (fid, name, value) = (self.number(), Str(name), Data(value));
            let answer = self.client().call(&Tmessage::Tsetxattr { fid, name, value, flags })?;
            return reply!(answer, Rsetxattr {} => ());
        }
        let (new, _) = self.walk(&[])?;
        let size = u64::try_from(value.len()).unwrap_or(u64::MAX);
        let request = Tmessage::Txattrcreate { fid: new.number(), name: Str(name), size, flags };
        reply!(self.client().call(&request)?, Rxattrcreate {} => ())?;
        let mut done = 0;
        while let Some(rest) = value.get(done..).filter(|rest| !rest.is_empty()) {
            match new.write(rest, u64::try_from(done).unwrap_or(u64::MAX))? {
                0 => return Err(Errno::EIO),
                count => done += count,
            }
        }
        new.clunk()
    }

    /// removexattr(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENODATA`, `EROFS`, the server's, `EIO`.
    pub fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        if self.client().extended() {
            let answer =
                self.client().call(&Tmessage::Tremovexattr { fid: self.number(), name: Str(name) })?;
            return reply!(answer, Rremovexattr {} => ());
        }
        self.set_xattr(name, b"", 0)
    }
}
