//! Arguments of system calls, decoded in the widths and signedness that Linux gives them.
use std::fmt;
use std::marker::PhantomData;

use abi::{Errno, SigSet, Signal};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Cx;

/// One argument register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg(pub u64);

impl Arg {
    /// The low half, which is all that Linux looks at for `int` and `unsigned int`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the upper half is not part of a 32-bit argument")]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }
}

/// Decodes one argument register.
pub trait FromArg: Sized {
    /// The argument.
    ///
    /// # Errors
    /// `EINVAL` for what no value of the type stands for.
    fn from_arg(arg: Arg) -> Result<Self, Errno>;
}

impl FromArg for i32 {
    fn from_arg(arg: Arg) -> Result<Self, Errno> {
        Ok(arg.low().cast_signed())
    }
}
impl FromArg for u32 {
    fn from_arg(arg: Arg) -> Result<Self, Errno> {
        Ok(arg.low())
    }
}
impl FromArg for u16 {
    /// `umode_t`: the upper bits are cut off.
    fn from_arg(arg: Arg) -> Result<Self, Errno> {
        let [low, high, ..] = arg.0.to_le_bytes();
        Ok(Self::from_le_bytes([low, high]))
    }
}
impl FromArg for i64 {
    fn from_arg(arg: Arg) -> Result<Self, Errno> {
        Ok(arg.0.cast_signed())
    }
}
impl FromArg for u64 {
    fn from_arg(arg: Arg) -> Result<Self, Errno> {
        Ok(arg.0)
    }
}
impl FromArg for usize {
    fn from_arg(arg: Arg) -> Result<Self, Errno> {
        // usize has 64 bits wherever the sentry runs.
        Ok(Self::from_le_bytes(arg.0.to_le_bytes()))
    }
}

/// A file descriptor; whether it is open shows when it is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fd(pub i32);

impl Fd {
    /// `AT_FDCWD`.
    pub const CWD: Self = Self(-100);
}
impl FromArg for Fd {
    fn from_arg(arg: Arg) -> Result<Self, Errno> {
        Ok(Self(arg.low().cast_signed()))
    }
}
impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::CWD { f.write_str("AT_FDCWD") } else { self.0.fmt(f) }
    }
}

/// A signal number of a call that refuses all others with `EINVAL`.
impl FromArg for Signal {
    fn from_arg(arg: Arg) -> Result<Self, Errno> {
        Self::new(arg.low().cast_signed()).ok_or(Errno::EINVAL)
    }
}

/// A guest address of a `T`, or of an array of them. Nothing is checked before it is used.
pub struct UserPtr<T>(u64, PhantomData<fn() -> T>);

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for UserPtr<T> {}

impl<T> fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl<T> FromArg for UserPtr<T> {
    fn from_arg(arg: Arg) -> Result<Self, Errno> {
        Ok(Self::new(arg.0))
    }
}

impl<T> UserPtr<T> {
    /// The pointer to this address.
    #[must_use]
    pub const fn new(addr: u64) -> Self {
        Self(addr, PhantomData)
    }
    /// The address.
    #[must_use]
    pub const fn addr(self) -> u64 {
        self.0
    }
    /// Tells the null pointer.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }
    /// The same address, for another type.
    #[must_use]
    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.0)
    }
    /// The pointer, unless it is null.
    #[must_use]
    pub fn some(self) -> Option<Self> {
        (!self.is_null()).then_some(self)
    }
    /// The `index`-th element.
    ///
    /// # Errors
    /// `EFAULT` beyond the last address.
    pub fn at(self, index: usize) -> Result<Self, Errno> {
        let offset = u64::try_from(index).ok().and_then(|i| i.checked_mul(size_of::<T>() as u64));
        offset.and_then(|o| self.0.checked_add(o)).map(Self::new).ok_or(Errno::EFAULT)
    }
}

impl<T: FromBytes + IntoBytes + Immutable> UserPtr<T> {
    /// Copies the value in.
    ///
    /// # Errors
    /// `EFAULT` where it is not readable.
    pub fn read(self, cx: &Cx<'_>) -> Result<T, Errno> {
        cx.memory()?.read_obj(self.0)
    }
    /// Copies the value out.
    ///
    /// # Errors
    /// `EFAULT` where it is not writable.
    pub fn write(self, cx: &Cx<'_>, value: &T) -> Result<(), Errno> {
        cx.memory()?.write_obj(self.0, value)
    }
    /// Copies the value out, unless the pointer is null.
    ///
    /// # Errors
    /// `EFAULT` where it is not writable.
    pub fn write_if_some(self, cx: &Cx<'_>, value: &T) -> Result<(), Errno> {
        if self.is_null() { Ok(()) } else { self.write(cx, value) }
    }
    /// Copies the value in; nothing for the null pointer.
    ///
    /// # Errors
    /// `EFAULT` where it is not readable.
    pub fn read_if_some(self, cx: &Cx<'_>) -> Result<Option<T>, Errno> {
        self.some().map(|p| p.read(cx)).transpose()
    }
    /// Copies `len` values in. The caller bounds `len`.
    ///
    /// # Errors
    /// `EFAULT` where they are not all readable.
    pub fn read_vec(self, cx: &Cx<'_>, len: usize) -> Result<Vec<T>, Errno> {
        (0..len).map(|i| self.at(i)?.read(cx)).collect()
    }
}

/// Reads the signal set of a call that is told its size.
///
/// # Errors
/// `EINVAL` for another size than Linux's, `EFAULT`.
pub fn sigset(cx: &Cx<'_>, set: UserPtr<SigSet>, size: usize) -> Result<Option<SigSet>, Errno> {
    if set.is_null() {
        return Ok(None);
    }
    if size != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    set.read(cx).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ints_have_32_bits() {
        let arg = Arg(0xdead_beef_ffff_fffe);
        assert_eq!(i32::from_arg(arg), Ok(-2));
        assert_eq!(u32::from_arg(arg), Ok(0xffff_fffe));
        assert_eq!(u16::from_arg(arg), Ok(0xfffe));
        assert_eq!(Fd::from_arg(Arg(0x1_0000_0003)), Ok(Fd(3)));
        assert_eq!(Fd::from_arg(Arg(0xffff_ff9c)), Ok(Fd::CWD));
    }

    #[test]
    fn longs_have_64_bits() {
        let arg = Arg(0xffff_ffff_ffff_fffe);
        assert_eq!(i64::from_arg(arg), Ok(-2));
        assert_eq!(u64::from_arg(arg), Ok(u64::MAX - 1));
        assert_eq!(usize::from_arg(arg), Ok(usize::MAX - 1));
    }

    #[test]
    fn signals_are_checked() {
        assert_eq!(Signal::from_arg(Arg(9)), Ok(Signal::SIGKILL));
        for bad in [0, 65, 0xffff_ffff] {
            assert_eq!(Signal::from_arg(Arg(bad)), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn elements_beyond_the_last_address_fault() {
        assert_eq!(UserPtr::<u64>::new(8).at(2).map(UserPtr::addr), Ok(24));
        assert_eq!(UserPtr::<u64>::new(u64::MAX - 8).at(2).map(UserPtr::addr), Err(Errno::EFAULT));
        assert_eq!(UserPtr::<u64>::new(0).at(usize::MAX).map(UserPtr::addr), Err(Errno::EFAULT));
    }
}
