//! The messages.

use super::attr::{Attr, Qid, SetAttr, StatFs};
use super::extension::{Made, Make, Step};
use super::wire::{CodecError, Data, Reader, Str, Vec, Writer};

/// An enum of messages: its variants' fields are the wire's, in order.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$vdoc:meta])* $variant:ident = $kind:literal { $($field:ident: $ty:ty),* })*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "fields have the names that the protocol's description gives them")]
        pub enum $name<'a> {
            $($(#[$vdoc])* $variant { $($field: $ty),* },)*
        }

        impl<'a> $name<'a> {
            /// The type byte.
            #[must_use]
            pub const fn kind(&self) -> u8 {
                match self { $(Self::$variant { .. } => $kind,)* }
            }

            /// Appends the whole message to `out`.
            ///
            /// # Errors
            /// [`CodecError::TooLong`]; `out` is then as it was before.
            pub fn encode(&self, tag: u16, out: &mut Vec<u8>) -> Result<(), CodecError> {
                let mut w = Writer::new(out);
                w.put(&0_u32);
                w.put(&self.kind());
                w.put(&tag);
                match self { $(Self::$variant { $($field),* } => { $(w.put($field);)* })* }
                w.finish()
            }

            /// The tag and the message that these bytes are, no less and no more.
            ///
            /// # Errors
            /// Any [`CodecError`] but [`CodecError::TooLong`].
            pub fn decode(bytes: &'a [u8]) -> Result<(u16, Self), CodecError> {
                let mut r = Reader::new(bytes);
                let size: u32 = r.get()?;
                if usize::try_from(size) != Ok(bytes.len()) {
                    return Err(CodecError::Size);
                }
                let kind: u8 = r.get()?;
                let tag: u16 = r.get()?;
                let message = match kind {
                    $($kind => Self::$variant { $($field: r.get()?),* },)*
                    _ => return Err(CodecError::Type(kind)),
                };
                if r.rest().is_empty() { Ok((tag, message)) } else { Err(CodecError::Size) }
            }
        }
    };
}

messages! {
    /// What a client asks.
    Tmessage {
        /// Figures of the file system, statfs(2).
        Tstatfs = 8 { fid: u32 }
        /// Opens the file of a fid.
        Tlopen = 12 { fid: u32, flags: u32 }
        /// Makes a regular file in the directory of a fid, and opens it as that fid.
        Tlcreate = 14 { fid: u32, name: Str<'a>, flags: u32, mode: u32, gid: u32 }
        /// Makes a symbolic link.
        Tsymlink = 16 { fid: u32, name: Str<'a>, target: Str<'a>, gid: u32 }
        /// Makes a device node, FIFO or socket.
        Tmknod = 18 { dfid: u32, name: Str<'a>, mode: u32, major: u32, minor: u32, gid: u32 }
        /// Moves the file of a fid.
        Trename = 20 { fid: u32, dfid: u32, name: Str<'a> }
        /// The target of a symbolic link.
        Treadlink = 22 { fid: u32 }
        /// Attributes.
        Tgetattr = 24 { fid: u32, mask: u64 }
        /// Changes attributes.
        Tsetattr = 26 { fid: u32, set: SetAttr }
        /// Makes a fid for reading an extended attribute, or their list when the name is empty.
        Txattrwalk = 30 { fid: u32, newfid: u32, name: Str<'a> }
        /// Makes the fid one for writing an extended attribute, which is set when the fid is clunked.
        Txattrcreate = 32 { fid: u32, name: Str<'a>, size: u64, flags: u32 }
        /// Reads entries of a directory.
        Treaddir = 40 { fid: u32, offset: u64, count: u32 }
        /// Writes the file back, fsync(2); fdatasync(2) when `datasync` is not 0.
        Tfsync = 50 { fid: u32, datasync: u32 }
        /// Takes or drops a record lock.
        Tlock = 52 { fid: u32, kind: u8, flags: u32, start: u64, length: u64, proc_id: u32, client: Str<'a> }
        /// Asks for a record lock that is in the way.
        Tgetlock = 54 { fid: u32, kind: u8, start: u64, length: u64, proc_id: u32, client: Str<'a> }
        /// Makes a link to the file of `fid` in the directory of `dfid`.
        Tlink = 70 { dfid: u32, fid: u32, name: Str<'a> }
        /// Makes a directory.
        Tmkdir = 72 { dfid: u32, name: Str<'a>, mode: u32, gid: u32 }
        /// Moves a file by name.
        Trenameat = 74 { olddirfid: u32, oldname: Str<'a>, newdirfid: u32, newname: Str<'a> }
        /// Removes a name; `flags` is that of unlinkat(2).
        Tunlinkat = 76 { dirfid: u32, name: Str<'a>, flags: u32 }
        /// Agrees on the version and the size of messages; forgets all fids.
        Tversion = 100 { msize: u32, version: Str<'a> }
        /// Asks for a fid for authentication.
        Tauth = 102 { afid: u32, uname: Str<'a>, aname: Str<'a>, n_uname: u32 }
        /// Makes a fid for the root of the tree `aname`.
        Tattach = 104 { fid: u32, afid: u32, uname: Str<'a>, aname: Str<'a>, n_uname: u32 }
        /// Gives up waiting for a request.
        Tflush = 108 { oldtag: u16 }
        /// Makes a fid for a file below that of `fid`.
        Twalk = 110 { fid: u32, newfid: u32, names: Vec<Str<'a>> }
        /// Reads.
        Tread = 116 { fid: u32, offset: u64, count: u32 }
        /// Writes.
        Twrite = 118 { fid: u32, offset: u64, data: Data<'a> }
        /// Forgets a fid.
        Tclunk = 120 { fid: u32 }
        /// Removes the file of a fid, and forgets the fid even when that fails.
        Tremove = 122 { fid: u32 }

        /// Extension: walks one step a name, telling the attributes of each file, each with a fid of its own; ends early
        /// at a symbolic link or at what is missing. Opens the last file with the flags `open` if it is a regular one
        /// and all steps were made. Without steps it opens the file of `fid`. The descriptor comes with the reply;
        /// the fids stay as they are, not open.
        Twalkattr = 200 { fid: u32, steps: Vec<Step<'a>>, open: u32 }
        /// Extension: makes a file, tells its attributes, gives it a fid, and opens it if asked.
        Tmake = 202 { dfid: u32, newfid: u32, name: Str<'a>, make: Make<'a> }
        /// Extension: forgets many fids; unknown ones are skipped.
        Tclunkmany = 204 { fids: Vec<u32> }
        /// Extension: reads entries of a directory with the attributes of each.
        Treaddirattr = 206 { fid: u32, offset: u64, count: u32 }
        /// Extension: changes attributes and tells the new ones.
        Tsetattrget = 208 { fid: u32, set: SetAttr }
        /// Extension: renameat2(2).
        Trenameat2 = 210 { olddirfid: u32, oldname: Str<'a>, newdirfid: u32, newname: Str<'a>, flags: u32 }
        /// Extension: getxattr(2), or listxattr(2) when the name is empty; at most `size` bytes, `ERANGE` if it is longer.
        Tgetxattr = 212 { fid: u32, name: Str<'a>, size: u32 }
        /// Extension: setxattr(2).
        Tsetxattr = 214 { fid: u32, name: Str<'a>, value: Data<'a>, flags: u32 }
        /// Extension: removexattr(2).
        Tremovexattr = 216 { fid: u32, name: Str<'a> }
        /// Extension: opens a directory and reads its first entries. Where there are more, `newfid` is the open directory
        /// from which `Treaddir` goes on; otherwise the server does not know `newfid`.
        Tlist = 218 { fid: u32, newfid: u32, count: u32 }
        /// Extension, a hint: from which of the host's CPUs requests come, all ones for several. A server that waits there
        /// for the next answers sooner than one that another CPU has to wake.
        Tnear = 220 { cpu: u32 }
    }
}

messages! {
    /// What a server answers.
    Rmessage {
        /// The request failed with this error number of Linux.
        Rlerror = 7 { errno: u32 }
        /// Answers `Tstatfs`.
        Rstatfs = 9 { stat: StatFs }
        /// Answers `Tlopen`.
        Rlopen = 13 { qid: Qid, iounit: u32 }
        /// Answers `Tlcreate`.
        Rlcreate = 15 { qid: Qid, iounit: u32 }
        /// Answers `Tsymlink`.
        Rsymlink = 17 { qid: Qid }
        /// Answers `Tmknod`.
        Rmknod = 19 { qid: Qid }
        /// Answers `Trename`.
        Rrename = 21 {}
        /// Answers `Treadlink`.
        Rreadlink = 23 { target: Str<'a> }
        /// Answers `Tgetattr`.
        Rgetattr = 25 { attr: Attr }
        /// Answers `Tsetattr`.
        Rsetattr = 27 {}
        /// Answers `Txattrwalk`.
        Rxattrwalk = 31 { size: u64 }
        /// Answers `Txattrcreate`.
        Rxattrcreate = 33 {}
        /// Answers `Treaddir`; see [`Dirents`](super::Dirents).
        Rreaddir = 41 { data: Data<'a> }
        /// Answers `Tfsync`.
        Rfsync = 51 {}
        /// Answers `Tlock`.
        Rlock = 53 { status: u8 }
        /// Answers `Tgetlock`.
        Rgetlock = 55 { kind: u8, start: u64, length: u64, proc_id: u32, client: Str<'a> }
        /// Answers `Tlink`.
        Rlink = 71 {}
        /// Answers `Tmkdir`.
        Rmkdir = 73 { qid: Qid }
        /// Answers `Trenameat`.
        Rrenameat = 75 {}
        /// Answers `Tunlinkat`.
        Runlinkat = 77 {}
        /// Answers `Tversion`.
        Rversion = 101 { msize: u32, version: Str<'a> }
        /// Answers `Tauth`.
        Rauth = 103 { aqid: Qid }
        /// Answers `Tattach`.
        Rattach = 105 { qid: Qid }
        /// Answers `Tflush`.
        Rflush = 109 {}
        /// Answers `Twalk`: a qid for each step that was made.
        Rwalk = 111 { qids: Vec<Qid> }
        /// Answers `Tread`.
        Rread = 117 { data: Data<'a> }
        /// Answers `Twrite`.
        Rwrite = 119 { count: u32 }
        /// Answers `Tclunk`.
        Rclunk = 121 {}
        /// Answers `Tremove`.
        Rremove = 123 {}

        /// Answers `Twalkattr`: the attributes of each file that got its fid, why the walk ended early (0: it did not, or
        /// at a symbolic link), whether a descriptor comes with the reply, and why none does (0: there was nothing to open).
        Rwalkattr = 201 { attrs: Vec<Attr>, errno: u32, donated: u8, open_errno: u32 }
        /// Answers `Tmake`.
        Rmake = 203 { made: Made }
        /// Answers `Tclunkmany`.
        Rclunkmany = 205 {}
        /// Answers `Treaddirattr`; see [`AttrDirents`](super::AttrDirents).
        Rreaddirattr = 207 { data: Data<'a> }
        /// Answers `Tsetattrget`.
        Rsetattrget = 209 { attr: Attr }
        /// Answers `Trenameat2`.
        Rrenameat2 = 211 {}
        /// Answers `Tgetxattr`.
        Rgetxattr = 213 { value: Data<'a> }
        /// Answers `Tsetxattr`.
        Rsetxattr = 215 {}
        /// Answers `Tremovexattr`.
        Rremovexattr = 217 {}
        /// Answers `Tlist`: entries as `Rreaddir` has them, and 1 where there are more.
        Rlist = 219 { more: u8, data: Data<'a> }
        /// Answers `Tnear`.
        Rnear = 221 {}
    }
}
