//! What the messages of the extension do.

use super::backend::Backend;
use super::fids::{Fid, Node, Opened};
use super::session::{Scratch, Session, check_name};
use crate::proto::{Attr, Data, MAXWELEM, Made, Make, Qid, Rmessage, Step, Tmessage, mode, open};
use abi::Errno;
use std::sync::Arc;

impl<B: Backend> Session<'_, B> {
    /// Does what a message of the extension asks.
    pub(super) fn handle_extended<'s>(
        &self,
        request: &Tmessage<'_>,
        scratch: &'s mut Scratch<B>,
    ) -> Result<Rmessage<'s>, Errno> {
        match *request {
            Tmessage::Twalkattr { fid, ref steps, open } => self.walkattr(fid, steps, open, scratch),
            Tmessage::Tmake { dfid, newfid, name, ref make } => {
                self.fids.check_new(newfid)?;
                let dir = self.fids.get(dfid)?;
                let made = self.backend.make(&dir.node.file, check_name(&name)?, make)?;
                let node = Node { file: made.file, qid: made.attr.qid, parent: None };
                self.fids.insert(newfid, Fid::new(Arc::new(node)))?;
                let donated = self.donate(made.handle, scratch);
                Ok(Rmessage::Rmake { made: Made { attr: made.attr, donated } })
            }
            Tmessage::Tclunkmany { ref fids } => {
                drop(self.fids.remove_many(fids));
                Ok(Rmessage::Rclunkmany {})
            }
            Tmessage::Treaddirattr { fid, offset, count } => {
                self.readdir(fid, offset, count, true, scratch)?;
                Ok(Rmessage::Rreaddirattr { data: Data(&scratch.bytes) })
            }
            Tmessage::Tlist { fid, newfid, count } => {
                let more = u8::from(self.list(fid, newfid, count, scratch)?);
                Ok(Rmessage::Rlist { more, data: Data(&scratch.bytes) })
            }
            Tmessage::Tsetattrget { fid, ref set } => {
                self.setattr(fid, set)?;
                Ok(Rmessage::Rsetattrget { attr: self.backend.get_attr(&self.fids.get(fid)?.node.file)? })
            }
            Tmessage::Trenameat2 { olddirfid, oldname, newdirfid, newname, flags } => {
                self.rename((olddirfid, &oldname), (newdirfid, &newname), flags)?;
                Ok(Rmessage::Rrenameat2 {})
            }
            Tmessage::Tgetxattr { fid, name, size } => {
                scratch.bytes = self.backend.get_xattr(&self.fids.get(fid)?.node.file, &name)?;
                if scratch.bytes.len() > usize::try_from(size).unwrap_or(usize::MAX) {
                    return Err(Errno::ERANGE);
                }
                Ok(Rmessage::Rgetxattr { value: Data(&scratch.bytes) })
            }
            Tmessage::Tsetxattr { fid, name, value, flags } => {
                self.backend.set_xattr(&self.fids.get(fid)?.node.file, &name, &value, flags)?;
                Ok(Rmessage::Rsetxattr {})
            }
            Tmessage::Tremovexattr { fid, name } => {
                self.backend.remove_xattr(&self.fids.get(fid)?.node.file, &name)?;
                Ok(Rmessage::Rremovexattr {})
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Opens a directory and fills the scratch bytes with its first entries; tells whether there are more, for which `newfid`
    /// is kept.
    fn list(&self, fid: u32, newfid: u32, count: u32, scratch: &mut Scratch<B>) -> Result<bool, Errno> {
        self.fids.check_new(newfid)?;
        let node = self.fids.get(fid)?.node;
        let handle = self.backend.open(&node.file, open::O_RDONLY | open::O_DIRECTORY)?;
        let more = self.read_entries(&handle, 0, count, false, scratch)?;
        if more {
            let opened = Some(Arc::new(Opened::File(handle)));
            self.fids.insert(newfid, Fid { node, opened })?;
        }
        Ok(more)
    }

    /// Keeps an open file so that its descriptor goes with the reply; tells whether one does.
    fn donate(&self, handle: Option<B::Handle>, scratch: &mut Scratch<B>) -> u8 {
        scratch.donated = handle.filter(|handle| self.backend.donate(handle).is_some());
        u8::from(scratch.donated.is_some())
    }

    fn walkattr(
        &self,
        fid: u32,
        steps: &[Step<'_>],
        flags: u32,
        scratch: &mut Scratch<B>,
    ) -> Result<Rmessage<'static>, Errno> {
        if steps.len() > MAXWELEM {
            return Err(Errno::EINVAL);
        }
        let start = self.fids.get(fid)?;
        if steps.is_empty() {
            let handle = self.backend.open(&start.node.file, flags)?;
            let donated = self.donate(Some(handle), scratch);
            return Ok(Rmessage::Rwalkattr { attrs: Vec::new(), errno: 0, donated, open_errno: 0 });
        }
        for step in steps {
            self.fids.check_new(step.newfid)?;
        }
        let (mut attrs, mut errno): (Vec<Attr>, u32) = (Vec::new(), 0);
        let mut node = start.node;
        for step in steps {
            match self.walk_step(&node, step) {
                Ok((next, attr)) => {
                    attrs.push(attr);
                    node = next;
                }
                Err(error) if attrs.is_empty() => return Err(error),
                Err(error) => {
                    errno = u32::from(error.raw());
                    break;
                }
            }
            if node.qid.kind == Qid::SYMLINK {
                break;
            }
        }
        let (mut donated, mut open_errno) = (0, 0);
        let regular = attrs.last().is_some_and(|attr| attr.mode & mode::S_IFMT == mode::S_IFREG);
        if flags != Make::UNOPENED && regular && attrs.len() == steps.len() {
            match self.backend.open(&node.file, flags) {
                Ok(handle) => donated = self.donate(Some(handle), scratch),
                Err(error) => open_errno = u32::from(error.raw()),
            }
        }
        Ok(Rmessage::Rwalkattr { attrs, errno, donated, open_errno })
    }

    fn walk_step(&self, from: &Node<B>, step: &Step<'_>) -> Result<(Arc<Node<B>>, Attr), Errno> {
        let (file, attr) = self.backend.walk(&from.file, check_name(&step.name)?)?;
        let node = Arc::new(Node { file, qid: attr.qid, parent: None });
        self.fids.insert(step.newfid, Fid::new(Arc::clone(&node)))?;
        Ok((node, attr))
    }
}
