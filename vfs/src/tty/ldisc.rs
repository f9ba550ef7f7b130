//! The N_TTY line discipline, termios(3), Linux `drivers/tty/n_tty.c`: editing and echo of input, processing of output.
//! Pure state; terminals put it between their two ends.
use std::collections::VecDeque;

use abi::Signal;
use abi::termios::*;

/// How much input a terminal holds, Linux `N_TTY_BUF_SIZE`.
const INPUT_LIMIT: usize = 4096;

/// What input made happen beside becoming readable.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// For the other end to show.
    pub echo: Vec<u8>,
    /// For the foreground process group.
    pub signals: Vec<Signal>,
    /// Output stopped (`Some(true)`) or started again (`Some(false)`).
    pub stop: Option<bool>,
    /// A signal character asked that input and output be thrown away.
    pub flush: bool,
}

/// State of one terminal's line discipline.
#[derive(Debug, Default)]
pub(super) struct LineDiscipline {
    pub termios: Termios,
    /// Lines that are complete; an empty one is an end of file. In non-canonical mode at most one, which grows.
    lines: VecDeque<VecDeque<u8>>,
    /// The line being edited.
    editing: Vec<u8>,
    /// The next character is taken as it is (after `VLNEXT`).
    literal: bool,
    /// The column that output is at, and where the line being edited began.
    column: usize,
    start_column: usize,
    stopped: bool,
}

impl LineDiscipline {
    fn local(&self, flag: u32) -> bool {
        self.termios.lflag & flag != 0
    }
    fn input_mode(&self, flag: u32) -> bool {
        self.termios.iflag & flag != 0
    }
    /// Tells whether a character is the given control character; 0 disables one.
    fn is(&self, character: u8, which: usize) -> bool {
        character != 0 && self.termios.cc.get(which) == Some(&character)
    }
    fn cc(&self, which: usize) -> usize {
        self.termios.cc.get(which).copied().unwrap_or(0).into()
    }

    fn is_canonical(&self) -> bool {
        self.local(ICANON)
    }

    /// How many bytes are held.
    fn held(&self) -> usize {
        self.editing.len() + self.lines.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Room for input. A terminal in canonical mode whose line is too long still takes characters that end it.
    pub(super) fn room(&self) -> usize {
        let room = INPUT_LIMIT.saturating_sub(self.held());
        if room == 0 && self.is_canonical() && self.lines.is_empty() { 1 } else { room }
    }

    /// How much a read would give; in canonical mode the bytes of all complete lines.
    pub(super) fn available(&self) -> usize {
        self.lines.iter().map(VecDeque::len).sum()
    }

    /// Tells whether a read would give something, an end of file included.
    pub(super) fn is_readable(&self) -> bool {
        if self.is_canonical() {
            return !self.lines.is_empty();
        }
        let least = if self.cc(VTIME) == 0 { self.cc(VMIN).max(1) } else { 1 };
        self.available() >= least
    }

    /// How many bytes a non-canonical read waits for, and tenths of a second it waits.
    pub(super) fn min_and_time(&self) -> (usize, usize) {
        (self.cc(VMIN), self.cc(VTIME))
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }
    pub(super) fn set_stopped(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// Takes what a read of `max` bytes gives, at most one line in canonical mode. `None` where there is nothing yet.
    pub(super) fn read(&mut self, max: usize) -> Option<Vec<u8>> {
        let line = self.lines.front_mut()?;
        let bytes: Vec<u8> = line.drain(..max.min(line.len())).collect();
        if line.is_empty() {
            self.lines.pop_front();
        }
        Some(bytes)
    }

    /// Throws input away (`TCIFLUSH`).
    pub(super) fn flush_input(&mut self) {
        self.lines.clear();
        self.editing.clear();
        self.literal = false;
    }

    /// Replaces the attributes. What was typed so far is readable at once when canonical mode ends.
    pub(super) fn set_termios(&mut self, termios: Termios) {
        let was_canonical = self.is_canonical();
        self.termios = termios;
        if was_canonical != self.is_canonical() {
            let mut all: VecDeque<u8> = self.lines.drain(..).flatten().collect();
            all.extend(self.editing.drain(..));
            if !all.is_empty() {
                self.lines.push_back(all);
            }
        }
        if !self.input_mode(IXON) {
            self.stopped = false;
        }
    }

    /// Takes input from the other end; the caller passes at most [`Self::room`] bytes.
    pub(super) fn input(&mut self, bytes: &[u8]) -> Effects {
        let mut effects = Effects::default();
        for byte in bytes {
            self.input_byte(*byte, &mut effects);
        }
        effects
    }

    fn input_byte(&mut self, mut c: u8, effects: &mut Effects) {
        if self.input_mode(ISTRIP) {
            c &= 0x7f;
        }
        if std::mem::take(&mut self.literal) {
            self.insert(c, effects);
            return;
        }
        if self.flow_control(c, effects) || self.signal_character(c, effects) {
            return;
        }
        match c {
            b'\r' if self.input_mode(IGNCR) => return,
            b'\r' if self.input_mode(ICRNL) => c = b'\n',
            b'\n' if self.input_mode(INLCR) => c = b'\r',
            _ => {}
        }
        if self.is_canonical() { self.edit(c, effects) } else { self.insert(c, effects) }
    }

    fn flow_control(&mut self, c: u8, effects: &mut Effects) -> bool {
        if !self.input_mode(IXON) {
            return false;
        }
        if self.is(c, VSTART) || self.is(c, VSTOP) {
            self.stopped = self.is(c, VSTOP) && !self.is(c, VSTART);
            effects.stop = Some(self.stopped);
            return true;
        }
        if self.stopped && self.input_mode(IXANY) {
            self.stopped = false;
            effects.stop = Some(false);
        }
        false
    }

    fn signal_character(&mut self, c: u8, effects: &mut Effects) -> bool {
        if !self.local(ISIG) {
            return false;
        }
        let signals = [(VINTR, Signal::SIGINT), (VQUIT, Signal::SIGQUIT), (VSUSP, Signal::SIGTSTP)];
        let Some((_, signal)) = signals.into_iter().find(|(which, _)| self.is(c, *which)) else {
            return false;
        };
        if !self.local(NOFLSH) {
            self.flush_input();
            effects.flush = true;
            effects.echo.clear();
        }
        if self.local(ECHO) {
            self.echo(c, effects);
        }
        effects.signals.push(signal);
        true
    }

    fn edit(&mut self, c: u8, effects: &mut Effects) {
        let extended = self.local(IEXTEN);
        if self.is(c, VERASE) {
            self.erase_character(effects);
        } else if self.is(c, VKILL) {
            self.erase_line(c, effects);
        } else if extended && self.is(c, VWERASE) {
            self.erase_word(effects);
        } else if extended && self.is(c, VLNEXT) {
            self.literal = true;
            if self.local(ECHO) && self.local(ECHOCTL) {
                effects.echo.extend(b"^\x08");
            }
        } else if extended && self.is(c, VREPRINT) && self.local(ECHO) {
            self.echo(c, effects);
            self.output(b"\n", &mut effects.echo);
            for typed in self.editing.clone() {
                self.echo(typed, effects);
            }
        } else if c == b'\n' {
            if self.local(ECHO) || self.local(ECHONL) {
                self.output(b"\n", &mut effects.echo);
            }
            self.end_line(Some(c));
        } else if self.is(c, VEOF) {
            self.end_line(None);
        } else if self.is(c, VEOL) || extended && self.is(c, VEOL2) {
            if self.local(ECHO) {
                self.echo(c, effects);
            }
            self.end_line(Some(c));
        } else {
            self.insert(c, effects);
        }
    }

    fn end_line(&mut self, delimiter: Option<u8>) {
        let mut line: VecDeque<u8> = std::mem::take(&mut self.editing).into();
        line.extend(delimiter);
        self.lines.push_back(line);
    }

    /// Takes a character as data, and echoes it.
    fn insert(&mut self, c: u8, effects: &mut Effects) {
        if self.held() >= INPUT_LIMIT - 1 {
            if self.input_mode(IMAXBEL) {
                effects.echo.push(7);
            }
            return;
        }
        if self.local(ECHO) {
            if self.editing.is_empty() {
                self.start_column = self.column;
            }
            self.echo(c, effects);
        }
        if self.is_canonical() {
            self.editing.push(c);
        } else if let Some(line) = self.lines.front_mut() {
            line.push_back(c);
        } else {
            self.lines.push_back(VecDeque::from([c]));
        }
    }

    fn is_shown_as_control(&self, c: u8) -> bool {
        self.local(ECHOCTL) && (c < 0x20 && c != b'\t' && c != b'\n' || c == 0x7f)
    }

    fn echo(&mut self, c: u8, effects: &mut Effects) {
        if self.is_shown_as_control(c) {
            self.output(&[b'^', c ^ 0x40], &mut effects.echo);
        } else {
            self.output(&[c], &mut effects.echo);
        }
    }

    /// Tells whether a byte continues a UTF-8 character that is erased as one.
    fn continues(&self, c: u8) -> bool {
        self.input_mode(IUTF8) && c & 0xc0 == 0x80
    }

    fn erase_character(&mut self, effects: &mut Effects) {
        while let Some(c) = self.editing.pop() {
            if !self.continues(c) {
                self.unecho(c, effects);
                return;
            }
        }
    }

    fn erase_word(&mut self, effects: &mut Effects) {
        let mut in_word = false;
        while let Some(c) = self.editing.last().copied() {
            let is_word = c.is_ascii_alphanumeric() || c == b'_' || c >= 0x80;
            if in_word && !is_word {
                return;
            }
            in_word |= is_word;
            self.erase_character(effects);
        }
    }

    fn erase_line(&mut self, c: u8, effects: &mut Effects) {
        if self.local(ECHOKE) && self.local(ECHOE) && self.local(ECHO) {
            while !self.editing.is_empty() {
                self.erase_character(effects);
            }
            return;
        }
        self.editing.clear();
        if self.local(ECHO) {
            self.echo(c, effects);
            if self.local(ECHOK) {
                self.output(b"\n", &mut effects.echo);
            }
        }
    }

    /// Takes a character off the screen.
    fn unecho(&mut self, c: u8, effects: &mut Effects) {
        if !self.local(ECHO) {
            return;
        }
        if !self.local(ECHOE) {
            let erase = u8::try_from(self.cc(VERASE)).unwrap_or(0x7f);
            self.echo(erase, effects);
            return;
        }
        let columns = if c == b'\t' {
            let before =
                self.editing.clone().into_iter().fold(self.start_column, |at, c| self.advance(at, c));
            self.column.saturating_sub(before)
        } else if self.is_shown_as_control(c) {
            2
        } else {
            usize::from(c >= 0x20 || !self.local(ECHOCTL))
        };
        for _ in 0..columns {
            effects.echo.extend(if c == b'\t' { &b"\x08"[..] } else { &b"\x08 \x08"[..] });
        }
        self.column = self.column.saturating_sub(columns);
    }

    /// The column after a character of the line being edited is shown.
    fn advance(&self, column: usize, c: u8) -> usize {
        if c == b'\t' {
            (column | 7) + 1
        } else if self.is_shown_as_control(c) {
            column + 2
        } else {
            column + usize::from(!self.continues(c))
        }
    }

    /// Appends what the other end is to see of output.
    pub(super) fn output(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let flags = self.termios.oflag;
        if flags & OPOST == 0 {
            out.extend(bytes);
            return;
        }
        for c in bytes {
            match *c {
                b'\n' => {
                    if flags & ONLRET != 0 {
                        self.column = 0;
                    }
                    if flags & ONLCR != 0 {
                        self.column = 0;
                        out.push(b'\r');
                    }
                    out.push(b'\n');
                }
                b'\r' if flags & ONOCR != 0 && self.column == 0 => {}
                b'\r' if flags & OCRNL != 0 => {
                    if flags & ONLRET != 0 {
                        self.column = 0;
                    }
                    out.push(b'\n');
                }
                b'\r' => {
                    self.column = 0;
                    out.push(b'\r');
                }
                b'\t' => {
                    let spaces = 8 - (self.column & 7);
                    self.column += spaces;
                    if flags & TABDLY == XTABS {
                        out.extend(std::iter::repeat_n(b' ', spaces));
                    } else {
                        out.push(b'\t');
                    }
                }
                8 => {
                    self.column = self.column.saturating_sub(1);
                    out.push(8);
                }
                c => {
                    let shown = if flags & OLCUC != 0 { c.to_ascii_uppercase() } else { c };
                    if c >= 0x20 && c != 0x7f && !self.continues(c) {
                        self.column += 1;
                    }
                    out.push(shown);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
