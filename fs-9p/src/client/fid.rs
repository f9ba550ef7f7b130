//! A fid, and the plain messages that walk, look and change.

use super::{Client, reply};
use crate::proto::{Attr, GetAttrMask, MAXWELEM, Qid, SetAttr, StatFs, Str, Tmessage};
use abi::Errno;
use std::sync::Arc;

/// The client's hold on a file of the server. Dropping it clunks it.
#[derive(Debug)]
pub struct Fid {
    client: Arc<Client>,
    number: u32,
    /// Whether the server knows the number.
    known: bool,
}

impl Drop for Fid {
    fn drop(&mut self) {
        if self.known {
            self.client.fid_was_dropped(self.number);
        } else {
            self.client.fid_is_free(self.number);
        }
    }
}

impl Fid {
    pub(super) const fn new(client: Arc<Client>, number: u32) -> Self {
        Self { client, number, known: true }
    }

    /// The server never took the number.
    pub(super) fn never_was(mut self) {
        self.known = false;
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Its connection.
    #[must_use]
    pub const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Walks by plain `Twalk`: a new fid for the file that the names lead to.
    ///
    /// # Errors
    /// `ENOENT` when a name is missing, `EINVAL` for more than 16 names, the server's errors, `EIO`.
    pub fn walk(&self, names: &[&[u8]]) -> Result<(Self, Vec<Qid>), Errno> {
        if names.len() > MAXWELEM {
            return Err(Errno::EINVAL);
        }
        let new = self.client.new_fid()?;
        let names: Vec<Str<'_>> = names.iter().map(|name| Str(name)).collect();
        let steps = names.len();
        let answer = self.client.call(&Tmessage::Twalk { fid: self.number, newfid: new.number, names });
        match answer.and_then(|answer| reply!(answer, Rwalk { qids } => qids)) {
            Ok(qids) if qids.len() == steps => Ok((new, qids)),
            Ok(qids) => {
                new.never_was();
                Err(if qids.len() < steps { Errno::ENOENT } else { Errno::EIO })
            }
            Err(errno) => {
                new.never_was();
                Err(errno)
            }
        }
    }

    /// stat(2).
    ///
    /// # Errors
    /// The server's, `EIO`.
    pub fn get_attr(&self) -> Result<Attr, Errno> {
        let mask = GetAttrMask::BASIC;
        let answer = self.client.call(&Tmessage::Tgetattr { fid: self.number, mask })?;
        reply!(answer, Rgetattr { attr } => attr)
    }

    /// Changes attributes and tells the new ones.
    ///
    /// # Errors
    /// The server's, `EIO`.
    pub fn set_attr(&self, set: &SetAttr) -> Result<Attr, Errno> {
        if self.client.extended() {
            let answer = self.client.call(&Tmessage::Tsetattrget { fid: self.number, set: *set })?;
            return reply!(answer, Rsetattrget { attr } => attr);
        }
        let answer = self.client.call(&Tmessage::Tsetattr { fid: self.number, set: *set })?;
        reply!(answer, Rsetattr {} => ())?;
        self.get_attr()
    }

    /// readlink(2).
    ///
    /// # Errors
    /// `EINVAL` when the file is no symbolic link, the server's, `EIO`.
    pub fn read_link(&self) -> Result<Vec<u8>, Errno> {
        let answer = self.client.call(&Tmessage::Treadlink { fid: self.number })?;
        reply!(answer, Rreadlink { target } => target.to_vec())
    }

    /// statfs(2).
    ///
    /// # Errors
    /// The server's, `EIO`.
    pub fn stat_fs(&self) -> Result<StatFs, Errno> {
        let answer = self.client.call(&Tmessage::Tstatfs { fid: self.number })?;
        reply!(answer, Rstatfs { stat } => stat)
    }

    /// link(2): a link to this file in the directory `dir`.
    ///
    /// # Errors
    /// `EEXIST`, `EROFS`, `EPERM`, `EXDEV`, `EMLINK`, the server's, `EIO`.
    pub fn link(&self, dir: &Self, name: &[u8]) -> Result<(), Errno> {
        let request = Tmessage::Tlink { dfid: dir.number, fid: self.number, name: Str(name) };
        reply!(self.client.call(&request)?, Rlink {} => ())
    }

    /// renameat2(2), from this directory. Without the extension no flags can be given.
    ///
    /// # Errors
    /// `EINVAL`, `ENOENT`, `EROFS`, `EXDEV`, `ENOTEMPTY`, the server's, `EIO`.
    pub fn rename(&self, oldname: &[u8], to: &Self, newname: &[u8], flags: u32) -> Result<(), Errno> {
        let (olddirfid, newdirfid) = (self.number, to.number);
        let (oldname, newname) = (Str(oldname), Str(newname));
        if self.client.extended() {
            let request = Tmessage::Trenameat2 { olddirfid, oldname, newdirfid, newname, flags };
            return reply!(self.client.call(&request)?, Rrenameat2 {} => ());
        }
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        let request = Tmessage::Trenameat { olddirfid, oldname, newdirfid, newname };
        reply!(self.client.call(&request)?, Rrenameat {} => ())
    }

    /// unlinkat(2) in this directory; `flags` is 0 or `AT_REMOVEDIR`.
    ///
    /// # Errors
    /// `ENOENT`, `EROFS`, `EISDIR`, `ENOTEMPTY`, the server's, `EIO`.
    pub fn unlink(&self, name: &[u8], flags: u32) -> Result<(), Errno> {
        let request = Tmessage::Tunlinkat { dirfid: self.number, name: Str(name), flags };
        reply!(self.client.call(&request)?, Runlinkat {} => ())
    }

    /// Forgets the fid and waits until the server has.
    ///
    /// # Errors
    /// The server's, `EIO`. The fid is gone all the same.
    pub fn clunk(mut self) -> Result<(), Errno> {
        let answer = self.client.call(&Tmessage::Tclunk { fid: self.number });
        self.known = self.client.is_dead();
        reply!(answer?, Rclunk {} => ())
    }
}
