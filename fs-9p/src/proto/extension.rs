//! What the messages of `9P2000.L.sentrybox` hold.

use super::attr::{Attr, record};
use super::wire::{CodecError, Reader, Str, Wire, Writer};

record! {
    /// One step of `Twalkattr`: a name, and the fid that the file gets.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Step<'a> {
        /// The new fid.
        newfid: u32,
        /// A name in the directory that the step before led to.
        name: Str<'a>,
    }
}

record! {
    /// What `Tmake` makes: any type of file, with its owner.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Make<'a> {
        /// `st_mode`: the type decides which of the other fields are looked at. The umask has been applied.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Device number of a device node.
        rdev: u64,
        /// Target of a symbolic link.
        target: Str<'a>,
        /// For a regular file: flags to open it with and donate the descriptor, or [`Make::UNOPENED`].
        open: u32,
    }
}

impl Make<'_> {
    /// The file is not to be opened; also for `Twalkattr`.
    pub const UNOPENED: u32 = u32::MAX;
}

record! {
    /// What `Rmake` tells.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Made {
        /// The new file's attributes.
        attr: Attr,
        /// 1 when a descriptor comes with the reply.
        donated: u8,
    }
}
