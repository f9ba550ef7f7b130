//! Terminal attributes, Linux `include/uapi/asm-generic/termbits.h`, termios(3).
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many control characters the kernel's `struct termios` has.
pub const NCCS: usize = 19;

/// `struct ktermios` without the speeds, what `TCGETS` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Termios {
    /// Input modes.
    pub iflag: u32,
    /// Output modes.
    pub oflag: u32,
    /// Control modes.
    pub cflag: u32,
    /// Local modes.
    pub lflag: u32,
    /// Line discipline.
    pub line: u8,
    /// Control characters.
    pub cc: [u8; NCCS],
}

/// `struct termios2`, what `TCGETS2` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Termios2 {
    /// As in [`Termios`].
    pub termios: Termios,
    /// Input speed.
    pub ispeed: u32,
    /// Output speed.
    pub ospeed: u32,
}

/// How many control characters [`Termio`] has.
pub const NCC: usize = 8;

/// `struct termio` of System V, what `TCGETA` gives: the lower halves of the modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Termio {
    /// Input modes.
    pub iflag: u16,
    /// Output modes.
    pub oflag: u16,
    /// Control modes.
    pub cflag: u16,
    /// Local modes.
    pub lflag: u16,
    /// Line discipline.
    pub line: u8,
    /// Control characters.
    pub cc: [u8; NCC],
    /// Padding.
    pub pad: u8,
}

/// The lower half of a mode.
const fn low(mode: u32) -> u16 {
    let [a, b, _, _] = mode.to_le_bytes();
    u16::from_le_bytes([a, b])
}

impl From<&Termios> for Termio {
    fn from(t: &Termios) -> Self {
        let mut cc = [0; NCC];
        cc.iter_mut().zip(t.cc).for_each(|(to, from)| *to = from);
        Self {
            iflag: low(t.iflag),
            oflag: low(t.oflag),
            cflag: low(t.cflag),
            lflag: low(t.lflag),
            line: t.line,
            cc,
            pad: 0,
        }
    }
}

impl Termio {
    /// Attributes with these in place of what they cover, Linux `user_termio_to_kernel_termios`.
    #[must_use]
    pub fn applied_to(&self, mut t: Termios) -> Termios {
        let join = |old: u32, new: u16| old & 0xffff_0000 | u32::from(new);
        t.iflag = join(t.iflag, self.iflag);
        t.oflag = join(t.oflag, self.oflag);
        t.cflag = join(t.cflag, self.cflag);
        t.lflag = join(t.lflag, self.lflag);
        t.line = self.line;
        t.cc.iter_mut().zip(self.cc).for_each(|(to, from)| *to = from);
        t
    }
}

impl Termios {
    /// No mode, no character.
    pub const NONE: Self = Self { iflag: 0, oflag: 0, cflag: 0, lflag: 0, line: 0, cc: [0; NCCS] };

    /// These attributes, with what `lock` marks as it is in `old`, Linux `unset_locked_termios`.
    #[must_use]
    pub fn with_locked(mut self, old: &Self, lock: &Self) -> Self {
        let keep = |new: u32, old: u32, lock: u32| new & !lock | old & lock;
        self.iflag = keep(self.iflag, old.iflag, lock.iflag);
        self.oflag = keep(self.oflag, old.oflag, lock.oflag);
        self.cflag = keep(self.cflag, old.cflag, lock.cflag);
        self.lflag = keep(self.lflag, old.lflag, lock.lflag);
        if lock.line != 0 {
            self.line = old.line;
        }
        for ((to, old), _) in self.cc.iter_mut().zip(old.cc).zip(lock.cc).filter(|(_, lock)| *lock != 0) {
            *to = old;
        }
        self
    }
}

/// `struct winsize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of ioctl_tty(2)")]
pub struct Winsize {
    pub row: u16,
    pub col: u16,
    pub xpixel: u16,
    pub ypixel: u16,
}

macro_rules! bits {
    ($($name:ident $value:literal)*) => {
        $(#[expect(missing_docs, reason = "the names are those of termios(3)")] pub const $name: u32 = $value;)*
    };
}
bits! {
    IGNBRK 0x1 BRKINT 0x2 IGNPAR 0x4 PARMRK 0x8 INPCK 0x10 ISTRIP 0x20 INLCR 0x40 IGNCR 0x80 ICRNL 0x100 IUCLC 0x200
    IXON 0x400 IXANY 0x800 IXOFF 0x1000 IMAXBEL 0x2000 IUTF8 0x4000
    OPOST 0x1 OLCUC 0x2 ONLCR 0x4 OCRNL 0x8 ONOCR 0x10 ONLRET 0x20 TABDLY 0x1800 XTABS 0x1800
    ISIG 0x1 ICANON 0x2 ECHO 0x8 ECHOE 0x10 ECHOK 0x20 ECHONL 0x40 NOFLSH 0x80 TOSTOP 0x100 ECHOCTL 0x200 ECHOPRT 0x400
    ECHOKE 0x800 FLUSHO 0x1000 PENDIN 0x4000 IEXTEN 0x8000 EXTPROC 0x10000
    CS8 0x30 CREAD 0x80 HUPCL 0x400 B38400 0xf CBAUD 0x100f
}

macro_rules! characters {
    ($($name:ident $value:literal)*) => {
        $(#[expect(missing_docs, reason = "the names are those of termios(3)")] pub const $name: usize = $value;)*
    };
}
characters! {
    VINTR 0 VQUIT 1 VERASE 2 VKILL 3 VEOF 4 VTIME 5 VMIN 6 VSWTC 7 VSTART 8 VSTOP 9 VSUSP 10 VEOL 11 VREPRINT 12
    VDISCARD 13 VWERASE 14 VLNEXT 15 VEOL2 16
}

impl Default for Termios {
    /// What a new terminal has, Linux `tty_std_termios`.
    fn default() -> Self {
        let mut cc = [0; NCCS];
        let set = [
            (VINTR, 3),
            (VQUIT, 28),
            (VERASE, 127),
            (VKILL, 21),
            (VEOF, 4),
            (VMIN, 1),
            (VSTART, 17),
            (VSTOP, 19),
            (VSUSP, 26),
            (VREPRINT, 18),
            (VDISCARD, 15),
            (VWERASE, 23),
            (VLNEXT, 22),
        ];
        for (at, character) in set {
            if let Some(c) = cc.get_mut(at) {
                *c = character;
            }
        }
        Self {
            iflag: ICRNL | IXON,
            oflag: OPOST | ONLCR,
            cflag: B38400 | CS8 | CREAD | HUPCL,
            lflag: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
            line: 0,
            cc,
        }
    }
}

const _: () = {
    assert!(size_of::<Termios>() == 36);
    assert!(size_of::<Termios2>() == 44);
    assert!(size_of::<Termio>() == 18);
    assert!(size_of::<Winsize>() == 8);
};
