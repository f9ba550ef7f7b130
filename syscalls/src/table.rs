//! The mechanism of the system call table: a typed handler becomes an entry.
use std::fmt;

use abi::Errno;

use crate::Cx;
use crate::decode::{Arg, FromArg};
use crate::strace::Kind;

/// How much of a call works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As in Linux.
    Full,
    /// As in Linux but for what is named.
    Partial(&'static str),
    /// Not at all: it fails with this error.
    Absent(Errno),
}

/// What an entry runs.
pub type Call = fn(&mut Cx<'_>, [Arg; 6]) -> Result<usize, Errno>;

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The number.
    pub nr: u64,
    /// Linux's name.
    pub name: &'static str,
    /// How much works.
    pub support: Support,
    /// How its arguments are shown.
    pub args: &'static [Kind],
    /// The handler with its decoding.
    pub call: Call,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.nr, self.name, self.support)
    }
}

/// Anything that can be called as a system call: `fn(&mut Cx, A, B, ..) -> Result<usize, Errno>`.
pub trait Handler<Args> {
    /// Decodes the arguments and calls.
    ///
    /// # Errors
    /// The handler's, and those of decoding.
    fn call(self, cx: &mut Cx<'_>, args: [Arg; 6]) -> Result<usize, Errno>;
}

macro_rules! handler {
    ($($t:ident $at:literal),*) => {
        impl<Fun, $($t: FromArg),*> Handler<($($t,)*)> for Fun
        where
            Fun: FnOnce(&mut Cx<'_>, $($t),*) -> Result<usize, Errno>,
        {
            fn call(self, cx: &mut Cx<'_>, args: [Arg; 6]) -> Result<usize, Errno> {
                let _ = args;
                self(cx, $($t::from_arg(args[$at])?),*)
            }
        }
    };
}
handler!();
handler!(A 0);
handler!(A 0, B 1);
handler!(A 0, B 1, C 2);
handler!(A 0, B 1, C 2, D 3);
handler!(A 0, B 1, C 2, D 3, E 4);
handler!(A 0, B 1, C 2, D 3, E 4, F 5);

/// Makes the table. A line is `number name Full => handler (argument kinds);`, with `Partial("what is missing")` in the
/// place of `Full`, or `number name Absent(error);`.
#[macro_export]
macro_rules! syscall_table {
    ($($nr:literal $name:ident $support:ident $(($detail:expr))? $(=> $handler:path)? $(, ($($kind:expr),*))? ;)*) => {
        /// Every system call of x86-64, ascending.
        pub static TABLE: &[$crate::table::Entry] = &[$(
            $crate::table::Entry {
                nr: $nr,
                name: stringify!($name),
                support: $support $(($detail))?,
                args: &[$($($kind),*)?],
                call: $crate::syscall_entry!($($handler)? ; $($detail)?),
            }
        ),*];
    };
}

/// What a line of [`syscall_table`] calls.
#[macro_export]
macro_rules! syscall_entry {
    ($handler:path ; $($detail:expr)?) => {
        |cx, args| $crate::table::Handler::call($handler, cx, args)
    };
    (; $errno:expr) => {
        |cx, _| Err(cx.absent($errno))
    };
}
