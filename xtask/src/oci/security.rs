//! Capabilities, masked and read-only paths, seccomp.

use super::process::refused;
use super::subject::Subject;
use super::{Case, Inside};
use anyhow::{Result, ensure};

const fn inside(name: &'static str, patch: &'static str, script: &'static str, want: &'static str) -> Inside {
    Inside { name, patch, script, want }
}

/// A case of a set of capabilities, with CAP_KILL (5) and CAP_CHOWN (0).
macro_rules! set {
    ($field:literal, $line:literal, $others:literal) => {
        Inside {
            name: concat!("process.capabilities.", $field),
            patch: concat!(
                r#"{"process":{"capabilities":{""#,
                $field,
                r#"":["CAP_KILL","CAP_CHOWN"]"#,
                $others,
                "}}}"
            ),
            script: concat!("grep ", $line, " /proc/self/status | cut -f2"),
            want: "0000000000000021",
        }
    };
}

/// A profile that makes mkdir(2)'s mode 0777 an error where the comparison holds.
macro_rules! compare {
    ($op:literal, $value:literal, $two:literal, $want:literal) => {
        Inside {
            name: concat!("linux.seccomp: ", $op),
            patch: concat!(
                r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
                {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":28,"args":[{"index":1,"value":"#,
                $value, r#","valueTwo":"#, $two, r#","op":""#, $op, r#""}]}]}}}"#
            ),
            script: "python3 -c 'import os\ntry: os.mkdir(\"/tmp/x\"); print(\"made\")\nexcept OSError as e: print(e.errno)'",
            want: $want,
        }
    };
}

pub(super) const INSIDE: &[Inside] = &[
    set!("bounding", "CapBnd", r#","effective":[],"permitted":[]"#),
    set!(
        "effective",
        "CapEff",
        r#","permitted":["CAP_KILL","CAP_CHOWN"],"bounding":["CAP_KILL","CAP_CHOWN"]"#
    ),
    set!(
        "permitted",
        "CapPrm",
        r#","effective":["CAP_KILL","CAP_CHOWN"],"bounding":["CAP_KILL","CAP_CHOWN"]"#
    ),
    inside(
        "process.capabilities: none",
        r#"{"process":{"capabilities":{"bounding":[],"effective":[],"permitted":[]}}}"#,
        "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | sort -u",
        "0000000000000000",
    ),
    inside(
        "process.capabilities: they act",
        r#"{"process":{"capabilities":{"bounding":[],"effective":[],"permitted":[]}}}"#,
        "touch /tmp/x; chown 5 /tmp/x 2>/dev/null || echo refused",
        "refused",
    ),
    inside(
        "process.capabilities: those that are there act",
        "{}",
        "touch /tmp/x; chown 5 /tmp/x && stat -c %u /tmp/x",
        "5",
    ),
    inside(
        "process.capabilities: a user other than root has none in force",
        r#"{"process":{"user":{"uid":1000},"capabilities":{"effective":[],"permitted":[]}}}"#,
        "grep CapEff /proc/self/status | cut -f2",
        "0000000000000000",
    ),
    inside(
        "process.capabilities.ambient",
        r#"{"process":{"user":{"uid":1000},"capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"],"inheritable":["CAP_CHOWN"],"ambient":["CAP_CHOWN"]}}}"#,
        "grep -E 'Cap(Eff|Amb)' /proc/self/status | cut -f2 | sort -u",
        "0000000000000001",
    ),
    inside(
        "linux.maskedPaths: a file is empty",
        r#"{"linux":{"maskedPaths":["/etc/passwd"]}}"#,
        "wc -c < /etc/passwd",
        "0",
    ),
    inside(
        "linux.maskedPaths: a folder is empty",
        r#"{"linux":{"maskedPaths":["/usr/share"]}}"#,
        "ls /usr/share | wc -l; touch /usr/share/x 2>/dev/null || echo refused",
        "0\nrefused",
    ),
    inside(
        "linux.maskedPaths: what is not there is left out",
        r#"{"linux":{"maskedPaths":["/no/such/path"]}}"#,
        "test -e /no/such/path || echo none",
        "none",
    ),
    inside(
        "linux.maskedPaths: in proc",
        r#"{"linux":{"maskedPaths":["/proc/cmdline"]}}"#,
        "wc -c < /proc/cmdline",
        "0",
    ),
    inside(
        "linux.readonlyPaths: a folder",
        r#"{"linux":{"readonlyPaths":["/tmp"]}}"#,
        "touch /tmp/x 2>/dev/null || echo refused",
        "refused",
    ),
    inside(
        "linux.readonlyPaths: in proc",
        r#"{"linux":{"readonlyPaths":["/proc/sys"]}}"#,
        "(echo x > /proc/sys/kernel/domainname) 2>/dev/null || echo refused; cat /proc/sys/kernel/ostype",
        "refused\nLinux",
    ),
    inside(
        "linux.readonlyPaths: what is not there is left out",
        r#"{"linux":{"readonlyPaths":["/no/such/path"]}}"#,
        "echo ran",
        "ran",
    ),
    compare!("SCMP_CMP_EQ", "511", "0", "28"),
    compare!("SCMP_CMP_NE", "511", "0", "made"),
    compare!("SCMP_CMP_LT", "512", "0", "28"),
    compare!("SCMP_CMP_LE", "511", "0", "28"),
    compare!("SCMP_CMP_GT", "511", "0", "made"),
    compare!("SCMP_CMP_GE", "511", "0", "28"),
    compare!("SCMP_CMP_MASKED_EQ", "7", "7", "28"),
    inside(
        "linux.seccomp: the errno of a rule is EPERM where none is given",
        r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}}}"#,
        "mkdir /tmp/x 2>&1 | grep -o 'Operation not permitted'",
        "Operation not permitted",
    ),
    inside(
        "linux.seccomp: names that do not exist are left out",
        r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["no_such_call","mkdir"],"action":"SCMP_ACT_ERRNO"}]}}}"#,
        "mkdir /tmp/x 2>/dev/null || echo refused",
        "refused",
    ),
    inside(
        "linux.seccomp: children have it",
        r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}}}"#,
        "sh -c 'sh -c \"mkdir /tmp/x 2>/dev/null || echo refused\"'",
        "refused",
    ),
    inside(
        "linux.seccomp: the mode is seen",
        r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}}}"#,
        "grep Seccomp: /proc/self/status | cut -f2",
        "2",
    ),
    inside("linux.seccomp: none", "{}", "grep Seccomp: /proc/self/status | cut -f2", "0"),
    inside(
        "linux.seccomp: a process is killed",
        r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_KILL_PROCESS"}]}}}"#,
        "mkdir /tmp/x; echo $?",
        "159",
    ),
    inside(
        "linux.seccomp: a signal",
        r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_TRAP"}]}}}"#,
        "mkdir /tmp/x; echo $?",
        "159",
    ),
    inside(
        "linux.seccomp: a call is logged and made",
        r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_LOG"}]}}}"#,
        "mkdir /tmp/x && echo made",
        "made",
    ),
];

pub(super) const CASES: &[Case] = &[
    ("linux.seccomp: an unknown action is an error", |s| {
        refused(s, r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_FOO"}}}"#)
    }),
    ("linux.seccomp: an unknown comparison is an error", |s| {
        refused(
            s,
            r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"FOO"}]}]}}}"#,
        )
    }),
    ("linux.seccomp: exec has it as well", exec_is_filtered),
    ("ours: --net-raw: CAP_NET_RAW only with it, for exec too", net_raw),
];

fn net_raw(subject: &Subject) -> Result<()> {
    let caps = r#"["CAP_NET_RAW", "CAP_CHOWN"]"#;
    let patch = format!(
        r#"{{"process": {{"capabilities": {{"bounding": {caps}, "effective": {caps}, "permitted": {caps}}}}}}}"#
    );
    let look = "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | sort -u";
    let made = subject.started(&patch, &format!("{look}; while :; do sleep 0.1; done"))?;
    made.wrote("out", "0000000000000001\n")?;
    let bundle = subject.bundle(&patch, look)?;
    let dir = bundle.0.display().to_string();
    let ran = subject.ok(&["--net-raw", "run", "--bundle", &dir, &crate::run::unique("oci")])?;
    ensure!(ran == "0000000000002001", "with it: {ran}");
    let more = ["exec", "--cap", "CAP_NET_RAW", &made.id, "sh", "-c", look];
    ensure!(subject.ok(&more)? == "0000000000000001", "exec has it: {}", subject.ok(&more)?);
    let ran = subject.ok(&[&["--net-raw"], &more[..]].concat())?;
    ensure!(ran == "0000000000002001", "exec with it: {ran}");
    Ok(())
}

fn exec_is_filtered(subject: &Subject) -> Result<()> {
    let patch = r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}}}"#;
    let made = subject.started(patch, "sleep 1000")?;
    let out = subject.verb(&["exec", &made.id, "mkdir", "/tmp/x"])?;
    ensure!(out.code == 1 && out.stderr.contains("not permitted"), "{out:?}");
    Ok(())
}
