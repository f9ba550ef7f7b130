//! `exec`, and terminals.

use super::Case;
use super::subject::{LIMIT, Made, Subject};
use crate::run;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

pub(super) const CASES: &[Case] = &[
    ("exec: a program", |s| prints(s, &[], &["echo", "hello"], "hello")),
    ("exec: the exit status", exit_status),
    ("exec --cwd", |s| prints(s, &["--cwd", "/usr"], &["pwd"], "/usr")),
    ("exec --env", |s| prints(s, &["--env", "A=1", "--env", "B=2"], &["sh", "-c", "echo $A$B"], "12")),
    ("exec --user", |s| prints(s, &["--user", "7:8"], &["sh", "-c", "id -u; id -g"], "7\n8")),
    ("exec --additional-gids", |s| {
        prints(s, &["--user", "7:8", "--additional-gids", "9"], &["id", "-G"], "8 9")
    }),
    ("exec --cap", |s| {
        prints(
            s,
            &["--cap", "CAP_SYS_CHROOT"],
            &["sh", "-c", "grep CapBnd /proc/self/status | cut -f2"],
            "00000000280400e3",
        )
    }),
    ("exec --process", from_file),
    ("exec --detach and --pid-file", detached),
    ("exec: a program that is not there is an error", no_program),
    ("exec: without a program is an error", |s| failing(s, &[])),
    ("exec: a container that has stopped is an error", stopped),
    ("exec: a container that is not there is an error", |s| s.fails(&["exec", "none", "true"]).map(drop)),
    ("exec: it sees the container's processes", |s| {
        prints(s, &[], &["sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline | cut -c1-2"], "sh")
    }),
    ("exec: it is in the container's root", |s| {
        prints(s, &[], &["sh", "-c", "echo x > /tmp/y; cat /tmp/y"], "x")
    }),
    ("exec: several at once", several),
    ("exec: the container lives on", lives_on),
    ("exec: input is passed on", input),
    ("exec --tty and --console-socket", exec_terminal),
    ("exec --preserve-fds", preserve),
    ("create --console-socket", create_terminal),
    ("create: a terminal without a socket is an error", terminal_without_socket),
    ("process.consoleSize", console_size),
];

fn container(subject: &Subject) -> Result<Made<'_>> {
    subject.started("{}", "while :; do sleep 0.05; done")
}

fn prints(subject: &Subject, flags: &[&str], args: &[&str], want: &str) -> Result<()> {
    let made = container(subject)?;
    let got = subject.ok(&[&["exec"], flags, &[&made.id], args].concat())?;
    ensure!(got == want, "prints {got:?}, not {want:?}");
    Ok(())
}

fn failing(subject: &Subject, args: &[&str]) -> Result<()> {
    let made = container(subject)?;
    subject.fails(&[&["exec", &made.id], args].concat()).map(drop)
}

fn no_program(subject: &Subject) -> Result<()> {
    failing(subject, &["no-such-program"])?;
    failing(subject, &["/no/such/program"])
}

fn exit_status(subject: &Subject) -> Result<()> {
    let made = container(subject)?;
    for status in [0, 5, 255] {
        let out = subject.verb(&["exec", &made.id, "sh", "-c", &format!("exit {status}")])?;
        ensure!(out.code == status, "{status} becomes {}", out.code);
    }
    let out = subject.verb(&["exec", &made.id, "sh", "-c", "kill -TERM $$"])?;
    ensure!(out.code == 143, "a signal becomes {}", out.code);
    Ok(())
}

fn from_file(subject: &Subject) -> Result<()> {
    let made = container(subject)?;
    let file = made.bundle.0.join("process.json");
    let text = r#"{"user":{"uid":3,"gid":4},"args":["sh","-c","id -u; pwd; echo $X"],"env":["X=y","PATH=/bin:/usr/bin"],"cwd":"/usr"}"#;
    std::fs::write(&file, text)?;
    let got = subject.ok(&["exec", "--process", &file.display().to_string(), &made.id])?;
    ensure!(got == "3\n/usr\ny", "{got:?}");
    Ok(())
}

fn detached(subject: &Subject) -> Result<()> {
    let made = container(subject)?;
    let file = made.bundle.0.join("pid").display().to_string();
    subject.ok(&[
        "exec",
        "--detach",
        "--pid-file",
        &file,
        &made.id,
        "sh",
        "-c",
        "echo ran > /tmp/mark; sleep 1000",
    ])?;
    let pid: u32 = made.text("pid").trim().parse().context("no pid")?;
    ensure!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "there is no process {pid}");
    let mark = || subject.ok(&["exec", &made.id, "cat", "/tmp/mark"]).ok();
    run::until("the program has run", LIMIT, || mark().filter(|text| text == "ran")).map(drop)
}

fn stopped(subject: &Subject) -> Result<()> {
    let made = subject.started("{}", "true")?;
    made.becomes("stopped")?;
    subject.fails(&["exec", &made.id, "true"]).map(drop)
}

fn several(subject: &Subject) -> Result<()> {
    let made = container(subject)?;
    let children: Vec<_> = (0..10)
        .map(|number| subject.command(&["exec", &made.id, "sh", "-c", &format!("exit {number}")]).spawn())
        .collect::<std::io::Result<_>>()?;
    for (number, mut child) in (0..).zip(children) {
        let (status, late) = run::wait_deadline(&mut child, LIMIT)?;
        ensure!(!late && status.code() == Some(number), "{number} becomes {status}");
    }
    Ok(())
}

fn lives_on(subject: &Subject) -> Result<()> {
    let made = container(subject)?;
    subject.verb(&["exec", &made.id, "sh", "-c", "kill -KILL $$"])?;
    ensure!(made.status()? == "running", "it is {}", made.status()?);
    Ok(())
}

fn input(subject: &Subject) -> Result<()> {
    let made = container(subject)?;
    let mut command = subject.command(&["exec", &made.id, "sh", "-c", "read line; test \"$line\" = words"]);
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(b"words\n")?;
    let (status, late) = run::wait_deadline(&mut child, LIMIT)?;
    ensure!(!late && status.success(), "{status}");
    Ok(())
}

fn preserve(subject: &Subject) -> Result<()> {
    let made = container(subject)?;
    let mut command = Command::new("bash");
    let own = subject.command(&["exec", "--preserve-fds", "1", &made.id, "sh", "-c", "cat <&3"]);
    command
        .args(["-c", "exec 3< <(echo passed); exec \"$@\"", "bash"])
        .arg(own.get_program())
        .args(own.get_args());
    let out = run::output(&mut command, LIMIT)?;
    ensure!(out.stdout == "passed\n", "{out:?}");
    Ok(())
}

/// Takes a terminal from a socket, and stands between it and its own streams. (Receiving a descriptor is unsafe in Rust.)
const RELAY: &str = "
import os, socket, sys, threading
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
print('listening', flush=True)
stream, _ = listener.accept()
_, fds, _, _ = socket.recv_fds(stream, 4096, 1)
terminal = fds[0]
def copy(source, sink):
    try:
        while data := os.read(source, 4096):
            os.write(sink, data)
    except OSError:
        pass
threading.Thread(target=copy, args=(0, terminal), daemon=True).start()
copy(terminal, 1)
";

/// A socket for a terminal, and then the terminal; ended with the value.
struct Console {
    path: PathBuf,
    relay: Child,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Console {
    fn new() -> Result<Self> {
        // A short path: sockets have no room for a long one.
        let path = PathBuf::from(format!("/tmp/{}.sock", run::unique("oci-console")));
        let mut command = Command::new("python3");
        command.args(["-c", RELAY]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut relay = command.spawn()?;
        let mut reader = relay.stdout.take().context("no output")?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buf = [0; 1024];
            while let Ok(n @ 1..) = reader.read(&mut buf) {
                if sender.send(buf.iter().take(n).copied().collect()).is_err() {
                    break;
                }
            }
        });
        let mut console = Self { path, relay, output, seen: String::new() };
        console.expect("listening")?;
        Ok(console)
    }

    fn socket(&self) -> String {
        self.path.display().to_string()
    }

    fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.relay.stdin.as_mut().context("no input")?.write_all(text.as_bytes())?)
    }

    /// Waits until this appears.
    fn expect(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.output.recv_timeout(left) else {
                bail!("{text:?} does not appear in {:?}", self.seen);
            };
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        Ok(())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        drop(self.relay.kill().and_then(|()| self.relay.wait()));
        drop(std::fs::remove_file(&self.path));
    }
}

fn create_terminal(subject: &Subject) -> Result<()> {
    let mut console = Console::new()?;
    let bundle =
        subject.bundle(r#"{"process":{"terminal":true}}"#, "tty; read line; echo got $line; sleep 1000")?;
    let made = subject.create(bundle, &["--console-socket", &console.socket()])?;
    made.ok("start", &[])?;
    console.expect("/dev/pts/0")?;
    console.send("words\n")?;
    console.expect("got words")
}

fn exec_terminal(subject: &Subject) -> Result<()> {
    let made = container(subject)?;
    let mut console = Console::new()?;
    let socket = console.socket();
    let flags = ["exec", "--tty", "--detach", "--console-socket", &socket, &made.id, "sh", "-c"];
    subject.ok(&[&flags[..], &["tty; read line; echo got $line; sleep 1000"]].concat())?;
    console.expect("/dev/pts/0")?;
    console.send("words\n")?;
    console.expect("got words")
}

fn terminal_without_socket(subject: &Subject) -> Result<()> {
    let bundle = subject.bundle(r#"{"process":{"terminal":true}}"#, "true")?;
    subject.fails(&["create", "--bundle", &bundle.0.display().to_string(), "none"]).map(drop)
}

fn console_size(subject: &Subject) -> Result<()> {
    let mut console = Console::new()?;
    let patch = r#"{"process":{"terminal":true,"consoleSize":{"height":11,"width":22}}}"#;
    let bundle = subject.bundle(patch, "stty size; sleep 1000")?;
    let made = subject.create(bundle, &["--console-socket", &console.socket()])?;
    made.ok("start", &[])?;
    console.expect("11 22")
}
