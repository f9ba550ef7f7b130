//! What takes one round trip with the extension and several without.

use super::{Answer, Fid, reply, server_errno};
use crate::proto::{Attr, MAXWELEM, Make, Qid, Step, Str, Tmessage, mode};
use abi::Errno;
use std::os::fd::OwnedFd;

/// How far a walk came.
#[derive(Debug)]
pub struct Walked {
    /// Each file on the way, with its attributes. Shorter than the names when the walk ended early.
    pub files: Vec<(Fid, Attr)>,
    /// Why the walk ended early; `None` also when it ended at a symbolic link.
    pub error: Option<Errno>,
    /// The last file, open, if it is a regular one and opening was asked for and possible.
    pub fd: Option<OwnedFd>,
    /// Why it could not be opened.
    pub open_error: Option<Errno>,
}

/// A new file.
#[derive(Debug)]
pub struct MadeFid {
    /// The file.
    pub fid: Fid,
    /// Its attributes.
    pub attr: Attr,
    /// The file, open, if that was asked for and the server donates.
    pub fd: Option<OwnedFd>,
}

fn donated(answer: &mut Answer, count: u8) -> Result<Option<OwnedFd>, Errno> {
    let fd = answer.fds.pop();
    match (count, fd) {
        (0, _) => Ok(None),
        (1, Some(fd)) => Ok(Some(fd)),
        // The server says it sent one, but the host had no room for it.
        _ => Err(Errno::EMFILE),
    }
}

impl Fid {
    /// Walks down the names, with a fid and the attributes of each file on the way. Ends early at a symbolic link or at
    /// what is missing. Opens the last file with the flags `open` (or [`Make::UNOPENED`]) if it is a regular one.
    ///
    /// # Errors
    /// When not even one step could be made: `ENOENT`, `ENOTDIR`, the server's. `EINVAL` for no or more than 16 names. `EIO`.
    pub fn walk_attr(&self, names: &[&[u8]], open: u32) -> Result<Walked, Errno> {
        if names.is_empty() || names.len() > MAXWELEM {
            return Err(Errno::EINVAL);
        }
        if !self.client().extended() {
            return self.walk_attr_plain(names);
        }
        let mut fids = Vec::new();
        for _ in names {
            fids.push(self.client().new_fid()?);
        }
        let steps = fids.iter().zip(names).map(|(fid, name)| Step { newfid: fid.number(), name: Str(name) });
        let request = Tmessage::Twalkattr { fid: self.number(), steps: steps.collect(), open };
        let result = self.client().call(&request).and_then(|mut answer| {
            let (attrs, errno, count, open_errno) = reply!(
                answer, Rwalkattr { attrs, errno, donated, open_errno } => (attrs, errno, donated, open_errno)
            )?;
            Ok((attrs, errno, donated(&mut answer, count), open_errno))
        });
        match result {
            Ok((attrs, errno, fd, open_errno)) if !attrs.is_empty() && attrs.len() <= fids.len() => {
                fids.split_off(attrs.len()).into_iter().for_each(Self::never_was);
                let error = |errno| (errno != 0).then(|| server_errno(errno));
                let (fd, lost) = fd.map_or_else(|errno| (None, Some(errno)), |fd| (fd, None));
                let open_error = error(open_errno).or(lost);
                let files = fids.into_iter().zip(attrs).collect();
                Ok(Walked { files, error: error(errno), fd, open_error })
            }
            // Told nothing, or too much: none of the fids can be trusted to be free, which dropping them sees to.
            Ok(_) => Err(Errno::EIO),
            Err(errno) => {
                fids.into_iter().for_each(Self::never_was);
                Err(errno)
            }
        }
    }

    fn walk_attr_plain(&self, names: &[&[u8]]) -> Result<Walked, Errno> {
        let mut walked = Walked { files: Vec::new(), error: None, fd: None, open_error: None };
        for name in names {
            let from = walked.files.last().map_or(self, |(fid, _)| fid);
            match from.walk(&[name]).and_then(|(fid, _)| Ok((fid.get_attr()?, fid))) {
                Ok((attr, fid)) => walked.files.push((fid, attr)),
                Err(errno) if walked.files.is_empty() => return Err(errno),
                Err(errno) => {
                    walked.error = Some(errno);
                    break;
                }
            }
            if walked.files.last().is_some_and(|(_, attr)| attr.qid.kind == Qid::SYMLINK) {
                break;
            }
        }
        Ok(walked)
    }

    /// Opens this regular file and gives its descriptor; the fid stays as it is. `None` when the server does not donate.
    ///
    /// # Errors
    /// `EROFS`, `EISDIR`, `ENXIO`, `ELOOP`, `EPERM`, `EACCES`, the server's. `EOPNOTSUPP` without the extension. `EIO`.
    pub fn open_fd(&self, flags: u32) -> Result<Option<OwnedFd>, Errno> {
        if !self.client().extended() {
            return Err(Errno::EOPNOTSUPP);
        }
        let request = Tmessage::Twalkattr { fid: self.number(), steps: Vec::new(), open: flags };
        let mut answer = self.client().call(&request)?;
        let count = reply!(answer, Rwalkattr { donated, .. } => donated)?;
        donated(&mut answer, count)
    }

    /// Makes a file of any type in this directory. Without the extension the owner must be the server's own choice:
    /// [`Make::uid`] is then not looked at, and nothing is opened.
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, `EINVAL`, the server's, `EIO`.
    pub fn make(&self, name: &[u8], make: &Make<'_>) -> Result<MadeFid, Errno> {
        if !self.client().extended() {
            return self.make_plain(name, make);
        }
        let fid = self.client().new_fid()?;
        let request =
            Tmessage::Tmake { dfid: self.number(), newfid: fid.number(), name: Str(name), make: *make };
        let result = self.client().call(&request).and_then(|mut answer| {
            let made = reply!(answer, Rmake { made } => made)?;
            let fd = donated(&mut answer, made.donated)?;
            Ok((made.attr, fd))
        });
        match result {
            Ok((attr, fd)) => Ok(MadeFid { fid, attr, fd }),
            // Made, and the fid known to the server.
            Err(Errno::EMFILE) => Err(Errno::EMFILE),
            Err(errno) => {
                fid.never_was();
                Err(errno)
            }
        }
    }

    fn make_plain(&self, name: &[u8], make: &Make<'_>) -> Result<MadeFid, Errno> {
        let (fid, gid, mode) = (self.number(), make.gid, make.mode);
        let named = Str(name);
        match mode & mode::S_IFMT {
            mode::S_IFREG => {
                let (new, _) = self.walk(&[])?;
                new.create(name, 0o302, mode & 0o7777, gid)?;
                new.clunk()?;
            }
            mode::S_IFDIR => {
                let request = Tmessage::Tmkdir { dfid: fid, name: named, mode: mode & 0o7777, gid };
                reply!(self.client().call(&request)?, Rmkdir { .. } => ())?;
            }
            mode::S_IFLNK => {
                let request = Tmessage::Tsymlink { fid, name: named, target: make.target, gid };
                reply!(self.client().call(&request)?, Rsymlink { .. } => ())?;
            }
            _ => {
                let rdev = u32::try_from(make.rdev).map_err(|_too_large| Errno::EINVAL)?;
                let (major, minor) = ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
                let request = Tmessage::Tmknod { dfid: fid, name: named, mode, major, minor, gid };
                reply!(self.client().call(&request)?, Rmknod { .. } => ())?;
            }
        }
        let (fid, _) = self.walk(&[name])?;
        let attr = fid.get_attr()?;
        Ok(MadeFid { fid, attr, fd: None })
    }
}
