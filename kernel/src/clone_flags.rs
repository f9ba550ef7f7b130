//! Flags of clone(2), unshare(2) and setns(2).

/// The flags of clone3(2); the low byte, clone(2)'s exit signal, is not part of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneFlags(pub u64);

#[expect(missing_docs, reason = "the names are those of clone(2)")]
impl CloneFlags {
    pub const NEWTIME: Self = Self(0x80);
    pub const VM: Self = Self(0x100);
    pub const FS: Self = Self(0x200);
    pub const FILES: Self = Self(0x400);
    pub const SIGHAND: Self = Self(0x800);
    pub const PIDFD: Self = Self(0x1000);
    pub const PTRACE: Self = Self(0x2000);
    pub const VFORK: Self = Self(0x4000);
    pub const PARENT: Self = Self(0x8000);
    pub const THREAD: Self = Self(0x1_0000);
    pub const NEWNS: Self = Self(0x2_0000);
    pub const SYSVSEM: Self = Self(0x4_0000);
    pub const SETTLS: Self = Self(0x8_0000);
    pub const PARENT_SETTID: Self = Self(0x10_0000);
    pub const CHILD_CLEARTID: Self = Self(0x20_0000);
    pub const DETACHED: Self = Self(0x40_0000);
    pub const UNTRACED: Self = Self(0x80_0000);
    pub const CHILD_SETTID: Self = Self(0x100_0000);
    pub const NEWCGROUP: Self = Self(0x200_0000);
    pub const NEWUTS: Self = Self(0x400_0000);
    pub const NEWIPC: Self = Self(0x800_0000);
    pub const NEWUSER: Self = Self(0x1000_0000);
    pub const NEWPID: Self = Self(0x2000_0000);
    pub const NEWNET: Self = Self(0x4000_0000);
    pub const IO: Self = Self(0x8000_0000);
    pub const CLEAR_SIGHAND: Self = Self(0x1_0000_0000);
    pub const INTO_CGROUP: Self = Self(0x2_0000_0000);
    /// Every flag that asks for a namespace of one's own.
    pub const NAMESPACES: Self = Self(
        Self::NEWTIME.0
            | Self::NEWNS.0
            | Self::NEWCGROUP.0
            | Self::NEWUTS.0
            | Self::NEWIPC.0
            | Self::NEWUSER.0
            | Self::NEWPID.0
            | Self::NEWNET.0,
    );
    /// Every flag that clone3(2) knows.
    pub const ALL: Self = Self(0x3_ffff_ff80);

    /// Tells whether all of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// Tells whether any of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    /// What is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// What is here and not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::ops::BitOr for CloneFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}
