//! Entries of directories, as `Rreaddir` and `Rreaddirattr` hold them.

use super::attr::{Attr, Qid, record};
use super::wire::{CodecError, Data, Reader, Str, Vec, Wire, Writer};
use core::iter::FusedIterator;
use core::marker::PhantomData;

record! {
    /// An entry of a directory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Dirent<'a> {
        /// The file.
        qid: Qid,
        /// What to give `Treaddir` to go on after this entry.
        offset: u64,
        /// `DT_REG` and its kin.
        kind: u8,
        /// Its name.
        name: Str<'a>,
    }
}

record! {
    /// An entry of a directory with the file's attributes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DirentAttr<'a> {
        /// The entry.
        entry: Dirent<'a>,
        /// The file's attributes; `valid` is 0 when the server could not tell them.
        attr: Attr,
    }
}

/// Goes through the entries in the data of a reply.
#[derive(Clone, Debug)]
pub struct Entries<'a, T> {
    rest: Reader<'a>,
    entry: PhantomData<T>,
}

/// The entries in `Rreaddir`.
pub type Dirents<'a> = Entries<'a, Dirent<'a>>;
/// The entries in `Rreaddirattr`.
pub type AttrDirents<'a> = Entries<'a, DirentAttr<'a>>;

impl<'a, T> Entries<'a, T> {
    /// Goes through these entries.
    #[must_use]
    pub const fn new(data: Data<'a>) -> Self {
        Self { rest: Reader::new(data.0), entry: PhantomData }
    }
}

impl<'a, T: Wire<'a>> Iterator for Entries<'a, T> {
    type Item = Result<T, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.rest().is_empty() {
            return None;
        }
        let entry = self.rest.get();
        if entry.is_err() {
            self.rest = Reader::new(&[]);
        }
        Some(entry)
    }
}
impl<'a, T: Wire<'a>> FusedIterator for Entries<'a, T> {}

impl Dirent<'_> {
    /// How many bytes an entry of this name takes.
    #[must_use]
    pub const fn wire_len(name_len: usize) -> usize {
        13 + 8 + 1 + 2 + name_len
    }
}

impl DirentAttr<'_> {
    /// How many bytes an entry of this name takes.
    #[must_use]
    pub const fn wire_len(name_len: usize) -> usize {
        Dirent::wire_len(name_len) + Attr::WIRE_LEN
    }
}

impl Attr {
    /// How many bytes it takes.
    pub const WIRE_LEN: usize = 8 + 13 + 3 * 4 + 15 * 8;
}

/// Appends one entry to the data of a reply.
pub fn put_entry<'a, T: Wire<'a>>(out: &mut Vec<u8>, entry: &T) {
    Writer::new(out).put(entry);
}
