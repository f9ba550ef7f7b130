//! One connection: what each message does.

use super::Limits;
use super::backend::{Backend, Entry, Lock};
use super::fids::{Fid, Fids, NewXattr, Node, Opened};
use crate::proto::{
    Attr, Data, Dirent, DirentAttr, IO_HEADER, MAXWELEM, Make, NAME_MAX, Qid, Rmessage, SetAttr, SetAttrMask,
    Str, Tmessage, VERSION, VERSION_EXTENDED, mode, put_entry,
};
use abi::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use sync::Mutex;

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Session<'b, B: Backend> {
    pub(super) backend: &'b B,
    pub(super) fids: Fids<B>,
    limits: Limits,
    /// The size of messages that was agreed on; 0 before Tversion.
    msize: AtomicU32,
    extended: AtomicBool,
}

/// Where a handler puts what its reply borrows.
#[derive(Debug)]
pub(super) struct Scratch<B: Backend> {
    pub(super) bytes: Vec<u8>,
    /// The open file whose descriptor goes with the reply.
    pub(super) donated: Option<B::Handle>,
}

impl<B: Backend> Default for Scratch<B> {
    fn default() -> Self {
        Self { bytes: Vec::new(), donated: None }
    }
}

/// Refuses what is not the name of a file in a directory.
pub(super) fn check_name(name: &[u8]) -> Result<&[u8], Errno> {
    match name {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EINVAL),
        _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ if name.iter().any(|b| matches!(b, b'/' | 0)) => Err(Errno::EINVAL),
        _ => Ok(name),
    }
}

type Answer<'s> = Result<Rmessage<'s>, Errno>;

impl<'b, B: Backend> Session<'b, B> {
    pub(super) fn new(backend: &'b B, limits: Limits) -> Self {
        Self {
            backend,
            fids: Fids::new(limits.fids),
            limits,
            msize: AtomicU32::new(0),
            extended: AtomicBool::new(false),
        }
    }

    /// Whether both sides speak the extension.
    pub(super) fn extended(&self) -> bool {
        self.extended.load(Ordering::Relaxed)
    }

    /// The largest message.
    pub(super) fn msize(&self) -> u32 {
        self.msize.load(Ordering::Relaxed)
    }

    /// Does what a message asks. Tflush is not for this function.
    pub(super) fn handle<'s>(&self, request: &Tmessage<'_>, scratch: &'s mut Scratch<B>) -> Answer<'s> {
        if let Tmessage::Tversion { msize, version } = *request {
            return self.version(msize, version);
        }
        if self.msize() == 0 {
            return Err(Errno::EPROTO);
        }
        if request.kind() >= 200 {
            return if self.extended() {
                self.handle_extended(request, scratch)
            } else {
                Err(Errno::EOPNOTSUPP)
            };
        }
        match *request {
            Tmessage::Tattach { fid, aname, .. } => self.attach(fid, &aname),
            Tmessage::Twalk { fid, newfid, ref names } => self.walk(fid, newfid, names),
            Tmessage::Tlopen { fid, flags } => self.lopen(fid, flags),
            Tmessage::Tread { fid, offset, count } => self.read(fid, offset, count, scratch),
            Tmessage::Twrite { fid, offset, data } => self.write(fid, offset, &data),
            Tmessage::Tclunk { fid } => self.clunk(fid),
            Tmessage::Treaddir { fid, offset, count } => {
                self.readdir(fid, offset, count, false, scratch)?;
                Ok(Rmessage::Rreaddir { data: Data(&scratch.bytes) })
            }
            Tmessage::Tgetattr { fid, .. } => {
                Ok(Rmessage::Rgetattr { attr: self.backend.get_attr(&self.fids.get(fid)?.node.file)? })
            }
            Tmessage::Tsetattr { fid, ref set } => self.setattr(fid, set).map(|()| Rmessage::Rsetattr {}),
            Tmessage::Tstatfs { fid } => {
                Ok(Rmessage::Rstatfs { stat: self.backend.stat_fs(&self.fids.get(fid)?.node.file)? })
            }
            Tmessage::Treadlink { fid } => {
                scratch.bytes = self.backend.read_link(&self.fids.get(fid)?.node.file)?;
                Ok(Rmessage::Rreadlink { target: Str(&scratch.bytes) })
            }
            Tmessage::Tfsync { fid, datasync } => {
                self.backend.sync(self.fids.get(fid)?.handle()?, datasync != 0)?;
                Ok(Rmessage::Rfsync {})
            }
            Tmessage::Txattrwalk { fid, newfid, name } => self.xattrwalk(fid, newfid, &name),
            Tmessage::Txattrcreate { fid, name, size, flags } => self.xattrcreate(fid, &name, size, flags),
            Tmessage::Tlock { fid, kind, start, length, proc_id, .. } => {
                let lock = Lock { kind, start, length, proc_id };
                let got = self.backend.set_lock(self.fids.get(fid)?.handle()?, &lock)?;
                Ok(Rmessage::Rlock { status: u8::from(!got) })
            }
            Tmessage::Tgetlock { fid, kind, start, length, proc_id, client } => {
                let lock = Lock { kind, start, length, proc_id };
                let found = self.backend.get_lock(self.fids.get(fid)?.handle()?, &lock)?;
                scratch.bytes = client.to_vec();
                let Lock { kind, start, length, proc_id } = found;
                Ok(Rmessage::Rgetlock { kind, start, length, proc_id, client: Str(&scratch.bytes) })
            }
            // No authentication is required, which attach(5) wants told by an error.
            Tmessage::Tauth { .. } => Err(Errno::EOPNOTSUPP),
            _ => self.handle_names(request),
        }
    }

    /// Messages that make, move and remove names.
    fn handle_names(&self, request: &Tmessage<'_>) -> Answer<'static> {
        let make =
            |mode, gid| Make { mode, uid: u32::MAX, gid, rdev: 0, target: Str(b""), open: Make::UNOPENED };
        match *request {
            Tmessage::Tlcreate { fid, name, flags, mode, gid } => {
                self.lcreate(fid, &name, flags, (mode, gid))
            }
            Tmessage::Tsymlink { fid, name, target, gid } => {
                let qid = self.make(fid, &name, &Make { target, ..make(mode::S_IFLNK | 0o777, gid) })?;
                Ok(Rmessage::Rsymlink { qid })
            }
            Tmessage::Tmknod { dfid, name, mode, major, minor, gid } => {
                // Linux's new_encode_dev.
                let rdev = u64::from((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12));
                let qid = self.make(dfid, &name, &Make { rdev, ..make(mode, gid) })?;
                Ok(Rmessage::Rmknod { qid })
            }
            Tmessage::Tmkdir { dfid, name, mode, gid } => {
                let qid = self.make(dfid, &name, &make(mode::S_IFDIR | (mode & 0o7777), gid))?;
                Ok(Rmessage::Rmkdir { qid })
            }
            Tmessage::Tlink { dfid, fid, name } => {
                let (dir, file) = (self.fids.get(dfid)?, self.fids.get(fid)?);
                self.backend.link(&file.node.file, &dir.node.file, check_name(&name)?)?;
                Ok(Rmessage::Rlink {})
            }
            Tmessage::Trenameat { olddirfid, oldname, newdirfid, newname } => {
                self.rename((olddirfid, &oldname), (newdirfid, &newname), 0)?;
                Ok(Rmessage::Rrenameat {})
            }
            Tmessage::Trename { fid, dfid, name } => {
                let (file, dir) = (self.fids.get(fid)?, self.fids.get(dfid)?);
                let (parent, old) = self.place(&file.node)?;
                let to = (&dir.node.file, check_name(&name)?);
                self.backend.rename((&parent.file, old), to, 0)?;
                Ok(Rmessage::Rrename {})
            }
            Tmessage::Tunlinkat { dirfid, name, flags } => {
                let dir = self.fids.get(dirfid)?;
                self.backend.unlink(&dir.node.file, check_name(&name)?, flags)?;
                Ok(Rmessage::Runlinkat {})
            }
            Tmessage::Tremove { fid } => {
                let file = self.fids.remove(fid)?;
                let (parent, name) = self.place(&file.node)?;
                let flags = if file.node.qid.kind == Qid::DIR { 0x200 } else { 0 };
                self.backend.unlink(&parent.file, name, flags)?;
                Ok(Rmessage::Rremove {})
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn version(&self, msize: u32, version: Str<'_>) -> Answer<'static> {
        // Also what a new Tversion on a used connection asks: start afresh.
        self.fids.clear();
        self.extended.store(false, Ordering::Relaxed);
        let msize = msize.min(self.limits.msize);
        if msize < 4096 {
            self.msize.store(0, Ordering::Relaxed);
            return Err(Errno::EMSGSIZE);
        }
        let extended = self.limits.extension && version.0 == VERSION_EXTENDED;
        // version(5): a suffix after a period is one's own, and a server answers with the version before it.
        let known = version.0 == VERSION || version.0.starts_with(b"9P2000.L.");
        self.msize.store(if known { msize } else { 0 }, Ordering::Relaxed);
        self.extended.store(extended, Ordering::Relaxed);
        let version = match (extended, known) {
            (true, _) => VERSION_EXTENDED,
            (false, true) => VERSION,
            (false, false) => b"unknown",
        };
        Ok(Rmessage::Rversion { msize, version: Str(version) })
    }

    fn attach(&self, fid: u32, aname: &[u8]) -> Answer<'static> {
        self.fids.check_new(fid)?;
        let (file, attr) = self.backend.attach(aname)?;
        let qid = attr.qid;
        self.fids.insert(fid, Fid::new(Arc::new(Node { file, qid, parent: None })))?;
        Ok(Rmessage::Rattach { qid })
    }

    fn walk(&self, fid: u32, newfid: u32, names: &[Str<'_>]) -> Answer<'static> {
        if names.len() > MAXWELEM {
            return Err(Errno::EINVAL);
        }
        let start = self.fids.get(fid)?;
        if start.opened.is_some() {
            return Err(Errno::EBADF);
        }
        if newfid != fid {
            self.fids.check_new(newfid)?;
        }
        let mut node = start.node;
        let mut qids = Vec::new();
        for name in names {
            match self.step(&node, name) {
                Ok(next) => node = next,
                Err(errno) if qids.is_empty() => return Err(errno),
                Err(_) => return Ok(Rmessage::Rwalk { qids }),
            }
            qids.push(node.qid);
        }
        let value = Fid::new(node);
        if newfid == fid {
            self.fids.replace(fid, value)?;
        } else {
            self.fids.insert(newfid, value)?;
        }
        Ok(Rmessage::Rwalk { qids })
    }

    fn step(&self, from: &Arc<Node<B>>, name: &[u8]) -> Result<Arc<Node<B>>, Errno> {
        if name == b".." {
            // The directory that it was walked to from: never above the root of the tree.
            return Ok(from
                .parent
                .as_ref()
                .map_or_else(|| Arc::clone(from), |(parent, _)| Arc::clone(parent)));
        }
        let (file, attr) = self.backend.walk(&from.file, check_name(name)?)?;
        Ok(Arc::new(Node { file, qid: attr.qid, parent: Some((Arc::clone(from), Box::from(name))) }))
    }

    /// The directory and name of a file, if it is still there.
    fn place<'n>(&self, node: &'n Node<B>) -> Result<(&'n Node<B>, &'n [u8]), Errno> {
        let (parent, name) = node.parent.as_ref().ok_or(Errno::EBUSY)?;
        let (_, attr) = self.backend.walk(&parent.file, name)?;
        if attr.qid == node.qid { Ok((parent, name)) } else { Err(Errno::ENOENT) }
    }

    fn lopen(&self, fid: u32, flags: u32) -> Answer<'static> {
        let old = self.fids.get(fid)?;
        if old.opened.is_some() {
            return Err(Errno::EBADF);
        }
        let handle = self.backend.open(&old.node.file, flags)?;
        let qid = old.node.qid;
        self.fids.replace(fid, Fid { opened: Some(Arc::new(Opened::File(handle))), ..old })?;
        Ok(Rmessage::Rlopen { qid, iounit: self.msize().saturating_sub(IO_HEADER) })
    }

    fn lcreate(&self, fid: u32, name: &[u8], flags: u32, (mode, gid): (u32, u32)) -> Answer<'static> {
        let dir = self.fids.get(fid)?;
        if dir.opened.is_some() {
            return Err(Errno::EBADF);
        }
        let mode = mode::S_IFREG | (mode & 0o7777);
        let make = Make { mode, uid: u32::MAX, gid, rdev: 0, target: Str(b""), open: flags };
        let made = self.backend.make(&dir.node.file, check_name(name)?, &make)?;
        let handle = made.handle.ok_or(Errno::EIO)?;
        let qid = made.attr.qid;
        let node = Node { file: made.file, qid, parent: Some((dir.node, Box::from(name))) };
        let opened = Some(Arc::new(Opened::File(handle)));
        self.fids.replace(fid, Fid { node: Arc::new(node), opened })?;
        Ok(Rmessage::Rlcreate { qid, iounit: self.msize().saturating_sub(IO_HEADER) })
    }

    fn make(&self, dfid: u32, name: &[u8], make: &Make<'_>) -> Result<Qid, Errno> {
        let dir = self.fids.get(dfid)?;
        Ok(self.backend.make(&dir.node.file, check_name(name)?, make)?.attr.qid)
    }

    pub(super) fn rename(&self, from: (u32, &[u8]), to: (u32, &[u8]), flags: u32) -> Result<(), Errno> {
        let (old, new) = (self.fids.get(from.0)?, self.fids.get(to.0)?);
        let from = (&old.node.file, check_name(from.1)?);
        self.backend.rename(from, (&new.node.file, check_name(to.1)?), flags)
    }

    pub(super) fn setattr(&self, fid: u32, set: &SetAttr) -> Result<(), Errno> {
        if set.valid & !SetAttrMask::ALL != 0 {
            return Err(Errno::EINVAL);
        }
        self.backend.set_attr(&self.fids.get(fid)?.node.file, set)
    }

    /// How many bytes of data a reply may hold.
    fn room(&self, count: u32) -> usize {
        usize::try_from(count.min(self.msize().saturating_sub(IO_HEADER))).unwrap_or(0)
    }

    fn read<'s>(&self, fid: u32, offset: u64, count: u32, scratch: &'s mut Scratch<B>) -> Answer<'s> {
        let fid = self.fids.get(fid)?;
        let room = self.room(count);
        match fid.opened.as_deref() {
            Some(Opened::File(handle)) => {
                scratch.bytes.resize(room, 0);
                let got = self.backend.read(handle, &mut scratch.bytes, offset)?;
                scratch.bytes.truncate(got);
            }
            Some(Opened::Xattr(value)) => {
                let rest = usize::try_from(offset).ok().and_then(|at| value.get(at..)).unwrap_or_default();
                scratch.bytes = rest.get(..room).unwrap_or(rest).to_vec();
            }
            Some(Opened::NewXattr(_)) | None => return Err(Errno::EBADF),
        }
        Ok(Rmessage::Rread { data: Data(&scratch.bytes) })
    }

    fn write(&self, fid: u32, offset: u64, data: &[u8]) -> Answer<'static> {
        let fid = self.fids.get(fid)?;
        let count = match fid.opened.as_deref() {
            Some(Opened::File(handle)) => self.backend.write(handle, data, offset)?,
            Some(Opened::NewXattr(new)) => {
                let mut value = new.value.lock();
                // In order, as v9fs writes them; a value longer than was announced is not taken.
                if usize::try_from(offset) != Ok(value.len()) || value.len() + data.len() > new.size {
                    return Err(Errno::EINVAL);
                }
                value.extend_from_slice(data);
                data.len()
            }
            Some(Opened::Xattr(_)) | None => return Err(Errno::EBADF),
        };
        Ok(Rmessage::Rwrite { count: u32::try_from(count).unwrap_or(u32::MAX) })
    }

    fn clunk(&self, fid: u32) -> Answer<'static> {
        let fid = self.fids.remove(fid)?;
        if let Some(Opened::NewXattr(new)) = fid.opened.as_deref() {
            let value = std::mem::take(&mut *new.value.lock());
            if value.len() != new.size {
                return Err(Errno::EINVAL);
            }
            // Setting nothing is how v9fs removes an attribute.
            if new.size == 0 && new.flags == 0 {
                self.backend.remove_xattr(&fid.node.file, &new.name)?;
            } else {
                self.backend.set_xattr(&fid.node.file, &new.name, &value, new.flags)?;
            }
        }
        Ok(Rmessage::Rclunk {})
    }

    fn xattrwalk(&self, fid: u32, newfid: u32, name: &[u8]) -> Answer<'static> {
        let file = self.fids.get(fid)?;
        self.fids.check_new(newfid)?;
        let value = self.backend.get_xattr(&file.node.file, name)?;
        let size = u64::try_from(value.len()).unwrap_or(u64::MAX);
        let opened = Some(Arc::new(Opened::Xattr(value)));
        self.fids.insert(newfid, Fid { node: file.node, opened })?;
        Ok(Rmessage::Rxattrwalk { size })
    }

    fn xattrcreate(&self, fid: u32, name: &[u8], size: u64, flags: u32) -> Answer<'static> {
        let file = self.fids.get(fid)?;
        // XATTR_SIZE_MAX
        let size = usize::try_from(size).ok().filter(|size| *size <= 65536).ok_or(Errno::E2BIG)?;
        let value = Mutex::new(sync::LockClass::Leaf, Vec::new());
        let new = NewXattr { name: name.to_vec(), size, flags, value };
        let opened = Some(Arc::new(Opened::NewXattr(Box::new(new))));
        self.fids.replace(fid, Fid { node: file.node, opened })?;
        Ok(Rmessage::Rxattrcreate {})
    }

    /// Fills the scratch bytes with entries of an open directory.
    pub(super) fn readdir(
        &self,
        fid: u32,
        offset: u64,
        count: u32,
        with_attr: bool,
        scratch: &mut Scratch<B>,
    ) -> Result<(), Errno> {
        let fid = self.fids.get(fid)?;
        self.read_entries(fid.handle()?, offset, count, with_attr, scratch).map(drop)
    }

    /// The same of a handle; tells whether some found no room.
    pub(super) fn read_entries(
        &self,
        handle: &B::Handle,
        offset: u64,
        count: u32,
        with_attr: bool,
        scratch: &mut Scratch<B>,
    ) -> Result<bool, Errno> {
        let room = self.room(count);
        let out = &mut scratch.bytes;
        out.clear();
        let mut full = false;
        self.backend.read_dir(handle, offset, with_attr, &mut |entry| {
            let len = entry.name.len();
            let need = if with_attr { DirentAttr::wire_len(len) } else { Dirent::wire_len(len) };
            full = full || out.len() + need > room;
            if !full {
                put(out, entry, with_attr);
            }
            !full
        })?;
        // Not even one fits: the client would take an empty answer for the end of the directory.
        if full && out.is_empty() { Err(Errno::EINVAL) } else { Ok(full) }
    }
}

fn put(out: &mut Vec<u8>, entry: &Entry<'_>, with_attr: bool) {
    let kind = match entry.kind {
        4 => Qid::DIR,
        10 => Qid::SYMLINK,
        _ => Qid::FILE,
    };
    let qid = entry.attr.map_or(Qid { kind, version: 0, path: entry.ino }, |attr| attr.qid);
    let dirent = Dirent { qid, offset: entry.offset, kind: entry.kind, name: Str(entry.name) };
    if with_attr {
        let attr = entry.attr.unwrap_or(Attr { qid, ..Attr::default() });
        put_entry(out, &DirentAttr { entry: dirent, attr });
    } else {
        put_entry(out, &dirent);
    }
}
