//! How a process ended, as wait4(2) encodes it.
use abi::Signal;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By exit(2) with this code, of which the low byte counts.
    Exited(i32),
    /// By a signal.
    Signaled {
        /// The signal.
        signal: Signal,
        /// Whether a core file was left.
        core: bool,
    },
}

impl ExitStatus {
    /// The number that wait4(2) stores.
    #[must_use]
    pub const fn raw(self) -> i32 {
        match self {
            Self::Exited(code) => (code & 0xff) << 8,
            Self::Signaled { signal, core } => signal.number() | if core { 0x80 } else { 0 },
        }
    }

    /// What a shell or a runtime makes of it: the code, or 128 and the signal.
    #[must_use]
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Exited(code) => code & 0xff,
            Self::Signaled { signal, .. } => 128 + signal.number(),
        }
    }
}

/// The number that wait4(2) stores for a child that stopped.
#[must_use]
pub const fn stopped_status(signal: Signal) -> i32 {
    signal.number() << 8 | 0x7f
}

/// The number that wait4(2) stores for a child that went on.
pub const CONTINUED_STATUS: i32 = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_those_of_wait4() {
        assert_eq!(ExitStatus::Exited(42).raw(), 0x2a00);
        assert_eq!(ExitStatus::Exited(-1).shell_code(), 255);
        let killed = ExitStatus::Signaled { signal: Signal::SIGSEGV, core: true };
        assert_eq!((killed.raw(), killed.shell_code()), (0x8b, 139));
        assert_eq!(stopped_status(Signal::SIGSTOP), 0x137f);
    }
}
