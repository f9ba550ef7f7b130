//! `#!` lines, Linux `fs/binfmt_script.c:load_script`.
use abi::Errno;

/// What a script's first line names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The interpreter's path.
    pub interpreter: &'a [u8],
    /// The rest of the line, one argument however many words it has.
    pub argument: Option<&'a [u8]>,
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Reads the line; `None` where the file is no script.
///
/// # Errors
/// `ENOEXEC` for a line without an interpreter, or whose interpreter's name is cut off by the end of `head`.
pub(super) fn parse(head: &[u8]) -> Result<Option<Line<'_>>, Errno> {
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    let (line, whole) = match rest.iter().position(|b| *b == b'\n') {
        Some(end) => (rest.get(..end).unwrap_or(rest), true),
        None => (rest, false),
    };
    let text = line.split(|b| *b == 0).next().unwrap_or(line);
    let ended = whole || text.len() < line.len();
    let text = trim(text);
    let end = text.iter().position(is_blank);
    if text.is_empty() || (!ended && end.is_none()) {
        return Err(Errno::ENOEXEC);
    }
    let (interpreter, argument) = text.split_at(end.unwrap_or(text.len()));
    let argument = trim(argument);
    Ok(Some(Line { interpreter, argument: (!argument.is_empty()).then_some(argument) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(head: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        let line = parse(head).expect("valid").expect("a script");
        (line.interpreter.to_vec(), line.argument.map(<[u8]>::to_vec))
    }

    #[test]
    fn interpreters_and_their_one_argument() {
        assert_eq!(line(b"#!/bin/sh\n"), (b"/bin/sh".to_vec(), None));
        assert_eq!(line(b"#! /bin/sh -e -x \nrest"), (b"/bin/sh".to_vec(), Some(b"-e -x".to_vec())));
        assert_eq!(line(b"#!/bin/sh\0\0\0"), (b"/bin/sh".to_vec(), None));
        assert_eq!(line(b"#!\t/a\tb\n"), (b"/a".to_vec(), Some(b"b".to_vec())));
    }

    #[test]
    fn what_is_no_script() {
        assert_eq!(parse(b"\x7fELF"), Ok(None));
        assert_eq!(parse(b"#!\n"), Err(Errno::ENOEXEC));
        assert_eq!(parse(b"#!   \n"), Err(Errno::ENOEXEC));
        assert_eq!(parse(b"#!/cut/off/by/the/end/of/the/head"), Err(Errno::ENOEXEC));
        assert_eq!(parse(b""), Ok(None));
    }
}
