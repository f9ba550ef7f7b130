use super::*;

fn typed(input: &[u8]) -> (LineDiscipline, Effects) {
    let mut tty = LineDiscipline::default();
    let effects = tty.input(input);
    (tty, effects)
}

#[test]
fn lines_are_read_one_at_a_time() {
    let (mut tty, effects) = typed(b"ab\rc\n");
    assert_eq!(effects.echo, b"ab\r\nc\r\n");
    assert_eq!(tty.available(), 5);
    assert_eq!(tty.read(2).as_deref(), Some(&b"ab"[..]));
    assert_eq!(tty.read(100).as_deref(), Some(&b"\n"[..]));
    assert_eq!(tty.read(100).as_deref(), Some(&b"c\n"[..]));
    assert_eq!(tty.read(100), None);
}

#[test]
fn an_incomplete_line_is_not_readable() {
    let (mut tty, _) = typed(b"abc");
    assert!(!tty.is_readable());
    tty.input(b"\x04");
    assert_eq!(tty.read(100).as_deref(), Some(&b"abc"[..]));
    tty.input(b"\x04");
    assert_eq!(tty.read(100).as_deref(), Some(&b""[..]), "end of file");
}

#[test]
fn editing_keys_work() {
    let (mut tty, effects) = typed(b"one twx\x7f\x17three\x15four\x7f\n");
    assert_eq!(tty.read(100).as_deref(), Some(&b"fou\n"[..]));
    assert!(effects.echo.ends_with(b"four\x08 \x08\r\n"));
    let (mut tty, _) = typed(b"a b\x17\x17c\n");
    assert_eq!(tty.read(100).as_deref(), Some(&b"c\n"[..]));
}

#[test]
fn a_literal_character_is_no_command() {
    let (mut tty, effects) = typed(b"\x16\x03\n");
    assert_eq!(effects.signals, []);
    assert_eq!(tty.read(9).as_deref(), Some(&b"\x03\n"[..]));
}

#[test]
fn signal_characters_flush_and_signal() {
    let (mut tty, effects) = typed(b"abc\x03");
    assert_eq!((effects.signals, effects.echo), (vec![Signal::SIGINT], b"^C".to_vec()));
    tty.input(b"\n");
    assert_eq!(tty.read(9).as_deref(), Some(&b"\n"[..]));
}

#[test]
fn raw_mode_passes_everything() {
    let mut tty = LineDiscipline::default();
    let mut raw = tty.termios;
    (raw.iflag, raw.lflag, raw.oflag) = (0, 0, 0);
    tty.input(b"pend");
    tty.set_termios(raw);
    assert_eq!(tty.input(b"\x03\r\x04"), Effects::default());
    assert_eq!(tty.read(100).as_deref(), Some(&b"pend\x03\r\x04"[..]));
    let mut out = Vec::new();
    tty.output(b"a\nb", &mut out);
    assert_eq!(out, b"a\nb");
}

#[test]
fn utf8_characters_are_erased_whole() {
    let mut tty = LineDiscipline::default();
    tty.termios.iflag |= IUTF8;
    tty.input("aé\x7f\n".as_bytes());
    assert_eq!(tty.read(9).as_deref(), Some(&b"a\n"[..]));
}

#[test]
fn input_is_bounded() {
    let mut tty = LineDiscipline::default();
    tty.input(&vec![b'x'; 3 * INPUT_LIMIT]);
    assert!(tty.held() < INPUT_LIMIT && tty.room() > 0);
    tty.input(b"\n");
    assert_eq!(tty.read(usize::MAX).map(|l| l.len()), Some(INPUT_LIMIT));
}

#[test]
fn output_stops_and_starts() {
    let (tty, effects) = typed(b"\x13");
    assert!(tty.is_stopped() && effects.stop == Some(true));
    let (tty, effects) = typed(b"\x13\x11");
    assert!(!tty.is_stopped() && effects.stop == Some(false));
}
