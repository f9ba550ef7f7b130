//! Fields: integers, strings, counted data and lists.

use core::fmt;
use core::ops::Deref;

/// The same type with and without the standard library's prelude.
pub(super) type Vec<T> = alloc::vec::Vec<T>;

/// Why bytes are not a message, or a message does not fit in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end within a field.
    Short,
    /// Bytes are left after the last field, or the size field does not count the bytes.
    Size,
    /// No message of this direction has this type.
    Type(u8),
    /// A field holds a value that the protocol does not allow.
    Value,
    /// A string, list or message is longer than its count field can say.
    TooLong,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the message ends within a field"),
            Self::Size => f.write_str("the message's size is wrong"),
            Self::Type(kind) => write!(f, "unknown message type {kind}"),
            Self::Value => f.write_str("a field's value is not allowed"),
            Self::TooLong => f.write_str("a field is too long to be encoded"),
        }
    }
}

impl core::error::Error for CodecError {}

/// Takes fields off the front of bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
    /// What is left.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`CodecError::Short`].
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(CodecError::Short)?;
        self.rest = tail;
        Ok(head)
    }
    /// The next field.
    ///
    /// # Errors
    /// Those of the field's type.
    pub fn get<T: Wire<'a>>(&mut self) -> Result<T, CodecError> {
        T::get(self)
    }
}

/// Appends fields to a buffer. An overlong field is remembered and reported by [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    too_long: bool,
}

impl<'o> Writer<'o> {
    /// Appends to `out`.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start, too_long: false }
    }
    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }
    /// Appends a field.
    pub fn put<'a, T: Wire<'a>>(&mut self, value: &T) {
        value.put(self);
    }
    /// Appends a count, narrowed to its field.
    fn count<'a, T: Wire<'a> + TryFrom<usize> + Default>(&mut self, count: usize) {
        let narrow = T::try_from(count).unwrap_or_else(|_| {
            self.too_long = true;
            T::default()
        });
        narrow.put(self);
    }
    /// Writes the message's size over its first four bytes.
    ///
    /// # Errors
    /// [`CodecError::TooLong`]; the buffer is then as it was before.
    pub fn finish(self) -> Result<(), CodecError> {
        let size = u32::try_from(self.out.len() - self.start).ok().filter(|_| !self.too_long);
        match (size, self.out.get_mut(self.start..self.start + 4)) {
            (Some(size), Some(field)) => field.copy_from_slice(&size.to_le_bytes()),
            _ => {
                self.out.truncate(self.start);
                return Err(CodecError::TooLong);
            }
        }
        Ok(())
    }
}

/// The size that the message at the front of `bytes` says it has, once its first four bytes are here.
#[must_use]
pub fn frame_len(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.first_chunk()?))
}

/// A field.
pub trait Wire<'a>: Sized {
    /// Takes the field off the front of `r`.
    ///
    /// # Errors
    /// [`CodecError::Short`], [`CodecError::Value`].
    fn get(r: &mut Reader<'a>) -> Result<Self, CodecError>;
    /// Appends the field.
    fn put(&self, w: &mut Writer<'_>);
}

macro_rules! integers {
    ($($int:ty)*) => {$(
        impl<'a> Wire<'a> for $int {
            fn get(r: &mut Reader<'a>) -> Result<Self, CodecError> {
                let (head, tail) = r.rest.split_first_chunk().ok_or(CodecError::Short)?;
                r.rest = tail;
                Ok(Self::from_le_bytes(*head))
            }
            fn put(&self, w: &mut Writer<'_>) {
                w.bytes(&self.to_le_bytes());
            }
        }
    )*};
}
integers!(u8 u16 u32 u64);

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident, $count:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
        pub struct $name<'a>(pub &'a [u8]);

        impl Deref for $name<'_> {
            type Target = [u8];
            fn deref(&self) -> &[u8] {
                self.0
            }
        }
        impl<'a> Wire<'a> for $name<'a> {
            fn get(r: &mut Reader<'a>) -> Result<Self, CodecError> {
                let len: $count = r.get()?;
                r.bytes(usize::try_from(len).map_err(|_err| CodecError::Short)?).map(Self)
            }
            fn put(&self, w: &mut Writer<'_>) {
                w.count::<$count>(self.0.len());
                w.bytes(self.0);
            }
        }
    };
}
counted!(
    /// A string: bytes, in Linux's sense of a file name, after a two-byte count.
    Str, u16
);
counted!(
    /// Bytes after a four-byte count.
    Data, u32
);

impl fmt::Debug for Str<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

/// A list after a two-byte count.
impl<'a, T: Wire<'a>> Wire<'a> for Vec<T> {
    fn get(r: &mut Reader<'a>) -> Result<Self, CodecError> {
        let count: u16 = r.get()?;
        // Grown element by element: a count alone, of a peer that sends no elements, allocates nothing.
        let mut list = Self::new();
        for _ in 0..count {
            list.push(r.get()?);
        }
        Ok(list)
    }
    fn put(&self, w: &mut Writer<'_>) {
        w.count::<u16>(self.len());
        for element in self {
            w.put(element);
        }
    }
}
