//! Global flags as Go programs take them: with one dash or two, switches with a value.
use std::ffi::OsString;

/// Flags that are on or off.
const SWITCHES: [&str; 9] = [
    "--debug",
    "--strace",
    "--log-packets",
    "--net-raw",
    "--overlay",
    "--ignore-cgroups",
    "--systemd-cgroup",
    "--TESTONLY-unsafe-nonroot",
    "--alsologtostderr",
];
/// Switches that mean nothing here.
const WITHOUT_MEANING: [&str; 2] = ["--TESTONLY-unsafe-nonroot", "--alsologtostderr"];

/// Flags that take the next argument as their value.
const WITH_VALUE: [&str; 18] = [
    "--root",
    "--log",
    "--log-fd",
    "--log-format",
    "--debug-log",
    "--debug-log-dir",
    "--debug-log-format",
    "--events-log",
    "--strace-syscalls",
    "--strace-log-size",
    "--platform",
    "--network",
    "--overlay2",
    "--file-access",
    "--file-access-mounts",
    "--host-uds",
    "--criu",
    "--debug-log-fd",
];

/// Rewrites the flags in front of the verb; what is behind it stays.
pub(super) fn normal(args: Vec<OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str().filter(|text| text.starts_with('-') && text.len() > 2) else {
            out.push(arg);
            break;
        };
        let text = if text.starts_with("--") { text.to_owned() } else { format!("-{text}") };
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text.as_str(), None),
        };
        if SWITCHES.contains(&name) {
            let off = matches!(value, Some("false" | "0" | "f" | "F" | "FALSE" | "False"));
            let on = matches!(value, None | Some("true" | "1" | "t" | "T" | "TRUE" | "True"));
            if on && !WITHOUT_MEANING.contains(&name) {
                out.push(name.into());
            } else if !on && !off {
                out.push(text.into());
            }
            continue;
        }
        let takes_next = value.is_none() && WITH_VALUE.contains(&name);
        out.push(text.into());
        if takes_next {
            out.extend(args.next());
        }
    }
    out.extend(args);
    out
}

#[cfg(test)]
mod tests {
    use super::normal;

    fn of(args: &str) -> String {
        let words = normal(args.split(' ').map(Into::into).collect());
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn takes_flags_as_go_does() {
        assert_eq!(of("r -root /x -debug run -b y"), "r --root /x --debug run -b y");
        assert_eq!(of("r --debug=true --strace=false list"), "r --debug list");
        assert_eq!(of("r --log /a --root=/b state -x"), "r --log /a --root=/b state -x");
        assert_eq!(of("r -platform=ptrace exec c -root /"), "r --platform=ptrace exec c -root /");
        assert_eq!(of("r --debug=maybe list"), "r --debug=maybe list");
        assert_eq!(of("r -h"), "r -h");
    }
}
