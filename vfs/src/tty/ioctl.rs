//! Requests of `ioctl_tty(2)`.
use std::sync::Arc;

use abi::Errno;
use abi::termios::{Termio, Termios, Termios2, Winsize};
use kernel::Cap;

use super::job_control::Access;
use super::{Tty, packet};
use crate::OpCx;

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TCGETA: u32 = 0x5405;
const TCSETA: u32 = 0x5406;
const TCSETAW: u32 = 0x5407;
const TCSETAF: u32 = 0x5408;
const TCSBRK: u32 = 0x5409;
const TCXONC: u32 = 0x540a;
const TCFLSH: u32 = 0x540b;
const TIOCEXCL: u32 = 0x540c;
const TIOCNXCL: u32 = 0x540d;
const TIOCSCTTY: u32 = 0x540e;
const TIOCGPGRP: u32 = 0x540f;
const TIOCSPGRP: u32 = 0x5410;
const TIOCOUTQ: u32 = 0x5411;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;
const FIONREAD: u32 = 0x541b;
const TIOCPKT: u32 = 0x5420;
const TIOCNOTTY: u32 = 0x5422;
const TIOCGETD: u32 = 0x5424;
const TCSBRKP: u32 = 0x5425;
const TIOCGSID: u32 = 0x5429;
const TIOCGLCKTRMIOS: u32 = 0x5456;
const TIOCSLCKTRMIOS: u32 = 0x5457;
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;
const TCSETSW2: u32 = 0x402c_542c;
const TCSETSF2: u32 = 0x402c_542d;
const TIOCGPTN: u32 = 0x8004_5430;
const TIOCSPTLCK: u32 = 0x4004_5431;
const TIOCGPKT: u32 = 0x8004_5438;
const TIOCGPTLCK: u32 = 0x8004_5439;

const TCIFLUSH: u64 = 0;
const TCOFLUSH: u64 = 1;
const TCIOFLUSH: u64 = 2;
/// The speed of a pseudo-terminal, which means nothing.
const SPEED: u32 = 38_400;

fn store<T: zerocopy::IntoBytes + zerocopy::Immutable>(
    cx: &OpCx<'_>,
    arg: u64,
    value: &T,
) -> Result<usize, Errno> {
    cx.mm()?.write_obj(arg, value)?;
    Ok(0)
}

fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

impl Tty {
    /// What both ends understand; those on attributes are the slave's whichever end is asked.
    fn common_ioctl(self: &Arc<Self>, cx: &OpCx<'_>, cmd: u32, arg: u64) -> Result<usize, Errno> {
        match cmd {
            TCGETS => store(cx, arg, &self.termios()),
            TCGETS2 => store(cx, arg, &Termios2 { termios: self.termios(), ispeed: SPEED, ospeed: SPEED }),
            TCSETS | TCSETSW | TCSETSF => {
                let termios: Termios = cx.mm()?.read_obj(arg)?;
                self.change_termios(cx, termios, cmd == TCSETSF)
            }
            TCSETS2 | TCSETSW2 | TCSETSF2 => {
                let termios: Termios2 = cx.mm()?.read_obj(arg)?;
                self.change_termios(cx, termios.termios, cmd == TCSETSF2)
            }
            TCGETA => store(cx, arg, &Termio::from(&self.termios())),
            TCSETA | TCSETAW | TCSETAF => {
                let termio: Termio = cx.mm()?.read_obj(arg)?;
                self.change_termios(cx, termio.applied_to(self.termios()), cmd == TCSETAF)
            }
            TIOCGLCKTRMIOS => {
                let lock = self.state.lock().termios_lock.unwrap_or(Termios::NONE);
                store(cx, arg, &lock)
            }
            TIOCSLCKTRMIOS => {
                if !cx.creds.has_cap(Cap::SYS_ADMIN) {
                    return Err(Errno::EPERM);
                }
                let lock: Termios = cx.mm()?.read_obj(arg)?;
                self.state.lock().termios_lock = Some(lock);
                Ok(0)
            }
            TIOCGWINSZ => store(cx, arg, &self.winsize()),
            TIOCSWINSZ => {
                let winsize: Winsize = cx.mm()?.read_obj(arg)?;
                self.set_winsize(winsize);
                Ok(0)
            }
            TCFLSH => {
                self.check_background(cx, Access::Change)?;
                self.flush(arg)
            }
            TCXONC => {
                self.check_background(cx, Access::Change)?;
                self.flow(arg)
            }
            // Output is passed on as it is written, and a pseudo-terminal has no break.
            TCSBRK | TCSBRKP => self.check_background(cx, Access::Change).map(|()| 0),
            TIOCGETD => store(cx, arg, &0_i32),
            TIOCEXCL | TIOCNXCL => {
                self.state.lock().exclusive = cmd == TIOCEXCL;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn change_termios(&self, cx: &OpCx<'_>, termios: Termios, flush: bool) -> Result<usize, Errno> {
        self.check_background(cx, Access::Change)?;
        if flush {
            let mut state = self.state.lock();
            state.ldisc.flush_input();
            state.tell(0, packet::FLUSHREAD);
        }
        self.set_termios(termios);
        Ok(0)
    }

    fn flush(&self, queue: u64) -> Result<usize, Errno> {
        {
            let mut state = self.state.lock();
            let (input, output) = match queue {
                TCIFLUSH => (true, false),
                TCOFLUSH => (false, true),
                TCIOFLUSH => (true, true),
                _ => return Err(Errno::EINVAL),
            };
            if input {
                state.ldisc.flush_input();
                state.tell(0, packet::FLUSHREAD);
            }
            if output {
                state.output.clear();
                state.tell(0, packet::FLUSHWRITE);
            }
        }
        self.notify_both();
        Ok(0)
    }

    fn flow(&self, action: u64) -> Result<usize, Errno> {
        match action {
            // TCOOFF, TCOON.
            0 | 1 => {
                let mut state = self.state.lock();
                if state.ldisc.is_stopped() != (action == 0) {
                    state.ldisc.set_stopped(action == 0);
                    state.tell_stopped(action == 0);
                }
            }
            // TCIOFF, TCION send a character to the other end.
            2 | 3 => {
                let mut state = self.state.lock();
                let which = if action == 2 { abi::termios::VSTOP } else { abi::termios::VSTART };
                let character = state.ldisc.termios.cc.get(which).copied().filter(|c| *c != 0);
                state.output.extend(character);
            }
            _ => return Err(Errno::EINVAL),
        }
        self.notify_both();
        Ok(0)
    }

    pub(super) fn slave_ioctl(self: &Arc<Self>, cx: &OpCx<'_>, cmd: u32, arg: u64) -> Result<usize, Errno> {
        if self.is_hung_up() {
            return Err(if cmd == TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO });
        }
        match cmd {
            TIOCSCTTY => self.set_controlling(cx, arg == 1).map(|()| 0),
            TIOCNOTTY => self.give_up(cx).map(|()| 0),
            TIOCGPGRP => {
                self.check_controlling(cx)?;
                let id = self.state.lock().foreground.unwrap_or(0);
                store(cx, arg, &id)
            }
            TIOCSPGRP => {
                let id: i32 = cx.mm()?.read_obj(arg)?;
                self.set_foreground(cx, id).map(|()| 0)
            }
            TIOCGSID => {
                let id = self.check_controlling(cx)?;
                store(cx, arg, &id)
            }
            FIONREAD => {
                let n = int(self.state.lock().ldisc.available());
                store(cx, arg, &n)
            }
            TIOCOUTQ => store(cx, arg, &0_i32),
            _ => self.common_ioctl(cx, cmd, arg),
        }
    }

    pub(super) fn master_ioctl(self: &Arc<Self>, cx: &OpCx<'_>, cmd: u32, arg: u64) -> Result<usize, Errno> {
        match cmd {
            TIOCGPTN => store(cx, arg, &self.index()),
            TIOCSPTLCK => {
                let lock: i32 = cx.mm()?.read_obj(arg)?;
                self.state.lock().locked = lock != 0;
                Ok(0)
            }
            TIOCGPTLCK => {
                let locked = i32::from(self.state.lock().locked);
                store(cx, arg, &locked)
            }
            TIOCPKT => {
                let on: i32 = cx.mm()?.read_obj(arg)?;
                let mut state = self.state.lock();
                // What a packet was to tell already is kept by another request of the same.
                if state.packet_mode != (on != 0) {
                    (state.packet_mode, state.packet_status) = (on != 0, 0);
                }
                Ok(0)
            }
            TIOCGPKT => {
                let on = i32::from(self.state.lock().packet_mode);
                store(cx, arg, &on)
            }
            // The master tells the slave's foreground group to whomever holds it.
            TIOCGPGRP => {
                let id = self.state.lock().foreground.unwrap_or(0);
                store(cx, arg, &id)
            }
            TIOCGSID => {
                let id = self.state.lock().session.ok_or(Errno::ENOTTY)?;
                store(cx, arg, &id)
            }
            FIONREAD => {
                let n = int(self.state.lock().output.len());
                store(cx, arg, &n)
            }
            TIOCOUTQ => {
                let n = int(self.state.lock().ldisc.available());
                store(cx, arg, &n)
            }
            _ => self.common_ioctl(cx, cmd, arg),
        }
    }
}
