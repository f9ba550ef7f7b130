//! Packet mode, `TIOCPKT` of ioctl_tty(2): the master is told of changes at the slave, Linux `drivers/tty/pty.c`.
use abi::termios::{EXTPROC, IXON, Termios, VSTART, VSTOP};

use super::State;

/// Input was thrown away.
pub(super) const FLUSHREAD: u8 = 1;
/// Output was thrown away.
pub(super) const FLUSHWRITE: u8 = 2;
const STOP: u8 = 4;
const START: u8 = 8;
const NOSTOP: u8 = 16;
const DOSTOP: u8 = 32;
const IOCTL: u8 = 64;

/// Tells whether output is stopped by `^S` and goes on by `^Q`, which the master may do by itself.
fn has_usual_flow(termios: &Termios) -> bool {
    termios.iflag & IXON != 0 && termios.cc.get(VSTOP) == Some(&0o23) && termios.cc.get(VSTART) == Some(&0o21)
}

impl State {
    /// Notes what the next packet is to tell; nothing where the master reads no packets.
    pub(super) const fn tell(&mut self, clear: u8, set: u8) {
        if self.packet_mode {
            self.packet_status = self.packet_status & !clear | set;
        }
    }

    /// Output was stopped, or goes on.
    pub(super) const fn tell_stopped(&mut self, stopped: bool) {
        if stopped { self.tell(START, STOP) } else { self.tell(STOP, START) }
    }

    /// The attributes changed from what they were.
    pub(super) fn tell_changed(&mut self, old: &Termios) {
        let new = self.ldisc.termios;
        let flow = has_usual_flow(&new);
        let external = (old.lflag ^ new.lflag) & EXTPROC != 0;
        if flow != has_usual_flow(old) || external {
            let told = if flow { DOSTOP } else { NOSTOP } | if external { IOCTL } else { 0 };
            self.tell(DOSTOP | NOSTOP, told);
        }
    }

    /// Tells whether there is a status to be told.
    pub(super) const fn has_packet_status(&self) -> bool {
        self.packet_mode && self.packet_status != 0
    }
}
