//! What comes with a signal, `siginfo_t`.
use abi::Signal;
use abi::siginfo::{self, SigInfoWire};

/// A signal with its `siginfo_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigInfo {
    /// The signal.
    pub signal: Signal,
    /// `si_code`.
    pub code: i32,
    /// `si_errno`.
    pub errno: i32,
    /// What the code calls for.
    pub fields: SigFields,
}

/// The union of `siginfo_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigFields {
    /// kill(2), tkill(2).
    Kill {
        /// Sender's process.
        pid: i32,
        /// Sender's real user.
        uid: u32,
    },
    /// sigqueue(3).
    Queue {
        /// Sender's process.
        pid: i32,
        /// Sender's real user.
        uid: u32,
        /// `si_value`.
        value: u64,
    },
    /// POSIX timers.
    Timer {
        /// `si_timerid`.
        id: i32,
        /// `si_overrun`.
        overrun: i32,
        /// `si_value`.
        value: u64,
    },
    /// `SIGCHLD`.
    Child {
        /// The child.
        pid: i32,
        /// Its real user.
        uid: u32,
        /// Exit status or signal.
        status: i32,
        /// User time in ticks.
        utime: i64,
        /// System time in ticks.
        stime: i64,
    },
    /// Faults.
    Fault {
        /// `si_addr`.
        addr: u64,
    },
    /// `SIGIO`.
    Poll {
        /// `si_band`.
        band: i64,
        /// `si_fd`.
        fd: i32,
    },
    /// As a program gave it to rt_sigqueueinfo(2).
    Raw([u64; 14]),
}

impl SigInfo {
    /// As kill(2) sends it.
    #[must_use]
    pub const fn kill(signal: Signal, pid: i32, uid: u32) -> Self {
        Self { signal, code: siginfo::SI_USER, errno: 0, fields: SigFields::Kill { pid, uid } }
    }
    /// As tgkill(2) sends it.
    #[must_use]
    pub const fn tkill(signal: Signal, pid: i32, uid: u32) -> Self {
        Self { signal, code: siginfo::SI_TKILL, errno: 0, fields: SigFields::Kill { pid, uid } }
    }
    /// As sigqueue(3) sends it.
    #[must_use]
    pub const fn queue(signal: Signal, pid: i32, uid: u32, value: u64) -> Self {
        Self { signal, code: siginfo::SI_QUEUE, errno: 0, fields: SigFields::Queue { pid, uid, value } }
    }
    /// From the kernel, without more to say.
    #[must_use]
    pub const fn kernel(signal: Signal) -> Self {
        Self { signal, code: siginfo::SI_KERNEL, errno: 0, fields: SigFields::Kill { pid: 0, uid: 0 } }
    }
    /// A processor fault.
    #[must_use]
    pub const fn fault(signal: Signal, code: i32, addr: u64) -> Self {
        Self { signal, code, errno: 0, fields: SigFields::Fault { addr } }
    }
    /// What rt_sigqueueinfo(2) was given; the number in it is replaced by `signal`.
    #[must_use]
    pub const fn from_wire(signal: Signal, wire: &SigInfoWire) -> Self {
        Self { signal, code: wire.si_code, errno: wire.si_errno, fields: SigFields::Raw(wire.fields) }
    }

    /// Tells whether a program may have made this up; such signals are subject to the sender's permissions.
    #[must_use]
    pub const fn is_from_user(&self) -> bool {
        self.code <= 0
    }

    /// The wire form.
    #[must_use]
    pub fn to_wire(&self) -> SigInfoWire {
        let two = |low: i32, high: u32| u64::from(low.cast_unsigned()) | u64::from(high) << 32;
        let mut fields = [0; 14];
        match self.fields {
            SigFields::Kill { pid, uid } => fields[0] = two(pid, uid),
            SigFields::Queue { pid, uid, value } => (fields[0], fields[1]) = (two(pid, uid), value),
            SigFields::Timer { id, overrun, value } => {
                (fields[0], fields[1]) = (two(id, overrun.cast_unsigned()), value);
            }
            SigFields::Child { pid, uid, status, utime, stime } => {
                fields[0] = two(pid, uid);
                fields[1] = u64::from(status.cast_unsigned());
                (fields[2], fields[3]) = (utime.cast_unsigned(), stime.cast_unsigned());
            }
            SigFields::Fault { addr } => fields[0] = addr,
            SigFields::Poll { band, fd } => {
                (fields[0], fields[1]) = (band.cast_unsigned(), u64::from(fd.cast_unsigned()));
            }
            SigFields::Raw(raw) => fields = raw,
        }
        SigInfoWire {
            si_signo: self.signal.number(),
            si_errno: self.errno,
            si_code: self.code,
            pad: 0,
            fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_siginfo_has_them() {
        let child = SigFields::Child { pid: 7, uid: 9, status: 3, utime: 1, stime: 2 };
        let info = SigInfo { signal: Signal::SIGCHLD, code: siginfo::CLD_EXITED, errno: 0, fields: child };
        let wire = info.to_wire();
        // si_pid at 16, si_uid at 20, si_status at 24, si_utime at 32, si_stime at 40.
        assert_eq!(wire.fields[..4], [9 << 32 | 7, 3, 1, 2]);
        assert_eq!(SigInfo::queue(Signal::SIGUSR1, 1, 2, 5).to_wire().fields[1], 5);
    }
}
