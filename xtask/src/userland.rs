//! A Debian userland in the sandbox, compared with the same scripts run natively in the same root.

use crate::bundle::{self, Bundle, Runtime};
use crate::pty::Session;
use crate::report::Report;
use crate::run::Output;
use crate::{Options, rootfs};
use anyhow::{Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

/// Scripts whose output and exit status must be those of Linux.
const SCRIPTS: [(&str, &str); 9] = [
    ("bash", include_str!("../userland/bash.sh")),
    ("coreutils", include_str!("../userland/coreutils.sh")),
    ("python", include_str!("../userland/python.sh")),
    ("gcc", include_str!("../userland/gcc.sh")),
    ("make", include_str!("../userland/make.sh")),
    ("git", include_str!("../userland/git.sh")),
    ("perl", include_str!("../userland/perl.sh")),
    ("strace", include_str!("../userland/strace.sh")),
    ("go", include_str!("../userland/go.sh")),
];

/// What is typed, and what must appear; the words that must appear are not in what is typed, for the terminal echoes.
const DIALOGUE: [(&str, &str); 6] = [
    ("echo a$((1+1))b\n", "a2b"),
    ("tty | cut -c1-5; stty size\n", "24 200"),
    ("sh -c 'echo up$((1+1)); exec sleep 1000'\n\u{3}echo int=$?\n", "int=130"),
    ("sh -c 'echo up$((1+1)); exec sleep 1000'\n\u{1a}jobs | tr a-z A-Z\n", "STOPPED"),
    ("kill -9 %1; wait; echo done$((40+2))\n", "done42"),
    ("for i in 1 2 3; do echo -n $((i*11)),; done; echo\n", "11,22,33,"),
];

/// What a program of the dialogue says when it runs.
const RUNS: &str = "up2";

/// Runs what the options select.
///
/// # Errors
/// When the root or the runtime cannot be made.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let root = rootfs::ensure(false)?;
    let runtime = Runtime::from_options(options)?;
    let mut report = Report::default();
    for (name, script) in SCRIPTS.iter().filter(|(name, _)| options.selects(name)) {
        report.record(name, same_as_native(&runtime, &root, script));
    }
    if options.selects("interactive") {
        let args = ["bash", "--norc", "-i"];
        let native = bundle::native_command(&root, &args);
        report
            .record("interactive bash, natively", native.and_then(|(command, _scratch)| dialogue(&command)));
        let sandboxed = Bundle::scratch(&runtime, &root, &args, true).and_then(|bundle| {
            let mut command: Command = runtime.command();
            command.arg("run").arg("--bundle").arg(&bundle.dir).arg(crate::run::unique("pty"));
            dialogue(&command)
        });
        report.record("interactive bash", sandboxed);
    }
    Ok(report)
}

fn same_as_native(runtime: &Runtime, root: &Path, script: &str) -> Result<()> {
    let args = ["bash", "-c", script];
    let native = bundle::native(root, &args, LIMIT)?;
    ensure!(!native.timed_out, "natively, too slow");
    ensure!(
        native.code == 7,
        "natively, exit status {}, not 7: {}{}",
        native.code,
        native.stdout,
        native.stderr
    );
    let bundle = Bundle::scratch(runtime, root, &args, false)?;
    same(&native, &runtime.run(&bundle, LIMIT)?)
}

fn same(native: &Output, got: &Output) -> Result<()> {
    ensure!(!got.timed_out, "did not end; so far:\n{}{}", got.stdout, got.stderr);
    let first = native.stdout.lines().zip(got.stdout.lines()).find(|(want, got)| want != got);
    if let Some((want, got)) = first {
        anyhow::bail!("prints {got:?}, natively {want:?}");
    }
    ensure!(
        native.stdout == got.stdout && native.code == got.code,
        "exit status {}, natively {}; {} bytes of output, natively {}; standard error:\n{}",
        got.code,
        native.code,
        got.stdout.len(),
        native.stdout.len(),
        got.stderr
    );
    Ok(())
}

fn dialogue(command: &Command) -> Result<()> {
    let limit = Duration::from_secs(15);
    let mut session = Session::start(command)?;
    session.send("PS1='pro''mpt> '\n")?;
    session.expect("prompt> ", limit)?;
    for (typed, wanted) in DIALOGUE {
        // A key that interrupts is typed when the program before it runs, which says so.
        let mut parts = typed.splitn(2, ['\u{3}', '\u{1a}']);
        let line = parts.next().unwrap_or_default();
        session.send(line)?;
        if let Some(rest) = parts.next() {
            session.expect(RUNS, limit)?;
            let key: String = typed.chars().filter(|c| matches!(c, '\u{3}' | '\u{1a}')).collect();
            session.send(&key)?;
            session.expect("prompt> ", limit)?;
            session.send(rest)?;
        }
        session.expect(wanted, limit)?;
        session.expect("prompt> ", limit)?;
    }
    session.send("exit 9\n")?;
    let code = session.finish(limit)?;
    ensure!(code == 9, "exit status {code}, not 9");
    Ok(())
}
