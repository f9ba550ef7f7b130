//! Names of bits and numbers.
use std::fmt::Write;

/// Values with their names, bits or numbers.
pub type Names = &'static [(u64, &'static str)];

/// Shows bits by name; what has none, in hexadecimal.
pub(super) fn bits(names: Names, value: u64) -> String {
    let mut left = value;
    let mut out = String::new();
    for (bit, name) in names {
        if *bit != 0 && left & bit == *bit {
            left &= !bit;
            add(&mut out, name);
        }
    }
    if left != 0 {
        add(&mut out, &format!("{left:#x}"));
    }
    if out.is_empty() {
        names.iter().find(|(bit, _)| *bit == 0).map_or("0", |(_, name)| name).clone_into(&mut out);
    }
    out
}

fn add(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('|');
    }
    out.push_str(name);
}

/// Shows a number by name.
pub(super) fn one_of(names: Names, value: u64) -> String {
    match names.iter().find(|(v, _)| *v == value) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("{value:#x}"),
    }
}

/// Shows bytes as a C string, cut to `max`.
pub(super) fn quoted(bytes: &[u8], max: usize) -> String {
    let mut out = String::from("\"");
    for byte in bytes.iter().take(max) {
        // Writing to a string cannot fail.
        let _infallible = match byte {
            b'\n' => write!(out, "\\n"),
            b'\t' => write!(out, "\\t"),
            b'\r' => write!(out, "\\r"),
            b'"' | b'\\' => write!(out, "\\{}", char::from(*byte)),
            0x20..0x7f => write!(out, "{}", char::from(*byte)),
            other => write!(out, "\\x{other:02x}"),
        };
    }
    out.push('"');
    if bytes.len() > max {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_names() {
        let names: Names = &[(0, "NONE"), (1, "A"), (2, "B"), (6, "BC")];
        assert_eq!(bits(names, 0), "NONE");
        assert_eq!(bits(names, 3), "A|B");
        assert_eq!(bits(names, 9), "A|0x8");
        assert_eq!(one_of(names, 6), "BC");
        assert_eq!(one_of(names, 7), "0x7");
    }

    #[test]
    fn bytes_are_quoted_and_cut() {
        assert_eq!(quoted(b"a\"\n\x01z", 4), "\"a\\\"\\n\\x01\"...");
    }
}
