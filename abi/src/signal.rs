//! Signal numbers and sets, `signal(7)`.
use core::fmt;

/// A signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(u8);

macro_rules! signals {
    ($($name:ident $value:literal)*) => {
        #[expect(missing_docs, reason = "the names are those of signal(7)")]
        impl Signal { $(pub const $name: Self = Self($value);)* }
        const NAMES: &[(u8, &str)] = &[$(($value, stringify!($name))),*];
    };
}

signals! {
    SIGHUP 1 SIGINT 2 SIGQUIT 3 SIGILL 4 SIGTRAP 5 SIGABRT 6 SIGBUS 7 SIGFPE 8 SIGKILL 9 SIGUSR1 10 SIGSEGV 11
    SIGUSR2 12 SIGPIPE 13 SIGALRM 14 SIGTERM 15 SIGSTKFLT 16 SIGCHLD 17 SIGCONT 18 SIGSTOP 19 SIGTSTP 20 SIGTTIN 21
    SIGTTOU 22 SIGURG 23 SIGXCPU 24 SIGXFSZ 25 SIGVTALRM 26 SIGPROF 27 SIGWINCH 28 SIGIO 29 SIGPWR 30 SIGSYS 31
}

impl Signal {
    /// The first real-time signal, as the kernel counts.
    pub const SIGRTMIN: Self = Self(32);
    /// The last signal.
    pub const SIGRTMAX: Self = Self(64);

    /// The signal with this number, 1 to 64.
    #[must_use]
    pub fn new(number: i32) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| (1..=64).contains(n)).map(Self)
    }

    /// The number, 1 to 64.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0 as i32
    }

    /// The bit that stands for this signal in a set.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << (self.0 - 1)
    }

    /// Tells the real-time signals, which queue.
    #[must_use]
    pub const fn is_realtime(self) -> bool {
        self.0 >= 32
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(n, _)| *n == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "SIGRT_{}", self.0 - 32),
        }
    }
}

/// A set of signals, `sigset_t` as the kernel lays it out: bit n-1 is signal n.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(transparent)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal.
    pub const FULL: Self = Self(!0);
    /// The two signals that can be neither caught, blocked nor ignored.
    pub const UNBLOCKABLE: Self = Self(Signal::SIGKILL.bit() | Signal::SIGSTOP.bit());

    /// The set of one signal.
    #[must_use]
    pub const fn of(signal: Signal) -> Self {
        Self(signal.bit())
    }
    /// Tells whether the signal is in the set.
    #[must_use]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & signal.bit() != 0
    }
    /// Adds one signal.
    pub const fn insert(&mut self, signal: Signal) {
        self.0 |= signal.bit();
    }
    /// Takes one signal out.
    pub const fn remove(&mut self, signal: Signal) {
        self.0 &= !signal.bit();
    }
    /// Tells whether no signal is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// What is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// What is here and not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// The signal with the lowest number, which is delivered first.
    #[must_use]
    pub fn first(self) -> Option<Signal> {
        if self.0 == 0 { None } else { Signal::new(self.0.trailing_zeros().cast_signed() + 1) }
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = (1..=64).filter_map(Signal::new).filter(|s| self.contains(*s));
        f.debug_set().entries(members).finish()
    }
}
