//! Capabilities, `capabilities(7)`.

/// One capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cap(u8);

macro_rules! caps {
    ($($name:ident $value:literal)*) => {
        #[expect(missing_docs, reason = "the names are those of capabilities(7)")]
        impl Cap { $(pub const $name: Self = Self($value);)* }
    };
}

caps! {
    CHOWN 0 DAC_OVERRIDE 1 DAC_READ_SEARCH 2 FOWNER 3 FSETID 4 KILL 5 SETGID 6 SETUID 7 SETPCAP 8 LINUX_IMMUTABLE 9
    NET_BIND_SERVICE 10 NET_BROADCAST 11 NET_ADMIN 12 NET_RAW 13 IPC_LOCK 14 IPC_OWNER 15 SYS_MODULE 16 SYS_RAWIO 17
    SYS_CHROOT 18 SYS_PTRACE 19 SYS_PACCT 20 SYS_ADMIN 21 SYS_BOOT 22 SYS_NICE 23 SYS_RESOURCE 24 SYS_TIME 25
    SYS_TTY_CONFIG 26 MKNOD 27 LEASE 28 AUDIT_WRITE 29 AUDIT_CONTROL 30 SETFCAP 31 MAC_OVERRIDE 32 MAC_ADMIN 33
    SYSLOG 34 WAKE_ALARM 35 BLOCK_SUSPEND 36 AUDIT_READ 37 PERFMON 38 BPF 39 CHECKPOINT_RESTORE 40
}

impl Cap {
    /// The last capability, `/proc/sys/kernel/cap_last_cap`.
    pub const LAST: Self = Self::CHECKPOINT_RESTORE;

    /// The capability with this number.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number <= 40 { Some(Self(number.to_le_bytes()[0])) } else { None }
    }
    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// A set of capabilities; bit n is capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CapSet(pub u64);

impl CapSet {
    /// No capability.
    pub const EMPTY: Self = Self(0);
    /// Every capability there is.
    pub const FULL: Self = Self((1 << 41) - 1);
    /// Those that act on files, which a change of the file system uid gives or takes (Linux `CAP_FS_SET`).
    pub const FS: Self = Self(0b1_1111 | 1 << 9 | 1 << 27 | 1 << 32);

    /// Tells whether the capability is in the set.
    #[must_use]
    pub const fn has(self, cap: Cap) -> bool {
        self.0 >> cap.0 & 1 != 0
    }
    /// The set with one more.
    #[must_use]
    pub const fn with(self, cap: Cap) -> Self {
        Self(self.0 | 1 << cap.0)
    }
    /// The set with one fewer.
    #[must_use]
    pub const fn without(self, cap: Cap) -> Self {
        Self(self.0 & !(1 << cap.0))
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
    /// Tells whether everything here is in the other.
    #[must_use]
    pub const fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
    /// Tells whether nothing is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
