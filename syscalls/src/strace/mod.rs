//! Showing system calls: decoded arguments, result and time.
mod flags;
mod format;
pub mod names;
mod structs;

use std::collections::BTreeSet;
use std::fmt;

use abi::Errno;

use crate::Cx;
use crate::decode::Arg;
use crate::entries::TABLE;
use crate::table::Entry;

pub use flags::Names;
pub(crate) use format::inputs;

/// How an argument is shown.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A signed 32-bit number.
    Int,
    /// A signed 64-bit number.
    Long,
    /// An unsigned number.
    Size,
    /// An address or other bits.
    Hex,
    /// A file mode.
    Mode,
    /// A descriptor.
    Fd,
    /// A zero-terminated path.
    Path,
    /// A buffer that is read; the next argument is its length.
    Input,
    /// A buffer that is written; the result is its length.
    Output,
    /// A vector of strings.
    Strings,
    /// A signal number.
    Sig,
    /// A signal set.
    Set,
    /// A `struct timespec`.
    Time,
    /// Flags of open(2).
    OpenFlags,
    /// A `struct sigaction`.
    SigAction,
    /// A `struct rlimit`.
    Rlimit,
    /// A `sockaddr`; the next argument is its length.
    SockAddr,
    /// Buffers that are read; the next argument is how many.
    Iovecs,
    /// Buffers that are written; the next argument is how many, the result is the length.
    OutIovecs,
    /// A vector of `struct pollfd`; the next argument is how many.
    PollFds,
    /// A `struct stat` that is written.
    OutStat,
    /// A `struct sigaction` that is written.
    OutSigAction,
    /// A signal set that is written.
    OutSet,
    /// A `struct rlimit` that is written.
    OutRlimit,
    /// A `struct timespec` that is written.
    OutTime,
    /// How a child ended, if the result is one.
    OutStatus,
    /// Two descriptors that are written.
    OutFds,
    /// Named bits.
    Flags(Names),
    /// One of several names.
    OneOf(Names),
}

/// Takes a finished line, without a newline.
pub type Sink = Box<dyn Fn(&str) + Send + Sync>;

/// What to show, and where.
pub struct StraceOptions {
    /// The names of calls to show; empty shows all.
    pub only: Vec<String>,
    /// How many bytes of a buffer are shown.
    pub max_bytes: usize,
    /// Where lines go.
    pub sink: Sink,
}

impl fmt::Debug for StraceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StraceOptions").field("only", &self.only).finish_non_exhaustive()
    }
}

impl StraceOptions {
    /// The first of these names that is no system call's, for a message to the user.
    #[must_use]
    pub fn unknown(names: &[String]) -> Option<&str> {
        names.iter().map(String::as_str).find(|name| TABLE.iter().all(|e| e.name != *name))
    }
}

/// Shows calls.
pub(crate) struct Strace {
    only: BTreeSet<u64>,
    max_bytes: usize,
    sink: Sink,
}

impl fmt::Debug for Strace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strace").field("only", &self.only).finish_non_exhaustive()
    }
}

impl Strace {
    pub(crate) fn new(options: StraceOptions) -> Self {
        let only = TABLE.iter().filter(|e| options.only.iter().any(|n| n == e.name)).map(|e| e.nr).collect();
        Self { only, max_bytes: options.max_bytes, sink: options.sink }
    }

    /// Tells whether a call is shown.
    pub(crate) fn wants(&self, nr: u64) -> bool {
        self.only.is_empty() || self.only.contains(&nr)
    }

    /// Makes the call and shows it. Calls that do not come back are shown before.
    pub(crate) fn around(&self, cx: &mut Cx<'_>, entry: &Entry, args: [u64; 6]) -> Result<usize, Errno> {
        let tid = cx.tid();
        let before = inputs(cx, entry.args, args, self.max_bytes);
        if matches!(entry.name, "exit" | "exit_group" | "rt_sigreturn") {
            (self.sink)(&format!("[{tid:4}] {}({}) = ?", entry.name, before.join(", ")));
            return (entry.call)(cx, args.map(Arg));
        }
        let start = cx.now_ns();
        let result = (entry.call)(cx, args.map(Arg));
        let took = cx.now_ns().saturating_sub(start) / 1000;
        let shown = format::outputs(cx, entry.args, args, before, &result, self.max_bytes);
        let outcome = format::result(&result);
        (self.sink)(&format!("[{tid:4}] {}({}) = {outcome} ({took}us)", entry.name, shown.join(", ")));
        result
    }
}
