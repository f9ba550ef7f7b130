//! `process`: who the program is, and what it starts with.

use super::subject::Subject;
use super::{Case, Inside};
use anyhow::{Result, ensure};

/// A case of a limit: the name in the configuration, and bash's letter for it.
macro_rules! limit {
    ($prefix:literal, $kind:literal, $letter:literal, $soft:literal, $hard:literal, $want:literal) => {
        Inside {
            name: concat!($prefix, "process.rlimits: ", $kind),
            patch: concat!(
                r#"{"process":{"rlimits":[{"type":""#,
                $kind,
                r#"","soft":"#,
                $soft,
                r#","hard":"#,
                $hard,
                "}]}}"
            ),
            script: concat!("bash -c 'echo $(ulimit -S", $letter, ") $(ulimit -H", $letter, ")'"),
            want: $want,
        }
    };
}

const fn inside(name: &'static str, patch: &'static str, script: &'static str, want: &'static str) -> Inside {
    Inside { name, patch, script, want }
}

pub(super) const INSIDE: &[Inside] = &[
    inside(
        "process.args: the first is the name",
        r#"{"process":{"args":["sh","-c","echo $0 $1","zero","one two"]}}"#,
        "",
        "zero one two",
    ),
    inside(
        "process.args: a program is found in PATH",
        r#"{"process":{"args":["echo","found"]}}"#,
        "",
        "found",
    ),
    inside("process.args: an absolute path", r#"{"process":{"args":["/bin/echo","path"]}}"#, "", "path"),
    inside(
        "process.args: empty arguments stay",
        r#"{"process":{"args":["sh","-c","echo $#","x","","a",""]}}"#,
        "",
        "3",
    ),
    inside("process.cwd", r#"{"process":{"cwd":"/usr/share"}}"#, "pwd", "/usr/share"),
    inside(
        "process.cwd is made where it is missing",
        r#"{"process":{"cwd":"/tmp/made/here"}}"#,
        "pwd",
        "/tmp/made/here",
    ),
    inside(
        "process.env",
        r#"{"process":{"env+":["A=1","B=two words","EMPTY="]}}"#,
        "echo $A,$B,${EMPTY-unset}",
        "1,two words,",
    ),
    inside("process.env: nothing of ours", "{}", "echo ${CARGO-none} ${USER-none}", "none none"),
    inside(
        "process.env: PATH of the configuration finds the program",
        r#"{"process":{"env":["PATH=/nowhere:/bin"]}}"#,
        "echo $PATH",
        "/nowhere:/bin",
    ),
    inside("process.env: HOME of the user where it is not given", "{}", "echo $HOME", "/root"),
    inside(
        "process.env: HOME of a user without an entry",
        r#"{"process":{"user":{"uid":4242}}}"#,
        "echo $HOME",
        "/",
    ),
    inside(
        "process.env: HOME stays where it is given",
        r#"{"process":{"env+":["HOME=/x"]}}"#,
        "echo $HOME",
        "/x",
    ),
    inside(
        "process.user",
        r#"{"process":{"user":{"uid":1000,"gid":1001}}}"#,
        "id -u; id -g; id -G",
        "1000\n1001\n1001",
    ),
    inside(
        "process.user.additionalGids",
        r#"{"process":{"user":{"uid":1,"gid":2,"additionalGids":[5,6]}}}"#,
        "id -G",
        "2 5 6",
    ),
    inside("process.user: no groups of ours", "{}", "id -G", "0"),
    inside("process.user.umask", r#"{"process":{"user":{"umask":63}}}"#, "umask", "0077"),
    inside("process.user: the umask that is not given", "{}", "umask", "0022"),
    inside(
        "process.user: saved and file system ids",
        r#"{"process":{"user":{"uid":7,"gid":8}}}"#,
        "grep -E '^[UG]id' /proc/self/status | tr '\\t' ' '",
        "Uid: 7 7 7 7\nGid: 8 8 8 8",
    ),
    limit!("", "RLIMIT_NOFILE", "n", "100", "200", "100 200"),
    limit!("", "RLIMIT_CORE", "c", "0", "1024", "0 1"),
    limit!("", "RLIMIT_CPU", "t", "100", "200", "100 200"),
    limit!("", "RLIMIT_DATA", "d", "1073741824", "2147483648", "1048576 2097152"),
    limit!("", "RLIMIT_FSIZE", "f", "10240", "20480", "10 20"),
    limit!("", "RLIMIT_MEMLOCK", "l", "65536", "131072", "64 128"),
    limit!("", "RLIMIT_MSGQUEUE", "q", "1000", "2000", "1000 2000"),
    limit!("ours: ", "RLIMIT_NICE", "e", "10", "20", "10 20"),
    limit!("", "RLIMIT_NPROC", "u", "300", "400", "300 400"),
    limit!("", "RLIMIT_RSS", "m", "1048576", "2097152", "1024 2048"),
    limit!("ours: ", "RLIMIT_RTPRIO", "r", "5", "6", "5 6"),
    limit!("", "RLIMIT_SIGPENDING", "i", "50", "60", "50 60"),
    limit!("", "RLIMIT_STACK", "s", "8388608", "16777216", "8192 16384"),
    limit!("", "RLIMIT_AS", "v", "4294967296", "8589934592", "4194304 8388608"),
    limit!("", "RLIMIT_LOCKS", "x", "9", "10", "9 10"),
    inside(
        "process.rlimits: several",
        r#"{"process":{"rlimits":[{"type":"RLIMIT_NOFILE","soft":50,"hard":60},{"type":"RLIMIT_CORE","soft":0,"hard":0}]}}"#,
        "bash -c 'ulimit -n; ulimit -Hc'",
        "50\n0",
    ),
    inside(
        "process.noNewPrivileges",
        "{}",
        "grep NoNewPrivs /proc/self/status | tr -d '\\t'",
        "NoNewPrivs:1",
    ),
    inside(
        "process.noNewPrivileges: not set",
        r#"{"process":{"noNewPrivileges":false}}"#,
        "grep NoNewPrivs /proc/self/status | tr -d '\\t'",
        "NoNewPrivs:0",
    ),
    inside(
        "process.oomScoreAdj",
        r#"{"process":{"oomScoreAdj":321}}"#,
        "cat /proc/self/oom_score_adj",
        "321",
    ),
    inside(
        "process.terminal: false gives none",
        "{}",
        "test -t 0 || echo none; test -t 1 || echo none",
        "none\nnone",
    ),
    inside(
        "process: it leads its session",
        "{}",
        "cut -d' ' -f1,6 /proc/self/stat > /tmp/x; ps -o sess= -p $$ | tr -d ' '",
        "1",
    ),
    inside(
        "process: nothing but the streams is open",
        "{}",
        "python3 -c 'import os; print([n for n in range(3, 64) if os.path.lexists(\"/proc/self/fd/%d\" % n)])'",
        "[]",
    ),
    inside(
        "process: no signal is blocked",
        "{}",
        "grep SigBlk /proc/1/status | tr -d '\\t'",
        "SigBlk:0000000000000000",
    ),
    inside(
        "ours: process.oomScoreAdj: lower than the caller may go on the host",
        r#"{"process":{"oomScoreAdj":-998}}"#,
        "cat /proc/self/oom_score_adj",
        "-998",
    ),
    inside(
        "ours: process.scheduler",
        r#"{"process":{"scheduler":{"policy":"SCHED_BATCH","nice":3}}}"#,
        "cut -d' ' -f19,41 /proc/self/stat",
        "3 3",
    ),
    inside(
        "ours: process.ioPriority",
        r#"{"process":{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":6}}}"#,
        "ionice -p $$",
        "best-effort: prio 6",
    ),
    inside(
        "ours: process.apparmorProfile is accepted",
        r#"{"process":{"apparmorProfile":"x","selinuxLabel":"y"}}"#,
        "echo ran",
        "ran",
    ),
];

pub(super) const CASES: &[Case] = &[
    ("process: the exit status is the program's", exit_status),
    ("process: a signal gives 128 and its number", signal_status),
    ("process: the streams are passed on", streams),
    ("process.args: none is an error", |s| refused(s, r#"{"process":{"args":[]}}"#)),
    ("process.args: a program that is not there", |s| {
        refused(s, r#"{"process":{"args":["/no/such/program"]}}"#)
    }),
    ("process.args: a program that is not in PATH", |s| {
        refused(s, r#"{"process":{"args":["no-such-program"]}}"#)
    }),
    ("process.args: a program that may not be executed", |s| {
        refused(s, r#"{"process":{"args":["/etc/passwd"]}}"#)
    }),
    ("process.args: a directory", |s| refused(s, r#"{"process":{"args":["/etc"]}}"#)),
    ("process.cwd: a relative path is an error", |s| refused(s, r#"{"process":{"cwd":"usr"}}"#)),
    ("process.cwd: a file is an error", |s| refused(s, r#"{"process":{"cwd":"/etc/passwd"}}"#)),
    ("process.rlimits: an unknown one is an error", |s| {
        refused(s, r#"{"process":{"rlimits":[{"type":"RLIMIT_FOO","soft":1,"hard":1}]}}"#)
    }),
    ("process: none is an error of run", |s| refused(s, r#"{"process":null}"#)),
    ("ours: process.scheduler: an unknown policy", |s| {
        refused(s, r#"{"process":{"scheduler":{"policy":"SCHED_FOO"}}}"#)
    }),
];

/// The configuration must not run.
pub(super) fn refused(subject: &Subject, patch: &str) -> Result<()> {
    let out = subject.run_script(patch, "echo ran")?;
    ensure!(out.code != 0 && !out.timed_out, "it runs");
    ensure!(!out.stdout.contains("ran"), "it runs before it fails");
    ensure!(!out.stderr.trim().is_empty(), "it fails without a word");
    Ok(())
}

fn exit_status(subject: &Subject) -> Result<()> {
    for status in [0, 1, 42, 255] {
        let out = subject.run_script("{}", &format!("exit {status}"))?;
        ensure!(out.code == status, "{status} becomes {}", out.code);
    }
    Ok(())
}

fn signal_status(subject: &Subject) -> Result<()> {
    let patch = r#"{"process":{"args":["python3","-c","import os, signal\nif os.fork() == 0: os._exit(0)\nos.abort() if os.getpid() != 1 else os._exit(7)"]}}"#;
    let out = subject.run_script(patch, "")?;
    ensure!(out.code == 7, "exit status {}", out.code);
    let out = subject.run_script("{}", "sh -c 'kill -TERM $$'; echo $?")?;
    ensure!(out.stdout.trim() == "143", "{out:?}");
    Ok(())
}

fn streams(subject: &Subject) -> Result<()> {
    let out = subject.run_script("{}", "echo out; echo err >&2")?;
    ensure!(out.stdout == "out\n" && out.stderr == "err\n", "{out:?}");
    Ok(())
}
