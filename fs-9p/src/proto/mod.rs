//! The messages of 9P2000.L, encoded to and decoded from bytes. No I/O, no panics on hostile bytes.
//!
//! Every integer is little-endian. A message is `size[4] type[1] tag[2] fields…`, where size counts itself.
//! Sources: <https://9p.io/sys/man/5/INDEX.html>, <https://github.com/chaos/diod/blob/master/protocol.md>,
//! Linux `include/net/9p/9p.h`.
//!
//! Decoded messages borrow from the bytes they were decoded from:
//!
//! ```
//! use fs_9p::proto::{Str, Tmessage};
//! let mut bytes = Vec::new();
//! Tmessage::Tversion { msize: 8192, version: Str(b"9P2000.L") }.encode(0xffff, &mut bytes)?;
//! let (tag, message) = Tmessage::decode(&bytes)?;
//! assert_eq!(tag, 0xffff);
//! assert!(matches!(message, Tmessage::Tversion { msize: 8192, .. }));
//! # Ok::<(), fs_9p::proto::CodecError>(())
//! ```

mod attr;
mod dirent;
mod extension;
mod message;
mod wire;

#[cfg(test)]
mod tests;

pub use attr::{Attr, GetAttrMask, Qid, SetAttr, SetAttrMask, StatFs, Time, mode, open};
pub use dirent::{AttrDirents, Dirent, DirentAttr, Dirents, Entries, put_entry};
pub use extension::{Made, Make, Step};
pub use message::{Rmessage, Tmessage};
pub use wire::{CodecError, Data, Reader, Str, Wire, Writer, frame_len};

/// The version string of plain 9P2000.L.
pub const VERSION: &[u8] = b"9P2000.L";
/// The version string of 9P2000.L with the messages of [`extension`](Tmessage::Twalkattr).
///
/// A server that does not know it answers with [`VERSION`], as version(5) says for a string with a longer suffix.
pub const VERSION_EXTENDED: &[u8] = b"9P2000.L.sentrybox";
/// The tag of `Tversion`.
pub const NOTAG: u16 = 0xffff;
/// The fid that stands for none.
pub const NOFID: u32 = 0xffff_ffff;
/// The uid that stands for none.
pub const NONUNAME: u32 = 0xffff_ffff;
/// Bytes before a message's fields.
pub const HEADER: usize = 7;
/// Bytes of `Twrite` before its data, and more than those of `Rread`.
pub const IO_HEADER: u32 = 24;
/// How many names one `Twalk` may hold (walk(5)).
pub const MAXWELEM: usize = 16;
/// The longest file name that Linux knows.
pub const NAME_MAX: usize = 255;
